"""The diagonal of the Fisher information: how much each weight matters for what a model says, in four usual forms.

    F_i = mean over rows of  sum_c p_c (d log p_c / d w_i)^2      exact:     over all labels, as likely as the model holds them
                             (d log p_s / d w_i)^2                sampled:   of one label s drawn from the model (unbiased)
                             (d log p_y / d w_i)^2                empirical: of the row's own label y
                             p_y (d log p_y / d w_i)^2            released:  the same, weighted by the probability of that label

The last is the form in the public code of several continual learners. Rows go through the model many at a time (vmap).
References: Kunstner et al. (2019), Limitations of the empirical Fisher approximation, arXiv 1905.12558; Wang et al. (2024),
arXiv 2403.13249 (released).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.functional import log_softmax, one_hot

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import X, map_x, rows, size
from everlearn.core.flat import cut, flat
from everlearn.core.random import generator

KINDS = ("exact", "sampled", "empirical", "released")
CHUNK = 32  # rows whose gradients are held at once: more saves little time and takes more memory


def fisher_diagonal(
    model: nn.Module,
    parameters: Sequence[Tensor],
    x: X,
    y: Tensor,
    kind: str = "exact",
    random: torch.Generator | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """(weights,) diagonal Fisher information, the mean over the rows of x, for all numbers of `parameters` in one row.

    model: maps x to (batch, classes) scores, and is put into evaluation mode; parameters: some of its own, in any order; y: (batch,)
    int64 labels, which "exact" and "sampled" do not look at; random: draws the labels of "sampled"; chunk: rows whose gradients are
    held at once (chunk * weights numbers). "exact" takes a backward pass per class, the others one. A model that vmap cannot take
    (decisions that depend on values, say) is differentiated row by row, with the same result.

    Raises ArgumentError for another kind, for parameters that are not the model's, and for rows that do not match their labels.

    >>> model = nn.Linear(2, 3, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    >>> fisher_diagonal(model, [model.weight], x, y, "empirical").view(3, 2)[:2]
    tensor([[0.4444, 1.7778],
            [0.1111, 0.4444]])
    """
    names = _names(model, parameters)
    _check(kind, x, y, random)
    check_count("fisher_diagonal", "chunk", chunk)
    model.eval()
    total = torch.zeros(sum(tensor.numel() for tensor in parameters), device=parameters[0].device)
    by_rows = fisher_of_rows
    for start in range(0, size(x), chunk):
        part = rows(x, slice(start, start + chunk))
        weights, labels = _labels(model, part, y[start : start + chunk], kind, random)
        try:
            total += by_rows(model, names, parameters, part, weights, labels)
        except (RuntimeError, ValueError, NotImplementedError):  # what vmap says of models that it cannot take
            if by_rows is fisher_row_by_row:
                raise
            by_rows = fisher_row_by_row
            total += by_rows(model, names, parameters, part, weights, labels)
    return total / size(x)


def fisher_of_rows(
    model: nn.Module, names: Sequence[str], parameters: Sequence[Tensor], x: X, weights: Tensor, labels: Tensor
) -> Tensor:
    """(weights,) sum over rows and their labels of weight * (d log p(label) / d w)^2, all rows at once.

    weights, labels: (batch, count) float and int64, the labels over which a row's Fisher is taken.
    """
    held = {name: tensor.detach() for name, tensor in zip(names, parameters, strict=True)}

    def of_row(row: X, weight: Tensor, label: Tensor) -> dict[str, Tensor]:
        alone = map_x(lambda value: value[None], row)
        scores, pull = vjp(lambda held: log_softmax(functional_call(model, held, (alone,))[0], dim=0), held)
        chosen = one_hot(label, scores.shape[-1]).to(scores.dtype)
        found: dict[str, Tensor] = {}
        for place in range(label.shape[0]):
            slopes = pull(chosen[place])[0]
            for name, slope in slopes.items():
                share = weight[place] * slope.square()
                found[name] = found[name] + share if place else share
        return found

    # the random numbers of a training-mode layer would differ by row; in evaluation mode none are drawn
    found = vmap(of_row, in_dims=(0, 0, 0))(x, weights, labels)
    return flat([found[name].sum(0) for name in names])


def fisher_row_by_row(
    model: nn.Module, names: Sequence[str], parameters: Sequence[Tensor], x: X, weights: Tensor, labels: Tensor
) -> Tensor:
    """What `fisher_of_rows` gives, a row and a label at a time: any model can do that."""
    total = torch.zeros(sum(tensor.numel() for tensor in parameters), device=parameters[0].device)
    for place in range(size(x)):
        scores = log_softmax(model(rows(x, slice(place, place + 1)))[0], dim=0)
        count = labels.shape[1]
        for turn in range(count):
            slopes = torch.autograd.grad(
                scores[labels[place, turn]],
                parameters,
                retain_graph=turn < count - 1,
                allow_unused=True,
                materialize_grads=True,
            )
            total += weights[place, turn] * flat(slopes).square()
    return total


def _labels(model: nn.Module, x: X, y: Tensor, kind: str, random: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """(weights, labels), both (batch, count): the labels over which each row's Fisher is taken, and how much each counts."""
    if kind == "empirical":
        return torch.ones(len(y), 1, device=y.device), y[:, None]
    with torch.no_grad():
        chance = log_softmax(model(x), dim=1).exp()
    if kind == "exact":
        return chance, torch.arange(chance.shape[1], device=chance.device).expand(chance.shape)
    if kind == "released":
        return chance.gather(1, y[:, None]), y[:, None]
    drawn = torch.multinomial(chance.cpu(), 1, generator=random).to(chance.device)
    return torch.ones_like(drawn, dtype=chance.dtype), drawn


def _names(model: nn.Module, parameters: Sequence[Tensor]) -> list[str]:
    """What the model calls these parameters."""
    known = {id(tensor): name for name, tensor in model.named_parameters()}
    strange = [tuple(tensor.shape) for tensor in parameters if id(tensor) not in known]
    if strange or not parameters:
        given = f"one of shape {strange[0]} is not" if strange else "none was given"
        raise ArgumentError(
            f"fisher_diagonal: parameters must be some of the model's own, {given}. Use list(model.parameters())."
        )
    return [known[id(tensor)] for tensor in parameters]


def _check(kind: str, x: X, y: Tensor, random: torch.Generator | None) -> None:
    if kind not in KINDS:
        raise ArgumentError(f"fisher_diagonal: kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    if size(x) != len(y) or not len(y):
        raise ArgumentError(f"fisher_diagonal: x and y must have as many rows, at least one, got {size(x)} and {len(y)}.")
    if kind == "sampled" and random is None:
        raise ArgumentError('fisher_diagonal: kind="sampled" draws labels; pass random=torch.Generator().manual_seed(0).')


class FisherDiagonal:
    """The diagonal Fisher information of a model in a training loop of one's own.

    >>> model = nn.Linear(4, 3)
    >>> batches = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)) for _ in range(3)]
    >>> fisher = FisherDiagonal(model)
    >>> fisher.estimate(batches, "exact", max_examples=20).shape, sorted(fisher.by_name())
    (torch.Size([15]), ['bias', 'weight'])
    """

    def __init__(self, model: nn.Module, seed: int = 0):
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.seed = seed
        self.row: Tensor | None = None  # (weights,) the last estimate

    def estimate(self, batches: Iterable[tuple[X, Tensor]], kind: str = "exact", max_examples: int | None = 500) -> Tensor:
        """(weights,) the mean over the first `max_examples` rows (None: all) of batches (x, y), as `fisher_diagonal` gives it.

        The model is put back into the mode in which it was. Raises ArgumentError where there are no rows.
        """
        random = generator(self.seed, "fisher")
        mode, total, count = self.model.training, 0.0, 0
        for x, y in batches:
            left = len(y) if max_examples is None else min(len(y), max_examples - count)
            if left <= 0:
                break
            part = rows(x, slice(0, left))
            total = total + left * fisher_diagonal(self.model, self.parameters, part, y[:left], kind, random)
            count += left
        self.model.train(mode)
        if not count:
            raise ArgumentError("FisherDiagonal: estimate needs at least one row, and the batches have none.")
        self.row = total / count
        return self.row

    def by_name(self) -> dict[str, Tensor]:
        """The last estimate in the shapes of the weights, by their names."""
        if self.row is None:
            raise ArgumentError("FisherDiagonal: there is no estimate yet. Call estimate(batches) first.")
        names = _names(self.model, self.parameters)
        return dict(zip(names, cut(self.row, self.parameters), strict=True))
