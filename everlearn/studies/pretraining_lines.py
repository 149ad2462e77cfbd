"""Lines of pre-training through domains, as the study of infinite schedules measures them.

    each domain takes so many updates; a schedule that can anneal spends the last fifth of them on a fork, which is delivered, and the next
    domain starts from the main line: all schedules see as many rows, and such a main line learns from four fifths of them
    learned     mean over domains k of the held-out loss on k of the copy delivered after k
    forgotten   mean over all k but the last of (loss on k of the copy delivered last) - (loss on k of the copy delivered after k)
    rise        where no domain differs: highest loss within a phase less the loss of the copy delivered before it

Reference: Singh et al. (2025), Beyond cosine decay, CoLLAs, arXiv 2503.02844.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.core.errors import ArgumentError, closest
from everlearn.data.dataset import Data
from everlearn.data.pretraining import Domain, ImageDomain
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.optim.noisy_quadratic import NoisyQuadratic
from everlearn.optim.rates import InfiniteLR
from everlearn.optim.schedules import Constant, Infinite, Join, RepeatedCosine, Schedule, Warmup, wsd

WARM, COOL = 0.05, 0.4  # end of the warm-up and of the cool-down, as shares of a phase; both in the first one
FORK = 0.2  # the share of a phase that its delivered fork takes
LEAST = 0.1  # the lowest rate, as a share of the highest
FLAT = 1e-4  # the least rise whose logarithm is taken
MEAN, SPREAD = 0.1307, 0.3081  # of the pixels of MNIST, as shares of white
SCHEDULES = ("cosine", "infinite .25", "infinite .5", "infinite .75", "WSD", "no re-warm", "constant")


def schedule_of(name: str, lr: float, steps: int, least: float = LEAST) -> Schedule:
    """The schedule of a name with its highest rate, for phases of so many steps. least: its lowest rate as a share of the highest.

    >>> schedule_of("infinite .5", 0.008, 400)
    infinite(0.008, warmup=20, cooldown_end=160)
    """
    warm = max(1, round(WARM * steps))
    cosine = RepeatedCosine(lr, steps, warm, min_ratio=least)
    if name.startswith("infinite ."):
        return Infinite(lr, warm, round(COOL * steps), const_ratio=float(name.split()[1]), min_ratio=least)
    known: dict[str, Schedule] = {
        "cosine": cosine,
        "WSD": wsd(lr, warm, min_lr=least * lr),
        "no re-warm": Join(cosine, steps, Constant(least * lr)),
        "constant": Warmup(lr, warm),
    }
    if name not in known:
        raise ArgumentError(f"schedule: {closest('schedule', name, SCHEDULES)}")
    return known[name]


@dataclass
class Way:
    """What a line did. delivered[j][k]: held-out loss of domain k of the copy delivered after domain j; model: the last copy; highest[j]:
    the highest loss seen within phase j; curves: [[update, value]], updates of forks counted in their place."""

    delivered: list[list[float]]
    model: nn.Module
    highest: list[float]
    curves: dict[str, list[list[float]]] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean over domains, of the copy delivered last."""
        return _mean(self.delivered[-1])

    @property
    def learned(self) -> float:
        """Mean over domains, each of the copy delivered after it."""
        return _mean([row[number] for number, row in enumerate(self.delivered)])

    @property
    def forgotten(self) -> float:
        """By how much losses on earlier domains rose since the copy delivered after each."""
        rises = [self.delivered[-1][number] - row[number] for number, row in enumerate(self.delivered[:-1])]
        return _mean(rises) if rises else 0.0

    @property
    def rise(self) -> float:
        """Mean over all phases but the first: the highest loss on the first domain within, less the one delivered before."""
        return _mean([high - before[0] for high, before in zip(self.highest[1:], self.delivered, strict=False)])


