"""Streams of corrupted images: what comes when, that nothing is told which must not be, and that a batch is made without those before."""

from collections import Counter

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Boundary
from everlearn.data.corruption_stream import ORDERS, corruptions, phases_of, runs_of_classes
from everlearn.data.corruption_tables import TYPES
from everlearn.data.corruptions import corrupt
from everlearn.data.dataset import Data
from everlearn.data.prefix import prefix

PAIR = ("contrast", "gaussian_noise")


@pytest.fixture(scope="module")
def data():
    """200 images of 4 classes; the first pixels of an image are its number and its class."""
    y = torch.arange(200) % 4
    x = torch.randint(20, 230, (200, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = torch.arange(200, dtype=torch.uint8), y.to(torch.uint8)
    return Data("pictures", x, y, tuple("abcd"))


def make(data, **options):
    return corruptions(data, **{"types": PAIR, "batch": 8, "test": 0.4, "held_out": 0.25, **options})


def test_clean_rows_with_answers_then_corrupted_rows_without(data):
    stream = make(data, rounds=2, source_batch=32, epochs=3)
    assert stream.deployed == 3 * 4  # 120 rows in batches of 32, three passes
    assert len(stream) == 12 + 2 * 2 * 8  # 60 rows in batches of 8, for each of two types, twice
    assert stream.checkpoints == (12, 28, 44) and stream.changes == (12, 20, 28, 36)
    assert stream.headline == "prequential" and not stream.boundaries
    for index in range(len(stream)):
        event, hidden = stream[index], stream.hidden_answers(index)
        if index < 12:
            assert event.y is not None and hidden is None and stream.condition(index) is None
        else:
            assert event.y is None and event.id is None and event.task is None and len(hidden) == len(event)
            condition = stream.condition(index)
            assert condition.kinds.unique().tolist() == [(index - 12) // 8 % 2]
            assert (condition.severity, condition.round) == (5, (index - 12) // 16)


def test_rows_of_training_stream_and_held_out_sets_never_meet(data):
    stream = make(data)
    source = {int(row) for index in range(stream.deployed) for row in stream[index].x[:, 0, 0, 0]}
    unseen = {int(row) for row in stream._unseen.x[:, 0, 0, 0]}
    kept = {int(row) for row in stream.held_out[0].x[:, 0, 0, 0]}
    assert (len(source), len(unseen), len(kept)) == (120, 60, 20)
    assert len(source | unseen | kept) == 200
    assert [item.name for item in stream.held_out] == ["clean", *PAIR]
    x = stream.held_out[0].x
    assert torch.equal(stream.held_out[2].x, corrupt(x, PAIR[1], 5, seed=stream.held_out._seed))


def test_the_table_of_sizes_reaches_rows_and_held_out_sets(data):
    stream, usual = make(data, size_table="strong_noise"), make(data)
    for index in range(stream.deployed, len(stream)):
        noisy = PAIR[int(stream.condition(index).kinds[0])] == "gaussian_noise"
        rows = stream._items(index)[1] % 60
        strong = corrupt(stream._unseen.x[rows], "gaussian_noise", 5, "strong_noise", index=rows)
        assert torch.equal(stream[index].x, strong if noisy else usual[index].x)
    x = stream.held_out[0].x
    assert torch.equal(stream.held_out[2].x, corrupt(x, PAIR[1], 5, "strong_noise", seed=stream.held_out._seed))


def test_every_phase_passes_each_row_once_and_hidden_answers_are_right(data):
    stream = make(data, types=("brightness",), severity=1, rounds=2)
    for start in stream.changes:
        span = range(start, start + 8)
        answers = torch.cat([stream.hidden_answers(index) for index in span])
        x = torch.cat([stream[index].x for index in span])
        raised = round(0.05 * 255)
        assert (x[:, 0, 0, 1].int() - raised - answers).abs().max() <= 1  # the second pixel tells the class
        assert Counter(answers.tolist()) == dict.fromkeys(range(4), 15)


def test_a_picture_is_the_same_whenever_it_comes(data):
    """Whatever the batch size, the round and what was asked before."""
    one, other = make(data, types=PAIR[1:], rounds=2), make(data, types=PAIR[1:], rounds=2, batch=60)

    def pictures(stream, first, last):
        x = torch.cat([stream[index].x for index in range(first, last)])
        y = torch.cat([stream.hidden_answers(index) for index in range(first, last)])
        return {(tuple(row.flatten().tolist()), label) for row, label in zip(x, y.tolist(), strict=True)}

    start = one.deployed
    assert pictures(one, start, start + 8) == pictures(one, start + 8, start + 16) == pictures(other, start, start + 1)
    assert torch.equal(make(data, types=PAIR[1:], rounds=2)[-1].x, one[-1].x)
    assert not torch.equal(one[start].x, one[start + 8].x)  # in another order
    assert not torch.equal(make(data, seed=1)[-1].x, make(data)[-1].x)


def test_orders():
    assert [phase.kind for phase in phases_of(3, 5, "continual", 2, 0)] == [0, 1, 2, 0, 1, 2]
    assert [phase.severity for phase in phases_of(1, 5, "gradual", 1, 0)] == [1, 2, 3, 4, 5, 4, 3, 2, 1]
    assert [phase.kind for phase in phases_of(3, 5, "mixed", 2, 0)] == [None, None]
    turns = [tuple(phase.kind for phase in phases_of(6, 5, "shuffled", 2, 0))[part] for part in (slice(6), slice(6, 12))]
    assert turns[0] != turns[1] and sorted(turns[0]) == sorted(turns[1]) == list(range(6))


def test_mixed_rows_have_types_of_their_own(data):
    stream = make(data, order="mixed", batch=16)
    span = range(stream.deployed, len(stream))
    kinds = torch.cat([stream.condition(index).kinds for index in span])
    assert kinds.bincount().tolist() == [60, 60] and len(stream.condition(stream.deployed).kinds.unique()) == 2
    event, condition = stream[stream.deployed], stream.condition(stream.deployed)
    rows = stream._items(stream.deployed)[1] % 60
    row = int((condition.kinds == 1).nonzero()[0])
    alone = corrupt(stream._unseen.x[rows[row : row + 1]], PAIR[1], 5, seed=0, index=rows[row : row + 1])
    assert torch.equal(event.x[row], alone[0])


def changes_of(labels):
    return int((labels[1:] != labels[:-1]).sum())


def test_labels_may_come_sorted_or_in_runs(data):
    def labels(**options):
        stream = make(data, types=PAIR[:1], **options)
        return torch.cat([stream.hidden_answers(index) for index in range(stream.deployed, len(stream))])

    assert changes_of(labels(labels="sorted")) == 3
    assert changes_of(labels(labels="iid")) > 30
    few, many = labels(labels="dirichlet", delta=1e-3), labels(labels="dirichlet", delta=1e3)
    assert changes_of(few) <= 7 < changes_of(many)  # each class in about one slot, or in all ten
    assert sorted(few.tolist()) == sorted(many.tolist())


def test_runs_of_classes_is_an_order_of_all_rows():
    y = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(0))
    for delta in (1e-3, 0.1, 10.0):
        assert torch.equal(runs_of_classes(y, delta, 3).sort().values, torch.arange(500))
    assert not torch.equal(runs_of_classes(y, 0.1, 3), runs_of_classes(y, 0.1, 4))


def test_answers_and_boundaries_on_request(data):
    stream = make(data, labelled=True, announced=True)
    assert stream.boundaries and stream[stream.deployed] == Boundary(0) and stream.condition(stream.deployed) is None
    assert stream.hidden_answers(stream.deployed) is None
    event = stream[stream.deployed + 1]
    assert event.y is not None and stream.hidden_answers(stream.deployed + 1) is None
    assert stream[stream.changes[1]] == Boundary(1)
    silent = make(data, announced=True)
    assert silent.hidden_answers(silent.deployed) is None and len(silent.hidden_answers(silent.deployed + 1)) == 8


def test_rows_may_be_few_and_a_prefix_keeps_hidden_answers(data):
    stream = make(data, rows=10)
    assert len(stream) == stream.deployed + 2 * 2
    first = prefix(stream, stream.deployed + 1)
    assert torch.equal(first.hidden_answers(-1), stream.hidden_answers(stream.deployed))
    assert first.hidden_answers(0) is None


def test_the_name_is_the_call(data):
    assert make(data).name == ("corruptions(pictures, types=('contrast', 'gaussian_noise'), batch=8, test=0.4)")
    assert corruptions(data).types == TYPES and corruptions(data).labels[8] == "frost_synthetic"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "recurring"}, f"order must be one of {', '.join(ORDERS)}, got 'recurring'"),
        ({"labels": "random"}, "labels must be one of iid, sorted, dirichlet"),
        ({"types": "fog"}, "types must be names such as"),
        ({"types": ("rain",)}, "unknown corruption 'rain'"),
        ({"severity": 6}, "severity must be one of"),
        ({"rounds": 0}, "rounds must be"),
        ({"rows": 0}, "rows must be"),
        ({"delta": 0.0}, "delta must"),
        ({"held_out": 1.0}, "held_out must lie between 0 and 1, both left out"),
    ],
)
def test_refusals(data, options, words):
    with pytest.raises(ArgumentError, match=words):
        corruptions(data, **options)


def test_only_images_can_be_corrupted(digits, data):
    with pytest.raises(DataError, match="images must have the shape"):
        corruptions(digits)
    real = Data("real", data.x.float(), data.y, data.classes)
    with pytest.raises(DataError, match=r"must lie in 0\.\.1"):
        corruptions(real)
