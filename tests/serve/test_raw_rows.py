"""Raw rows of a table at the door of a server: encoded as the table was, refused by column."""

import json

import numpy
import pytest
import torch

from everlearn.agents.uniform import Uniform
from everlearn.core.errors import ServeError
from everlearn.core.stream import Schema
from everlearn.data.tables import table
from everlearn.learners.frozen import Frozen
from everlearn.nn.networks import linear
from everlearn.serve.input_spec import InputSpec

CSV = "day,weight,fur,tame,kind\n1,5.0,long,true,cat\n2,30.0,short,true,dog\n3,4.0,,false,cat\n4,28.0,short,false,dog\n"
ROWS = [
    {"weight": 5, "fur": "long", "tame": True},
    {"weight": 30.0, "fur": "short", "tame": True},
    {"weight": 4, "fur": None, "tame": False},
    {"weight": 28.0, "fur": "short", "tame": False},
]


@pytest.fixture
def pets(tmp_path):
    (tmp_path / "pets.csv").write_text(CSV)
    return table(tmp_path / "pets.csv", target="kind", time="day")


@pytest.fixture
def spec(pets):
    return InputSpec.of(Frozen(linear(pets.schema)), pets.schema)


def test_raw_rows_become_the_rows_of_the_table(pets, spec):
    assert torch.equal(spec.tensor([spec.row(row) for row in ROWS]), pets.x)
    assert spec.row(pets.x[0].tolist()) == spec.row(ROWS[0])


def test_a_spec_keeps_its_encoder_over_json(pets, spec):
    again = InputSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec and hash(again) == hash(spec) and again.schema == spec.schema == pets.schema
    assert [again.row(row) for row in ROWS] == [spec.row(row) for row in ROWS]


def test_an_agent_on_a_table_takes_raw_rows_too(pets):
    spec = InputSpec.of(Uniform(actions=2), pets.schema)
    assert spec.kind == "actions" and torch.equal(spec.tensor([spec.row(ROWS[1])])[0], pets.x[1])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"wieght": 5}, r"x: unknown column 'wieght'; did you mean 'weight'\?"),
        ({"fur=long": 1.0}, "x: unknown column 'fur=long'; did you mean 'fur'"),
        ({"weight": "heavy"}, "x: column 'weight' must be a number, got 'heavy'"),
        ({"weight": float("inf")}, "x: column 'weight' must be a finite number"),
        ({"tame": "yes"}, "x: column 'tame' must be true or false, got 'yes'"),
        ({"fur": [1]}, "x: column 'fur' must be a text"),
        ({}, "x: a row must hold at least one of the columns: weight, fur, tame"),
    ],
)
def test_wrong_rows_are_refused_by_column(spec, row, words):
    with pytest.raises(ServeError, match=words) as refused:
        spec.row(row)
    assert (refused.value.code, refused.value.status) == ("invalid_request", 422)


def test_without_an_encoder_a_dict_names_the_columns_of_x(pets):
    schema = pets.schema
    plain = InputSpec.of(Frozen(linear(schema)), Schema(schema.shape, schema.dtype, schema.classes, schema.features))
    named = dict(zip(pets.features, pets.x[0].tolist(), strict=True))
    assert plain.row(named) == pets.x[0].numpy().tobytes()
    assert plain.encoder is None and "encoder" not in plain.to_json()
    with pytest.raises(ServeError, match="unknown column 'fur'"):
        plain.row(ROWS[0])


def test_the_description_of_a_row_by_name(pets, spec):
    described = spec.named_schema()
    assert list(described["properties"]) == ["weight", "fur", "tame"] and described["required"] == []
    schema = pets.schema
    plain = InputSpec("classes", (5,), "float32", ("cat", "dog"), schema.features)
    assert plain.named_schema()["required"] == list(schema.features)
    assert plain.named_schema()["properties"]["weight"] == {"type": "number"}
    assert InputSpec("classes", (2,), "float32", ("cat", "dog")).named_schema() is None
    images = InputSpec("classes", (1, 2), "uint8", ("cat", "dog"), ("a", "b"))
    assert images.named_schema()["properties"]["b"] == {"type": "integer", "minimum": 0, "maximum": 255}


def test_a_row_of_bytes_is_float32_of_every_column(spec):
    assert numpy.frombuffer(spec.row({"fur": "long"}), numpy.float32)[1:].tolist() == [1.0, 0.0, 0.0, 0.5]
