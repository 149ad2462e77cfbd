"""Recurring streams: the same whoever asks in what order, nothing judged that is learned from, quick to make, exact to resume."""

import doctest
import importlib
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch, Boundary
from everlearn.core.run import run
from everlearn.data.class_schedule import Imbalanced
from everlearn.data.corruption import Corrupted
from everlearn.data.dataset import Data
from everlearn.data.delayed import delayed, event_sizes
from everlearn.data.folders import find
from everlearn.data.load import load
from everlearn.data.recurring import recurring
from everlearn.data.task_structure import STRUCTURES


def same(left, right):
    if isinstance(left, Boundary):
        return (left.task, left.classes) == (right.task, right.classes) and same(left.data, right.data)
    return torch.equal(left.x, right.x) and torch.equal(left.y, right.y)


def pictures(classes=4, per_class=30, channels=1):
    """Grey pictures whose first pixel is their own number."""
    count = classes * per_class
    x = torch.randint(0, 256, (count, channels, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[:, 0, 0, 0] = torch.arange(count)
    return Data("pictures", x, torch.arange(count) % classes, tuple(f"c{label}" for label in range(classes)))


def fine():
    """Six classes in two superclasses; the value of a row is 10 times its class."""
    y = torch.arange(120) % 6
    return Data(
        "fine", 10.0 * y.float()[:, None], y, tuple("abcdef"), coarse=(0, 1, 0, 1, 0, 1), coarse_classes=("even", "odd")
    )


# ---- tasks -----------------------------------------------------------------------------------------------------------------


def test_a_task_is_its_boundary_and_all_its_rows_in_each_pass(numbered):
    stream = recurring(numbered([40, 50, 60]), tasks=12, batch=16, epochs=2, validation=0.1)
    starts = [index for index, event in enumerate(stream) if isinstance(event, Boundary)]
    assert len(starts) == 12 and stream[starts[5]].task == 5
    for task, (low, high) in enumerate(pairwise([*starts, len(stream)])):
        opened = stream[low]
        assert opened.classes == stream.classes_of(task) and len(opened.classes) == 2
        rows = sorted(opened.data.x[:, 0].tolist())
        assert set(opened.data.y.tolist()) == set(opened.classes)
        batches = [stream[index] for index in range(low + 1, high)]
        half = len(batches) // 2
        passes = [torch.cat([batch.x[:, 0] for batch in part]).tolist() for part in (batches[:half], batches[half:])]
        assert sorted(passes[0]) == sorted(passes[1]) == rows and passes[0] != passes[1]
        assert [len(batch) for batch in batches[:half]] == [16] * (len(rows) // 16) + [len(rows) % 16] * (len(rows) % 16 > 0)
        assert all(batch.task is None for batch in batches)
        counts = {0: 40, 1: 50, 2: 60}
        train = {label: round(0.8 * count) for label, count in counts.items()}
        assert len(rows) == sum(train[label] - round(0.1 * train[label]) for label in opened.classes)


def test_batches_mix_the_classes_of_a_task(digits):
    """A batch of 64 from two equal classes that holds one alone would come once in 2^63."""
    stream = recurring(digits, tasks=20)
    whole = [event for event in stream if isinstance(event, Batch) and len(event) == 64]
    assert len(whole) > 30 and all(len(event.y.unique()) == 2 for event in whole)


def test_time_goes_with_its_rows(numbered):
    stream = recurring(numbered([40, 50, 60]), tasks=3)
    assert all(torch.equal(event.x[:, 0].double(), event.time) for event in stream if isinstance(event, Batch))


def test_without_boundaries_the_batches_are_the_same(digits):
    told, untold = recurring(digits, tasks=8), recurring(digits, tasks=8, boundaries=False)
    assert told.boundaries and not untold.boundaries
    batches = [event for event in told if isinstance(event, Batch)]
    assert len(batches) == len(untold) and all(same(*pair) for pair in zip(batches, untold, strict=True))


def test_learners_are_judged_on_all_classes_every_few_tasks(digits):
    stream = recurring(digits, tasks=25, evaluate_every=10, structure="periods")
    starts = [index for index, event in enumerate(stream) if isinstance(event, Boundary)]
    assert stream.checkpoints == (starts[10], starts[20], len(stream))
    assert [held_out.name for held_out in stream.held_out] == ["all classes"]
    assert stream.held_out[0].y.unique().tolist() == list(range(10)) and stream.held_out[0].task is None
    assert stream.headline == "held_out" and stream.changes == () and stream.deployed == starts[1]
    assert recurring(digits, tasks=20, evaluate_every=10).checkpoints[-1] == len(recurring(digits, tasks=20))
    assert len(recurring(digits, tasks=3, evaluate_every=10).checkpoints) == 1


def test_iid_takes_as_many_rows_as_the_other_structures(digits):
    random, iid = (recurring(digits, tasks=40, structure=structure, validation=0.0) for structure in ("random", "iid"))
    assert {iid.classes_of(task) for task in range(40)} == {tuple(range(10))}
    mean = [sum(len(stream.rows(task)) for task in range(40)) / 40 for stream in (random, iid)]
    assert mean[1] == pytest.approx(mean[0], rel=0.02)
    whole = recurring(digits, tasks=2, structure="iid", classes_per_task=10, validation=0.0)
    assert len(whole.rows(0)) == len(whole._data)


def test_lifelong_brings_classes_back_with_other_content():
    stream = recurring(fine(), tasks=30, structure="lifelong", classes_per_task=2)
    assert stream.schema.classes == ("even", "odd") and len(stream.held_out[0].y.unique()) == 2
    for event in stream:
        if isinstance(event, Boundary):
            number = event.task % 3
            assert sorted(event.data.x.unique().tolist()) == [20.0 * number, 20.0 * number + 10]
            assert torch.equal(event.data.y, (event.data.x[:, 0] / 10 % 2).long())
    with pytest.raises(DataError, match="whose classes have superclasses"):
        recurring(pictures(), structure="lifelong")


def test_a_subset_of_superclasses_keeps_all_their_classes():
    three = Data(
        "three", 10.0 * (torch.arange(90) % 6).float()[:, None], torch.arange(90) % 6, tuple("abcdef"),
        coarse=(0, 1, 2, 0, 1, 2), coarse_classes=("x", "y", "z"),
    )  # fmt: skip
    stream = recurring(three, tasks=4, structure="lifelong", subset=2)
    values = [set(event.data.x.flatten().tolist()) for event in stream if isinstance(event, Boundary)]
    assert stream.schema.outputs == 2 and values[0] == values[2] and values[1] == values[3]
    assert len(values[0]) == len(values[1]) == 2 and {value + 30 for value in values[0]} == values[1]


@pytest.mark.slow
def test_lifelong_on_real_images():
    if find("cifar100_12k") is None:
        pytest.skip("EVERLEARN_DATA has no cifar100_12k")
    data = load("cifar100_12k")
    stream = recurring(data, tasks=11, structure="lifelong", classes_per_task=20, validation=0.0)
    assert len(stream.schema.classes) == 20 and len(stream.held_out[0].y) == 2000
    used = [data.y[stream.rows(task)].unique().tolist() for task in range(11)]  # the official split keeps row numbers
    assert all(len(own) == 20 and len(stream.rows(task)) == 2000 for task, own in enumerate(used))
    assert used[0] == used[5] == used[10] and len({label for own in used[:5] for label in own}) == 100


def test_a_subset_is_some_classes_numbered_anew(digits):
    stream = recurring(digits, tasks=30, subset=4)
    assert stream.schema.outputs == 4 and stream.held_out[0].y.unique().tolist() == [0, 1, 2, 3]
    assert stream.occurrences().any(0).all() and stream.expected_gap().tolist() == [2.0] * 4
    assert len({recurring(digits, tasks=2, subset=4, seed=seed).schema.classes for seed in range(5)}) > 1


def test_switches_change_the_stream(digits):
    plain = recurring(digits, tasks=60)
    for options in (
        {"structure": "cycle"},
        {"class_prob": Imbalanced(exponent=2)},
        {"prob_reduction": 2.0},
        {"drop_after": (30, (0, 1, 2, 3, 4))},
        {"classes_per_task": 3},
        {"seed": 1},
    ):
        assert not torch.equal(recurring(digits, tasks=60, **options).occurrences(), plain.occurrences())
    assert len(recurring(digits, tasks=60, samples_per_class=20).rows(0)) == 36
    assert len(recurring(digits, tasks=60, validation=0.5).rows(0)) < len(plain.rows(0))
    few = recurring(digits, tasks=60, samples_per_class=140, replacement=True)
    assert len(few.rows(0)) == 252 and len(few.rows(0).unique()) < 252


# ---- the same whoever asks -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    structure=st.sampled_from([name for name in STRUCTURES if name != "lifelong"]),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
def test_events_are_the_same_in_any_order(numbered, structure, seed, order):
    options = {"tasks": 9, "batch": 8, "epochs": 2, "structure": structure, "seed": seed}
    options |= {"mix": 0.5} if structure in ("cycle", "pairs") else {}
    first, second = (recurring(numbered([20, 30, 12, 15]), **options) for _ in range(2))
    events = list(first)
    places = list(range(len(events)))
    order.shuffle(places)
    assert all(same(second[index], events[index]) for index in places[:12])
    tasks = list(range(9))
    order.shuffle(tasks)
    assert all(torch.equal(second.rows(task, 1), first.rows(task, 1)) for task in tasks)
    assert second[-1].x.equal(events[-1].x) and len(second) == len(events)


@settings(max_examples=25, deadline=None)
@given(
    structure=st.sampled_from([name for name in STRUCTURES if name != "lifelong"]),
    per_task=st.sampled_from([1, 2]),
    validation=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_train_validation_and_test_rows_are_disjoint(numbered, structure, per_task, validation, seed):
    options = {"structure": structure, "classes_per_task": per_task, "validation": validation, "seed": seed}
    options |= {"mix": 0.5} if structure in ("cycle", "pairs") else {}
    stream = recurring(numbered([20, 30, 12, 15]), tasks=6, **options)
    tested = set(stream.held_out[0].x[:, 0].tolist())
    for task in range(6):
        classes = stream.classes_of(task)
        assert len(set(classes)) == (4 if structure == "iid" else per_task)
        opened = next(event for event in stream if isinstance(event, Boundary) and event.task == task)
        train, aside = set(opened.data.x[:, 0].tolist()), set(stream.validation(task).x[:, 0].tolist())
        assert not train & aside and not train & tested and not aside & tested
        assert set(opened.data.y.tolist()) == set(classes)  # every class can be learned from
        assert (len(aside) > 0) == (validation > 0) or (validation == 0.1 and structure == "iid")
        assert not set(stream.rows(task).tolist()) & set(stream.validation_rows(task).tolist())


def test_the_walk_needs_no_event(digits):
    stream = recurring(digits, tasks=100, seed=3)
    far = recurring(digits, tasks=1000, seed=3)
    assert [stream.classes_of(task) for task in range(100)] == [far.classes_of(task) for task in range(100)]
    assert torch.equal(stream.rows(17), far.rows(17)) and same(stream[40], far[40])
    assert stream.classes_of(-1) == stream.classes_of(99)
    with pytest.raises(IndexError, match="no number 100 among 100"):
        stream.classes_of(100)


def test_sizes_are_those_of_the_events(digits):
    for options in ({}, {"epochs": 3, "boundaries": False}, {"structure": "iid", "batch": 50}):
        stream = recurring(digits, tasks=7, **options)
        assert stream.sizes() == [len(event) if isinstance(event, Batch) else 0 for event in stream]
        assert event_sizes(stream) == stream.sizes()
    late = delayed(recurring(digits, tasks=4), delay=2)
    assert late.name == "delayed(recurring(digits, tasks=4), delay=2)" and len(list(late)) == len(late)


# ---- facts -----------------------------------------------------------------------------------------------------------------


def test_occurrences_are_the_classes_of_every_task(digits):
    stream = recurring(digits, tasks=50, structure="iid", drop_after=(20, (3, 4)))
    found = stream.occurrences()
    assert found.shape == (50, 10) and found.dtype == torch.bool
    for task in range(50):
        assert tuple(found[task].nonzero().flatten().tolist()) == stream.classes_of(task)
    assert found[20:, 3:5].sum() == 0 and found[:20].all()


def test_expected_gaps(digits):
    assert recurring(digits).expected_gap().tolist() == [5.0] * 10
    assert recurring(digits, structure="periods").expected_gap().tolist() == pytest.approx([5.0] * 10)
    assert recurring(digits, structure="iid").expected_gap().tolist() == [1.0] * 10
    half = recurring(digits, tasks=100, drop_after=(50, (9,))).expected_gap().tolist()
    assert half[9] == pytest.approx(10.0) and half[0] == pytest.approx(100 / (50 * 0.2 + 50 * 2 / 9))
    never = recurring(digits, class_prob=(0, *[1 / 9] * 9)).expected_gap()
    assert never[0] == float("inf") and torch.allclose(never[1:], torch.full((9,), 4.5, dtype=torch.float64))
    counted = recurring(digits, tasks=60, prob_reduction=2.0)
    assert torch.allclose(counted.expected_gap(), 60 / counted.occurrences().double().sum(0))


def test_gaps_of_the_stream_are_as_expected(digits):
    """Mean gap in 2,000 tasks: a geometric gap of mean g has deviation under g, and there are about 2000 / g; four errors."""
    stream = recurring(digits, tasks=2000, class_prob=Imbalanced(exponent=2))
    for label, expected in enumerate(stream.expected_gap().tolist()):
        places = stream.occurrences()[:, label].nonzero().flatten()
        assert abs(float((places[1:] - places[:-1]).double().mean()) - expected) < 4 * expected / (2000 / expected) ** 0.5


def test_recurrence_is_what_reports_are_told(digits):
    facts = recurring(digits, tasks=100).recurrence
    assert (facts.tasks, facts.classes, facts.classes_per_task, facts.connected) == (100, 10, 2.0, True)
    assert facts.expected_gaps == (5.0,) * 10 and facts.components == (tuple(range(10)),)
    assert facts.coverage == pytest.approx(14.123362, abs=5e-7)
    parts = recurring(digits, tasks=100, structure="partition").recurrence
    assert not parts.connected and sorted(map(len, parts.components)) == [2] * 5 and parts.coverage is None
    never = recurring(digits, tasks=50, class_prob=(0, *[1 / 9] * 9)).recurrence
    assert never.expected_gaps[0] is None and never.components == (tuple(range(1, 10)),)


# ---- corruption ------------------------------------------------------------------------------------------------------------


def test_each_task_has_one_corruption_and_the_test_rows_stay_clean():
    data = pictures()
    plain, noisy = (
        recurring(data, tasks=6, batch=16),
        recurring(data, tasks=6, batch=16, transform=Corrupted(4, ("contrast",))),
    )
    assert noisy.name == "recurring(pictures, tasks=6, batch=16, transform=corrupted(severity=4, kinds=('contrast',)))"
    for left, right in zip(plain, noisy, strict=True):
        left, right = (event.data if isinstance(event, Boundary) else event for event in (left, right))
        assert torch.equal(left.y, right.y) and right.x.dtype == torch.uint8
        mean = left.x.float().mean((2, 3), keepdim=True)
        assert (right.x - (mean + 0.15 * (left.x - mean))).abs().max() <= 0.5 + 1e-3  # a half unit: the rounding
    assert torch.equal(plain.held_out[0].x, noisy.held_out[0].x)
    assert torch.equal(plain.validation(2).x, noisy.validation(2).x)


def test_corrupted_events_are_the_same_in_any_order():
    streams = [recurring(pictures(), tasks=5, batch=16, transform=Corrupted("random")) for _ in range(2)]
    events = list(streams[0])
    assert all(same(streams[1][index], events[index]) for index in reversed(range(len(events))))


def test_noise_is_another_in_every_batch_pass_and_task():
    """On images that are all alike the noise is all that differs."""
    plain = Data("plain", torch.full((80, 1, 8, 8), 100, dtype=torch.uint8), torch.arange(80) % 2, ("a", "b"))
    noisy = Corrupted(4, ("gaussian_noise",))
    stream = recurring(plain, tasks=2, batch=16, epochs=2, validation=0.0, transform=noisy, boundaries=False)
    assert len(stream) == 16
    assert len({tuple(event.x.flatten().tolist()) for event in stream}) == 16
    other = recurring(plain, tasks=2, batch=16, epochs=2, validation=0.0, transform=noisy, boundaries=False, seed=1)
    assert not torch.equal(stream[0].x, other[0].x)


# ---- any labelled data -----------------------------------------------------------------------------------------------------


def test_a_class_without_rows_is_left_out(digits):
    data = Data("digits", digits.x, digits.y, (*digits.classes, "never"))
    stream = recurring(data, tasks=300)
    assert not stream.occurrences()[:, 10].any() and stream.expected_gap()[10] == float("inf")
    with pytest.raises(ArgumentError, match=r"class 'never' has the probability 0\.5 and no row to learn from"):
        recurring(data, class_prob=(0.5, *[0] * 9, 0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": 0}, "tasks must be an int >= 1, got 0"),
        ({"classes_per_task": 11}, "classes_per_task=11 is more than the 10 classes with positive probability"),
        ({"classes_per_task": 3, "class_prob": (0.5, 0.5, *[0] * 8)}, "classes_per_task=3 is more than the 2 classes with"),
        ({"class_prob": (1.5, -0.5, *[0] * 8)}, "class_prob must be 'uniform', imbalanced.exponent=2., or a tuple with"),
        ({"class_prob": (0.5, 0.4, *[0] * 8)}, "class_prob must sum to 1"),
        ({"samples_per_class": 145}, "samples_per_class=145 is more than the 142 rows of class '0'"),
        ({"samples_per_class": 0}, "samples_per_class must be an int >= 1"),
        ({"validation": 1.0}, "validation=1 leaves nothing to learn from"),
        ({"validation": -0.1}, "validation must be a number between 0 and 1"),
        ({"evaluate_every": 0}, "evaluate_every must be an int >= 1"),
        ({"batch": 0}, "batch must be an int >= 1"),
        ({"subset": 11}, "subset=11 is more than the 10 classes of digits"),
        ({"transform": "fog"}, "transform must be None or corrupted"),
        ({"structure": "iid", "classes_per_task": 11}, "classes_per_task=11 is more than the 10 classes"),
    ],
)
def test_wrong_arguments_are_refused(digits, options, words):
    with pytest.raises(ArgumentError, match=f"recurring: {words}"):
        recurring(digits, **options)


# ---- speed -----------------------------------------------------------------------------------------------------------------


def test_a_thousand_tasks_are_iterated_in_half_a_second():
    """1,000 tasks of 2 classes of 800 rows each: processor time of index arrays alone, the best of three (0.1 s when written)."""
    y = torch.arange(8000) % 10
    data = Data("many", torch.zeros(8000, 1), y, tuple("0123456789"), test_x=torch.zeros(10, 1), test_y=torch.arange(10))
    seconds = []
    for _ in range(3):
        started = time.process_time()
        stream = recurring(data, tasks=1000)
        rows = sum(len(stream.rows(task)) for task in range(1000))
        seconds.append(time.process_time() - started)
        assert rows == 1000 * 1440
    assert min(seconds) <= 0.5


def test_no_row_is_copied_until_a_batch_is_made(monkeypatch):
    data = pictures()
    stream = recurring(data, tasks=50)
    copied = []
    original = torch.Tensor.index_select

    def counted(self, dim, index):
        if self.dtype == torch.uint8:
            copied.append(len(index))
        return original(self, dim, index)

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    assert all(len(stream.rows(task)) for task in range(50)) and stream.recurrence.connected
    assert copied == []
    size = len(stream[1])
    assert copied == [size]


# ---- the fold --------------------------------------------------------------------------------------------------------------


def test_a_run_resumes_exactly(tmp_path):
    """A run that stops in the middle of a task and goes on in a new stream ends in the same bits."""
    from everlearn.comparison.building import build_learner, build_stream

    text = "recurring(digits, tasks=12, class_prob=imbalanced(exponent=2), prob_reduction=1.5, evaluate_every=3, epochs=2)"

    def fold(folder, **options):
        stream = build_stream(text, 0)
        learner = build_learner("fine_tune(optimizer=sgd(lr=0.01, momentum=0.9))", stream, "mlp(hidden=(16,))", 0)
        return run(learner, stream, folder=folder, snapshot_every=23, **options)

    class Stopped(Exception):
        pass

    def stop(done, total):
        if done > total // 2:
            raise Stopped

    whole = fold(tmp_path / "whole")
    with pytest.raises(Stopped):
        fold(tmp_path / "parts", progress=stop)
    resumed = fold(tmp_path / "parts")
    assert resumed.sha256 == whole.sha256 and resumed.events == whole.events == len(build_stream(text, 0))


def test_knowledge_accumulates_and_the_seed_is_handed_down():
    """Fine-tuning on tasks of two digits is far better on all ten than knowing two of them (0.2)."""
    from everlearn.comparison.building import build_learner, build_stream

    stream = build_stream("recurring(digits, tasks=100)", 1)
    assert stream.name == "recurring(digits, tasks=100)"
    assert torch.equal(stream.rows(3), recurring(load("digits"), tasks=100, seed=1).rows(3))
    result = run(build_learner("fine_tune(optimizer=sgd(lr=0.01))", stream, "mlp(hidden=(50,))", 0), stream)
    held_out = stream.held_out[0]
    assert float((result.learner.predict(held_out.x).argmax(1) == held_out.y).double().mean()) > 0.5


@pytest.mark.parametrize("name", ["recurring", "class_schedule", "task_structure", "task_rows", "occurrence", "corruption"])
def test_examples_in_doc_strings_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(f"everlearn.data.{name}"))
    assert found.failed == 0
    assert found.attempted > 0 or name == "task_structure"
