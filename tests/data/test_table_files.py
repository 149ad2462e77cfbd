"""CSV and Parquet files: what reads, and that each broken file gives one error with its file and line."""

import gzip

import pyarrow
import pyarrow.parquet
import pytest

from everlearn.core.errors import DataError
from everlearn.data.table_files import read


def write(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(source):
    return source.table.to_pydict()


def test_cells_are_text_without_spaces_and_usual_marks_are_missing(tmp_path):
    source = read(write(tmp_path, "a,b\n 1 , x \nNA,?\n,\n 7, nan \n"))
    assert source.text and rows(source) == {"a": ["1", None, None, "7"], "b": ["x", None, None, None]}


def test_own_marks_for_missing(tmp_path):
    path = write(tmp_path, "a,b\n-,1\n2, - \n")
    assert rows(read(path))["a"] == ["-", "2"]
    assert rows(read(path, null=("-",))) == {"a": [None, "2"], "b": ["1", None]}


def test_the_same_table_in_every_dress(tmp_path):
    plain = "name,size\nüml,1\nb,2\n"
    wanted = {"name": ["üml", "b"], "size": ["1", "2"]}
    assert rows(read(write(tmp_path, plain))) == wanted
    assert rows(read(write(tmp_path, "\ufeff" + plain, "bom.csv"))) == wanted
    assert rows(read(write(tmp_path, plain.replace(",", ";"), "semicolon.csv"))) == wanted
    assert rows(read(write(tmp_path, plain.replace(",", "\t"), "tab.tsv"))) == wanted
    assert rows(read(write(tmp_path, plain.replace("\n", "\r\n"), "windows.csv"))) == wanted
    assert rows(read(write(tmp_path, gzip.compress(plain.encode()), "packed.csv.gz"))) == wanted
    assert rows(read(write(tmp_path, plain.encode("latin-1"), "latin.csv"), encoding="latin-1")) == wanted
    assert rows(read(write(tmp_path, plain.encode("utf-16"), "wide.csv"), encoding="utf-16")) == wanted


def test_quoted_cells_may_hold_commas_and_line_ends(tmp_path):
    source = read(write(tmp_path, 'a,b\n"x, y","one\ntwo"\nz,"last\nline"\n'))
    assert rows(source) == {"a": ["x, y", "z"], "b": ["one\ntwo", "last\nline"]}
    assert source.place(1) == "line 4 (row 2)"  # the first record takes lines 2 and 3


def test_lines_are_counted_over_empty_ones(tmp_path):
    assert read(write(tmp_path, "a,b\n1,2\n\n\n3,4\n")).place(1) == "line 5 (row 2)"


def test_the_index_that_pandas_writes_is_left_out(tmp_path):
    assert rows(read(write(tmp_path, ",a,b\n0,5,6\n1,7,8\n"))) == {"a": ["5", "7"], "b": ["6", "8"]}


def test_parquet_keeps_its_types(tmp_path):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, None], "b": ["x", "y"]}), path)
    source = read(path)
    assert not source.text and rows(source) == {"a": [1, None], "b": ["x", "y"]}
    assert source.place(0) == "row 1"


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("a,b\n1,2\n1,2,3\n4,5\n", "t.csv", r"t.csv: line 3 has 3 cells where the header has 2: '1,2,3'"),
        ("a,b\n1,2\n7\n", "t.csv", r"line 3 has 1 cell where the header has 2"),
        ("a,b\n1,2\n\n" + "3,4\n" * 50 + "1,2,3\n", "t.csv", r"line 54 has 3 cells"),
        ('a,b\n1,2\n3,"open\n4,5\n6,7\n', "t.csv", r"after line 2 a quote .* never closed"),
        ('a,b\n1,2\n"open,3\n4,5\n6,7\n', "t.csv", r"line 3 has 1 cell"),
        (b"a,b\n1,x\n2,caf\xe9\n", "t.csv", r"line 3 is not utf8 text \(byte 0xe9\).*latin-1"),
        (b"caf\xe9,b\n1,x\n", "t.csv", r"line 1 is not utf8 text"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv", r"line 1 is not utf8 text.*utf-16"),
        ("", "t.csv", r"the file is empty"),
        ("\n\n", "t.csv", r"the file is empty"),
        ("a,b\n", "t.csv", r"no rows"),
        ("a,b,a\n1,2,3\n", "t.csv", r"two columns are named 'a'"),
        ("a,,c\n1,2,3\n", "t.csv", r"column 2 has no name"),
        (b"this is no archive", "t.csv.gz", r"cannot be read"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 9000, mtime=0)[:60], "t.csv.gz", r"cannot be read"),
        (b"PAR1 but then nothing of the kind", "t.parquet", r"corrupt or of another kind"),
        (b"", "t.parquet", r"corrupt or of another kind"),
        ("a\n1\n", "t.xlsx", r"must be .csv"),
    ],
)
def test_a_broken_file_gives_one_error_that_says_where(tmp_path, content, name, words):
    path = write(tmp_path, content, name)
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_parquet_file_cut_short(tmp_path):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": list(range(10_000))}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="corrupt"):
        read(path)


def test_what_is_not_there(tmp_path):
    write(tmp_path, "a\n1\n", "sales.csv")
    with pytest.raises(DataError, match=r"no such file. In that folder: sales.csv"):
        read(tmp_path / "sale.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path / "folder.csv")
    with pytest.raises(DataError, match="unknown encoding 'klingon'"):
        read(tmp_path / "sales.csv", encoding="klingon")
