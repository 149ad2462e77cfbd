"""The front door: what a name resolves to, in which order, and what is said where nothing has it."""

import numpy
import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.core.spec import build, parse
from everlearn.data import load as room
from everlearn.data.load import SOURCES, known, load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    numpy.savez(tmp_path / "shapes" / "set.npz", x=numpy.arange(8.0).reshape(4, 2), y=numpy.array(["a", "b", "a", "b"]))
    (tmp_path / "colours").mkdir()
    for name in ("red", "blue"):
        numpy.savez(tmp_path / "colours" / f"{name}.npz", x=numpy.eye(2), y=numpy.arange(2))
    monkeypatch.setenv("EVERLEARN_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch):
    """A hub that has nothing, and counts who asks."""
    asked = []

    def hub(name):
        asked.append(name)
        raise DataError(f"hub({name!r}): the Hugging Face hub has no data set of this name that is open to you.")

    monkeypatch.setattr(room, "hub", hub)
    return asked


def test_bundled_sets_come_first_and_once(folder, no_hub):
    (folder / "digits").mkdir()
    assert load("digits").x.shape == (1797, 64) and load("digits") is load("digits")
    assert no_hub == []


def test_then_the_folders(folder, no_hub):
    assert load("shapes").classes == ("a", "b") and load("shapes").name == "shapes"
    assert load("red").name == "red" and load("colours/red").name == "load('colours/red')"
    assert torch.equal(load("colours.red").x, load("colours/red").x)
    assert no_hub == []


def test_then_the_hub(folder, monkeypatch):
    monkeypatch.setattr(room, "hub", lambda name: f"from the hub: {name}")
    assert load("someone/something") == "from the hub: someone/something"


def test_a_name_that_nothing_has(folder, no_hub):
    with pytest.raises(DataError) as caught:
        load("shapez")
    text = str(caught.value)
    assert "unknown data set 'shapez'; did you mean 'shapes'?" in text
    assert f"EVERLEARN_DATA ({folder})" in text and "hub('shapez'): the Hugging Face hub has no" in text
    assert no_hub == ["shapez"]
    with pytest.raises(DataError, match="did you mean 'red'"):
        load("redd")


def test_known_public_sets_are_not_looked_for_on_the_hub(monkeypatch, no_hub):
    monkeypatch.delenv("EVERLEARN_DATA", raising=False)
    with pytest.raises(DataError, match=r"cifar100_12k: not found in EVERLEARN_DATA \(not set\)"):
        load("cifar100_12k")
    assert no_hub == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sales.csv", r"table\('sales.csv', target='COLUMN'\)"),
        ("a/b.parquet", "is a table"),
        ("set.npz", r"npz\('set.npz'\)"),
        ("", "takes a name"),
        (None, "takes a name"),
        (torch.zeros(2), "from_arrays"),
    ],
)
def test_what_is_no_name_is_sent_to_the_right_door(name, words):
    with pytest.raises(DataError, match=words):
        load(name)


def test_a_path_of_a_folder_is_sent_to_images(tmp_path):
    with pytest.raises(DataError, match=r"read its images with images"):
        load(str(tmp_path))


def test_known_lists_what_load_finds(folder, no_hub):
    listed = dict(known())
    assert list(listed) == ["digits", "iris", "wine", "breast_cancer", "colours/blue", "colours/red", "shapes"]
    for name, line in listed.items():
        assert len(load(name)) > 0 and line and "\n" not in line


def test_every_source_stands_behind_its_own_name():
    for name, source in SOURCES.items():
        assert source.__name__ == name and source.__doc__


@pytest.mark.parametrize("text", ["digits", "iris()", "shapes", "colours.red", "load('colours/red')"])
def test_call_strings_give_data_whose_name_gives_it_again(folder, text):
    data = build(parse(text), SOURCES, "data set", load)
    again = build(parse(data.name), SOURCES, "data set", load)
    assert torch.equal(again.x, data.x) and again.name == data.name


def test_options_in_call_strings(folder):
    (folder / "t.csv").write_text("v,y\n1,a\n2,b\n3,a\n")
    text = f"table({str(folder / 't.csv')!r}, target='y', fit_rows=2)"
    assert build(parse(text), SOURCES, "data set", load).x.flatten().tolist() == [-1, 1, 3]
