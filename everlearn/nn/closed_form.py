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
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # (gradient, s) -> gradient s (1 - s), into grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input  # (gradient, y) -> gradient (1 - y^2), into grad_input
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
        # All factors go into the weights, so that the recursion knows only tanh(z) = 2 sigmoid(2 z) - 1, of 2 z
        dropped = self.dropout if self.training else 0.0
        gain = HEIGHT / (1 - dropped)  # of the tanh behind a backbone layer
        layers = [2 * SLOPE * torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1) for layer in self.backbone]
        layers.append(self._head(dt))
        layers[1:] = [gain * layer for layer in layers[1:]]
        kept = None
        if dropped:
            kept = [drop(x.new_ones(x.shape[1], len(x), len(layer)), dropped).sign() for layer in layers[:-1]]
        steps = dt.T.unsqueeze(1) if isinstance(dt, Tensor) else dt
        states = _Recursion.apply(self.mode, gain, kept, x.permute(1, 2, 0), h.T, steps, self.A, self.w_tau, *layers)
        return states.permute(2, 0, 1)

    def _head(self, dt: Tensor | float) -> Tensor:
        """Weights and biases (to, from + 1) of all heads under one another: 2 f1, 2 f2, and with one dt for all a dt + b, else b and a."""
        weights, biases = zip(*((head.weight, head.bias) for head in self.heads.values()), strict=True)
        if self.mask is not None:
            weights = [weight * self.mask for weight in weights[:2]] + list(weights[2:])
        each = torch.cat([torch.cat(weights), torch.cat(biases).unsqueeze(1)], 1)
        if self.mode == "pure":
            return each
        last = [[0, 0, 0, 1], [0, 0, 1, 0]] if isinstance(dt, Tensor) else [[0, 0, dt, 1]]
        mixed = each.new_tensor([[2, 0, 0, 0], [0, 2, 0, 0], *last]) @ each.view(4, -1)
        return mixed.view(-1, each.shape[1])


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
        if not isinstance(wiring, Wiring):
            raise ArgumentError(f"cfc: wiring must be a Wiring, got {wiring!r}. Use auto_ncp(inputs, units, outputs).")
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
    """All steps of a CfC cell, and their gradient; everything lies (time, units, batch).

    What goes into a layer ends with a row of ones, by which its last column of weights, the bias, is multiplied; behind a layer whose
    answers the next weights multiply by `gain` it is 1 / gain. Torch's sigmoid is nowhere slower than its tanh, and on some processors
    ten times as fast, so every tanh is made of one. Only what goes into layers, and the heads, are kept for the gradient, and a step
    back ends with the gradients of the weights, while its numbers are in the cache.
    """

    @staticmethod
    def forward(ctx, mode, gain, kept, x, h, dt, asymptote, w_tau, *layers):
        steps, features, batch = x.shape
        inputs = [x.new_full((steps + 1, weight.shape[1], batch), 1 / gain) for weight in layers]
        inputs[0].fill_(1.0)
        inputs[0][:steps, :features] = x
        inputs[0][0, features:-1] = h
        heads = x.new_empty(steps, len(layers[-1]), batch)
        ends = (_Pure if mode == "pure" else _Gated)(mode, heads, len(h), dt, asymptote, w_tau)
        minus = x.new_full((), -1.0)
        # views to read from and write into, all at once: one call takes less time than an index each
        sources = [u.unbind(0) for u in inputs]
        outs = [u[:, :-1].unbind(0) for u in inputs[1:]] + [heads.unbind(0)]
        states = inputs[0][1:, features:-1]
        for t, state in enumerate(states.unbind(0)):
            for number, weight in enumerate(layers):
                z = torch.mm(weight, sources[number][t], out=outs[number][t])
                if number < len(layers) - 1:
                    torch.add(minus, z.sigmoid_(), alpha=2, out=z)
                    if kept is not None:
                        z.mul_(kept[number][t].T)
            ends.answer(t, out=state)
        ctx.mode, ctx.kept, ctx.dt = mode, kept, None if isinstance(dt, Tensor) else dt
        ctx.save_for_backward(dt if isinstance(dt, Tensor) else None, asymptote, w_tau, heads, *layers, *inputs)
        return states.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        dt, asymptote, w_tau, heads, *others = ctx.saved_tensors
        layers, inputs = others[: len(others) // 2], others[len(others) // 2 :]
        steps, units, batch = gradient.shape
        features = inputs[0].shape[1] - units - 1
        ends = (_Pure if ctx.mode == "pure" else _Gated)(
            ctx.mode, heads, units, ctx.dt if dt is None else dt, asymptote, w_tau
        )
        d_dt = torch.empty_like(dt) if ctx.needs_input_grad[5] else None
        d_x = gradient.new_empty(steps, features, batch) if ctx.needs_input_grad[3] else None
        d_layers = [torch.zeros_like(weight.T) for weight in layers]
        inward = [weight.T[:-1] / (2 if number else 1) for number, weight in enumerate(layers)]  # tanh(z) by 2 z
        from_x, from_h = inward[0].split((features, units))
        rooms = [gradient.new_empty(len(weight), batch) for weight in layers]  # by what each layer gives, of one step
        turned = [room.T for room in rooms]
        found = _views(rooms[-1], units)
        sources = [u.unbind(0) for u in inputs]
        outs = [u[:, :-1].unbind(0) for u in inputs[1:]]
        before = gradient.unbind(0)
        received = ends.factor * before[-1]
        for t in range(steps - 1, -1, -1):
            ends.back(t, received, found, None if d_dt is None else d_dt[t])
            for number in range(len(layers) - 1, -1, -1):
                d_layers[number].addmm_(sources[number][t], turned[number])
                if number:
                    d = torch.mm(inward[number], rooms[number], out=rooms[number - 1])
                    if ctx.kept is not None:
                        d.mul_(ctx.kept[number - 1][t].T)
                    tanh_backward(d, outs[number - 1][t], grad_input=d)
            if d_x is not None:
                torch.mm(from_x, rooms[0], out=d_x[t])
            if t:
                torch.addmm(before[t - 1], from_h, rooms[0], beta=ends.factor, alpha=ends.factor, out=received)
        return None, None, None, d_x, from_h @ rooms[0], d_dt, *ends.gradients, *(d.T for d in d_layers)


class _Gated:
    """The end of a step, h = 2 (s1 + g (s2 - s1)) - 1 with s1 = sigmoid(2 f1) and s2 alike: the sigmoids take the place of the heads.
    Mode "no_gate" has 1/2 in the place of s1 in the bracket.
    """

    factor = 2.0  # half the answer is what the gradient comes by
    gradients = (None, None)

    def __init__(self, mode, heads, units, dt, asymptote, w_tau):
        self.default, self.dt = mode == "default", dt if isinstance(dt, Tensor) else None
        self.heads = list(zip(*(part.unbind(0) for part in _views(heads, units, 1)), strict=True))
        self.minus, self.half = heads.new_full((), -1.0), heads.new_full((), 0.5)

    def answer(self, t, out):
        z, f1, f2, gate, *rate = self.heads[t]
        if rate:
            gate.addcmul_(rate[0], self.dt[t])
        z.sigmoid_()
        torch.lerp(f1, f2, gate, out=out) if self.default else torch.addcmul(f1, gate, f2, out=out)
        torch.add(self.minus, out, alpha=2, out=out)
        if not self.default:
            out.sub_(gate)

    def back(self, t, received, found, d_dt):
        z, f1, f2, gate, *rate = self.heads[t]
        d_z, d_f1, d_f2, d_gate, *d_rate = found
        torch.mul(received, gate, out=d_f2)
        torch.sub(received, d_f2, out=d_f1) if self.default else d_f1.copy_(received)
        torch.sub(f2, f1 if self.default else self.half, out=d_gate).mul_(received)
        sigmoid_backward(d_z, z, grad_input=d_z)
        if rate:
            torch.mul(d_gate, self.dt[t], out=d_rate[0])
            if d_dt is not None:
                torch.sum(d_gate * rate[0], 0, keepdim=True, out=d_dt)


class _Pure:
    """The end of a step, h = A - A exp(-dt (|w_tau| + |f1|)) f1."""

    factor = 1.0

    def __init__(self, mode, heads, units, dt, asymptote, w_tau):
        self.heads, self.dt, self.asymptote, self.w_tau = heads, dt, asymptote.unsqueeze(1), w_tau.unsqueeze(1)
        self.gradients = (torch.zeros_like(asymptote), torch.zeros_like(w_tau))

    def _decay(self, t):
        f1, dt = self.heads[t], self.dt[t] if isinstance(self.dt, Tensor) else self.dt
        rate = self.w_tau.abs() + f1.abs()
        return f1, dt, rate, torch.exp(-dt * rate)

    def answer(self, t, out):
        f1, _, _, decay = self._decay(t)
        torch.addcmul(self.asymptote, self.asymptote, decay.mul_(f1), value=-1, out=out)

    def back(self, t, received, found, d_dt):
        f1, dt, rate, decay = self._decay(t)
        by_decay = -self.asymptote * received * decay
        torch.mul(by_decay, 1 - dt * f1.abs(), out=found[1])
        by_exponent = -by_decay * f1
        self.gradients[0].add_((received * (1 - decay * f1)).sum(1))
        self.gradients[1].add_((by_exponent * dt * self.w_tau.sign()).sum(1))
        if d_dt is not None:
            torch.sum(by_exponent * rate, 0, keepdim=True, out=d_dt)


def _views(z, units, dim=0):
    """What the sigmoid takes at once, all heads but that of a tensor of times, and each head by itself."""
    return z.narrow(dim, 0, min(3 * units, z.shape[dim])), *z.split(units, dim)
