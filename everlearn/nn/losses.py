"""Losses that contrast a row with classes or with other rows, and losses that hold on to what an older network said.

    counted       -s_y + log sum_c n_c exp(s_c)            n_c: how often class c stands in the contrast, 0 = left out
    contrastive   -1/|P(i)| sum_{p in P(i)} log softmax over the contrasts of i

With n_c = 1 for all classes the first is the cross-entropy, with n_c in {0, 1} the masked one, with n_c = rows of class c the
proxy-based contrastive loss. Everything works in logarithms: at temperature 0.09 logits differ by up to 22.

Reference: Lin et al. (2023), PCR, arXiv 2304.04408; Lin et al. (2023), HPCR, arXiv 2309.15038; Khosla et al. (2020), Supervised
contrastive learning, arXiv 2004.11362; Li & Hoiem (2017), Learning without forgetting, arXiv 1606.09282.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, closest

ANCHORS = ("proxy", "proxy+sample", "all")
NORM_EPSILON = 1e-6  # added to the length of a vector before it is divided by it


def normalised(vectors: Tensor) -> Tensor:
    """(rows, d): each row divided by its length + 1e-6."""
    return vectors / (vectors.norm(dim=1, keepdim=True) + NORM_EPSILON)


def counts_of(labels: Tensor, classes: int) -> Tensor:
    """(classes,) float32: how many of the labels (rows,) are of each class."""
    return torch.bincount(labels, minlength=classes).float()


def present(labels: Tensor, classes: int) -> Tensor:
    """(classes,) float32: 1 for the classes that occur among the labels (rows,), 0 for the others."""
    return counts_of(labels, classes).clamp_(max=1.0)


def mask_absent_logits(logits: Tensor, allowed: Tensor) -> Tensor:
    """A copy of logits (rows, classes) with minus infinity where allowed (classes,) is 0; the logits given stay as they are.

    >>> mask_absent_logits(torch.tensor([[2.0, 1.0]]), torch.tensor([0.0, 1.0]))
    tensor([[-inf, 1.]])
    """
    return logits + allowed.to(logits.dtype).log()


def counted_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """The mean over rows of  -s_y + log sum_c n_c exp(s_c).

    logits: (rows, classes); labels: (rows,) int64, each of a class with a count above 0; counts: (classes,) n_c >= 0.
    A class with count 0 gets no gradient at all. Where only one class counts, once, the loss and its gradient are exactly 0.

    >>> logits = torch.tensor([[2.0, 0.0, 1.0, 5.0], [0.0, 3.0, 1.0, 5.0]])
    >>> round(counted_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([1.0, 1.0, 0.0, 0.0])).item(), 7)
    0.0877577
    """
    weights = counts.to(logits.dtype).log()
    return cross_entropy(logits + weights, labels) + weights[labels].mean()


def proxy_contrastive_loss(
    features: Tensor, labels: Tensor, proxies: Tensor, temperature: float, anchors: str = "proxy"
) -> Tensor:
    """Contrast rows with the proxies of the classes among them and, if asked, with each other.

    features: (rows, d); labels: (rows,) int64; proxies: (classes, d), one per class; both are normalised here.
    anchors: "proxy" contrasts each row with the proxies of all rows' labels, with multiplicity, its own included;
    "proxy+sample" adds the other rows to the same softmax; "all" lets the proxies be anchors too.
    Raises ArgumentError for other anchors or a temperature that is not above 0.

    >>> z, w = torch.tensor([[1.0, 0], [0, 1], [1, 1], [3, 4]]), torch.tensor([[1.0, 0], [0, 2], [-1, -1]])
    >>> round(proxy_contrastive_loss(z, torch.tensor([0, 1, 1, 0]), w, 0.09).item(), 5)
    1.44772

    Reference: Lin et al. (2023), arXiv 2304.04408, equation 6; arXiv 2309.15038.
    """
    if anchors not in ANCHORS:
        raise ArgumentError(closest("anchors", anchors, ANCHORS))
    if not temperature > 0:
        raise ArgumentError(f"proxy_contrastive_loss: temperature must be above 0, got {temperature!r}.")
    rows, classes = normalised(features), normalised(proxies)
    logits = rows @ classes.T / temperature
    if anchors == "proxy":
        return counted_cross_entropy(logits, labels, counts_of(labels, len(proxies)))
    if anchors == "proxy+sample":
        return with_samples(logits, rows, labels, temperature)
    both, names = torch.cat([rows, classes[labels]]), torch.cat([labels, labels])
    return supervised_contrastive_loss(both, names, temperature)


def with_samples(logits: Tensor, features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The proxy contrast with the other rows in the same softmax, from logits that are known already.

        -1/|Q| [ n_y s_y + sum_{j != i, y_j = y} f_i f_j / T ] + log( sum_c n_c exp(s_c) + sum_{j != i} exp(f_i f_j / T) )

    logits: (rows, classes), divided by the temperature T; features: (rows, d) normalised; |Q| = 2 n_y - 1.
    """
    counts = counts_of(labels, logits.shape[1]).to(logits.dtype)
    among = features @ features.T / temperature
    among.fill_diagonal_(-torch.inf)
    same = labels[:, None] == labels
    same.fill_diagonal_(False)
    everything = torch.cat([logits + counts.log(), among], dim=1).logsumexp(1)
    own = counts[labels]
    drawn = own * logits.gather(1, labels[:, None]).squeeze(1) + among.masked_fill(~same, 0.0).sum(1)
    return (everything - drawn / (2.0 * own - 1.0)).mean()


