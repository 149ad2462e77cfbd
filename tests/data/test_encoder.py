"""Raw rows encoded as the table they belong to: bit for bit, refused by column, kept as JSON."""

import csv
import gzip
import json
import math
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everlearn.core.errors import DataError, InputError
from everlearn.core.stream import Schema
from everlearn.data.encoder import Categories, Encoder, Numbers
from everlearn.data.folders import roots
from everlearn.data.scaling import Scale
from everlearn.data.table_files import MISSING
from everlearn.data.tables import table

AGES = Numbers("age", Scale(40.0, 2.0, 41.0))
GAPPY = Numbers("weight", Scale(5.0, 0.5, 4.0), missing=True)
TAME = Numbers("tame", Scale(0.7, 0.3, 1.0), flag=True)
COLOURS = Categories("colour", ("blue", "red"))
FURS = Categories("fur", ("long", "short"), other=True, missing=True)
PETS = Encoder((AGES, FURS, GAPPY, TAME, COLOURS))
reals = st.floats(allow_nan=False, allow_infinity=False)
ROW = {"age": 42, "fur": "long", "weight": 4.5, "tame": False, "colour": "red"}


def same_bits(one, other):
    one, other = numpy.asarray(one), numpy.asarray(other)
    return one.dtype == other.dtype == numpy.float32 and one.tobytes() == other.tobytes() and one.shape == other.shape


def found(folder, name):
    for root in roots():
        if (root / folder / name).exists():
            return root / folder / name
    pytest.skip(f"EVERLEARN_DATA has no {folder}")


def raw(path, encoder):
    """Rows of a CSV as a client would send them: numbers, true and false as such, texts, None for what is missing."""
    with gzip.open(path, "rt") if path.name.endswith(".gz") else open(path) as file:
        return [_typed(row, encoder) for row in csv.DictReader(file)]


def _typed(row, encoder):
    typed = {}
    for column in encoder.columns:
        text = row[column.name].strip()
        if text in MISSING:
            typed[column.name] = None
        elif isinstance(column, Categories):
            typed[column.name] = text
        else:
            typed[column.name] = text.lower() == "true" if column.flag else float(text)
    return typed


# ---- by hand ---------------------------------------------------------------------------------------------------------------


def test_a_row_by_hand():
    assert PETS.features == (
        *("age", "fur=long", "fur=short", "fur other", "fur missing", "weight", "weight missing"),
        *("tame", "colour=blue", "colour=red"),
    )
    x = PETS.encode([ROW])
    assert x.dtype == numpy.float32 and x.tolist() == [[1, 1, 0, 0, 0, -1, 0, 0, 0, 1]]


def test_what_is_missing_is_the_median_and_no_category_and_is_told_where_there_is_a_column_for_it():
    assert PETS.encode([{"colour": "red"}]).tolist() == [[0.5, 0, 0, 0, 1, -2, 1, 1, 0, 1]]
    for nothing in (None, math.nan, numpy.float32("nan")):
        gaps = dict.fromkeys(ROW, nothing)
        assert PETS.encode([gaps]).tolist() == [[0.5, 0, 0, 0, 1, -2, 1, 1, 0, 0]]


def test_an_unknown_category_is_among_the_others_or_nowhere():
    x = PETS.encode([{**ROW, "fur": "curly"}, {**ROW, "colour": "green"}])
    assert x[0, 1:5].tolist() == [0, 0, 1, 0]
    assert x[1, 8:].tolist() == [0, 0]


def test_numbers_and_truth_count_as_their_text_among_categories():
    codes = Encoder((Categories("code", ("7", "0.5", "true", "1e+20")),))
    for value, place in ((7, 0), (7.0, 0), (numpy.int32(7), 0), (0.5, 1), (True, 2), (numpy.True_, 2), (1e20, 3), ("7", 0)):
        assert codes.encode([{"code": value}]).argmax() == place
        assert pyarrow.scalar(value).cast(pyarrow.string()).as_py() == codes.columns[0].kept[place]


def test_marks_mean_missing_and_spaces_around_texts_do_not_count():
    marked = Encoder((FURS, GAPPY), marks=("", "NA"))
    assert marked.encode([{"fur": " NA ", "weight": "NA"}]).tolist() == marked.encode([{"fur": None}]).tolist()
    assert marked.encode([{"fur": " long"}])[0, 0] == 1
    assert PETS.encode([{"fur": "NA"}])[0, 1:5].tolist() == [0, 0, 1, 0]
    assert PETS.encode([{"fur": " long"}])[0, 1:5].tolist() == [0, 0, 1, 0]


