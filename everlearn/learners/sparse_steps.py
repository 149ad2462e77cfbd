"""Gradient steps of a masked network: what is frozen does not move, what is outside the mask stays 0, and the best pass is kept.

    g <- g * (1 - still);   w <- step(w, g);   w <- w * active;   frozen weights and other tasks' rows undo the decay of weights

Gradients stay dense outside the mask, and so do Adam's averages: growth by gradient or momentum reads them there.
Reference: Yildirim et al. (2024), arXiv 2308.14831, and the code released with it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from everlearn.core.errors import InputError
from everlearn.core.events import Boundary
from everlearn.learners.sparse_layout import Layout
from everlearn.optim.descent import Descent


class Steps:
    """Takes the steps of a Descent within a mask.

    masks_momentum: whether SGD's momentum is set to 0 outside the mask, as its weights are (growth by momentum reads it there).
    `allow` says what may move; nothing here is state.
    """

    def __init__(self, descent: Descent, layout: Layout, masks_momentum: bool):
        self.descent = descent
        self.layout = layout
        self.decays = descent.given.weight_decay > 0
        self.masks_momentum = masks_momentum
        trained = {id(parameter): place for place, parameter in enumerate(descent.parameters)}
        self.places = [trained[id(weight)] for weight in layout.weights]
        self.moving: list[Tensor] | None = None  # by layer, 1.0 where a gradient is followed; None where it is everywhere
        self.active: list[Tensor] | None = None  # by layer, 1.0 where a weight may be other than 0
        self.frozen: list[Tensor] | None = None
        self.columns: Tensor | None = None

    def allow(self, still: Tensor, active: Tensor | None, frozen: Tensor | None, columns: Tensor) -> None:
        """From now on: still (weights,) bool, whose gradients are not followed; active: outside of which weights and momentum are set
        to 0 after each step, None for nowhere; frozen: what weight decay must not touch either; columns: the task's rows of the head.
        """
        self.moving = self._floats(~still)
        self.active = None if active is None else self._floats(active)
        self.frozen = None if frozen is None else self.layout.cut(frozen)
        self.columns = columns

    def _floats(self, mask: Tensor) -> list[Tensor] | None:
        """A mask by layer as numbers to multiply with; None where it leaves all as it is."""
        return None if bool(mask.all()) else [part.to(torch.float32) for part in self.layout.cut(mask)]

    def take(self, gradients: Sequence[Tensor | None], wanted: bool) -> list[Tensor]:
        """One step along the gradients of all trained parameters. Returns those of the masked weights, dense, if they are wanted."""
        gradients, weights = list(gradients), self.layout.weights
        dense = [gradients[place] for place in self.places]
        dense = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, dense, strict=True)]
        seen = [gradient.clone() for gradient in dense] if wanted and self.moving is not None else dense
        if self.moving is not None:
            torch._foreach_mul_(dense, self.moving)
        for place, gradient in zip(self.places, dense, strict=True):
            gradients[place] = gradient
        before = self._standing() if self.decays else None
        self.descent.follow(gradients)
        with torch.no_grad():
            if self.active is not None:
                torch._foreach_mul_(weights, self.active)
                state = self.descent.optimizer.state
                buffers = [state[weight]["momentum_buffer"] for weight in weights if "momentum_buffer" in state[weight]]
                if buffers and self.masks_momentum:
                    torch._foreach_mul_(buffers, self.active)
            if before is not None:
                self._undo_decay(*before)
        return seen

    def _standing(self) -> tuple[list[Tensor], list[Tensor]]:
        """Copies of the masked weights and of the head."""
        tensors = self.layout.tensors()
        return (
            [weight.detach().clone() for weight in self.layout.weights],
            [tensors[name].detach().clone() for name in self.layout.head],
        )

    def _undo_decay(self, weights: Sequence[Tensor], head: Sequence[Tensor]) -> None:
        """Put frozen weights and other tasks' rows of the head back to what they were before the step."""
        if self.frozen is not None:
            for weight, before, frozen in zip(self.layout.weights, weights, self.frozen, strict=True):
                weight.copy_(torch.where(frozen, before, weight))
        tensors = self.layout.tensors()
        for name, before in zip(self.layout.head, head, strict=True):
            before[self.columns] = tensors[name][self.columns]
            tensors[name].copy_(before)


class BestPass:
    """The weights of a task after the pass over its rows that had the most right answers while they were learned from.

    A pass is as many rows as the task's boundary brought.
    """

    parts = ("rows", "seen", "right", "share", "row", "mask", "private")

    def __init__(self) -> None:
        self.clear(0)

    def clear(self, rows: int) -> None:
        """Begin a task of so many rows; 0: its passes cannot be told, and none is kept."""
        self.rows = rows
        self.seen = 0
        self.right = 0
        self.share = -1.0  # of right answers in the best pass
        self.row: Tensor | None = None  # (weights,) then, with the mask and what the task keeps for itself
        self.mask: Tensor | None = None
        self.private: dict[str, Tensor] | None = None

    def hear(self, owner: str, boundary: Boundary) -> None:
        """A task begins. Raises InputError where its rows are not told."""
        if boundary.data is None:
            raise InputError(
                f"{owner}: keep='best_train' needs boundaries that bring the rows of their task, and this one has none. "
                "Use keep='last'."
            )
        self.clear(len(boundary.data))

    def count(self, right: int, seen: int) -> bool:
        """Take the answers of one more batch; whether a pass has ended that was the best so far, which is then to be `put`."""
        self.right += right
        self.seen += seen
        if not self.rows or self.seen < self.rows:
            return False
        share, self.right, self.seen = self.right / self.seen, 0, 0
        if share <= self.share:
            return False
        self.share = share
        return True

    def put(self, row: Tensor, mask: Tensor, private: dict[str, Tensor]) -> None:
        """Keep these."""
        self.row, self.mask, self.private = row, mask.clone(), private
