"""Windows in units of their own: numbers by hand, equal answers at every scale, and targets that are undone exactly."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import isolated
from everlearn.nn.closed_form import CfCCell
from everlearn.nn.liquid import LiquidRNN
from everlearn.nn.window import WindowNormalized, window_scale


def forecaster():
    with isolated(0):
        return WindowNormalized(LiquidRNN(CfCCell(1, 16), return_sequences=False, proj_size=2)).double()


def windows():
    return 5.0 + torch.rand(6, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Fixed(nn.Module):
    def forward(self, x):
        return x.sum(1) + 2.0


def test_by_hand():
    x = torch.tensor([[1.0, 3.0], [-4.0, -4.0]], dtype=torch.float64)
    mean, scale = window_scale(x)
    assert mean[:, 0].tolist() == [2.0, -4.0]
    assert scale[:, 0].tolist() == pytest.approx([1 + 0.04 + 1e-6, 0 + 0.08 + 1e-6], abs=1e-12)
    answer = WindowNormalized(Fixed())(x)  # normalised values sum to 0, so the network gives 2
    assert answer[:, 0].tolist() == pytest.approx([3 + 2 * 1.040001, -4 + 2 * 0.080001], abs=1e-9)


def test_a_scaled_window_gets_the_scaled_answer():
    model, x = forecaster(), windows()
    answer = model(x)
    for factor in (1e-2, 11.4, 1e4):
        torch.testing.assert_close(model(factor * x), factor * answer, rtol=1e-5, atol=0)
    assert (answer - x[:, -1:]).abs().max() > 1e-3  # the network has its say


def test_a_shift_is_followed_nearly():
    """Exactly but for the share of the mean in the scale, which the second bound shows."""
    model, x = forecaster(), windows()
    moved = (model(x + 1.0) - 1.0 - model(x)).abs().max().item()
    assert 1e-6 < moved < 0.1 * x.std().item()


def test_targets_undo_the_answer():
    x, y = windows(), windows()[:, :2]
    target = WindowNormalized.targets(x, y)

    class Told(nn.Module):
        def forward(self, given):
            return target

    torch.testing.assert_close(WindowNormalized(Told())(x), y, rtol=1e-12, atol=0)


def test_times_reach_the_network():
    model, x = forecaster(), windows()
    assert not torch.equal(model(x), model(x, dt=torch.full((6, 24), 2.0).double()))


def test_refusals_name_the_argument():
    with pytest.raises(InputError, match=r"x must be \(batch, time\).*got \(2, 3, 1\)"):
        forecaster()(torch.zeros(2, 3, 1))
    with pytest.raises(ArgumentError, match="network must be a torch module, got int"):
        WindowNormalized(3)
