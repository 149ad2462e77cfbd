"""The file of a server's log: opened without reading it whole, and refused by row and column where it is damaged."""

import json

import pyarrow
import pyarrow.parquet
import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.served_file import ServedFile, served_kind

SPEC = {"kind": "classes", "shape": [2], "dtype": "float32", "classes": ["cat", "dog"], "features": ["a", "b"]}


def columns(steps=40):
    """Two inputs and two answers a step; a is the number of the row."""
    rows = 4 * steps
    single = pyarrow.float32()
    return {
        "step": [1 + row // 4 for row in range(rows)], "seq": list(range(1, rows + 1)), "id": [f"i{row}" for row in range(rows)],
        "kind": ["input", "input", "answer", "answer"] * steps, "revision": [0] * rows, "time": [row / 2 for row in range(rows)],
        "a": pyarrow.array([float(row) for row in range(rows)], single), "b": pyarrow.array([0.0] * rows, single),
        "y": pyarrow.array([None, None, "cat", "dog"] * steps, pyarrow.string()), "answer": ["cat"] * rows,
        "version": [0] * rows, "default": [False] * rows,
    }  # fmt: skip


def write(path, given, *, group=16, spec=SPEC, **changes):
    description = {"format": 1, "spec": spec, "model": "frozen", "seed": 0, "steps": 40, **changes}
    table = (given if isinstance(given, pyarrow.Table) else pyarrow.table(given)).replace_schema_metadata(
        {"everlearn": json.dumps(description)}
    )
    pyarrow.parquet.write_table(table, path, row_group_size=group, write_page_checksum=True, compression="none")
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "log.parquet", columns())


def spoil(path, column, group):
    """Flip bits in the middle of one column of one row group."""
    metadata = pyarrow.parquet.read_metadata(path)
    chunk = next(
        metadata.row_group(group).column(place)
        for place in range(metadata.num_columns)
        if metadata.row_group(group).column(place).path_in_schema == column
    )
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)


def test_events_are_spans_of_rows(path):
    file = ServedFile(path)
    assert len(file) == 80 and file.span(0) == (0, 2, False) and file.span(79) == (158, 160, True)
    assert file.rows(6, 8).x.tolist() == [[6, 0], [7, 0]] and file.rows(6, 8).y.tolist() == [0, 1]
    assert file.rows(4, 6).y.tolist() == [-1, -1] and file.rows(4, 5).time.tolist() == [2.0]


def test_rows_of_several_groups_are_joined(path):
    rows = ServedFile(path).rows(10, 60)
    assert rows.x[:, 0].tolist() == list(range(10, 60)) and rows.id[0] == "i10" and len(rows.id) == 50
    assert rows.y[2:4].tolist() == [-1, -1] and rows.time.dtype == torch.float64


def test_only_the_rows_asked_for_are_read(path):
    """The last group of x is spoilt: all before it can be read, itself cannot."""
    spoil(path, "a", 9)
    file = ServedFile(path)
    assert file.rows(0, 144).x[-1, 0] == 143
    with pytest.raises(DataError, match=r"log.parquet: rows 145 to 160 are damaged \(.*\). Export the log again."):
        file.rows(143, 145)


def test_damage_to_any_column_that_is_used_is_found(tmp_path):
    for column in ("step", "kind", "id", "time", "a", "y"):
        path = write(tmp_path / f"{column}.parquet", columns())
        spoil(path, column, 3)
        with pytest.raises(DataError, match=r"rows 49 to 64 are damaged"):
            ServedFile(path).rows(48, 64)


def test_at_most_two_groups_stay_in_memory(path):
    file = ServedFile(path)
    file.rows(0, 160)
    assert len(file._held) == 2


def test_a_file_replaced_meanwhile_is_refused(path):
    file = ServedFile(path)
    write(path.with_name("other.parquet"), columns(41)).replace(path)
    with pytest.raises(DataError, match="the file was replaced or removed while it was read; open it again"):
        file.rows(0, 1)
    path.unlink()
    with pytest.raises(DataError, match="the file was replaced or removed"):
        file.rows(0, 1)


def test_what_is_no_such_file_is_refused(tmp_path, path):
    with pytest.raises(DataError, match=r"lag.parquet: there is no such file. In that folder: log.parquet."):
        ServedFile(tmp_path / "lag.parquet")
    with pytest.raises(DataError, match="there is no such file"):
        ServedFile(tmp_path / "nowhere" / "lag.parquet")
    plain = tmp_path / "plain.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "y": ["cat"]}), plain)
    with pytest.raises(DataError, match=r"plain.parquet is a table, and not the log of a server.*target='COLUMN'"):
        ServedFile(plain)
    for number, garbled in enumerate((path.read_bytes()[:-100], path.read_bytes()[100:], b"", b"a,b\n1,2\n")):
        broken = tmp_path / f"broken{number}.parquet"
        broken.write_bytes(garbled)
        with pytest.raises(DataError, match=r"cannot be read as Parquet|are damaged"):
            ServedFile(broken)


