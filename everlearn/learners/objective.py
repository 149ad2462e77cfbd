"""One objective for many methods, written down as data: a task loss, penalties on outputs and penalties on weights.

    loss = task loss + sum_k weight_k D_k(h_k(x'), z_k) + sum_j weight_j D_j(w, anchor_j)       D: Bregman divergences

h is a view of the model's answers (scores, probabilities, sigmoids, features), x' the batch or rows remembered, z what they are
held to (labels, stored scores, the old model, the uniform distribution), the anchor a point that the weights are held to.

Reference: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from everlearn.core.errors import ArgumentError, check_range, closest
from everlearn.core.spec import build, describe, invoke, parse
from everlearn.nn.bregman import POTENTIALS, BinaryNegEntropy, LogNorm, NegEntropy, Potential, Quadratic, Squared

SQUARED = Squared()
VIEWS = ("logits", "probs", "sigmoid", "features")
SOURCES = ("current", "memory", "both")
TARGETS = ("stored_logits", "label", "old_model", "uniform")
ORDERS = ("target_first", "model_first")
CLASSES = ("all", "old", "seen")
REDUCES = ("sum", "mean")
REFERENCES = ("last_task", "each_task", "start")
FISHERS = {
    "fisher_exact": "exact",
    "fisher_sampled": "sampled",
    "fisher_empirical": "empirical",
    "fisher_released": "released",
}
IMPORTANCES = (*FISHERS, "path_integral", "output_norm")
TASK_LOSSES = ("cross_entropy", "binary_cross_entropy")
TASK_CLASSES = ("all", "seen", "new")


def _check(owner: str, argument: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ArgumentError(closest(f"{owner}: {argument}", str(value), allowed))


@dataclass(frozen=True, repr=False)
class OutputTerm:
    """weight * mean over rows of D(h(x'), z): what the model should go on saying.

    weight: >= 0, 0 switches the term off; potential: of the divergence, `squared()`, `quadratic(A)`, `negentropy()`,
    `binary_negentropy()` or `lognorm("categorical")`; view: h, "logits", "probs" (their softmax), "sigmoid" or "features" (what
    reaches the last linear layer); source: the rows, "current", "memory" (a draw of the term's own) or "both" (the batch and a
    draw that all such terms share); target: z, "stored_logits" (of rows remembered), "label" (one-hot), "old_model" (the model
    at the last announced change; the term is 0 until there is one) or "uniform"; order: "target_first" is D(z, h), "model_first"
    D(h, z); temperature: divides scores before the softmax or sigmoid; classes: "all", those "seen" so far, or the "old" ones
    that came before the last change; reduce: "sum" or "mean" over coordinates.

    Raises ArgumentError, with the term in it, for what does not go together.

    Reference: Wang et al. (2024), arXiv 2403.13249.
    """

    weight: float = 1.0
    potential: Potential = SQUARED
    view: str = "logits"
    source: str = "current"
    target: str = "old_model"
    order: str = "target_first"
    temperature: float = 1.0
    classes: str = "all"
    reduce: str = "sum"
    name: ClassVar[str] = "output"

    def __post_init__(self) -> None:
        check_range("output", "weight", self.weight, 0.0)
        _check_potential("output", self.potential)
        allowed = {
            "view": VIEWS,
            "source": SOURCES,
            "target": TARGETS,
            "order": ORDERS,
            "classes": CLASSES,
            "reduce": REDUCES,
        }
        for argument, words in allowed.items():
            _check("output", argument, getattr(self, argument), words)
        check_range("output", "temperature", self.temperature, 0.0)
        for wrong, advice in self._contradictions():
            if wrong:
                raise ArgumentError(f"{self!r}: {advice}")

    def _contradictions(self) -> list[tuple[bool, str]]:
        """(whether it holds, what is wrong and how to mend it) of everything that does not go together."""
        kind, view, target = self.potential, self.view, self.target
        infinite = isinstance(kind, (NegEntropy, BinaryNegEntropy)) and self.order == "model_first"
        scaled = view in ("probs", "sigmoid")
        return [
            (self.temperature == 0, "temperature must be above 0, got 0."),
            (self.temperature != 1 and not scaled, f"a temperature has no meaning for view={view!r}. Use view='probs'."),
            (infinite and target == "label", "D(h, one-hot) is infinite. Use order='target_first'."),
            (isinstance(kind, NegEntropy) and view != "probs", f"negentropy() compares view='probs', got {view!r}."),
            (
                isinstance(kind, BinaryNegEntropy) and view != "sigmoid",
                f"binary_negentropy() compares view='sigmoid', got {view!r}.",
            ),
            (
                isinstance(kind, LogNorm) and (view != "logits" or kind.family != "categorical"),
                "of log-partitions only lognorm('categorical') with view='logits' compares outputs.",
            ),
            (isinstance(kind, Quadratic) and kind.matrix is None, "quadratic() needs its matrix: quadratic((1.0, 2.0))."),
            (
                target == "stored_logits" and self.source != "memory",
                f"only rows remembered have stored scores, got source={self.source!r}. Use source='memory'.",
            ),
            (target == "uniform" and not scaled, f"no {view} are uniform. Use view='probs'."),
            (target == "label" and not scaled, f"labels cannot be compared with {view}. Use view='probs' or 'sigmoid'."),
            (
                target == "label" and view == "probs" and self.classes == "old",
                "labels may be of other than the old classes. Use classes='all' or 'seen'.",
            ),
            (view == "features" and target != "old_model", f"features have no {target}. Use target='old_model'."),
            (view == "features" and self.classes != "all", "features do not belong to classes. Use classes='all'."),
        ]

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class WeightTerm:
    """weight * D(w, anchor): where the weights should stay.

    weight: >= 0, 0 switches the term off; potential: `squared()`, `quadratic()` with an importance of the weights or with a matrix
    of its own, or `lognorm()`: weights are then drawn from independent Gaussians, held to those of the last task (before the
    first change to standard ones) by KL, once per objective. reference: the anchor, "last_task" (weights at the last announced
    change), "each_task" (one term for each past task, kept as one) or "start" (weights as given).
    importance: of a quadratic without a matrix, taken at the end of a task: "fisher_exact", "fisher_sampled", "fisher_empirical"
    (of the true labels), "fisher_released" (that, times the chance of the true label), "path_integral" (what each weight's moves
    did for the task loss) or "output_norm" (how much each weight moves |scores|^2); decay: what remains of the old importance at
    a change; damping: added to squared moves before the path integral is divided by them.

    Raises ArgumentError, with the term in it, for what does not go together.

    Reference: Wang et al. (2024), arXiv 2403.13249.
    """

    weight: float = 1.0
    potential: Potential = SQUARED
    reference: str = "last_task"
    importance: str | None = None
    decay: float = 1.0
    damping: float = 0.1
    name: ClassVar[str] = "weight"

    def __post_init__(self) -> None:
        check_range("weight", "weight", self.weight, 0.0)
        _check_potential("weight", self.potential)
        _check("weight", "reference", self.reference, REFERENCES)
        if self.importance is not None:
            _check("weight", "importance", self.importance, IMPORTANCES)
        check_range("weight", "decay", self.decay, 0.0, 1.0)
        check_range("weight", "damping", self.damping, 0.0)
        for wrong, advice in self._contradictions():
            if wrong:
                raise ArgumentError(f"{self!r}: {advice}")

    def _contradictions(self) -> list[tuple[bool, str]]:
        kind, importance = self.potential, self.importance
        measured = isinstance(kind, Quadratic) and kind.matrix is None
        return [
            (
                isinstance(kind, (NegEntropy, BinaryNegEntropy))
                or (isinstance(kind, LogNorm) and kind.family != "gaussian"),
                "weights are compared by squared(), quadratic() or lognorm('gaussian').",
            ),
            (measured and importance is None, f"quadratic() needs an importance, one of {', '.join(IMPORTANCES)}."),
            (not measured and importance is not None, "only quadratic() without a matrix takes an importance."),
            (measured and self.reference == "start", "importances are taken at the end of a task. Use 'last_task'."),
            (self.decay != 1 and not (measured and self.reference == "last_task"), "only a running importance decays."),
            (isinstance(kind, LogNorm) and self.reference != "last_task", "lognorm() holds to the last task."),
            (importance == "path_integral" and self.reference != "last_task", "path integrals run from task to task."),
            (
                importance == "path_integral" and self.damping == 0,
                "weights that did not move would be divided by damping=0.",
            ),
        ]

    def __repr__(self) -> str:
        return describe(self)


def _check_potential(owner: str, potential: Any) -> None:
    if not isinstance(potential, tuple(POTENTIALS.values())):
        raise ArgumentError(
            f"{owner}: potential must be one of {', '.join(POTENTIALS)}, such as squared(), got {potential!r}."
        )


@dataclass(frozen=True, repr=False)
class Objective:
    """A task loss and any number of output and weight terms: what a `unified` learner descends.

    task_loss: "cross_entropy", or "binary_cross_entropy" summed over classes; output, weight: tuples of terms; source: the rows of
    the task loss, "current" or "both" (the mean over the batch and a draw together, shared with output terms of that source);
    task_classes: those that take part in a binary task loss, "all", "seen", or "new" (seen, and not old); natural: a damping > 0
    makes the step a natural-gradient one, multiplied by the inverse of (the quadratic terms' precision + damping), which then
    also is the penalty's; None is the plain step.

    The objectives of published methods are made by `preset("ewc", strength=20)`.

    >>> term = OutputTerm(0.5, NegEntropy(), "probs", temperature=2.0, classes="old")  # as learning without forgetting has it
    >>> print(Objective(output=(term,)).table())
    term      weight  divergence    h            z          rows     reference
    task      1       -             probs        label      current  -
    output 1  0.5     negentropy()  probs (T=2)  old_model  current  D(z, h), old classes

    Reference: Wang et al. (2024), arXiv 2403.13249.
    """

    task_loss: str = "cross_entropy"
    output: tuple[OutputTerm, ...] = ()
    weight: tuple[WeightTerm, ...] = ()
    source: str = "current"
    task_classes: str = "all"
    natural: float | None = None
    name: ClassVar[str] = "objective"

    def __post_init__(self) -> None:
        _check("objective", "task_loss", self.task_loss, TASK_LOSSES)
        _check("objective", "source", self.source, ("current", "both"))
        _check("objective", "task_classes", self.task_classes, TASK_CLASSES)
        for argument, kind in (("output", OutputTerm), ("weight", WeightTerm)):
            given = getattr(self, argument)
            terms = tuple(given) if isinstance(given, (list, tuple)) else (given,)
            wrong = [term for term in terms if not isinstance(term, kind)]
            if wrong:
                raise ArgumentError(f"objective: {argument} takes terms such as {kind()!r}, got {wrong[0]!r}.")
            object.__setattr__(self, argument, terms)
        if self.task_loss == "cross_entropy" and self.task_classes != "all":
            raise ArgumentError(
                f"objective: cross_entropy runs over all classes, got task_classes={self.task_classes!r}. "
                "Use task_loss='binary_cross_entropy'."
            )
        variational = [term for term in self.weight if isinstance(term.potential, LogNorm)]
        if len(variational) > 1:
            raise ArgumentError(
                f"objective: one lognorm() term draws the weights, got {len(variational)}: {variational[1]!r}."
            )
        if self.natural is not None:
            check_range("objective", "natural", self.natural, 0.0)
            diagonal = all(isinstance(term.potential, (Squared, Quadratic)) for term in self.weight)
            if self.natural == 0 or not diagonal or not self.weight:
                raise ArgumentError(
                    f"objective: natural={self.natural!r} needs a damping above 0 and weight terms that are all squared() or "
                    f"quadratic(), got {list(self.weight)}."
                )

    def table(self, markdown: bool = False) -> str:
        """Every term with its parts, in columns of plain text or as a table of markdown."""
        columns = ("term", "weight", "divergence", "h", "z", "rows", "reference")
        binary = self.task_loss != "cross_entropy"
        rows = [
            ("task", "1", "-", "sigmoid" if binary else "probs", "label", self.source, "natural step" * bool(self.natural))
        ]
        for number, term in enumerate(self.output, 1):
            view = term.view if term.temperature == 1 else f"{term.view} (T={term.temperature:g})"
            notes = ["D(z, h)" if term.order == "target_first" else "D(h, z)"]
            notes += [f"{term.classes} classes"] * (term.classes != "all")
            notes += ["mean over coordinates"] * (term.reduce == "mean")
            divergence = describe(term.potential)
            rows.append(
                (f"output {number}", f"{term.weight:g}", divergence, view, term.target, term.source, ", ".join(notes))
            )
        for number, term in enumerate(self.weight, 1):
            notes = term.reference + (f", decay {term.decay:g}" if term.decay != 1 else "")
            divergence = describe(term.potential)
            rows.append((f"weight {number}", f"{term.weight:g}", divergence, "weights", term.importance or "", "", notes))
        filled = [columns, *[tuple(cell or "-" for cell in row) for row in rows]]
        if markdown:
            filled.insert(1, ("---",) * len(columns))
            return "\n".join(f"| {' | '.join(row)} |" for row in filled)
        widths = [max(len(row[place]) for row in filled) for place in range(len(columns))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in filled)

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict of lists, texts and numbers, for YAML and JSON; potentials are call strings."""
        plain = {key: getattr(self, key) for key in ("task_loss", "source", "task_classes", "natural")}
        return {
            **plain,
            "output": [_to_dict(term) for term in self.output],
            "weight": [_to_dict(term) for term in self.weight],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Objective":
        """The objective of a dict that `to_dict` gave or a file held; what is left out has its default.

        >>> Objective.from_dict({"output": [{"weight": 0.5, "potential": "squared()"}]})
        objective(output=(output(weight=0.5),))
        """
        given = dict(record)
        for key, kind in (("output", OutputTerm), ("weight", WeightTerm)):
            given[key] = tuple(_from_dict(kind, term) for term in given.get(key, ()))
        return invoke("objective", cls, [], given)

    def __repr__(self) -> str:
        return describe(self)


def _to_dict(term: OutputTerm | WeightTerm) -> dict[str, Any]:
    record = {field.name: getattr(term, field.name) for field in fields(term)}
    return {**record, "potential": describe(term.potential)}


def _from_dict(kind: Callable, record: Mapping[str, Any]) -> Any:
    given = dict(record)
    if isinstance(given.get("potential"), str):
        given["potential"] = build(parse(given["potential"]), POTENTIALS, "potential")
    return invoke(kind.name, kind, [], given)
