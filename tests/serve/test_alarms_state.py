"""A watch that is saved and restored, looks at the clock, and costs little."""

import copy
import json
import time
from dataclasses import fields, replace

import pytest

from everlearn import FineTune
from everlearn.core.errors import StateError
from everlearn.core.state import capture, digest, pack, restore, same, unpack
from everlearn.core.state import load as put_back
from everlearn.serve.alarms import Alarms, Watch
from everlearn.serve.input_spec import InputSpec

from .alarm_faults import CLASSES, FAULT, FAULTS, SMALL, late_and_missing, network, policy, quiet_values, server, shifted
from .toy_server import ToyServer, blobs

# ---- state -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["input_drift", "output_drift", "performance", "label_delay", "missing_labels", "propensity"]
)
@pytest.mark.parametrize("cut", [FAULT - 32, *[pytest.param(cut, marks=pytest.mark.slow) for cut in (500, FAULT + 160)]])
def test_a_watch_that_is_restored_raises_the_same_alarms_and_ends_in_the_same_bits(kind, cut):
    make, act, within, _ = FAULTS[kind]
    toy = make()
    watch = Watch(SMALL, toy.spec)
    toy.run(watch, cut, act)
    data, tree = pack(capture(watch))
    other, twin = Watch(SMALL, toy.spec), copy.deepcopy(toy)
    put_back(other, unpack(data, json.loads(json.dumps(tree))))
    assert same(capture(other), capture(watch))
    rows = FAULT + within - cut + 400
    assert toy.run(watch, rows, act) == (rest := twin.run(other, rows, act))
    if cut < FAULT:
        assert kind in {alarm.kind for _, alarm in rest}
    assert digest(capture(other)) == digest(capture(watch))


def test_looking_with_a_clock_changes_nothing_that_is_observed():
    watch = Watch(SMALL, CLASSES)
    toy = server()
    toy.run(watch, 600)
    before = digest(capture(watch))
    watch.look(2e9, {"answers": 5, "seconds": 1e6}, {"waiting": 9, "limit": 9}, oldest_early=0.0, asked=500, unanswered=500)
    assert digest(capture(watch)) == before


def test_observing_changes_neither_the_learner_nor_the_moment():
    toy, watch = server(), Watch(SMALL, CLASSES)
    toy.run(watch, 2400)
    for _ in range(25):
        moment = toy.step()
        metrics = toy.learn(moment)
        state, kept = digest(toy.learner.state_dict()), copy.deepcopy(moment)
        watch.observe(moment, toy.learner, metrics)
        assert digest(toy.learner.state_dict()) == state
        assert moment == kept


def test_the_state_of_other_limits_or_other_rows_is_refused():
    state = capture(Watch(SMALL, CLASSES))
    others = (
        Watch(replace(SMALL, psi=None), CLASSES),
        Watch(replace(SMALL, window=50), CLASSES),
        Watch(SMALL, replace(CLASSES, shape=(9,))),
        Watch(SMALL, replace(CLASSES, classes=("a", "b"))),
    )
    for other in others:
        before = capture(other)
        with pytest.raises(StateError):
            put_back(other, state)
        assert same(capture(other), before)
    restore(Watch(SMALL, CLASSES), state)


def test_state_does_not_grow():
    toy, watch = server(delay=late_and_missing), Watch(SMALL, CLASSES)
    sizes = []
    for _ in range(3):
        toy.run(watch, 4000)
        data, tree = pack(capture(watch))
        sizes.append(len(data) + len(json.dumps(tree)))
    assert max(sizes) < 80_000
    assert sizes[2] < sizes[0] + 10_000


def test_every_limit_that_is_off_leaves_nothing_to_do():
    limits = {field.name: None for field in fields(Alarms) if "None" in str(field.type)}
    watch = Watch(Alarms(**limits), CLASSES)
    assert watch.trackers == {}
    assert server(shifted, delay=lambda _: None).run(watch, 2000) == []
    assert watch.look(1e9, {"seconds": 1e9}, {"waiting": 9, "limit": 1}, oldest_early=0.0) == []


