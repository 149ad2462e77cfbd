"""Supervised contrastive replay: features in which classes keep together, and the nearest class mean as the answer.

    S = draw and batch, and a random view of each;   z_i = unit vector of projection(features(x_i))
    loss = mean_i -1/|P(i)| sum_{p in P(i)} log( exp(z_i z_p / T) / sum_{a != i} exp(z_i z_a / T) ),   P(i): others of i's class
    answer = argmin_k | f(x) - m_k |,   f the unit features, m_k the unit mean of f over the remembered rows of class k

No classifier is trained, so none can come to prefer the newest classes.
Reference: Mai et al. (2021), Supervised contrastive replay, arXiv 2103.13885; Khosla et al. (2020), arXiv 2004.11362.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, join, rows
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.core.random import generator, isolated
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.data.views import Viewer, Views
from everlearn.nn.features import features, last_linear, scores_and_features
from everlearn.nn.losses import normalised, supervised_contrastive_loss
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer

UNSEEN = -1e9  # the score of a class without a remembered row
ROWS = 512  # remembered rows embedded at once


class SCR(Learner):
    """Learns features by contrast from each batch and a draw; answers with the class whose mean over the memory is nearest.

    model: its features are what reaches its last linear layer, which itself plays no part; capacity: rows kept in all, 1,000;
    replay_batch: rows drawn per step, 100 beside batches of 10; temperature: 0.07; projection: width of the projection head's
    output, 128, behind a hidden layer as wide as the features; views: random views of images (None: the row itself, with a
    warning); keep: which rows stay, `reservoir()`; optimizer: `sgd(lr=0.1)`; passes: gradient steps per batch, each with a draw of
    its own. The values are the paper's. Scores are -|f - m_k|^2, and -1e9 for a class that the memory does not hold.

    The class means are computed where they are first asked for after an update: one forward pass over the memory. Nothing is
    learned while the memory is empty: from the first batch, or with a budget of no replay, where every answer is class 0.

    >>> import torch
    >>> from everlearn import SCR, Batch
    >>> learner = SCR(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Linear(8, 3)), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.rand(8, 1, 8, 8), torch.arange(8) % 2))
    >>> scores = learner.predict(torch.rand(2, 1, 8, 8))
    >>> scores.shape, scores[0, 2].item()
    (torch.Size([2, 3]), -1000000000.0)

    Reference: Mai et al. (2021), arXiv 2103.13885.
    Differs from the paper in: see `Views`; the first batch is passed over, and a class without a remembered row is never the
    answer (both as in the authors' code, but that a random mean stands for such a class there); the last batch of a task is
    learned from even where it is smaller.
    """

    name = "scr"
    parts = ("descent", "guard", "memory", "viewer")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 1000,
        replay_batch: int = 100,
        keep: Rule = Reservoir(),
        temperature: float = 0.07,
        projection: int = 128,
        views: Views | None = Views(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "replay_batch", replay_batch)
        check_count(self.name, "projection", projection)
        check_count(self.name, "passes", passes)
        if not isinstance(temperature, (int, float)) or not temperature > 0:
            raise ArgumentError(
                f"{self.name}: temperature must be above 0, got {temperature!r}. The published value is 0.07."
            )
        self.capacity = capacity
        self.replay_batch = replay_batch
        self.keep = keep
        self.temperature = temperature
        self.projection = projection
        self.views = views
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        with isolated(seed, self.name, "projection"):
            projected = Projected(model, projection)
        self.descent = Descent(projected, optimizer, seed)
        self.guard = Guard(self.name, last_linear(model).out_features, model=projected)
        self.memory = Memory(capacity, keep=keep, seed=seed)
        self.viewer = Viewer(self.name, views, generator(seed, "views"))
        self._means: Tensor | None = None  # (classes, d) of the present features and memory; zeros for classes it lacks
        self._held: Tensor | None = None  # (classes,) whether the memory holds the class

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        if self._means is None:
            self._remember()
        return class_scores(self._embed(x), self._means, self._held)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        metrics: Metrics = {}
        for _ in range(self.passes):
            metrics = self._step(batch.x, batch.y)
        self.memory.insert(x=batch.x, y=batch.y)
        self._means = None
        return metrics

    def _step(self, x: X, y: Tensor) -> Metrics:
        drawn = self.memory.draw(self.replay_batch)
        if drawn is None:
            return {}
        x, y = join(drawn["x"], x), torch.cat([drawn["y"], y])
        seen, labels = self.viewer(x), y.repeat(2)

        def loss() -> Tensor:
            both = torch.cat([self.descent.model(x), self.descent.model(seen)])
            return supervised_contrastive_loss(both, labels, self.temperature)

        return {"loss": self.descent(loss)}

    def restored(self) -> None:
        """Forget the class means of what stood before."""
        self._means = None

    def _embed(self, x: X) -> Tensor:
        return normalised(features(self.descent.model.network, x))

    def _remember(self) -> None:
        """Take the class means of the memory with the present features."""
        classes = self.guard.classes
        width = self.descent.model.layer.in_features
        weight = self.descent.model.layer.weight
        sums, counts = weight.new_zeros(classes, width), weight.new_zeros(classes)
        held = self.memory.rows()
        for start in range(0, self.memory.stored, ROWS):
            part = slice(start, start + ROWS)
            sums.index_add_(0, held["y"][part], self._embed(rows(held["x"], part)))
            counts += torch.bincount(held["y"][part], minlength=classes)
        self._means, self._held = normalised(sums), counts > 0  # of unit length, so sums serve as well as means

    def boundary(self, boundary: Boundary) -> None:
        """Contrast and class means need no word of changes."""


class Projected(nn.Module):
    """A network and a projection head on its features: x -> (batch, width) vectors of unit length, for the contrast.

    The features are what reaches the network's last linear layer, which is left as it is. Raises ArgumentError without one.

    >>> Projected(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), 5)(torch.ones(2, 4)).shape
    torch.Size([2, 5])
    """

    def __init__(self, network: nn.Module, width: int):
        super().__init__()
        layer = last_linear(network) if isinstance(network, nn.Module) else None
        if layer is None:
            raise ArgumentError(
                f"scr: the network needs a last linear layer, whose inputs are the features, got {network!r}."
            )
        self.network = network
        inputs = layer.in_features
        self.head = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, width)).to(layer.weight)

    @property
    def layer(self) -> nn.Linear:
        """The network's last linear layer."""
        return last_linear(self.network)

    def forward(self, x: X) -> Tensor:
        """The projection of the features of x."""
        return normalised(self.head(scores_and_features(self.network, x)[1]))


def class_scores(embedded: Tensor, means: Tensor, held: Tensor) -> Tensor:
    """-|f - m_k|^2 for rows f (rows, d) and means m (classes, d) of unit length; -1e9 where held (classes,) is False.

    >>> rows, means = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    >>> class_scores(rows, means, torch.tensor([True, False])).tolist()
    [[-0.7999999523162842, -1000000000.0]]
    """
    return (2.0 * (embedded @ means.T) - 2.0).masked_fill(~held, UNSEEN)
