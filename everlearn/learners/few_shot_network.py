"""The network of a few-shot learner: an encoder, a classifier on its features, and the heads that only losses see.

    h = body(x),   scores = scale * <h / |h|, w_c / |w_c|>    (or W h + b, "linear")

The body is the given network without its last linear layer. Prototypes are means of h, never of what a head makes of it.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.events import X, rows, size
from everlearn.core.random import isolated
from everlearn.nn.heads import with_proxies
from everlearn.nn.losses import normalised
from everlearn.nn.prototypes import directions

ROWS = 512  # embedded at once
QUARTERS = 4  # turns that the rotation head tells apart


class Recognizer(nn.Module):
    """An encoder with a classifier of `outputs` fine classes and, where they are asked for, a projection and a rotation
    head.

    kind: "cosine" (learned vectors), "linear" (learned, with a bias), or "fixed" (the vectors given, which are not learned);
    fixed: (n, d) for that kind; projection: width of the contrast's space, 0 for none; rotation: whether quarters are told
    apart.
    Raises ArgumentError where the network has no last linear layer.

    >>> network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    >>> recognizer = Recognizer("few_shot", network, 3, scale=16.0, projection=8)
    >>> h = recognizer.body(torch.ones(2, 4))
    >>> h.shape, recognizer.scores(h).shape, recognizer.projected(h).shape
    (torch.Size([2, 6]), torch.Size([2, 3]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        owner: str,
        model: nn.Module,
        outputs: int,
        *,
        scale: float,
        kind: str = "cosine",
        projection: int = 0,
        rotation: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        cut = with_proxies(owner, model, 1.0)
        self.body = cut.body
        self.d = d = cut.head.in_features
        self.scale = scale
        self.kind = kind
        self.seed = seed
        with isolated(seed, owner, "heads"):
            layer = nn.Linear(d, outputs)  # drawn first, so that it is the same whatever other heads there are
            self.projection = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, projection)) if projection else None
            self.rotation = nn.Linear(d, QUARTERS) if rotation else None
        self.weight = None if kind == "fixed" else layer.weight
        self.bias = layer.bias if kind == "linear" else None
        self.register_buffer("fixed", None)
        self.to(cut.head.weight)

    def fix(self, prototypes: Tensor) -> None:
        """Take these vectors (n, d) as the classifier's for good. Raises ArgumentError where nothing is left to learn."""
        if not any(weight.requires_grad for weight in self.parameters()):
            raise ArgumentError(
                "few_shot: with fixed prototypes the encoder is all that learns, and this one has no weights."
            )
        self.fixed = prototypes.to(next(self.parameters()))

    @property
    def vectors(self) -> Tensor:
        """(n, d): the classifier's vectors, learned or fixed."""
        return self.fixed if self.weight is None else self.weight

    def scores(self, h: Tensor) -> Tensor:
        """(rows, n) of features h (rows, d), with gradients."""
        if self.kind == "linear":
            return nn.functional.linear(h, self.weight, self.bias)
        return self.scale * directions(h) @ directions(self.vectors).T

    def projected(self, h: Tensor) -> Tensor:
        """(rows, width) of unit length: what the contrast compares."""
        return normalised(self.projection(h))

    def features(self, x: X) -> Tensor:
        """(rows, d), in the present mode and with gradients."""
        return self.body(x).flatten(1)

    def forward(self, x: X) -> Tensor:
        """(rows, n) scores."""
        return self.scores(self.features(x))

    def embed(self, x: X) -> Tensor:
        """(rows, d) in evaluation mode and without gradients, some rows at a time."""
        self.eval()
        with torch.no_grad():
            parts = [slice(start, start + ROWS) for start in range(0, size(x), ROWS)]
            return torch.cat([self.features(rows(x, part)) for part in parts])

    def project_anew(self) -> None:
        """Draw the projection's weights again, as after pre-training."""
        with isolated(self.seed, "projection again"):
            for layer in self.projection or ():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
