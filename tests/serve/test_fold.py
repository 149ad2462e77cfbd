"""Moments become the events that an offline run would see, and the whole fold continues from a snapshot to the bit."""

import math

import pytest
import torch

from everlearn import Agent, Batch, Budget, Decision, Feedback, Learner, Replay
from everlearn.core.agent import Agent as AgentBase
from everlearn.core.errors import InputError
from everlearn.core.random import isolated
from everlearn.core.run import Fold
from everlearn.core.state import digest, same
from everlearn.serve.alarm_limits import Alarms
from everlearn.serve.alarms import Watch
from everlearn.serve.fold import Live, Predictors, ServedFold, answered_score, events_of
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.options import Options
from everlearn.serve.records import Answer, Input, Moment

CLASSES = InputSpec("classes", (2,), "float32", classes=("a", "b"))
ACTIONS = InputSpec("actions", (2,), "float32")
VALUES = InputSpec("values", (2,), "float32", targets=("u", "v"))


def asked(seq, id="r", x=(0.0, 1.0), output=None):
    return Input(seq, id, CLASSES.row(list(x)), output or {"answer": "a", "probabilities": [0.5, 0.5]}, 0, float(seq))


def told(seq, id="r", y=1, x=(0.0, 1.0), output=None):
    output = output or {"answer": "a", "probabilities": [0.5, 0.5]}
    return Answer(seq, id, CLASSES.row(list(x)), output, 0, y, 0, 0.5, float(seq))


def moment(number, rows=8):
    chance = torch.Generator().manual_seed(number)
    x = torch.randn(rows, 2, generator=chance)
    y = (x[:, 0] > 0).long()
    first = number * 100
    inputs = tuple(asked(first + row, f"{number}-{row}", x[row].tolist()) for row in range(rows))
    answers = tuple(told(first + 50 + row, f"{number}-{row}", int(y[row]), x[row].tolist()) for row in range(rows))
    return Moment(0, number, first, first + 99, inputs, answers)


def learner():
    with isolated(0, "network"):
        network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return Replay(network, capacity=16)


def made(**options):
    return ServedFold(learner(), CLASSES, Options(**options), Watch(Alarms(), CLASSES))


