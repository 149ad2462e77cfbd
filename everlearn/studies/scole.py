"""The study of recurring streams: does plain gradient descent accumulate knowledge where classes come back?

    A       accuracy on all classes: mean over the last tenth of the checkpoints
    score   (A - n/N) / (A of the same network trained on shuffled rows - n/N)

Tasks of two classes, one pass each, no memory. The claims are those of the paper, each on the regime it speaks of: accumulation
itself, what momentum does to it, what a loss masked by batch adds where classes are rare or learning is slow and what it costs
where classes never meet, how long absent classes stay known, and what replay of rare classes adds. Where nothing comes back the
first claim must fail (the negative control).

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting and knowledge accumulation, arXiv
2207.04543.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner, build_stream
from everlearn.core.run import run
from everlearn.core.store import stores
from everlearn.measure.accumulation import KnowledgeAccumulation
from everlearn.studies.study import Arm, Claim, Measured, Study

TASKS = {"quick": 150, "full": 300}
OMNIGLOT_TASKS = 1000
CLASSES_PER_TASK = 2
DROPPED = (5, 6, 7, 8, 9)
RARE = (0, 1, 2, 3, 4)
LATER = 100  # tasks after the last occurrence at which absent classes are judged
AROUND = 10  # tasks before and after, over which that is averaged
RATES = ({"lr": 0.03}, {"lr": 0.1}, {"lr": 0.3})
FIXED = ({"lr": 0.1},)

PLAIN, MASKED = "fine_tune({optimizer})", "fine_tune(loss=masked(), {optimizer})"
SGD = "optimizer=sgd(lr={lr}, clip=10.0)"
SLOW = "optimizer=sgd(lr=0.01, clip=10.0)"
MOMENTUM = "optimizer=sgd(lr=0.05, momentum=0.9, clip=10.0)"
EQUAL_STEP = "optimizer=sgd(lr=0.01, momentum=0.9, clip=10.0)"  # lr / (1 - momentum) = 0.1
ADAM = "optimizer=adam(lr=0.001, clip=10.0)"
FREQUENCY = "frequency_replay(loss=masked(), {optimizer})"
RANDOM = "frequency_replay(loss=masked(), select='random', {optimizer})"

DIGITS = "recurring(mnist10k, tasks={tasks}, samples_per_class=100, validation=0.0"
PAIRS = ", structure='partition'"
SHUFFLED = ", structure='iid'"
ABSENT = ", drop_after=({half}, (5, 6, 7, 8, 9))"
UNEQUAL = ", class_prob=(0.02, 0.02, 0.02, 0.02, 0.02, 0.18, 0.18, 0.18, 0.18, 0.18)"
OMNIGLOT = "recurring(omniglot_small, tasks={omniglot}, validation=0.0, evaluate_every=20, subset="
ONCE = "split(mnist10k, experiences=5, batch=64, epochs=4"  # as many rows, every class in one span only


@dataclass(frozen=True)
class Setup:
    """learner and stream as call strings with gaps; role; curve: the panel of the figure; settings that are tried."""

    learner: str
    optimizer: str
    stream: str = DIGITS
    role: str = "baseline"
    curve: str = "MNIST, two classes in each task"
    settings: tuple[Mapping[str, Any], ...] = FIXED


OTHER, RARELY = "MNIST, other regimes", "Omniglot, two of 20 or 50 characters in each task"
SETUPS = {
    "plain sgd": Setup(PLAIN, SGD, role="system"),
    "masked sgd": Setup(MASKED, SGD, role="system"),
    "plain momentum, equal rate": Setup(PLAIN, MOMENTUM),
    "masked momentum, equal rate": Setup(MASKED, MOMENTUM),
    "plain momentum, equal step": Setup(PLAIN, EQUAL_STEP),
    "masked momentum, equal step": Setup(MASKED, EQUAL_STEP),
    "plain adam": Setup(PLAIN, ADAM),
    "masked adam": Setup(MASKED, ADAM),
    "plain sgd, rate 0.01": Setup(PLAIN, SLOW),
    "masked sgd, rate 0.01": Setup(MASKED, SLOW),
    "plain sgd, shuffled": Setup(PLAIN, SGD, DIGITS + SHUFFLED),
    "plain sgd, fixed pairs": Setup(PLAIN, SGD, DIGITS + PAIRS, "part", OTHER),
    "masked sgd, fixed pairs": Setup(MASKED, SGD, DIGITS + PAIRS, "part", OTHER),
    "masked sgd, five classes leave": Setup(MASKED, SGD, DIGITS + ABSENT, "part", OTHER),
    "masked sgd, five rare classes": Setup(MASKED, SGD, DIGITS + UNEQUAL, "part", OTHER),
    "frequency replay, five rare classes": Setup(FREQUENCY, SGD, DIGITS + UNEQUAL, "part", OTHER),
    "random replay, five rare classes": Setup(RANDOM, SGD, DIGITS + UNEQUAL, "part", OTHER),
    "plain sgd, 2 of 20 characters": Setup(PLAIN, SGD, OMNIGLOT + "20", "part", RARELY, RATES),
    "masked sgd, 2 of 20 characters": Setup(MASKED, SGD, OMNIGLOT + "20", "part", RARELY, RATES),
    "plain sgd, 2 of 50 characters": Setup(PLAIN, SGD, OMNIGLOT + "50", "part", RARELY, RATES),
    "masked sgd, 2 of 50 characters": Setup(MASKED, SGD, OMNIGLOT + "50", "part", RARELY, RATES),
    "plain sgd, nothing comes back": Setup(PLAIN, SGD, ONCE, "control", OTHER),
}
QUICK = ("plain sgd", "masked sgd", "plain momentum, equal rate", "plain sgd, nothing comes back")
SCORED = ("plain sgd", "masked sgd")  # arms whose score against shuffled rows is taken


class ScoleStudy(Study):
    """Long streams of small tasks over digits and characters, without a memory."""

    name: ClassVar[str] = "scole"
    title: ClassVar[str] = "Where classes come back, plain gradient descent accumulates knowledge"
    reference: ClassVar[str] = "Lesort et al. (2023), arXiv 2207.04543"
    measures: ClassVar[Mapping[str, str]] = {
        "area": "accuracy on all classes, mean over the run",
        "accuracy": "accuracy on all classes, mean over the last tenth",
        "score": "knowledge accumulation, 0: the task at hand, 1: as from shuffled rows",
        "absent": f"accuracy of the absent classes {LATER} tasks later",
        "rare": "accuracy of the rare classes, mean over the last tenth",
        "cost": "rows looked at for each row that came",
    }

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three: the stream, its classes, and the network."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """At quick scale accumulation and momentum; at full scale every regime."""
        chosen = QUICK if scale == "quick" else tuple(SETUPS)
        return tuple(Arm(label, SETUPS[label].role, SETUPS[label].settings) for label in chosen)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """The published claims with their margins."""
        control = "plain sgd, nothing comes back"
        rows = []
        if scale == "quick":
            rows += [Claim(f"{arm} reaches 65% of all classes", arm, "", 0.65, measure="accuracy") for arm in SCORED]
            rows.append(_hurts("plain sgd", "plain momentum, equal rate", 0.30, "accuracy"))
        else:
            rows += [Claim(f"{arm} accumulates: score at least 0.8", arm, "", 0.8, measure="score") for arm in SCORED]
            for loss in ("plain", "masked"):
                rows.append(_hurts(f"{loss} sgd", f"{loss} momentum, equal rate", 0.30, "accuracy"))
                rows.append(_hurts(f"{loss} sgd", f"{loss} momentum, equal step", 0.0, "area"))
            rows += [
                Claim(
                    f"masking helps with 2 of {count} characters",
                    f"masked sgd, 2 of {count} characters",
                    f"plain sgd, 2 of {count} characters",
                    measure="area",
                )
                for count in (20, 50)
            ]
            slow = ("masked sgd, rate 0.01", "plain sgd, rate 0.01")
            rows.append(Claim("masking helps at a rate of 0.01", *slow, measure="area"))
            pairs, masked, dropped = "plain sgd, fixed pairs", "masked sgd, fixed pairs", "masked sgd, five classes leave"
            none, replay = "masked sgd, five rare classes", "frequency replay, five rare classes"
            rows += [
                Claim("fixed pairs are learned without a mask: at least 85%", pairs, "", 0.85, measure="accuracy"),
                Claim("fixed pairs are not learned with a mask: at most 65%", "", masked, -0.65, measure="accuracy"),
                Claim("changing pairs are learned with a mask: at least 80%", "masked sgd", "", 0.80, measure="accuracy"),
                Claim(f"absent classes stay known {LATER} tasks: at least 40%", dropped, "", 0.40, measure="absent"),
                Claim("frequency replay lifts rare classes by at least 5%", replay, none, 0.05, measure="rare"),
                Claim("frequency replay looks at no more than twice the rows", "", replay, -2.0, measure="cost"),
            ]
        rows.append(
            Claim("65% of all classes where nothing comes back", control, "", 0.65, control=True, measure="accuracy")
        )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """Everything that one run over one stream shows of accumulation."""
        setup = SETUPS[arm]
        monitor, cost = _run(setup.learner, setup.optimizer, setup.stream, setting, scale, seed)
        curve = monitor.curve()
        scores = {"area": sum(point[1] for point in curve) / len(curve), "accuracy": monitor.end() or 0.0}
        if arm in SCORED and scale == "full":
            shuffled, _ = _run(PLAIN, SGD, DIGITS + SHUFFLED, setting, scale, seed)
            scores["score"] = monitor.score(shuffled.end() or 0.0) or 0.0
        if ABSENT in setup.stream:
            scores["absent"] = _absent(monitor, TASKS[scale] // 2 + LATER)
        if UNEQUAL in setup.stream:
            known = monitor.per_class()
            scores["rare"] = sum(known[str(label)] for label in RARE) / len(RARE)
            scores["cost"] = cost
        return Measured(scores, {setup.curve: [[float(tasks), accuracy] for tasks, accuracy in curve]})


def _hurts(without: str, momentum: str, margin: float, measure: str) -> Claim:
    """Momentum 0.9 is worse than none."""
    told = f"at least {margin:.0%} " if margin else ""
    return Claim(f"{momentum} stays {told}behind {without}", without, momentum, margin, measure=measure)


def _run(
    learner: str, optimizer: str, stream: str, setting: Mapping[str, Any], scale: str, seed: int
) -> tuple[KnowledgeAccumulation, float]:
    """(what was known, rows looked at for each row that came) over one stream."""
    gaps = {"tasks": TASKS[scale], "half": TASKS[scale] // 2, "omniglot": OMNIGLOT_TASKS}
    events = build_stream(stream.format(**gaps) + ")", seed)
    learns = build_learner(learner.format(optimizer=optimizer.format(**setting)), events, "grey_cnn", seed)
    monitor = KnowledgeAccumulation()
    result = run(learns, events, monitors=[monitor])
    return monitor, 1.0 + sum(store.replayed for store in stores(learns)) / result.used["labels"]


def _absent(monitor: KnowledgeAccumulation, task: int) -> float:
    """Mean accuracy of the classes that left, over the checkpoints around a task."""
    shares = [
        right[list(DROPPED)].double() / labelled[list(DROPPED)].double()
        for begun, right, labelled in zip(monitor.begun, monitor.right, monitor.labelled, strict=True)
        if abs(begun - task) <= AROUND
    ]
    return float(sum(share.mean() for share in shares) / len(shares))


STUDY = ScoleStudy()
