"""What a few-shot learner does on rows that it holds all at once: contrast them before the base session, tune on them in a
later one.

    pre-training   NT-Xent of two views of each row
    tuning         CE(scale * cos(f(x), [old prototypes, fixed; new prototypes, learned])),   w <- w where the mask is 0

The mask is put on the update, not on the gradient: neither momentum nor weight decay nor Adam's scaling moves a masked
weight. References: Chen et al. (2020), arXiv 2002.05709; Kang et al. (2023), On the soft-subnetwork for few-shot class
incremental learning, arXiv 2209.07529.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.events import X, rows, size
from everlearn.core.flat import cut
from everlearn.data.views import Viewer, is_image
from everlearn.learners.few_shot_answers import Answers
from everlearn.learners.few_shot_network import Recognizer
from everlearn.learners.few_shot_tricks import Finetune
from everlearn.nn.losses import nt_xent
from everlearn.nn.prototypes import directions
from everlearn.nn.pseudo_classes import PseudoClasses
from everlearn.optim.descent import Descent

MOST = 256  # rows of one step of tuning


def pretrain(descent: Descent, x: X, epochs: int, batch: int, temperature: float, viewer: Viewer) -> None:
    """Train the encoder of `descent.model`, a Recognizer with a projection, to know rows again in other views."""
    network: Recognizer = descent.model
    for _ in range(epochs):
        order = torch.randperm(size(x), generator=viewer.random)
        for start in range(0, size(x), batch):
            some = rows(x, order[start : start + batch])
            first, second = viewer(some), viewer(some)
            descent(
                lambda first=first, second=second: nt_xent(
                    network.projected(network.features(first)), network.projected(network.features(second)), temperature
                )
            )


def tunable(body: nn.Module) -> list[nn.Parameter]:
    """The weights of an encoder that sessions may tune: all but those of batch norm."""
    kept = {
        id(weight)
        for layer in body.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for weight in layer.parameters(recurse=False)
    }
    return [weight for weight in body.parameters() if weight.requires_grad and id(weight) not in kept]


class MaskedUpdate:
    """Steps of an optimiser that leave weights outside a mask as they were, to the bit.

    parameters: those under the mask, one after the other; mask: (weights,) bool over them, None for all.

    >>> weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> step = MaskedUpdate(torch.optim.SGD([weight], lr=1.0, weight_decay=0.5), [weight], torch.tensor([False, True]))
    >>> step((torch.zeros(2),)), weight.tolist()
    (None, [1.0, 1.0])
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], mask: Tensor | None):
        self.optimizer = optimizer
        self.parameters = parameters
        self.masks: list[Tensor] = []
        if mask is not None:
            self.masks = cut(mask, parameters)
        self.before = [weight.detach().clone() for weight in parameters] if self.masks else []

    def __call__(self, gradients: tuple[Tensor | None, ...]) -> None:
        """One step along these gradients of the parameters."""
        for weight, gradient in zip(self.parameters, gradients, strict=True):
            weight.grad = None if gradient is None else gradient.contiguous().view_as(weight)
        self.optimizer.step()
        with torch.no_grad():
            for weight, mask, before in zip(self.parameters, self.masks, self.before, strict=False):
                weight.copy_(torch.where(mask, weight, before))
        for weight in self.parameters:
            weight.grad = None


