"""Prototypes: one vector per class, by whose direction a row is recognised; where to place them, and how to match and keep
them.

    score_c = scale * <h / |h|, p_c / |p_c|>

A class is added from a handful of rows, h = features of each, by p_c = mean of h: nothing is trained.
References: Papyan et al. (2020), arXiv 2008.08186 (simplex frames); Yang et al. (2023), NC-FSCIL, arXiv 2302.03004; Wang et
al. (2023), Few-shot class-incremental learning via training-free prototype calibration (TEEN), arXiv 2312.05229.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range
from everlearn.core.random import generator

AVERAGES = ("raw", "normalised")
LENGTH_EPSILON = 1e-12  # the least length that a vector is divided by
Label = int | str


def directions(vectors: Tensor) -> Tensor:
    """(rows, d): each row divided by its length; a row of zeros stays one."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=LENGTH_EPSILON)


def simplex_etf(n: int, dim: int, seed: int = 0) -> Tensor:
    """(n, dim) float32: n directions as far from one another as can be, with cosine -1 / (n - 1) between any two.

        P = sqrt(n / (n - 1)) (I - 11' / n) U',   U: (dim, n) with orthonormal columns, drawn from the seed

    Raises ArgumentError where dim < n - 1, in which so many directions do not fit.

    >>> frame = simplex_etf(4, 3)
    >>> [round(cosine, 4) for cosine in (frame @ frame.T)[0].tolist()]
    [1.0, -0.3333, -0.3333, -0.3333]

    Reference: Papyan et al. (2020), arXiv 2008.08186.
    """
    check_count("simplex_etf", "n", n)
    check_count("simplex_etf", "dim", dim)
    if dim < n - 1:
        raise ArgumentError(
            f"simplex_etf: dim must be at least n - 1 = {n - 1} for n={n} prototypes, got {dim}. "
            "Use prototypes='spread', or a wider encoder."
        )
    if n == 1:
        return directions(torch.randn(1, dim, generator=generator(seed, "simplex"), dtype=torch.float64)).float()
    # The centred identity has rank n - 1: its frame in n - 1 coordinates, turned into dim ones.
    centred = torch.eye(n, dtype=torch.float64) - 1.0 / n
    values, vectors = torch.linalg.eigh(centred)
    inside = vectors[:, 1:] * values[1:].sqrt()
    turned, _ = torch.linalg.qr(torch.randn(dim, n - 1, generator=generator(seed, "simplex"), dtype=torch.float64))
    return (math.sqrt(n / (n - 1)) * inside @ turned.T).float()


def spread_prototypes(
    n: int, dim: int, seed: int = 0, *, temperature: float = 0.5, steps: int = 500, lr: float = 0.1, momentum: float = 0.9
) -> Tensor:
    """(n, dim) float32: n directions pushed apart, where there are more of them than a simplex frame has room for.

        minimise   mean_i log sum_{j != i} exp(<p_i, p_j> / temperature)   over unit vectors

    by gradient descent with momentum from random directions. lr is that of the sum over i: a mean would divide each slope
    by n.
    Reference: Zhou et al. (2022), Forward compatible few-shot class-incremental learning, arXiv 2203.06953 (room for later
    classes).
    """
    check_count("spread_prototypes", "n", n)
    check_count("spread_prototypes", "dim", dim)
    check_count("spread_prototypes", "steps", steps)
    points = directions(torch.randn(n, dim, generator=generator(seed, "spread")))
    speed = torch.zeros_like(points)
    for _ in range(steps if n > 1 else 0):
        pulls = (points @ points.T / temperature).fill_diagonal_(-torch.inf).softmax(1)
        slope = (pulls + pulls.T) @ points / temperature
        slope = slope - (slope * points).sum(1, keepdim=True) * points  # along the sphere
        speed = momentum * speed + slope
        points = directions(points - lr * speed)
    return points


def assign_prototypes(means: Tensor, prototypes: Tensor) -> Tensor:
    """(classes,) int64: which prototype each class takes, so that the total cosine between means and prototypes is largest.

    means: (classes, d); prototypes: (n, d), n >= classes. Raises ArgumentError where there are fewer prototypes than
    classes.

    >>> means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    >>> assign_prototypes(means, torch.tensor([[0.0, 1.0], [0.7, 0.7], [1.0, 0.0]])).tolist()
    [2, 0, 1]
    """
    if len(means) > len(prototypes):
        raise ArgumentError(
            f"assign_prototypes: {len(means)} classes need as many prototypes, got {len(prototypes)}. Reserve more of them: "
            "a network with more outputs."
        )
    from scipy.optimize import linear_sum_assignment

    cosines = directions(means.double()) @ directions(prototypes.double()).T
    return torch.from_numpy(linear_sum_assignment(cosines.cpu().numpy(), maximize=True)[1]).to(means.device)


def calibrated(new: Tensor, base: Tensor, share: float = 0.5, scale: float = 16.0) -> Tensor:
    """(classes, d): new prototypes drawn towards the base prototypes that they resemble, which were seen with more rows.

        p <- share * p + (1 - share) * sum_b softmax_b(scale * cos(p, p_b)) p_b

    new: (classes, d); base: (n, d); share: what is left of the new prototype, 0.5 as published; 1 leaves it as it is.

    >>> calibrated(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])).round(decimals=4)
    tensor([[0.3000, 0.9000]])

    Reference: Wang et al. (2023), TEEN, arXiv 2312.05229.
    """
    weights = (scale * directions(new) @ directions(base).T).softmax(1)
    return share * new + (1.0 - share) * weights @ base


