"""What a server does, whatever runs it: predict, take feedback, keep versions, go back to one.

`predict` and `feedback` give futures, done once what was asked is durable. The rest answers at once or within a second.
Every refusal is a `ServeError` with a stable code; what was refused left nothing behind.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from everlearn.serve.input_spec import InputSpec
from everlearn.serve.records import Answered, Ask, Receipt, Told


class Engine(ABC):
    """One served learner or agent.

    spec: what its requests may hold. Used as a context manager, it is closed at the end: what waits is finished first.
    """

    spec: InputSpec

    @abstractmethod
    def predict(self, asks: Sequence[Ask]) -> "Future[list[Answered]]":
        """Answer rows, once they are in the log. An id asked before gets its first answer.

        Refuses at once, by raising: overloaded (429), in_progress (409: an id that is being answered), not_ready (503).
        The future fails with: conflict (422: an id asked before with another row), log_unavailable (503).
        """

    @abstractmethod
    def feedback(self, items: Sequence[Told]) -> "Future[list[Receipt]]":
        """Take answers or rewards, all or none. Refuses: overloaded, not_ready; the future fails with conflict (422: the id and
        revision were told something else), horizon_passed (410), log_unavailable (503)."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """The state of the server as plain JSON (docs/serving.md names every key)."""

    @abstractmethod
    def versions(self) -> list[dict[str, Any]]:
        """Every version, the newest first."""

    @abstractmethod
    def decisions(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest decisions, the newest first."""

    @abstractmethod
    def alarms(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest alarms, the newest first."""

    @abstractmethod
    def series(self, limit: int = 500) -> list[dict[str, Any]]:
        """At most `limit` points along the log, the oldest first, of what is drawn over time."""

    @abstractmethod
    def rollback(
        self,
        version: int,
        reason: str,
        after: str = "quarantine",
        *,
        first: int | None = None,
        last: int | None = None,
        who: str = "",
    ) -> dict[str, Any]:
        """Serve a version again and learn on from it; feedback numbered first..last (by default all that came since) is replayed,
        skipped or set aside. Returns the decision. Refuses: unknown_version (404), version_pruned (409), not_ready."""

    @abstractmethod
    def release(self, first: int, last: int, reason: str, who: str = "") -> dict[str, Any]:
        """Learn now from feedback that was set aside. Refuses: nothing_set_aside (409)."""

    @abstractmethod
    def pause(self, reason: str, who: str = "") -> dict[str, Any]:
        """Stop learning; predictions and feedback go on, and nothing is lost."""

    @abstractmethod
    def resume(self, reason: str, who: str = "") -> dict[str, Any]:
        """Learn again."""

    @abstractmethod
    def erase(self, id: str, *, relearn: bool = False, reason: str = "", who: str = "") -> dict[str, Any]:
        """Remove what is stored under an id. relearn: also go back to a version that had not learned from it, and learn on without
        it. Refuses: unknown_id (404)."""

    @abstractmethod
    def close(self) -> None:
        """Finish what waits, keep a last version, and stop."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()
