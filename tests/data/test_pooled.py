"""pooled: block means by hand and by a slow twin, bytes that stay bytes, and what it refuses."""

from dataclasses import replace

import numpy
import pytest
import torch

from everlearn.comparison.building import build_stream
from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.random import generator
from everlearn.core.spec import build, parse
from everlearn.data import pooled as module
from everlearn.data.dataset import Data
from everlearn.data.load import SOURCES
from everlearn.data.pooled import pooled


def pictures(rows=7, channels=3, height=6, width=12, kind=torch.uint8):
    x = torch.randint(0, 256, (rows, channels, height, width), generator=generator(1), dtype=torch.uint8).to(kind)
    y = torch.arange(rows) % 2
    return Data("pictures", x, y, ("a", "b"), test_x=x[:2] // 2 if kind == torch.uint8 else x[:2] / 2, test_y=y[:2])


def slow(x, factor):
    """Block by block, in whole numbers; halves go to the even byte."""
    rows, channels, height, width = x.shape
    made = numpy.zeros((rows, channels, height // factor, width // factor), numpy.int64)
    for row, channel, i, j in numpy.ndindex(made.shape):
        block = x[row, channel, factor * i : factor * (i + 1), factor * j : factor * (j + 1)]
        total, count = int(block.long().sum()), factor * factor
        whole, rest = divmod(total, count)
        made[row, channel, i, j] = whole + (2 * rest > count or (2 * rest == count and whole % 2))
    return made.tolist()


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_bytes_are_the_rounded_means_of_blocks(factor, monkeypatch):
    data = pictures()
    monkeypatch.setattr(module, "ROWS", 3)  # two full parts and one row
    small = pooled(data, factor)
    assert small.x.dtype == torch.uint8 and small.x.shape == (7, 3, 6 // factor, 12 // factor)
    assert small.x.tolist() == slow(data.x, factor) and small.test_x.tolist() == slow(data.test_x, factor)
    assert torch.equal(small.y, data.y) and torch.equal(small.test_y, data.test_y) and small.classes == data.classes


def test_numbers_keep_their_mean_and_their_type():
    data = pictures(kind=torch.float64)
    small = pooled(data, 3)
    assert small.x.dtype == torch.float64
    assert torch.allclose(small.x.mean((2, 3)), data.x.mean((2, 3)), rtol=1e-12)


def test_twice_by_two_is_once_by_four():
    x = torch.rand(2, 1, 8, 8, generator=generator(2))
    data = Data("plain", x, torch.tensor([0, 1]), ("a", "b"))
    assert torch.allclose(pooled(pooled(data)).x, pooled(data, 4).x, atol=1e-6)


def test_its_name_gives_it_again():
    table = {**SOURCES, "pictures": pictures()}
    for text, name in (
        ("pooled(pictures)", "pooled(pictures)"),
        ("pooled(pictures, factor=3)", "pooled(pictures, factor=3)"),
    ):
        data = build(parse(text), table, "data set")
        assert data.name == name and torch.equal(build(parse(data.name), table, "data set").x, data.x)
    assert not torch.equal(
        build(parse("pooled(pictures, 3)"), table, "data set").x[..., :2, :4], pooled(pictures()).x[..., :2, :4]
    )


def test_streams_take_it_from_a_call(tmp_path):
    data = pictures(8)
    file = tmp_path / "some.npz"
    numpy.savez(file, x=data.x.numpy(), y=data.y.numpy())
    stream = build_stream(f"split(pooled(npz({str(file)!r}), factor=3), experiences=2, batch=3)", seed=0)
    assert (
        stream.schema.shape == (3, 2, 4)
        and stream.name == f"split(pooled(npz({str(file)!r}), factor=3), experiences=2, batch=3)"
    )


def test_what_cannot_be_pooled():
    data = pictures()
    for factor in (1, 0, 2.0, True):
        with pytest.raises(ArgumentError, match="factor must be an int >= 2"):
            pooled(data, factor)
    with pytest.raises(ArgumentError, match=r"factor must divide the 6x12 pixels of pictures, got 4. Use one of 2, 3, 6"):
        pooled(data, 4)
    with pytest.raises(ArgumentError, match="Resize the images first"):
        pooled(replace(data, x=torch.zeros(7, 1, 5, 3), test_x=None, test_y=None))
    with pytest.raises(DataError, match=r"rows of shape \(4,\), no images"):
        pooled(Data("table", torch.zeros(2, 4), torch.tensor([0, 1]), ("a", "b")))
    with pytest.raises(ArgumentError, match="data must be a data set of images"):
        pooled("cifar100_12k")