def test_without_filling_every_column_needs_a_value():
    strict = Encoder(PETS.columns, fill=False)
    assert same_bits(strict.encode([ROW]), PETS.encode([ROW]))
    for column in ROW:
        for row in ({**ROW, column: None}, {key: value for key, value in ROW.items() if key != column}):
            with pytest.raises(InputError, match=f"column '{column}' has no value"):
                strict.encode([row])


def test_far_values_are_held_at_a_million_deviations():
    assert PETS.encode([{"age": 1e300}])[0, 0] == 1e6 and PETS.encode([{"age": -(10**30)}])[0, 0] == -1e6


def test_no_rows_give_an_empty_x():
    assert PETS.encode([]).shape == (0, 10)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"aeg": 3}, r"unknown column 'aeg'; did you mean 'age'\?"),
        ({7: 3}, r"unknown column '7'; "),
        ({"age": "41"}, r"column 'age' must be a number, got '41'"),
        ({"age": True}, r"column 'age' must be a number, got True"),
        ({"age": numpy.True_}, r"column 'age' must be a number"),
        ({"age": [41]}, r"column 'age' must be a number, got \[41\]"),
        ({"age": math.inf}, r"column 'age' must be a finite number, got inf"),
        ({"age": 10**400}, r"column 'age' must be a finite number, got 1000"),
        ({"tame": 1}, r"column 'tame' must be true or false, got 1"),
        ({"tame": "true"}, r"column 'tame' must be true or false, got 'true'"),
        ({"fur": ["long"]}, r"column 'fur' must be a text, a number, true or false, got \['long'\]"),
        ({"fur": {"a": 1}}, r"column 'fur' must be a text"),
        ({}, r"a row must hold at least one of the columns: age, fur, weight, tame, colour"),
        ([1, 2], r"a row must name its columns, such as \{'age': ...\}, got \[1, 2\]"),
    ],
)
def test_what_is_no_row_is_refused_by_column(row, words):
    with pytest.raises(InputError, match=f"^{words}"):
        PETS.encode([row])
    with pytest.raises(InputError, match=f"^row 2: {words}"):
        PETS.encode([ROW, row, ROW])


def test_long_values_are_cut_short_in_messages():
    with pytest.raises(InputError) as refused:
        PETS.encode([{"age": "x" * 10_000}])
    assert len(str(refused.value)) < 150
    with pytest.raises(InputError) as refused:
        PETS.encode([{"y" * 10_000: 1}])
    assert len(str(refused.value)) < 200


# ---- the same as the table -------------------------------------------------------------------------------------------------

REAL = {
    "abilene_tm": ("abilene_links.csv", {"target": "src_name", "categorical": ("dst",)}),
    "animals_attributes": ("strength.csv", {"target": "water", "bins": (50.0,), "categorical": ("animal",)}),
    "network_topologies": ("euro28_nodes.csv", {"target": "lat", "bins": 3, "categorical": ("name",), "max_categories": 9}),
    "nao_daily": ("nao_daily_cpc.csv.gz", {"target": "nao", "bins": 3, "categorical": ("month",), "max_categories": 7}),
}


@pytest.mark.parametrize("folder", REAL)
def test_rows_of_real_tables_come_out_bit_for_bit(folder):
    name, options = REAL[folder]
    path = found(folder, name)
    data = table(path, **options)
    assert data.encoder.features == data.features and data.schema.encoder is data.encoder
    rows = raw(path, data.encoder)
    kept = [row for row, target in zip(rows, _targets(path, options["target"]), strict=True) if target not in MISSING]
    assert same_bits(data.encoder.encode(kept), data.x)
    over_json = Encoder.from_json(json.loads(json.dumps(data.encoder.to_json())))
    assert over_json == data.encoder
    sent = json.loads(json.dumps(kept[:50]))
    assert same_bits(numpy.concatenate([over_json.encode([row]) for row in sent]), data.x[:50])


def _targets(path, target):
    with gzip.open(path, "rt") if path.name.endswith(".gz") else open(path) as file:
        return [row[target].strip() for row in csv.DictReader(file)]


