"""Sessions against numbers worked out by hand, and the published row that its formulas must give."""

import copy
import json
from statistics import fmean

import pytest
import torch

from everlearn import FewShot, FineTune, load, run
from everlearn.core.events import Batch, Boundary
from everlearn.core.monitor import Step
from everlearn.core.state import capture, restore
from everlearn.core.stream import HeldOut
from everlearn.data.few_shot import few_shot
from everlearn.measure.monitors import standard
from everlearn.measure.sessions import Sessions, harmonic_mean, performance_drop


def test_harmonic_mean():
    assert harmonic_mean(0.6, 0.4) == pytest.approx(0.48, abs=1e-12)
    assert harmonic_mean(0.7, 0.0) == 0.0 == harmonic_mean(0.0, 0.0)
    assert harmonic_mean(0.3, 0.3) == pytest.approx(0.3)


def test_the_published_row_of_cifar100():
    """Yang et al. (2023), arXiv 2302.03004: nine sessions, average 67.50, drop 26.41."""
    row = [82.52, 76.82, 73.34, 69.68, 66.19, 62.85, 60.96, 59.02, 56.11]
    assert fmean(row) == pytest.approx(67.4989, abs=5e-5)
    assert performance_drop(row) == pytest.approx(26.41, abs=1e-9)
    assert performance_drop([]) is None


def scores(*guesses, second=()):
    """Rows of scores over 4 classes with the highest for `guesses`, the next for `second`."""
    table = torch.zeros(len(guesses), 4)
    table[torch.arange(len(guesses)), list(guesses)] = 2.0
    if second:
        table[torch.arange(len(guesses)), list(second)] += 1.0
    return table


def held(*labels):
    return HeldOut("some", torch.zeros(len(labels), 4), torch.tensor(labels))


def watched(listed):
    monitor = Sessions()
    monitor.start(None, listed([], classes=("a", "b", "c", "d")))
    return monitor


def see(monitor, event):
    monitor.observe(Step(0, event, None, None, 0.0, 0.0), None)


def by_hand(monitor):
    """Two sessions of three sets: classes 0 and 1, then 2; class 3 never comes."""
    see(monitor, Boundary(0, (0, 1)))
    monitor.judge(0, 0, held(0, 0, 0, 0, 1), scores(0, 0, 0, 1, 1))  # 3/4 and 1/1
    monitor.judge(0, 1, held(2, 2), scores(2, 2))  # not seen: do not count
    monitor.judge(0, 2, held(3), scores(3))
    yield
    see(monitor, Boundary(1, (2,)))
    monitor.judge(1, 0, held(0, 0, 0, 0, 1), scores(0, 0, 2, 2, 2))  # 2/4 and 0/1
    monitor.judge(1, 1, held(2, 2), scores(2, 2))
    monitor.judge(1, 2, held(3), scores(3))
    yield


EXPECTED = {
    "all": [0.875, 0.5],
    "base": [0.875, 0.25],
    "new": [None, 1.0],
    "harmonic_mean": [None, 0.4],
    "classes": [2, 3],
    "average": 0.6875,
    "performance_drop": 0.375,
}


def test_by_hand(listed):
    """Classes count alike: session 0 is (3/4 + 1/1) / 2, not 4/5."""
    monitor = watched(listed)
    steps = by_hand(monitor)
    next(steps)
    assert monitor.record(None) == {"all": 0.875, "base": 0.875, "new": None, "harmonic_mean": None}
    assert monitor.record(None) == {}
    next(steps)
    assert monitor.record(None) == {"all": 0.5, "base": 0.25, "new": 1.0, "harmonic_mean": 0.4}
    assert json.loads(json.dumps(monitor.figures())) == EXPECTED


def test_only_classes_that_have_come_compete(listed):
    monitor = watched(listed)
    see(monitor, Batch(torch.zeros(2, 4), torch.tensor([0, 1])))  # labelled rows tell too
    see(monitor, Batch(torch.zeros(2, 4)))
    monitor.judge(0, 0, held(0, 1), scores(3, 3, second=(0, 0)))
    assert monitor.figures()["all"] == [0.5]
    see(monitor, Boundary(1, (3,)))
    monitor.judge(1, 0, held(0, 1), scores(3, 3, second=(0, 0)))
    assert monitor.figures()["all"] == [0.5, 0.0]
    assert monitor.figures()["new"] == [None, None], "class 3 has come and has no test row"


def test_before_the_first_checkpoint(listed):
    assert watched(listed).figures() == {
        "all": [], "base": [], "new": [], "harmonic_mean": [], "classes": [], "average": None, "performance_drop": None,
    }  # fmt: skip


def test_resumed_between_sessions(listed):
    broken, resumed = watched(listed), watched(listed)
    next(by_hand(broken))
    steps = by_hand(resumed)
    next(steps)
    see(resumed, Boundary(9, (3,)))  # what restoring must undo
    restore(resumed, capture(broken))
    next(steps)
    assert resumed.figures() == EXPECTED


def test_over_a_run_prototypes_keep_the_base_and_plain_steps_lose_it():
    stream = few_shot(load("digits"), base_classes=6, way=2, shot=5, sessions=2, epochs=3)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    kept, lost = (
        run(learner, stream, monitors=[Sessions()]).figures["sessions"]
        for learner in (FewShot(copy.deepcopy(network)), FineTune(copy.deepcopy(network), passes=20))
    )
    assert kept["classes"] == lost["classes"] == [6, 8, 10]
    assert min(kept["all"][0], lost["all"][0]) > 0.9
    assert kept["base"][-1] > 0.8 > 0.65 > lost["base"][-1]
    assert kept["harmonic_mean"][-1] > lost["harmonic_mean"][-1] + 0.1


def test_it_belongs_to_streams_of_few_shot_sessions_and_to_no_others(incremental):
    stream = few_shot(load("digits"), base_classes=6, way=2, sessions=2)
    assert stream.base_classes == stream.classes_of(0)
    assert "sessions" in [monitor.name for monitor in standard(stream)]
    assert "sessions" not in [monitor.name for monitor in standard(incremental())]
    assert incremental().base_classes == ()
    assert not Sessions().wants_prediction(Boundary(0))
