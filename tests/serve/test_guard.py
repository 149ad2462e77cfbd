"""The guard: which candidates may serve, and when the version in service goes, on numbers worked by hand and over many seeds."""

import math

import pytest
import torch

from everlearn.core.agent import Agent, Decision
from everlearn.core.events import Batch, Feedback
from everlearn.core.learner import Adapter, Learner
from everlearn.core.monitor import Step
from everlearn.serve.guard import Guard, lower_bound
from everlearn.serve.options import Options


class Fixed(Learner):
    """Answers every row by its own list of labels, in turn."""

    name, parts = "fixed", ()

    def __init__(self, labels):
        self.labels = torch.as_tensor(labels)

    def predict(self, x):
        return torch.nn.functional.one_hot(self.labels[x[:, 0].long()], 2).float()

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


class Sure(Agent):
    """Always takes one action."""

    name, parts = "sure", ()

    def __init__(self, action):
        self.action = action

    def act(self, observation, key):
        return Decision(self.action, 1.0)

    def update(self, feedback):
        return {}


def guard_of(rows, service, parent=None, **options):
    """A guard, and a function that shows it rows first..last with the candidate's labels; every label is 1."""
    guard = Guard(Options(**{"window": 40, "least": 10, "margin": 0.05, **options}), "classes", 2)
    guard.service, guard.parent = Fixed(service), None if parent is None else Fixed(parent)

    def show(first, last, candidate):
        x = torch.arange(first, last).float()[:, None]
        scores = torch.nn.functional.one_hot(torch.as_tensor(candidate[first:last]), 2).float()
        guard.begin_step()
        guard.observe(Step(0, Batch(x, torch.ones(last - first, dtype=torch.int64)), scores, {}, 0.0, 0.0), Fixed([0]))

    return guard, show


def test_a_candidate_serves_unless_it_is_worse_by_more_than_the_margin():
    right, wrong = [1] * 20, [0] * 20
    mixed = [1] * 19 + [0]  # 0.95 beside 1.0: exactly the margin
    for candidate, service, promote in (
        (right, wrong, True),
        (wrong, right, False),
        (mixed, right, True),
        ([1] * 18 + [0] * 2, right, False),
    ):
        guard, show = guard_of(20, service)
        show(0, 20, candidate)
        assert guard.verdict().promote is promote
        assert guard.verdict().rows == 20


def test_few_rows_decide_nothing_and_a_guard_switched_off_everything():
    guard, show = guard_of(9, [0] * 9)
    show(0, 9, [1] * 9)
    assert not guard.verdict().promote and "only 9" in guard.verdict().reason
    guard, show = guard_of(9, [1] * 9, guard=False)
    show(0, 9, [0] * 9)
    assert guard.verdict().promote and guard.verdict().rows == 0


def test_only_the_newest_rows_count():
    service = [1] * 60
    guard, show = guard_of(60, service)
    candidate = [0] * 20 + [1] * 40
    show(0, 60, candidate)
    assert guard.verdict().promote and guard.verdict().score == 1.0


def test_answers_that_are_not_finite_do_not_serve_and_do_not_stay():
    guard, _ = guard_of(20, [1] * 20)
    y = torch.ones(20, dtype=torch.int64)
    guard.observe(Step(0, Batch(torch.zeros(20, 1), y), torch.full((20, 2), math.nan), {}, 0.0, 0.0), Fixed([0]))
    assert not guard.verdict().promote and "not finite" in guard.verdict().reason


def test_looks_fall_on_doubled_rows_and_then_on_every_window():
    guard, show = guard_of(200, [0] * 200, parent=[1] * 200)
    looked = []
    for row in range(0, 200, 2):
        show(row, row + 2, [0] * 200)
        if guard.looks:
            looked.append(guard.since)
    assert looked == [10, 20, 40, 80, 120, 160, 200]


def test_a_version_that_is_worse_than_its_parent_goes():
    guard, show = guard_of(10, [0] * 10, parent=[1] * 10)
    show(0, 10, [0] * 10)
    assert "worse by more than 0.05" in guard.regret()
    assert guard.regret() is not None  # asking again changes nothing
    guard, show = guard_of(10, [1] * 10, parent=[1] * 10)
    show(0, 10, [1] * 10)
    assert guard.regret() is None


def test_all_looks_together_keep_the_confidence():
    """Three looks up to the window (10, 20, 40): each asks for 1 - 0.05 / 3. Nine rows in ten better, one worse: by hand."""
    service, parent = [0] * 9 + [1], [1] * 9 + [0]
    guard, show = guard_of(10, service, parent=parent)
    show(0, 10, service)
    differences = [1.0] * 9 + [-1.0]
    assert lower_bound(differences, 1 - 0.05 / 3) > 0.05
    assert guard.regret() is not None
    close = [1.0] * 3 + [0.0] * 7  # better at 95 %, not at 98.3 %
    assert lower_bound(close, 0.95) > 0.01 > lower_bound(close, 1 - 0.05 / 3)
    guard, show = guard_of(10, [0] * 3 + [1] * 7, parent=[1] * 10, margin=0.01)
    show(0, 10, [1] * 10)
    assert guard.regret() is None