def test_wines_with_gaps_come_out_bit_for_bit(tmp_path):
    """Real wines, a few cells of which are emptied, with a text and a column of true and false beside them."""
    from sklearn.datasets import load_wine

    bunch, random = load_wine(), numpy.random.default_rng(3)
    path = tmp_path / "wine.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "shade", "strong", "cultivar"])
        for place in random.permutation(len(bunch.data)):
            values = [
                repr(float(v)) if random.random() > 0.05 else random.choice(["", "NA", " ? "]) for v in bunch.data[place]
            ]
            shade = random.choice(["pale", "deep ", "brick", f"odd {place % 40}", "NA"])
            writer.writerow([*values, shade, bool(bunch.data[place, 0] > 13), bunch.target[place]])
    data = table(path, target="cultivar", max_categories=4)
    assert {"shade other", "shade missing", "strong", "alcohol missing"} <= set(data.features)
    rows = raw(path, data.encoder)
    assert same_bits(data.encoder.encode(rows), data.x)
    gapless = [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert same_bits(data.encoder.encode(gapless), data.x)


SPACES = ("", "", " ", "\t", "\u00a0", "\u2003", "\x1c", "\x85", "\u200b", "\ufeff")
cells = {
    "numbers": st.one_of(
        reals.map(repr),
        st.integers(-9, 9).map(str),
        st.sampled_from(["1e300", "+4", ".5", "5.", "-0.0", "1e-310", "9" * 25]),
    ),
    "flags": st.sampled_from(["true", "False", "TRUE"]),
    "texts": st.tuples(st.sampled_from(SPACES), st.sampled_from("abcdefgh"), st.sampled_from(SPACES)).map("".join),
}


@st.composite
def tables(draw):
    """(columns of cells, labels) as a CSV has them, with gaps."""
    rows = draw(st.integers(4, 12))
    columns = {}
    for place in range(draw(st.integers(1, 3))):
        cell = cells[draw(st.sampled_from(sorted(cells)))]
        if draw(st.booleans()):
            cell = st.one_of(cell, cell, st.sampled_from([*MISSING, " NA "]))
        columns[f"k{place}"] = draw(st.lists(cell, min_size=rows, max_size=rows))
    return columns, ["p", "q", *draw(st.lists(st.sampled_from("pq"), min_size=rows - 2, max_size=rows - 2))]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from([2, 3, 50]), st.sampled_from([2, 5, None]), st.sampled_from(["fill", "drop"]))
def test_rows_of_any_csv_come_out_bit_for_bit(tmp_path_factory, given_table, most, first, missing):
    columns, labels = given_table
    path = tmp_path_factory.mktemp("any") / "t.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "y"])
        writer.writerows(zip(*columns.values(), labels, strict=True))
    try:
        data = table(path, target="y", max_categories=most, fit_rows=first, missing=missing)
    except DataError:  # no column of it can be learned from, or only one class is left
        return
    encoded = []
    for row in raw(path, data.encoder):
        try:
            encoded.append(data.encoder.encode([row]))
        except InputError:
            assert missing == "drop" and None in row.values()
    assert same_bits(numpy.concatenate(encoded), data.x)


def test_rows_of_parquet_come_out_bit_for_bit(tmp_path):
    columns = {
        "count": pyarrow.array([3, None, 2**60 + 1, -7] * 40),
        "small": pyarrow.array([0.1, -2.5, None, 3e38] * 40, pyarrow.float32()),
        "sure": pyarrow.array([True, False, None, True] * 40),
        "word": pyarrow.array(["", " a ", "NA", None] * 40),
        "code": pyarrow.array([1.5, 2.0, 1e20, None] * 40),
        "y": pyarrow.array(["p", "q"] * 80),
    }
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    data = table(path, target="y", categorical="code")
    rows = pyarrow.table(columns).drop_columns(["y"]).to_pylist()
    assert same_bits(data.encoder.encode(rows), data.x)
    assert data.encoder.marks == () and data.features[-5:] == (
        "word missing",
        "code=1.5",
        "code=1e+20",
        "code=2",
        "code missing",
    )


def test_rows_of_a_csv_with_its_own_marks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,c,y\n1,a,p\nnone,none,q\n3, b,p\n")
    data = table(path, target="y", null="none")
    assert same_bits(data.encoder.encode([{"v": 1, "c": "a"}, {"v": "none", "c": "none"}, {"v": 3, "c": "b"}]), data.x)


def test_the_rule_for_missing_values_is_that_of_the_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,w,y\n1,1,p\n2,,q\n3,4,p\n9,5,q\n")
    assert table(path, target="y").encoder.fill
    data = table(path, target="y", missing="drop")
    assert same_bits(data.encoder.encode([{"v": 1, "w": 1}, {"v": 3, "w": 4}, {"v": 9, "w": 5}]), data.x)
    with pytest.raises(InputError, match="column 'w' has no value"):
        data.encoder.encode([{"v": 2}])


