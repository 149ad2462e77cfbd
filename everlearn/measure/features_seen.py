"""Rows as a kernel compares them: the features on which a learner's last linear layer decides, or a fixed random projection.

projection    x P / sqrt(d),   P (d, 32) standard normal, the same for every learner and run      bytes scaled to 0..1
"""

import math

import torch
from torch import Tensor

from everlearn.core.learner import Learner, ask_latest
from everlearn.core.random import generator
from everlearn.measure.contents import device_of, networks
from everlearn.nn.features import last_linear

PROJECTED = 32


def seen_features(learner: object, x: Tensor) -> Tensor | None:
    """(rows, width) float64: what reaches the last linear layer that `predict(x)` runs; None where there is none. Changes nothing."""
    heads = (
        [head for head in map(last_linear, networks(learner)) if head is not None] if isinstance(learner, Learner) else []
    )
    if not heads:
        return None
    seen: list[Tensor] = []
    hooks = [head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for head in heads]
    try:
        with torch.no_grad():
            ask_latest(learner, x.to(device_of(learner)))
    finally:
        for hook in hooks:
            hook.remove()
    seen = [features for features in seen if len(features) == len(x)]
    return seen[-1].flatten(1).double().cpu() if seen else None


def projected(x: Tensor) -> Tensor:
    """(rows, 32) float64: a fixed random projection of the flattened rows.

    >>> projected(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 32])
    """
    flat = x.flatten(1).double() / (255.0 if x.dtype == torch.uint8 else 1.0)
    width = flat.shape[1]
    matrix = torch.randn(width, PROJECTED, generator=generator(0, "projection", width))
    return flat @ matrix.double() / math.sqrt(width)