def test_an_equal_parent_rarely_wins_by_chance():
    """Both right half the time, by chance: at most 5 % of 120 versions go within their first window, and the control nearly always."""
    gone = control = 0
    for seed in range(120):
        chance = torch.Generator().manual_seed(seed)
        service, parent = (torch.randint(0, 2, (200,), generator=chance).tolist() for _ in range(2))
        better = [1 if torch.rand((), generator=chance) < 0.9 else 0 for _ in range(200)]
        for name, rival in (("equal", parent), ("better", better)):
            guard, show = guard_of(200, service, parent=rival, window=200, least=30, margin=0.0)
            went = False
            for row in range(0, 200, 10):
                show(row, row + 10, service)
                went = went or guard.regret() is not None
            gone += went and name == "equal"
            control += went and name == "better"
    assert gone <= 6
    assert control >= 117


def test_a_version_new_in_service_is_judged_anew():
    guard, show = guard_of(10, [0] * 10, parent=[1] * 10)
    show(0, 10, [0] * 10)
    guard.settled()
    assert (guard.figures()["rows"], guard.since, guard.regret()) == (0, 0, None)


def test_policies_are_scored_by_what_they_would_have_earned():
    """Logged with propensity 0.25: the policy that takes the logged action earns reward / 0.25, another one nothing."""
    guard = Guard(Options(window=40, least=2, margin=0.0), "actions")
    guard.service = Sure(1)
    for number in range(4):
        feedback = Feedback(str(number), torch.zeros(1, 2), 0, 0.25, 2.0)
        guard.observe(Step(number, feedback, None, {}, 0.0, 0.0), Sure(0))
    assert (guard.verdict().score, guard.verdict().service_score, guard.verdict().promote) == (8.0, 0.0, True)


def test_values_are_scored_by_their_mean_absolute_error():
    guard = Guard(Options(window=40, least=1), "values")
    guard.service = Fixed([0, 1])
    y = torch.tensor([[1.0, 2.0]])
    guard.observe(Step(0, Batch(torch.zeros(1, 1), y), torch.tensor([[2.0, 4.0]]), {}, 0.0, 0.0), Fixed([0]))
    assert guard.figures()["candidate"] == -1.5
    assert guard.figures()["service"] == -1.0  # answers (1, 0)


class Collapsing(Adapter):
    name, parts = "collapsing", ()

    def predict(self, x):
        return torch.zeros(len(x), 2)

    def adapt(self, x):
        return self.predict(x)

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


@pytest.mark.parametrize(("answers", "promote"), [([0, 1] * 10, True), ([1] * 20, False)], ids=["varied", "collapsed"])
def test_without_labels_answers_may_not_collapse(answers, promote):
    guard, _ = guard_of(20, [0, 1] * 10)
    x = torch.arange(20).float()[:, None]
    scores = torch.nn.functional.one_hot(torch.tensor(answers), 2).float()
    guard.observe(Step(0, Batch(x), scores, None, 0.0, 0.0), Collapsing())
    assert guard.verdict().promote is promote
    assert ("collapse" in guard.verdict().reason) is not promote


def test_the_limit_of_collapse_is_half_of_the_entropy_in_service():
    """Of 20 answers in service half are of each kind: ln 2 = 0.693, half of it 0.347. 18 to 2 have 0.325, 17 to 3 have 0.423."""
    x = torch.arange(20).float()[:, None]
    told = {}
    for rare in (2, 3):
        guard, _ = guard_of(20, [0, 1] * 10)
        scores = torch.nn.functional.one_hot(torch.tensor([1] * rare + [0] * (20 - rare)), 2).float()
        guard.observe(Step(0, Batch(x), scores, None, 0.0, 0.0), Collapsing())
        told[rare] = guard.verdict()
    assert not told[2].promote and told[3].promote
    assert told[2].reason == "its answers collapse: their entropy over 20 rows is 0.325, 0.693 in service"


def test_the_bound_is_students():
    assert lower_bound([1.0, 2.0, 3.0], 0.95) == pytest.approx(2.0 - 2.919986 / math.sqrt(3), abs=1e-6)
    assert lower_bound([1.0], 0.95) is None and lower_bound([1.0, math.nan], 0.95) is None
    assert lower_bound([0.5, 0.5, 0.5], 0.95) == 0.5