def teach(
    answers: Answers, x: X, y: Tensor, labels: list[int], *, given: Finetune | None, mask: Tensor | None, viewer: Viewer
) -> None:
    """Learn some classes from the rows of a session: tune where it is asked for, then let their prototypes be the rows'
    means.

    labels: which classes among y (rows,) int64; given: how to tune, None not at all (a linear classifier is tuned at any
    rate, its encoder only where it is asked for); mask: over the encoder's weights, None for all. Rows of known classes
    take no part in tuning an encoder to new ones.
    """
    chosen = torch.isin(y, torch.tensor(labels, device=y.device))
    x, y = rows(x, chosen), y[chosen]
    network = answers.network
    new = [label for label in labels if label not in answers.known]
    if answers.head == "linear":
        known = torch.tensor([*answers.known, *new], device=y.device)
        encoder = given is not None
        tune_linear(network, x, y, known, given=given or Finetune(), encoder=encoder, mask=mask, viewer=viewer)
    elif given is not None and new:
        names = torch.tensor(sorted(new), device=y.device)
        fresh = torch.isin(y, names)
        mine, place = rows(x, fresh), torch.searchsorted(names, y[fresh])
        start = answers.means(mine, y[fresh], sorted(new))
        old = answers.vectors[1] if answers.known else start[:0]
        if answers.assigned:  # rows are pulled to the prototypes that will answer, which stay where they are
            answers.match(sorted(new), start)
            start, given = answers.targets(sorted(new)), replace(given, prototype_lr=0.0)
        tune(network, mine, place, old, start, given=given, mask=mask, pseudo=answers.pseudo, viewer=viewer)
    if network.kind == "fixed" and new and not (answers.assigned and given is not None):
        answers.match(new, answers.means(x, y, new))
    answers.take(*answers.embed(x, y))


def tune(
    network: Recognizer,
    x: X,
    places: Tensor,
    old: Tensor,
    new: Tensor,
    *,
    given: Finetune,
    mask: Tensor | None,
    pseudo: PseudoClasses,
    viewer: Viewer,
) -> None:
    """Tune the encoder on the rows of a session, in evaluation mode throughout.

    places: (rows,) int64, which of the new prototypes each row belongs to, by class; old: (n, d), fixed; new: (m * M, d),
    where they start from, M the number of pseudo-classes; mask: over the weights of `tunable(network.body)`.
    """
    weights = tunable(network.body)
    if not weights or (mask is not None and not bool(mask.any())):
        return
    fresh = nn.Parameter(directions(new).clone())
    encoder = MaskedUpdate(given.rule(given.lr).make(weights), weights, mask)
    prototypes = MaskedUpdate(given.rule(given.answering_lr).make([fresh]), [fresh], None)
    network.eval()
    for _ in range(given.steps):
        some, labels = _drawn(x, places, viewer)
        inputs, labels = pseudo(some), pseudo.labels(labels) + len(old)
        with torch.enable_grad():
            h = network.features(inputs)
            scores = network.scale * directions(h) @ directions(torch.cat([old, fresh])).T
            gradients = torch.autograd.grad(cross_entropy(scores, labels), [*weights, fresh], allow_unused=True)
        encoder(gradients[:-1])
        prototypes(gradients[-1:])


def tune_linear(
    network: Recognizer,
    x: X,
    y: Tensor,
    known: Tensor,
    *,
    given: Finetune,
    encoder: bool,
    mask: Tensor | None,
    viewer: Viewer,
) -> None:
    """Tune a linear classifier on the rows of a session among the known classes (int64), and the encoder if asked."""
    weights = tunable(network.body) if encoder else []
    layer = [network.weight, network.bias]
    step_layer = MaskedUpdate(given.rule(given.answering_lr).make(layer), layer, None)
    step_encoder = MaskedUpdate(given.rule(given.lr).make(weights), weights, mask) if weights else None
    barred = torch.full((len(network.weight),), -torch.inf, device=network.weight.device)
    barred[known] = 0.0
    network.eval()
    for _ in range(given.steps):
        some, labels = _drawn(x, y, viewer)
        with torch.enable_grad():
            scores = network.scores(network.features(some)) + barred
            gradients = torch.autograd.grad(cross_entropy(scores, labels), [*layer, *weights], allow_unused=True)
        step_layer(gradients[:2])
        if step_encoder is not None:
            step_encoder(gradients[2:])


def _drawn(x: X, y: Tensor, viewer: Viewer) -> tuple[X, Tensor]:
    """The rows of one step, images in random views."""
    if len(y) > MOST:
        order = torch.randperm(len(y), generator=viewer.random)[:MOST]
        x, y = rows(x, order), y[order]
    return (viewer(x) if viewer.views is not None and is_image(x) else x), y