def test_rows_taken_from_a_table_keep_its_encoder(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,y\n" + "".join(f"{row},{'pq'[row % 2]}\n" for row in range(40)))
    data = table(path, target="y")
    train, test = data.split(0.25, seed=0)
    assert train.encoder is test.encoder is data.encoder
    assert Schema((1,), torch.float32, ("p", "q")).encoder is None


# ---- kept as JSON ----------------------------------------------------------------------------------------------------------

scales = st.builds(Scale, reals, st.floats(1e-300, 1e300), reals)
names = st.text(min_size=1, max_size=8)
numbers = st.builds(Numbers, names, scales, st.booleans(), st.booleans())
categories = st.builds(
    Categories, names, st.lists(st.text(max_size=5), max_size=5, unique=True).map(tuple), st.booleans(), st.booleans()
)
encoders = st.builds(
    Encoder,
    st.lists(st.one_of(numbers, categories), min_size=1, max_size=6, unique_by=lambda column: column.name).map(tuple),
    st.sampled_from([(), MISSING]),
    st.booleans(),
)


@st.composite
def encoders_with_rows(draw):
    encoder = draw(encoders)
    values = {}
    for column in encoder.columns:
        if isinstance(column, Categories):
            known = st.sampled_from(column.kept) if column.kept else st.nothing()
            values[column.name] = st.one_of(known, st.text(max_size=5), st.none() if encoder.fill else st.nothing())
        else:
            plain = st.booleans() if column.flag else reals
            values[column.name] = st.one_of(plain, st.none()) if encoder.fill else plain
    rows = st.lists(st.fixed_dictionaries(values), min_size=1, max_size=5)
    return encoder, draw(rows)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(encoders_with_rows())
def test_an_encoder_read_from_json_encodes_the_same(pair):
    encoder, rows = pair
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again == encoder and again.features == encoder.features
    try:
        x = encoder.encode(rows)
    except InputError:  # a text that is a mark, where nothing may be missing
        assert not encoder.fill and encoder.marks
        return
    assert same_bits(again.encode(rows), x)
    assert numpy.isfinite(x).all() and x.shape == (len(rows), len(encoder.features))
    assert same_bits(numpy.concatenate([encoder.encode([row]) for row in rows]), x)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(encoders_with_rows())
def test_each_category_column_holds_at_most_one_1(pair):
    encoder, rows = pair
    if not encoder.fill:
        return
    x, start = encoder.encode(rows), 0
    for column in encoder.columns:
        stop = start + len(column.features)
        if isinstance(column, Categories):
            total = x[:, start:stop].sum(axis=1)
            assert set(x[:, start:stop].ravel()) <= {0.0, 1.0} and (total <= 1).all()
            assert not (column.other and column.missing) or (total == 1).all()
        start = stop


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "an encoder of format 2; this version of everlearn reads format 1"),
        ({"columns": None}, "not the record of an encoder"),
        ({"columns": [{"name": "a", "kind": "numbre"}]}, "unknown kind of column 'numbre'; did you mean 'number'"),
        ({"columns": [{"name": "a", "kind": "number", "mean": "x"}]}, "not the record of an encoder"),
        ({"columns": ["a"]}, "not the record of an encoder"),
    ],
)
def test_a_garbled_record_is_refused(change, words):
    with pytest.raises(DataError, match=words):
        Encoder.from_json({**PETS.to_json(), **change})
    with pytest.raises(DataError, match="not the record of an encoder: KeyError: 'format'"):
        Encoder.from_json({})


def test_the_schema_of_a_row_says_what_may_be_sent():
    schema = PETS.json_schema()
    assert list(schema["properties"]) == list(PETS.names) and schema["additionalProperties"] is False
    assert schema["properties"]["age"] == {"type": ["number", "null"]} and schema["required"] == []
    assert schema["properties"]["tame"] == {"type": ["boolean", "null"]}
    assert schema["properties"]["fur"] == {"type": ["string", "number", "boolean", "null"], "examples": ["long", "short"]}
    strict = Encoder(PETS.columns, fill=False).json_schema()
    assert strict["required"] == list(PETS.names) and strict["properties"]["age"] == {"type": ["number"]}
    marked = Encoder((AGES,), marks=("NA",)).json_schema()
    assert marked["properties"]["age"] == {"anyOf": [{"type": ["number", "null"]}, {"enum": ["NA"]}]}


def test_what_the_schema_allows_is_taken_and_what_it_forbids_is_not():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(PETS.json_schema())
    values = (None, 1, 1.5, True, "red", "NA", [1], {"a": 1})
    rows = [{}, {"aeg": 1}, ROW, *({name: value} for name in PETS.names for value in values)]
    for row in rows:
        try:
            taken = PETS.encode([row]) is not None
        except InputError:
            taken = False
        assert check.is_valid(row) == taken, row


def test_encoding_needs_no_arrow():
    """A row of numbers and texts is encoded with numpy alone."""
    import subprocess
    import sys

    code = (
        "import sys; from everlearn.data.encoder import *; from everlearn.data.scaling import Scale\n"
        "Encoder((Numbers('a', Scale(0.0, 1.0, 0.0)), Categories('b', ('x',)))).encode([{'a': 1, 'b': 'x'}])\n"
        "print('pyarrow' in sys.modules)"
    )
    top = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=top)
    assert done.stdout.strip() == "False"