def test_the_kind_is_told_without_reading_rows(tmp_path, path):
    assert served_kind(path) == "classes"
    plain = tmp_path / "plain.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "y": ["cat"]}), plain)
    assert served_kind(plain) is None
    plain.write_bytes(b"a,b\n")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        served_kind(plain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "a log of format 2, and this version of everlearn reads format 1"),
        ({"seed": "x"}, r"the description of the log is garbled \(ValueError"),
        ({"spec": None}, r"the spec of its rows cannot be read \(TypeError"),
        ({"spec": {**SPEC, "kind": "clases"}}, "unknown kind 'clases'; did you mean 'classes'"),
        ({"spec": {**SPEC, "dtype": "float33"}}, "the spec of its rows cannot be read.*float33"),
        ({"spec": {**SPEC, "dtype": "U5"}}, "there is no dtype 'U5'"),
        ({"spec": {**SPEC, "dtype": "nn"}}, "the spec of its rows cannot be read.*'nn'"),
        ({"spec": {**SPEC, "features": ["a", "c"]}}, "the column 'c' is missing"),
        ({"spec": {**SPEC, "dtype": "float64"}}, "the column 'a' holds float values, and double is expected"),
        ({"spec": {**SPEC, "encoder": {"format": 1}}}, "not the record of an encoder"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, changes, words):
    with pytest.raises(DataError, match=rf"log.parquet: {words}|log.parquet: .*{words}"):
        ServedFile(write(tmp_path / "log.parquet", columns(2), **changes))


def test_a_garbled_description_is_refused(tmp_path):
    for text in ("{", "[]", '"x"', "{}"):
        table = pyarrow.table(columns(2)).replace_schema_metadata({"everlearn": text})
        pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
        for opened in (ServedFile, served_kind):
            with pytest.raises(DataError, match=r"log.parquet: the description of the log is garbled"):
                opened(tmp_path / "log.parquet")


def changed(name, row, value):
    given = columns()
    values = list(given[name].to_pylist() if isinstance(given[name], pyarrow.Array) else given[name])
    values[row] = value
    kind = given[name].type if isinstance(given[name], pyarrow.Array) else None
    return given | {name: pyarrow.array(values, kind)}


@pytest.mark.parametrize(
    ("name", "row", "value", "words"),
    [
        ("step", 100, 3, "row 101: step 3 comes out of order; rows must stand as they were folded"),
        ("step", 64, 3, "row 65: step 3 comes out of order"),
        ("kind", 34, "input", None),
        ("kind", 32, "answer", "row 34: step 9 comes out of order"),
        ("kind", 5, "question", "the column 'kind' holds 'question'; it must be input or answer"),
        ("step", 20, None, "row 21: the column 'step' has no value"),
        ("id", 20, None, "row 21: the column 'id' has no value"),
        ("time", 20, None, "row 21: the column 'time' has no value"),
        ("a", 20, None, "row 21: the column 'a' has no value"),
        ("b", 20, float("nan"), "row 21: x holds NaN or infinite values"),
        ("y", 22, "dgo", "row 23: y: unknown label 'dgo'; did you mean 'dog'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_number(tmp_path, name, row, value, words):
    path = write(tmp_path / "log.parquet", changed(name, row, value))
    if words is None:
        assert len(ServedFile(path)) == 80
        return
    with pytest.raises(DataError, match=f"log.parquet(, |: ){words}"):
        ServedFile(path).rows(16, 32)


def test_a_log_without_events_is_refused(tmp_path):
    nothing = pyarrow.table(columns(1)).slice(0, 0).to_pydict()
    empty = pyarrow.table(nothing, schema=pyarrow.table(columns(1)).schema)
    with pytest.raises(DataError, match="the log holds no events"):
        ServedFile(write(tmp_path / "log.parquet", empty))


def test_labels_that_are_stored_by_a_dictionary_can_be_read(tmp_path):
    given = columns()
    given["y"] = given["y"].dictionary_encode()
    given["kind"] = pyarrow.array(given["kind"]).dictionary_encode()
    assert ServedFile(write(tmp_path / "log.parquet", given)).rows(2, 4).y.tolist() == [0, 1]
