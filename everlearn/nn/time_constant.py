"""The liquid time-constant cell (LTC): neurons with synapses whose strength depends on both ends, solved over each time step.

    C_i dv_i/dt = g_i (vleak_i - v_i) + sum_j w_ji s_ji(v_j) (E_ji - v_i) + sum_k w_ki s_ki(x_k) (E_ki - v_i)
    s_ji(u) = sigmoid(sigma_ji (u - mu_ji))

The fused solver takes `ode_unfolds` semi-implicit Euler sub-steps of length dt / ode_unfolds:

    v_i <- (C_i/dt v_i + g_i vleak_i + sum w s E) / (C_i/dt + g_i + sum w s + 1e-8)

Reference: Hasani et al. (2021), Liquid time-constant networks, arXiv 2006.04439, algorithm 1.
"""

from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from everlearn.core.errors import ArgumentError, check_count, optional
from everlearn.nn.liquid import LiquidCell
from everlearn.nn.wiring import Wiring, fully_connected

EPSILON = 1e-8  # in the denominator
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # (gradient, s) -> gradient s (1 - s), into grad_input
SOLVERS = ("fused", "euler", "rk4")
POSITIVITY = ("implicit", "explicit")
KERNELS = ("auto", "numba", "torch")
RANGES = {"g": (0.001, 1.0), "vleak": (-0.2, 0.2), "C": (0.4, 0.6), "w": (0.001, 1.0), "sigma": (3.0, 8.0), "mu": (0.3, 0.8)}
POSITIVE = ("g", "C", "w", "sensory_w")


