"""Closed-form cells: numbers by hand, those of the package ncps 1.0.1, a slow twin, gradients, and limits."""

import math

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.nn.closed_form import MODES, CfCCell, WiredCfCCell, scaled_tanh
from everlearn.nn.liquid import LiquidRNN
from everlearn.nn.wiring import auto_ncp

from .descended import descended

X = torch.cos(torch.arange(18.0, dtype=torch.float64)).reshape(2, 3, 3)
DT = torch.tensor([[0.5, 1.0, 2.0], [0.1, 3.0, 1.0]], dtype=torch.float64)


def filled(cell):
    """Parameter number k, by name, is sin(0.7 i + k) at its i-th entry."""
    with torch.no_grad():
        for k, (_, p) in enumerate(sorted(cell.named_parameters())):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + k).reshape(p.shape))
    return cell


def twin_step(cell, x, h, dt):
    """One step as the equations stand, by torch's own gradient."""
    u = torch.cat([x, h], 1)
    for layer in cell.backbone:
        u = scaled_tanh(layer(u))

    def head(name):
        weight = cell.heads[name].weight
        weight = weight * cell.mask if cell.mask is not None and name in ("f1", "f2") else weight
        return u @ weight.T + cell.heads[name].bias

    if cell.mode == "pure":
        f1 = head("f1")
        return cell.A - cell.A * torch.exp(-dt * (cell.w_tau.abs() + f1.abs())) * f1
    gate = torch.sigmoid(head("a") * dt + head("b"))
    f1, f2 = torch.tanh(head("f1")), torch.tanh(head("f2"))
    return f1 + gate * f2 if cell.mode == "no_gate" else f1 * (1 - gate) + gate * f2


def twin(cell, x, h, dt):
    states = []
    for t in range(x.shape[1]):
        h = twin_step(cell, x[:, t], h, dt[:, t : t + 1])
        states.append(h)
    return torch.stack(states, 1)


# ---- by hand ---------------------------------------------------------------------------------------------------------------


def single(mode):
    """One unit without a backbone, of which the worked numbers are."""
    cell = CfCCell(1, 1, mode=mode, backbone_layers=0).double()
    with torch.no_grad():
        for p in cell.heads.parameters():
            p.zero_()
        if mode == "pure":
            cell.heads["f1"].bias.fill_(0.6)
            cell.w_tau.fill_(-0.3)
        else:
            cell.heads["f1"].weight.copy_(torch.tensor([[0.5, 0.2]]))
            cell.heads["f2"].weight.copy_(torch.tensor([[-0.3, 0.4]]))
            cell.heads["a"].weight.copy_(torch.tensor([[1.0, 0.0]]))
            cell.heads["b"].bias.fill_(0.1)
    return cell


@pytest.mark.parametrize(
    ("mode", "dt", "expected"),
    [
        ("default", 0.0, 0.2027861),
        ("default", 0.5, 0.1259489),
        ("default", 1.0, 0.0593458),
        ("default", 10.0, -0.0996418),
        ("default", 1e4, math.tanh(-0.1)),
        ("no_gate", 1.0, 0.4622727),
        ("pure", 0.0, 0.4),
        ("pure", 1.0, 0.756058),
        ("pure", 5.0, 0.993335),
    ],
)
def test_a_step_by_hand(mode, dt, expected):
    x, h = torch.ones(1, 1, 1, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64)
    for elapsed in (dt, torch.full((1, 1), dt, dtype=torch.float64)):  # a number takes another way than a tensor
        assert single(mode).unroll(x, h, elapsed).item() == pytest.approx(expected, abs=6e-8 if mode != "pure" else 6e-7)


