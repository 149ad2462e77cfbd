"""Short names of streams: the full call behind each, and which are refused."""

import pytest

from everlearn.comparison.stream_text import stream_text
from everlearn.core.errors import SpecError


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("digits", "split(digits, experiences=5, epochs=3)"),
        ("split( digits , experiences = 3)", "split(digits, experiences=3)"),
        ("cifar100_12k(labels='coarse')", "split(cifar100_12k(labels='coarse'), experiences=5, epochs=3)"),
        ("table('a.csv', target='y')", "prequential(table('a.csv', target='y'))"),
    ],
)
def test_a_short_stream_text_means_its_full_call(short, full):
    assert stream_text(short) == full


def test_a_table_without_a_target_is_refused(tmp_path):
    (tmp_path / "sales.csv").write_text("x,y\n1,2\n")
    with pytest.raises(SpecError, match="--target"):
        stream_text(str(tmp_path / "sales.csv"))


@pytest.mark.parametrize("columns", [{"target": "y"}, {"time": "day"}])
def test_columns_named_of_what_is_no_table_are_refused(columns):
    with pytest.raises(SpecError, match=r"digits: --target and --time name columns of a CSV or Parquet file"):
        stream_text("digits", **columns)


def test_a_missing_table_is_refused():
    with pytest.raises(SpecError, match="no such file"):
        stream_text("sales.csv", target="y")
