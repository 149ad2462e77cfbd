"""How a server behaves: every knob in one place, with its default, checked where it is set."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.spec import describe
from everlearn.serve.records import After

DURABILITY = ("full", "normal")


@dataclass(frozen=True)
class Options:
    """What the fold, the guard and the log of a server are told.

    durability: "full" (an answer is sent once its row would survive a power cut) or "normal" (a process crash);
    batch: answers learned from at once (rows, for learners that need no answers); wait: seconds after which fewer are taken, None
    for never; every: steps between two versions, which are the candidates for service;
    guard: whether a candidate must prove itself; window: newest answered rows that it is judged on; least: fewer decide nothing;
    margin: how much worse it may be; confidence: of a rollback that nobody asked for; after: what becomes of later feedback then;
    horizon: seconds after which an answer is no longer waited for, None for never; default: the answer (as a client would
    send it) that is then put in its place, None for no answer; early: seconds for which an answer waits for its prediction;
    queue: requests that may wait before others are turned away; keep: versions kept beside those in use;
    keep_days: days after which rows that were learned from are removed, None for never; threads: of torch.
    """

    durability: str = "full"
    batch: int = 32
    wait: float | None = 1.0
    every: int = 20
    guard: bool = True
    window: int = 200
    least: int = 30
    margin: float = 0.02
    confidence: float = 0.95
    after: str = "quarantine"
    horizon: float | None = None
    default: str | int | float | tuple[float, ...] | None = None
    early: float = 3600.0
    queue: int = 1000
    keep: int = 20
    keep_days: float | None = None
    threads: int = 1
    name: ClassVar[str] = "options"

    def __post_init__(self) -> None:
        if self.durability not in DURABILITY:
            raise ArgumentError(f"options: durability must be one of {', '.join(DURABILITY)}, got {self.durability!r}.")
        if self.after not in tuple(After):
            raise ArgumentError(f"options: after must be one of {', '.join(After)}, got {self.after!r}.")
        for argument in ("batch", "every", "window", "least", "queue", "keep", "threads"):
            check_count(self.name, argument, getattr(self, argument))
        for argument in ("wait", "horizon", "keep_days"):
            if getattr(self, argument) is not None:
                check_range(self.name, argument, getattr(self, argument), 0.0)
        check_range(self.name, "early", self.early, 0.0)
        check_range(self.name, "margin", self.margin, 0.0)
        check_range(self.name, "confidence", self.confidence, 0.5, 0.9999)

    def __repr__(self) -> str:
        return describe(self)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Options":
        """The options that `to_json` wrote; what newer or older servers call otherwise is left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in record.items() if key in known})
