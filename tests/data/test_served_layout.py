"""How columns of a server's log are named and typed."""

import pyarrow
import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.encoder import Encoder, Numbers
from everlearn.data.scaling import Scale
from everlearn.data.served_layout import FIXED, OPTIONAL, Layout

FIRST = ["step", "seq", "id", "kind", "revision", "time"]


def test_columns_are_named_as_the_features():
    layout = Layout("classes", (2,), "float32", ("cat", "dog"), ("weight", "fur=long"))
    assert layout.columns.names == [*FIRST, "weight", "fur=long", "y", "answer", "version", "default"]
    assert layout.columns.field("weight").type == pyarrow.float32() and layout.columns.field("y").type == pyarrow.string()


def test_names_that_are_taken_stand_behind_an_x():
    features = ("x", "time", "x.time", "a", "a", "")
    layout = Layout("classes", (6,), "float32", ("cat", "dog"), features)
    assert layout.x_columns == ("x.x", "x.time", "x.x.time", "a", "x.a", "")
    assert len(set(layout.columns.names)) == len(layout.columns)
    whole = Layout("classes", (len(FIXED),), "float32", ("cat", "dog"), FIXED)
    assert len(set(whole.columns.names)) == len(whole.columns)


def test_rows_without_names_stand_in_a_list():
    for layout in (
        Layout("classes", (3, 4, 4), "uint8", ("a", "b")),
        Layout("classes", (4, 12), "uint8", ("a",), ("p", "q")),
    ):
        assert layout.x_columns == ("x",) and layout.columns.field("x").type == pyarrow.list_(pyarrow.uint8(), 48)


def test_what_is_told_depends_on_the_kind():
    one = Layout("values", (1,), "float64", targets=("price",))
    two = Layout("values", (1,), "float64", targets=("price", "rent"))
    assert one.columns.field("y").type == pyarrow.float64()
    assert two.columns.field("answer").type == pyarrow.list_(pyarrow.float64())
    agent = Layout("actions", (1,), "float32")
    assert agent.columns.names == [*FIRST, "x", "action", "propensity", "reward", *OPTIONAL, "version", "default"]


def test_a_spec_as_json_gives_the_layout_and_its_schema():
    encoder = Encoder((Numbers("weight", Scale(1.0, 2.0, 1.5)),))
    spec = {
        "kind": "classes",
        "shape": [1],
        "dtype": "float32",
        "classes": ["a", "b"],
        "features": ["weight"],
        "targets": [],
    }
    layout = Layout.from_json({**spec, "encoder": encoder.to_json()})
    schema = layout.schema
    assert (schema.shape, schema.dtype, schema.classes, schema.features) == ((1,), torch.float32, ("a", "b"), ("weight",))
    assert schema.encoder == encoder and Layout.from_json(spec).schema.encoder is None
    for wrong in ({**spec, "shape": "x"}, {**spec, "dtype": "U5"}, {"kind": "classes"}, None, {**spec, "encoder": 3}):
        with pytest.raises(DataError, match=r"cannot be read|not the record"):
            Layout.from_json(wrong)