def walk(
    line: ContinualPretrainer,
    domains: Sequence[Domain],
    steps: int,
    judge: Callable[[nn.Module, int], float],
    *,
    every: int = 0,
    from_copy: bool = False,
) -> Way:
    """Lead a line through domains.

    judge: (model, number of the domain) -> loss; every: updates between two looks at the loss on the first domain and the rate (0: none);
    from_copy: go on from the annealed copy, as one should not, and not from the main line.
    """
    fork = round(FORK * steps) if isinstance(line.scheduler, InfiniteLR) else 0
    way, done, rates, losses = Way([], line.model, []), 0, [], []

    def look(seen: ContinualPretrainer, loss: float) -> None:
        nonlocal done
        done += 1
        if every and done % every == 0:
            rates.append([float(done), seen.rate])
            losses.append([float(done), judge(seen.model, 0)])
            way.highest[-1] = max(way.highest[-1], losses[-1][1])

    for domain in domains:
        way.highest.append(-math.inf)
        line.phase(domain, steps - fork, watch=look, allow_rewarm=from_copy)
        if from_copy:
            line.anneal(fork, watch=look)
        way.model = line.deliver(0 if from_copy else fork, watch=look)
        way.delivered.append([judge(way.model, number) for number in range(len(domains))])
    way.curves = {"rate": rates, "loss": losses} if every else {}
    return way


def quadratic(schedule: str, shift: float = 0.0, steps: int = 200, lr: float = 0.1) -> tuple[list[float], list[float]]:
    """(loss delivered after, highest loss within) each of three phases of exact moments, judged on the first task; targets 0, shift, 0.

    Curvature and noise 1, mean 5 and variance 0 at the start, the lowest rate a hundredth of the highest.

    >>> delivered, highest = quadratic("cosine")
    >>> [round(value, 6) for value in (*delivered, *highest[1:])]
    [0.005074, 0.005074, 0.005074, 0.025674, 0.025674]
    """
    rate, judge = schedule_of(schedule, lr, steps, least=0.01), NoisyQuadratic()
    fork = round(FORK * steps) if isinstance(rate, Infinite) else 0
    state, done, delivered, highest = (5.0, 0.0), 0, [], []
    for target in (0.0, shift, 0.0):
        task = NoisyQuadratic(target)
        main = task.descend(*state, [rate(step) for step in range(done, done + steps - fork)])
        state, done = main[-1], done + steps - fork
        annealed = [rate.annealed(rate.line(done), step / fork) for step in range(fork)] if fork else []
        losses = [judge.loss(*seen) for seen in [*main, *task.descend(*state, annealed)]]
        delivered.append(losses[-1])
        highest.append(max(losses))
    return delivered, highest


class Classified:
    """Cross-entropy of a label that stands before the numbers of its row: (rows, 1 + features)."""

    name: ClassVar[str] = "classified"

    def draw(self, model: nn.Module, x: Tensor, random: torch.Generator) -> tuple[Tensor, ...]:
        """The rows themselves."""
        return (x,)

    def loss(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The mean over rows."""
        return functional.cross_entropy(model(inputs[0][:, 1:]), inputs[0][:, 0].long())

    def tokens(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The scores, one token to a row."""
        return model(inputs[0][:, 1:])[:, None]


def standardised(images: Tensor) -> Tensor:
    """Pixels of digits with mean 0 and variance 1."""
    return (images.float() / 255.0 - MEAN) / SPREAD


def pairs_of_digits(data: Data) -> list[ImageDomain]:
    """Five domains of two digits each; the test part is what is held out."""
    return [
        ImageDomain(
            f"{low}{low + 1}", standardised(data.x[_among(data.y, low)]), standardised(data.test_x[_among(data.test_y, low)])
        )
        for low in range(0, 10, 2)
    ]


def _among(labels: Tensor, low: int) -> Tensor:
    return (labels == low) | (labels == low + 1)


@torch.no_grad()
def probe(model: MaskedAutoencoder, data: Data) -> float:
    """Accuracy, on the test part, of a ridge classifier over ten digits, fitted to what the encoder says of the rows to learn from."""
    from sklearn.linear_model import RidgeClassifier

    told = [torch.cat([model.encode(part) for part in standardised(x).split(500)]).numpy() for x in (data.x, data.test_x)]
    return float(RidgeClassifier(1.0).fit(told[0], data.y.numpy()).score(told[1], data.test_y.numpy()))


def judged(objective, domains: Sequence[Domain], most: int | None = None) -> Callable[[nn.Module, int], float]:
    """A judge: the held-out loss of a domain."""
    return lambda model, number: held_out_loss(model, objective, domains[number], rows=256, most=most)


def ln_rise(rise: float) -> float:
    """The logarithm of a rise, at least that of 0.0001."""
    return math.log(max(rise, FLAT))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