class PrototypeClassifier:
    """Recognises rows by the prototype whose direction is nearest; a class is added, renewed or removed in one call.

    scale: what cosines are multiplied by, 16; average: "raw" takes the mean of embeddings as they are, "normalised" that of
    their directions. Works alone on features of any kind, under class numbers or names of your own. A class takes d float64
    numbers. A prototype is the mean of all rows given for its class, in whatever portions and order they came.

    >>> classifier = PrototypeClassifier()
    >>> classifier.set("cup", torch.tensor([[1.0, 0.1], [1.0, -0.1]]))
    >>> classifier.add("hat", torch.tensor([[0.0, 2.0]]))
    >>> classifier.predict(torch.tensor([[3.0, 1.0], [1.0, 3.0]])), classifier.bytes_per_class
    (['cup', 'hat'], 16)
    """

    parts = ("labels", "sums", "counts")

    def __init__(self, scale: float = 16.0, average: str = "raw"):
        check_range("PrototypeClassifier", "scale", scale, LENGTH_EPSILON)
        if average not in AVERAGES:
            raise ArgumentError(f"PrototypeClassifier: average must be 'raw' or 'normalised', got {average!r}.")
        self.scale = scale
        self.average = average
        self.labels: list[Label] = []
        self.sums = torch.zeros(0, 0, dtype=torch.float64)  # (classes, d): of embeddings
        self.counts: list[int] = []  # rows behind each

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, label: Label) -> bool:
        return label in self.labels

    @property
    def means(self) -> Tensor:
        """(classes, d) float32: the prototypes in the order of `labels`."""
        counts = torch.tensor(self.counts, dtype=torch.float64, device=self.sums.device)
        return (self.sums / counts[:, None]).float() if self.labels else self.sums.float()

    @property
    def prototypes(self) -> dict[Label, Tensor]:
        """{class: its prototype (d,) float32}."""
        return dict(zip(self.labels, self.means, strict=True))

    @property
    def bytes_per_class(self) -> int:
        """Bytes that the prototype of one class takes."""
        return self.sums.shape[1] * self.sums.element_size()

    def set(self, label: Label, embeddings: Tensor) -> None:
        """Make, or make anew, the prototype of a class from embeddings (rows, d) of its rows. Raises InputError."""
        total = self._total(embeddings)
        if label in self.labels:
            place = self.labels.index(label)
            self.sums = self.sums.clone()
            self.sums[place], self.counts[place] = total, len(embeddings)
            return
        self.sums = torch.cat([self.sums.to(total.device), total[None]]) if self.labels else total[None]
        self.labels.append(label)
        self.counts.append(len(embeddings))

    def add(self, label: Label, embeddings: Tensor) -> None:
        """Let the prototype of a class follow more rows of it; a class that is not there yet begins with them."""
        if label not in self.labels:
            self.set(label, embeddings)
            return
        total, place = self._total(embeddings), self.labels.index(label)
        self.sums = self.sums.clone()
        self.sums[place] += total
        self.counts[place] += len(embeddings)

    def remove(self, label: Label) -> None:
        """Forget a class. Raises InputError where there is none of this name."""
        if label not in self.labels:
            raise InputError(f"prototypes: there is no class {label!r}; there are {shown(self.labels)}.")
        place = self.labels.index(label)
        kept = [row for row in range(len(self.labels)) if row != place]
        self.sums = self.sums[kept]
        del self.labels[place], self.counts[place]

    def scores(self, embeddings: Tensor) -> Tensor:
        """(rows, classes): scaled cosines, the classes in the order of `labels`."""
        return self.scale * directions(embeddings) @ directions(self.means).T

    def predict(self, embeddings: Tensor) -> list[Label]:
        """The class of each row. Raises InputError while there is no class."""
        if not self.labels:
            raise InputError("prototypes: there is no class yet; add one with set(label, embeddings).")
        return [self.labels[place] for place in self.scores(embeddings).argmax(1).tolist()]

    def _total(self, embeddings: Tensor) -> Tensor:
        """(d,) float64: the sum of the embeddings, or of their directions."""
        if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or len(embeddings) == 0:
            found = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise InputError(f"prototypes: embeddings must be (rows, d) with at least one row, got {found}.")
        if self.labels and embeddings.shape[1] != self.sums.shape[1]:
            raise InputError(
                f"prototypes: embeddings have {embeddings.shape[1]} numbers, those of the other classes {self.sums.shape[1]}."
            )
        values = embeddings.detach().double()
        if not bool(torch.isfinite(values).all()):
            raise InputError("prototypes: embeddings hold NaN or infinite numbers.")
        return (directions(values) if self.average == "normalised" else values).sum(0)


def shown(labels: Sequence[Label], most: int = 6) -> str:
    """Some class names for a message: 'a', 'b', ... and how many more."""
    texts = [repr(label) for label in labels[:most]]
    return (", ".join(texts) or "none") + (f" and {len(labels) - most} more" if len(labels) > most else "")
