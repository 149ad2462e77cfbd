"""Which tensors of a network a sparse learner masks, which each task keeps for itself, and which all tasks share.

masked    the weights of convolutions and linear layers, in one row of numbers, layer after layer
own       biases, normalisation (statistics and scale) and whatever else is neither: each task keeps a copy
head      the last linear layer, where each task has rows of its own: a row per class, never masked
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.flat import cut, flat
from everlearn.nn.features import last_linear
from everlearn.nn.masks import maskable

FLOOR = -1e9  # the score of a class that is not the task's
NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)


class Layout:
    """The tensors of one model by their part in sparse learning.

    own_head: whether the last linear layer stays dense, with rows that belong to tasks; own_norms: whether normalisation belongs to
    tasks. Raises ArgumentError where no weight is left to mask.

    >>> layout = Layout("sparse", nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), True, True)
    >>> layout.layers, layout.head
    ({'0.weight': slice(0, 32, None)}, ('2.weight', '2.bias'))
    """

    def __init__(self, owner: str, model: nn.Module, own_head: bool, own_norms: bool):
        self.model = model
        layer = last_linear(model) if own_head else None
        names = {id(module): name for name, module in model.named_modules()}
        prefix = "" if layer is None or not names[id(layer)] else f"{names[id(layer)]}."
        rows = () if layer is None else tuple(name for name, _ in layer.named_parameters(recurse=False))
        self.head = tuple(prefix + name for name in rows)
        found: dict[str, nn.Parameter] = {}
        for name, weight in maskable(model).items():
            if not isinstance(weight, nn.Parameter):
                raise ArgumentError(
                    f"{owner}: {name!r} is computed from other tensors, so it cannot be masked. Take that away with "
                    "torch.nn.utils.parametrize.remove_parametrizations, or torch.nn.utils.remove_weight_norm."
                )
            once = all(weight is not other for other in found.values())
            if once and weight.requires_grad and name not in self.head:
                found[name] = weight
        if not found:
            raise ArgumentError(
                f"{owner}: the network has no weights to mask. It needs a convolution or linear layer"
                f"{' before its last linear layer' if own_head else ''} that trains."
            )
        self.weights = list(found.values())
        ends = torch.tensor([weight.numel() for weight in self.weights]).cumsum(0).tolist()
        self.layers = {
            name: slice(end - weight.numel(), end) for (name, weight), end in zip(found.items(), ends, strict=True)
        }
        self.shapes = {name: tuple(weight.shape) for name, weight in found.items()}
        self.size = ends[-1]
        everywhere = self.tensors()  # a weight that layers share has a name in each
        self.names = {
            name: [other for other, tensor in everywhere.items() if tensor is weight] for name, weight in found.items()
        }
        masked = {id(weight) for weight in self.weights}
        shared = () if own_norms else NORMALISATION
        norms = [module for module in model.modules() if isinstance(module, shared)]
        common = masked | {id(tensor) for module in norms for tensor in (*module.parameters(), *module.buffers())}
        common |= {id(weight) for weight in model.parameters() if not weight.requires_grad}  # never moves
        persistent = model.state_dict().keys()
        seen: dict[int, str] = {}  # the first name of each tensor
        self.first = {name: seen.setdefault(id(tensor), name) for name, tensor in self.tensors().items()}
        self.own = [
            name
            for name, tensor in self.tensors().items()
            if name in persistent and id(tensor) not in common and name not in self.head and name == self.first[name]
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer of the model by its name, not copied; of a module in several places, by the first one's."""
        modules = list(self.model.named_modules())
        kinds = (nn.Module.named_parameters, nn.Module.named_buffers)
        return {
            f"{start}.{name}".lstrip("."): tensor
            for named in kinds
            for start, module in modules
            for name, tensor in named(module, recurse=False, remove_duplicate=False)
        }

    def row(self) -> Tensor:
        """(weights,) a copy of the masked weights as they stand."""
        return flat(self.weights).detach()

    def cut(self, row: Tensor) -> list[Tensor]:
        """Views of a row in the shapes of the layers."""
        return cut(row, self.weights)

    def write(self, row: Tensor) -> None:
        """Set the masked weights."""
        with torch.no_grad():
            for weight, values in zip(self.weights, self.cut(row), strict=True):
                weight.copy_(values)

    def private(self, rows: Tensor) -> dict[str, Tensor]:
        """A copy of what a task keeps for itself: its own tensors, and these rows (class numbers) of the head."""
        tensors = self.tensors()
        kept = {name: tensors[name].detach().clone() for name in self.own}
        return kept | {name: tensors[name].detach()[rows].clone() for name in self.head}

    def put(self, tensors: dict[str, Tensor], private: Mapping[str, Tensor], rows: Tensor) -> None:
        """Put what a task keeps into tensors by name: its own in place of what stands, its rows of the head into a copy."""
        for name, value in private.items():
            if name in self.head:
                value = tensors[name].detach().index_copy(0, rows, value)
            tensors[name] = value


def among(scores: Tensor, classes: Tensor) -> Tensor:
    """Scores (batch, outputs) in which only these classes (numbers) can be the answer: the others become -1e9.

    >>> among(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([1, 2])).argmax().item()
    2
    """
    return torch.full_like(scores, FLOOR).index_copy(1, classes, scores[:, classes])