def test_scaled_tanh_by_hand():
    assert scaled_tanh(torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(0.9992416, abs=6e-8)


def test_sizes_and_the_start():
    cell = CfCCell(1, 32)
    assert sum(p.numel() for p in cell.parameters()) == (33 * 128 + 128) + 4 * (128 * 32 + 32) == 20_864
    pure = CfCCell(2, 3, mode="pure")
    assert pure.A.tolist() == [1, 1, 1] and pure.w_tau.tolist() == [0, 0, 0]


# ---- beside the peer -------------------------------------------------------------------------------------------------------

# ncps.torch.CfCCell(3, 4, mode, backbone_units=5, backbone_layers=2) and WiredCfCCell(3, AutoNCP(10, 2), mode), float32, weights as in
# `filled`, three steps of X and DT from zeros: the state at the end.
PEER = {
    "default": ([0.9921384, 0.7973996, -0.0086158, 0.7280655], [0.4359787, 0.1807885, -0.5104638, -0.3243891]),
    "no_gate": ([0.9924298, 0.5084407, -0.1115628, 0.9849596], [0.683134, 0.2951838, -0.4485145, -0.5699081]),
    "pure": ([0.0, 0.6300774, 1.004267, 0.8429182], [0.0, 0.6420381, 1.1225162, 0.6526232]),
}
WIRED_PEER = {
    "default": (
        [0.4033374, -0.4986854, 0.04413, 0.4739612, 0.90483, 0.6167519, 0.1353652, 0.8755537, -0.1527767, 0.7592203],
        [0.2553719, 0.0304136, 0.8111464, 0.2062939, 0.2751708, 0.2275555, -0.1270329, 0.4312084, 0.0170837, 0.7327443],
    ),
    "no_gate": (
        [-1.2841809, -1.763607, 0.6144968, 0.9976526, 0.9996994, -0.2679775, 0.7013019, 0.8307521, -0.1824712, 0.9088073],
        [-1.4434168, -1.2657859, 0.5098914, 0.7710648, 0.9734585, -0.15275, 0.1906937, 0.8038692, -0.0923717, 0.8265865],
    ),
    "pure": (
        [0.0, 0.660742, 1.0035616, 0.8772804, 0.3563423, -0.7465674, -0.9749112, -0.7982358, 0.9832839, 0.6785558],
        [0.0, 0.7793862, 1.0585114, 0.9889371, 0.2915768, -0.6418732, -0.8808915, -0.8912752, 0.8802511, 0.7766571],
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_states_are_those_of_the_peer(mode):
    cell = filled(CfCCell(3, 4, mode=mode, backbone_units=5, backbone_layers=2))
    states = cell.unroll(X.float(), torch.zeros(2, 4), DT.float())
    torch.testing.assert_close(states[:, -1], torch.tensor(PEER[mode]), atol=1e-6, rtol=0)
    wired = filled(WiredCfCCell(auto_ncp(3, 10, 2), mode=mode))
    states = wired.unroll(X.float(), torch.zeros(2, 10), DT.float())
    torch.testing.assert_close(states[:, -1], torch.tensor(WIRED_PEER[mode]), atol=1e-6, rtol=0)
    assert torch.equal(wired.read(states), states[..., -2:])


# ---- beside the slow twin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_states_and_gradients_are_those_of_the_slow_twin(mode, layers):
    cell = filled(CfCCell(3, 4, mode=mode, backbone_units=6, backbone_layers=layers).double())
    weight = torch.cos(torch.arange(24.0, dtype=torch.float64)).reshape(2, 3, 4)
    h = torch.full((2, 4), 0.3, dtype=torch.float64)
    for dt in (DT, 0.7):
        found = []
        for way in (cell.unroll, lambda *given: twin(cell, *given)):
            x, h0 = X.clone().requires_grad_(), h.clone().requires_grad_()
            elapsed = (
                dt.clone().requires_grad_() if isinstance(dt, torch.Tensor) else torch.full((2, 3), dt, dtype=torch.float64)
            )
            states = way(x, h0, dt if way == cell.unroll and not isinstance(dt, torch.Tensor) else elapsed)
            inputs = [x, h0, *cell.parameters()] + ([elapsed] if elapsed.requires_grad else [])
            found.append([states, *torch.autograd.grad((states * weight).sum(), inputs)])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_by_differences(mode):
    cell = filled(CfCCell(2, 3, mode=mode, backbone_units=4).double())
    x = X[:, :, :2].clone().requires_grad_()
    h = torch.full((2, 3), 0.2, dtype=torch.float64, requires_grad=True)
    dt = DT.clone().requires_grad_()
    names, values = zip(*cell.named_parameters(), strict=True)

    def states(x, h, dt, *values):
        return torch.func.functional_call(
            _Unrolled(cell), {f"cell.{n}": v for n, v in zip(names, values, strict=True)}, (x, h, dt)
        )

    assert torch.autograd.gradcheck(states, (x, h, dt, *values))


class _Unrolled(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, h, dt):
        return self.cell.unroll(x, h, dt)


def test_a_number_and_a_tensor_of_times_give_the_same():
    for mode in MODES:
        cell = filled(CfCCell(3, 4, mode=mode).double())
        h = torch.zeros(2, 4, dtype=torch.float64)
        torch.testing.assert_close(cell.unroll(X, h, 0.7), cell.unroll(X, h, torch.full_like(DT, 0.7)), atol=1e-13, rtol=0)


def test_a_wiring_silences_the_weights_that_it_lacks():
    wired = filled(WiredCfCCell(auto_ncp(3, 10, 2)))
    wired.unroll(X.float(), torch.ones(2, 10), 1.0).sum().backward()
    for cell in wired.cells:
        for name in ("f1", "f2"):
            grad = cell.heads[name].weight.grad
            assert not grad[cell.mask == 0].any() and (grad[cell.mask == 1] != 0).all()
        assert (cell.heads["a"].weight.grad != 0).all()  # of the gate all weights exist


def test_dropout_acts_while_training_only_and_keeps_the_mean():
    with isolated(0):
        cell = CfCCell(2, 3, dropout=0.5, backbone_units=64).double()
    x, h = torch.randn(1, 1, 2, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(1, 3, dtype=torch.float64)
    plain = CfCCell(2, 3, backbone_units=64).double()
    plain.load_state_dict(cell.state_dict())
    assert torch.equal(cell.eval().unroll(x, h, 1.0), plain.unroll(x, h, 1.0))
    cell.train()
    with isolated(0):
        first = cell.unroll(x, h, 1.0)
        second = cell.unroll(x, h, 1.0)
    assert not torch.equal(first, second)
    with torch.no_grad():  # heads so small that states are linear in what the backbone says, by a gate of one half
        for name, head in cell.heads.items():
            head.weight.mul_(1e-3 if name in ("f1", "f2") else 0.0)
            head.bias.zero_()
    with isolated(0):
        dropped = cell.unroll(x.expand(4000, -1, -1), h.expand(4000, -1), 1.0)[:, 0]
    kept, error = cell.eval().unroll(x, h, 1.0)[0, 0], dropped.std(0) / 4000**0.5
    assert ((dropped.mean(0) - kept).abs() < 4 * error).all() and (kept.abs() > 40 * error).any()


def test_weights_start_in_the_range_of_xavier():
    with isolated(0):
        cell = CfCCell(1, 32)
    for layer in (*cell.backbone, *cell.heads.values()):
        most = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.99 * most < layer.weight.abs().max() <= most


def test_gradients_under_dropout_by_differences():
    cell = CfCCell(2, 3, dropout=0.4, backbone_units=6, backbone_layers=2).double()

    def states(x, h):
        with isolated(3):
            return cell.unroll(x, h, DT)

    h = torch.full((2, 3), 0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(states, (X[:, :, :2].clone().requires_grad_(), h))


def test_training_lowers_the_loss_and_modes_differ():
    answers = []
    for mode in MODES:
        with isolated(0):
            network = LiquidRNN(CfCCell(3, 8, mode=mode), return_sequences=False, proj_size=1)
        losses = descended(network, X.float(), DT.float(), torch.tensor([[1.0], [-1.0]]), rate=0.01, steps=30)
        assert losses[-1] < 0.1 * losses[0]
        answers.append(losses[0])
    assert len(set(answers)) == 3


def test_refusals_name_the_argument():
    for changed, message in (
        ({"mode": "gated"}, "mode must be one of default, no_gate, pure"),
        ({"units": 0}, "units must be an int >= 1"),
        ({"backbone_layers": -1}, "backbone_layers must be an int >= 0"),
        ({"dropout": 1.0}, "dropout must be a number between 0 and 0.9"),
        ({"mask": torch.ones(6, 4)}, r"mask must be \(6, 4\) of a cell with backbone_layers=0"),
        ({"mask": torch.ones(4, 6), "backbone_layers": 0}, r"got \(4, 6\)"),
    ):
        with pytest.raises(ArgumentError, match=message):
            CfCCell(**{"in_features": 2, "units": 4, **changed})
    with pytest.raises(ArgumentError, match=r"wiring must be a Wiring, got 5. Use auto_ncp\(inputs, units, outputs\)"):
        WiredCfCCell(5)
