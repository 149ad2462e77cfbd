"""Wrong labels: a share of the rows to learn from is labelled with another class, drawn evenly; held-out rows keep their labels.

A row that was given a wrong label keeps it whenever it comes again, so a model can come to know it by heart.
Reference: Zhang et al. (2017), Understanding deep learning requires rethinking generalization, arXiv 1611.03530.
"""

from dataclasses import replace

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import Indexed
from everlearn.data.naming import check_data, check_sizes


def noisy(data: Data | Stream, *, labels: float = 0.2, test: float = 0.2, seed: int = 0) -> Data | Stream:
    """The same data set or scenario, with a share `labels` (0..1) of the labels to learn from made wrong.

    A data set keeps its test part as it is; where it has none, a part `test` of each class is held out first. In
    `split(noisy(digits), ...)` a row comes with the group of the class that it is said to be; in `noisy(split(digits), ...)` it comes
    with its own group, and may be said to be of a class that has not come yet. Raises ArgumentError, DataError.

    >>> data = Data("pets", torch.zeros(100, 1), torch.arange(100) % 4, ("cat", "dog", "owl", "eel"))
    >>> spoiled = noisy(data, labels=0.25, test=0.2)
    >>> len(spoiled), int((spoiled.y != data.split(0.2, derive(0, "test"))[0].y).sum()), spoiled.test_y.bincount().tolist()
    (80, 20, [5, 5, 5, 5])
    """
    check_range("noisy", "labels", labels, 0.0, 1.0)
    if not isinstance(data, Data):
        return _relabelled(data, labels, seed)
    check_data("noisy", data)
    check_sizes("noisy", batch=1, test=test)
    train, judged = data.split(test, derive(seed, "test"))
    if not len(judged):
        raise ArgumentError(f"noisy: test={test:g} leaves no rows of {data.name} to judge on. Use test=0.2.")
    y = wrong_labels(train.y, len(data.classes), labels, seed)
    return replace(train, name=_name(data, labels), y=y, test_x=judged.x, test_y=judged.y)


def wrong_labels(y: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """(rows,) labels of which round(share * rows), drawn by the seed, are another class than before, each other class as likely.

    >>> y = torch.zeros(10, dtype=torch.int64)
    >>> int((wrong_labels(y, 3, 0.3, seed=0) != y).sum())
    3
    """
    random = generator(seed, "wrong labels")
    count = round(share * len(y))
    if count and classes < 2:
        raise ArgumentError(f"noisy: there is no other class to mistake a row for, the data set has {classes}.")
    chosen = torch.randperm(len(y), generator=random)[:count]
    spoiled = y.clone()
    if count:
        spoiled[chosen] = (y[chosen] + torch.randint(1, classes, (count,), generator=random)) % classes
    return spoiled


def _relabelled(stream: Stream, labels: float, seed: int) -> Stream:
    if not isinstance(stream, Indexed):
        given = getattr(stream, "name", type(stream).__name__)
        raise ArgumentError(
            f"noisy: the first argument must be a data set such as digits, or a scenario over one, got {given}. "
            "Put noisy inside it: delayed(noisy(split(digits)))."
        )
    spoiled = stream.relabelled(lambda y, classes: wrong_labels(y, classes, labels, seed))
    spoiled.name = _name(stream, labels)
    return spoiled


def _name(data: Data | Stream, labels: float) -> str:
    return f"noisy({data.name}{'' if labels == 0.2 else f', labels={labels!r}'})"
