"""How full a network of sparse tasks is: what each task reads, what it shares, and how many more tasks there is room for.

    used after t tasks, independent draws of density d     1 - (1 - d)^t
    tasks left in a layer     log(reserve / free) / log(free^(1 / t))       free = 1 - used, as if it went on falling as it did

A layer is full once no more than `reserve` of it is free: a task can then only read what others learned.
"""

import math
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import check_range
from everlearn.core.events import Boundary, Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream


def used_fraction(density: float, tasks: int) -> float:
    """The part of the weights that some task reads, after independent draws of this density.

    >>> round(used_fraction(0.2, 10), 6)
    0.892626
    """
    return 1.0 - (1.0 - density) ** tasks


def tasks_left(used: float, tasks: int, reserve: float = 0.05) -> float | None:
    """How many more tasks before no more than `reserve` of a layer is free; 0 where it is full, None where it does not fill at all.

    used: of the layer, after so many tasks. With reserve=0 the forecast is None until nothing is free.
    Under independent draws of density d it is log(reserve) / log(1 - d) - tasks.

    >>> round(tasks_left(used_fraction(0.2, 4), 4), 3), round(math.log(0.05) / math.log(0.8) - 4, 3)
    (9.425, 9.425)
    """
    free = 1.0 - used
    if free <= reserve:
        return 0.0
    if used <= 0.0 or tasks < 1 or reserve <= 0.0:  # what halves again and again is never 0
        return None
    return max(0.0, math.log(reserve / free) / (math.log(free) / tasks))


class Sparsity(Monitor):
    """Watches a learner that gives each task a mask: one that has `layers`, `tasks` and `mask_of`; others leave no figures.

    reserve: the part of a layer that must be free, 0.05, or it counts as full. Figures: by_task (its number, density, reuse: the share
    of its mask that earlier tasks read too, used: the share of all weights that some task reads by then), used (by layer),
    tasks_left (by layer, None where it does not fill), full (layers), and next_full: the layer that is full next, and after how
    many tasks. Tells before accuracy falls, which it does once tasks can only share.
    """

    name = "sparsity"
    parts = ("rows", "layers")

    def __init__(self, reserve: float = 0.05):
        check_range(self.name, "reserve", reserve, 0.0, 1.0)
        self.reserve = reserve
        self.rows: list[dict[str, Any]] = []  # by task, the last one as it stands
        self.layers: dict[str, float] = {}  # used, by layer

    def start(self, learner: Learner, stream: Stream) -> None:
        """Nothing is needed of either."""

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        if isinstance(step.event, Boundary):
            self.look(learner)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Masks are looked at, not answers."""

    def look(self, learner: Any) -> None:
        """Take stock of all masks. The last task's may still change, so its row is made again each time."""
        if not all(hasattr(learner, name) for name in ("layers", "tasks", "mask_of")) or not learner.tasks:
            return
        self.rows = self.rows[:-1]
        union: Tensor | None = None
        for place, task in enumerate(learner.tasks):
            mask = learner.mask_of(task)
            before = torch.zeros_like(mask) if union is None else union
            union = before | mask
            if place >= len(self.rows):
                active = int(mask.sum())
                row = {"task": task, "density": active / mask.numel()}
                row |= {"reuse": int((mask & before).sum()) / max(1, active), "used": float(union.double().mean())}
                self.rows.append(row)
        self.layers = {name: float(union[place].double().mean()) for name, place in learner.layers.items()}

    def record(self, learner: Learner) -> dict[str, Any]:
        self.look(learner)
        return {"used": self.rows[-1]["used"], "reuse": self.rows[-1]["reuse"]} if self.rows else {}

    def figures(self) -> dict[str, Any]:
        if not self.rows:
            return {}
        left = {name: tasks_left(used, len(self.rows), self.reserve) for name, used in self.layers.items()}
        full = [name for name, count in left.items() if count == 0.0]
        waiting = {name: count for name, count in left.items() if count}
        soonest = min(waiting, key=waiting.__getitem__) if waiting else None
        return {
            "by_task": list(self.rows),
            "used": dict(self.layers),
            "tasks_left": left,
            "full": full,
            "next_full": None if soonest is None else {"layer": soonest, "tasks": waiting[soonest]},
        }
