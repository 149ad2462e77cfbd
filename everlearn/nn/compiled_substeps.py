"""All semi-implicit sub-steps of a sequence of liquid time-constant cells, and their gradient, compiled by Numba.

    num_i = n_i + c_i v_i + sum_e a_e s_e,   den_i = d_i + sum_e b_e s_e,   s_e = sigmoid(slope_e v_from + shift_e),   v_i <- num_i / den_i

Sums run over the synapses that exist, one after another, each for all sequences of a batch at once: their loops are what a processor's
vector unit takes. Nothing of a synapse is kept for the gradient, which computes it again.

Numbers of 32 bits. The exponential is 2^n p(r) with r in [-1/2, 1/2] and p of degree 6, the powers of log 2 over their factorials: what
it leaves out, (log(2) / 2)^7 / 7! = 1.2e-7 of the value, is the rounding of such numbers.

Reference: Hasani et al. (2021), Liquid time-constant networks, arXiv 2006.04439, algorithm 1 (the sub-step; its gradient is by hand).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

F32, I32 = numpy.float32, numpy.int32
LOG_E = F32(1.0 / math.log(2.0))
P1, P2, P3, P4, P5, P6 = (F32(math.log(2.0) ** k / math.factorial(k)) for k in range(1, 7))
ONE, HALF, FARTHEST, BIAS = F32(1.0), F32(0.5), F32(125.0), I32(127)
# sums may be taken in any order, and a product and a sum be one operation; a number that is none must still be seen: no "nnan"
OPTIONS = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy", "nogil": True}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called and kept for the next process; anew in each where no folder can be written."""
    try:
        return njit(function, cache=True, **OPTIONS)
    except RuntimeError:
        return njit(function, **OPTIONS)


def substeps(
    unfolds: int, source: Tensor, to: Tensor, synapses: Tensor, v: Tensor, given: Tensor, capacity: Tensor
) -> Tensor:
    """The states (steps, units, batch) after each step, float32 on the CPU.

    source, to: (synapses,) int64, the neurons of each; synapses: (4, synapses), its a, b, slope and shift; v: (units, batch), the
    states before; given: (steps, units, 2, batch), what inputs and leak add to numerator n and denominator d; capacity:
    (steps, units, batch), the c of the numerator, which d holds already. Gradients are taken once only.
    """
    return _Substeps.apply(unfolds, source, to, synapses, v, given, capacity)


class _Substeps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, unfolds, source, to, synapses, v, given, capacity):
        steps, units, _, batch = given.shape
        states, dens = given.new_empty(steps * unfolds + 1, units, batch), given.new_empty(steps * unfolds, units, batch)
        states[0] = v
        ctx.unfolds = unfolds
        ctx.save_for_backward(source, to, synapses.contiguous(), capacity.contiguous(), states, dens)
        source, to, synapses, capacity, *_ = ctx.to_save
        _forward(*_arrays(source, to, synapses, given.contiguous(), capacity), unfolds, *_arrays(states, dens))
        return states[unfolds::unfolds].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient):
        source, to, synapses, capacity, states, dens = ctx.saved_tensors
        steps, units, batch = capacity.shape
        d_synapses, d_given = torch.zeros_like(synapses), capacity.new_zeros(steps, units, 2, batch)
        d_capacity, carried = torch.zeros_like(capacity), capacity.new_zeros(units, batch)
        known = _arrays(source, to, synapses, capacity, states, dens, gradient.contiguous())
        _backward(*known, ctx.unfolds, *_arrays(d_synapses, d_given, d_capacity, carried))
        return None, None, None, d_synapses, carried, d_given, d_capacity


def _arrays(*tensors: Tensor) -> list[numpy.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


@compiled
def _sigmoid(x):
    y = -x * LOG_E
    y = -FARTHEST if y < -FARTHEST else y  # comparisons that let a number pass that is none
    y = FARTHEST if y > FARTHEST else y
    n = numpy.floor(y + HALF)
    r = y - n
    p = ONE + r * (P1 + r * (P2 + r * (P3 + r * (P4 + r * (P5 + r * P6)))))
    return ONE / (ONE + p * I32((I32(n) + BIAS) << 23).view(F32))  # 2^n: n is the exponent


@compiled
def _forward(source, to, synapses, given, capacity, unfolds, states, dens):
    steps, units, batch = capacity.shape
    num = numpy.empty((units, batch), F32)
    place = 0
    for t in range(steps):
        for _ in range(unfolds):
            v, den = states[place], dens[place]
            for i in range(units):
                for b in range(batch):
                    num[i, b] = given[t, i, 0, b] + capacity[t, i, b] * v[i, b]
                    den[i, b] = given[t, i, 1, b]
            for e in range(len(source)):
                a, w, slope, shift = synapses[0, e], synapses[1, e], synapses[2, e], synapses[3, e]
                sending, above, below = v[source[e]], num[to[e]], den[to[e]]
                for b in range(batch):
                    s = _sigmoid(slope * sending[b] + shift)
                    above[b] += a * s
                    below[b] += w * s
            place += 1
            for i in range(units):
                for b in range(batch):
                    states[place, i, b] = num[i, b] / den[i, b]


@compiled
def _backward(source, to, synapses, capacity, states, dens, gradient, unfolds, d_synapses, d_given, d_capacity, carried):
    steps, units, batch = capacity.shape
    d_num, d_den = numpy.empty((units, batch), F32), numpy.empty((units, batch), F32)
    place = steps * unfolds
    for t in range(steps - 1, -1, -1):
        carried += gradient[t]
        for _ in range(unfolds):
            place -= 1
            v, den, answer = states[place], dens[place], states[place + 1]
            for i in range(units):
                for b in range(batch):
                    above = carried[i, b] / den[i, b]
                    below = -above * answer[i, b]
                    d_num[i, b], d_den[i, b] = above, below
                    d_given[t, i, 0, b] += above
                    d_given[t, i, 1, b] += below
                    d_capacity[t, i, b] += above * v[i, b]
                    carried[i, b] = above * capacity[t, i, b]
            for e in range(len(source)):
                a, w, slope, shift = synapses[0, e], synapses[1, e], synapses[2, e], synapses[3, e]
                sending, back, above, below = v[source[e]], carried[source[e]], d_num[to[e]], d_den[to[e]]
                d_a, d_w, d_slope, d_shift = F32(0.0), F32(0.0), F32(0.0), F32(0.0)
                for b in range(batch):
                    s = _sigmoid(slope * sending[b] + shift)
                    d_a += above[b] * s
                    d_w += below[b] * s
                    z = (above[b] * a + below[b] * w) * (s * (ONE - s))
                    d_slope += z * sending[b]
                    d_shift += z
                    back[b] += slope * z
                d_synapses[0, e] += d_a
                d_synapses[1, e] += d_w
                d_synapses[2, e] += d_slope
                d_synapses[3, e] += d_shift
