"""Normalisation of each window by its own mean and spread, undone on the answer: a forecaster then sees shapes, not levels.

    z = (x - mean_w) / scale_w,   scale_w = std_w + 0.02 |mean_w| + 1e-6,   answer = x_last + scale_w network(z)

A network trained before a level shifts tenfold still sees inputs of the size it knows after it.
Reference: Kim et al. (2022), Reversible instance normalization for accurate time-series forecasting against distribution shift, ICLR.
"""

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, InputError

SHARE = 0.02  # of the mean that counts as spread, so that a window without any is not blown up
FLOOR = 1e-6


def window_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale (batch, 1) of windows x (batch, time): scale = std + 0.02 |mean| + 1e-6, the deviation that of the whole window.

    >>> import torch
    >>> mean, scale = window_scale(torch.tensor([[1.0, 3.0]]))
    >>> round(mean.item(), 6), round(scale.item(), 6)
    (2.0, 1.040001)
    """
    mean = x.mean(1, keepdim=True)
    return mean, x.std(1, keepdim=True, correction=0) + SHARE * mean.abs() + FLOOR


class WindowNormalized(nn.Module):
    """A forecaster of one series that is told each window in units of its own: windows (batch, time) -> answers (batch, outputs).

    network: takes (batch, time, 1) and gives (batch, outputs), the increments from the window's last value in units of its scale;
    it may give a pair as `nn.liquid.LiquidRNN` does, whose first part counts. `targets(x, y)` gives what it is to learn.

    Raises ArgumentError where network is no module; InputError where x is not (batch, time).

    >>> import torch
    >>> from everlearn.nn.closed_form import CfCCell
    >>> from everlearn.nn.liquid import LiquidRNN
    >>> forecaster = WindowNormalized(LiquidRNN(CfCCell(1, 16), return_sequences=False, proj_size=1))
    >>> forecaster(torch.rand(5, 24)).shape
    torch.Size([5, 1])

    Differs from the source in: no learned scale and shift, the scale has a share of the mean, and the network predicts increments.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ArgumentError(
                f"window: network must be a torch module, got {type(network).__name__}. Give LiquidRNN(...) or another."
            )
        self.network = network

    def forward(self, x: Tensor, **options) -> Tensor:
        """options: what the network takes beside its input, such as dt."""
        _check(x)
        mean, scale = window_scale(x)
        answer = self.network(((x - mean) / scale).unsqueeze(-1), **options)
        return x[:, -1:] + scale * (answer[0] if isinstance(answer, tuple) else answer)

    @staticmethod
    def targets(x: Tensor, y: Tensor) -> Tensor:
        """What the network is to answer for windows x (batch, time) followed by y (batch, outputs): (y - x_last) / scale."""
        _check(x)
        return (y - x[:, -1:]) / window_scale(x)[1]


def _check(x: Tensor) -> None:
    if x.dim() != 2 or not x.shape[1]:
        raise InputError(
            f"window: x must be (batch, time) with one step or more, got {tuple(x.shape)}. Give one series at a time."
        )