@pytest.mark.parametrize("make", [server, policy, lambda: quiet_values(0)])
def test_moments_without_rows_or_with_corrections_alone_are_taken(make):
    toy = make()
    watch = Watch(SMALL, toy.spec)
    toy.run(watch, 320)
    moment = toy.step()
    assert watch.observe(replace(moment, inputs=(), answers=()), toy.learner, {}) == []
    corrections = tuple(replace(answer, revision=1) for answer in moment.answers)
    before = capture(watch.trackers["errors"])
    assert watch.observe(replace(moment, inputs=(), answers=corrections), toy.learner, {}) == []
    assert same(capture(watch.trackers["errors"]), before)


# ---- with the clock ----------------------------------------------------------------------------------------------------------


GOOD = {"now": 1e9, "lag": {"events": 0, "answers": 0, "seconds": 0.0}, "queue": {"waiting": 0, "limit": 100}}


TROUBLE = {
    "lag": {"lag": {"events": 9, "answers": 7, "seconds": 601.0}},
    "queue": {"queue": {"waiting": 81, "limit": 100}},
    "early": {"oldest_early": 1e9 - 901.0},
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_looking_tells_each_kind_once_until_it_is_over(kind):
    watch = Watch(SMALL, CLASSES)
    bad = {**GOOD, **TROUBLE[kind]}
    assert watch.look(**GOOD) == []
    (alarm,) = watch.look(**bad, seq=7)
    assert (alarm.kind, alarm.seq, alarm.time) == (kind, 7, 1e9)
    assert alarm.value > alarm.limit == getattr(SMALL, kind)
    assert watch.look(**bad) == []
    assert watch.raised == (kind,)
    assert watch.look(**GOOD) == []
    assert watch.raised == ()
    assert [again.kind for again in watch.look(**bad)] == [kind]
    assert Watch(replace(SMALL, **{kind: None}), CLASSES).look(**bad) == []


def test_answers_that_stop_are_missed_by_the_clock_where_nothing_is_folded():
    toy, watch = server(), Watch(SMALL, CLASSES)
    assert watch.patience is None
    assert watch.look(**GOOD, asked=500, unanswered=500) == []
    toy.run(watch, 1600)
    assert watch.patience == pytest.approx(1.0, abs=0.1)
    assert watch.look(**GOOD, asked=500, unanswered=100) == []
    assert watch.look(**GOOD, asked=SMALL.window - 1, unanswered=SMALL.window - 1) == []
    (alarm,) = watch.look(**GOOD, asked=500, unanswered=400)
    assert (alarm.kind, alarm.value) == ("missing_labels", 0.8)


def test_what_the_log_has_told_the_clock_does_not_tell_again():
    make, _, within, _ = FAULTS["missing_labels"]
    toy = make()
    watch = Watch(SMALL, CLASSES)
    toy.run(watch, FAULT + within)
    assert "missing_labels" in watch.raised
    assert watch.look(**GOOD, asked=500, unanswered=500) == []


# ---- cost --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_watching_costs_about_a_step_of_the_smallest_learner():
    """32 rows of 64 columns and 10 classes, processor time; the learner is one plain step of a network of 100 hidden units."""
    spec = InputSpec("classes", (64,), "float32", classes=tuple(map(str, range(10))))
    toy = ToyServer(FineTune(network(0, 64, 10)), spec, blobs(0, 64, 10, 3.0))
    watch, watched, learned = Watch(Alarms(), spec), [], []
    toy.run(watch, 3200)
    for _ in range(600):
        moment = toy.step()
        start = time.thread_time()
        metrics = toy.learn(moment)
        between = time.thread_time()
        watch.observe(moment, toy.learner, metrics)
        watched.append(time.thread_time() - between)
        learned.append(between - start)
    ours, theirs = sum(watched) / 600, sum(learned) / 600
    print(f"observe {1e3 * ours:.3f} ms (median {1e3 * sorted(watched)[300]:.3f}), learn {1e3 * theirs:.3f} ms")
    assert ours < 2.5 * theirs
