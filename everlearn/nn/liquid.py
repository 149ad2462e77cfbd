"""Recurrent networks of liquid cells: neurons whose time constant depends on the input, so that they may be sampled at any times.

    h_t = cell(x_t, h_{t-1}, dt_t),   y_t = read(h_t)              dt_t: the time since the last sample

The cells are `nn.closed_form.CfCCell`, `nn.closed_form.WiredCfCCell` and `nn.time_constant.LTCCell`.
References: Hasani et al. (2021), Liquid time-constant networks, arXiv 2006.04439; Hasani et al. (2022), Closed-form continuous-time
neural networks, arXiv 2106.13898; Lechner & Hasani (2020), Learning long-term dependencies in irregularly-sampled time series,
arXiv 2006.04418 (mixed memory).
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, InputError, check_count

Times = Tensor | float | None


class LiquidCell(nn.Module, ABC):
    """A recurrent cell in continuous time: in_features inputs, `units` neurons of state, `outputs` of them read."""

    in_features: int
    units: int
    outputs: int

    @abstractmethod
    def unroll(self, x: Tensor, h: Tensor, dt: Tensor | float) -> Tensor:
        """The states (batch, time, units) after each step.

        x: (batch, time, in_features); h: (batch, units), the state before; dt: a number, or (batch, time). Nothing is checked.
        """

    @abstractmethod
    def read(self, states: Tensor) -> Tensor:
        """The outputs (..., outputs) of states (..., units)."""

    def forward(self, x: Tensor, h: Tensor, dt: Times = None) -> tuple[Tensor, Tensor]:
        """One step: x (batch, in_features), h (batch, units), dt None (1), a number or (batch,) -> (outputs, state)."""
        _check_x(self, x.unsqueeze(-2), 3)
        _check_state(self, h, len(x), pair=False)
        if isinstance(dt, Tensor) and dt.dim():
            dt = dt.reshape(-1, 1)
        states = self.unroll(x.unsqueeze(1), h, times(dt, len(x), 1))
        return self.read(states[:, 0]), states[:, 0]


class LiquidRNN(nn.Module):
    """A liquid cell over sequences: `(x, h=None, dt=None) -> (y, h)`.

    x: (batch, time, in_features), or (time, in_features) for a single sequence; h: the state (batch, units) before, zeros where None;
    with mixed_memory a pair (h, c); dt: time since the last sample, None (1 everywhere), a number > 0, or (batch, time).
    y: (batch, time, outputs), or (batch, outputs) of the last step where return_sequences is False.
    mixed_memory: an LSTM cell runs before the liquid one and keeps a memory c that time does not wash out; proj_size: width of a linear
    layer on the outputs, None for none.

    Raises ArgumentError for what is not a cell; InputError where x has another number of features, a state or dt another shape,
    or a dt is not above 0.

    >>> import torch
    >>> from everlearn.nn.closed_form import CfCCell
    >>> network = LiquidRNN(CfCCell(3, 8), return_sequences=False, proj_size=1)
    >>> y, h = network(torch.zeros(5, 24, 3), dt=torch.full((5, 24), 0.5))
    >>> y.shape, h.shape
    (torch.Size([5, 1]), torch.Size([5, 8]))

    Differs from the source in: batches come first, and the memory's LSTM cell is torch's own.
    """

    def __init__(
        self, cell: LiquidCell, *, return_sequences: bool = True, mixed_memory: bool = False, proj_size: int | None = None
    ):
        super().__init__()
        if not isinstance(cell, LiquidCell):
            raise ArgumentError(
                f"liquid: cell must be a liquid cell, got {type(cell).__name__}. Use CfCCell(in_features, units)."
            )
        self.cell = cell
        self.return_sequences = return_sequences
        self.lstm = nn.LSTMCell(cell.in_features, cell.units) if mixed_memory else None
        if self.lstm is not None:
            with torch.no_grad():
                self.lstm.bias_ih[cell.units : 2 * cell.units] += 1.0  # of the forget gate: remember at first
        if proj_size is not None:
            check_count("liquid", "proj_size", proj_size)
        self.projection = nn.Identity() if proj_size is None else nn.Linear(cell.outputs, proj_size)

    def forward(self, x: Tensor, h=None, dt: Times = None):
        single = x.dim() == 2
        if single:
            x = x.unsqueeze(0)
            h = _batched(h)
            dt = dt.unsqueeze(0) if isinstance(dt, Tensor) and dt.dim() else dt
        _check_x(self.cell, x, 3)
        elapsed = times(dt, *x.shape[:2])
        states, last = self._unroll(x, self._state(h, x), elapsed)
        y = self.projection(self.cell.read(states if self.return_sequences else states[:, -1]))
        if not single:
            return y, last
        return y[0], (last[0][0], last[1][0]) if self.lstm is not None else last[0]

    def _unroll(self, x: Tensor, state, dt: Tensor | float):
        if self.lstm is None:
            states = self.cell.unroll(x, state, dt)
            return states, states[:, -1]
        h, c = state
        states = []
        for t in range(x.shape[1]):
            h, c = self.lstm(x[:, t], (h, c))
            h = self.cell.unroll(x[:, t : t + 1], h, dt[:, t : t + 1] if isinstance(dt, Tensor) else dt)[:, 0]
            states.append(h)
        return torch.stack(states, 1), (h, c)

    def _state(self, h, x: Tensor):
        shape = (len(x), self.cell.units)
        if h is None:
            zeros = x.new_zeros(shape)
            return zeros if self.lstm is None else (zeros, zeros)
        _check_state(self.cell, h, len(x), pair=self.lstm is not None)
        return h


def times(dt: Times, batch: int, steps: int) -> Tensor | float:
    """The time since the last sample as a number, or as a tensor (batch, steps): checked, 1 where None.

    >>> times(None, 2, 3)
    1.0
    """
    if dt is None:
        return 1.0
    if not isinstance(dt, Tensor) or not dt.dim():
        value = float(dt)
        if not 0.0 < value < math.inf:
            raise InputError(f"liquid: dt must be above 0 and finite, got {value!r}. It is the time since the last sample.")
        return value
    if dt.shape != (batch, steps):
        raise InputError(f"liquid: dt must have shape {(batch, steps)}, (batch, time), got {tuple(dt.shape)}.")
    if not bool(((dt > 0) & torch.isfinite(dt)).all()):
        worst = dt[~((dt > 0) & torch.isfinite(dt))].reshape(-1)[0].item()
        raise InputError(
            f"liquid: every dt must be above 0 and finite, got {worst!r}. Sort the samples, and join those of one time."
        )
    return dt


def _check_x(cell: LiquidCell, x: Tensor, dims: int) -> None:
    if x.dim() != dims or x.shape[-1] != cell.in_features or not x.shape[-2]:
        raise InputError(
            f"liquid: x must be (batch, time, {cell.in_features}) with one step or more, for a cell of "
            f"in_features={cell.in_features}, got {tuple(x.shape)} with {x.shape[-1]} features."
        )


def _check_state(cell: LiquidCell, h, batch: int, pair: bool) -> None:
    shape, parts = (batch, cell.units), h if isinstance(h, tuple) else (h,)
    if isinstance(h, tuple) != pair or len(parts) > 2 or any(part.shape != shape for part in parts):
        wanted, found = "a pair (h, c)" if pair else "one tensor", [tuple(part.shape) for part in parts]
        raise InputError(
            f"liquid: the state must be {wanted} of shape {shape}, got {found}. Start from zeros of that shape."
        )


def _batched(h):
    if h is None:
        return None
    return tuple(part.unsqueeze(0) for part in h) if isinstance(h, tuple) else h.unsqueeze(0)
