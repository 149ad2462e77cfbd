"""Features of a network: what reaches its last linear layer, for any torch.nn.Module.

    scores = W features(model, x) + b        where the model ends in nn.Linear(W, b)

Learners that keep statistics of features (class means, covariances) build on it.
"""

import torch
from torch import Tensor, nn

from everlearn.core.events import X


def last_linear(model: nn.Module) -> nn.Linear | None:
    """The last nn.Linear of a model in the order of its modules; None where it has none.

    >>> last_linear(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    Linear(in_features=3, out_features=2, bias=True)
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def features(model: nn.Module, x: X) -> Tensor:
    """(batch, d): the flattened input of the model's last linear layer; the flattened output where it has no such layer.

    In evaluation mode and without gradients; the model is left in the mode it was found in. A layer that is called several
    times in one forward pass gives its last input.

    >>> features(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 2)), torch.ones(3, 2, 2)).shape
    torch.Size([3, 4])
    """
    layer = last_linear(model)
    seen: list[Tensor] = []
    handle = None if layer is None else layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            output = model(x)
    finally:
        model.train(training)
        if handle is not None:
            handle.remove()
    return (seen[-1] if seen else output).flatten(1)
