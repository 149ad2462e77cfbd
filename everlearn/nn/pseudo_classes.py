"""Pseudo-classes: strong transforms of images are learned as classes of their own, place-holders for those to come.

    transform k of a row of class y is of the fine class   y * M + k,   k = 0 .. M - 1, transform 0 the row itself
    score_c = 1/M sum_k score_{c M + k}(transform k of x)

Reference: Song et al. (2023), Learning with fantasy: semantic-aware virtual contrastive constraint for few-shot
class-incremental learning (SAVC), arXiv 2304.00426.
"""

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, closest
from everlearn.core.events import X

ROTATIONS = {"rotation2": (0, 2), "rotation4": (0, 1, 2, 3)}  # quarter turns
CYCLIC = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
COLOURS = {"colour3": CYCLIC, "colour6": (*CYCLIC, (0, 2, 1), (1, 0, 2), (2, 1, 0))}  # orders of the channels
NAMES = (*ROTATIONS, *COLOURS, *(f"{turns}_{colours}" for turns in ROTATIONS for colours in COLOURS))


class PseudoClasses:
    """A set of M transforms by its name: "rotation2", "rotation4", "colour3", "colour6", or a product such as
    "rotation4_colour3".

    name=None is the row itself alone, M = 1. Rotations suit only images whose meaning does not hang on which way is up
    (6 and 9, maps and aerial views do): no default turns them on. Raises ArgumentError for another name.

    >>> pseudo = PseudoClasses("rotation2")
    >>> pseudo(torch.tensor([[[[1, 2], [3, 4]]]])).flatten(1).tolist(), pseudo.labels(torch.tensor([3])).tolist()
    ([[1, 2, 3, 4], [4, 3, 2, 1]], [6, 7])
    """

    def __init__(self, name: str | None = None):
        if name is not None and name not in NAMES:
            raise ArgumentError(closest("pseudo_classes", str(name), NAMES))
        words = name.split("_") if name else []
        self.name = name
        self.turns = next((ROTATIONS[word] for word in words if word in ROTATIONS), (0,))
        self.colours = next((COLOURS[word] for word in words if word in COLOURS), ((0, 1, 2),))

    def __len__(self) -> int:
        return len(self.turns) * len(self.colours)

    def __call__(self, x: X) -> X:
        """(rows * M, ...): all transforms of the first row, then of the second. Raises InputError where x does not allow them."""
        if len(self) == 1:
            return x
        self.check(x)
        every = []
        for turn in self.turns:
            turned = torch.rot90(x, turn, (2, 3)) if turn else x
            every += [turned if order == (0, 1, 2) else turned[:, list(order)] for order in self.colours]
        return torch.stack(every, dim=1).flatten(0, 1)

    def check(self, x: X) -> None:
        """Refuse rows that the transforms cannot be made of: no images, grey ones for colours, oblong for quarters."""
        if len(self) == 1:
            return
        shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else None
        if shape is None or len(shape) != 3:
            raise InputError(f"pseudo_classes={self.name!r} needs images (channels, height, width), got rows of {shape}.")
        if len(self.colours) > 1 and shape[0] != 3:
            raise InputError(
                f"pseudo_classes={self.name!r} changes the order of three colours, got images of {shape[0]} channel(s). "
                "Use pseudo_classes='rotation2'."
            )
        if set(self.turns) & {1, 3} and shape[1] != shape[2]:
            raise InputError(
                f"pseudo_classes={self.name!r} needs square images, got {shape[1]}x{shape[2]}. Use pseudo_classes='rotation2'."
            )

    def labels(self, y: Tensor) -> Tensor:
        """(rows * M,) int64: the fine classes of the rows that a call gives, from the classes y (rows,)."""
        return (y[:, None] * len(self) + torch.arange(len(self), device=y.device)).flatten()

    def aggregate(self, scores: Tensor) -> Tensor:
        """(rows, classes) from scores (rows * M, classes * M): each transform asks its own fine classes, and the mean
        answers.

        >>> PseudoClasses("rotation2").aggregate(torch.arange(24.0).view(4, 6)).tolist()
        [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
        """
        count = len(self)
        cut = scores.view(len(scores) // count, count, -1, count)
        return cut.diagonal(dim1=1, dim2=3).mean(-1)


def turned(x: Tensor, quarters: Tensor) -> Tensor:
    """Images (rows, channels, side, side), each turned by its own number of quarters (rows,), 0 to 3.

    >>> turned(torch.tensor([[[[1, 2], [3, 4]]]] * 2), torch.tensor([0, 1])).flatten(1).tolist()
    [[1, 2, 3, 4], [2, 4, 1, 3]]
    """
    result = x.clone()
    for quarter in (1, 2, 3):
        chosen = quarters == quarter
        result[chosen] = torch.rot90(x[chosen], quarter, (2, 3))
    return result
