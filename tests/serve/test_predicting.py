"""What answers: one forward pass for a group, the version in service, who is turned away."""

from concurrent.futures import Future

import pytest
import torch

from everlearn.agents.uniform import Uniform
from everlearn.core.errors import InputError, ServeError
from everlearn.core.stream import Schema
from everlearn.learners.fine_tune import FineTune
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.options import Options
from everlearn.serve.predicting import GROUP_ROWS, Predicting, outputs_of, refusal
from everlearn.serve.records import Ask

SPEC = InputSpec("classes", (2,), "float32", classes=("a", "b"))


class Waiting:
    """A log that answers when it is told to."""

    def __init__(self):
        self.asked = []
        self.answering = None

    def ask(self, asks, future):
        self.asked.append((asks, future))
        return future

    def keep(self, asked):
        future = Future()
        self.asked.append((asked, future))
        return future


def model(weight):
    network = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(network.weight, 0.0)
    network.bias.data = torch.tensor([0.0, weight])
    return FineTune(network)


@pytest.fixture
def log():
    return Waiting()


@pytest.fixture
def predicting(log):
    made = Predicting(log, SPEC, Options(queue=2))
    made.swap(3, model(1.0))
    return made


def ask(*ids):
    return [Ask(id, SPEC.row([0, 1])) for id in ids]


def refused(code, call, *given):
    with pytest.raises(ServeError) as caught:
        call(*given)
    assert caught.value.code == code


def test_a_group_is_answered_by_the_version_in_service(predicting, log):
    answered = log.answering([ask("x", "y"), ask("z")])
    assert [[(row.id, output["answer"], version) for row, output, version in rows] for rows in answered] == [
        [("x", "b", 3), ("y", "b", 3)], [("z", "b", 3)],
    ]  # fmt: skip
    predicting.swap(4, model(-1.0))
    assert [(output["answer"], version) for _, output, version in log.answering([ask("x")])[0]] == [("a", 4)]


def test_nobody_is_answered_before_there_is_a_version(log):
    refused("not_ready", Predicting(log, SPEC, Options()).ask, ask("x"))


def test_requests_beyond_the_queue_are_turned_away_until_others_leave(predicting, log):
    predicting.ask(ask("x"))
    predicting.admit()
    assert predicting.waiting == 2
    refused("overloaded", predicting.ask, ask("z"))
    refused("overloaded", predicting.admit)
    log.asked[0][1].set_result([])
    predicting.ask(ask("z"))


def test_an_id_that_is_being_answered_is_turned_away_until_it_is(predicting, log):
    predicting.ask(ask("x", "y"))
    refused("in_progress", predicting.ask, ask("z", "y"))
    assert predicting.waiting == 1
    log.asked[0][1].set_exception(ServeError("conflict", "no", 422))
    predicting.ask(ask("z", "y"))


def test_after_closing_nobody_is_admitted(predicting):
    predicting.close()
    refused("not_ready", predicting.ask, ask("x"))


def test_a_request_that_the_learner_refuses_does_not_spoil_its_group(predicting, log):
    class Picky:
        def predict(self, x):
            if bool((x > 5).any()):
                raise InputError("too large")
            return torch.zeros(len(x), 2)

    predicting.swap(5, Picky())
    good, bad, other = log.answering([ask("x"), [Ask("y", SPEC.row([9, 9]))], ask("z")])
    assert (bad.code, bad.status) == ("invalid_request", 422)
    assert [row.id for row, _, _ in (*good, *other)] == ["x", "z"]


def test_many_rows_go_through_the_model_in_parts():
    sizes = []

    class Counting:
        def predict(self, x):
            sizes.append(len(x))
            return torch.zeros(len(x), 2)

    assert len(outputs_of(Counting(), SPEC, ask(*map(str, range(GROUP_ROWS + 10))))) == GROUP_ROWS + 10
    assert sizes == [GROUP_ROWS, 10]


def test_agents_decide_by_the_id_and_propensities_are_kept(log):
    agent = Uniform(actions=4, seed=1)
    spec = InputSpec.of(agent, Schema((2,), torch.float32, ()))
    predicting = Predicting(log, spec, Options())
    predicting.swap(0, agent)
    assert predicting.propensity() is None
    first, second = log.answering([ask("x"), ask("x")])
    assert first[0][1] == second[0][1]
    assert predicting.propensity() == {"least": 0.25, "effective": 1.0}
    predicting.record([(ask("y")[0], {"answer": 1, "propensity": 0.05}, 0)])
    weights = [4.0, 4.0, 20.0]
    assert predicting.propensity() == {
        "least": 0.05,
        "effective": pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights) / 3),
    }


def test_a_fault_of_the_server_is_not_the_callers():
    fault = RuntimeError("broken")
    assert refusal(fault) is fault
    assert refusal(InputError("no")).status == 422
