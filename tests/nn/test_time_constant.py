"""Liquid time-constant cells: numbers by hand, those of the package ncps 1.0.1, order of the solver, bounds, gradients, slow twins."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import softplus

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.nn.liquid import LiquidRNN
from everlearn.nn.time_constant import POSITIVE, SOLVERS, LTCCell
from everlearn.nn.wiring import auto_ncp, fully_connected

from .descended import descended

X = torch.cos(torch.arange(18.0, dtype=torch.float64)).reshape(2, 3, 3)
DT = torch.tensor([[0.5, 1.0, 2.0], [0.1, 3.0, 1.0]], dtype=torch.float64)


def neuron(unfolds, solver="fused"):
    """One neuron that acts on itself, with one input: the one of the worked numbers."""
    cell = LTCCell(1, 1, ode_unfolds=unfolds, positivity="explicit", solver=solver).double()
    values = {"g": 0.5, "vleak": 0.1, "C": 0.5, "w": 0.5, "mu": 0.3, "sigma": 4.0, "E": 1.0}
    values |= {"sensory_w": 0.8, "sensory_mu": 0.5, "sensory_sigma": 5.0, "sensory_E": -1.0}
    with torch.no_grad():
        for name, value in values.items():
            getattr(cell, name).fill_(value)
    return cell


def after(cell, steps=1, dt=1.0):
    x, v = torch.ones(1, steps, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    return cell.unroll(x, v, dt)[0, :, 0].tolist()


EXACT = -0.4784345463  # of the differential equation after a time of 1


def test_the_first_substep_by_hand():
    s, s_in = 1 / (1 + math.exp(1.2)), 1 / (1 + math.exp(-2.5))
    by_hand = (0.5 * 0.1 + 0.5 * s - 0.8 * s_in) / (0.5 * 6 + 0.5 + 0.5 * s + 0.8 * s_in)
    assert by_hand == pytest.approx(-0.13170358723, abs=1e-10)
    assert after(neuron(1), dt=1 / 6)[0] == pytest.approx(by_hand, abs=1e-8)  # 1e-8 stands in the denominator


def test_three_steps_are_those_of_the_peer():
    assert after(neuron(6), 3) == pytest.approx([-0.446275, -0.521552, -0.532993], abs=1e-6)


def test_the_fused_solver_is_of_first_order():
    unfolds = (1, 3, 6, 12, 48, 192)
    errors = [abs(after(neuron(k))[0] - EXACT) for k in unfolds]
    assert errors == pytest.approx([0.16924, 0.06363, 0.03216, 0.01607, 0.00400, 0.00100], abs=6e-6)
    scaled = [error * k for error, k in zip(errors[2:], unfolds[2:], strict=True)]
    assert max(scaled) < 1.05 * min(scaled)


def test_explicit_solvers_have_their_orders():
    for solver, order in (("euler", 1), ("rk4", 4)):
        coarse, fine = (abs(after(neuron(k, solver))[0] - EXACT) for k in (16, 32))
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25), solver
    assert after(neuron(64, "rk4"))[0] == pytest.approx(EXACT, abs=1e-8)


# ---- beside the peer -------------------------------------------------------------------------------------------------------

# ncps.torch.LTCCell in float32, parameter number k by name = sin(0.7 i + k) (explicit: w, g, C = that, made positive, + 0.1), E as
# wired, three steps of X and DT from zeros: the state at the end. FullyConnected(4) and AutoNCP(10, 2).
PEER = {
    (4, "implicit"): ([0.9024113, 0.9959618, 0.7080452, 0.2187681], [0.8977457, 0.9957146, 0.8453267, 0.165548]),
    (4, "explicit"): ([0.9353904, 0.9971347, 0.8167894, 0.2864503], [0.9365425, 0.997085, 0.8884237, 0.2171314]),
    (10, "implicit"): (
        [0.1493756, 0.9796477, 0.2826689, 0.5635636, 0.0642373, -0.4501, -0.29895, -0.7694775, -0.1322047, 0.5197029],
        [0.1492886, 0.9829603, 0.2831442, 0.5656517, 0.0657152, -0.56373, -0.2979309, -0.777167, -0.1498595, 0.4324754],
    ),
    (10, "explicit"): (
        [-0.3221847, 0.9901553, 0.270818, 0.8217927, 0.3050758, -0.7654493, -0.2569165, -0.8721304, -0.5268506, 0.2076394],
        [-0.3219446, 0.9907607, 0.2708955, 0.8240297, 0.2933874, -0.8277814, -0.2553191, -0.8799083, -0.5527468, -0.0379768],
    ),
}
FREE = ("C", "g", "mu", "sensory_mu", "sensory_sigma", "sensory_w", "sigma", "vleak", "w")


def filled(cell):
    with torch.no_grad():
        for k, name in enumerate(FREE):
            p = getattr(cell, name)
            value = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + k).reshape(p.shape)
            p.copy_(value.abs() + 0.1 if cell.positivity == "explicit" and name in POSITIVE else value)
    return cell


@pytest.mark.parametrize("kernel", ["numba", "torch"])
@pytest.mark.parametrize(("units", "positivity"), PEER)
def test_states_are_those_of_the_peer(units, positivity, kernel):
    wiring = fully_connected(3, 4) if units == 4 else auto_ncp(3, 10, 2)
    cell = filled(LTCCell(wiring, positivity=positivity, kernel=kernel))
    states = cell.unroll(X.float(), torch.zeros(2, units), DT.float())
    torch.testing.assert_close(states[:, -1], torch.tensor(PEER[units, positivity]), atol=1e-6, rtol=0)
    assert torch.equal(cell.read(states), states[..., : wiring.outputs])
    with torch.no_grad():
        cell.output_scale.fill_(3.0)
        cell.output_shift.copy_(torch.arange(cell.outputs))
    assert torch.equal(cell.read(states), 3.0 * states[..., : wiring.outputs] + torch.arange(cell.outputs))


# ---- beside the slow twin --------------------------------------------------------------------------------------------------


def twin(cell, x, v, dt):
    """The equations as they stand, sum by sum, by torch's own gradient."""
    positive = softplus if cell.positivity == "implicit" else lambda value: value
    w, w_in = positive(cell.w) * cell.mask, positive(cell.sensory_w) * cell.sensory_mask
    g, capacity = positive(cell.g), positive(cell.C)
    x = x * cell.input_scale + cell.input_shift
    states = []
    for t in range(x.shape[1]):
        s_in = w_in * torch.sigmoid(cell.sensory_sigma * (x[:, t].unsqueeze(-1) - cell.sensory_mu))
        c = capacity / (dt[:, t : t + 1] / cell.ode_unfolds)
        for _ in range(cell.ode_unfolds):
            s = w * torch.sigmoid(cell.sigma * (v.unsqueeze(-1) - cell.mu))
            num = c * v + g * cell.vleak + (s * cell.E).sum(1) + (s_in * cell.sensory_E).sum(1)
            v = num / (c + g + s.sum(1) + s_in.sum(1) + 1e-8)
        states.append(v)
    return torch.stack(states, 1)