def supervised_contrastive_loss(features: Tensor, labels: Tensor, temperature: float, over: str = "positives") -> Tensor:
    """Each row against all others: those of its class are the positives. 0 where no row has a positive.

    features: (rows, d), of unit length; labels: (rows,) int64; over: what the sum is divided by, the number of rows that have a
    positive ("positives") or that of all rows ("all": rows without one count as 0). With two views of each row they agree.

    >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> round(supervised_contrastive_loss(z, torch.tensor([0, 0, 1, 1]), 0.1).item(), 6)
    0.06378

    Reference: Khosla et al. (2020), arXiv 2004.11362, equation 2.
    """
    among = features @ features.T / temperature
    among.fill_diagonal_(-torch.inf)
    same = labels[:, None] == labels
    same.fill_diagonal_(False)
    positives = same.sum(1)
    drawn = among.log_softmax(1).masked_fill(~same, 0.0).sum(1)
    count = (positives > 0).sum().clamp(min=1) if over == "positives" else len(features)
    return -(drawn / positives.clamp(min=1)).sum() / count


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Two views of each row against all other rows: the mean over both of -log softmax at the other view. No labels are needed.

    first, second: (rows, d), of unit length, row i of both being views of the same row.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(nt_xent(z, z, 1.0).item(), 6)  # log(1 + 2 / e)
    0.551445

    Reference: Chen et al. (2020), SimCLR, arXiv 2002.05709.
    """
    return supervised_contrastive_loss(
        torch.cat([first, second]), torch.arange(len(first), device=first.device).repeat(2), temperature
    )


def dot_regression(features: Tensor, targets: Tensor) -> Tensor:
    """The mean over rows of 1/2 (cos(h, p) - 1)^2: rows are turned towards fixed prototypes, and none is pushed from another.

    features, targets: (rows, d), the prototype of each row's class beside it. Both are normalised here.

    >>> round(dot_regression(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.6, 0.8]])).item(), 4)
    0.08

    Reference: Yang et al. (2023), NC-FSCIL, arXiv 2302.03004.
    """
    return 0.5 * ((normalised(features) * normalised(targets)).sum(1) - 1.0).square().mean()


def logit_distillation(new: Tensor, old: Tensor, columns: Tensor) -> Tensor:
    """The mean of (new - old)^2 over rows and over columns, which may repeat: column c weighs as often as it is named.

    new, old: (rows, classes); columns: (count,) int64.

    >>> new, old = torch.tensor([[1.0, 2, 3], [0, 1, -1]]), torch.tensor([[1.0, 1, 3], [2, 1, -2]])
    >>> logit_distillation(new, old, torch.tensor([0, 1, 1, 0])).item()
    1.25

    Reference: Lin et al. (2023), arXiv 2309.15038 (proxy-based contrastive distillation).
    """
    weights = counts_of(columns, new.shape[1]).to(new.dtype) / len(columns)
    return ((new - old) ** 2 @ weights).mean()


def relation_distillation(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """How rows relate to each other should stay: the mean cross-entropy of the old relation softmax with the new one.

        p_ij = softmax over j != i of f_i f_j / T,   loss = mean_i - sum_j p_old_ij log p_new_ij

    new, old: (rows, d) features, normalised here; old takes no gradient. 0 for a single row, which has no relations.
    Reference: Lin et al. (2023), arXiv 2309.15038 (sample-based contrastive distillation).
    """
    if len(new) < 2:
        return new.sum() * 0.0
    target = _relations(normalised(old.detach()), temperature).softmax(1)
    return -(target * _relations(normalised(new), temperature).log_softmax(1)).sum(1).mean()


def _relations(features: Tensor, temperature: float) -> Tensor:
    """(rows, rows - 1): products of each row with every other one; the diagonal is cut out without a mask."""
    count = len(features)
    products = features @ features.T / temperature
    return products.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)


def soft_distillation(new: Tensor, old: Tensor, temperature: float = 2.0) -> Tensor:
    """The mean cross-entropy of old scores with new ones, both softened: - sum_c softmax(old / T)_c log softmax(new / T)_c.

    new, old: (rows, classes); old takes no gradient. Reference: Li & Hoiem (2017), arXiv 1606.09282, equation 2.
    """
    return cross_entropy(new / temperature, (old.detach() / temperature).softmax(1))
