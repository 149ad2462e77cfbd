"""The two lives of a network that adapts without labels, shared by all learners that do so.

    rows with labels     -> trained as `fine_tune` trains:  w <- w - lr * gradient of cross_entropy
    first rows without   -> deployed: the weights are noted as those of the source, all but the chosen ones are frozen
    rows without labels  -> adapted, by what the learner makes of them; labels that still come are not learned from

A batch of one row has no statistics to normalise by. Where batch norm would need them, such a row is answered by the running
statistics and nothing is learned from it. After deployment batch norm follows a rule, as a matter of course the batch's statistics.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X, size
from everlearn.core.guard import Guard, count_outputs
from everlearn.nn.batch_statistics import Rule, batch_norms, by_batch, norm_layers, normalised
from everlearn.optim.descent import Descent, evaluate, step_along
from everlearn.optim.optimizers import SGD, Adam, Optimizer

METHODS = ("adam", "sgd")
MOMENTUM = 0.9  # of SGD, and Adam's first decay, in all published settings

Learn = Callable[[X], tuple[Tensor, Metrics]]
BY_BATCH = by_batch()


class Adaptation:
    """A network on its way from training with labels to adaptation without.

    owner: the learner's name; model: the network; training: the optimiser of the time with labels; weights: those that adapt;
    lr, method: of the steps that adapt, "adam", or "sgd" with momentum 0.9; statistics: whether answers depend on the batch, so that
    one row alone cannot be adapted to; rule: how batch norm normalises after deployment; answer: x -> scores (None: the network's by
    the rule); learn: x -> scores of before, and metrics (None: nothing is learned); begin: called when the network is deployed; again:
    called when it goes back to the source; reset_at_boundaries: whether it does so at each known change. `origin` holds the weights
    as they were at deployment. What is called is a method of the learner, so that a copy of the learner calls its own.
    """

    parts = ("source", "guard", "optimizer", "origin", "deployed", "steps")

    def __init__(
        self,
        owner: str,
        model: nn.Module,
        training: Optimizer,
        seed: int,
        weights: Sequence[nn.Parameter] = (),
        lr: float = 0.0,
        method: str = "adam",
        *,
        statistics: bool = True,
        rule: Rule = BY_BATCH,
        answer: Callable[[X], Tensor] | None = None,
        learn: Learn | None = None,
        begin: Callable[[], None] | None = None,
        again: Callable[[], None] | None = None,
        reset_at_boundaries: bool = False,
    ):
        check_range(owner, "lr", lr, 0.0)
        if method not in METHODS:
            raise ArgumentError(f"{owner}: method must be one of {', '.join(map(repr, METHODS))}, got {method!r}.")
        self.source = Descent(model, training, seed)
        self.guard = Guard(owner, count_outputs(model), model=model)
        self.weights = list(weights)
        self.stepper: Optimizer = Adam(lr=lr) if method == "adam" else SGD(lr=lr, momentum=MOMENTUM)
        self.optimizer = self.stepper.make(self.weights) if self.weights else None
        self.origin: list[Tensor] = []
        self.deployed = False
        self.steps = 0  # steps of adaptation
        self._rule = rule
        self._answer = answer or self.by_statistics
        self._learn = learn or self._answered
        self._begin = begin
        self._again = again
        self._reset_at_boundaries = reset_at_boundaries
        self._needs_rows = statistics and bool(batch_norms(model))
        self._of_vectors = of_vectors(model)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.source.model

    def predict(self, x: X) -> Tensor:
        """The trained network's scores before deployment, `answer` after it."""
        self.guard.inputs(x)
        if not self.deployed or self.alone(x):
            return self.source.predict(x)
        return self._answer(x)

    def update(self, batch: Batch) -> Metrics:
        """Train on labels before deployment; learn from rows without labels, which deploy."""
        self.guard.batch(batch)
        if batch.y is None:
            return self._learned(batch.x)[1]
        return {} if self.deployed else taught(self.source, batch, self._of_vectors)

    def adapt(self, x: X) -> Tensor:
        """The scores of before this batch's step."""
        self.guard.batch(Batch(x))
        return self._learned(x)[0]

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where adaptation begins anew with it."""
        if self._reset_at_boundaries:
            self.reset()

    def by_statistics(self, x: X) -> Tensor:
        """The network's scores, batch norm by the rule, without gradients."""
        return by_statistics(self.model, x, self._rule)

    def scores(self, x: X, rule: Rule | None = None) -> Tensor:
        """The same with gradients, by another rule where one is given."""
        with normalised(self.model, rule or self._rule) as model:
            return model(x)

    def alone(self, x: X) -> bool:
        """Whether x is one row that has no statistics to normalise by."""
        return self._needs_rows and size(x) < 2

    def _learned(self, x: X) -> tuple[Tensor, Metrics]:
        if not self.deployed:
            self.deploy()
        if self.alone(x):
            return self.source.predict(x), {"learned_from": 0.0}
        return self._learn(x)

    def _answered(self, x: X) -> tuple[Tensor, Metrics]:
        return self._answer(x), {}

    def deploy(self) -> None:
        """Note the weights of the source and freeze all but those that adapt."""
        self.deployed = True
        self.restored()
        self.origin = [weight.detach().clone() for weight in self.weights]
        if self._begin is not None:
            self._begin()

    def restored(self) -> None:
        """What has gradients is told by the time: all trained weights before deployment, the chosen ones after it."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.weights if self.deployed else self.source.parameters:
            parameter.requires_grad_(True)

    def step(self, loss: Tensor) -> bool:
        """One step down a loss; False, with nothing changed, where loss or gradient is not finite."""
        return self.follow(self.gradients(loss))

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...] | None:
        """The gradient for each weight that adapts, None where it is not finite."""
        if not bool(torch.isfinite(loss.detach())):
            return None
        found = torch.autograd.grad(loss, self.weights, allow_unused=True, materialize_grads=True)
        return found if bool(torch.isfinite(length(found))) else None

    def follow(self, gradients: Sequence[Tensor] | None) -> bool:
        """Let the optimiser follow gradients; False where there are none."""
        if gradients is None:
            return False
        step_along(self.optimizer, self.weights, gradients)
        for weight in self.weights:
            weight.grad = None
        self.steps += 1
        return True

    def reset(self) -> None:
        """Back to the weights of the source, with an optimiser that remembers nothing; nothing before deployment."""
        if not self.deployed:
            return
        with torch.no_grad():
            for weight, first in zip(self.weights, self.origin, strict=True):
                weight.copy_(first)
        if self.weights:
            self.optimizer = self.stepper.make(self.weights)
        if self._again is not None:
            self._again()


def taught(source: Descent, batch: Batch, of_vectors: bool) -> Metrics:
    """One step of the training with labels, as `fine_tune` makes it; none on one row that batch norm of vectors cannot normalise."""
    if len(batch) < 2 and of_vectors:
        return {}
    return {"loss": source(lambda: cross_entropy(source.model(batch.x), batch.y))}


def of_vectors(model: nn.Module) -> bool:
    """Whether a network has batch norm of vectors, which cannot train on one row.

    >>> of_vectors(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))), of_vectors(nn.BatchNorm2d(3))
    (True, False)
    """
    return any(isinstance(layer, nn.BatchNorm1d) for layer in model.modules())


def by_statistics(model: nn.Module, x: X, rule: Rule = BY_BATCH) -> Tensor:
    """A network's scores for x with batch norm by a rule, the batch's own statistics by default, without gradients.

    >>> by_statistics(nn.BatchNorm1d(1), torch.tensor([[1.0], [3.0]])).round(decimals=3).flatten().tolist()
    [-1.0, 1.0]
    """
    with normalised(model, rule):
        return evaluate(model, x)


def length(tensors: Sequence[Tensor]) -> Tensor:
    """The norm over all numbers of some tensors.

    >>> length([torch.tensor([3.0]), torch.tensor([[4.0]])]).item()
    5.0
    """
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


def norm_weights(owner: str, model: Any, exclude: Sequence[str] = ()) -> list[nn.Parameter]:
    """Weights and biases of all norm layers but those named in `exclude`. Raises ArgumentError where none is left."""
    layers = norm_layers(model) if isinstance(model, nn.Module) else {}
    found = [weight for name, layer in layers.items() if name not in exclude for weight in layer.parameters(recurse=False)]
    if isinstance(model, nn.Module) and not found:
        raise ArgumentError(
            f"{owner}: the network has no norm layer with weights, and these are what adapts. Use one with batch or layer norm "
            "(resnet18, conv4, mobilenet_v2), or cotta(model), which adapts every weight."
        )
    return found


def rows_of_scores(scores: Tensor) -> Tensor:
    """Scores (batch, classes, ...) of rows or of pixels as (answers, classes).

    >>> rows_of_scores(torch.zeros(2, 5, 3, 4)).shape
    torch.Size([24, 5])
    """
    return scores if scores.ndim == 2 else scores.movedim(1, -1).reshape(-1, scores.shape[1])
