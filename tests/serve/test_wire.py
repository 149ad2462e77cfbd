"""What goes over the wire: rows in every form, bytes only where they say the same, places of bad numbers, parts of many items."""

import base64
import json

import numpy
import pytest
import torch

from everlearn.core.errors import ServeError
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.wire import check_id, encoded, joined, parts, plain, row, rows, told

PICTURE = {"shape": [3, 10, 10], "dtype": "uint8"}


@pytest.mark.parametrize(
    ("x", "sent"),
    [
        ([1, [2.5]], [1, [2.5]]),
        ("AAAA", "AAAA"),
        (numpy.array([[1, 2]], dtype="int64"), [[1, 2]]),
        (numpy.float32(0.5), 0.5),
        (torch.tensor([0.5, 1.5], requires_grad=True), [0.5, 1.5]),
        (torch.tensor([0.5, 1.5], dtype=torch.bfloat16), [0.5, 1.5]),
        ({"age": numpy.float64(41), "colour": "red", "gone": None}, {"age": 41.0, "colour": "red", "gone": None}),
        ([numpy.float32(0.5), torch.tensor(2)], [0.5, 2]),
    ],
)
def test_a_row_in_any_form_becomes_json(x, sent):
    assert json.loads(encoded(row(x))) == sent


def test_numbers_of_float32_arrive_as_they_were():
    values = numpy.random.default_rng(0).normal(size=100).astype("float32")
    assert (numpy.array(json.loads(encoded(row(values))), "float32") == values).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", "bool"])
def test_a_large_array_is_sent_as_bytes_that_the_server_reads_as_the_same_row(dtype):
    values = (numpy.random.default_rng(0).uniform(0, 2, size=(3, 10, 10))).astype(dtype)
    spec = InputSpec("classes", (3, 10, 10), dtype, classes=("a", "b"))
    sent = row(values, spec.to_json())
    assert isinstance(sent, str)
    assert spec.row(sent) == spec.row(values.tolist())


def test_an_array_of_another_dtype_is_sent_in_that_of_the_schema():
    values = numpy.random.default_rng(0).normal(size=(3, 10, 10))
    spec = InputSpec("classes", (3, 10, 10), "float32", classes=("a", "b"))
    assert spec.row(row(values, spec.to_json())) == spec.row(values.tolist())
    whole = numpy.arange(300.0).reshape(3, 10, 10) % 256
    assert base64.b64decode(row(whole, PICTURE)) == whole.astype("uint8").tobytes()


@pytest.mark.parametrize(
    "x",
    [
        numpy.zeros((10, 10, 3), "uint8"),  # bytes would hide that the axes stand otherwise
        numpy.full((3, 10, 10), 0.5),  # bytes of uint8 would change the numbers
        numpy.full((3, 10, 10), 300),
        numpy.full((3, 10, 10), numpy.inf),
    ],
    ids=["shape", "fractions", "range", "infinite"],
)
def test_an_array_that_bytes_would_change_is_sent_as_lists(x):
    assert row(x, PICTURE) == x.tolist()


def test_small_arrays_and_unknown_schemas_are_sent_as_lists():
    assert row(numpy.zeros(3, "uint8"), {"shape": [3], "dtype": "uint8"}) == [0, 0, 0]
    large = numpy.zeros((3, 10, 10), "uint8")
    for schema in (
        None,
        {},
        {"shape": [3, 10, 10]},
        {"shape": [3, 10, 10], "dtype": "bfloat17"},
        {"shape": [3, 10, 10], "dtype": "S4"},
    ):
        assert row(large, schema) == large.tolist()


def test_many_rows_come_as_a_list_an_array_or_columns():
    assert rows([[1], [2]]) == [[1], [2]]
    assert [row(item) for item in rows(numpy.array([[1, 2], [3, 4]]))] == [[1, 2], [3, 4]]
    assert [row(item) for item in rows(torch.tensor([[1, 2], [3, 4]]))] == [[1, 2], [3, 4]]
    assert rows({"age": numpy.array([41, 30]), "colour": ("red", "blue")}) == [
        {"age": 41, "colour": "red"},
        {"age": 30, "colour": "blue"},
    ]
    assert rows([]) == []


@pytest.mark.parametrize("x", ["text", 5, None, {"a": [1], "b": [1, 2]}, {"a": 5}, {}, numpy.float32(3)])
def test_what_is_not_many_rows_is_refused(x):
    with pytest.raises(ServeError) as caught:
        rows(x)
    assert (caught.value.code, caught.value.status) == ("invalid_request", 422)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"x": [1.0, [2.0, float("nan")]]}, r"x\[1\]\[1\]"),
        ({"x": {"age": float("inf")}}, r"x\.age"),
        ({"x": [0.0, numpy.float32("nan")]}, r"x\[1\]"),
        ({"x": [numpy.array([1.0, numpy.inf])]}, r"x\[0\]\[1\]"),
    ],
)
def test_numbers_that_json_cannot_carry_are_named_by_their_place(value, place):
    with pytest.raises(ServeError, match=place) as caught:
        encoded(value)
    assert (caught.value.code, caught.value.status) == ("not_finite", 422)


def test_what_is_no_json_at_all_is_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    circle = []
    circle.append(circle)
    for value in (object(), {1j}, b"bytes", deep, circle):
        with pytest.raises(ServeError) as caught:
            encoded({"x": value})
        assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("value", [object(), {"a": 1}, b"abc", numpy.array([object()])])
def test_only_numbers_and_text_are_plain(value):
    with pytest.raises(ServeError, match="can be sent"):
        plain(value)


def test_feedback_is_checked_before_it_is_sent_or_kept():
    assert told({"id": "a", "y": numpy.int64(3)}) == {"id": "a", "y": 3, "revision": 0}
    assert told({"id": "a", "reward": 0.5, "y": None, "revision": 2}) == {"id": "a", "reward": 0.5, "revision": 2}
    assert told({"id": "a", "y": torch.tensor([1.0, 2.0])})["y"] == [1.0, 2.0]
    for item, words in [
        ({"id": "a"}, "neither"),
        ({"id": "a", "y": 1, "reward": 2}, "y and reward"),
        ({"id": "a", "y": 1, "revisoin": 2}, "no field 'revisoin'"),
        ({"id": "a", "y": 1, "revision": -1}, "revision"),
        ({"id": "a", "y": 1, "revision": True}, "revision"),
        ({"id": "a", "y": 1, "revision": 1 << 31}, "revision"),
        ({"y": 1}, "id must be text"),
        ({"id": 5, "y": 1}, "id must be text"),
        (["a", 1], "must be a dict"),
    ]:
        with pytest.raises(ServeError, match=words):
            told(item)


@pytest.mark.parametrize("id", ["", ".", "..", "a" * 201, "line\nbreak", "half \ud800", None, 7])
def test_ids_that_no_server_takes_are_refused(id):
    with pytest.raises(ServeError, match="id must be text of 1 to 200"):
        check_id(id)


def test_items_are_sent_in_parts_by_number_and_by_size():
    assert [len(part) for part in parts([b"{}"] * 2500)] == [1000, 1000, 500]
    assert [len(part) for part in parts([b"x" * 400_000] * 5)] == [2, 2, 1]
    assert [len(part) for part in parts([b"x", b"y" * 5_000_000, b"z"])] == [1, 1, 1]
    assert list(parts([])) == []
    assert max(len(joined(part)) for part in parts([b"x" * 999] * 2100)) <= 1 << 20
    assert joined([b"1"]) == b"1"
    assert joined([b"1", b"2"]) == b"[1,2]"
