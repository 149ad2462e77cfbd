"""Sequences of liquid cells: one step after another, shapes, irregular times, mixed memory, and what is refused."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import isolated
from everlearn.nn.closed_form import CfCCell, WiredCfCCell
from everlearn.nn.liquid import LiquidRNN, times
from everlearn.nn.time_constant import LTCCell
from everlearn.nn.wiring import auto_ncp

CELLS = {
    "cfc": lambda: CfCCell(3, 10, backbone_units=8),
    "wired": lambda: WiredCfCCell(auto_ncp(3, 10, 2)),
    "ltc": lambda: LTCCell(auto_ncp(3, 10, 2)),
}


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(name, **options):
    with isolated(0):
        return LiquidRNN(CELLS[name](), **options).double()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_is_its_steps_one_after_another(name, mixed):
    model, x = network(name, mixed_memory=mixed, proj_size=3), drawn(4, 6, 3)
    dt = drawn(4, 6).abs() + 0.1
    y, last = model(x, dt=dt)
    h, c, outputs = torch.zeros(4, 10).double(), torch.zeros(4, 10).double(), []
    for t in range(6):
        if mixed:
            h, c = model.lstm(x[:, t], (h, c))
        out, h = model.cell(x[:, t], h, dt[:, t])
        outputs.append(model.projection(out))
    torch.testing.assert_close(y, torch.stack(outputs, 1), atol=1e-12, rtol=0)
    for found, expected in zip(last if mixed else (last,), (h, c), strict=False):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert (last[0] if mixed else last).shape == (4, 10) and y.shape == (4, 6, 3)
    short, _ = network(name, mixed_memory=mixed, proj_size=3, return_sequences=False)(x, dt=dt)
    torch.testing.assert_close(short, y[:, -1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_can_be_cut_and_each_row_stands_alone(name, mixed):
    model, x = network(name, mixed_memory=mixed), drawn(4, 6, 3)
    dt = drawn(4, 6).abs() + 0.1
    y, last = model(x, dt=dt)
    first, state = model(x[:, :2], dt=dt[:, :2])
    second, again = model(x[:, 2:], state, dt[:, 2:])
    torch.testing.assert_close(torch.cat([first, second], 1), y, atol=1e-12, rtol=0)
    alone, own = model(x[1], dt=dt[1])
    torch.testing.assert_close(alone, y[1], atol=1e-12, rtol=0)
    for found, joint, cut in zip(*((value if mixed else (value,)) for value in (own, last, again)), strict=True):
        torch.testing.assert_close(found, joint[1], atol=1e-12, rtol=0)
        torch.testing.assert_close(cut, joint, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CELLS)
def test_time_matters_and_none_is_one(name):
    model, x = network(name), drawn(2, 5, 3)
    regular = model(x)[0]
    assert torch.equal(regular, model(x, dt=1.0)[0])
    torch.testing.assert_close(model(x, dt=torch.ones(2, 5).double())[0], regular, atol=1e-12, rtol=0)
    assert (model(x, dt=3.0)[0] - regular).abs().max() > 1e-3


def test_mixed_memory_is_that_of_the_source():
    """Input, forget and output gates as written out, the forget gate with a bias of 1 more than drawn."""
    model, x = network("cfc", mixed_memory=True), drawn(2, 1, 3)
    with isolated(0):
        cell = CELLS["cfc"]()
        drawn_lstm = torch.nn.LSTMCell(3, 10)
    assert torch.equal(model.cell.heads["f1"].weight, cell.double().heads["f1"].weight)
    z = x[:, 0] @ drawn_lstm.weight_ih.double().T + drawn_lstm.bias_ih.double() + drawn_lstm.bias_hh.double()
    i, f, a, o = z.chunk(4, 1)
    c = torch.sigmoid(f + 1.0) * 0 + torch.sigmoid(i) * torch.tanh(a)
    h = torch.sigmoid(o) * torch.tanh(c)
    _, (state, memory) = model(x)
    torch.testing.assert_close(memory, c, atol=1e-7, rtol=0)
    torch.testing.assert_close(state, model.cell(x[:, 0], h)[1], atol=1e-7, rtol=0)
    assert (model.lstm.bias_ih.double() - drawn_lstm.bias_ih.double())[10:20].tolist() == pytest.approx([1.0] * 10, abs=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_weights_that_were_stored_give_the_same_bits(name):
    model, x = network(name, mixed_memory=True), drawn(2, 10, 3)
    with isolated(9):
        other = LiquidRNN(CELLS[name](), mixed_memory=True).double()
    assert not torch.equal(other(x)[0], model(x)[0])
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x)[0], model(x)[0])


def test_bad_input_is_refused_with_both_numbers():
    model, x = network("cfc"), drawn(2, 5, 3)
    mixed = network("cfc", mixed_memory=True)
    for call, message in (
        (lambda: model(x[..., :2]), r"in_features=3, got \(2, 5, 2\) with 2 features"),
        (lambda: model(x[:, :0]), "one step or more"),
        (lambda: model(x, dt=0.0), "dt must be above 0 and finite, got 0.0"),
        (lambda: model(x, dt=torch.full((2, 5), -1.0)), "every dt must be above 0 and finite, got -1.0"),
        (lambda: model(x, dt=torch.full((2, 5), float("nan"))), "got nan"),
        (lambda: model(x, dt=torch.ones(2, 4)), r"dt must have shape \(2, 5\)"),
        (lambda: model(x, torch.zeros(2, 9)), r"one tensor of shape \(2, 10\), got \[\(2, 9\)\]"),
        (lambda: mixed(x, torch.zeros(2, 10)), r"a pair \(h, c\)"),
        (lambda: model.cell(x[:, 0], torch.zeros(2, 10).double(), -2.0), "got -2.0"),
        (lambda: model.cell(x[:, 0], torch.zeros(2, 9).double()), r"one tensor of shape \(2, 10\), got \[\(2, 9\)\]"),
        (lambda: model.cell(x[:, 0, :2], torch.zeros(2, 10).double()), "in_features=3, got .* with 2 features"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(ArgumentError, match="cell must be a liquid cell, got Linear"):
        LiquidRNN(torch.nn.Linear(1, 1))
    with pytest.raises(ArgumentError, match="proj_size must be an int >= 1"):
        LiquidRNN(CfCCell(1, 2), proj_size=0)
    assert times(torch.tensor(2.0), 1, 1) == 2.0


@pytest.mark.parametrize("name", CELLS)
def test_passes_do_not_disturb_one_another(name):
    """Room that a pass writes into again belongs to it alone, and a gradient that is asked for twice is the same."""
    model, x = network(name), drawn(2, 5, 3)

    def gradients(y, **options):
        return torch.autograd.grad(y.pow(2).sum(), list(model.cell.parameters()), allow_unused=True, **options)

    alone = gradients(model(x)[0])
    first, other = model(x)[0], model(-x)[0]
    gradients(other)
    for again in (gradients(first, retain_graph=True), gradients(first)):
        assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True) if a is not None)
    assert not torch.equal(other, first)
