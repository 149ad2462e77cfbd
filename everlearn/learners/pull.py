"""The pull of springs that hold weights: a penalty, and its gradient without a walk of autograd over all weights.

    penalty = 1/2 sum_i k_i (w_i - a_i)^2,   its gradient k_i (w_i - a_i)

Reference: Kirkpatrick et al. (2017), Overcoming catastrophic forgetting in neural networks, arXiv 1612.00796.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from everlearn.core.flat import cut, flat


class Pull:
    """Springs of a stiffness between weights (parameters) and an anchor; stiffness and anchor are (weights,) rows over all of them.

    Rows are made once and filled anew in every step: for large networks making them would take longer than filling them.

    >>> pull = Pull([torch.tensor([3.0]), torch.tensor([1.0])], torch.tensor([1.0, 1.0]), torch.tensor([0.5, 9.0]))
    >>> penalty, pulled = pull.added([torch.tensor([10.0]), None])
    >>> penalty.item(), [gradient.item() for gradient in pulled]
    (1.0, [11.0, 0.0])
    """

    def __init__(self, weights: Sequence[Tensor], anchor: Tensor, stiffness: Tensor):
        self.weights = list(weights)
        self.anchor = anchor
        self.stiffness = stiffness
        self._offset, self._pull = torch.empty_like(anchor), torch.empty_like(anchor)
        self._pulls = cut(self._pull, self.weights)

    def penalty(self) -> Tensor:
        """The penalty with its graph."""
        offset = flat(self.weights) - self.anchor
        return 0.5 * torch.dot(self.stiffness * offset, offset)

    @torch.no_grad()
    def added(self, gradients: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
        """(penalty, the gradients with the pull added; the pull alone for None), which stand until the next call.

        Gradients beyond those of the weights stay as they are.
        """
        torch.cat([weight.reshape(-1) for weight in self.weights], out=self._offset)
        self._offset.sub_(self.anchor)
        torch.mul(self.stiffness, self._offset, out=self._pull)
        penalty = 0.5 * torch.dot(self._pull, self._offset)
        count = len(self.weights)
        used = [place for place, gradient in enumerate(gradients[:count]) if gradient is not None]
        if used:
            torch._foreach_add_([self._pulls[place] for place in used], [gradients[place] for place in used])
        return penalty, [*self._pulls, *gradients[count:]]
