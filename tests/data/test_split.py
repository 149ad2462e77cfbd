"""Classes group by group: which classes, where the boundaries stand, how borders blur, and what is refused."""

from itertools import pairwise

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch, Boundary
from everlearn.data.dataset import Data
from everlearn.data.split import blur, blurry, split, tasks


def batches(stream):
    return [event for event in stream if isinstance(event, Batch)]


def groups(stream):
    return [event.classes for event in stream if isinstance(event, Boundary)]


def test_each_experience_brings_its_own_classes(digits):
    stream = split(digits, experiences=4, batch=16)
    assert [len(classes) for classes in groups(stream)] == [3, 3, 2, 2]
    assert sorted(label for classes in groups(stream) for label in classes) == list(range(10))
    current = None
    for event in stream:
        if isinstance(event, Boundary):
            current = event
        else:
            assert set(event.y.tolist()) <= set(current.classes)
            assert event.task is None


def test_boundaries_open_experiences_and_checkpoints_close_them(digits):
    stream = split(digits, experiences=5, batch=16)
    opened = [index for index, event in enumerate(stream) if isinstance(event, Boundary)]
    assert opened == [0, *stream.changes]
    assert stream.checkpoints == (*stream.changes, len(stream))
    assert stream.deployed == stream.changes[0]
    assert [stream[index].task for index in opened] == [0, 1, 2, 3, 4]


def test_a_boundary_carries_all_rows_of_its_session(numbered):
    stream = split(numbered([9, 12, 15, 8]), experiences=2, batch=4, epochs=2)
    for number, start in enumerate([0, *stream.changes]):
        end = stream.checkpoints[number]
        rows = {moment for event in list(stream)[start + 1 : end] for moment in event.time.tolist()}
        data = stream[start].data
        assert len(data) == len(rows) and set(data.time.tolist()) == rows


def test_without_boundaries_the_rows_are_the_same(digits):
    told, untold = split(digits, batch=8), split(digits, batch=8, boundaries=False)
    assert not untold.boundaries and groups(untold) == []
    assert all(torch.equal(left.x, right.x) for left, right in zip(batches(told), untold, strict=True))
    assert untold.changes == tuple(event - number for number, event in enumerate(told.changes, start=1))


def test_held_out_sets_hold_the_classes_of_their_experience(digits):
    stream = split(digits, experiences=5)
    for classes, held_out in zip(groups(stream), stream.held_out, strict=True):
        assert set(held_out.y.tolist()) == set(classes)
        assert held_out.task is None
    total = sum(len(held_out.y) for held_out in stream.held_out)
    assert total == pytest.approx(0.2 * len(digits), abs=5)


def test_tasks_are_told_and_labels_stay(digits):
    plain, told = split(digits, experiences=5), tasks(digits, experiences=5)
    assert [held_out.task for held_out in told.held_out] == [0, 1, 2, 3, 4]
    number = -1
    for left, right in zip(plain, told, strict=True):
        if isinstance(right, Boundary):
            number = right.task
        else:
            assert right.task == number
            assert torch.equal(left.y, right.y) and torch.equal(left.x, right.x)


def test_order_of_classes(digits):
    given = groups(split(digits, experiences=5, order="given"))
    assert given == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    drawn = [tuple(groups(split(digits, experiences=5, seed=seed))) for seed in range(4)]
    assert len(set(drawn)) == 4


def test_more_classes_first(digits):
    assert [len(classes) for classes in groups(split(digits, experiences=4, classes_first=5))] == [5, 2, 2, 1]
    with pytest.raises(ArgumentError, match="at most 7 can come first"):
        split(digits, experiences=4, classes_first=8)


def test_names_are_call_strings_with_the_users_labels(digits, numbered):
    assert split(digits).name == "split(digits)"
    assert (
        split(digits, experiences=2, seed=7, batch=3, order="given").name
        == "split(digits, experiences=2, batch=3, order='given')"
    )
    assert repr(blurry(digits, overlap=0.25)) == "blurry(digits, overlap=0.25)"
    stream = split(numbered([9] * 7), experiences=2, order="given")
    assert [held_out.name for held_out in stream.held_out] == ["1: c0, c1, c2, c3", "2: c4, c5, c6"]
    assert stream.schema.classes == ("c0", "c1", "c2", "c3", "c4", "c5", "c6")
    wide = split(numbered([9] * 7), experiences=1, order="given")
    assert wide.held_out[0].name == "1: c0, c1, c2, c3 and 3 more"


