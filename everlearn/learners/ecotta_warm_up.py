"""The warm-up of meta networks: cross-entropy on source rows through the whole adapted network, before it is deployed.

    rate: up from 0 along the first epoch, then times 0.2 after 3, 6 and 8 tenths of the epochs ("steps"), or half a cosine ("cosine")

The frozen network gives its gradients exactly and learns nothing; only meta networks do.

Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904, section 3.1 and appendix.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from everlearn.core.errors import InputError
from everlearn.core.events import Batch, X, rows, size
from everlearn.nn.meta_network import Adapted
from everlearn.optim.descent import step_along
from everlearn.optim.optimizers import SGD
from everlearn.optim.shapes import cosine_decay

SCHEDULES = ("steps", "cosine")
FALLS, FACTOR = (0.3, 0.6, 0.8), 0.2
Views = Callable[[X, torch.Generator], X]


def rate(step: int, steps: int, epochs: int, schedule: str) -> float:
    """The part of the full rate at a step, counted from 0, of `epochs` times `steps`.

    >>> [round(rate(step, 4, 10, "steps"), 4) for step in (0, 3, 4, 12, 24, 32, 39)]
    [0.25, 1.0, 1.0, 0.2, 0.04, 0.008, 0.008]
    """
    epoch = step // steps
    rising = min(1.0, (step + 1) / steps)
    if schedule == "cosine":
        return rising * cosine_decay(step / (steps * epochs))
    return rising * FACTOR ** sum(epoch >= max(1, round(part * epochs)) for part in FALLS)


def warm_up(
    adapted: Adapted,
    source: Batch | Iterable[Any],
    *,
    epochs: int,
    lr: float,
    momentum: float,
    batch: int,
    schedule: str,
    views: Views | None,
    batch_stats: bool,
    random: torch.Generator,
) -> float | None:
    """Teach meta networks on source rows. Returns the mean loss of the last epoch, None where there was nothing to learn from.

    source: one Batch of all rows, which are shuffled and cut into batches anew each epoch, or an iterable of batches, taken as
    they come: Batch, or pairs (x, y). Batches of one row are passed over.
    """
    given = source if isinstance(source, Batch) else _again(source)
    steps = -(-len(given) // batch) if isinstance(given, Batch) else sum(1 for _ in given)
    parameters = list(adapted.parameters())
    optimizer = SGD(lr=lr, momentum=momentum).make(parameters)
    step, mean = 0, None
    for _ in range(epochs):
        losses = []
        for x, y in _batches(given, batch, random):
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps, epochs, schedule)
            step += 1
            if size(x) < 2:
                continue
            seen = views(x, random) if views is not None else x
            loss = cross_entropy(adapted(seen, "exact", batch_stats)[0], y)
            step_along(optimizer, parameters, torch.autograd.grad(loss, parameters))
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item() if losses else None
    for parameter in parameters:
        parameter.grad = None
    return mean


def _again(source: Iterable[Any]) -> Iterable[Any]:
    """Something that can be walked more than once."""
    return list(source) if iter(source) is source else source


def _batches(source: Batch | Iterable[Any], batch: int, random: torch.Generator) -> Iterator[tuple[X, Tensor]]:
    if isinstance(source, Batch):
        order = torch.randperm(len(source), generator=random)
        for start in range(0, len(source), batch):
            index = order[start : start + batch]
            yield rows(source.x, index), source.y[index]
        return
    for item in source:
        x, y = (item.x, item.y) if isinstance(item, Batch) else item
        if y is None:
            raise InputError("ecotta: the warm-up needs labelled source rows, and a batch has no y.")
        yield x, y
