"""How much each weight moves the length of a model's answer: an importance that needs no labels.

    O_i = mean over rows of | d |scores|^2 / d w_i |

Reference: Aljundi et al. (2018), Memory aware synapses, arXiv 1711.09601, equations 2 and 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from everlearn.core.errors import ArgumentError
from everlearn.core.events import X, map_x, rows, size
from everlearn.core.flat import flat

CHUNK = 32  # rows whose gradients are held at once


def output_sensitivity(model: nn.Module, parameters: Sequence[Tensor], x: X, chunk: int = CHUNK) -> Tensor:
    """(weights,) mean over rows of the absolute gradient of the squared length of the scores, for `parameters` in one row.

    The model is put into evaluation mode; chunk: rows taken at once, one by one where vmap cannot take the model.
    Raises ArgumentError for parameters that are not the model's own.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> output_sensitivity(model, [model.weight], torch.tensor([[1.0, -3.0]]))  # scores -4: 2 * 4 * |x|
    tensor([ 8., 24.])

    Reference: Aljundi et al. (2018), arXiv 1711.09601.
    """
    known = {id(tensor): name for name, tensor in model.named_parameters()}
    if not parameters or any(id(tensor) not in known for tensor in parameters):
        raise ArgumentError("output_sensitivity: parameters must be some of the model's own. Use list(model.parameters()).")
    model.eval()
    held = {known[id(tensor)]: tensor.detach() for tensor in parameters}

    def length(weights: dict[str, Tensor], row: X) -> Tensor:
        return functional_call(model, weights, (map_x(lambda value: value[None], row),)).square().sum()

    total = torch.zeros(sum(tensor.numel() for tensor in parameters), device=parameters[0].device)
    slopes = vmap(grad(length), in_dims=(None, 0))
    for start in range(0, size(x), chunk):
        part = rows(x, slice(start, start + chunk))
        try:
            found = slopes(held, part)
            total += flat([value.abs().sum(0) for value in found.values()])
        except (RuntimeError, ValueError, NotImplementedError):  # what vmap says of models that it cannot take
            total += _row_by_row(model, parameters, part)
    return total / size(x)


def _row_by_row(model: nn.Module, parameters: Sequence[Tensor], x: X) -> Tensor:
    """The sum over rows, one after the other: any model can do that."""
    total = torch.zeros(sum(tensor.numel() for tensor in parameters), device=parameters[0].device)
    for place in range(size(x)):
        length = model(rows(x, slice(place, place + 1))).square().sum()
        slopes = torch.autograd.grad(length, parameters, allow_unused=True, materialize_grads=True)
        total += flat(slopes).abs()
    return total
