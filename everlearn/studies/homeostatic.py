"""The study of homeostatic learning: does a rate that regulates itself follow a world whose labels change at an unknown pace?

    accuracy[next batch] >= accuracy[constant] + 0.05   and   accuracy[random walk] + 0.03      labels swapped every 200 rows
    accuracy[next batch] >= accuracy[constant] - 0.04                                           labels never swapped
    advantage over the constant rate grows with the number of swaps;  calm and stormy seasons: + 0.05, and a rate 2.5 times as high
    in storms as in calm                                                                        (full scale)

8,000 digits an epoch, test-then-train. What an update imagines is held against labels; against shuffled ones it must not help (the
negative control). Constant rates chosen with hindsight stand beside it: `regrets` says what not knowing the pace costs.

Reference: Man, Damasio & Neven (2022), Need is all you need: Homeostatic neural networks adapt to concept shift, arXiv 2205.08645.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner
from everlearn.core.run import run
from everlearn.data.dataset import Data
from everlearn.data.known_sets import mnist10k
from everlearn.data.label_swaps import LabelSwaps, label_swaps, seasons
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.measure.prequential import Prequential
from everlearn.measure.regulation import Regulation
from everlearn.studies.study import Arm, Claim, Measured, Study

NETWORK = "elu_mlp"
PACES = {"200": 40, "1000": 8, "4000": 2, "none": 0}  # measure -> swaps in an epoch of 8,000 rows
QUICK_PACES = ("200", "none")
EPOCHS = {"quick": 5, "full": 10}
CALM, STORMY, STORM = 5, 5, 40  # epochs of each season, swaps in an epoch of storm
SEASONAL_EPOCHS = 20
RATE_CURVE = "Rate over two calm and two stormy seasons"
ACCURACY_CURVE = "Accuracy over two calm and two stormy seasons (last 8,000 rows)"

CONSTANT, WALK, PAPER, NEXT = "constant 0.0058", "random walk", "published rule", "next batch"
SHUFFLED, BY_PREDICTION, AT_RANDOM = "labels shuffled", "effect as predicted", "effect at random"
HIGHER = {f"constant {lr}": f"fine_tune(optimizer=sgd(lr={lr}))" for lr in (0.02, 0.05, 0.1, 0.2)}
MAIN = {
    NEXT: ("system", "homeostatic"),
    PAPER: ("system", "homeostatic(rule='paper', epoch=8000)"),
    CONSTANT: ("baseline", "fine_tune(optimizer=sgd(lr=0.0058))"),
    **{label: ("baseline", call) for label, call in HIGHER.items()},
    WALK: ("baseline", "random_lr"),
    "on drift": ("baseline", "drift_lr"),
    "hypergradient": ("baseline", "hypergradient"),
    "Adam": ("baseline", "fine_tune(optimizer=adam(lr=0.001))"),
}
PARTS = {
    BY_PREDICTION: ("part", "homeostatic(suffers='predicted')"),
    AT_RANDOM: ("part", "homeostatic(suffers='random')"),
    "another half": ("part", "homeostatic(effect=(1, -1, 1, -1, 1, -1, 1, -1, 1, -1))"),
    "on memory": ("part", "homeostatic(evaluate_on='memory')"),
    SHUFFLED: ("control", "homeostatic(shuffle=True)"),
}
ARMS = MAIN | PARTS
QUICK = (NEXT, PAPER, CONSTANT, WALK, SHUFFLED)


class HomeostaticStudy(Study):
    """Paces of change, seasons, regulators and constant rates, and what each part of regulation is worth."""

    name: ClassVar[str] = "homeostatic"
    title: ClassVar[str] = "A learning rate that regulates itself follows changes of an unknown pace"
    reference: ClassVar[str] = "Man, Damasio & Neven (2022), arXiv 2205.08645"
    measures: ClassVar[Mapping[str, str]] = {
        "200": "accuracy of answers given before their labels were learned from, two labels swapped every 200 rows",
        "1000": "the same, swapped every 1,000 rows",
        "4000": "the same, swapped every 4,000 rows",
        "none": "the same, never swapped",
        "seasons": "the same, five calm epochs and five with a swap every 200 rows, twice",
        "test": "accuracy on held-out rows under the labels of the moment, at the end of every fifth epoch, swapped every 200 rows",
        "trend": "slope of the accuracy against the rank of the pace, from never to every 200 rows",
        "rate": "mean learning rate, swapped every 200 rows",
        "storm over calm": "mean rate in stormy epochs over that in calm ones",
        "wrong": "share of changes of the rate that were taken by mistake, swapped every 200 rows",
        "clipped": "share of steps whose change ran into a limit, swapped every 200 rows",
    }
    axes: ClassVar[Mapping[str, str]] = {RATE_CURVE: "epoch", ACCURACY_CURVE: "epoch"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Draws of swaps, rows and network."""
        return tuple(range(5))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """Every rule with its parts; five arms at quick scale. None is tuned: constant rates stand side by side."""
        return tuple(Arm(label, ARMS[label][0]) for label in (QUICK if scale == "quick" else ARMS))

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """What regulation gains where labels change and costs where they do not, and the control."""
        rows = [
            Claim("swapped every 200 rows, regulation leads the constant rate by 5%", NEXT, CONSTANT, 0.05),
            Claim("swapped every 200 rows, regulation leads the random walk by 3%", NEXT, WALK, 0.03),
            Claim("without change, regulation costs at most 4%", NEXT, CONSTANT, -0.04, measure="none"),
        ]
        if scale == "full":
            rows += [
                Claim("the advantage over the constant rate grows with the pace", NEXT, CONSTANT, 0.0, measure="trend"),
                Claim("over the seasons, regulation leads the constant rate by 5%", NEXT, CONSTANT, 0.05, measure="seasons"),
                Claim("the rate in storms is 2.5 times that in calm", NEXT, "", 2.5, measure="storm over calm"),
                Claim("mistaken recognition costs regulation", BY_PREDICTION, NEXT, 0.0, measure="seasons"),
                Claim("an effect at random is worse than the true one", NEXT, AT_RANDOM, 0.0, measure="seasons"),
            ]
        control = "held against shuffled labels, regulation leads the constant rate by 5%"
        return (*rows, Claim(control, SHUFFLED, CONSTANT, 0.05, control=True))

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One run for each pace, and one over the seasons at full scale."""
        call = ARMS[arm][1]
        paces = QUICK_PACES if scale == "quick" else ("200",) if arm in PARTS and arm != SHUFFLED else tuple(PACES)
        scores: dict[str, float] = {}
        for measure in paces:
            stream = label_swaps(_digits(), swaps=PACES[measure], epochs=EPOCHS[scale], evaluate_every=5, seed=seed)
            found = _run(call, stream, seed)
            scores[measure] = found["prequential"]["accuracy_all"]
            if measure == "200":
                scores |= _at_pace(found)
        if len(paces) == len(PACES):
            scores["trend"] = trend([scores[measure] for measure in ("none", "4000", "1000", "200")])
        if scale == "quick":
            return Measured(scores)
        schedule = seasons(calm=CALM, stormy=STORMY, swaps=STORM)
        stream = label_swaps(_digits(), schedule=schedule, epochs=SEASONAL_EPOCHS, evaluate_every=SEASONAL_EPOCHS, seed=seed)
        found = _run(call, stream, seed)
        scores["seasons"] = found["prequential"]["accuracy_all"]
        epoch = len(stream) / stream.epochs
        curves = {ACCURACY_CURVE: [[event / epoch, value] for event, value in found["curve"]]}
        trace = found["regulation"].get("trace")
        if trace:
            scores["storm over calm"] = storm_over_calm(trace, epoch, stream.per_epoch)
            curves[RATE_CURVE] = [[event / epoch, lr] for event, lr in trace]
        shown = arm in (NEXT, PAPER, WALK, "on drift", CONSTANT, "constant 0.05")
        return Measured(scores, curves if shown else {})


def trend(values: list[float]) -> float:
    """Least-squares slope of values against their ranks 0, 1, 2, ...; linear, so that of a difference is the difference of two.

    >>> trend([1.0, 0.8, 0.9, 0.5])
    -0.14
    """
    middle = (len(values) - 1) / 2.0
    spread = sum((place - middle) ** 2 for place in range(len(values)))
    return round(sum((place - middle) * value for place, value in enumerate(values)) / spread, 12)


def storm_over_calm(trace: list[list[float]], epoch: float, per_epoch: tuple[int, ...]) -> float:
    """Mean of a trace [[event, mean rate before it]] over epochs with changes, over that over epochs without."""
    storm: list[float] = []
    calm: list[float] = []
    for event, lr in trace:
        number = min(len(per_epoch) - 1, int((event - 1) // epoch))
        (storm if per_epoch[number] else calm).append(lr)
    return (sum(storm) / len(storm)) / (sum(calm) / len(calm))


def regrets(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """{arm: {measure: regret}} from a study's record: mean accuracy of the constant rate best with hindsight, less the arm's."""
    accuracies = [*PACES, "seasons"]
    means = {
        arm["label"]: {name: found["mean"] for name, found in arm["measures"].items() if name in accuracies}
        for arm in record["arms"]
    }
    best = {
        name: max(found[name] for label, found in means.items() if label.startswith("constant") and name in found)
        for name in accuracies
        if any(label.startswith("constant") and name in found for label, found in means.items())
    }
    return {label: {name: best[name] - found[name] for name in found} for label, found in means.items()}


def _run(call: str, stream: LabelSwaps, seed: int) -> dict[str, Any]:
    learner = build_learner(call, stream, NETWORK, seed)
    result = run(learner, stream, monitors=[Prequential(), AccuracyMatrix(), Regulation()])
    points = [point for point in result.curve if "prequential" in point]
    return result.figures | {"curve": [[point["event"], point["prequential"]["accuracy"]] for point in points]}


def _at_pace(found: Mapping[str, Any]) -> dict[str, float]:
    """What is told beside the accuracy of one pace."""
    matrix, told = found["matrix"]["matrix"], found["regulation"]
    scores = {"test": sum(row[number] for number, row in enumerate(matrix)) / len(matrix)}
    if told:
        scores |= {"rate": told["lr"]["mean"], "clipped": told["clipped"] / told["steps"]}
        if told["decided"]:
            scores["wrong"] = told["wrong"] / max(1, told["taken"])
    return scores


@cache
def _digits() -> Data:
    return mnist10k()


STUDY = HomeostaticStudy()
