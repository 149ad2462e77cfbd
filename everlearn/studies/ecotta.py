"""The study of EcoTTA: what meta networks beside a frozen network gain under lasting corruption, and in how much memory.

    kept[EcoTTA] <= 0.60 kept[Tent]                                        bytes held for backward, measured
    accuracy[EcoTTA] >= accuracy[batch statistics] + 0.002,  accuracy[source] + 0.20
    clean[EcoTTA] >= clean[batch statistics] - 0.005,  clean[Tent at ten times its rate] + 0.003 (full scale)

Digits under corruptions at severity 5, one type after the other, all of them again and again, without a reset. All arms start from
one network, trained once for each seed on clean rows; answers are scored as given, before the step. Without its warm-up EcoTTA must
not lead batch statistics in the first round (the negative control). The baselines that take steps are tuned, EcoTTA is not.

Reference: Song et al. (2023), EcoTTA, CVPR, arXiv 2303.01904.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from everlearn.core.budget import activation_bytes
from everlearn.core.events import Batch
from everlearn.core.learner import Adapter, Learner
from everlearn.core.random import generator, isolated
from everlearn.core.spec import build, parse
from everlearn.core.state import capture
from everlearn.core.stream import Schema
from everlearn.data.corruptions import TYPES, corrupt
from everlearn.data.known_sets import mnist10k
from everlearn.learners.bn_stats import BNStats
from everlearn.learners.cotta import CoTTA
from everlearn.learners.eata import EATA
from everlearn.learners.ecotta import EcoTTA
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.frozen import Frozen
from everlearn.learners.sar import SAR
from everlearn.learners.tent import Tent
from everlearn.nn.networks import resnet18
from everlearn.optim.optimizers import SGD
from everlearn.studies.shared import shared
from everlearn.studies.study import TUNING_SEEDS, Arm, Claim, Measured, Study

WIDTH, BATCH, SEVERITY = 8, 64, 5
ROWS, EPOCHS, RATE = 6000, 3, 0.02  # of source training
WARM_UP_ROWS = 2000
TABLE = "strong_noise"  # noise as strong as on large images: that for small ones barely hurts digits
QUICK_TYPES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "fog",
    "contrast",
    "elastic_transform",
)
QUICK, FULL = 6, 10  # rounds of all types
JUDGED = 192  # test rows of each type and round; all thousand of a half are judged clean
CLASSES = tuple("0123456789")
BY_ROUND = "Error, round by round"


@dataclass(frozen=True)
class Setup:
    """An arm: the learner's call string, its role, settings tried, and its rounds at quick scale (0: it is not measured there)."""

    call: str
    role: str = "part"
    settings: tuple[Mapping[str, Any], ...] = ({},)
    quick: int = 0


def rates(*values: float) -> tuple[Mapping[str, Any], ...]:
    """Settings that differ in their learning rate."""
    return tuple({"lr": value} for value in values)


ECO = "ecotta(partitions=3{})"
SYSTEM, SOURCE, NORMS, TENT, FAST, COLD = (
    "EcoTTA",
    "source",
    "batch statistics",
    "Tent",
    "Tent, ten times its rate",
    "EcoTTA, no warm-up",
)
FREE = "EcoTTA, no distillation"
# by name; the catalogue would import all others too
LEARNERS = {cls.name: cls for cls in (EcoTTA, Frozen, BNStats, Tent, EATA, SAR, CoTTA)}
ARMS = {
    SYSTEM: Setup(ECO.format(""), "system", quick=QUICK),
    SOURCE: Setup("frozen()", "baseline", quick=QUICK),
    NORMS: Setup("bn_stats()", "baseline", quick=QUICK),
    TENT: Setup("tent(lr={lr})", "baseline", rates(0.0003, 0.001, 0.003), quick=1),  # its bytes are claimed
    FAST: Setup("tent(lr=0.01)"),
    COLD: Setup(ECO.format(", warm_up_epochs=0"), "control", quick=1),  # of which only the first round is claimed
    FREE: Setup(ECO.format(", strength=0.0")),
    "EcoTTA, strength 0.25": Setup(ECO.format(", strength=0.25")),
    "EcoTTA, strength 1": Setup(ECO.format(", strength=1.0")),
    "EcoTTA, 4 parts": Setup("ecotta(partitions=4)"),
    "EcoTTA, exact gradients": Setup(ECO.format(", gradient='exact'")),
    "EcoTTA, gradients cut": Setup(ECO.format(", gradient='cut'")),
    "EcoTTA, two passes": Setup(ECO.format(", order='two_pass'")),
    "EATA": Setup("eata(lr={lr})", "baseline", rates(0.0003, 0.001, 0.003)),
    "SAR": Setup("sar(lr={lr})", "baseline", rates(0.001, 0.01, 0.03)),
    "CoTTA": Setup("cotta(lr={lr}, augmentations=8)", "baseline", rates(0.0003, 0.001)),
}


