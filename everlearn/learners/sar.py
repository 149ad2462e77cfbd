"""SAR: entropy minimisation on sure answers, from a point a little uphill, and back to the source where it is about to collapse.

    e = rho * g / |g|,  g = gradient of mean_S H_i            S = { i : H_i < H0 },  H0 = entropy_margin * ln C
    w <- step at w by the gradient, at w + e, of mean_S' H_i    S' = { i in S : H_i at w + e < H0 }
    m <- 0.9 m + 0.1 mean_S' H_i at w + e;   m < reset_below:  w <- source

Reference: Niu et al. (2023), Towards stable test-time adaptation in dynamic wild world, arXiv 2302.12400; Foret et al. (2021),
Sharpness-aware minimization, arXiv 2010.01412.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Adapter
from everlearn.learners.adaptation import Adaptation, length, norm_weights, rows_of_scores
from everlearn.nn.batch_statistics import norm_layers
from everlearn.nn.entropy import entropies, sure_below
from everlearn.optim.optimizers import SGD, Optimizer

DECAY = 0.9  # of the moving mean of the loss
LAST_STAGES = ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm")  # of ResNets and of the base vision transformer
SMALLEST = 1e-12  # added to the length of a gradient before it divides


class SAR(Adapter):
    """Trains on labelled rows, then adapts norm layers towards flat minima of the entropy; the last stage stays as it is.

    model: a network with norm layers; lr, method: of the steps, "sgd" with momentum 0.9 as published; entropy_margin: answers above
    this part of ln C are left out, 0.4; rho: how far uphill the gradient is taken, 0.05, 0 takes it where the weights are;
    reset_below: the network goes back to the source where the moving mean of the entropy falls below this, 0.2 as published for a
    thousand classes (lower it where answers are rightly surer), 0 never; exclude: norm layers that stay, by the beginning of their
    dotted names; None takes `last_stage(model)`, () excludes none; reset_at_boundaries, optimizer: as in `tent`.

    Metrics: `loss`, `mean_loss` (the moving mean), `learned_from`, and `reset` where the network went back.

    >>> from everlearn import SAR
    >>> layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)]
    >>> learner = SAR(nn.Sequential(*layers))
    >>> sum(weight.numel() for weight in learner.adaptation.weights)
    16
    >>> learner.adapt(torch.randn(16, 4, generator=torch.Generator().manual_seed(0))).shape
    torch.Size([16, 3])

    Reference: Niu et al. (2023), arXiv 2302.12400.
    Differs from the paper in: where no answer is sure uphill, no step is taken (their code would step by NaN); the moving mean begins
    anew after a reset; dropout is off while it adapts.
    """

    name = "sar"
    parts = ("adaptation", "mean", "resets")
    needs_batch_norm = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.001,
        method: str = "sgd",
        entropy_margin: float = 0.4,
        rho: float = 0.05,
        reset_below: float = 0.2,
        exclude: Sequence[str] | None = None,
        reset_at_boundaries: bool = False,
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        check_range(self.name, "entropy_margin", entropy_margin, 0.0, 1.0)
        check_range(self.name, "rho", rho, 0.0)
        check_range(self.name, "reset_below", reset_below, 0.0)
        self.lr = lr
        self.method = method
        self.entropy_margin = entropy_margin
        self.rho = rho
        self.reset_below = reset_below
        self.exclude = exclude
        self.reset_at_boundaries = reset_at_boundaries
        self.optimizer = optimizer
        self.seed = seed
        weights = norm_weights(self.name, model, _excluded(self.name, model, exclude))
        self.adaptation = Adaptation(
            self.name, model, optimizer, seed, weights, lr, method,
            learn=self._learn, again=self._forget, reset_at_boundaries=reset_at_boundaries,
        )  # fmt: skip
        self.mean: Tensor | None = None  # the moving mean of the entropy uphill
        self.resets = 0  # times that the network went back to the source

    def predict(self, x: X) -> Tensor:
        return self.adaptation.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.adaptation.update(batch)

    def adapt(self, x: X) -> Tensor:
        """The scores of before this batch's step."""
        return self.adaptation.adapt(x)

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where adaptation begins anew with it."""
        self.adaptation.boundary(boundary)

    def reset(self) -> None:
        """Back to the source's weights."""
        self.adaptation.reset()

    def _forget(self) -> None:
        self.mean = None

    def _entropies(self, x: X) -> tuple[Tensor, Tensor]:
        scores = self.adaptation.scores(x)
        return scores, entropies(rows_of_scores(scores))

    def _learn(self, x: X) -> tuple[Tensor, Metrics]:
        weights = self.adaptation.weights
        scores, unsure = self._entropies(x)
        limit = sure_below(scores.shape[1], self.entropy_margin)
        sure = unsure.detach() < limit
        scores = scores.detach()
        gradients = self.adaptation.gradients(unsure[sure].mean()) if bool(sure.any()) else None
        if gradients is None:
            return scores, {"learned_from": 0.0}
        before = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            torch._foreach_add_(weights, torch._foreach_mul(gradients, self.rho / (length(gradients) + SMALLEST)))
        uphill = self._entropies(x)[1][sure]
        still = uphill.detach() < limit
        loss = uphill[still].mean()
        gradients = self.adaptation.gradients(loss) if bool(still.any()) else None
        with torch.no_grad():
            torch._foreach_copy_(weights, before)
        if not self.adaptation.follow(gradients):
            return scores, {"learned_from": 0.0}
        loss = loss.detach()
        self.mean = loss if self.mean is None else DECAY * self.mean + (1.0 - DECAY) * loss
        metrics: Metrics = {"learned_from": int(still.sum()) / len(sure), "loss": loss, "mean_loss": self.mean}
        if float(self.mean) < self.reset_below:
            self.reset()
            self.resets += 1
            metrics["reset"] = 1
        return scores, metrics


