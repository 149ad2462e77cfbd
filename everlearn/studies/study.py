"""A study: one published system, its claim as inequalities, and the experiment that tests them.

HOLDS              the 95 % interval of  left - right - margin  over seeds lies above zero, for every claim
DOES NOT HOLD      it lies below zero for some claim
TOO SMALL TO TELL  otherwise, or when the negative control passed as well (then the experiment cannot tell)
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from everlearn.core.errors import SpecError, closest
from everlearn.measure.statistics import paired

SCALES = ("quick", "full")
TUNING_SEEDS = (1000, 1001)  # never among the reported ones

HOLDS, FAILS, UNCLEAR = "HOLDS", "DOES NOT HOLD", "TOO SMALL TO TELL"


@dataclass(frozen=True)
class Arm:
    """One thing that is measured: the system, a baseline or the control. `settings` are tried on the tuning seeds; the one with
    the best mean is measured on the reported seeds."""

    label: str
    role: str
    settings: tuple[Mapping[str, Any], ...] = ({},)


@dataclass(frozen=True)
class Measured:
    """What one arm gave on one seed: scores by the name of their measure, and curves by name, each a list of (x, y)."""

    scores: Mapping[str, float]
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """score[left] - score[right] >= margin. control=True marks the inequality that must not hold.

    left or right may be "" for 0: `Claim(text, "arm", "", 0.65)` asks for a score of at least 0.65, and
    `Claim(text, "", "arm", -0.65)` for one of at most that. measure: which of the study's measures, "" for the first.
    """

    text: str
    left: str
    right: str
    margin: float = 0.0
    control: bool = False
    measure: str = ""

    def judge(self, scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """The verdict on the scores per seed of the arms; `met` says whether the means alone satisfy the inequality."""
        count = len(scores[self.left or self.right])
        left, right = (list(scores[side]) if side else [0.0] * count for side in (self.left, self.right))
        found = paired([value - self.margin for value in left], right)
        low, high = found["low"], found["high"]
        verdict = UNCLEAR if low is None or high is None else HOLDS if low > 0 else FAILS if high < 0 else UNCLEAR
        shown = {key: None if found[key] is None else found[key] + self.margin for key in ("difference", "low", "high")}
        return {
            "text": self.text,
            "left": self.left,
            "right": self.right,
            "margin": self.margin,
            "control": self.control,
            "measure": self.measure,
        } | {
            **shown,
            "p": found["p"],
            "met": found["difference"] >= 0.0,
            "verdict": verdict,
        }


class Study(ABC):
    """One claim with its experiment. A study is a final class in a module of its own that ends in `STUDY = ItsClass()`."""

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    measures: ClassVar[Mapping[str, str]]  # name -> what it is in words; arms are tuned by the first, larger is better
    axes: ClassVar[Mapping[str, str]] = {}  # curve -> what lies along it, where that is not tasks

    @abstractmethod
    def seeds(self, scale: str) -> tuple[int, ...]:
        """The reported seeds."""

    @abstractmethod
    def arms(self, scale: str) -> tuple[Arm, ...]:
        """What is measured."""

    @abstractmethod
    def claims(self, scale: str) -> tuple[Claim, ...]:
        """The inequalities, the negative control among them."""

    @abstractmethod
    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """The scores of one arm with one setting on one seed. Runs in a process of its own."""


def overall(judged: Sequence[Mapping[str, Any]]) -> str:
    """The verdict of a study from those of its claims."""
    verdicts = {claim["verdict"] for claim in judged if not claim["control"]}
    if FAILS in verdicts:
        return FAILS
    controls = {claim["verdict"] for claim in judged if claim["control"]}
    return HOLDS if verdicts == {HOLDS} and controls <= {FAILS} else UNCLEAR


@cache
def studies() -> dict[str, Study]:
    """Every study by name: the modules of this room that hold a STUDY."""
    package = importlib.import_module("everlearn.studies")
    modules = [importlib.import_module(f"everlearn.studies.{item.name}") for item in pkgutil.iter_modules(package.__path__)]
    found = [vars(module)["STUDY"] for module in modules if "STUDY" in vars(module)]
    return {study.name: study for study in found}


def study_named(name: str) -> Study:
    """The study of a name; an unknown one is answered with the closest."""
    if name not in studies():
        raise SpecError(closest("study", name, studies()))
    return studies()[name]
