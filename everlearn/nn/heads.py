"""Heads that score by the angle between a row's features and one vector per class, its proxy.

    score_c = <z, w_c> / (|z| |w_c|) / temperature

Reference: Lin et al. (2023), PCR, arXiv 2304.04408.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import X
from everlearn.nn.features import last_linear
from everlearn.nn.losses import normalised


class ProxyHead(nn.Linear):
    """Cosine scores divided by a temperature; one row of `weight` (classes, d) per class, no bias.

    >>> import torch
    >>> head = ProxyHead(2, 3)
    >>> grown = head.grow_to(5)
    >>> grown.weight.shape, torch.equal(grown.weight[:3], head.weight)
    (torch.Size([5, 2]), True)
    """

    def __init__(self, d: int, classes: int, temperature: float = 0.09):
        check_count("ProxyHead", "d", d)
        check_count("ProxyHead", "classes", classes)
        check_temperature("ProxyHead", temperature)
        super().__init__(d, classes, bias=False)
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        """(batch, classes) from features (batch, d)."""
        return normalised(features) @ (normalised(self.weight) / self.temperature).T

    def grow_to(self, classes: int) -> "ProxyHead":
        """A head for more classes: the rows that stand are kept, those of new classes are drawn as torch draws them."""
        if classes < self.out_features:
            raise ArgumentError(f"ProxyHead: a head of {self.out_features} classes cannot grow to {classes}.")
        grown = ProxyHead(self.in_features, classes, self.temperature).to(self.weight.device)
        with torch.no_grad():
            grown.weight[: self.out_features] = self.weight
        return grown


class Proxied(nn.Module):
    """A network cut in two: `body` gives features, `head` scores them. A training step may so score several bodies' rows at once."""

    def __init__(self, body: nn.Module, head: ProxyHead):
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: X) -> Tensor:
        """(batch, classes)."""
        return self.head(self.features(x))

    def features(self, x: X) -> Tensor:
        """(batch, d), in the present mode and with gradients."""
        return self.body(x).flatten(1)


def with_proxies(owner: str, model: nn.Module, temperature: float) -> Proxied:
    """The same model with its last linear layer, which must end it, turned into a ProxyHead of the same weights; its bias falls away.

    The layer's place in the model is taken by nothing (`nn.Identity`). The width of the features is that layer's, whatever the
    images' size. owner: the learner's name in messages.
    Raises ArgumentError where the model has no linear layer to turn.
    """
    layer = last_linear(model) if isinstance(model, nn.Module) else None
    if layer is None:
        raise ArgumentError(f"{owner}: the network needs a last linear layer whose rows become the proxies, got {model!r}.")
    head = ProxyHead(layer.in_features, layer.out_features, temperature)
    head.weight = layer.weight
    if layer is model:
        return Proxied(nn.Identity(), head)
    for module in model.modules():
        for name, child in module.named_children():
            if child is layer:
                setattr(module, name, nn.Identity())
    return Proxied(model, head)


def check_temperature(owner: str, temperature: float) -> None:
    """Refuse a temperature that is not above 0."""
    if not isinstance(temperature, (int, float)) or not temperature > 0:
        raise ArgumentError(f"{owner}: temperature must be above 0, got {temperature!r}. The published value is 0.09.")
