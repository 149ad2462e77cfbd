"""The log of a server as a stream: the events of hand-written files, read in any order, folded and compared."""

import json

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch, Feedback
from everlearn.core.spec import build, parse
from everlearn.data.scenarios import SCENARIOS
from everlearn.data.served import served

PETS = {
    "kind": "classes",
    "shape": [2],
    "dtype": "float32",
    "classes": ["cat", "dog"],
    "features": ["weight", "time"],
    "targets": [],
}
# step, seq, id, kind, time, weight, time of day, y: two steps, the second with a correction
LOG = [
    (1, 1, "a", "input", 10.0, 4.0, 0.25, None),
    (1, 2, "b", "input", 11.0, 30.0, 0.5, None),
    (1, 3, "a", "answer", 12.5, 4.0, 0.25, "cat"),
    (2, 5, "c", "input", 14.0, 5.0, 0.75, None),
    (2, 4, "b", "answer", 13.0, 30.0, 0.5, "cat"),
    (2, 6, "b", "answer", 15.0, 30.0, 0.5, "dog"),
    (3, 7, "d", "input", 16.0, 28.0, 0.125, None),
]


def write(path, columns, spec, *, group=100, **changes):
    """A file as an exporter of another make would write it."""
    description = {"format": 1, "spec": spec, "model": "fine_tune", "seed": 3, "steps": 3, **changes}
    table = pyarrow.table(columns).replace_schema_metadata({"everlearn": json.dumps(description)})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def pets(path, rows=LOG, *, group=100, **changes):
    step, seq, names, kind, time, weight, of_day, y = zip(*rows, strict=True)
    single = pyarrow.float32()
    columns = {
        "step": step, "seq": seq, "id": names, "kind": kind, "revision": [int(number == 6) for number in seq], "time": time,
        "weight": pyarrow.array(weight, single), "x.time": pyarrow.array(of_day, single), "version": [0] * len(rows),
        "y": pyarrow.array(y, pyarrow.string()), "answer": ["cat"] * len(rows), "default": [False] * len(rows),
    }  # fmt: skip
    return write(path, columns, PETS, group=group, **changes)


@pytest.fixture
def path(tmp_path):
    return pets(tmp_path / "deployed.parquet")


