"""Whole tables: order of time, no look ahead, every option, and errors that name file, line and column."""

import csv
import gzip
import time as clock

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import build, parse
from everlearn.data.folders import roots
from everlearn.data.load import SOURCES
from everlearn.data.tables import table

PETS = """day,weight,fur,tame,kind
2024-01-03,5,long,true,cat
2024-01-01,30,short,true,dog
2024-01-02,4,,false,cat
2024-01-04,,short,true,dog
"""


@pytest.fixture
def pets(tmp_path):
    path = tmp_path / "pets.csv"
    path.write_text(PETS)
    return path


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    """Real wines as a table, ordered by alcohol, so that later rows differ from earlier ones."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    path = tmp_path_factory.mktemp("wine") / "wine.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", *bunch.feature_names, "cultivar"])
        for place, row in enumerate(bunch.data[:, 0].argsort(kind="stable")):
            writer.writerow([place, *bunch.data[row], f"cultivar {bunch.target[row]}"])
    return path


def test_a_table_by_hand(pets):
    data = table(pets, target="kind", time="day")
    assert data.features == ("weight", "weight missing", "fur=long", "fur=short", "fur missing", "tame")
    assert data.classes == ("cat", "dog") and [data.classes[y] for y in data.y] == ["dog", "cat", "cat", "dog"]
    # in the order of days the weights are 30, 4, 5, missing: mean 13, median 5
    deviation = ((17**2 + 9**2 + 8**2) / 3) ** 0.5
    wanted = [[17 / deviation, 0], [-9 / deviation, 0], [-8 / deviation, 0], [-8 / deviation, 1]]
    assert torch.allclose(data.x[:, :2], torch.tensor(wanted))
    assert data.x[:, 2:].tolist() == [[0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1]]
    assert (data.time[1:] - data.time[:-1]).tolist() == [86400.0] * 3
    assert data.x.dtype == torch.float32 and data.time.dtype == torch.float64


def test_without_a_time_rows_stand_as_they_are(pets):
    data = table(pets, target="kind", drop="day")
    assert [data.classes[y] for y in data.y] == ["cat", "dog", "cat", "dog"]
    assert data.time.tolist() == [0, 1, 2, 3]


def test_rows_of_one_time_keep_their_order(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("t,v,y\n" + "".join(f"{row % 3},{row},{'ab'[row % 2]}\n" for row in range(30)))
    data = table(path, target="y", time="t", categorical="v")
    order = [int(data.features[row].removeprefix("v=")) for row in data.x.argmax(dim=1).tolist()]
    assert order == sorted(range(30), key=lambda row: row % 3)


def test_the_name_gives_the_table_again(pets):
    data = table(pets, target="kind", time="day", drop=("fur",), missing="drop", fit_rows=3)
    assert data.name == f"table({str(pets)!r}, target='kind', time='day', drop=('fur',), missing='drop', fit_rows=3)"
    again = build(parse(data.name), SOURCES, "data set")
    assert torch.equal(again.x, data.x) and again.name == data.name and again.features == data.features


def test_later_rows_never_change_earlier_ones(drifting, tmp_path):
    lines = drifting.read_text().splitlines()
    changed = tmp_path / "changed.csv"
    header, rows = lines[0], lines[1:]
    rows[120:] = [",".join([row.split(",")[0], *(["777"] * 13), row.split(",")[-1]]) for row in rows[120:]]
    changed.write_text("\n".join([header, *rows]) + "\n")
    first, second = (table(path, target="cultivar", time="row") for path in (drifting, changed))
    assert torch.equal(first.x[:120], second.x[:120])
    assert not torch.equal(first.x[120:], second.x[120:])
    # the control: with statistics of all rows the future does reach back
    first, second = (table(path, target="cultivar", time="row", fit_rows=178) for path in (drifting, changed))
    assert not torch.equal(first.x[:120], second.x[:120])


def test_fit_rows_is_the_part_with_mean_zero(drifting):
    data = table(drifting, target="cultivar", time="row", fit_rows=50)
    assert torch.allclose(data.x[:50].mean(dim=0), torch.zeros(13), atol=1e-5)
    assert torch.allclose(data.x[:50].std(dim=0, correction=0), torch.ones(13), atol=1e-4)
    assert data.x[50:, 0].min() > data.x[:50, 0].max() - 1e-6  # ordered by this column: it drifts away
    assert torch.allclose(table(drifting, target="cultivar", time="row").x[:100].mean(dim=0), torch.zeros(13), atol=1e-5)


def test_parquet_and_packed_csv_say_the_same(drifting, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.csv.read_csv(drifting), tmp_path / "wine.parquet")
    (tmp_path / "wine.csv.gz").write_bytes(gzip.compress(drifting.read_bytes()))
    first = table(drifting, target="cultivar", time="row")
    for name in ("wine.parquet", "wine.csv.gz"):
        other = table(tmp_path / name, target="cultivar", time="row")
        assert torch.equal(first.x, other.x) and torch.equal(first.y, other.y) and first.classes == other.classes


def test_missing_values_by_rule(pets):
    assert len(table(pets, target="kind", time="day", missing="fill")) == 4
    dropped = table(pets, target="kind", time="day", missing="drop")
    assert len(dropped) == 2 and "weight missing" not in dropped.features
    with pytest.raises(DataError, match=r"column 'weight', line 5 \(row 4\): the value is missing"):
        table(pets, target="kind", time="day", missing="error")


def test_rows_without_a_target_are_left_out_with_a_warning(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,y\n1,a\n2,\n3,b\n4,NA\n5,a\n")
    with pytest.warns(UserWarning, match="2 of 5 rows have no 'y'"):
        data = table(path, target="y")
    assert len(data) == 3 and data.time.tolist() == [0, 2, 4]


def test_a_quantity_needs_bins(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,price\n" + "".join(f"{row},{row * 1.5}\n" for row in range(100)))
    with pytest.raises(DataError, match=r"column 'price'.*100 different numbers.*bins=4"):
        table(path, target="price")
    assert torch.bincount(table(path, target="price", bins=4).y).tolist() == [25] * 4
    edges = table(path, target="price", bins=(15, 30))
    assert edges.classes == ("< 15", "15 to 30", ">= 30") and torch.bincount(edges.y).tolist() == [10, 10, 80]


def test_categorical_and_max_categories_change_the_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("shop,y\n" + "".join(f"{row % 20},{'ab'[row % 2]}\n" for row in range(200)))
    assert table(path, target="y").features == ("shop",)
    assert len(table(path, target="y", categorical=("shop",)).features) == 20
    few = table(path, target="y", categorical=("shop",), max_categories=5)
    assert len(few.features) == 5 and few.features[-1] == "shop other"


def test_other_marks_and_encodings(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("größe,y\n1,a\n--,b\n3,a\n".encode("latin-1"))
    data = table(path, target="y", null=("--",), encoding="latin-1")
    assert data.features == ("größe", "größe missing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"target": "knd"},
            r"pets.csv: target: unknown column 'knd'; did you mean 'kind'\? known: day, fur, kind, tame, weight",
        ),
        ({"target": "kind", "time": "dya"}, r"time: unknown column 'dya'; did you mean 'day'"),
        ({"target": "kind", "drop": ("furr",)}, r"drop: unknown column 'furr'; did you mean 'fur'"),
        ({"target": "kind", "categorical": ("furr",)}, r"categorical: unknown column 'furr'"),
        ({"target": "kind", "time": "fur"}, r"column 'fur', line 4 \(row 3\): the time is missing"),
        ({"target": "kind", "time": "tame"}, r"column 'tame', line 2 \(row 1\): 'true' cannot be read as a time"),
        ({"target": "kind", "drop": ("day", "weight", "fur", "tame")}, r"no columns are left"),
        ({"target": "kind", "bins": 3}, r"bins cut numbers"),
    ],
)
def test_what_does_not_fit_the_table(pets, options, words):
    with pytest.raises(DataError, match=words):
        table(pets, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "kind", "missing": "guess"}, "fill, error, drop"),
        ({"target": "kind", "time": "kind"}, "different columns"),
        ({"target": "kind", "drop": ("kind",)}, "different columns"),
        ({"target": "kind", "max_categories": 1}, "max_categories must be an int >= 2"),
        ({"target": "kind", "fit_rows": 1}, "fit_rows must be an int >= 2"),
        ({"target": "kind", "drop": 3}, "drop must be names"),
    ],
)
def test_arguments_out_of_range(pets, options, words):
    with pytest.raises(ArgumentError, match=words):
        table(pets, **options)


def test_one_class_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,y\n1,a\n2,a\n")
    with pytest.raises(DataError, match=r"t.csv: column 'y': every row has the label 'a'"):
        table(path, target="y")


def test_a_column_that_changes_its_type_halfway(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v,y\n" + "".join(f"{row},{'ab'[row % 2]}\n" for row in range(60_000)) + "broken,a\n")
    with pytest.raises(DataError, match=r"t.csv: column 'v', line 60002 \(row 60001\).*'broken'.*categorical=\('v',\)"):
        table(path, target="y")


def test_a_hundred_thousand_rows_take_seconds(tmp_path):
    random = numpy.random.default_rng(0)
    numbers = random.normal(size=(1000, 16)).round(4).astype(str)
    texts = numpy.array([f"shop {number}" for number in range(30)])[random.integers(0, 30, (1000, 3))]
    moments = [f"2024-01-01T00:{second // 60:02d}:{second % 60:02d}" for second in range(1000)]
    answers = numpy.where(random.random(1000) < 0.5, "yes", "no")
    path = tmp_path / "big.csv"
    header = ",".join([*(f"v{number}" for number in range(16)), "a", "b", "c", "t", "y"])
    lines = [",".join(cells) for cells in numpy.column_stack([numbers, texts, moments, answers])]
    path.write_text("\n".join([header, *lines * 100]) + "\n")
    begin = clock.process_time()
    data = table(path, target="y", time="t")
    assert clock.process_time() - begin < 8  # 1.5 s measured
    assert data.x.shape == (100_000, 16 + 90)


def test_a_real_daily_series_gives_classes_by_quantile():
    path = next((path for root in roots() if (path := root / "nao_daily/nao_daily_cpc.csv.gz").exists()), None)
    if path is None:
        pytest.skip("EVERLEARN_DATA has no nao_daily")
    with gzip.open(path, "rt") as file:
        cells = [row["nao"] for row in csv.DictReader(file)]
    values = sorted(float(cell) for cell in cells if cell)
    with pytest.warns(UserWarning, match=f"{len(cells) - len(values)} of {len(cells)} rows have no 'nao'"):
        data = table(path, target="nao", bins=3)
    assert len(data) == len(values) and data.features == ("year", "month", "day")
    lows = sum(value < values[len(values) // 3] for value in values)
    assert torch.bincount(data.y)[0] == pytest.approx(lows, abs=1)
