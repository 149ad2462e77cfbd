"""The value of an output term on one set of rows: the mean over rows of its Bregman divergence, from scores where that is stabler.

    negentropy on probabilities       KL of softmaxes from log-softmaxes; with labels, the cross-entropy
    binary negentropy on sigmoids     binary cross-entropy with logits, less the entropy of the target
    others                            D(h, z) or D(z, h) of the views themselves

Reference: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249.
"""

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    logsigmoid,
    mse_loss,
    one_hot,
)

from everlearn.learners.objective import OutputTerm
from everlearn.nn.bregman import (
    BinaryNegEntropy,
    LogNorm,
    NegEntropy,
    Squared,
    bregman,
    sigmoid_divergence,
    softmax_divergence,
)


def output_penalty(term: OutputTerm, output: Tensor, held: Tensor | None, columns: Tensor | None = None) -> Tensor:
    """The term's value without its weight.

    output: (rows, classes) scores, or (rows, d) features for that view; held: what they are held to before any view is taken,
    (rows, classes) scores or features, (rows,) int64 labels, None for the uniform distribution; columns: the classes that take
    part, None for all.

    >>> term = OutputTerm(0.5, NegEntropy(), "probs", target="label")
    >>> round(output_penalty(term, torch.zeros(2, 4), torch.tensor([0, 3])).item(), 6)  # log 4
    1.386294
    """
    label = term.target == "label"
    if columns is None and term.reduce == "sum" and label and isinstance(term.potential, NegEntropy):
        return cross_entropy(output if term.temperature == 1 else output / term.temperature, held)
    plain = term.view in ("logits", "features") and isinstance(term.potential, Squared)
    if columns is None and term.reduce == "mean" and plain:
        return mse_loss(output, held)
    classes = output.shape[1]
    coins = isinstance(term.potential, BinaryNegEntropy) and term.order == "target_first" and term.temperature == 1
    if coins and term.target == "old_model" and term.reduce == "sum":
        return kept_coins(output, held, columns)
    if label:
        held = one_hot(held, classes).to(output.dtype)
    if columns is not None:
        output = output[:, columns]
        held = None if held is None else held[:, columns]
    if term.temperature != 1:
        output = output / term.temperature
        held = held if held is None or label else held / term.temperature
    value = _divergence(term, output, held).mean()
    return value / output.shape[1] if term.reduce == "mean" else value


def kept_coins(output: Tensor, held: Tensor, columns: Tensor | None) -> Tensor:
    """The mean over rows of the divergences of coins, those of the scores held to first; columns are a weight, not a copy."""
    weight = None if columns is None else output.new_zeros(output.shape[1]).index_fill_(0, columns, 1.0)
    chance = held.sigmoid()
    crossed = binary_cross_entropy_with_logits(output, chance, weight, reduction="sum")
    return (crossed - binary_cross_entropy_with_logits(held, chance, weight, reduction="sum")) / len(output)


def _divergence(term: OutputTerm, output: Tensor, held: Tensor | None) -> Tensor:
    """(rows,): held are scores, features, one-hot rows where the target is a label, None where it is uniform."""
    first = term.order == "model_first"
    from_scores = term.target in ("old_model", "stored_logits")
    if isinstance(term.potential, NegEntropy):
        if from_scores and first:
            return LogNorm("categorical").divergence(held, output)  # KL(g, z) from two rows of scores
        return softmax_divergence(output, _seen(term, output, held), first)
    if isinstance(term.potential, BinaryNegEntropy):
        if from_scores and first:
            chance = output.sigmoid()
            falls, stays = logsigmoid(output) - logsigmoid(held), logsigmoid(-output) - logsigmoid(-held)
            return (chance * falls + (1.0 - chance) * stays).sum(1)
        return sigmoid_divergence(output, _seen(term, output, held), first)
    view, target = _view(term.view, output), _seen(term, output, held)
    return bregman(view, target, term.potential) if first else bregman(target, view, term.potential)


def _seen(term: OutputTerm, output: Tensor, held: Tensor | None) -> Tensor:
    """What is held to, in the term's view."""
    if held is None:
        return torch.full_like(output, 1.0 / output.shape[1] if term.view == "probs" else 0.5, requires_grad=False)
    return held if term.target == "label" else _view(term.view, held)


def _view(view: str, scores: Tensor) -> Tensor:
    if view == "probs":
        return scores.softmax(1)
    return scores.sigmoid() if view == "sigmoid" else scores


def binary_task_loss(scores: Tensor, labels: Tensor, allowed: Tensor | None) -> Tensor:
    """The mean over rows of the binary cross-entropies summed over classes, those with allowed (classes,) 1 where it is given.

    >>> round(binary_task_loss(torch.zeros(1, 3), torch.tensor([1]), torch.tensor([1.0, 1.0, 0.0])).item(), 6)  # 2 ln 2
    1.386294
    """
    targets = one_hot(labels, scores.shape[1]).to(scores.dtype)
    return binary_cross_entropy_with_logits(scores, targets, weight=allowed, reduction="sum") / len(labels)
