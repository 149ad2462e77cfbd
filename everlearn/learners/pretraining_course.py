"""A course of pre-training: domain after domain, a model delivered after each, measured on all domains, killed and resumed at will.

    phase j     steps - anneal updates on the main line, then a fork of `anneal` more, which is delivered
    record      curve (rate, loss, held-out loss of every domain), delivered[j][k] = held-out loss of domain k of the model of phase j

A schedule of known length spends all its steps on the main line, which is delivered as it is: at equal steps both see as many rows. What
resuming needs stands in snapshots: the line, and during an annealing also the main line that it was forked from.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.run import environment
from everlearn.core.run_folder import METRICS, RESULT, SNAPSHOTS, open_folder, write_lines
from everlearn.core.state import capture, digest, load, newest_snapshot, save_snapshot, write_atomic
from everlearn.data.pretraining import Domain
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss

DELIVERED = "delivered"  # the folder of the models
POINTS = 40  # of the curve in a phase
LOOKS = 8  # of them at which held-out rows are measured
UNSAFE = re.compile(r"[^\w.+-]+")  # in the name of a folder
MOST = 1024  # rows of a domain that are measured

Deliver = Callable[[nn.Module, Path], None]


@dataclass
class Progress:
    """How far a course has come; all of it is state."""

    parts = ("phase", "annealed", "updates", "main", "curve", "losses", "delivered")
    phase: int = 0
    annealed: bool = False  # whether the line is a fork
    updates: int = 0  # of the main line and of forks
    main: Any = None  # the state that a fork left behind
    curve: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # since the last point of the curve
    delivered: list[dict[str, float]] = field(default_factory=list)


class Course:
    """A pre-trainer and its way through domains.

    line: at its beginning; domains: of distinct names, in order; steps: updates in each; anneal: how many of them are spent on the
    delivered fork; folder: where config.yaml, metrics.jsonl, snapshots, delivered models and result.json go; snapshot_every: updates;
    most: held-out rows measured of each domain; deliver: writes a model into a folder (by default model.safetensors); config: what else
    tells this course from another; clock: gives seconds, where the record is to tell the speed; it decides nothing.

    Raises ArgumentError, and what the folder of another course raises.
    """

    parts = ("line", "progress")

    def __init__(
        self,
        line: ContinualPretrainer,
        domains: Sequence[Domain],
        *,
        steps: int,
        anneal: int = 0,
        folder: str | Path | None = None,
        resume: bool = True,
        snapshot_every: int = 200,
        most: int = MOST,
        deliver: Deliver | None = None,
        config: dict[str, Any] | None = None,
        clock: Callable[[], float] | None = None,
    ):
        check_count("pretrain", "steps", steps)
        check_count("pretrain", "anneal", anneal, low=0)
        check_count("pretrain", "snapshot_every", snapshot_every)
        if anneal >= steps:
            raise ArgumentError(f"pretrain: anneal must be below steps, got anneal={anneal} and steps={steps}.")
        names = [domain.name for domain in domains]
        if not names or len(set(names)) < len(names):
            raise ArgumentError(
                f"pretrain: domains need names of their own, got {', '.join(names) or 'none'}. Name them, as in en=english.txt."
            )
        self.line, self.domains, self.steps, self.anneal = line, list(domains), steps, anneal
        self.folder = Path(folder) if folder is not None else None
        self.snapshot_every, self.most, self.deliver = snapshot_every, most, deliver or write_weights
        self.progress = Progress()
        self.writes = line.rank == 0 and self.folder is not None
        self.trained = self.seconds = 0.0  # rows learned here and what they took, without measuring
        self._clock, self._began = clock or (lambda: 0.0), 0.0
        if self.folder is not None:
            settings = {**(config or {}), "domains": names, "steps": steps, "anneal": anneal}
            settings["initial_state"] = digest(line.state_dict())
            if self.writes:
                open_folder(self.folder, settings, resume)
            found = newest_snapshot(self.folder / SNAPSHOTS) if resume else None
            if found is not None:
                load(self, found[1])
                if not self.finished:
                    line.enter(self.domains[self.progress.phase])

    @property
    def finished(self) -> bool:
        """Whether all domains were learned."""
        return self.progress.phase == len(self.domains)

    def run(self, watch: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """All phases; the record. watch: is told updates made and updates in all."""
        total = self.steps * len(self.domains)
        at = self.progress
        if watch is not None:
            watch(at.updates, total)
        if self.finished and (self.folder / RESULT).is_file():
            return json.loads((self.folder / RESULT).read_text())
        while not self.finished:
            domain = self.domains[at.phase]
            self.line.enter(domain)
            if not at.annealed:
                left = self.line.began[-1] + self.steps - self.anneal - self.line.steps
                self._timed(lambda left=left, domain=domain: self.line.phase(domain, left, watch=self._tell(watch, total)))
                at.main = self.line.state_dict() if self.anneal else None
                at.annealed = True
            if self.anneal:
                self._timed(lambda: self.line.anneal(self.anneal, watch=self._tell(watch, total)))
            self._hand_out(domain)
            if self.anneal:
                self.line.load_state_dict(at.main)
            at.main, at.annealed = None, False
            at.phase += 1
        record = self.record()
        if self.writes:
            write_lines(self.folder / METRICS, at.curve)
            save_snapshot(self.folder / SNAPSHOTS, at.updates, capture(self))
            write_atomic(self.folder / RESULT, json.dumps(record, indent=1).encode())
        return record

    def record(self) -> dict[str, Any]:
        """What result.json holds."""
        names = [domain.name for domain in self.domains]
        table = [[row[name] for name in names] for row in self.progress.delivered]
        speed = self.trained / self.seconds if self.seconds else None
        tokens = getattr(self.domains[0], "window", None)
        return {
            "kind": "pretraining",
            "format": 1,
            "schedule": repr(self.line.scheduler.schedule),
            "objective": repr(self.line.objective),
            "domains": names,
            "steps": self.steps,
            "anneal": self.anneal,
            "delivered": table,
            **summary(table, self.progress.curve),
            "updates": self.progress.updates,
            "rows": self.line.batch * self.progress.updates,
            "rows_per_second": speed,
            "tokens_per_second": speed and tokens and speed * tokens,
            "processes": self.line.world,
            "curve": self.progress.curve,
            "environment": environment(str(next(self.line.model.parameters()).device)),
        }

    def _timed(self, train: Callable[[], Any]) -> None:
        self._began = self._clock()
        train()

    def _tell(self, watch: Callable[[int, int], None] | None, total: int) -> Callable[[ContinualPretrainer, float], None]:
        """What happens after each update: the clock, the curve, a snapshot, the user's progress bar."""
        stride = max(1, self.steps // POINTS)
        look = stride * max(1, POINTS // LOOKS)

        def told(line: ContinualPretrainer, loss: float) -> None:
            self.seconds += self._clock() - self._began
            self.trained += line.batch
            at = self.progress
            at.updates += 1
            at.losses.append(loss)
            within = at.updates - self.steps * at.phase
            if within % stride == 0 or within == self.steps:
                at.curve.append(self._point(loss_only=within % look != 0 or within == self.steps))
                if watch is not None:
                    watch(at.updates, total)
            if self.writes and at.updates % self.snapshot_every == 0:
                save_snapshot(self.folder / SNAPSHOTS, at.updates, capture(self))
                write_lines(self.folder / METRICS, at.curve)
            self._began = self._clock()

        return told

    def _point(self, loss_only: bool) -> dict[str, Any]:
        at = self.progress
        point = {
            "update": at.updates,
            "step": self.line.steps,
            "phase": at.phase,
            "fork": at.annealed,
            "lr": self.line.rate,
            "loss": sum(at.losses) / len(at.losses),
        }
        at.losses.clear()
        if not loss_only:  # every process measures, so that none waits for another
            point["held_out"] = self._judge(self.line.model)
        return point

    def _judge(self, model: nn.Module) -> dict[str, float]:
        return {
            domain.name: held_out_loss(model, self.line.objective, domain, most=self.most, seed=self.line.seed)
            for domain in self.domains
        }

    def _hand_out(self, domain: Domain) -> None:
        at = self.progress
        losses = self._judge(self.line.model)
        at.delivered.append(losses)
        at.curve[-1] |= {"held_out": losses, "delivered": True}
        if self.writes:
            place = self.folder / DELIVERED / f"{at.phase + 1:02d}-{UNSAFE.sub('-', domain.name)}"
            place.mkdir(parents=True, exist_ok=True)
            self.deliver(self.line.model, place)


def write_weights(model: nn.Module, folder: Path) -> None:
    """The weights as model.safetensors, whole or not at all; weights that are tied stand once under each of their names."""
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_atomic(folder / "model.safetensors", save(weights))


def summary(table: Sequence[Sequence[float]], curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """forgetting[k]: held-out loss of domain k of the last model beyond that of the model delivered after it; learning[k]: what its phase
    took from that loss, beside the model delivered before (None for the first); final: the mean of the last row.

    >>> told = summary([[2.0, 4.0], [2.5, 3.0]], [])
    >>> told["forgetting"], told["learning"], told["final"]
    ([0.5, 0.0], [None, 1.0], 2.75)
    """
    last = table[-1]
    return {
        "forgetting": [last[k] - row[k] for k, row in enumerate(table)],
        "learning": [None, *(before[k] - row[k] for k, (before, row) in enumerate(pairwise(table), 1))],
        "final": sum(last[: len(table)]) / len(table),
        "rewarming": rewarming(curve),
    }


def rewarming(curve: Sequence[dict[str, Any]]) -> float | None:
    """The highest rise of a domain's held-out loss on the main line within later phases, above what was delivered of it before them.

    None where there is one phase. 0 where nothing rose.

    >>> points = [{"phase": 0, "held_out": {"a": 2.0}, "delivered": True}, {"phase": 1, "fork": False, "held_out": {"a": 2.25}}]
    >>> rewarming(points)
    0.25
    """
    rises = []
    standing: dict[str, float] = {}
    for point in curve:
        held = point.get("held_out", {})
        if point["phase"] and not point.get("delivered") and not point["fork"]:
            rises += [held[name] - standing[name] for name in held if name in standing]
        if point.get("delivered"):
            standing = held
    return max([0.0, *rises]) if rises else None
