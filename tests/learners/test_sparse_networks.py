"""Sparse learning on networks of many kinds: grouped and tied layers, modules in two places, frozen and computed weights."""

import pytest
import torch
from torch import nn

from everlearn import Boundary, Sparse
from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.mobilenet import mobilenet_v2
from everlearn.nn.networks import resnet18

from .lessons import SHORT, TEN, network, rows, taught, teach


class Own(nn.Module):
    """A module of a user's: grouped and depth-wise convolutions, a shared weight, a parameter that is none of the known kinds."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(2, 8)
        self.scale = nn.Parameter(torch.ones(8))
        self.inner = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.inner.weight
        self.last = nn.Linear(8, 20)

    def forward(self, x):
        hidden = self.norm(self.depthwise(self.grouped(x).relu())).mean((2, 3)) * self.scale
        return self.last(self.again(self.inner(hidden).relu()))


TINY = Schema((3, 8, 8), torch.float32, tuple(map(str, range(20))))
NETWORKS = {
    "own": (Own, (4, 6, 6)),
    "resnet18": (lambda: resnet18(TINY, width=8), (3, 8, 8)),
    "mobilenet_v2": (lambda: mobilenet_v2(TINY, width=0.25), (3, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_masks_networks_of_other_kinds(name):
    build, shape = NETWORKS[name]
    with isolated(0, "network"):
        model = build()
    learner = Sparse(model, density=0.5, growth="momentum", **SHORT)
    teach(learner, 0, 3, shape)
    learner.boundary(Boundary(1, TEN[1]))
    probe = rows(0, 99, shape=shape).x
    before = learner.predict_in(probe, 0)
    for step in range(3):
        learner.update(rows(1, step, shape=shape))
    assert torch.equal(learner.predict_in(probe, 0), before)
    assert not torch.equal(learner.mask_of(0), learner.mask_of(1))


def test_a_network_without_weights_to_mask_is_refused():
    with pytest.raises(ArgumentError, match="no weights to mask"):
        Sparse(nn.Linear(8, 4))
    with pytest.raises(ArgumentError, match="needs a last linear layer"):
        Sparse(nn.Conv2d(1, 4, 3))


class Again(nn.Module):
    """A module of a user's that stands in two places, and a bias that two layers share."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.twice = nn.ModuleList([self.inner, self.norm])
        self.other = nn.Linear(8, 8)
        self.other.bias = self.inner.bias
        self.last = nn.Linear(8, 20)

    def forward(self, x):
        for module in (self.inner, self.norm, *self.twice):
            x = module(x)
        return self.last(self.other(x).relu())


def test_a_module_in_two_places_is_kept_once_and_forgets_nothing():
    with isolated(0, "network"):
        model = Again()
    learner = Sparse(model, density=0.5, **SHORT)
    teach(learner, 0, 3, (8,))
    probe = rows(0, 99, shape=(8,)).x
    before = learner.predict_in(probe, 0)
    held = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    learner.boundary(Boundary(1, TEN[1]))
    for step in range(3):
        learner.update(rows(1, step, shape=(8,)))
        assert torch.equal(learner.predict_in(probe, 0), before)
    assert {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()} == held
    assert list(learner.private_of(0)) == ["inner.bias", "norm.weight", "norm.bias", *NORM, "last.weight", "last.bias"]


NORM = ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")


def test_frozen_weights_are_not_kept_for_each_task():
    model = network()
    model[0].weight.requires_grad_(False)
    learner = taught(Sparse(model, **SHORT), 2)
    assert "0.weight" not in learner.private_of(0) and "0.bias" in learner.private_of(0)
    assert torch.equal(learner.weights_of(0)["0.weight"], model[0].weight)


def test_a_weight_that_is_computed_cannot_be_masked():
    with pytest.raises(ArgumentError, match=r"'0\.weight' is computed from other tensors"):
        Sparse(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 20)))
