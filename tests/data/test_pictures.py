"""Pictures: decoded when asked for, with the same bits as images that were decoded at once, in every kind of stream."""

from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch
from everlearn.core.random import generator
from everlearn.core.spec import build, parse
from everlearn.data.domain import rotated
from everlearn.data.few_shot import few_shot
from everlearn.data.images import images
from everlearn.data.label_shift import label_shift
from everlearn.data.load import SOURCES
from everlearn.data.pictures import Pictures, decode, pictures
from everlearn.data.pooled import pooled
from everlearn.data.prequential import iid
from everlearn.data.recurring import recurring
from everlearn.data.split import blurry, split, tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes of six images to learn from and two to be judged on, each of its own noise."""
    top = tmp_path_factory.mktemp("pictures")
    noise = torch.randint(0, 256, (32, 8, 8, 3), generator=generator(3), dtype=torch.uint8).numpy()
    for number in range(32):
        part = "test" if number % 8 > 5 else "train"
        path = top / part / f"c{number // 8}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[number]).save(path)
    return top


@pytest.fixture
def both(folder):
    return images(folder), images(folder, lazy=True)


def test_a_lazy_folder_is_the_same_data(both, folder):
    eager, lazy = both
    assert isinstance(eager.x, torch.Tensor) and isinstance(lazy.x, Pictures) and isinstance(lazy.test_x, Pictures)
    assert lazy.name == f"images({str(folder)!r}, lazy=True)" and lazy.schema == eager.schema
    assert isinstance(build(parse(lazy.name), SOURCES, "data set").x, Pictures)
    assert lazy.x.shape == eager.x.shape == (24, 3, 8, 8) and len(lazy.test_x) == len(eager.test_x) == 8
    assert torch.equal(lazy.x[:], eager.x) and torch.equal(lazy.test_x[:], eager.test_x) and torch.equal(lazy.y, eager.y)
    assert lazy.files == eager.files and lazy.files[:2] == ("c0/0.png", "c0/1.png")


def test_rows_by_every_kind_of_index(both):
    x, lazy = both[0].x, both[1].x
    mask = torch.arange(24) % 5 == 0
    for index in (3, -1, slice(2, 9, 3), slice(0, 0), torch.tensor([4, 4, 0]), torch.tensor([-1]), mask):
        assert torch.equal(lazy[index], x[index])
    assert torch.equal(lazy.index_select(0, torch.tensor([5, 2])), x[[5, 2]])
    part = lazy.take(mask).take(torch.tensor([2, 0]))
    assert isinstance(part, Pictures) and torch.equal(part[:], x[mask][[2, 0]])
    for index in (24, torch.tensor([24])):
        with pytest.raises(IndexError):
            lazy[index]
    with pytest.raises(IndexError, match="dim 0"):
        lazy.index_select(1, torch.tensor([0]))


def test_torch_functions_see_all_rows(both):
    x, lazy = both[0].x, both[1].x
    assert torch.equal(torch.cat([lazy, x[:1]]), torch.cat([x, x[:1]]))
    assert torch.equal(torch.flip(lazy, dims=(0,)), x.flip(0))


SCENARIOS = {
    "split": lambda data: split(data, experiences=2, batch=5, epochs=2, seed=1),
    "unofficial": lambda data: split(replace(data, test_x=None, test_y=None), experiences=2, test=0.5, seed=1),
    "tasks": lambda data: tasks(data, experiences=2, batch=5, seed=1),
    "blurry": lambda data: blurry(data, experiences=2, batch=5, seed=1),
    "few_shot": lambda data: few_shot(data, base_classes=2, way=1, shot=2, sessions=2, extra_test=True, seed=1),
    "rotated": lambda data: rotated(data, seed=1),
    "label_shift": lambda data: label_shift(data, seed=1),
    "iid": lambda data: iid(data, seed=1),
    "recurring": lambda data: recurring(data, tasks=3, classes_per_task=2, seed=1),
    "subset": lambda data: recurring(data, tasks=3, classes_per_task=2, subset=3, seed=1),
    "pooled": lambda data: split(pooled(data), experiences=2, batch=5, seed=1),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_streams_of_both_are_the_same_to_the_bit(both, name):
    eager, lazy = map(SCENARIOS[name], both)
    assert len(eager) == len(lazy) > 0 and eager.schema == lazy.schema
    for one, other in zip(eager, lazy, strict=True):
        assert type(one) is type(other)
        one, other = (event if isinstance(event, Batch) else event.data for event in (one, other))
        if one is not None:
            assert isinstance(other.x, torch.Tensor) and torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    for one, other in zip(eager.held_out, lazy.held_out, strict=True):
        assert one.name == other.name and isinstance(other.x, torch.Tensor) and torch.equal(one.x, other.x)


def test_only_what_is_asked_for_is_read(folder, tmp_path):
    """A file that is broken after the data set was made: a lazy row says so when it is asked for, an eager one has its pixels."""
    for number, shade in enumerate((10, 20, 30)):
        path = tmp_path / f"c{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(numpy.full((4, 4, 3), shade, numpy.uint8)).save(path)
    eager, lazy = images(tmp_path), images(tmp_path, lazy=True)
    (tmp_path / "c0" / "2.png").write_bytes(b"no image")
    assert lazy.x[torch.tensor([0, 2])][:, 0, 0, 0].tolist() == [10, 20] and eager.x[1, 0, 0, 0] == 30
    with pytest.raises(DataError, match=r"2\.png: cannot be read as an image"):
        lazy.x[1]
    with pytest.raises(DataError, match=r"2\.png"):
        images(tmp_path, size=4, channels=3)
    assert isinstance(images(tmp_path, size=4, channels=3, lazy=True).x, Pictures)


def test_sizes_are_those_asked_for_and_differing_ones_are_refused_at_once(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, width in zip(files, (4, 6), strict=True):
        Image.new("L", (width, 4), 7).save(file)
    with pytest.raises(DataError, match=r"a.png is 4x4 and .*b.png is 4x6"):
        pictures(files, 1, None, None, lazy=True)
    x, test_x = pictures(files, 1, (2, 3), None, lazy=True)
    assert x.shape == (1, 1, 2, 3) and torch.equal(test_x[:], decode(files[1:], (1, 2, 3)))
    assert pictures(files, 2, (2, 3), 3, lazy=True)[1] is None


def test_lazy_is_a_switch(folder):
    with pytest.raises(ArgumentError, match="lazy must be True or False, got 'yes'"):
        images(folder, lazy="yes")
