"""Streaming linear discriminant analysis: class means and one shared covariance, kept exactly, one look at each row.

    score_k = w_k . z + b_k,   w_k = L mean_k,   b_k = -1/2 mean_k . L mean_k,   L = ((1 - shrinkage) S + shrinkage I)^-1
    S = (1 / n) sum over rows of (z - mean_y)(z - mean_y)^T
    a row of a class seen c times before adds c / (c + 1) (z - mean_y)(z - mean_y)^T to n S, then moves mean_y

Reference: Hayes & Kanan (2020), Lifelong machine learning with deep streaming linear discriminant analysis, arXiv 1909.01520;
Chan et al. (1983), Algorithms for computing the sample variance (the update of a batch at once).
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import InputError, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.nn.features import class_count, embed, feature_network

UNSEEN = -1e30  # the score of a class without a row: below every other, and still a number


class StreamingLDA(Learner):
    """Equals linear discriminant analysis on all rows so far, however they were cut into batches; float64 inside.

    model: whose features are used, else only asked for the number of classes; shrinkage: weight of the identity in the
    covariance, above 0 and at most 1, 1e-4 as published; features: "input" takes the flattened row (bytes scaled to -0.5..0.5),
    "network" what reaches the model's last linear layer, whose weights stay as given, "auto" the network's where it has
    convolutions, attention, recurrence or embeddings (on small photographs even an untrained convolutional network serves better
    than pixels), else the input; classes: their number, read off the model where it is not given. Scores are float64; a class
    that never came scores -1e30. With d features it holds d x d numbers, and the first prediction after an update solves a d x d
    system (about 1 ms at d=256, 0.7 s at d=3,072).

    >>> import torch
    >>> from everlearn import Batch, StreamingLDA
    >>> learner = StreamingLDA(None, classes=2)
    >>> metrics = learner.update(Batch(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])))
    >>> learner.predict(torch.tensor([[2.9], [3.1]])).argmax(dim=1).tolist()
    [0, 1]

    Reference: Hayes & Kanan (2020), arXiv 1909.01520.
    Differs from the paper in: the covariance is the exact one (the paper weighs a row's share by all rows seen, t / (t + 1), and
    counts the first row of a class as its distance from 0); it starts from nothing, not from a first batch of classes; the
    network was not pre-trained unless a trained one is given.
    """

    name = "streaming_lda"
    parts = ("network", "guard", "means", "counts", "scatter")

    def __init__(
        self,
        model: nn.Module | None,
        *,
        shrinkage: float = 1e-4,
        features: str = "auto",
        classes: int | None = None,
        seed: int = 0,
    ):
        check_range(self.name, "shrinkage", shrinkage, 1e-12, 1.0, fix="Without shrinkage the covariance has no inverse.")
        self.classes = class_count(self.name, model, classes)
        self.shrinkage = shrinkage
        self.features = features
        self.seed = seed
        self.network = feature_network(self.name, model, features)
        self.guard = Guard(self.name, self.classes, model=self.network)
        self.means: Tensor | None = None  # (classes, d)
        self.counts = torch.zeros(self.classes, dtype=torch.float64)
        self.scatter: Tensor | None = None  # (d, d): n S
        self._solved: tuple[Tensor, Tensor] | None = None  # (w, b): a function of the state, thrown away when that changes

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        z = embed(self.network, x)
        scores = z.new_full((len(z), self.classes), UNSEEN)
        if self.means is None:
            return scores
        if self._solved is None:
            self._solved = self._solve()
        weight, bias = self._solved
        scores[:, self.counts > 0] = z @ weight.T + bias
        return scores

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        z = embed(self.network, batch.x)
        if self.means is None:
            self.means = z.new_zeros(self.classes, z.shape[1])
            self.scatter = z.new_zeros(z.shape[1], z.shape[1])
            self.counts = self.counts.to(z.device)
        here, place = batch.y.unique(return_inverse=True)
        new = torch.bincount(place).double()
        old = self.counts[here]
        means = z.new_zeros(len(here), z.shape[1]).index_add_(0, place, z) / new[:, None]
        inside = z - means[place]
        moved = means - self.means[here]
        between = moved * (old * new / (old + new)).sqrt()[:, None]
        spread = torch.cat([inside, between])
        self.scatter.addmm_(spread.T, spread)
        self.means[here] += moved * (new / (old + new))[:, None]
        self.counts[here] += new
        self._solved = None
        return {}

    def _solve(self) -> tuple[Tensor, Tensor]:
        """(weight, bias) of the classes seen."""
        shrunk = self.scatter * ((1.0 - self.shrinkage) / self.counts.sum())
        shrunk.diagonal().add_(self.shrinkage)
        root, failed = torch.linalg.cholesky_ex(shrunk)
        if failed:
            largest = float(shrunk.diagonal().max())
            raise InputError(
                f"{self.name}: the covariance of these features (largest variance {largest:.3g}) has no inverse with "
                f"shrinkage={self.shrinkage:g}. Standardise the features, or use a larger shrinkage."
            )
        means = self.means[self.counts > 0]
        weight = torch.cholesky_solve(means.T, root).T
        return weight, -0.5 * (weight * means).sum(1)

    def restored(self) -> None:
        """What was solved belongs to the state before."""
        self._solved = None

    def boundary(self, boundary: Boundary) -> None:
        """Means and covariance need no word of changes."""
