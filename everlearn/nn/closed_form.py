"""Closed-form continuous-time cells (CfC): what a liquid neuron does between two samples, without a solver.

    u = phi(backbone([x, h])),   phi(z) = 1.7159 tanh(0.666 z)
    default   h' = (1 - g) tanh(f1) + g tanh(f2),    g = sigmoid(a dt + b)
    no_gate   h' = tanh(f1) + g tanh(f2)
    pure      h' = A - A exp(-dt (|w_tau| + |f1|)) f1

f1, f2, a, b are linear in u. Reference: Hasani et al. (2022), Closed-form continuous-time neural networks, Nature Machine
Intelligence 4, 992-1003, arXiv 2106.13898.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout as drop

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.nn.liquid import LiquidCell
from everlearn.nn.wiring import Wiring

MODES = ("default", "no_gate", "pure")
HEIGHT, SLOPE = 1.7159, 0.666  # of the scaled tanh, LeCun's


def scaled_tanh(z: Tensor) -> Tensor:
    """1.7159 tanh(0.666 z): close to the identity at -1 and 1.

    >>> round(scaled_tanh(torch.tensor(1.0)).item(), 5)
    0.99924

    Reference: LeCun et al. (1998), Efficient backprop (there with 2/3).
    """
    return HEIGHT * torch.tanh(SLOPE * z)


class CfCCell(LiquidCell):
    """A closed-form continuous-time cell of `units` neurons, all of which are read.

    mode: "default", "no_gate" or "pure"; backbone_units, backbone_layers: width and number of the dense layers before the heads, 0 layers
    for none; dropout: share of backbone units that is dropped while training, drawn from torch's global generator.
    mask: (in_features + units, units) of 0 and 1, [from, to], the weights of f1 and f2 that exist, only without a backbone; None: all.

    Weights are drawn from torch's global generator (Xavier, uniform), biases as in torch's linear layer, A = 1 and w_tau = 0.
    Raises ArgumentError where an argument is out of its range.

    >>> cell = CfCCell(1, 32)
    >>> sum(p.numel() for p in cell.parameters())
    20864
    >>> y, h = cell(torch.zeros(4, 1), torch.zeros(4, 32), dt=0.5)
    >>> h.shape
    torch.Size([4, 32])

    Differs from ncps in: A and w_tau keep their start, and dropout acts behind every backbone layer. Gradients are taken once only
    (no gradients of gradients), since they are computed for all steps together.
    """

    def __init__(
        self,
        in_features: int,
        units: int,
        *,
        mode: str = "default",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        dropout: float = 0.0,
        mask: Tensor | None = None,
    ):
        super().__init__()
        for name, count, least in (
            ("in_features", in_features, 1),
            ("units", units, 1),
            ("backbone_units", backbone_units, 1),
            ("backbone_layers", backbone_layers, 0),
        ):
            check_count("cfc", name, count, least)
        check_range("cfc", "dropout", dropout, 0.0, 0.9)
        if mode not in MODES:
            raise ArgumentError(f"cfc: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        if mask is not None and (backbone_layers or mask.shape != (in_features + units, units)):
            raise ArgumentError(
                f"cfc: mask must be {(in_features + units, units)} of a cell with backbone_layers=0, "
                f"got {tuple(mask.shape)} with backbone_layers={backbone_layers}."
            )
        self.in_features, self.units, self.outputs = in_features, units, units
        self.mode, self.dropout = mode, dropout
        self.register_buffer("mask", None if mask is None else mask.T.to(torch.get_default_dtype()).contiguous())
        widths = [in_features + units, *[backbone_units] * backbone_layers]
        self.backbone = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        names = ("f1",) if mode == "pure" else ("f1", "f2", "a", "b")
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1], units) for name in names})
        for layer in (*self.backbone, *self.heads.values()):
            nn.init.xavier_uniform_(layer.weight)
        self.A = nn.Parameter(torch.ones(units)) if mode == "pure" else None
        self.w_tau = nn.Parameter(torch.zeros(units)) if mode == "pure" else None

    def read(self, states: Tensor) -> Tensor:
        return states

    def unroll(self, x: Tensor, h: Tensor, dt: Tensor | float) -> Tensor:
        # All factors go into the weights around, so that the recursion knows only half a tanh: tanh(z) / 2 = sigmoid(2 z) - 1/2
        layers = [(2 * SLOPE * layer.weight, 2 * SLOPE * layer.bias) for layer in self.backbone] + [self._head(dt)]
        layers[1:] = [(2 * HEIGHT * weight, bias) for weight, bias in layers[1:]]
        (weight, bias), rest = layers[0], layers[1:]
        from_x, from_h = weight.split((self.in_features, self.units), 1)
        drive = torch.nn.functional.linear(x.transpose(0, 1), from_x, bias)  # (time, batch, width), of all steps at once
        kept = None
        if self.dropout and self.training:
            kept = [drop(drive.new_ones(*drive.shape[:2], layer.out_features), self.dropout) for layer in self.backbone]
        steps = dt.T.unsqueeze(-1) if isinstance(dt, Tensor) else dt
        flat = [part for layer in rest for part in layer]
        size = 1 if self.mode == "pure" else 2  # the recursion's states are halves, too
        states = _Recursion.apply(self.mode, kept, drive, h / size, steps, self.A, self.w_tau, size * from_h, *flat)
        return (size * states).transpose(0, 1)

    def _head(self, dt: Tensor | float) -> tuple[Tensor, Tensor]:
        """Weight and bias of all heads under one another, f1 and f2 doubled; with one dt for all, a dt + b is one head."""
        parts = {name: (head.weight, head.bias) for name, head in self.heads.items()}
        if self.mask is not None:
            parts |= {name: (parts[name][0] * self.mask, parts[name][1]) for name in ("f1", "f2") if name in parts}
        if self.mode == "pure":
            return parts["f1"]
        fixed = [] if isinstance(dt, Tensor) else [dt * part for part in parts["a"]]
        gate = [part + more for part, more in zip(parts["b"], fixed, strict=True)] if fixed else parts["b"]
        rest = [gate] if fixed else [gate, parts["a"]]
        weight, bias = (
            torch.cat([torch.cat([f1, f2]) * 2, *others])
            for f1, f2, *others in zip(parts["f1"], parts["f2"], *rest, strict=True)
        )
        return weight, bias


class WiredCfCCell(LiquidCell):
    """CfC cells without a backbone in series, one for each layer of a wiring: inter -> command -> motor.

    The wiring says which weights of f1 and f2 between one layer and the next exist; within a layer all do, and those of a and b.
    The state holds the layers in the order in which a signal passes them. Signs of the wiring are not used.

    >>> from everlearn.nn.wiring import auto_ncp
    >>> cell = WiredCfCCell(auto_ncp(2, 16, 1))
    >>> y, h = cell(torch.zeros(4, 2), torch.zeros(4, 16))
    >>> y.shape, h.shape
    (torch.Size([4, 1]), torch.Size([4, 16]))
    """

    def __init__(self, wiring: Wiring, *, mode: str = "default"):
        super().__init__()
        self.in_features, self.units, self.outputs = wiring.inputs, wiring.units, wiring.outputs
        self.sizes = [len(layer) for layer in wiring.layers]
        cells = []
        for number, layer in enumerate(wiring.layers):
            inward = wiring.inner[list(wiring.layers[number - 1])] if number else wiring.sensory
            among = torch.ones(len(layer), len(layer))
            mask = torch.cat([inward[:, list(layer)].abs().to(among.dtype), among])
            cells.append(CfCCell(len(inward), len(layer), mode=mode, backbone_layers=0, mask=mask))
        self.cells = nn.ModuleList(cells)

    def read(self, states: Tensor) -> Tensor:
        last = states[..., self.units - self.sizes[-1] :]
        return last[..., : self.outputs]

    def unroll(self, x: Tensor, h: Tensor, dt: Tensor | float) -> Tensor:
        states = []
        for cell, before in zip(self.cells, h.split(self.sizes, 1), strict=True):
            x = cell.unroll(x, before, dt)
            states.append(x)
        return torch.cat(states, -1)


class _Recursion(torch.autograd.Function):
    """All steps of a CfC cell, time first, and their gradient.

    Every tanh stands here as its half, sigmoid(2 z) - 1/2 with the 2 in the weights: torch's sigmoid is nowhere slower than its tanh,
    and on some processors ten times as fast. Of the gradient only what passes from step to step is computed step by step: two
    products with weights and two with derivatives that were computed for all steps together. The gradients of the weights are then
    one product each.
    """

    @staticmethod
    def forward(ctx, mode, kept, drive, h, dt, asymptote, w_tau, from_h, *flat):
        layers = [(weight.T, bias) for weight, bias in zip(flat[::2], flat[1::2], strict=True)]
        steps, batch = drive.shape[:2]
        hidden = [drive.new_empty(steps, batch, len(weight)) for weight, _ in layers]  # inputs of each layer but the first
        heads = drive.new_empty(steps, batch, layers[-1][0].shape[1] if layers else drive.shape[2])
        states = drive.new_empty(steps + 1, batch, h.shape[1])
        states[0] = h
        backward = from_h.T
        outs = [
            part.unbind(0) for part in (*hidden, heads)
        ]  # views to write into: one call takes less time than an index each
        drive, every = drive.unbind(0), states.unbind(0)
        for t in range(steps):
            z = torch.addmm(drive[t], every[t], backward, out=outs[0][t])
            for number, (weight, bias) in enumerate(layers):
                z.sigmoid_().sub_(0.5)
                if kept is not None:
                    z.mul_(kept[number][t])
                z = torch.addmm(bias, z, weight, out=outs[number + 1][t])
            _answer(mode, z, dt[t] if isinstance(dt, Tensor) else dt, asymptote, w_tau, out=every[t + 1])
        ctx.mode, ctx.kept, ctx.dt = mode, kept, None if isinstance(dt, Tensor) else dt
        ctx.save_for_backward(
            heads, states, dt if isinstance(dt, Tensor) else None, asymptote, w_tau, from_h, *flat, *hidden
        )
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        heads, states, dt, asymptote, w_tau, from_h, *others = ctx.saved_tensors
        count = len(others) // 3
        layers, hidden = others[: 2 * count : 2], others[2 * count :]
        slopes, dt_slope, own = _derivatives(ctx.mode, heads, ctx.dt if dt is None else dt, asymptote, w_tau)
        curves = []  # derivatives of the hidden layers' outputs by what goes in
        for number, u in enumerate(hidden):
            kept = None if ctx.kept is None else ctx.kept[number]
            if kept is None:
                curves.append(torch.addcmul(u.new_full((), 0.25), u, u, value=-1))
            else:  # u = kept (sigmoid(z) - 1/2)
                curves.append(torch.where(kept > 0, kept / 4 - u * u / kept.clamp(min=1e-12), 0))
        # each factor gives its place to the gradient of what goes into its layer, since fresh memory takes long
        inward = [*curves, slopes.flatten(2)]
        received = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        received[-1] = gradient[-1]
        rooms = [torch.empty_like(u[0]) for u in hidden]
        every = list(
            zip(gradient.unbind(0), received.unbind(0), received.unsqueeze(2).unbind(0), slopes.unbind(0), strict=True)
        )
        views = [part.unbind(0) for part in inward]
        for t in range(len(every) - 1, -1, -1):
            _, _, g, slope = every[t]
            slope.mul_(g)
            for number in range(count - 1, -1, -1):
                views[number][t].mul_(torch.mm(views[number + 1][t], layers[number], out=rooms[number]))
            if t:
                before, out, *_ = every[t - 1]
                torch.addmm(before, views[0][t], from_h, out=out)
        found = []
        for number, u in enumerate(hidden):
            d = inward[number + 1].flatten(0, 1)
            found += [d.T @ u.flatten(0, 1), d.sum(0)]
        d_dt = (received * dt_slope).sum(-1, keepdim=True) if ctx.needs_input_grad[4] else None
        d_own = [(received * slope).sum((0, 1)) for slope in own] if own else [None, None]
        d_from_h = inward[0].flatten(0, 1).T @ states[:-1].flatten(0, 1)
        return None, None, inward[0], inward[0][0] @ from_h, d_dt, *d_own, d_from_h, *found


def _answer(mode, z, dt, asymptote, w_tau, out):
    """The next state (batch, units), of which all modes but "pure" take half, into `out`, from the heads z (f1, f2, gate and, with
    a tensor of times, a); what the gradient needs of them is left in z.
    """
    units = out.shape[1]
    if mode == "pure":
        decay = torch.exp(-dt * (w_tau.abs() + z.abs())).mul_(z)
        torch.addcmul(asymptote, asymptote, decay, value=-1, out=out)
        return
    if z.shape[1] == 4 * units:
        z, a = z.split(3 * units, 1)
        z[:, 2 * units :].addcmul_(a, dt)
    f1, f2, gate = z.sigmoid_().split(units, 1)
    z[:, : 2 * units].sub_(0.5)
    if mode == "default":
        torch.lerp(f1, f2, gate, out=out)
    else:
        torch.addcmul(f1, gate, f2, out=out)


def _derivatives(mode, heads, dt, asymptote, w_tau):
    """Derivatives of the answers by heads (time, batch, parts, units), by dt (time, batch, units), and by A and w_tau."""
    if mode == "pure":
        rate = w_tau.abs() + heads.abs()
        decay = torch.exp(-dt * rate)
        by_head = -asymptote * decay * (1 - dt * heads.abs())
        by_tau = asymptote * heads * decay * dt * w_tau.sign()
        return by_head.unsqueeze(2), asymptote * heads * decay * rate, (1 - decay * heads, by_tau)
    units = heads.shape[2] // (4 if isinstance(dt, Tensor) else 3)
    f1, f2, gate, *rate = heads.split(units, 2)
    by_f2 = gate * (0.25 - f2 * f2)
    by_gate = gate * (1 - gate) * (f2 - f1 if mode == "default" else f2)
    by_f1 = (0.25 - f1 * f1) * (1 - gate if mode == "default" else 1.0)
    by_a = [by_gate * dt for _ in rate]
    by_dt = by_gate * rate[0] if rate else None
    return torch.stack([by_f1, by_f2, by_gate, *by_a], 2), by_dt, ()
