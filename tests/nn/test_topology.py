"""Densities against worked numbers, and the number of places drawn."""

import math
import time

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.stream import Schema
from everlearn.nn.masks import maskable
from everlearn.nn.mobilenet import mobilenet_v2
from everlearn.nn.networks import resnet18
from everlearn.nn.topology import draw_mask, erk_densities, uniform_densities

MLP = {"a": (300, 784), "b": (100, 300), "c": (10, 100)}
CONV = {"a": (24, 3, 3, 3), "b": (48, 24, 3, 3), "c": (96, 48, 3, 3), "d": (96, 96, 3, 3)}


@pytest.mark.parametrize(
    "shapes, density, expected",
    [
        (MLP, 0.05, (0.03848413, 0.11133417, 0.9185069)),
        (MLP, 0.2, (0.16224123, 0.46936208, 1)),
        (MLP, 0.5, (0.43409864, 1, 1)),
        (CONV, 0.02, (0.30052288, 0.04439542, 0.02134395, 0.01408701)),
        (CONV, 0.2, (1, 0.46690141, 0.22447183, 0.14815141)),
        (CONV, 0.5, (1, 1, 0.58930496, 0.38894127)),
    ],
)
def test_erk_by_hand(shapes, density, expected):
    found = erk_densities(shapes, density)
    assert list(found.values()) == pytest.approx(expected, abs=1e-8)
    total = sum(math.prod(shape) for shape in shapes.values())
    assert sum(found[name] * math.prod(shape) for name, shape in shapes.items()) == pytest.approx(density * total)


SCHEMA = Schema((3, 32, 32), torch.float32, tuple(map(str, range(100))))


def shapes_of(model):
    return {name: tuple(weight.shape) for name, weight in maskable(model).items()}


def test_erk_of_a_residual_network():
    shapes = shapes_of(resnet18(SCHEMA, stem="imagenet"))
    assert len(shapes) == 21 and sum(map(math.prod, shapes.values())) == 11_218_112
    found = list(erk_densities(shapes, 0.05).items())
    assert found[0][1] == pytest.approx(0.51854581, abs=1e-8)  # the stem of 7x7
    assert found[1][1] == pytest.approx(0.21892823, abs=1e-8)
    assert found[-2][1] == pytest.approx(0.02629385, abs=1e-8)
    assert found[-1][1] == pytest.approx(0.71991443, abs=1e-8)
    assert [shapes[name] for name, share in found if share == 1.0] == [(128, 64, 1, 1)]


def test_erk_of_a_network_of_depthwise_convolutions():
    shapes = shapes_of(mobilenet_v2(SCHEMA))
    assert len(shapes) == 54 and sum(map(math.prod, shapes.values())) == 2_318_784
    dense = [shapes[name] for name, share in erk_densities(shapes, 0.2).items() if share == 1.0]
    assert len(dense) == 21 and sum(shape[1] == 1 for shape in dense) == 17 == sum(s[1] == 1 for s in shapes.values())
    assert not [share for share in erk_densities(shapes, 0.05).values() if share == 1.0]


def test_a_hundred_layers_take_no_time():
    shapes = {str(number): (2 + number, 4) for number in range(100)}  # layer after layer becomes dense
    began = time.process_time()
    for _ in range(10):
        found = erk_densities(shapes, 0.9)
    assert (time.process_time() - began) / 10 < 0.010
    assert 15 < sum(share == 1.0 for share in found.values()) < 100


def test_exact_draws_meet_the_budget_and_others_do_not():
    draws = [draw_mask((100, 10), 0.2, torch.Generator().manual_seed(seed)).sum().item() for seed in range(8)]
    loose = [draw_mask((100, 10), 0.2, torch.Generator().manual_seed(seed), exact=False).sum().item() for seed in range(8)]
    assert set(draws) == {200}
    assert len(set(loose)) > 1


def test_used_fraction_of_independent_draws():
    random = torch.Generator().manual_seed(0)
    union = torch.zeros(200_000, dtype=torch.bool)
    for _ in range(10):
        union |= draw_mask((200_000,), 0.2, random)
    assert union.float().mean().item() == pytest.approx(0.892626, abs=0.004)


def test_refuses_densities_out_of_range():
    for density in (0.0, 1.1):
        with pytest.raises(ArgumentError, match="density must be in"):
            uniform_densities(MLP, density)
