"""The study of few-shot class-incremental learning: which of the eight tricks help, and what tuning the encoder costs.

    average[pre-training + contrast + pseudo-classes] >= average[baseline] + 0.03,   new classes + 0.05        (characters)
    accuracy[frozen encoder] >= accuracy[encoder tuned in each session] + margin,   also where only a small part of it is tuned
    average[all tricks] >= average[baseline] + 0.01, and not lower on new classes                              (photographs)

A base session of many rows, then sessions that bring a few classes with five rows each; accuracies count every class alike, answers are
among all classes so far. Each seed draws the order of classes, their few rows and the network. The tuned encoder must not come
near the frozen one (the negative control). Nearest class mean and linear discriminants on the same frozen encoder, and a softmax
layer tuned further, are measured beside the tricks.

Reference: Roy et al. (2024), A bag of tricks for few-shot class-incremental learning, arXiv 2403.14392.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner
from everlearn.core.run import run
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.few_shot import few_shot
from everlearn.data.known_sets import cifar100_12k, omniglot_small
from everlearn.measure.sessions import Sessions
from everlearn.studies.study import Arm, Claim, Measured, Study

NETWORK = {"characters": "conv_stack(widths=(32, 32, 64, 64))", "photographs": "conv_stack(widths=(16, 32, 64, 128))"}
EPOCHS = {("characters", "quick"): 6, ("characters", "full"): 8, ("photographs", "full"): 8}
SESSIONS = {"quick": 5, "full": 10}
RATE = "sgd(lr=0.05, momentum=0.9, weight_decay=0.0005)"
TUNED = "finetune=finetune(lr=0.001, steps=20)"

TRICKS = {
    "baseline": "",
    "+ supervised contrast": "supcon=0.5",
    "+ pre-assigned prototypes": "prototypes='spread'",
    "+ pseudo-classes": "pseudo_classes='rotation2'",
    "+ full fine-tuning": TUNED,
    "+ subnet tuning": f"{TUNED}, subnet=0.1",
    "+ pre-training": "pretrain=6",
    "+ rotation": "rotation=0.5",
    "+ calibration": "calibrate=0.5",
    "stability tricks": "supcon=0.5, prototypes='spread', pseudo_classes='rotation2'",
    "pre-training + contrast + pseudo-classes": "pretrain=6, supcon=0.5, pseudo_classes='rotation2'",
    "all tricks": f"pretrain=6, supcon=0.5, prototypes='spread', pseudo_classes='rotation2', rotation=0.5, {TUNED}, subnet=0.02",
    "linear discriminants": "head='lda'",
    "softmax layer": "head='linear', finetune=finetune(lr=0.0, steps=20, prototype_lr={lr})",
}
SETTINGS = {"softmax layer": tuple({"lr": lr} for lr in (0.001, 0.01, 0.1, 1.0))}  # of the layer; the encoder stays as it is
LARGER = "+ larger encoder"
ROLES = {"all tricks": "system", "+ subnet tuning": "system", "pre-training + contrast + pseudo-classes": "system"}
ROLES |= dict.fromkeys(("baseline", "linear discriminants", "softmax layer"), "baseline")
QUICK = ("baseline", "+ full fine-tuning", "+ subnet tuning", "softmax layer")
BOTH = ", photographs"


@dataclass(frozen=True)
class Setup:
    """An arm: the switches of the learner, the data, and the network."""

    switches: str
    data: str
    network: str


def setup_of(arm: str) -> Setup:
    """What an arm is."""
    data = "photographs" if arm.endswith(BOTH) else "characters"
    label = arm.removesuffix(BOTH)
    network = NETWORK[data] if label != LARGER else "cifar_resnet(depth=20)"
    return Setup(TRICKS.get(label, ""), data, network)


class FewShotStudy(Study):
    """The eight tricks one by one and together, on handwritten characters and on photographs."""

    name: ClassVar[str] = "fscil"
    title: ClassVar[str] = "Known tricks together teach new classes from five rows, and keep the old ones"
    reference: ClassVar[str] = "Roy et al. (2024), arXiv 2403.14392"
    measures: ClassVar[Mapping[str, str]] = {
        "average": "accuracy on all classes so far, mean over the sessions",
        "accuracy": "accuracy on all classes after the last session",
        "base": "accuracy on the base classes after the last session",
        "new": "accuracy on the new classes after the last session",
        "harmonic mean": "harmonic mean of base and new accuracy",
        "drop": "accuracy after the base session less that after the last",
        "seconds": "seconds of the whole run",
    }

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three draws of class order, few rows and network."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """What sessions do to one base model at quick scale; every trick on both kinds of images at full scale."""
        if scale == "quick":
            return tuple(_arm(label, every=2) for label in QUICK)
        labels = [*TRICKS, LARGER]
        return tuple(_arm(label, kind) for kind in ("", BOTH) for label in labels)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """What tuning costs, what the tricks give, and the control."""
        tuned = "+ full fine-tuning"
        rows = [
            Claim("a frozen encoder ends at least 20% above a tuned one", "baseline", tuned, 0.20, measure="accuracy"),
            Claim("tuning a tenth ends at least 20% above tuning all", "+ subnet tuning", tuned, 0.20, measure="accuracy"),
            Claim("the frozen encoder knows half of the new classes", "baseline", "", 0.5, measure="new"),
        ]
        if scale == "full":
            together, every = "pre-training + contrast + pseudo-classes", "all tricks" + BOTH
            plain = "baseline" + BOTH
            rows += [
                Claim(f"{together} leads by at least 3%", together, "baseline", 0.03),
                Claim(f"{together} leads by at least 5% on new classes", together, "baseline", 0.05, measure="new"),
                Claim("all tricks lead by at least 1% on photographs", every, plain, 0.01),
                Claim("all tricks are not behind on new classes of photographs", every, plain, measure="new"),
                Claim("tuning costs at least 5% on photographs", plain, tuned + BOTH, 0.05, measure="accuracy"),
            ]
        rows.append(
            Claim("a tuned encoder ends no lower than a frozen one", tuned, "baseline", control=True, measure="accuracy")
        )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One protocol: the base session and all that follow."""
        setup = setup_of(arm)
        stream = _stream(setup.data, scale, seed)
        switches = f"{setup.switches.format(**setting)}, " if setup.switches else ""
        learner = build_learner(f"few_shot({switches}optimizer={RATE})", stream, setup.network, seed)
        began = time.perf_counter()
        found = run(learner, stream, monitors=[Sessions()]).figures["sessions"]
        scores = {
            "average": found["average"],
            "accuracy": found["all"][-1],
            "base": found["base"][-1],
            "new": found["new"][-1],
        }
        scores |= {"harmonic mean": found["harmonic_mean"][-1], "drop": found["performance_drop"]}
        curve = [[float(session), share] for session, share in enumerate(found["all"])]
        name = f"{setup.data.capitalize()}, accuracy on all classes after each session"
        return Measured(scores | {"seconds": time.perf_counter() - began}, {name: curve})


def _arm(label: str, kind: str = "", every: int = 1) -> Arm:
    """An arm; every: 2 takes every other setting, to save time."""
    return Arm(label + kind, ROLES.get(label, "part"), SETTINGS.get(label, ({},))[::every])


def _stream(kind: str, scale: str, seed: int) -> Stream:
    epochs = EPOCHS[kind, scale]
    if kind == "photographs":
        return few_shot(_photographs(), epochs=epochs, extra_test=True, seed=seed)
    return few_shot(_characters(), base_classes=142, way=10, sessions=SESSIONS[scale], epochs=epochs, test=0.25, seed=seed)


@cache
def _characters() -> Data:
    return omniglot_small()


@cache
def _photographs() -> Data:
    return cifar100_12k()


STUDY = FewShotStudy()
