"""The study of refresh learning: does unlearning a little of each batch shed what was learned by heart, and does it do no harm?

    where a fifth of the labels is wrong        accuracy[refresh] >= accuracy[none] + margin,   fit[refresh] <= fit[none] - 0.03
    both at their own best learning rate        accuracy[refresh] >= accuracy[none, with weight decay]
    where classes come two by two               |accuracy[derpp + refresh at 1e-5] - accuracy[derpp]| stays within 0.03 (0.02 below)
    at a rate of 0.003                          training runs away, and the monitor says so

fit is the accuracy on the rows learned from, wrong labels counted as right: what a model has learned by heart. Where all labels are
right there is nothing to shed, and the first inequality must fail (the negative control). Every arm has the same network, batches
and epochs; rates are tuned on other seeds, those of the plain learner and of weight decay too. The special cases of the one objective
are measured beside them: replayed rows of any kind must lead plain fine-tuning by 0.30.

Reference: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner
from everlearn.core.learner import Learner
from everlearn.core.run import run
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.known_sets import cifar100_12k, mnist10k
from everlearn.data.noisy import noisy
from everlearn.data.prequential import iid
from everlearn.data.split import split
from everlearn.measure.instability import Instability
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.optim.descent import evaluate
from everlearn.studies.study import Arm, Claim, Measured, Study

FEW, EPOCHS, WRONG = 60, 60, 0.2  # images of a class, passes, wrong labels: enough passes to learn them by heart
JUDGED = 100  # test images of a class
ROWS = {"quick": 200, "full": 400}  # images of a class where classes come two by two
PASSES = 2
SUPERCLASSES, PICTURES, PICTURE_PASSES = 8, 300, 8
GAIN = {"quick": 0.01, "full": 0.02}
PUBLISHED, COLLAPSES = 1e-5, 3e-3  # rates: of the authors' code, and one at which the climb outgrows the descent
MLP = "mlp(hidden=(100, 100))"

PLAIN = "fine_tune(optimizer=sgd(lr={lr}))"
BOTH_TUNED = {  # a rate of its own for each, and as many settings
    "refresh, tuned": "refresh(fine_tune(optimizer=sgd(lr={lr})), rate={other})",
    "none, tuned": "fine_tune(optimizer=sgd(lr={lr}, weight_decay={other}))",
    "return to start, tuned": "refresh(fine_tune(optimizer=sgd(lr={lr})), rate={other}, return_to_start=True)",
}
DECAYED = "fine_tune(optimizer=sgd(lr=0.05, weight_decay={decay}))"
REFRESHED = "refresh(fine_tune(optimizer=sgd(lr=0.05)), rate={rate})"
RETURNED = "refresh(fine_tune(optimizer=sgd(lr=0.05)), rate={rate}, return_to_start=True)"
DARK = "derpp(capacity=100, alpha=0.5, beta=1.0, replay_batch=10, optimizer=sgd(lr=0.03))"
AS_RELEASED = (
    "refresh({learner}, rate={rate}, scale='weight_norm', loss='current', preconditioner='fisher', "
    "fisher_samples=100, noise=0.001)"
)
MIXED = "unified(preset({preset}), capacity={capacity}, replay_batch=32, optimizer=sgd(lr=0.03))"


@dataclass(frozen=True)
class Setup:
    """What an arm is: a learner (of one network for its stream), and which stream it learns from."""

    learner: str
    stream: str
    role: str
    settings: tuple[Mapping[str, Any], ...] = ({},)


def _strengths(*values: float) -> tuple[Mapping[str, Any], ...]:
    return tuple({"strength": value} for value in values)


WRONGLY, RIGHTLY = "a fifth of the labels wrong", "all labels right"
DIGITS, NOISY_DIGITS, PHOTOS = "digits two by two", "digits two by two, a fifth wrong", "photographs two by two"
RATES = tuple({"rate": rate} for rate in (PUBLISHED, 1e-3, 1.5e-3))
STRONGER = tuple({"rate": rate} for rate in (PUBLISHED, 1e-3, COLLAPSES, 1e-2, 3e-2))

OTHERS = {
    "refresh, tuned": (1e-5, 3e-4, 6e-4, 1e-3, 1.5e-3),
    "none, tuned": (0.0, 1e-3, 3e-3, 1e-2, 3e-2),
    "return to start, tuned": (PUBLISHED, 1e-3, COLLAPSES, 1e-2, 3e-2),
}


def _crossed(others: tuple[float, ...]) -> tuple[Mapping[str, Any], ...]:
    return tuple({"lr": lr, "other": other} for lr in (0.01, 0.02, 0.05, 0.1) for other in others)


SETUPS = {
    "refresh": Setup(REFRESHED, WRONGLY, "system", RATES),
    "none": Setup(PLAIN, WRONGLY, "baseline", ({"lr": 0.05},)),
    "none, tuned rate": Setup(PLAIN, WRONGLY, "baseline", tuple({"lr": lr} for lr in (0.01, 0.02, 0.05, 0.1))),
    "weight decay": Setup(DECAYED, WRONGLY, "baseline", tuple({"decay": decay} for decay in (1e-3, 3e-3, 1e-2, 3e-2))),
    "return to start": Setup(RETURNED, WRONGLY, "baseline", STRONGER),
    **{
        f"refresh, rate {rate:g}": Setup(REFRESHED, WRONGLY, "part", ({"rate": rate},))
        for rate in (1e-5, 1e-3, 1.5e-3, 3e-3)
    },
    **{
        f"return to start, rate {rate:g}": Setup(RETURNED, WRONGLY, "part", ({"rate": rate},))
        for rate in (1e-5, 1e-3, 1.5e-3, 3e-3)
    },
    **{
        label: Setup(text, WRONGLY, "system" if label == "refresh, tuned" else "baseline", _crossed(OTHERS[label]))
        for label, text in BOTH_TUNED.items()
    },
    "none, all labels right": Setup(PLAIN, RIGHTLY, "control", ({"lr": 0.05},)),
    "refresh, all labels right": Setup(REFRESHED, RIGHTLY, "control", RATES),
    "derpp": Setup(DARK, DIGITS, "baseline"),
    "derpp + refresh": Setup(AS_RELEASED, DIGITS, "system", ({"rate": PUBLISHED},)),
    "derpp + refresh, rate 0.001": Setup(AS_RELEASED, DIGITS, "part", ({"rate": 1e-3},)),
    "derpp, a fifth wrong": Setup(DARK, NOISY_DIGITS, "baseline"),
    "derpp + refresh, a fifth wrong": Setup(AS_RELEASED, NOISY_DIGITS, "part", ({"rate": PUBLISHED},)),
    "derpp + refresh, rate 0.001, a fifth wrong": Setup(AS_RELEASED, NOISY_DIGITS, "part", ({"rate": 1e-3},)),
    "derpp, photographs": Setup(DARK, PHOTOS, "baseline"),
    "derpp + refresh, photographs": Setup(AS_RELEASED, PHOTOS, "system", ({"rate": PUBLISHED},)),
    **{
        f"special case {name}": Setup(MIXED.format(preset=text, capacity=rows), DIGITS, "part", strengths)
        for name, text, rows, strengths in (
            ("finetune", "'finetune'", None, ({},)),
            ("ewc", "'online_ewc', strength={strength}", None, _strengths(1.0, 10.0, 100.0)),
            ("lwf", "'lwf', strength={strength}", None, _strengths(0.3, 1.0, 3.0)),
            ("er", "'er', strength={strength}", 200, _strengths(0.3, 1.0, 3.0)),
            ("der", "'der', strength={strength}", 200, _strengths(0.3, 1.0, 3.0)),
            ("derpp", "'derpp', strength={strength}, labels=1.0", 200, _strengths(0.2, 0.5, 1.0)),
            ("cpr + ewc", "'cpr', strength={strength}, ewc=10.0", None, _strengths(0.1, 0.5, 1.0)),
        )
    },
}
QUICK = (
    "none",
    f"refresh, rate {1.5e-3:g}",
    "none, all labels right",
    "refresh, all labels right",
    "derpp",
    "derpp + refresh",
    *(label for label in SETUPS if label.startswith("special case")),
)
CURVE = {
    DIGITS: "Digits, average accuracy over the groups so far",
    PHOTOS: "Photographs, average accuracy over the groups so far",
}


class RefreshStudy(Study):
    """Wrong labels learned by heart, classes that come two by two, and the special cases of the one objective."""

    name: ClassVar[str] = "refresh"
    title: ClassVar[str] = "Unlearning a little of each batch sheds what was learned by heart"
    reference: ClassVar[str] = "Wang et al. (2024), arXiv 2403.13249"
    measures: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy on test rows, whose labels are right",
        "fit": "accuracy on the rows learned from, by the labels they came with",
        "unstable": "1 where the mean loss of 50 steps rose above the first, else 0",
        "task accuracy": "accuracy among the classes of a row's group",
        "forgetting": "forgetting, over all groups but the last",
    }

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three at quick scale, five at full scale: wrong labels, network, order and memory."""
        return tuple(range(3 if scale == "quick" else 5))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """What is measured; at quick scale one rate, and no photographs."""
        chosen = QUICK if scale == "quick" else tuple(SETUPS)
        rows = []
        for label in chosen:
            setup = SETUPS[label]
            settings = ({"rate": 1.5e-3},) if scale == "quick" and setup.settings == RATES else setup.settings
            rows.append(Arm(label, setup.role, settings))
        return tuple(rows)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """What refresh sheds, that it is harmless at the published rate, where it collapses, and the control."""
        gain = GAIN[scale]
        shed = "refresh" if scale == "full" else f"refresh, rate {1.5e-3:g}"
        rows = [
            Claim(f"{shed} is at least {gain:.0%} better where labels are wrong", shed, "none", gain),
            Claim(f"{shed} knows fewer wrong labels by heart, at least 3%", "none", shed, 0.03, measure="fit"),
        ]
        pairs = [("derpp + refresh", "derpp")]
        if scale == "full":
            pairs.append(("derpp + refresh, photographs", "derpp, photographs"))
        most = 0.03 if scale == "quick" else 0.02
        rows += [Claim(f"{with_} is at most {most:.0%} behind", with_, without, -most) for with_, without in pairs]
        if scale == "quick":
            rows.append(Claim("derpp + refresh is at most 3% ahead", "derpp", "derpp + refresh", -0.03))
        else:
            rows.append(Claim("refresh is not behind the plain learner, both tuned", "refresh, tuned", "none, tuned"))
            runaway = f"refresh, rate {COLLAPSES:g}"
            rows.append(Claim("training that runs away is told of, every time", runaway, "", 1.0, measure="unstable"))
        rows += [
            Claim(f"{case} ends at least 30% above finetune", f"special case {case}", "special case finetune", 0.30)
            for case in ("er", "der", "derpp")
        ]
        rows.append(
            Claim(
                f"refresh is at least {gain:.0%} better where all labels are right",
                "refresh, all labels right",
                "none, all labels right",
                gain,
                control=True,
            )
        )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One run: what was learned, by heart and otherwise."""
        setup = SETUPS[arm]
        stream, data = _stream(setup.stream, scale, seed)
        text = setup.learner.format(learner=DARK, **setting) if setting else setup.learner
        learner = build_learner(text, stream, "conv4" if setup.stream == PHOTOS else MLP, seed)
        watch, matrix = Instability(), AccuracyMatrix()
        run(learner, stream, monitors=[watch if data is not None else matrix])
        if data is not None:
            known = {"accuracy": _share(learner, data.test_x, data.test_y), "fit": _share(learner, data.x, data.y)}
            return Measured(known | {"unstable": float(watch.figures()["unstable"])})
        found = matrix.figures()
        scores = {name.replace("_", " "): found[name] for name in ("task_accuracy", "forgetting")}
        scores["accuracy"] = found["average_accuracy"]
        rise = [[row + 1.0, sum(shares[: row + 1]) / (row + 1)] for row, shares in enumerate(found["matrix"])]
        return Measured(scores, {CURVE[setup.stream]: rise} if setup.stream in CURVE else {})


def _share(learner: Learner, x: Any, y: Any) -> float:
    """The part of rows whose answer is their label."""
    model = learner.learner.descent.model if learner.name == "refresh" else learner.descent.model
    return float((evaluate(model, x).argmax(1) == y).double().mean())


def _stream(kind: str, scale: str, seed: int) -> tuple[Stream, Data | None]:
    """(the stream, the data set where rows come in no order of classes)."""
    if kind in (WRONGLY, RIGHTLY):
        few = mnist10k().per_class(FEW, JUDGED)
        data = noisy(few, labels=WRONG, seed=seed) if kind == WRONGLY else few
        return iid(data, batch=32, epochs=EPOCHS, seed=seed), data
    if kind == PHOTOS:
        return split(_photographs(), experiences=SUPERCLASSES // 2, batch=32, epochs=PICTURE_PASSES, seed=seed), None
    digits = mnist10k().per_class(ROWS[scale], JUDGED)
    stream = split(digits, experiences=5, batch=10, epochs=PASSES, seed=seed)
    return (noisy(stream, labels=WRONG, seed=seed) if kind == NOISY_DIGITS else stream), None


@cache
def _photographs() -> Data:
    """The first superclasses of CIFAR-100."""
    data = cifar100_12k(labels="coarse").per_class(PICTURES, 10**6)
    return data.take((data.y < SUPERCLASSES).nonzero().flatten())


STUDY = RefreshStudy()