def last_stage(model: nn.Module) -> tuple[str, ...]:
    """The dotted names of the norm layers of a network's last stage.

    By name, as published: `layer4` of ResNets, blocks 9 to 11 and the final norm of vision transformers. In other networks: the
    last ones, as long as they are of one width; where all are of one width, the last quarter. None where that leaves nothing.

    >>> def stage(width):
    ...     return [nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)]
    >>> last_stage(nn.Sequential(*stage(4), *stage(4), *stage(8), *stage(8)))
    ('5', '7')
    """
    layers = norm_layers(model)
    names = list(layers)
    named = tuple(name for name in names if _under(name, LAST_STAGES))
    if any(_under(name, ("layer4", "blocks.9")) for name in named) and len(named) < len(names):
        return named
    widths = [layer.weight.numel() for layer in layers.values()]
    same = 0
    while same < len(widths) and widths[-1 - same] == widths[-1]:
        same += 1
    if same == len(names):
        same = -(-len(names) // 4) if len(names) > 1 else 0
    return tuple(names[len(names) - same :])


def _under(name: str, beginnings: Sequence[str]) -> bool:
    return any(name == beginning or name.startswith(beginning + ".") for beginning in beginnings)


def _excluded(owner: str, model: nn.Module, exclude: Sequence[str] | None) -> tuple[str, ...]:
    if not isinstance(model, nn.Module):
        return ()
    if exclude is None:
        return last_stage(model)
    names = list(norm_layers(model))
    strange = [beginning for beginning in exclude if not any(_under(name, (beginning,)) for name in names)]
    if isinstance(exclude, str) or strange:
        raise ArgumentError(
            f"{owner}: exclude must be beginnings of names of norm layers such as ('layer4',), got {exclude!r}; the network has "
            f"{', '.join(names)}."
        )
    return tuple(name for name in names if _under(name, exclude))
