"""Texts as bytes: which files, in which order, and what is said where there are none."""

import gzip

import pytest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.corpora import corpus, python_source


@pytest.fixture
def texts(tmp_path, monkeypatch):
    folder = tmp_path / "second" / "text_corpora"
    folder.mkdir(parents=True)
    (tmp_path / "first").mkdir()
    for name, text in {"en_sea": "the sea", "de_meer": "das Meer ü"}.items():
        (folder / f"{name}.txt.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("EVERLEARN_DATA", f"{tmp_path / 'first'}:{tmp_path / 'second'}")


def test_texts_come_one_after_the_other_as_bytes(texts):
    assert bytes(corpus("de_meer", "en_sea").tolist()).decode() == "das Meer üthe sea"
    assert bytes(corpus("en_sea").tolist()) == b"the sea"


def test_a_text_that_is_not_there_is_answered_with_the_closest(texts):
    with pytest.raises(DataError, match="did you mean 'en_sea'"):
        corpus("en_seas")


def test_a_folder_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("EVERLEARN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="text_corpora: not found in EVERLEARN_DATA"):
        corpus("en_sea")


def test_python_source_is_the_modules_by_name():
    """The first modules of the library are __future__ and __hello__, then abc and others; whatever is cut, the beginning stays."""
    import __future__

    whole = bytes(python_source().tolist())
    with open(__future__.__file__, "rb") as file:
        assert whole.startswith(file.read())
    assert len(whole) == 1_000_000
    assert bytes(python_source(100).tolist()) == whole[:100]
    with pytest.raises(ArgumentError, match="length"):
        python_source(0)