def test_inputs_stand_before_answers_and_keep_ids_and_times():
    first, second = events_of(Moment(0, 1, 1, 4, (asked(1, "p"), asked(3, "q")), (told(2, "p"), told(4, "q", 0))), CLASSES)
    assert isinstance(first, Batch) and first.y is None and first.id == ("p", "q") and first.time.tolist() == [1.0, 3.0]
    assert second.y.tolist() == [1, 0] and second.id == ("p", "q") and second.time.tolist() == [2.0, 4.0]
    assert torch.equal(first.x, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


def test_what_did_not_come_is_no_event():
    assert events_of(Moment(0, 1, 1, 4, (), ()), CLASSES) == []
    assert len(events_of(Moment(0, 1, 1, 4, (asked(1),), ()), CLASSES)) == 1


def test_for_an_agent_each_answer_is_a_consequence_and_inputs_are_none():
    answer = told(2, "d", 2.5, output={"answer": 3, "propensity": 0.25})
    (event,) = events_of(Moment(0, 1, 1, 2, (asked(1),), (answer,)), ACTIONS)
    assert isinstance(event, Feedback)
    assert (event.id, event.action, event.propensity, event.reward) == ("d", 3, 0.25, 2.5)
    assert event.observation.shape == (1, 2)


def test_answers_are_scored_as_they_were_given():
    assert answered_score(told(1, y=0), CLASSES) == 1.0 and answered_score(told(1, y=1), CLASSES) == 0.0
    assert answered_score(told(1, y=[1.0, 5.0], output={"answer": [2.0, 3.0]}), VALUES) == -1.5
    assert answered_score(told(1, y=0.7, output={"answer": 1, "propensity": 1.0}), ACTIONS) == 0.7


def test_the_server_steps_as_an_offline_run_does():
    served, offline = made(), Fold(learner(), Live(CLASSES), Budget(), [])
    for number in range(1, 9):
        served.apply(moment(number))
        for event in events_of(moment(number), CLASSES):
            offline.step(event)
    assert served.sha256() == digest(offline.learner.state_dict())
    assert (served.number, served.applied_seq) == (8, 899)


@pytest.mark.parametrize("guard", [True, False])
def test_a_fold_continues_from_a_snapshot_to_the_bit(guard):
    whole, first = made(guard=guard), made(guard=guard)
    predictors = Predictors(learner())
    for fold in (whole, first):
        fold.put_into_service(0, predictors.of(learner().state_dict()), parent=None, before=None)
        for number in range(1, 6):
            fold.apply(moment(number))
    second = made(guard=guard)
    second.load_state_dict(first.state_dict())
    second.guard.service = predictors.of(learner().state_dict())
    for number in range(6, 11):
        whole.apply(moment(number))
        second.apply(moment(number))
    before, after = whole.state_dict(), second.state_dict()
    for state in (before, after):
        state["fold"]["meter"].pop("seconds")  # the clock's
    assert same(before, after)


def test_what_a_guard_of_other_parts_has_seen_begins_anew_and_the_learner_goes_on():
    fold, again = made(), made()
    fold.put_into_service(0, Predictors(learner()).blank(), parent=None, before=None)
    fold.apply(moment(1))
    state = fold.state_dict()
    state["fold"]["monitors"][0].pop("looks")
    again.load_state_dict(state)
    assert again.sha256() == fold.sha256()
    assert (fold.guard.figures()["rows"], again.guard.figures()["rows"]) == (8, 0)


def test_the_guard_does_not_change_what_is_learned():
    with_guard, without = made(), made(guard=False)
    with_guard.put_into_service(0, Predictors(learner()).blank(), parent=None, before=None)
    for number in range(1, 6):
        with_guard.apply(moment(number))
        without.apply(moment(number))
    assert with_guard.sha256() == without.sha256()
    assert (with_guard.guard.figures()["rows"], without.guard.figures()["rows"]) == (40, 0)


class Diverging(Learner):
    name, parts = "diverging", ()

    def predict(self, x):
        return torch.zeros(len(x), 2)

    def update(self, batch):
        return {} if batch.y is None else {"loss": torch.tensor(math.inf)}

    def boundary(self, boundary):
        pass


def test_a_loss_that_is_not_finite_is_refused_by_name():
    with pytest.raises(InputError, match="diverging: loss became inf in step 3"):
        ServedFold(Diverging(), CLASSES, Options()).apply(moment(3))


class Counting(AgentBase):
    name, parts = "counting", ("rewards",)

    def __init__(self):
        self.rewards = []

    def act(self, observation, key):
        return Decision(0, 0.5)

    def update(self, feedback):
        self.rewards.append(feedback.reward)
        return {}


def test_an_agent_learns_each_reward_once():
    agent = Counting()
    assert isinstance(agent, Agent)
    fold = ServedFold(agent, ACTIONS, Options())
    given = {"answer": 0, "propensity": 0.5}
    fold.apply(Moment(0, 1, 1, 4, (), (told(2, "p", 1.0, output=given), told(4, "q", 2.0, output=given))))
    assert agent.rewards == [1.0, 2.0]
    assert fold.score() == {"rows": 2, "value": 1.5}


def test_scores_are_those_of_the_newest_answers():
    fold = made(window=10)
    for number in range(1, 4):
        fold.apply(moment(number))
    answers = [answer for number in (1, 2, 3) for answer in moment(number).answers][-10:]
    assert fold.score() == {"rows": 10, "value": sum(answered_score(answer, CLASSES) for answer in answers) / 10}


def test_predictors_are_copies_that_only_predict():
    original = learner()
    predictor = Predictors(original).of(original.state_dict())
    network = predictor.descent.model
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())
    x = torch.randn(4, 2)
    before = predictor.predict(x)
    original.update(Batch(x, torch.tensor([0, 1, 0, 1])))
    assert torch.equal(before, predictor.predict(x))


def test_a_live_stream_has_no_events_by_number():
    assert len(Live(CLASSES)) == 0
    with pytest.raises(InputError, match="export the log"):
        Live(CLASSES)[0]
