"""The liquid time-constant cell (LTC): neurons with synapses whose strength depends on both ends, solved over each time step.

    C_i dv_i/dt = g_i (vleak_i - v_i) + sum_j w_ji s_ji(v_j) (E_ji - v_i) + sum_k w_ki s_ki(x_k) (E_ki - v_i)
    s_ji(u) = sigmoid(sigma_ji (u - mu_ji))

The fused solver takes `ode_unfolds` semi-implicit Euler sub-steps of length dt / ode_unfolds:

    v_i <- (C_i/dt v_i + g_i vleak_i + sum w s E) / (C_i/dt + g_i + sum w s + 1e-8)

Reference: Hasani et al. (2021), Liquid time-constant networks, arXiv 2006.04439, algorithm 1.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from everlearn.core.errors import ArgumentError, check_count
from everlearn.nn.liquid import LiquidCell
from everlearn.nn.wiring import Wiring, fully_connected

EPSILON = 1e-8  # in the denominator
tanh_backward = torch.ops.aten.tanh_backward.grad_input  # (gradient, tanh(z)) -> gradient (1 - tanh(z)^2), into grad_input
SOLVERS = ("fused", "euler", "rk4")
POSITIVITY = ("implicit", "explicit")
RANGES = {"g": (0.001, 1.0), "vleak": (-0.2, 0.2), "C": (0.4, 0.6), "w": (0.001, 1.0), "sigma": (3.0, 8.0), "mu": (0.3, 0.8)}
POSITIVE = ("g", "C", "w", "sensory_w")


class LTCCell(LiquidCell):
    """A liquid time-constant cell: `units` neurons that are all connected, or those of a wiring.

    wiring: a Wiring, or the number of neurons; in_features: inputs, needed with a number only; ode_unfolds: sub-steps of each step, 6 as
    published; positivity: how w, g and C are kept positive, "implicit": each is the softplus of a free parameter, "explicit": call
    `constrain()` after every step of the optimiser; solver: "fused" (semi-implicit, never unstable), "euler" or "rk4" (explicit).

    Values at the start are drawn uniformly from the published ranges with torch's global generator; reversal potentials E start at the
    signs of the wiring. Its cost grows with batch * units^2 * ode_unfolds: use CfCCell beyond 64 units.
    Raises ArgumentError where an argument is out of its range.

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
    ):
        super().__init__()
        check_count("ltc", "ode_unfolds", ode_unfolds)
        for name, value, known in (("positivity", positivity, POSITIVITY), ("solver", solver, SOLVERS)):
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
        from_x = self._from_inputs(x * self.input_scale + self.input_shift)
        step = self._fused() if self.solver == "fused" else self._explicit()
        states = []
        for t, (num, den) in enumerate(zip(*from_x, strict=True)):
            h = step(h, num, den, dt[:, t : t + 1] if isinstance(dt, Tensor) else dt)
            states.append(h)
        return torch.stack(states, 1)

    def _positive(self, name: str) -> Tensor:
        value = getattr(self, name)
        return softplus(value) if self.positivity == "implicit" else value

    def _from_inputs(self, x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What all inputs and the leak add to numerator and denominator, for each step (batch, units)."""
        g = self._positive("g")
        s = torch.sigmoid(self.sensory_sigma * (x.unsqueeze(-1) - self.sensory_mu))  # (batch, time, inputs, units)
        w = self._positive("sensory_w") * self.sensory_mask
        num = torch.einsum("btmn,mn->tbn", s, w * self.sensory_E) + g * self.vleak
        return num.unbind(0), (torch.einsum("btmn,mn->tbn", s, w) + g).unbind(0)

    def _fused(self):
        # sigmoid(z) = (1 + tanh(z / 2)) / 2: halves go into the weights, since tanh is the faster of the two
        w = (self._positive("w") * self.mask).T / 2
        weights = torch.stack([w * self.E.T, w], 1)  # (to, 2, from)
        always = weights.sum(2).T
        slope = (self.sigma.T / 2).contiguous().unsqueeze(1)
        shift = -(self.sigma * self.mu).T.contiguous().unsqueeze(1) / 2
        capacity = self._positive("C") * self.ode_unfolds
        room: list[Tensor] = []

        def step(v: Tensor, num: Tensor, den: Tensor, dt: Tensor | float) -> Tensor:
            if not room:  # written anew in every sub-step, since fresh memory would take longer than the arithmetic
                room.extend(v.new_empty(self.units, len(v), self.units) for _ in range(2))
            given = (v, num + always[0], den + always[1], (capacity / dt).expand_as(v), slope, shift, weights)
            return _Substeps.apply(self.ode_unfolds, room, *given)

        return step

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


class _Substeps(torch.autograd.Function):
    """The semi-implicit sub-steps of one step, and their gradient, with synapses tanh(slope v + shift).

    They are laid out (to, batch, from), so that both sums over the sources are one batched product with the weights (to, 2, from).
    Nothing of this size is kept for the gradient: computing it again takes less time than fetching memory for it.
    """

    @staticmethod
    def forward(ctx, unfolds, room, v, num_in, den_in, capacity, slope, shift, weights):
        num_in, den_in = num_in.contiguous(), den_in + capacity + EPSILON
        summed = weights.transpose(1, 2).contiguous()
        states, dens = v.new_empty(unfolds + 1, *v.shape), v.new_empty(unfolds, *v.shape)
        states[0] = v
        v, *after = states.unbind(0)  # views that are written into; one call takes less time than an index each
        for answer, den in zip(after, dens.unbind(0), strict=True):
            s = torch.addcmul(shift, slope, v, out=room[0]).tanh_()
            sums = torch.bmm(s, summed).permute(2, 1, 0)
            torch.add(sums[1], den_in, out=den)
            v = torch.addcmul(sums[0] + num_in, capacity, v, out=answer).div_(den)
        ctx.room = room
        ctx.save_for_backward(capacity, slope, shift, weights, states, dens)
        return states[unfolds].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        capacity, slope, shift, weights, states, dens = ctx.saved_tensors
        first, second = ctx.room
        unfolds = len(dens)
        ones = slope.new_ones(len(slope), 1, len(gradient))
        d_sums = dens.new_empty(unfolds, 2, *gradient.shape)  # by numerator and, with the other sign, by denominator
        signed = weights * weights.new_tensor([1.0, -1.0]).view(2, 1)
        d_shift, d_slope, d_weights = torch.zeros_like(slope), torch.zeros_like(slope), torch.zeros_like(weights)
        steps = zip(states.unbind(0), states[1:].unbind(0), dens.unbind(0), d_sums.unbind(0), strict=False)
        for v, answer, den, d_sum in reversed(list(steps)):
            s = torch.addcmul(shift, slope, v, out=first).tanh_()
            num, fall = d_sum.unbind(0)
            torch.mul(torch.div(gradient, den, out=num), answer, out=fall)
            both = d_sum.permute(2, 1, 0).contiguous()  # (to, batch, 2)
            d_weights.baddbmm_(both.transpose(1, 2), s)
            z = tanh_backward(torch.bmm(both, signed, out=second), s, grad_input=second)
            d_shift.baddbmm_(ones, z)
            d_slope.baddbmm_(ones, torch.mul(z, v, out=first))
            gradient = z.mul_(slope).sum(0).addcmul_(num, capacity)
        d_num, d_den = d_sums.sum(0)
        d_capacity = (d_sums[:, 0] * states[:-1]).sum(0) - d_den
        d_weights[:, 1].neg_()
        return None, None, gradient, d_num, -d_den, d_capacity, d_slope, d_shift, d_weights
