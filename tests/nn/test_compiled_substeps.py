"""The compiled sub-steps beside torch's calls: states and gradients, the exponential, what is no number, and time."""

import time

import numpy
import pytest
import torch
from numba.core.caching import CacheImpl

from everlearn.core import errors
from everlearn.core.errors import MissingExtraError
from everlearn.core.random import isolated
from everlearn.nn import time_constant
from everlearn.nn.compiled_substeps import _backward, _forward, _sigmoid, compiled, substeps
from everlearn.nn.liquid import LiquidRNN
from everlearn.nn.time_constant import LTCCell
from everlearn.nn.wiring import auto_ncp, fully_connected


def cells(wiring, **options):
    with isolated(0):
        numba, torchs = (LTCCell(wiring, kernel=kernel, **options) for kernel in ("numba", "torch"))
    torchs.load_state_dict(numba.state_dict())
    return numba, torchs


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("wiring", [fully_connected(2, 5), auto_ncp(2, 12, 3)], ids=["full", "wired"])
def test_states_and_gradients_are_those_of_torchs_calls(wiring, batch):
    """In 32 bits, over 4 steps of 3 sub-steps: to 1e-6 of the largest number of each."""
    numba, torchs = cells(wiring, ode_unfolds=3)
    with isolated(1):
        given = torch.randn(batch, 4, 2), torch.randn(batch, wiring.units), 0.1 + torch.rand(batch, 4)
        pull = torch.randn(batch, 4, wiring.units)
    found = []
    for cell in (numba, torchs):
        x, h, dt = (value.clone().requires_grad_() for value in given)
        states = cell.unroll(x, h, dt)
        scale, shift = cell.output_scale, cell.output_shift
        values = [p for p in cell.parameters() if p is not scale and p is not shift]
        found.append([states.detach(), *torch.autograd.grad((states * pull).sum(), [x, h, dt, *values])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6 * float(theirs.abs().max()), rtol=0)


def test_what_runs_is_what_was_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr("everlearn.nn.compiled_substeps.substeps", lambda *given: calls.append(given[1]) or substeps(*given))
    x, h = torch.ones(1, 2, 2), torch.zeros(1, 4)
    for kernel, double, times in (("auto", False, 1), ("numba", False, 1), ("torch", False, 0), ("numba", True, 0)):
        cell = LTCCell(4, 2, kernel=kernel)
        cell, given = (cell.double(), (x.double(), h.double())) if double else (cell, (x, h))
        cell.unroll(*given, 1.0)
        assert len(calls) == times, (kernel, double)
        calls.clear()

    wiring = auto_ncp(2, 12, 3)
    LTCCell(wiring).unroll(x, torch.zeros(1, 12), 1.0)
    assert [len(source) for source in calls] == [wiring.synapse_count]  # and not all pairs of neurons


def test_one_way_is_compiled_however_tensors_lie():
    """Each further layout would be compiled in seconds of its own."""
    for batch, steps in ((1, 1), (4, 3)):
        network = LiquidRNN(LTCCell(auto_ncp(2, 12, 3), kernel="numba"), return_sequences=False)
        x = torch.zeros(steps, batch, 2).transpose(0, 1).requires_grad_()
        for loss in (torch.sum, torch.mean, lambda y: y.pow(2).sum()):
            loss(network(x, torch.zeros(12, batch).T, dt=torch.ones(steps, batch).T)[0]).backward()
    ends, steps = torch.tensor([0, 1]), torch.ones(2, 3, 4, 2)
    given, synapses = 2.0 * steps.permute(1, 3, 0, 2), torch.ones(2, 4).T  # (3, 2, 2, 4) and (4, 2), neither row by row
    assert not given.is_contiguous() and not synapses.is_contiguous()
    substeps(2, ends, ends, synapses, torch.zeros(2, 4), given, torch.ones(3, 2, 4))
    assert len(_forward.signatures) == len(_backward.signatures) == 1


def test_without_numba_torchs_calls_are_made_and_asking_for_it_tells_how_to_install_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    monkeypatch.setattr(time_constant, "find_spec", lambda name: None)
    assert not LTCCell(4, 2).compiled
    with pytest.raises(MissingExtraError, match=r"pip install 'everlearn\[fast\]'"):
        LTCCell(4, 2, kernel="numba")


def test_the_sigmoid_is_exact_to_the_rounding_of_32_bits():
    x = numpy.linspace(-120.0, 120.0, 24_001).astype(numpy.float32)
    found = numpy.array([_sigmoid(value) for value in x], dtype=numpy.float64)
    exact = 1.0 / (1.0 + numpy.exp(-x.astype(numpy.float64)))
    assert numpy.abs(found - exact).max() < 1.5e-7
    small = (x < 0) & (x > -80)  # there the sigmoid is an exponential: its relative error, of x log2(e) in 32 bits too
    assert (numpy.abs(found / exact - 1.0)[small] < 1e-7 * (4.0 + numpy.abs(x[small]))).all()
    assert [_sigmoid(numpy.float32(value)) for value in (-numpy.inf, numpy.inf)] == pytest.approx([0.0, 1.0], abs=1e-37)


def test_where_nothing_can_be_kept_each_process_compiles_anew(monkeypatch):
    def twice(x):
        return 2.0 * x

    assert compiled(twice)._cache.cache_path
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert compiled(twice)(1.5) == 3.0 and compiled(twice)._cache.cache_path is None


def test_what_is_no_number_reaches_every_neuron_that_it_would():
    numba, torchs = cells(fully_connected(1, 3))
    x, h = torch.zeros(2, 2, 1), torch.tensor([[float("nan"), 0.0, 0.0], [0.0, 0.0, 0.0]])
    states = [cell.unroll(x, h, 1.0) for cell in (numba, torchs)]
    assert torch.equal(states[0].isnan(), states[1].isnan())
    assert states[0][0].isnan().all() and not states[0][1].isnan().any()


def test_neurons_without_synapses_leak_alone():
    v, given = torch.tensor([[1.0], [-1.0]]), torch.ones(2, 2, 2, 1) * torch.tensor([0.5, 2.0]).view(2, 1)
    nothing = torch.empty(0, dtype=torch.int64)
    states = substeps(2, nothing, nothing, torch.empty(4, 0), v, given, torch.ones(2, 2, 1))
    for step in range(2):
        for _ in range(2):
            v = (0.5 + v) / 2.0
        torch.testing.assert_close(states[step], v)


@pytest.mark.slow
def test_compiled_sub_steps_take_less_time():
    """64 sequences of 24 steps, 32 neurons: the least processor time of ten, forward and backward, in turns; 2.3 is usual."""
    networks = [LiquidRNN(LTCCell(32, 1, kernel=kernel)) for kernel in ("torch", "numba")]
    x, least = torch.randn(64, 24, 1), [float("inf")] * 2
    for _ in range(11):
        for place, network in enumerate(networks):
            start = time.process_time()
            network(x)[0].pow(2).sum().backward()
            least[place] = min(least[place], time.process_time() - start)
    print(f"torch {1e3 * least[0]:.1f} ms, compiled {1e3 * least[1]:.1f} ms")
    assert least[0] >= 1.4 * least[1]
