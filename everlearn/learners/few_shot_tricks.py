"""The eight tricks of few-shot class-incremental learning by name, what each is switched by, and its usual value.

Reference: Roy et al. (2024), A bag of tricks for few-shot class-incremental learning, arXiv 2403.14392.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from everlearn.core.errors import ArgumentError, check_count, check_range, closest
from everlearn.core.spec import describe
from everlearn.optim.optimizers import SGD, Adam, Optimizer

OPTIMIZERS = ("sgd", "adam")
PROTOTYPES = ("learned", "etf", "spread")
HEADS = ("means", "lda", "linear")
LOSSES = ("cross_entropy", "dot_regression")
CHOICES = {"prototypes": PROTOTYPES, "head": HEADS, "predict_with": ("means", "assigned"), "prototype_loss": LOSSES}
OFF = {"supcon": 0.0, "prototypes": "learned", "pseudo_classes": None, "finetune": None, "subnet": None, "pretrain": 0}
OFF |= {"rotation": 0.0}


@dataclass(frozen=True, repr=False)
class Finetune:
    """How the encoder is tuned on the rows of a session: `finetune(lr=0.001, steps=20)`.

    lr: rate of the encoder; steps: gradient steps in a session, each on all its rows (at most 256 of them, drawn);
    prototype_lr: rate of what answers (new prototypes, or a softmax layer), that of the encoder where it is None; optimizer:
    "sgd" or "adam"; momentum (of sgd) and weight_decay. Batch norm keeps its statistics and weights, and old prototypes stay
    where they are.
    """

    lr: float = 0.001
    steps: int = 20
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    prototype_lr: float | None = None
    name: ClassVar[str] = "finetune"

    def __post_init__(self) -> None:
        check_range("finetune", "lr", self.lr, 0.0)
        check_count("finetune", "steps", self.steps)
        check_range("finetune", "momentum", self.momentum, 0.0, 1.0)
        check_range("finetune", "weight_decay", self.weight_decay, 0.0)
        if self.prototype_lr is not None:
            check_range("finetune", "prototype_lr", self.prototype_lr, 0.0)
        if self.optimizer not in OPTIMIZERS:
            raise ArgumentError(closest("finetune: optimizer", str(self.optimizer), OPTIMIZERS))

    @property
    def answering_lr(self) -> float:
        """The rate of the new prototypes, or of the softmax layer."""
        return self.lr if self.prototype_lr is None else self.prototype_lr

    def rule(self, lr: float) -> Optimizer:
        """The optimiser as a value, at this rate."""
        if self.optimizer == "adam":
            return Adam(lr=lr, weight_decay=self.weight_decay)
        return SGD(lr=lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True)
class Trick:
    """A trick: number and group in the paper, what it does, the argument that switches it, and its usual value."""

    number: int
    group: str
    title: str
    argument: str
    value: Any


TRICKS: dict[str, Trick] = {
    "supcon": Trick(1, "stability", "supervised contrastive loss", "supcon", 1.0),
    "prototypes": Trick(2, "stability", "pre-assigned prototypes", "prototypes", "spread"),
    "pseudo_classes": Trick(3, "stability", "pseudo-classes", "pseudo_classes", "rotation2"),
    "finetune": Trick(4, "adaptability", "incremental fine-tuning", "finetune", Finetune()),
    "subnet": Trick(5, "adaptability", "subnet tuning", "subnet", 0.1),
    "encoder": Trick(6, "training", "larger encoder", "model", None),
    "pretrain": Trick(7, "training", "pre-training", "pretrain", 6),
    "rotation": Trick(8, "training", "additional signal", "rotation", 0.5),
}
SWITCHED = tuple(name for name in TRICKS if name != "encoder")
GROUPS = {
    "all": SWITCHED,
    **{
        group: tuple(name for name in SWITCHED if TRICKS[name].group == group)
        for group in ("stability", "adaptability", "training")
    },
}


def chosen(owner: str, tricks: str, given: dict[str, Any], off: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the tricks of a text such as "supcon+rotation" or "all" switched on; what was given by hand stays.

    given: {argument: value}; off: {argument: the value that means off}. Raises ArgumentError for an unknown trick.

    >>> chosen("few_shot", "training", {"pretrain": 2, "rotation": 0.0}, {"pretrain": 0, "rotation": 0.0})
    {'pretrain': 2, 'rotation': 0.5}
    """
    if not isinstance(tricks, str):
        raise ArgumentError(f"{owner}: tricks must be a text such as 'supcon+rotation' or 'all', got {tricks!r}.")
    values = dict(given)
    for word in tricks.split("+") if tricks else ():
        if word == "encoder":
            raise ArgumentError(f"{owner}: the larger encoder is no switch but the network itself; give a larger one.")
        if word not in SWITCHED and word not in GROUPS:
            raise ArgumentError(closest(f"{owner}: trick", word, (*SWITCHED, *GROUPS)))
        for name in GROUPS.get(word, (word,)):
            if values[name] == off[name]:
                values[name] = TRICKS[name].value
    return values


def checked(owner: str, **given: Any) -> dict[str, Any]:
    """The values of the seven switches after `tricks`; refuses arguments of `few_shot` that are out of range or do not go
    together.

    given: every argument but the model. Raises ArgumentError.
    """
    on = chosen(owner, given["tricks"], {name: given[name] for name in SWITCHED}, OFF)
    given = {**given, **on}
    for argument in ("supcon", "rotation", "classification"):
        check_range(owner, argument, given[argument], 0.0)
    for argument in ("subnet", "calibrate"):
        if given[argument] is not None:
            check_range(owner, argument, given[argument], 0.0, 1.0)
    for argument in ("scale", "temperature", "pretrain_temperature"):
        value = given[argument]
        if not isinstance(value, (int, float)) or not value > 0:
            raise ArgumentError(f"{owner}: {argument} must be above 0, got {value!r}.")
    check_count(owner, "pretrain", on["pretrain"], low=0)
    for argument in ("pretrain_batch", "projection", "passes"):
        check_count(owner, argument, given[argument])
    for argument, allowed in CHOICES.items():
        if given[argument] not in allowed:
            raise ArgumentError(closest(f"{owner}: {argument}", str(given[argument]), allowed))
    if on["finetune"] is not None and not isinstance(on["finetune"], Finetune):
        raise ArgumentError(f"{owner}: finetune must be finetune(lr=..., steps=...) or None, got {on['finetune']!r}.")
    if given["predict_with"] == "assigned" and on["prototypes"] == "learned":
        raise ArgumentError(
            f"{owner}: predict_with='assigned' needs fixed prototypes, got prototypes='learned'. Use prototypes='spread'."
        )
    bare = on["prototypes"] == "learned" and on["pseudo_classes"] is None and given["calibrate"] is None
    if given["head"] != "means" and not bare:
        raise ArgumentError(
            f"{owner}: head={given['head']!r} has no prototypes; leave prototypes, pseudo_classes and calibrate at their defaults."
        )
    if given["classification"] == 0 and not on["supcon"]:
        raise ArgumentError(f"{owner}: classification=0 leaves nothing to learn from. Use supcon=1.0 with it.")
    if on["rotation"] and "rotation4" in str(on["pseudo_classes"]):
        warnings.warn(
            f"{owner}: pseudo_classes={on['pseudo_classes']!r} tells quarter turns apart already, so rotation adds nothing.",
            UserWarning,
            stacklevel=3,
        )
    return on
