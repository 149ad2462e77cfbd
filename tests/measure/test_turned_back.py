"""The monitor of turning back: counted by hand, and on a stream on which adaptation collapses beside one on which it does not."""

import pytest
import torch
from torch import nn

from everlearn import SAR, Batch, Rollback, Tent, compare, run
from everlearn.core.budget import Budget
from everlearn.core.monitor import Step
from everlearn.core.random import isolated
from everlearn.core.run import Fold
from everlearn.core.state import capture, restore, same
from everlearn.core.stream import HeldOut
from everlearn.measure.monitors import standard
from everlearn.measure.report.words import sentences
from everlearn.measure.turned_back import TurnedBack

LABELLED, FREE, ROWS = 3, 60, 20


def network(seed=0):
    with isolated(seed):
        model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[3].weight.mul_(6.0)
    return model


def rows(seed, count, random):
    return torch.randn(count, ROWS, 4, generator=random) + 0.1 * seed


@pytest.fixture
def unlabelled(listed):
    """A few labelled batches, which have no place in the counts of what adapts, and many without labels."""

    def make(seed=0):
        random = torch.Generator().manual_seed(seed + 1)
        labelled, free = rows(seed, LABELLED, random), rows(seed, FREE, random)
        events = [Batch(x, torch.arange(ROWS) % 3) for x in labelled] + [Batch(x) for x in free]
        held = HeldOut("all", rows(seed, 1, random)[0], torch.arange(ROWS) % 3)
        return listed(events, held_out=(held,), checkpoints=(LABELLED, len(events)), deployed=LABELLED)

    return make


def watched(lr, seed=0, **arguments):
    return Rollback(Tent(network(seed), lr=lr), **{"every": 2, "window": 60, "limit": 2, **arguments})


def watch(learner, stream):
    return run(learner, stream, monitors=standard(stream, learner)).figures["turned_back"]


def test_by_hand():
    """Two turns before the fold, then one at event 2 and two at event 4, with which it stops."""
    monitor, learner = TurnedBack(), watched(0.1)
    learner.history = [[3, "narrow", "source"], [8, "narrow", "source"]]

    def step(position, *turns, stopped=False):
        learner.history, learner.stopped = [*learner.history, *turns], stopped
        monitor.observe(Step(position, Batch(torch.zeros(1, 4)), None, None, 0.0, 0.0), learner)

    monitor.start(learner, None)
    step(0)
    assert monitor.figures() == {"turned_back": 0, "events": [], "stopped": None}
    step(2, [9, "crowded", "last_good"])
    step(3)
    assert monitor.figures() == {"turned_back": 1, "events": [[2, "last_good", "crowded"]], "stopped": None}
    step(4, [11, "narrow", "source"], [12, "crowded", "source"], stopped=True)
    step(5, stopped=True)
    later = [[4, "source", "narrow"], [4, "source", "crowded"]]
    assert monitor.figures() == {"turned_back": 3, "events": [[2, "last_good", "crowded"], *later], "stopped": 4}
    assert monitor.record(learner) == {"turned_back": 3}
    monitor.start(Tent(network()), None)
    assert monitor.figures() == monitor.record(learner) == {}


def test_where_adaptation_collapses_each_turn_is_told_with_its_event(unlabelled):
    learner = watched(0.3)
    found = watch(learner, unlabelled())
    assert found["turned_back"] == len(learner.history) == 3 and learner.stopped
    assert found["events"] == [[LABELLED + seen - 1, to, wrong] for seen, wrong, to in learner.history]
    assert found["stopped"] == found["events"][-1][0] and found["events"][-1][1] == "source"


def test_where_it_does_not_or_nobody_watches_there_is_nothing_to_tell(unlabelled):
    """The controls: a rate at which nothing collapses, the watch switched off, and learners that tell of no turning back."""
    still = {"turned_back": 0, "events": [], "stopped": None}
    assert watch(watched(0.0001), unlabelled()) == still
    assert watch(watched(0.3, variety=1.0, crowding=1.0, agreement=0.0), unlabelled()) == still
    assert watch(Tent(network(), lr=0.3), unlabelled()) == watch(SAR(network()), unlabelled()) == {}


def test_state_in_the_middle_goes_on_to_the_same_figures(unlabelled):
    stream, learner = unlabelled(), watched(0.3)
    whole, half, rest = TurnedBack(), TurnedBack(), TurnedBack()
    for monitor in (whole, half, rest):
        monitor.start(learner, stream)
    first = Fold(learner, stream, Budget(), [whole, half])
    middle = 14
    for index in range(middle):
        first.step(stream[index])
    assert 0 < half.figures()["turned_back"] < 3
    restore(rest, capture(half))
    later = Fold(learner, stream, Budget(), [whole, rest])
    later.position = middle
    for index in range(middle, len(stream)):
        later.step(stream[index])
    assert same(capture(whole), capture(rest)) and whole.figures()["turned_back"] == 3


def test_a_comparison_shows_it(unlabelled):
    made = {
        "fast": lambda schema, seed: watched(0.3, seed, limit=9),
        "slow": lambda schema, seed: watched(0.0001, seed),
        "alone": lambda schema, seed: Tent(network(seed), lr=0.3),
    }
    record = compare(made, unlabelled, seeds=2, engine="inline", baselines=False).record
    entries = {entry["label"]: entry for entry in record["learners"]}
    turns = [run["figures"]["turned_back"]["turned_back"] for run in entries["fast"]["runs"]]
    assert entries["fast"]["summary"]["turned_back"]["values"] == turns and min(turns) > 2
    assert entries["slow"]["summary"]["turned_back"]["mean"] == 0.0
    assert "turned_back" not in entries["alone"]["summary"]
    told = next(text for _, paragraphs in sentences(record) for text in paragraphs if text.startswith("`fast` turned back"))
    assert f"at event {entries['fast']['runs'][0]['figures']['turned_back']['events'][0][0]} to " in told
    curve = [
        point["turned_back"]["turned_back"] for point in entries["fast"]["runs"][0]["curve"] if point.get("turned_back")
    ]
    assert curve == sorted(curve) and curve[-1] == turns[0]
