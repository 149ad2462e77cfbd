"""The description of rows and answers agrees with what is taken: by jsonschema on one side and InputSpec on the other."""

import base64
import math

import jsonschema
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ServeError
from everlearn.serve import bodies, forms
from everlearn.serve.input_spec import InputSpec

from .fake_engine import ACTIONS, CLASSES, IMAGES, VALUES


def described(value, schema):
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def taken(check, value, spec):
    try:
        check(value, spec)
    except ServeError:
        return False
    return True


NUMBERS = st.one_of(
    st.integers(-300, 300), st.floats(-1e30, 1e30), st.sampled_from([1e300, 3.5e38, -4e38, "1", None, 256, 0.5, True, False])
)
ROWS = st.one_of(
    st.lists(NUMBERS, max_size=6),
    st.lists(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=2, max_size=2), min_size=1, max_size=1),
    st.dictionaries(st.sampled_from("abcde"), NUMBERS),
    st.fixed_dictionaries({name: st.floats(-10, 10) for name in "abcd"}),
    st.none(),
    st.just("!!"),
)


@pytest.mark.parametrize("spec", [CLASSES, IMAGES], ids=["table", "image"])
@settings(max_examples=150, deadline=None)
@given(row=ROWS)
def test_a_row_is_taken_where_it_is_described(spec, row):
    body = {"x": row}
    assert described(body, forms.predict_schema(spec)) == taken(bodies.asks, body, spec)


@pytest.mark.parametrize(("dtype", "greatest"), [("float16", 65504.0), ("float32", 3.4028234663852886e38)])
def test_numbers_are_described_up_to_where_rounding_makes_them_infinite(dtype, greatest):
    spec = InputSpec("values", (1,), dtype, targets=("one",))
    end = forms.FLOATS[dtype]
    for number, fine in ((greatest, True), (math.nextafter(end, 0), True), (end, False), (-end, False)):
        assert described({"x": [number]}, forms.predict_schema(spec)) is fine
        assert taken(bodies.asks, {"x": [number]}, spec) is fine


@pytest.mark.parametrize("spec", [CLASSES, IMAGES, VALUES])
def test_bytes_of_a_row_are_described_by_their_length(spec):
    text = base64.b64encode(numpy.ones(spec.shape, spec.dtype).tobytes()).decode()
    schema = forms.predict_schema(spec)
    assert described({"x": text}, schema)
    assert taken(bodies.asks, {"x": text}, spec)
    assert not described({"x": text[4:]}, schema)


ANSWERS = st.one_of(
    st.sampled_from(["cat", "dog", "7", 7, "height", 1.5, -3, None, True, [1.0], [1, 2], [1, 2, 3], {}, 1e300]),
    st.lists(st.floats(-10, 10), min_size=1, max_size=3),
)


@pytest.mark.parametrize("spec", [CLASSES, VALUES, ACTIONS, InputSpec("values", (2,), "float32", targets=("one",))])
@settings(max_examples=100, deadline=None)
@given(y=ANSWERS, name=st.sampled_from(["y", "reward"]), revision=st.sampled_from([None, 0, 5, -1, 1.5, 2**31, 2**31 - 1]))
def test_an_answer_is_taken_where_it_is_described(spec, y, name, revision):
    body = {"id": "a", name: y} | ({} if revision is None else {"revision": revision})
    assert described(body, forms.feedback_schema(spec)) == taken(bodies.told, body, spec)


def test_labels_are_listed_up_to_two_hundred():
    def of(count):
        return forms.answer_schema(InputSpec("classes", (1,), "float32", classes=tuple(f"c{i}" for i in range(count))))

    assert of(200)["enum"][:2] == ["c0", "c1"]
    assert "enum" not in of(201)
    assert "201 labels" in of(201)["description"]


def test_whole_numbers_stand_for_labels_that_look_like_them():
    spec = InputSpec("classes", (1,), "float32", classes=("7", "07", "-1", "٣"))
    assert forms.answer_schema(spec)["enum"] == ["7", "07", "-1", "٣", 7, -1]


def test_dates_are_told_as_text_too():
    assert forms.dated({"time": 0.0, "created": None, "seq": 1}, "time", "created") == {
        "time": 0.0,
        "created": None,
        "seq": 1,
        "time_iso": "1970-01-01T00:00:00.000Z",
    }


def test_what_schema_tells_gives_the_spec_back():
    told = forms.described(CLASSES)
    assert InputSpec.from_json({key: value for key, value in told.items() if key not in ("input", "answer")}) == CLASSES
    assert described([1, 2, 3, 4], told["input"])
    assert described("dog", told["answer"])
