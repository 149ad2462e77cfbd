"""Label shift: how often each class occurs changes over time, what a class looks like does not.

    proportions of phase k ~ Dirichlet(concentration, ..., concentration);     class of a row ~ proportions of its phase

References: Lipton et al. (2018), Detecting and correcting for label shift, arXiv 1802.03916; Wu et al. (2021), Online
adaptation to label distribution shift, arXiv 2107.04520.
"""

from itertools import pairwise

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import HeldOutSets, Indexed, Session
from everlearn.data.naming import check_data, check_sizes, fraction_of, named, present

KINDS = ("sudden", "gradual", "recurring")


@named
def label_shift(
    data: Data,
    *,
    kind: str = "sudden",
    phases: int = 4,
    concentration: float = 0.3,
    batch: int = 32,
    deployed: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Class proportions that change from phase to phase, each drawn from a Dirichlet distribution by the seed.

    kind: "sudden" changes at once; "gradual" slides linearly over the first half of each phase; "recurring" goes back and forth
    between two mixes. concentration: below 1 few classes rule, large values are near to equal. As many rows as the training part
    has; rows of a class come without repetition until they are used up, then shuffled anew. Held out is a test part with equal
    classes, judged after each phase. Raises ArgumentError, DataError.
    """
    check_data("label_shift", data)
    check_sizes("label_shift", batch=batch, test=test)
    check_count("label_shift", "phases", phases)
    check_range("label_shift", "concentration", concentration, 1e-6)
    check_range("label_shift", "deployed", deployed, 0.0, 1.0)
    if kind not in KINDS:
        raise ArgumentError(f"label_shift: kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    train, judged = data.split(test, derive(seed, "test"))
    if phases > len(train):
        raise ArgumentError(
            f"label_shift: {phases} phases need as many rows, and {data.name} has {len(train)} to learn from."
        )
    starts = [len(train) * number // phases for number in range(phases + 1)]
    sessions = [Session(start, end - start) for start, end in pairwise(starts)]
    classes = present(train)
    shares = proportions(len(classes), kind, phases, concentration, seed)
    source = phase_of_rows([session.count for session in sessions], kind, seed)
    labels = torch.tensor(classes)[draw_classes(shares, source, seed)]
    held_out = HeldOutSets(*balanced_test(judged), ["test"])
    stream = Indexed(train, sessions, batch=batch, order=draw_rows(train.y, labels, seed), held_out=held_out)
    stream.headline = "prequential"
    stream.deployed = fraction_of(len(stream), deployed)
    return stream


def proportions(classes: int, kind: str, phases: int, concentration: float, seed: int) -> numpy.ndarray:
    """(phases, classes) shares that sum to 1."""
    random = numpy.random.default_rng(derive(seed, "proportions"))
    shares = random.dirichlet(numpy.full(classes, float(concentration)), size=2 if kind == "recurring" else phases)
    return shares[numpy.arange(phases) % 2] if kind == "recurring" else shares


def phase_of_rows(counts: list[int], kind: str, seed: int) -> numpy.ndarray:
    """The phase whose proportions each row is drawn from. Where changes are gradual, a row in the first half of a phase still
    belongs to the phase before with a probability that falls linearly from 1 to 0."""
    phase = numpy.repeat(numpy.arange(len(counts)), counts)
    if kind != "gradual":
        return phase
    random = numpy.random.default_rng(derive(seed, "phases"))
    within = numpy.concatenate([(numpy.arange(count) + 0.5) / count for count in counts])
    before = random.random(len(phase)) < 1.0 - 2.0 * within
    return phase - (before & (phase > 0))


def draw_classes(shares: numpy.ndarray, source: numpy.ndarray, seed: int) -> numpy.ndarray:
    """The class number of each row, drawn from the shares of its phase."""
    draws = numpy.random.default_rng(derive(seed, "labels")).random(len(source))
    labels = numpy.empty(len(source), dtype=numpy.int64)
    for number, share in enumerate(shares):
        mine = source == number
        edges = share.cumsum()
        labels[mine] = numpy.searchsorted(edges / edges[-1], draws[mine], side="right")
    return labels


def draw_rows(y: Tensor, labels: Tensor, seed: int) -> Tensor:
    """A row of `y` for each wanted label: every row of the class once before any comes again, each round shuffled anew."""
    order = torch.empty(len(labels), dtype=torch.int64)
    random = generator(seed, "rows")
    for label in labels.unique():
        own = (y == label).nonzero().flatten()
        places = (labels == label).nonzero().flatten()
        rounds = -(-len(places) // len(own))
        deck = torch.cat([own[torch.randperm(len(own), generator=random)] for _ in range(rounds)])
        order[places] = deck[: len(places)]
    return order


def balanced_test(data: Data) -> tuple[Data, list[Session]]:
    """The first rows of each class, as many as the rarest class that occurs has."""
    counts = torch.bincount(data.y)
    least = int(counts[counts > 0].min())
    index = torch.cat([(data.y == label).nonzero().flatten()[:least] for label in present(data)])
    return data.take(index.sort().values), [Session(0, len(index))]
