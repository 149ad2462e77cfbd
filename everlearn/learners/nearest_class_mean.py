"""Nearest class mean: the answer is the class whose mean of features is nearest. It cannot forget, for it keeps exact means.

    mean_k = (1 / n_k) sum of z over the rows of class k      score_k = -|z - mean_k|^2

Reference: Mensink et al. (2013), Distance-based image classification, TPAMI 35(11); Rebuffi et al. (2017), arXiv 1611.07725.
"""

import torch
from torch import Tensor, nn

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.nn.features import class_count, embed, feature_network

UNSEEN = -1e30  # the score of a class without a row: below every other, and still a number


class NearestClassMean(Learner):
    """Keeps the sum and the number of each class's features, in float64; no gradient steps, one look at each row.

    model: whose features are used, else only asked for the number of classes; features: "input" takes the flattened row (bytes
    scaled to -0.5..0.5), "network" what reaches the model's last linear layer, whose weights stay as given: worth it for a trained
    network; "auto" the network's where it has convolutions, attention, recurrence or embeddings; classes: their number, read off
    the model where it is not given. Scores are float64; a class that never came scores -1e30. Columns of very different scale
    should be standardised first.

    >>> import torch
    >>> from everlearn import Batch, NearestClassMean
    >>> learner = NearestClassMean(None, classes=3)
    >>> metrics = learner.update(Batch(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 2])))
    >>> learner.predict(torch.tensor([[4.0]])).tolist()
    [[-9.0, -1e+30, -1.0]]

    Reference: Mensink et al. (2013). Differs from the paper in: no learned metric.
    """

    name = "nearest_class_mean"
    parts = ("network", "guard", "sums", "counts")

    def __init__(self, model: nn.Module | None, *, features: str = "input", classes: int | None = None, seed: int = 0):
        self.classes = class_count(self.name, model, classes)
        self.features = features
        self.seed = seed
        self.network = feature_network(self.name, model, features)
        self.guard = Guard(self.name, self.classes, model=self.network)
        self.sums: Tensor | None = None  # (classes, d) float64
        self.counts = torch.zeros(self.classes, dtype=torch.int64)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        z = embed(self.network, x)
        scores = z.new_full((len(z), self.classes), UNSEEN)
        if self.sums is None:
            return scores
        seen = self.counts.nonzero().flatten()
        means = self.sums[seen] / self.counts[seen, None]
        scores[:, seen] = -torch.cdist(z, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        return scores

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        z = embed(self.network, batch.x)
        if self.sums is None:
            self.sums = z.new_zeros(self.classes, z.shape[1])
            self.counts = self.counts.to(z.device)
        self.sums.index_add_(0, batch.y, z)
        self.counts += torch.bincount(batch.y, minlength=self.classes)
        return {}

    def boundary(self, boundary: Boundary) -> None:
        """Means need no word of changes."""
