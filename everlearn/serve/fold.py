"""The fold of a server: the same `Fold.step` as offline, fed with moments of the log.

    moment  ->  Batch(x of all inputs, no y), Batch(x, y of all answers)        an agent: one Feedback per answer

All that later steps depend on is in `parts`: the learner, what the guard and the alarms have seen, and which versions serve. So a
server that was killed continues from a snapshot and the logged steps after it, and is the server that was not.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch

from everlearn.core.agent import Agent
from everlearn.core.budget import Budget
from everlearn.core.errors import EverlearnError, InputError
from everlearn.core.events import Batch, Event, Feedback
from everlearn.core.learner import Adapter, Learner
from everlearn.core.run import Fold
from everlearn.core.state import capture, digest, restore
from everlearn.core.stream import Stream
from everlearn.measure.contents import networks
from everlearn.serve.guard import Guard
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.options import Options
from everlearn.serve.records import Alarm, Answer, Moment

Served = Learner | Agent


class Live(Stream):
    """The stream behind a server: it has a schema, no end, and no held-out sets."""

    def __init__(self, spec: InputSpec):
        self.name = "served"
        self.schema = spec.schema

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Event:
        raise InputError("a live stream has no events by number; export the log to read it.")


def events_of(moment: Moment, spec: InputSpec) -> list[Event]:
    """What a moment tells a learner, in order. An export of the log gives the same events."""
    if spec.kind == "actions":
        return [_feedback(answer, spec) for answer in moment.answers]
    events: list[Event] = []
    if moment.inputs:
        x = spec.tensor([row.x for row in moment.inputs])
        time = torch.tensor([row.created for row in moment.inputs], dtype=torch.float64)
        events.append(Batch(x, time=time, id=tuple(row.id for row in moment.inputs)))
    if moment.answers:
        x = spec.tensor([row.x for row in moment.answers])
        y = spec.answers([row.y for row in moment.answers])
        time = torch.tensor([row.created for row in moment.answers], dtype=torch.float64)
        events.append(Batch(x, y, time=time, id=tuple(row.id for row in moment.answers)))
    return events


def _feedback(answer: Answer, spec: InputSpec) -> Feedback:
    given = answer.output
    reward, generation = float(answer.y), given.get("generation")
    return Feedback(answer.id, spec.tensor([answer.x]), given["answer"], given["propensity"], reward, generation=generation)


def answered_score(answer: Answer, spec: InputSpec) -> float:
    """How good an answer was, as it was given: 1 or 0, minus the mean absolute error, or the reward."""
    if spec.kind == "actions":
        return float(answer.y)
    given = answer.output["answer"]
    if spec.kind == "classes":
        return float(given == spec.classes[answer.y])
    return -math.fsum(abs(one - other) for one, other in zip(given, answer.y, strict=True)) / len(given)


class ServedFold:
    """A learner or agent on its way through the log of a server.

    watch: what raises alarms, with `parts` and `observe(moment, learner, metrics)`, or None. `service` and `parent` are version numbers.
    """

    parts = ("fold", "watch", "answered", "service", "parent", "branch", "number", "applied_seq")

    def __init__(self, served: Served, spec: InputSpec, options: Options, watch: Any = None):
        self.spec = spec
        self.guard = Guard(options, spec.kind, len(spec.classes))
        self.fold = Fold(served, Live(spec), Budget(), [self.guard])
        self.options = options
        self.watch = watch
        self.answered: list[float] = []  # scores of the newest answers, as they were given
        self.service = 0
        self.parent: int | None = None
        self.branch = 0
        self.number = 0
        self.applied_seq = 0

    @property
    def learner(self) -> Served:
        """The learner as it stands."""
        return self.fold.learner

    @property
    def needs_answers(self) -> bool:
        """Whether it learns from answers, not from inputs alone."""
        return not isinstance(self.learner, Adapter)

    def apply(self, moment: Moment) -> list[Alarm]:
        """Fold one moment. Raises EverlearnError where it cannot be learned from; the fold is then of no use any more."""
        self.guard.begin_step()
        for event in events_of(moment, self.spec):
            self.fold.step(event)
            for name, value in self.guard.metrics.items():
                if not math.isfinite(value):
                    raise InputError(f"{self.learner.name}: {name} became {value} in step {moment.number}.")
        scores = [answered_score(answer, self.spec) for answer in moment.answers]
        self.answered = (self.answered + scores)[-self.options.window :]
        self.number = moment.number
        self.applied_seq = max(self.applied_seq, moment.last)
        return [] if self.watch is None else self.watch.observe(moment, self.learner, self.guard.metrics)

    def put_into_service(self, version: int, predictor: Served, *, parent: int | None, before: Served | None) -> None:
        """From here on a version serves; the guard judges anew."""
        self.service, self.parent = version, parent
        self.guard.service, self.guard.parent = predictor, before
        self.guard.settled()

    def begin_branch(self, branch: int, applied_seq: int) -> None:
        """Count steps anew, from a version on."""
        self.branch, self.number, self.applied_seq = branch, 0, applied_seq

    def state_dict(self) -> dict[str, Any]:
        """All of it, as a tree of tensors and JSON scalars."""
        return capture(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state. The predictors of the guard are set by whoever knows them.

        What the guard and the alarms have seen begins anew where they have other parts than those of the state (other alarms, or
        another release); the learner's own state must fit.
        """
        if self.watch is not None and not _fits(self.watch, state["watch"]):
            state = {**state, "watch": capture(self.watch)}
        seen = state["fold"]["monitors"]
        if len(seen) != 1 or not isinstance(seen[0], dict) or set(seen[0]) != set(self.guard.parts):
            state = {**state, "fold": {**state["fold"], "monitors": [capture(self.guard)]}}
        restore(self, state)

    def score(self) -> dict[str, Any]:
        """The mean over the newest answers, as they were given, and how many they are."""
        rows = len(self.answered)
        return {"rows": rows, "value": sum(self.answered) / rows if rows else None}

    def figures(self) -> dict[str, Any]:
        """What the guard knows."""
        return self.guard.figures()

    def sha256(self) -> str:
        """Of the learner's state: equal to that of `run(...)` over the exported log."""
        return digest(self.learner.state_dict())


def _fits(watch: Any, state: Any) -> bool:
    """Whether a state has the parts of the watch that stands."""
    try:
        restore(copy.deepcopy(watch), state)
    except EverlearnError:
        return False
    return True


class Predictors:
    """Makes learners that only predict, from the states of versions. `blank` is a learner that has not learned anything."""

    def __init__(self, blank: Served):
        self._blank: Callable[[], Served] = lambda: copy.deepcopy(blank)

    def of(self, learner_state: dict[str, Any]) -> Served:
        """A learner in a state, its networks in evaluation mode for good, so that several threads may ask it."""
        made = self._blank()
        made.load_state_dict(learner_state)
        for network in networks(made):
            network.eval()
            network.requires_grad_(False)
        return made

    def blank(self) -> Served:
        """A learner at the beginning."""
        return self._blank()
