"""What goes into the log and comes out of it: plain values, the same for every engine, database and client.

    asked    a prediction is wanted for one row             ->  Answered
    told     the answer, or the reward, of such a row       ->  Receipt
    version  a state of the learner that was kept           decision  what was done about versions, by whom and why

Every row of the log has a number, `seq`; numbers rise in the order in which rows became durable, and are never used twice.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

INPUT, ANSWER = "input", "answer"  # the two kinds of events


class After(StrEnum):
    """What becomes of the feedback that came after the version to which a rollback returns."""

    REPLAY = "replay"  # learned from again, now on top of that version
    SKIP = "skip"  # left out for good
    QUARANTINE = "quarantine"  # set aside until someone releases it


class State(StrEnum):
    """What a version is good for now."""

    ACTIVE = "active"  # in service
    CANDIDATE = "candidate"  # made, and not decided on
    REFUSED = "refused"  # the guard did not let it into service
    RETIRED = "retired"  # was in service, and was followed by another
    WITHDRAWN = "withdrawn"  # given up by a rollback
    PRUNED = "pruned"  # its snapshot was removed by the rule of retention


@dataclass(frozen=True, slots=True)
class Ask:
    """A prediction that is wanted: the id that joins feedback to it, and the row as bytes (`InputSpec.row`)."""

    id: str
    x: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """A prediction that is in the log. `output` is JSON; `duplicate`: the id had been answered before, with this output."""

    id: str
    output: dict[str, Any]
    version: int
    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """The answer or reward of a row, as it is stored (`InputSpec.answer`). A correction has a higher `revision`."""

    id: str
    y: int | float | list[float]
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """Feedback that is in the log. seq: its place in the order of learning, None while its prediction has not come."""

    id: str
    seq: int | None
    duplicate: bool = False

    @property
    def joined(self) -> bool:
        """Whether the prediction it belongs to is known."""
        return self.seq is not None


@dataclass(frozen=True, slots=True)
class Input:
    """A prediction as the fold sees it. `version`: which one answered; `created`: seconds since 1970."""

    seq: int
    id: str
    x: bytes
    output: dict[str, Any]
    version: int
    created: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Feedback joined to its prediction. `asked`: when the prediction was made; `default`: nobody answered within the horizon."""

    seq: int
    id: str
    x: bytes
    output: dict[str, Any]
    version: int
    y: int | float | list[float]
    revision: int
    asked: float
    created: float
    default: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of the fold: what came in a range of numbers, inputs first. `number` counts the steps of a branch from 1."""

    branch: int
    number: int
    first: int
    last: int
    inputs: tuple[Input, ...]
    answers: tuple[Answer, ...]

    def __len__(self) -> int:
        return len(self.inputs) + len(self.answers)


@dataclass(frozen=True, slots=True)
class Version:
    """A state that was kept. `number`: steps of its branch folded; `sha256`: of the learner's state; scores: see `Guard`."""

    version: int
    parent: int | None
    branch: int
    number: int
    applied_seq: int
    sha256: str
    state: State
    created: float
    score: float | None = None
    service_score: float | None = None
    rows: int = 0
    bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of steps. It begins at a version and leaves out the ranges of numbers in `holes`; those in `final` nobody releases."""

    branch: int
    version: int
    applied_seq: int
    holes: tuple[tuple[int, int], ...] = ()
    final: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something an operator should know. `seq`: where in the log; `limit`: what `value` was held against."""

    kind: str
    value: float
    limit: float
    message: str
    seq: int = 0
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done about versions or learning: promote, refuse, rollback, pause, resume, release, erase, ..."""

    action: str
    reason: str
    who: str
    before: int | None = None
    after: int | None = None
    seq: int = 0
    time: float = 0.0

    def to_json(self, now: float) -> dict[str, Any]:
        """Plain JSON, made at a time."""
        names = ("seq", "action", "before", "after", "reason", "who")
        return {"time": now} | {name: getattr(self, name) for name in names}
