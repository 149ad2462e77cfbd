"""The size of steps: by hand, from a sample of a large network, and what counts as a spike."""

import copy
import math

import pytest
import torch

from everlearn import Batch, FineTune
from everlearn.core.state import capture, load, same
from everlearn.measure.update_size import FEWEST, MEMORY, SAMPLE, UpdateSize, sample_weights, stands_for
from everlearn.optim.optimizers import SGD


def moved(network, by):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += by
    return network


def linear(seed=0, inputs=3, outputs=2):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Linear(inputs, outputs)


def test_the_size_of_a_step_by_hand():
    network = torch.nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.bias.fill_(4.0)
    sizes = UpdateSize()
    sizes.add(network)
    moved(network, 1.0)
    sizes.add(network)
    assert sizes.sizes == pytest.approx([math.sqrt(2.0) / 5.0])


def test_a_spike_is_told_against_the_median_of_the_steps_before():
    network, sizes = linear(), UpdateSize(times=10.0)
    readings = []
    for step in range(FEWEST + 10):
        moved(network, 1e-4 if step != FEWEST + 5 else 2e-3)
        readings += sizes.add(network)
    assert [reading.over for reading in readings] == [place == 4 for place in range(len(readings))]
    assert len(readings) == 9
    assert readings[4].value == pytest.approx(readings[4].limit * 2.0, rel=0.01)


def test_fewer_steps_and_steps_that_move_nothing_give_no_reading():
    network, sizes = linear(), UpdateSize(times=2.0)
    for step in range(FEWEST):
        assert sizes.add(moved(network, 1e-4 * (1 + step % 5))) == []
    for _ in range(10):
        assert sizes.add(network) == []
    assert len(sizes.sizes) == FEWEST - 1
    assert UpdateSize().add(object()) == []


def test_memory_is_bounded_in_steps_and_in_weights():
    network, sizes = linear(0, 2000, 30), UpdateSize()
    for _ in range(MEMORY + 20):
        sizes.add(moved(network, 1e-4))
    assert len(sizes.sizes) == MEMORY
    assert len(sizes.weights) <= SAMPLE


def test_a_sample_tells_the_size_of_the_whole():
    network = torch.nn.Sequential(linear(0, 3000, 20), linear(1, 20, 500))
    before = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double()
    sizes = UpdateSize()
    sizes.add(network)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    after = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double()
    sizes.add(network)
    assert sizes.sizes[0] == pytest.approx(float((after - before).norm() / before.norm()), rel=0.1)


@pytest.mark.parametrize("most", [3, 50, 10**6])
def test_a_sample_stands_for_all_weights(most):
    network = torch.nn.Sequential(linear(0, 30, 20), linear(1, 20, 5))
    weights, lengths = sample_weights(network, most)
    stands = stands_for(lengths, most)
    assert len(weights) == len(stands) <= max(most, len(lengths))
    assert float(stands.sum()) == pytest.approx(sum(lengths))
    if most > sum(lengths):
        assert torch.equal(weights, torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double())


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_weight_that_is_not_finite_is_noticed_and_forgotten_once_it_is_gone(number):
    network, sizes = linear(), UpdateSize()
    sizes.add(network)
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.weight[0, 0] = number
    assert sizes.add(broken) == []
    assert sizes.not_finite
    sizes.add(network)
    assert not sizes.not_finite


def test_state_goes_on_where_it_was_on_a_learner():
    def learner():
        return FineTune(linear(3, 4, 3), optimizer=SGD(lr=0.1))

    def batch(step):
        generator = torch.Generator().manual_seed(step)
        scale = 100.0 if step == 55 else 1.0
        return Batch(scale * torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator))

    first, one = learner(), UpdateSize(times=5.0)
    for step in range(40):
        first.update(batch(step))
        one.add(first)
    second, other = learner(), UpdateSize(times=5.0)
    load(second, capture(first))
    load(other, capture(one))
    rest = []
    for pair in ((first, one), (second, other)):
        rest.append([])
        for step in range(40, 60):
            pair[0].update(batch(step))
            rest[-1] += pair[1].add(pair[0])
    assert rest[0] == rest[1]
    assert [reading.over for reading in rest[0]].index(True) == 15
    assert same(capture(one), capture(other))