class LTCCell(LiquidCell):
    """A liquid time-constant cell: `units` neurons that are all connected, or those of a wiring.

    wiring: a Wiring, or the number of neurons; in_features: inputs, needed with a number only; ode_unfolds: sub-steps of each step, 6 as
    published; positivity: how w, g and C are kept positive, "implicit": each is the softplus of a free parameter, "explicit": call
    `constrain()` after every step of the optimiser; solver: "fused" (semi-implicit, never unstable), "euler" or "rk4" (explicit).
    kernel: what the fused solver runs on: "numba", compiled for this processor when it is first used (pip install 'everlearn[fast]';
    a few seconds, once for a machine) and 1.5 to 6 times as fast, or "torch"; "auto": numba where it is installed. On a GPU, and in
    numbers of 64 bits, torch's calls are made in any case. Both ways give the same numbers to rounding.

    Values at the start are drawn uniformly from the published ranges with torch's global generator; reversal potentials E start at the
    signs of the wiring. Its cost grows with batch * units^2 * ode_unfolds: use CfCCell beyond 64 units.
    Raises ArgumentError where an argument is out of its range, MissingExtraError where numba is asked for and not installed.

    >>> cell = LTCCell(32, 1)
    >>> sum(p.numel() for p in cell.parameters())
    4386
    >>> y, v = cell(torch.zeros(4, 1), torch.zeros(4, 32), dt=0.5)
    >>> y.shape
    torch.Size([4, 32])

    Differs from ncps in: with "implicit" the values themselves, not the free parameters, start in the published ranges. With the fused
    solver gradients are taken once only (no gradients of gradients).
    """

    def __init__(
        self,
        wiring: Wiring | int,
        in_features: int | None = None,
        *,
        ode_unfolds: int = 6,
        positivity: str = "implicit",
        solver: str = "fused",
        kernel: str = "auto",
    ):
        super().__init__()
        check_count("ltc", "ode_unfolds", ode_unfolds)
        choices = (("positivity", positivity, POSITIVITY), ("solver", solver, SOLVERS), ("kernel", kernel, KERNELS))
        for name, value, known in choices:
            if value not in known:
                raise ArgumentError(f"ltc: {name} must be one of {', '.join(known)}, got {value!r}.")
        if not isinstance(wiring, Wiring):
            check_count("ltc", "wiring", wiring, fix="Give a Wiring or the number of neurons.")
            if in_features is None:
                raise ArgumentError(
                    f"ltc: in_features must be given with a number of neurons. Use LTCCell({wiring}, in_features=1)."
                )
            wiring = fully_connected(in_features, wiring)
        if in_features not in (None, wiring.inputs):
            raise ArgumentError(f"ltc: in_features={in_features} is not the wiring's inputs={wiring.inputs}. Leave it out.")
        self.in_features, self.units, self.outputs = wiring.inputs, wiring.units, wiring.outputs
        self.ode_unfolds, self.positivity, self.solver = ode_unfolds, positivity, solver
        if kernel == "numba":
            optional("numba", "fast", "ltc: kernel='numba'")
        self.compiled = kernel == "numba" or (kernel == "auto" and find_spec("numba") is not None)
        inner, sensory = (self.units, self.units), (self.in_features, self.units)
        shapes = {"g": (self.units,), "vleak": (self.units,), "C": (self.units,)}
        shapes |= dict.fromkeys(("w", "sigma", "mu"), inner)
        shapes |= {f"sensory_{name}": sensory for name in ("w", "sigma", "mu")}
        for name, shape in shapes.items():
            value = torch.empty(shape).uniform_(*RANGES[name.removeprefix("sensory_")])
            free = value + torch.log(-torch.expm1(-value)) if positivity == "implicit" and name in POSITIVE else value
            self.register_parameter(name, nn.Parameter(free))
        dtype = torch.get_default_dtype()
        self.E, self.sensory_E = nn.Parameter(wiring.inner.to(dtype)), nn.Parameter(wiring.sensory.to(dtype))
        self.register_buffer("mask", wiring.inner.abs().to(dtype))
        self.register_buffer("sensory_mask", wiring.sensory.abs().to(dtype))
        self.input_scale = nn.Parameter(torch.ones(self.in_features))
        self.input_shift = nn.Parameter(torch.zeros(self.in_features))
        self.output_scale = nn.Parameter(torch.ones(self.outputs))
        self.output_shift = nn.Parameter(torch.zeros(self.outputs))

    def read(self, states: Tensor) -> Tensor:
        return states[..., : self.outputs] * self.output_scale + self.output_shift

    @torch.no_grad()
    def constrain(self) -> None:
        """Set what is below 0 of w, g and C to 0. Needed after every optimiser step with positivity="explicit", of no use otherwise."""
        if self.positivity == "explicit":
            for name in POSITIVE:
                getattr(self, name).clamp_(min=0.0)

    def unroll(self, x: Tensor, h: Tensor, dt: Tensor | float) -> Tensor:
        num, den = self._from_inputs(x * self.input_scale + self.input_shift)
        if self.solver == "fused":
            return self._fused(h, num, den, dt)
        step, states = self._explicit(), []
        for t in range(x.shape[1]):
            h = step(h, num[t], den[t], dt[:, t : t + 1] if isinstance(dt, Tensor) else dt)
            states.append(h)
        return torch.stack(states, 1)

    def _positive(self, name: str) -> Tensor:
        value = getattr(self, name)
        return softplus(value) if self.positivity == "implicit" else value

    def _from_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What all inputs and the leak add to numerator and denominator, (time, batch, units)."""
        g = self._positive("g")
        s = torch.sigmoid(self.sensory_sigma * (x.unsqueeze(-1) - self.sensory_mu))  # (batch, time, inputs, units)
        w = self._positive("sensory_w") * self.sensory_mask
        num = torch.einsum("btmn,mn->tbn", s, w * self.sensory_E) + g * self.vleak
        return num, torch.einsum("btmn,mn->tbn", s, w) + g

    def _fused(self, v: Tensor, num: Tensor, den: Tensor, dt: Tensor | float) -> Tensor:
        w, shift = self._positive("w") * self.mask, -self.sigma * self.mu
        elapsed = dt.T.unsqueeze(1) if isinstance(dt, Tensor) else dt  # (time, 1, batch)
        capacity = self._positive("C").unsqueeze(1) * self.ode_unfolds / elapsed
        given = torch.stack([num.transpose(1, 2), den.transpose(1, 2) + capacity + EPSILON], 2)  # (time, units, 2, batch)
        capacity = capacity.expand(len(num), *v.T.shape)
        if self.compiled and given.dtype == torch.float32 and given.device.type == "cpu":
            from everlearn.nn.compiled_substeps import substeps

            to, source = self.mask.T.nonzero(as_tuple=True)
            synapses = torch.stack([w * self.E, w, self.sigma, shift])[:, source, to]
            return substeps(self.ode_unfolds, source, to, synapses, v.T, given, capacity).permute(2, 0, 1)
        to, source = self._ends()
        weights = torch.stack([(w * self.E).T, w.T], 1)[to, :, source]  # (to, 2, from)
        slope, shift = self.sigma.T[to, source], shift.T[to, source]
        return _Substeps.apply(self.ode_unfolds, to, source, v.T, given, capacity, slope, shift, weights).permute(2, 0, 1)

    def _ends(self) -> tuple[slice, slice]:
        """The neurons that synapses lead to, and those that they come from. A wiring in layers has none to or from some of its layers."""
        return _span(self.mask.any(0)), _span(self.mask.any(1))

    def _explicit(self):
        w, capacity = self._positive("w") * self.mask, self._positive("C")

        def slope(v: Tensor, num: Tensor, den: Tensor) -> Tensor:
            s = torch.sigmoid(self.sigma * (v.unsqueeze(-1) - self.mu)) * w  # (batch, from, to)
            return (num + (s * self.E).sum(1) - v * (den + s.sum(1))) / capacity

        def step(v: Tensor, num: Tensor, den: Tensor, dt: Tensor | float) -> Tensor:
            length = dt / self.ode_unfolds
            for _ in range(self.ode_unfolds):
                first = slope(v, num, den)
                if self.solver == "euler":
                    v = v + length * first
                    continue
                second = slope(v + length / 2 * first, num, den)
                third = slope(v + length / 2 * second, num, den)
                v = v + length / 6 * (first + 2 * second + 2 * third + slope(v + length * third, num, den))
            return v

        return step


def _span(which: Tensor) -> slice:
    places = which.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1)


class _Substeps(torch.autograd.Function):
    """All semi-implicit sub-steps of a sequence, and their gradient, with synapses sigmoid(slope v + shift).

    States lie (units, batch) and synapses (to, from, batch), so that both sums over the sources are one batched product with the
    weights (to, 2, from), added to what inputs and leak give. The synapses are not kept for the gradient: computing them again takes
    no longer than writing and reading them beyond the cache, so they go into the same room in every sub-step.
    """

    @staticmethod
    def forward(ctx, unfolds, to, source, v, given, capacity, slope, shift, weights):
        steps, units, _, batch = given.shape
        slope, shift = (value.unsqueeze(2).expand(*value.shape, batch).contiguous() for value in (slope, shift))
        s, sums = torch.empty_like(slope), given.new_empty(unfolds, units, 2, batch)
        states, dens = v.new_empty(steps * unfolds + 1, units, batch), v.new_empty(steps, unfolds, units, batch)
        states[0] = v
        # views to write into, all at once: one call takes less time than an index each
        parts = list(zip(sums[:, to].unbind(0), sums[:, :, 0].unbind(0), sums[:, :, 1].unbind(0), strict=True))
        ways = zip(states.unbind(0), states[:, source].unbind(0), states[1:].unbind(0), strict=False)
        for inputs, c, kept in zip(given.unbind(0), capacity.unbind(0), dens.unbind(0), strict=True):
            sums.copy_(inputs)
            for (added, num, den), (v, sources, answer) in zip(parts, ways, strict=False):
                added.baddbmm_(weights, torch.addcmul(shift, slope, sources, out=s).sigmoid_())
                torch.div(num.addcmul_(c, v), den, out=answer)
            kept.copy_(sums[:, :, 1])
        ctx.ends, ctx.room = (to, source), (slope, shift, s)
        ctx.save_for_backward(capacity, weights, states, dens)
        return states[unfolds::unfolds].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        capacity, weights, states, dens = ctx.saved_tensors
        (to, source), (slope, shift, s) = ctx.ends, ctx.room
        steps, unfolds, units, batch = dens.shape
        both = dens.new_empty(unfolds, units, 2, batch)  # by numerator and, less its sign, by denominator
        z = torch.empty_like(s)
        inward, turned = z.transpose(0, 1), s.transpose(1, 2)  # (from, to, batch), (to, batch, from)
        across, outward = slope[:, :, :1].permute(1, 2, 0).contiguous(), inward.transpose(1, 2)
        back = (weights * weights.new_tensor([1.0, -1.0]).view(2, 1)).transpose(1, 2).contiguous()
        pair = weights.new_ones(weights.shape[2], 2, batch)  # the sources' states beside ones
        first = pair[:, 0]
        d_weights = torch.zeros_like(weights)
        d_pairs = weights.new_zeros(len(pair), 2, len(weights))  # (from, 2, to)
        d_given, d_capacity = dens.new_empty(steps, units, 2, batch), torch.empty_like(capacity)
        carried = torch.zeros_like(capacity[0])
        reached = carried[source].unsqueeze(1)
        parts = list(zip(both[:, to].unbind(0), both[:, :, 0].unbind(0), both[:, :, 1].unbind(0), strict=True))[::-1]
        starts, ends = states[:-1, source].unbind(0), states[1:].unbind(0)
        ways = zip(starts[::-1], ends[::-1], dens.flatten(0, 1).unbind(0)[::-1], strict=True)
        before = states[:-1].view(steps, unfolds, units, batch)
        for t in reversed(range(steps)):
            carried += gradient[t]
            c = capacity[t]
            for (reaching, num, fall), (sources, answer, den) in zip(parts, ways, strict=False):
                torch.mul(torch.div(carried, den, out=num), answer, out=fall)
                torch.addcmul(shift, slope, sources, out=s).sigmoid_()
                d_weights.baddbmm_(reaching, turned)
                sigmoid_backward(torch.bmm(back, reaching, out=z), s, grad_input=z)
                first.copy_(sources)
                d_pairs.baddbmm_(pair, outward)
                torch.mul(num, c, out=carried)
                reached.baddbmm_(across, inward)
            torch.sum(both, 0, out=d_given[t])
            torch.sum(both[:, :, 0] * before[t], 0, out=d_capacity[t])
        d_given[:, :, 1].neg_()
        d_weights[:, 1].neg_()
        d_slope, d_shift = d_pairs.permute(1, 2, 0)
        return None, None, None, carried, d_given, d_capacity, d_slope, d_shift, d_weights
