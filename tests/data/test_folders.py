"""Names that resolve in the folders of EVERLEARN_DATA, and the recipe that says how a folder is read."""

import json
import os

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError, SpecError
from everlearn.data.folders import described, find, names, read


def save(folder, name, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = arrays or {"x": numpy.arange(6.0).reshape(6, 1), "y": numpy.arange(6) % 2}
    numpy.savez(folder / f"{name}.npz", **arrays)


def settle(folder, **settings):
    (folder / "everlearn.json").write_text(json.dumps(settings))


@pytest.fixture
def root(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    save(first / "alone", "only")
    save(first / "many", "red")
    save(first / "many", "blue")
    save(second / "alone", "other", x=numpy.ones((2, 1)), y=numpy.arange(2))
    save(second / "more", "red")
    save(second, "loose")
    save(second / "physics", "flow", speed=numpy.zeros(3))
    monkeypatch.setenv("EVERLEARN_DATA", os.pathsep.join([str(first), str(tmp_path / "gone"), str(second)]))
    return tmp_path


def test_names_resolve_in_order(root):
    def place(name):
        return find(name).file.relative_to(root).as_posix()

    assert place("alone") == "first/alone/only.npz"  # the first folder of the name wins
    assert place("many/red") == place("many.red") == "first/many/red.npz"
    assert place("blue") == "first/many/blue.npz"
    assert place("loose") == "second/loose.npz"
    assert find("nothing") is None and find("many/../alone") is None and find("/etc/passwd") is None


def test_names_that_fit_several_or_none(root):
    with pytest.raises(DataError, match="write 'many/red' or 'more/red'"):
        find("red")
    with pytest.raises(DataError, match="many holds 2 data sets; name one: many/blue, many/red"):
        find("many")
    with pytest.raises(DataError, match="unknown data set 'reed'; did you mean 'red'"):
        find("many/reed")
    (root / "first" / "empty").mkdir()
    with pytest.raises(DataError, match="holds no npz"):
        find("empty")


def test_only_what_can_be_read_is_listed(root):
    assert names() == ["alone", "many/blue", "many/red", "loose", "more"]
    (root / "first" / "alone" / "README.md").write_text("# alone - six rows of counting\n\nmore words\n")
    settle(root / "first" / "many", description="two colours")
    lines = dict(described())
    assert lines["alone"] == "six rows of counting" and lines["many/red"] == "two colours" and "MB" in lines["loose"]


def test_without_the_variable_there_is_nothing(monkeypatch):
    monkeypatch.delenv("EVERLEARN_DATA", raising=False)
    assert names() == [] and find("digits") is None


def test_the_recipe_changes_what_is_read(root):
    folder = root / "first" / "alone"
    assert read(find("alone"), "alone").x.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    settle(folder, standardise=True)
    assert read(find("alone"), "alone").x.mean() == pytest.approx(0, abs=1e-6)
    settle(folder, test_rows=2, seed=1)
    first = read(find("alone"), "alone")
    assert len(first) == 4 and len(first.test_x) == 2
    settle(folder, test_rows=2, seed=2)
    assert not torch.equal(first.x, read(find("alone"), "alone").x)
    settle(folder, x="y", y="x")
    with pytest.raises(DataError, match=r"x\[:, None\]"):
        read(find("alone"), "alone")
    settle(root / "first" / "many", file="blue")
    assert find("many").file.stem == "blue"


def test_a_decoder_named_in_the_folder(root):
    planes = numpy.zeros((3, 2, 2, 2), numpy.uint8)
    planes[0, :, 0, 0] = 7
    save(root / "first" / "coded", "set", images=planes, labels=numpy.array([0, 1]))
    settle(root / "first" / "coded", decoder="residual", x="images", y="labels")
    data = read(find("coded"), "coded")
    assert data.x.shape == (2, 3, 2, 2) and (data.x == 7).all()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"decoder": "residul"}, DataError, "unknown decoder 'residul'; did you mean 'residual'"),
        ({"colour": "x"}, SpecError, "decoder plain: unknown argument 'colour'"),
        ({"x": "speeed"}, DataError, "unknown array 'speeed'"),
        ({"test_rows": 6}, ArgumentError, "between 1 and 5"),
        ({"x": ["x"]}, DataError, "must be an object of texts and numbers"),
    ],
)
def test_bad_recipes(root, settings, error, words):
    settle(root / "first" / "alone", **settings)
    with pytest.raises(error, match=words):
        read(find("alone"), "alone")


def test_a_recipe_that_is_no_json(root):
    (root / "first" / "alone" / "everlearn.json").write_text("{decoder:")
    with pytest.raises(DataError, match=r"everlearn.json: cannot be read as JSON"):
        find("alone")


def test_what_was_read_stays_until_the_file_changes(root):
    first = read(find("alone"), "a")
    assert read(find("alone"), "b").x is first.x
    save(root / "first" / "alone", "only", x=numpy.ones((4, 1)), y=numpy.arange(4) % 2)
    assert len(read(find("alone"), "a")) == 4
