"""Features of a network: what reaches its last linear layer, for any torch.nn.Module.

    scores = W features(model, x) + b        where the model ends in nn.Linear(W, b)

Learners that keep statistics of features (class means, covariances) build on it.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, InputError, check_count
from everlearn.core.events import X
from everlearn.core.guard import count_outputs

SOURCES = ("auto", "input", "network")
STRUCTURED = (nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase, nn.Embedding)


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


def scores_and_features(model: nn.Module, x: X) -> tuple[Tensor, Tensor]:
    """(scores, features) of one forward pass, in the model's present mode and with gradients: what a training step needs.

    features: (batch, d), the flattened input of the last linear layer, or the flattened scores where there is none.

    >>> scores, inner = scores_and_features(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.ones(5, 4))
    >>> scores.shape, inner.shape
    (torch.Size([5, 2]), torch.Size([5, 3]))
    """
    layer = last_linear(model)
    if layer is None:
        scores = model(x)
        return scores, scores.flatten(1)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        scores = model(x)
    finally:
        handle.remove()
    return scores, seen[-1].flatten(1)


def flattened(x: X) -> Tensor:
    """(batch, d) float64: the rows themselves as features, bytes scaled to -0.5..0.5; the tensors of a dict side by side.

    Raises InputError where a tensor is neither uint8 nor floating point: token numbers have no distance.

    >>> flattened(torch.tensor([[[0, 255]]], dtype=torch.uint8)).tolist()
    [[-0.5, 0.5]]
    """
    if not isinstance(x, Tensor):
        return torch.cat([flattened(x[key]) for key in sorted(x)], dim=1)
    if x.dtype == torch.uint8:
        return x.flatten(1).double() / 255.0 - 0.5
    if not x.dtype.is_floating_point:
        raise InputError(f"rows of {x.dtype} cannot serve as features; use features='network', or convert them to float.")
    return x.flatten(1).double()


def feature_network(owner: str, model: nn.Module | None, source: str) -> nn.Module | None:
    """What `embed` needs for a source of features: the model for "network", None for "input".

    "auto" is "network" where the model has convolutions, attention, recurrence or embeddings, which make features even before
    they are trained, and "input" otherwise. owner: the learner's name in messages.
    Raises ArgumentError for another source, or where "network" comes without a model.
    """
    if source not in SOURCES:
        raise ArgumentError(f"{owner}: features must be 'auto', 'input' or 'network', got {source!r}.")
    if source == "auto":
        structured = model is not None and any(isinstance(module, STRUCTURED) for module in model.modules())
        return model if structured else None
    if source == "network" and model is None:
        raise ArgumentError(f"{owner}: features='network' needs a model, got None. Use features='input' to do without.")
    return model if source == "network" else None


def embed(network: nn.Module | None, x: X) -> Tensor:
    """(batch, d) float64: the network's features of x, or the flattened rows where there is no network."""
    return flattened(x) if network is None else features(network, x).double()


def class_count(owner: str, model: nn.Module | None, classes: int | None) -> int:
    """The number of classes a learner without a head of its own scores: as given, else read off the model.

    Raises ArgumentError where neither tells, or the number is not an int >= 1.
    """
    found = classes if classes is not None or model is None else count_outputs(model)
    if found is None:
        raise ArgumentError(f"{owner}: the model has no linear layer to read the number of classes off; give classes=...")
    check_count(owner, "classes", found)
    return found