@pytest.mark.parametrize("positivity", ["implicit", "explicit"])
def test_states_and_gradients_are_those_of_the_slow_twin(positivity):
    cell = filled(LTCCell(auto_ncp(3, 10, 2), ode_unfolds=4, positivity=positivity).double())
    found = []
    for way in (cell.unroll, lambda *given: twin(cell, *given)):
        x, h, dt = (value.clone().requires_grad_() for value in (X, torch.full((2, 10), 0.1, dtype=torch.float64), DT))
        states = way(x, h, dt)
        loss = (cell.read(states) * torch.tensor([1.0, -2.0])).sum() + states.pow(2).sum()
        found.append([states, *torch.autograd.grad(loss, [x, h, dt, *cell.parameters()])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


class _Unrolled(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, h, dt):
        return self.cell.unroll(x, h, dt)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_by_differences(solver):
    cell = filled(LTCCell(fully_connected(2, 3), ode_unfolds=2, solver=solver).double())
    names, values = zip(*((name, p) for name, p in cell.named_parameters() if "output" not in name), strict=True)

    def states(x, h, dt, *values):
        return torch.func.functional_call(
            _Unrolled(cell), {f"cell.{n}": v for n, v in zip(names, values, strict=True)}, (x, h, dt)
        )

    x, dt = X[:, :2, :2].clone().requires_grad_(), (0.1 + DT[:, :2] / 10).requires_grad_()
    h = torch.full((2, 3), 0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(states, (x, h, dt, *values))


# ---- properties ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(0.1, 1e3))
def test_states_never_leave_the_range_of_their_potentials(seed, elapsed, size):
    with isolated(seed):
        cell = LTCCell(fully_connected(2, 5, seed=seed)).double()
        x, v = size * torch.randn(4, 3, 2, dtype=torch.float64), 2 * torch.randn(4, 5, dtype=torch.float64)
    states = cell.unroll(x, v, elapsed)
    low = torch.minimum(v.amin(), torch.minimum(cell.vleak.min(), torch.tensor(-1.0)))
    high = torch.maximum(v.amax(), torch.maximum(cell.vleak.max(), torch.tensor(1.0)))
    assert (states >= low - 1e-12).all() and (states <= high + 1e-12).all()


def test_an_explicit_solver_may_leave_that_range():
    """The control of the property above: Euler with one long step."""
    assert abs(after(neuron(1, "euler"), dt=20.0)[0]) > 2


def test_values_start_in_the_published_ranges():
    for positivity in ("implicit", "explicit"):
        cell = LTCCell(32, 4, positivity=positivity)
        for name in POSITIVE:
            value = cell._positive(name)
            low, high = (0.4, 0.6) if name == "C" else (0.001, 1.0)
            assert low - 1e-5 <= value.min() and value.max() <= high + 1e-5
            if value.numel() > 100:
                assert abs(value.mean().item() - 0.5) < 4 * (1 / 12 / value.numel()) ** 0.5
        assert torch.equal(cell.E, cell.mask * cell.E) and sum(p.numel() for p in LTCCell(32, 1).parameters()) == 4386


def test_constrain_sets_what_is_negative_to_zero_in_explicit_mode_alone():
    for positivity in ("implicit", "explicit"):
        cell = LTCCell(3, 2, positivity=positivity)
        with torch.no_grad():
            cell.w.fill_(-1.0)
        cell.constrain()
        assert torch.equal(cell.w, torch.full((3, 3), -1.0 if positivity == "implicit" else 0.0))


@pytest.mark.parametrize(("solver", "kernel"), [*((solver, "torch") for solver in SOLVERS), ("fused", "numba")])
def test_synapses_that_a_wiring_lacks_get_no_gradient(solver, kernel):
    cell = LTCCell(auto_ncp(3, 10, 2), solver=solver, kernel=kernel)
    cell.unroll(X.float(), torch.zeros(2, 10), 1.0).sum().backward()
    for name in ("w", "mu", "sigma", "E"):
        assert not getattr(cell, name).grad[cell.mask == 0].any(), name
        assert (getattr(cell, name).grad[cell.mask == 1] != 0).any(), name


def test_training_lowers_the_loss():
    with isolated(0):
        network = LiquidRNN(LTCCell(auto_ncp(3, 12, 1)), return_sequences=False)
    losses = descended(network, X.float(), DT.float(), torch.tensor([[0.5], [-0.5]]), rate=0.05, steps=40)
    assert losses[-1] < 0.1 * losses[0]


def test_refusals_name_the_argument():
    for changed, message in (
        ({"solver": "rk45"}, "solver must be one of fused, euler, rk4"),
        ({"kernel": "cuda"}, "kernel must be one of auto, numba, torch"),
        ({"positivity": "none"}, "positivity must be one of implicit, explicit"),
        ({"ode_unfolds": 0}, "ode_unfolds must be an int >= 1"),
        ({"in_features": None}, "in_features must be given"),
        ({"wiring": auto_ncp(3, 10, 2)}, "in_features=2 is not the wiring's inputs=3"),
        ({"wiring": 0}, "wiring must be an int >= 1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            LTCCell(**{"wiring": 4, "in_features": 2, **changed})
