"""How the topology of a sparse network changes: which active weights are dropped, which inactive ones grow in their place.

    removal   magnitude   the k smallest |w|              growth   random     any
              sign        k/2 on each side of zero                  unfired    those that were never active, then any
              taylor      the k smallest (w g)^2                    gradient   the largest |g|
                                                                    momentum   the largest |m|, or |m| / (sqrt v + eps) of Adam

Both keep their number exactly: an update leaves as many active weights as it found.
References: Mocanu et al. (2018, SET), arXiv 1707.04780; Evci et al. (2020, RigL), arXiv 1911.11134; Dettmers & Zettlemoyer
(2019, SNFS), arXiv 1907.04840; Liu et al. (2021, ITOP), arXiv 2102.02887; Molchanov et al. (2017), arXiv 1611.06440.
"""

import math

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.nn.masks import ROUNDING, drop, grow, highest, removal_rate

GROWTH = ("random", "unfired", "gradient", "momentum", "none", "auto")
REMOVAL = ("magnitude", "sign", "taylor")
SCHEDULES = ("cosine", "linear", "constant")
ADAM_EPSILON = 1e-8  # added to sqrt(v), as the momentum rule has it
BELOW = -1.0  # scores are >= 0: a place scored so grows after all others


def rate_at(schedule: str, step: int, steps: int, first: float = 0.5, last: float = 0.005) -> float:
    """The share of active weights that an update removes after `step` of `steps`; `last` from then on.

    >>> [round(rate_at("linear", step, 4, 0.5, 0.1), 4) for step in (0, 2, 4, 9)]
    [0.5, 0.3, 0.1, 0.1]
    """
    if schedule == "cosine":
        return removal_rate(step, steps, first, last)
    return first if schedule == "constant" else first + (last - first) * min(step / steps, 1.0)


def remove(rule: str, mask: Tensor, weight: Tensor, gradient: Tensor | None, rate: float) -> Tensor:
    """The mask without ceil(rate * active) of its places; all tensors have the shape of the layer's weight.

    gradient: of the present batch, which only "taylor" needs. "sign" takes half of them among the positive weights and half among
    the negative ones, those closest to zero; a side with fewer gives what it has, the other side the rest; an active 0 goes first.

    >>> w = torch.tensor([5.0, 4, 3, 2, 1, -1, -2, -3, -4, -5])
    >>> w[remove("sign", w != 0, w, None, 0.4)].tolist()
    [5.0, 4.0, 3.0, -3.0, -4.0, -5.0]
    """
    if rule == "magnitude":
        return drop(mask, weight.abs(), rate)
    if rule == "taylor":
        if gradient is None:
            raise ArgumentError("remove: removal='taylor' needs the gradient of the present batch, got None.")
        return drop(mask, (weight * gradient) ** 2, rate)
    count = math.ceil(rate * int(mask.sum()) - ROUNDING)
    positive, negative, zero = ((side & mask) for side in (weight > 0, weight < 0, weight == 0))
    nothing = min(count, int(zero.sum()))
    below = min((count - nothing) // 2, int(negative.sum()))
    above = min(count - nothing - below, int(positive.sum()))
    below = count - nothing - above
    removed = torch.zeros_like(mask)
    for side, many in ((zero, nothing), (positive, above), (negative, below)):
        removed |= highest(-weight.abs().masked_fill(~side, math.inf), many)
    return mask & ~removed


def growth_score(
    rule: str,
    weight: Tensor,
    *,
    gradient: Tensor | None = None,
    moment: Tensor | None = None,
    fired: Tensor | None = None,
    random: torch.Generator | None = None,
) -> Tensor:
    """A score >= 0 for every place of a layer, of the shape of its weight; the highest grow.

    gradient: dense, of the present batch ("gradient"); moment: what `moment_of` gives ("momentum"); fired: bool, the places that
    have been active in this task ("unfired"); random: a CPU generator, which "random" and "unfired" draw from.
    Raises ArgumentError where the rule lacks what it needs.
    """
    needed = {"gradient": gradient, "momentum": moment, "unfired": fired, "random": random}
    if rule not in needed:
        raise ArgumentError(f"growth_score: no score for growth={rule!r}. Use one of {', '.join(map(repr, needed))}.")
    given = needed[rule]
    if given is None or (rule == "unfired" and random is None):
        raise ArgumentError(f"growth_score: growth={rule!r} lacks what it scores by.")
    if rule == "gradient":
        return gradient.abs()
    if rule == "momentum":
        return moment
    draws = torch.rand(weight.shape, generator=random).to(weight.device)
    return draws if rule == "random" else draws + (~fired).to(draws.dtype)


def moment_of(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Tensor | None:
    """|m| / (sqrt v + 1e-8) of Adam, |momentum buffer| of SGD, of the weight's shape; None where the optimiser keeps neither."""
    kept = optimizer.state.get(weight, {})
    if "exp_avg" in kept:
        return kept["exp_avg"].abs() / (kept["exp_avg_sq"].sqrt() + ADAM_EPSILON)
    buffer = kept.get("momentum_buffer")
    return None if buffer is None else buffer.abs()


def rewire(mask: Tensor, kept: Tensor, score: Tensor, last: Tensor | None = None) -> Tensor:
    """The mask after growth: `kept` (the mask after removal) with as many places grown as were removed, highest scores first.

    last: bool, places that grow only where no other is left (those that another task holds, say). A place that was just removed may
    grow again.
    """
    count = int(mask.count_nonzero()) - int(kept.count_nonzero())
    if last is not None:
        score = score.masked_fill(last, BELOW)
    return grow(kept, score, count)