def equal(one, other):
    """Whether two events are the same, dtypes and the layout in memory included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Feedback):
        same = (one.id, one.action, one.propensity, one.reward) == (other.id, other.action, other.propensity, other.reward)
        return same and type(one.action) is type(other.action) and same_tensor(one.observation, other.observation)
    return one.id == other.id and all(same_tensor(getattr(one, key), getattr(other, key)) for key in ("x", "y", "time"))


def same_tensor(one, other):
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)


def test_the_events_are_those_that_were_folded(path):
    stream = served(path)
    f32, f64 = torch.float32, torch.float64
    wanted = [
        Batch(torch.tensor([[4, 0.25], [30, 0.5]], dtype=f32), time=torch.tensor([10, 11], dtype=f64), id=("a", "b")),
        Batch(torch.tensor([[4, 0.25]], dtype=f32), torch.tensor([0]), time=torch.tensor([12.5], dtype=f64), id=("a",)),
        Batch(torch.tensor([[5, 0.75]], dtype=f32), time=torch.tensor([14], dtype=f64), id=("c",)),
        Batch(
            torch.tensor([[30, 0.5], [30, 0.5]], dtype=f32),
            torch.tensor([0, 1]),
            time=torch.tensor([13, 15], dtype=f64),
            id=("b", "b"),
        ),
        Batch(torch.tensor([[28, 0.125]], dtype=f32), time=torch.tensor([16], dtype=f64), id=("d",)),
    ]
    assert len(stream) == 5 and all(equal(one, other) for one, other in zip(stream, wanted, strict=True))


def test_what_the_stream_says_of_itself(path):
    stream = served(path)
    assert stream.name == f"served({str(path)!r})" == repr(stream)
    assert stream.headline == "prequential" and not stream.boundaries
    assert (stream.held_out, stream.checkpoints, stream.changes) == ((), (), ())
    assert stream.schema.classes == ("cat", "dog") and stream.schema.features == ("weight", "time")
    assert stream.schema.shape == (2,) and stream.schema.dtype == torch.float32 and stream.schema.encoder is None
    assert stream.about == {"model": "fine_tune", "seed": 3, "steps": 3} and stream.kind == "classes"


@pytest.mark.parametrize(("first", "deployed"), [(0.0, 0), (0.2, 1), (0.5, 2), (0.7, 4), (1.0, 4)])
def test_the_first_part_is_the_first_training(path, first, deployed):
    stream = served(path, first=first)
    assert stream.deployed == deployed
    again = build(parse(stream.name), SCENARIOS)
    assert again.name == stream.name and again.deployed == deployed
    assert (", first=" in stream.name) == (first != 0.2)


def test_a_share_is_refused(path):
    for first in (-0.1, 1.1, float("nan"), "half"):
        with pytest.raises(ArgumentError, match="served: first must be a number between 0 and 1"):
            served(path, first=first)


@pytest.mark.parametrize("group", [1, 2, 3, 100])
def test_any_order_gives_the_same_events_however_rows_are_grouped(tmp_path, group):
    stream = served(pets(tmp_path / "p.parquet", group=group))
    straight = list(served(pets(tmp_path / "one.parquet")))
    order = [4, 0, 3, 3, 1, 2, 0, 4]
    assert all(equal(stream[index], straight[index]) for index in order)
    assert all(equal(stream[index - 5], straight[index]) for index in order)
    assert all(equal(one, other) for one, other in zip(stream, straight, strict=True))
    for index in (5, -6):
        with pytest.raises(IndexError):
            stream[index]


def test_events_do_not_share_memory(path):
    stream = served(path)
    stream[0].x.zero_()
    stream[0].time.zero_()
    stream[1].y.fill_(9)
    assert stream[0].x[1, 0] == 30 and stream[0].time[0] == 10 and stream[1].y.item() == 0


def test_images_and_numbers_stand_in_a_list(tmp_path):
    x = numpy.random.default_rng(0).integers(0, 256, (4, 3, 2, 2), dtype=numpy.uint8)
    columns = {
        "step": [1, 1, 2, 2], "seq": [1, 2, 3, 4], "id": list("abab"), "kind": ["input", "input", "answer", "answer"],
        "revision": [0] * 4, "time": [1.0, 2.0, 3.0, 4.0], "version": [0] * 4, "default": [False] * 4,
        "x": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), 12),
        "y": pyarrow.array([None, None, "dog", "cat"], pyarrow.string()), "answer": ["cat"] * 4,
    }  # fmt: skip
    spec = {"kind": "classes", "shape": [3, 2, 2], "dtype": "uint8", "classes": ["cat", "dog"]}
    first, second = served(write(tmp_path / "images.parquet", columns, spec, group=3))
    assert first.x.dtype == torch.uint8 and numpy.array_equal(first.x, x[:2]) and first.y is None
    assert numpy.array_equal(second.x, x[2:]) and second.y.tolist() == [1, 0]


@pytest.mark.parametrize("targets", [("price",), ("price", "rent")])
def test_values_are_rows_of_targets(tmp_path, targets):
    told = [[0.1, 2.0][: len(targets)], [-3.0, 1e-3][: len(targets)]]
    kind = pyarrow.float64() if len(targets) == 1 else pyarrow.list_(pyarrow.float64())
    stored = [None, *(values[0] if len(targets) == 1 else values for values in told)]
    columns = {
        "step": [1, 1, 1], "seq": [1, 2, 3], "id": ["a", "a", "b"], "kind": ["input", "answer", "answer"], "revision": [0] * 3,
        "time": [1.0, 2.0, 3.0], "size": [1.5, 1.5, 2.5], "version": [0] * 3, "default": [False] * 3,
        "y": pyarrow.array(stored, kind), "answer": pyarrow.array(stored, kind),
    }  # fmt: skip
    spec = {"kind": "values", "shape": [1], "dtype": "float64", "features": ["size"], "targets": list(targets)}
    stream = served(write(tmp_path / "values.parquet", columns, spec))
    assert stream[0].y is None and stream[0].x.dtype == torch.float64
    assert same_tensor(stream[1].y, torch.tensor(told, dtype=torch.float32))


def test_decisions_are_feedback_one_by_one(tmp_path):
    columns = {
        "step": [1, 1, 1, 2], "seq": [1, 2, 3, 4], "id": list("abab"), "kind": ["input", "input", "answer", "answer"],
        "revision": [0] * 4, "time": [1.0, 2.0, 3.0, 4.0],
        "x": pyarrow.array([[1.0], [2.0], [1.0], [2.0]], pyarrow.list_(pyarrow.float32(), 1)),
        "action": ["2", '"left"', "2", '"left"'], "propensity": pyarrow.array([0.5, None, 0.5, None], pyarrow.float64()),
        "reward": pyarrow.array([None, None, -1.5, 0.0], pyarrow.float64()), "version": [0] * 4, "default": [False] * 4,
    }  # fmt: skip
    spec = {"kind": "actions", "shape": [1], "dtype": "float32"}
    stream = served(write(tmp_path / "actions.parquet", columns, spec, group=3))
    wanted = [
        Feedback("a", torch.tensor([[1.0]]), 2, 0.5, -1.5),
        Feedback("b", torch.tensor([[2.0]]), "left", None, 0.0),
    ]
    assert len(stream) == 2 and all(equal(one, other) for one, other in zip(stream, wanted, strict=True))
    assert equal(stream[-1], wanted[1])
    columns["action"][2] = "left"
    with pytest.raises(DataError, match=r"actions.parquet, row 3: the action 'left' is no JSON"):
        served(write(tmp_path / "actions.parquet", columns, spec))[0]
    columns["action"][2], columns["reward"] = "2", pyarrow.array([None] * 4, pyarrow.float64())
    with pytest.raises(DataError, match=r"row 3: the action or its reward is missing"):
        served(write(tmp_path / "actions.parquet", columns, spec))[0]


def test_an_answer_without_a_label_is_refused_by_row(tmp_path):
    rows = [*LOG[:4], (*LOG[4][:7], None), *LOG[5:]]
    stream = served(pets(tmp_path / "p.parquet", rows))
    assert len(stream[0]) == 2
    with pytest.raises(DataError, match=r"p.parquet, row 5: the answer is missing"):
        stream[3]