def test_the_official_test_part_is_used_where_there_is_one(digits):
    official = Data("own", digits.x[:1500], digits.y[:1500], digits.classes, test_x=digits.x[1500:], test_y=digits.y[1500:])
    stream = split(official, experiences=5, test=0.5)
    assert sum(len(held_out.y) for held_out in stream.held_out) == 297
    assert sum(map(len, batches(stream))) == 1500


def test_a_class_without_rows_is_left_out(digits):
    data = Data("digits", digits.x, digits.y, (*digits.classes, "never"))
    stream = split(data, experiences=10)
    assert sorted(label for classes in groups(stream) for label in classes) == list(range(10))


def test_a_batch_larger_than_the_data(digits):
    stream = split(digits, experiences=2, batch=10_000)
    assert [isinstance(event, Boundary) for event in stream] == [True, False, True, False]


def test_borders_blur_and_the_middle_stays_pure(digits):
    sharp, soft = blurry(digits, overlap=0.0, batch=10), blurry(digits, overlap=0.25, batch=10)
    order = [held_out.y.unique().tolist() for held_out in soft.held_out]
    assert not soft.boundaries and soft.changes == sharp.changes
    for stream, mixed in ((sharp, False), (soft, True)):
        starts = [0, *stream.changes, len(stream)]
        for number, (low, high) in enumerate(pairwise(starts)):
            classes = torch.cat([stream[event].y for event in range(low, high)])
            own = torch.isin(classes, torch.tensor(order[number]))
            middle = own[int(0.3 * len(own)) : int(0.7 * len(own))]
            assert middle.all()
            assert bool(own.all()) != mixed
            if mixed and number > 0:
                assert set(classes[~own].tolist()) <= set(order[number - 1] + (order[number + 1] if number < 4 else []))


def test_old_classes_fade_out_linearly():
    """Share of old places in each fifth of the window over 200 draws: 0.9, 0.7, 0.5, 0.3, 0.1. Deviation of a share from 200
    windows of 20 places: at most sqrt(0.25 / 4000) = 0.008; four of those. The control, overlap 0, has shares 1 and 0."""
    counts = [100, 100]
    shares = torch.stack([(blur(counts, 0.5, seed)[50:150] < 100).double() for seed in range(200)]).mean(0)
    fifths = shares.reshape(5, 20).mean(1)
    assert torch.allclose(fifths, torch.tensor([0.9, 0.7, 0.5, 0.3, 0.1]).double(), atol=0.032)
    sharp = (blur(counts, 0.0, 0)[50:150] < 100).double().reshape(5, 20).mean(1)
    assert not torch.allclose(sharp, torch.tensor([0.9, 0.7, 0.5, 0.3, 0.1]).double(), atol=0.032)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"experiences": 11}, "11 experiences need as many classes, and digits has 10"),
        ({"experiences": 0}, "experiences must be an int >= 1, got 0"),
        ({"batch": 0}, "batch must be an int >= 1, got 0"),
        ({"epochs": 0}, "epochs must be an int >= 1"),
        ({"test": 0}, "test must lie between 0 and 1"),
        ({"test": 1.5}, "test must be a number between 0 and 1, got 1.5"),
        ({"order": "sorted"}, "order must be 'seed' or 'given', got 'sorted'"),
        ({"classes_first": 0}, "classes_first must be an int >= 1"),
    ],
)
@pytest.mark.parametrize("scenario", [split, tasks, blurry], ids=lambda item: item.__name__)
def test_wrong_arguments_are_refused(digits, scenario, options, words):
    with pytest.raises(ArgumentError, match=f"{scenario.__name__}: {words}"):
        scenario(digits, **options)


def test_overlap_is_at_most_half(digits):
    with pytest.raises(ArgumentError, match=r"overlap must be a number between 0 and 0\.5"):
        blurry(digits, overlap=0.6)


def test_one_class_is_refused(digits):
    only = digits.take(digits.y == 3)
    with pytest.raises(DataError, match="every row has the label '3'"):
        split(only, experiences=1)


def test_a_stream_is_no_data_set(digits):
    with pytest.raises(ArgumentError, match=r"must be a data set such as digits, got split\(digits\)"):
        split(split(digits))


def test_a_class_too_rare_to_be_held_out_is_refused(numbered):
    with pytest.raises(DataError, match="no test row for the held-out set '3: c2'"):
        split(numbered([20, 20, 2]), experiences=3, order="given")
