"""State: captured, restored and written so that it comes back to the bit, or not at all."""

import json
import os

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from everlearn.core.errors import StateError
from everlearn.core.state import (
    TENSOR,
    capture,
    digest,
    load,
    load_snapshot,
    newest_snapshot,
    pack,
    restore,
    same,
    save_snapshot,
    sweep,
    unpack,
    write_atomic,
)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


@st.composite
def tensors(draw):
    """Any dtype and shape, also 0-dimensional, empty and not contiguous; any bits, NaN included."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    if dtype == torch.bool:
        return torch.randint(2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))).bool()
    count = int(numpy.prod(shape)) * dtype.itemsize
    data = draw(st.binary(min_size=count, max_size=count))
    tensor = torch.tensor(list(data), dtype=torch.uint8).view(dtype) if count else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape)
    return tensor.transpose(0, -1) if draw(st.booleans()) and len(shape) > 1 else tensor


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text().filter(lambda key: key != TENSOR)
trees = st.recursive(
    scalars | tensors(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_a_tree_survives_the_way_to_disk_and_back(tree):
    state = capture(tree)
    assert same(capture(state), state)
    data, body = pack(state)
    again = unpack(data, json.loads(json.dumps(body)))
    assert same(again, state) and same(state, again)
    assert digest(again) == digest(state)


@given(trees, trees)
@settings(max_examples=100, deadline=None)
def test_equal_states_have_equal_digests_and_others_have_not(first, second):
    first, second = capture(first), capture(second)
    if digest(first) == digest(second):
        assert same(first, second)
    if not same(first, second):
        assert digest(first) != digest(second)


def test_same_looks_at_every_bit_dtype_and_shape():
    plain = torch.tensor([0.0, 1.0])
    assert same(plain, plain.clone())
    assert not same(plain, torch.tensor([-0.0, 1.0]))
    assert not same(plain, plain.double()) and not same(plain, plain[None]) and not same(plain, [0.0, 1.0])
    assert same(torch.tensor(torch.nan), torch.tensor(torch.nan)) and same(float("nan"), float("nan"))
    assert not same({"a": 1}, {"a": 1, "b": 2}) and not same([1], [1, 2]) and not same([1, 2], [2, 1])
    assert same(torch.zeros(0, 3), torch.zeros(0, 3)) and not same(torch.zeros(0, 3), torch.zeros(0, 2))


def test_a_captured_state_is_a_copy():
    model, table = nn.Linear(2, 2), {"rows": torch.zeros(3), "list": [1, [2]]}
    state, held = capture(model), capture(table)
    expected = digest([state, held])
    with torch.no_grad():
        model.weight.add_(1.0)
    table["rows"].add_(1.0)
    table["list"][1].append(3)
    assert digest([state, held]) == expected


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", numpy.zeros(2), numpy.float32(1.0), 1j, [object()], {"a": {"b": object()}}]
)
def test_what_is_no_state_is_refused_by_its_type(value):
    with pytest.raises(
        StateError, match=r"state must be tensors, JSON scalars.*got (object|set|bytes|ndarray|float32|complex)"
    ):
        capture(value)


def test_keys_that_would_become_one_are_refused():
    assert capture({1: "a", 2: "b"}) == {"1": "a", "2": "b"}
    with pytest.raises(StateError, match="two keys of a dict have the same text"):
        capture({1: "a", "1": "b"})


def test_a_tensor_comes_back_on_the_device_where_it_stood():
    assert restore(torch.zeros(2, device="meta"), torch.ones(2)).device.type == "meta"


def test_the_mark_of_tensors_is_refused_as_a_key():
    with pytest.raises(StateError, match=r"may not use the key '\$tensor'"):
        pack({TENSOR: "0"})


class Part:
    parts = ("number", "rows", "random")

    def __init__(self):
        self.number = 0
        self.rows = torch.zeros(2)
        self.random = torch.Generator().manual_seed(1)


class Whole:
    """One of everything that may be a part."""

    parts = (
        *(
            "model",
            "optimizer",
            "torch_random",
            "numpy_random",
            "part",
            "parts_list",
            "models",
            "generators",
            "table",
            "plain",
        ),
        *("pair", "optional"),
    )

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.torch_random = torch.Generator().manual_seed(seed)
        self.numpy_random = numpy.random.default_rng(seed)
        self.part = Part()
        self.parts_list = [Part(), Part()]
        self.models = [nn.Linear(2, 2), nn.Linear(2, 1)]
        self.generators = (torch.Generator().manual_seed(seed), numpy.random.default_rng(seed))
        self.table = {"one": Part(), "two": nn.Linear(1, 1)}
        self.plain = [1, [2.0, "three"], {"four": None}]
        self.pair = (1, 2)
        self.optional = None
        self.cached = None

    def restored(self):
        self.cached = int(self.part.number)

    def live(self, steps):
        """Change everything."""
        for _ in range(steps):
            x = torch.randn(4, 3, generator=self.torch_random) + float(self.numpy_random.normal())
            self.model(x).square().sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            for part in (self.part, *self.parts_list, self.table["one"]):
                part.number += 1
                part.rows += torch.rand(2, generator=part.random)
            with torch.no_grad():
                for model in (*self.models, self.table["two"]):
                    model.weight += float(torch.rand(1, generator=self.generators[0]))
                    model.bias += self.generators[1].normal()
            self.plain.append(len(self.plain))
            self.pair = (self.pair[1], sum(self.pair))
            self.optional = torch.ones(2) if self.optional is None else self.optional + 1
        return capture(self)


def test_every_kind_of_part_goes_on_to_the_same_bits():
    first, second, third = Whole(0), Whole(1), Whole(2)
    first.live(3)
    third.live(5)
    data, tree = pack(capture(first))
    state = unpack(data, json.loads(json.dumps(tree)))
    number = digest(state)
    for other in (second, third):
        objects = [other.model, other.parts_list[0], other.models[1], other.generators[0], other.table["two"]]
        load(other, state)
        assert same(capture(other), capture(first)) and other.cached == 3
        assert isinstance(other.generators, tuple) and isinstance(other.pair, tuple)
        kept = [other.model, other.parts_list[0], other.models[1], other.generators[0], other.table["two"]]
        assert all(map(lambda one, two: one is two, objects, kept))
    expected = first.live(4)
    assert same(second.live(4), expected) and same(third.live(4), expected)
    assert digest(state) == number  # going on did not write into the state that was loaded


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda state: state.pop("part"), r"Whole: parts \['part'\] are on one side only"),
        (lambda state: state.update(more=1), r"Whole: parts \['more'\] are on one side only"),
        (lambda state: state["model"].pop("0.weight"), "does not fit this Sequential.*0.weight"),
        (
            lambda state: state["model"].update({"0.weight": torch.zeros(5, 5)}),
            "does not fit this Sequential.*size mismatch",
        ),
        (lambda state: state["optimizer"].pop("state"), "does not fit this AdamW"),
        (lambda state: state["optimizer"]["param_groups"].pop(), "does not fit this AdamW"),
        (lambda state: state.update(torch_random=torch.zeros(3)), "does not fit this Generator"),
        (lambda state: state.update(numpy_random={"bit_generator": "MT19937"}), "does not fit this Generator"),
        (lambda state: state["parts_list"].pop(), "other than the 2 objects that stand"),
        (lambda state: state.update(models=3), "other than the 2 objects that stand"),
        (lambda state: state["table"].pop("one"), "objects .'one', 'two'. stand"),
        (lambda state: state.update(part=None), "Part: parts .'number', 'random', 'rows'. are on one side"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(spoil, sentence):
    whole, other = Whole(0), Whole(1)
    state = whole.live(2)
    other.live(1)
    before = capture(other)
    spoil(state)
    with pytest.raises(StateError, match=sentence):
        load(other, state)
    assert same(capture(other), before)


def test_plain_values_are_replaced():
    assert restore([1, 2], [3]) == [3] and restore((1,), [2, 3]) == (2, 3) and restore(None, {"a": 1}) == {"a": 1}
    value = torch.zeros(2)
    assert restore(torch.ones(3), value) is not value


# ---- files -----------------------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"first")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"

    def fail(*given):
        raise OSError(28, "No space left on device")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(StateError, match=r"cannot write .*file: No space left.*earlier files stand"):
                write_atomic(path, b"third")
        assert path.read_bytes() == b"second" and [item.name for item in tmp_path.iterdir()] == ["file"]
    with pytest.raises(StateError, match="No such file"):
        write_atomic(tmp_path / "missing" / "file", b"")


def test_the_newest_two_snapshots_are_kept(tmp_path):
    for number in (1, 2, 10, 100):
        save_snapshot(tmp_path, number, {"value": torch.tensor(number)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"000000{number}.{kind}" for number in ("010", "100") for kind in ("json", "safetensors")
    ]
    number, state = newest_snapshot(tmp_path)
    assert number == 100 and same(state, {"value": torch.tensor(100)})


def test_there_is_no_newest_snapshot_in_an_empty_folder(tmp_path):
    assert newest_snapshot(tmp_path) is None and newest_snapshot(tmp_path / "missing") is None


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_bit_of_a_snapshot_can_change_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("snapshot")
    state = {"rows": torch.arange(5.0), "count": 3, "names": ["a", "b"]}
    path = save_snapshot(folder, 7, state)
    victim = data.draw(st.sampled_from([path, path.with_suffix(".safetensors")]))
    content = bytearray(victim.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    victim.write_bytes(content)
    try:
        number, found = load_snapshot(path)
    except StateError:
        return
    # the text of the JSON may change without its meaning doing so, such as white space
    assert victim == path and number == 7 and same(found, state)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"sha256": "0", "state": 5, "number": 1}', '{"state": "{}"}', "\udcff"]
)
def test_a_snapshot_that_is_no_snapshot_is_refused(tmp_path, text):
    path = save_snapshot(tmp_path, 1, {"a": 1})
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StateError, match=r"000000001\.json (cannot be read|is corrupt)"):
        load_snapshot(path)


def test_a_snapshot_under_another_number_is_refused(tmp_path):
    path = save_snapshot(tmp_path, 1, {"a": 1})
    for kind in (".json", ".safetensors"):
        path.with_suffix(kind).rename(tmp_path / f"000000002{kind}")
    with pytest.raises(StateError, match="corrupt"):
        load_snapshot(tmp_path / "000000002.json")


def test_sweeping_takes_what_was_half_written_and_nothing_else(tmp_path):
    save_snapshot(tmp_path, 1, {"a": torch.zeros(2)})
    for name in ("000000002.safetensors", ".000000002.json.77", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("x")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".hidden",
        "000000001.json",
        "000000001.safetensors",
        "notes.txt",
    ]
    sweep(tmp_path / "missing")