class EcoTTAStudy(Study):
    """Error under corruption that does not end, on clean images afterwards, and bytes kept for each step."""

    name: ClassVar[str] = "ecotta"
    title: ClassVar[str] = "Small networks beside a frozen one adapt without end, in a fraction of the memory"
    reference: ClassVar[str] = "Song et al. (2023), arXiv 2303.01904"
    measures: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy over the stream, answers as given",
        "first round": "the same over the first round of all types",
        "last round": "the same over the last round",
        "drift": "last round less first round",
        "clean": "accuracy on clean test rows after the stream, in batches as it adapts, without a step",
        "kept": "bytes held for the backward pass of a step, as a share of Tent's (measured)",
    }
    axes: ClassVar[Mapping[str, str]] = {BY_ROUND: "round"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three draws of network, order and corruptions."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """All switches and baselines at full scale; at quick scale those of its claims, Tent at its published rate."""
        if scale == "full":
            return tuple(Arm(label, setup.role, setup.settings) for label, setup in ARMS.items())
        return tuple(
            Arm(label, setup.role, rates(0.001) if label == TENT else setup.settings)
            for label, setup in ARMS.items()
            if setup.quick
        )

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """Memory, error, what is kept of clean accuracy, at full scale the long run; and the control."""
        rows = [
            Claim("a step keeps at most 60% of Tent's bytes", "", SYSTEM, -0.60, measure="kept"),
            Claim("it leads batch statistics by at least 0.2%", SYSTEM, NORMS, 0.002),
            Claim("it leads the source network by at least 20%", SYSTEM, SOURCE, 0.20),
            Claim("clean accuracy stays within 0.5% of batch statistics", SYSTEM, NORMS, -0.005, measure="clean"),
        ]
        if scale == "full":
            rows += [
                Claim("clean accuracy stays 0.3% above that of a fast Tent", SYSTEM, FAST, 0.003, measure="clean"),
                Claim("ten rounds do not cost it more than 0.5%", SYSTEM, "", -0.005, measure="drift"),
                Claim("ten rounds cost a fast Tent at least 3%", "", FAST, 0.03, measure="drift"),
                Claim("clean accuracy stays above that of Tent", SYSTEM, TENT, 0.0, measure="clean"),
                Claim("without distillation clean accuracy is lower", SYSTEM, FREE, 0.0, measure="clean"),
            ]
        rows.append(
            Claim(
                "without a warm-up it leads batch statistics at first",
                COLD,
                NORMS,
                0.002,
                control=True,
                measure="first round",
            )
        )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One learner over all rounds; where it is over one only, the measures of the whole stream are left out."""
        learner = _ready(ARMS[arm].call.format(**setting), seed)
        answer = learner.adapt if isinstance(learner, Adapter) else learner.predict
        x, y = _judged(seed)
        rounds = []
        for number in range(ARMS[arm].quick if scale == "quick" else FULL):
            right = count = 0
            for kind in QUICK_TYPES if scale == "quick" else TYPES:
                chosen = torch.randperm(len(y), generator=generator(seed, "rows", number, kind))[:JUDGED]
                seen = corrupt(x[chosen], kind, SEVERITY, size_table=TABLE, seed=1000 * seed + number)
                for rows, labels in zip(seen.split(BATCH), y[chosen].split(BATCH), strict=True):
                    scores = answer(rows)
                    right += int((scores.argmax(1) == labels).sum())
                    count += len(rows)
            rounds.append(right / count)
        scores = {"first round": rounds[0]}
        if len(rounds) > 1:
            scores |= {"accuracy": sum(rounds) / len(rounds), "last round": rounds[-1], "drift": rounds[-1] - rounds[0]}
            scores |= {"clean": _accuracy(learner.predict, x, y)}
        scores |= {"kept": _kept(learner, x) / _kept_by_tent(seed)}
        curve = [[float(place), 1.0 - share] for place, share in enumerate(rounds, start=1)]
        return Measured(scores, {BY_ROUND: curve})


def _ready(call: str, seed: int) -> Learner:
    """The learner of a call string on the trained network, with what it needs of source rows."""
    told = parse(call)
    network = _network(seed)
    network.load_state_dict(_trained(seed))
    options = {key: build(item, {}) for key, item in told.kwargs}
    learner = LEARNERS[told.name](network, seed=seed, **options)
    if isinstance(learner, EATA):
        learner.estimate_fisher(_source()[0][:WARM_UP_ROWS])
    if isinstance(learner, EcoTTA):
        learner.load_state_dict(_warmed(seed, learner.partitions, learner.warm_up_epochs))
        learner.reset()  # by a rate of its own
    return learner


@cache
def _warmed(seed: int, partitions: int, epochs: int) -> dict[str, Any]:
    """The state after the warm-up, which neither strength nor the way of gradients in the adaptation changes."""

    def make() -> dict[str, Any]:
        network = _network(seed)
        network.load_state_dict(_trained(seed))
        learner = EcoTTA(network, partitions=partitions, warm_up_epochs=epochs, seed=seed)
        x, y = _source()
        learner.warm_up(Batch(x[:WARM_UP_ROWS], y[:WARM_UP_ROWS]))
        return learner.state_dict()

    return shared("warmed", seed, partitions, epochs, make=make)


def _network(seed: int) -> nn.Module:
    with isolated(seed, "network"):
        return resnet18(Schema((1, 28, 28), torch.uint8, CLASSES), width=WIDTH)


@cache
def _trained(seed: int) -> dict[str, Tensor]:
    """The weights of the network after source training."""

    def make() -> dict[str, Tensor]:
        x, y = _source()
        learner = FineTune(_network(seed), optimizer=SGD(lr=RATE, momentum=0.9), seed=seed)
        for epoch in range(EPOCHS):
            for rows in torch.randperm(len(y), generator=generator(seed, "source", epoch)).split(BATCH):
                learner.update(Batch(x[rows], y[rows]))
        return capture(learner.descent.model)

    return shared("trained", seed, make=make)


@cache
def _source() -> tuple[Tensor, Tensor]:
    data = mnist10k()
    return data.x[:ROWS], data.y[:ROWS]


def _judged(seed: int) -> tuple[Tensor, Tensor]:
    """Test rows: seeds that are tuned on see other ones than those that are reported."""
    data = mnist10k()
    half = len(data.test_y) // 2
    part = slice(half, None) if seed in TUNING_SEEDS else slice(half)
    return data.test_x[part], data.test_y[part]


def _accuracy(predict: Any, x: Tensor, y: Tensor) -> float:
    found = [predict(rows) for rows in x.split(BATCH)]
    return float((torch.cat(found).argmax(1) == y).double().mean())


def _kept(learner: Learner, x: Tensor) -> int:
    """Bytes held for backward in one step on clean rows; 0 where no step is taken."""
    return activation_bytes(lambda: learner.adapt(x[:BATCH]))[1] if isinstance(learner, Adapter) else 0


@cache
def _kept_by_tent(seed: int) -> int:
    return _kept(_ready("tent(lr=0.001)", seed), _judged(seed)[0])


STUDY = EcoTTAStudy()
