"""How sure a network is of its answers, and which of them are sure enough to be learned from.

    H_i = - sum_c p_ic log p_ic,   p_i = softmax(scores_i);   sure where H_i < margin * ln C
    H(w) = - sum_c s_c log s_c,    s_c = w_c / sum w           of the kinds of answers, where w counts them or adds up their p_ic

References: Wang et al. (2021), Tent, arXiv 2006.10726 (the entropy); Niu et al. (2022), EATA, arXiv 2204.02610 (the filter).
"""

import math
from collections.abc import Iterable

from torch import Tensor


def entropies(logits: Tensor) -> Tensor:
    """The entropy of each row's answer, in nats: (batch,) for scores (batch, classes), (batch, ...) for (batch, classes, ...).

    >>> import torch
    >>> round(entropies(torch.zeros(1, 10)).item(), 6), round(entropies(torch.tensor([[10.0] + 9 * [0.0]])).item(), 5)
    (2.302585, 0.00449)
    """
    told = logits.log_softmax(1)
    return -(told.exp() * told).sum(1)


def sure_below(classes: int, margin: float = 0.4) -> float:
    """The entropy below which an answer among so many classes is sure: margin * ln C.

    >>> [round(sure_below(classes), 5) for classes in (10, 100, 1000)]
    [0.92103, 1.84207, 2.7631]
    """
    return margin * math.log(classes)


def entropy_of_shares(weights: Iterable[float]) -> float:
    """The entropy, in nats, of shares in proportion to weights >= 0, in double precision; 0 where one has it all, or there is none.

    >>> round(entropy_of_shares([3, 1]), 6), entropy_of_shares([0, 2])
    (0.562335, 0.0)
    """
    held = list(weights)
    total = math.fsum(held)
    return 0.0 - math.fsum(weight / total * math.log(weight / total) for weight in held if weight > 0)
