"""The structures of a recurring stream by name, as schedules of classes, and what of them is refused.

| structure | schedule |
|---|---|
| `random`, `lifelong` | drawn by the class probabilities |
| `periods` | the same, of the first half of the classes in the first half of the run, then of the others |
| `cycle` | all combinations in order |
| `pairs` | drawn from a part of all combinations |
| `partition`, `iid` | disjoint tasks, or one task of all classes, repeated |

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from collections.abc import Sequence
from typing import Any

import numpy

from everlearn.core.errors import ArgumentError, check_count, check_range, closest
from everlearn.core.random import derive
from everlearn.data.class_schedule import (
    Cycle,
    Drawn,
    Imbalanced,
    Listed,
    Schedule,
    Span,
    Weights,
    some_combinations,
)

STRUCTURES = ("random", "cycle", "pairs", "partition", "periods", "iid", "lifelong")
WEIGHTED = ("random", "periods", "lifelong", "cycle")  # those that heed class probabilities
MIX = {"cycle": 0.0, "pairs": 0.1}
TOLERANCE = 1e-6  # by which probabilities may miss a sum of 1
OWNER = "recurring"


def check_structure(tasks: int, per_task: int, structure: str, mix: float | None, prob: Any, reduction: float) -> float:
    """Refuse what does not fit a structure; gives the mix that holds."""
    check_count(OWNER, "tasks", tasks)
    check_count(OWNER, "classes_per_task", per_task)
    if structure not in STRUCTURES:
        raise ArgumentError(f"{OWNER}: {closest('structure', str(structure), STRUCTURES)}")
    if mix is not None:
        check_range(OWNER, "mix", mix, 0.0, 1.0)
        if structure not in MIX:
            raise ArgumentError(
                f"{OWNER}: mix belongs to structure='cycle' (part of classes replaced) and 'pairs' (part of combinations used), "
                f"and structure={structure!r} has none. Leave mix out."
            )
    mix = MIX.get(structure, 0.0) if mix is None else mix
    heeds = structure in WEIGHTED and not (structure == "cycle" and mix == 0.0)
    if not (isinstance(prob, str) and prob == "uniform") and not heeds:
        raise ArgumentError(
            f"{OWNER}: class_prob weighs classes that are drawn, and structure={structure!r} draws none by weight. "
            "Use structure='random', or class_prob='uniform'."
        )
    check_range(OWNER, "prob_reduction", reduction, 1.0, fix="1 leaves probabilities as they are, 2 halves them.")
    if reduction != 1.0 and structure not in ("random", "periods", "lifelong"):
        raise ArgumentError(
            f"{OWNER}: prob_reduction needs classes that are drawn anew, and structure={structure!r} has none. "
            "Use structure='random', or prob_reduction=1."
        )
    if structure == "periods" and tasks < 2:
        raise ArgumentError(f"{OWNER}: structure='periods' has two, and tasks={tasks} is not enough. Use tasks=2 or more.")
    return mix


def class_weights(prob: Any, usable: Sequence[bool], names: Sequence[str], seed: int) -> Weights:
    """(classes,) probabilities that sum to 1; usable: whether a class has rows to learn from.

    prob: "uniform", `imbalanced(...)` (both over the usable classes), or a probability for each class.
    """
    have = numpy.flatnonzero(usable)
    weights = numpy.zeros(len(usable))
    if isinstance(prob, str) and prob == "uniform":
        weights[have] = 1.0 / len(have)
        return weights
    if isinstance(prob, Imbalanced):
        random = numpy.random.default_rng(derive(seed, "imbalanced"))
        weights[random.permutation(have)] = prob.probabilities(len(have))
        return weights
    good = isinstance(prob, (list, tuple)) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1 for value in prob
    )
    if not good:
        raise ArgumentError(
            f"{OWNER}: class_prob must be 'uniform', imbalanced(exponent=2), or a tuple with a probability 0..1 for each class, "
            f"got {prob!r}."
        )
    if len(prob) != len(usable):
        raise ArgumentError(
            f"{OWNER}: class_prob has {len(prob)} probabilities, and there are {len(usable)} classes. Give one for each."
        )
    weights[:] = prob
    if abs(weights.sum() - 1.0) > TOLERANCE:
        raise ArgumentError(
            f"{OWNER}: class_prob must sum to 1 within {TOLERANCE:g}, got {weights.sum():.8g}. Divide each by the sum."
        )
    for label in numpy.flatnonzero(weights):
        if not usable[label]:
            raise ArgumentError(
                f"{OWNER}: class {names[label]!r} has the probability {weights[label]:g} and no row to learn from: its tasks would "
                "be empty. Give it the probability 0, or a smaller test part."
            )
    return weights / weights.sum()


def make_schedule(
    structure: str,
    weights: Weights,
    tasks: int,
    per_task: int,
    mix: float,
    reduction: float,
    drop_after: tuple[int, tuple[int, ...]] | None,
    seed: int,
) -> Schedule:
    """The schedule of a structure. weights: (classes,) from `class_weights`; drop_after: (task, classes) or None."""
    drop, gone = _drop(drop_after, tasks, len(weights))
    starts = sorted({0, *([drop] if gone else []), *([tasks // 2] if structure == "periods" else [])})
    spans = []
    for start in starts:
        allowed = weights.copy()
        if structure == "periods":
            half = len(weights) // 2
            allowed[half:] = 0.0 if start < tasks // 2 else allowed[half:]
            allowed[:half] = 0.0 if start >= tasks // 2 else allowed[:half]
        if gone and start >= drop:
            allowed[list(gone)] = 0.0
        spans.append((start, _enough(allowed, per_task, start)))
    if structure in ("random", "periods", "lifelong"):
        return Drawn(spans, per_task, reduction, seed)
    if structure == "cycle":
        return Cycle(spans, per_task, mix, seed)
    if structure == "iid":
        return Listed([(start, numpy.flatnonzero(span)[None]) for start, span in spans], len(weights), False, seed)
    return _listed(structure, spans, per_task, mix, seed)


def _listed(structure: str, spans: list[Span], per_task: int, mix: float, seed: int) -> Listed:
    """Tasks of a list made once; those with a dropped class leave it."""
    classes = numpy.flatnonzero(spans[0][1])
    if structure == "pairs":
        groups = classes[some_combinations(len(classes), per_task, mix, seed)]
    else:
        if len(classes) % per_task:
            raise ArgumentError(
                f"{OWNER}: structure='partition' needs tasks of equal size, and classes_per_task={per_task} does not divide the "
                f"{len(classes)} classes. Use classes_per_task={_divisor(len(classes), per_task)}."
            )
        order = numpy.random.default_rng(derive(seed, "partition")).permutation(classes)
        groups = numpy.sort(order.reshape(-1, per_task), axis=1)
    found = []
    for start, span in spans:
        left = groups[(span[groups] > 0).all(1)]
        if not len(left):
            raise ArgumentError(
                f"{OWNER}: drop_after leaves no task of structure={structure!r} from task {start} on: each of its {len(groups)} "
                "tasks has a dropped class. Drop fewer classes, or use structure='random'."
            )
        found.append((start, left))
    return Listed(found, len(spans[0][1]), structure == "pairs", seed)


def _divisor(classes: int, near: int) -> int:
    """The divisor of a number that is nearest to another one, the larger of two."""
    return min((number for number in range(1, classes + 1) if classes % number == 0), key=lambda d: (abs(d - near), -d))


def _enough(weights: Weights, per_task: int, start: int) -> Weights:
    """The weights, made to sum to 1. Refused where fewer classes than a task needs are left."""
    positive = int((weights > 0).sum())
    if per_task > positive:
        since = f" from task {start} on" if start else ""
        fix = f"Use classes_per_task={positive} or fewer." if positive else "Leave some class."
        raise ArgumentError(
            f"{OWNER}: classes_per_task={per_task} is more than the {positive} classes with positive probability{since}. {fix}"
        )
    return weights / weights.sum()


def _drop(drop_after: Any, tasks: int, classes: int) -> tuple[int, tuple[int, ...]]:
    """(task, classes) that never come from that task on, () for none."""
    if drop_after is None:
        return 0, ()
    if not isinstance(drop_after, (list, tuple)) or len(drop_after) != 2 or not isinstance(drop_after[1], (list, tuple)):
        raise ArgumentError(f"{OWNER}: drop_after must be (task, classes) such as (75, (5, 6)), got {drop_after!r}.")
    task, gone = drop_after
    check_count(OWNER, "drop_after[0]", task, low=0)
    for label in gone:
        check_count(OWNER, "a class of drop_after", label, low=0)
    if task >= tasks:
        raise ArgumentError(
            f"{OWNER}: drop_after[0]={task} lies behind the last of {tasks} tasks. Use a task before {tasks}."
        )
    if any(label >= classes for label in gone):
        raise ArgumentError(
            f"{OWNER}: drop_after names class {max(gone)}, and there are {classes} classes, 0..{classes - 1}."
        )
    return task, tuple(gone)
