"""Labels that are exchanged: where, which, by what map, and how the stream is judged under the map of the moment."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.core.run import run
from everlearn.data.dataset import Data
from everlearn.data.label_swaps import KINDS, change_map, label_swaps, seasons
from everlearn.data.prefix import prefix
from everlearn.learners.fine_tune import FineTune
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.nn.networks import linear
from everlearn.optim.optimizers import SGD


@pytest.fixture
def even():
    """even(rows, classes): x[i, 0] is i and x[i, 1] the true class; a test part of the same make."""

    def make(count, classes=10):
        y = torch.arange(count) % classes
        x = torch.stack([torch.arange(count), y], 1).float()
        names = tuple(f"c{label}" for label in range(classes))
        return Data("even", x, y, names, test_x=x[: 2 * classes], test_y=y[: 2 * classes])

    return make


def rows_of(stream):
    """(true classes, labels shown) of all rows in their order."""
    return torch.cat([event.x[:, 1].long() for event in stream]), torch.cat([event.y for event in stream])


def test_changes_come_where_they_are_said_to(even):
    """10,000 rows, 50 swaps, batches of ten: after rows 200, 400, ...; the first row after each is the first under a new map."""
    stream = label_swaps(even(10_000), swaps=50, epochs=2)
    assert stream.positions == tuple(range(200, 20_001, 200))
    assert stream.changes == tuple(range(20, 2000, 20))  # the last is due at the very end, when nothing comes any more
    true, shown = rows_of(stream)
    for number, (low, high) in enumerate(pairwise([0, *stream.positions])):
        assert torch.equal(shown[low:high], stream.maps[number][true[low:high]])
    assert label_swaps(even(100), swaps=0).positions == label_swaps(even(100), swaps=0).changes == ()


def test_none_is_skipped_where_rows_do_not_divide(even):
    """103 rows, seven changes, batches of four: after every 14 rows, inside a batch where it must be. A twin goes row by row."""
    stream = label_swaps(even(103), swaps=7, epochs=3, batch=4)
    assert stream.positions[:8] == (14, 28, 42, 56, 70, 84, 98, 117)
    true, shown = rows_of(stream)
    changes, mapping = list(stream.positions), 0
    for row in range(3 * 103):
        while changes and changes[0] <= row:
            mapping += 1
            changes.pop(0)
        assert shown[row] == stream.maps[mapping][true[row]]
    starts = torch.tensor([0, *stream.sizes()]).cumsum(0).tolist()
    found = sorted({next(event for event in range(len(stream)) if starts[event + 1] > row) for row in stream.positions})
    assert stream.changes == tuple(found)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_permutations_and_each_change_is_of_its_kind(even, kind):
    stream = label_swaps(even(1000), swaps=20, epochs=2, kind=kind)
    assert stream.maps.shape == (41, 10) and torch.equal(stream.maps[0], torch.arange(10))
    assert torch.equal(stream.maps.sort(1).values, torch.arange(10).expand(41, 10))
    random = generator(0, "changes")
    for before, after in pairwise(stream.maps):  # what a class is called by then is what is called anew
        assert torch.equal(after, change_map(kind, 10, random)[before])
    moved = [int((before != after).sum()) for before, after in pairwise(stream.maps)]
    assert set(moved) == {KINDS[kind]} if kind != "full" else min(moved) >= 2 and max(moved) > 5
    if kind != "full":
        assert all(len(stream.swapped(change)) == KINDS[kind] for change in range(40))
    before, after = stream.maps[0], stream.maps[1]
    assert stream.swapped(0) == tuple(before[before != after].tolist())


def test_a_swap_done_twice_is_none_and_a_cycle_done_thrice(even):
    for kind, times in (("swap", 2), ("cycle", 3)):
        for seed in range(20):
            change, found = change_map(kind, 7, torch.Generator().manual_seed(seed)), torch.arange(7)
            for _ in range(times):
                assert not torch.equal(change[found], torch.arange(7)) or _ == times - 1
                found = change[found]
            assert torch.equal(found, torch.arange(7))


def test_pairs_are_drawn_evenly():
    """Of 4,500 swaps each of the 45 pairs has 100, within four and a half deviations of sqrt(100)."""
    random = torch.Generator().manual_seed(3)
    drawn = Counter(
        tuple((change_map("swap", 10, random) != torch.arange(10)).nonzero()[:, 0].tolist()) for _ in range(4500)
    )
    assert len(drawn) == 45 and max(abs(count - 100) for count in drawn.values()) < 45
    assert all(not torch.equal(change_map("full", 2, random), torch.arange(2)) for _ in range(20))


def test_counts_of_labels_permute_as_the_map_does(even):
    data = even(600, classes=3)
    keep = (data.y != 0) | (torch.arange(600) % 2 == 0)
    data = Data("uneven", data.x[keep], data.y[keep], data.classes, test_x=data.test_x, test_y=data.test_y)
    stream = label_swaps(data, swaps=4, epochs=1, batch=5)
    for low, high in pairwise([0, *stream.positions]):
        true, shown = (part[low:high] for part in rows_of(stream))
        mapping = stream.maps[stream.positions.index(high)]
        assert torch.equal(shown.bincount(minlength=3)[mapping], true.bincount(minlength=3))


def test_each_epoch_has_every_row_in_an_order_of_its_own(even):
    stream = label_swaps(even(205), swaps=5, epochs=3, batch=10)
    epochs = [torch.cat([stream[21 * epoch + step].x[:, 0] for step in range(21)]) for epoch in range(3)]
    for order in epochs:
        assert torch.equal(order.sort().values, torch.arange(205.0))
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])
    assert stream.sizes() == [len(event) for event in stream] and stream.epoch_of(21) == 1
    again = label_swaps(even(205), swaps=5, epochs=3, batch=10)
    assert all(torch.equal(stream[event].y, again[event].y) for event in (62, 3, 40))
    other = label_swaps(even(205), swaps=5, epochs=3, batch=10, seed=1)
    assert not torch.equal(other.maps, stream.maps) and not torch.equal(other[0].x, stream[0].x)


def test_seasons_change_how_often_labels_change(even):
    assert seasons(2, 3, 40, between=1) == (1, 1, 40, 40, 40)
    stream = label_swaps(even(400), schedule=seasons(2, 1, 8), epochs=5)
    assert stream.per_epoch == (0, 0, 8, 0, 0)
    assert stream.positions == tuple(range(850, 1201, 50))
    assert label_swaps(even(400), schedule=(0, 4), epochs=4).per_epoch == (0, 4, 0, 4)


@pytest.mark.parametrize("swaps", [3, 4])  # the last of 4 is due at the very end, and belongs to the row that comes next
def test_learners_are_judged_under_the_map_of_the_moment(even, swaps):
    """A model that knows the true classes is right in all of set k only where the map is the identity. Sets are made when asked for."""
    data = even(400)
    stream = label_swaps(data, swaps=swaps, epochs=4, evaluate_every=2)
    assert stream.checkpoints == (80, 160) and [held.name for held in stream.held_out] == [
        "labels after epoch 2",
        "labels after epoch 4",
    ]
    for checkpoint, held in zip(stream.checkpoints, stream.held_out, strict=True):
        mapping = stream.map_at(checkpoint - 1)
        assert torch.equal(held.y, mapping[data.test_y]) and torch.equal(held.x, data.test_x)
        last = stream[checkpoint - 1]
        assert torch.equal(last.y[-1], mapping[last.x[-1, 1].long()])
    model = linear(stream.schema)
    with torch.no_grad():  # scores fall with the distance from the true class, on the second column
        model[-1].weight.copy_(torch.stack([torch.zeros(10), torch.arange(10.0) * 2], 1))
        model[-1].bias.copy_(-(torch.arange(10.0) ** 2))
    learner = FineTune(model, optimizer=SGD(lr=0.0))
    found = run(learner, stream, monitors=[AccuracyMatrix()]).figures["matrix"]["matrix"]
    shares = [float((held.y == data.test_y).double().mean()) for held in stream.held_out]
    assert found == [pytest.approx(shares)] * 2 and shares != [1.0, 1.0]


def test_it_can_be_cut_short_and_is_named_by_its_call(even):
    stream = label_swaps(even(100), swaps=4, epochs=2, schedule=(0, 4))
    assert stream.name == "label_swaps(even, swaps=4, schedule=(0, 4), epochs=2)"
    assert stream.headline == "prequential" and stream.deployed == 2
    assert len(prefix(stream, events=7)) == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"swaps": -1}, "swaps must be an int >= 0"),
        ({"swaps": 11}, "11 changes in an epoch of 10 batches are more than one for each"),
        ({"schedule": (0, 11)}, "11 changes in an epoch of 10 batches"),
        ({"schedule": ()}, "schedule must be changes by epoch such as"),
        ({"schedule": 5}, "schedule must be changes by epoch such as"),
        ({"schedule": (0, 1.5)}, "a number in schedule must be an int >= 0"),
        ({"kind": "rename"}, "kind must be one of 'swap', 'cycle', 'full', got 'rename'"),
        ({"epochs": 0}, "epochs must be an int >= 1"),
        ({"batch": 0}, "batch must be an int >= 1"),
        ({"evaluate_every": 0}, "evaluate_every must be an int >= 1"),
        ({"deployed": 2.0}, "deployed must be a number between 0 and 1"),
        ({"test": 0.0}, "test must lie between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused(even, options, words):
    with pytest.raises(ArgumentError, match=f"label_swaps: {words}"):
        label_swaps(even(100), **options)


def test_a_cycle_needs_three_classes(even):
    with pytest.raises(ArgumentError, match="kind='cycle' needs 3 classes, and even has 2"):
        label_swaps(even(100, classes=2), kind="cycle")
