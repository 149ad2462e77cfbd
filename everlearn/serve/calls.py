"""What each call of a client does, step by step, as plans that either client carries out: see `retry.Plan`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar
from urllib.parse import quote

from everlearn.core.errors import ServeError
from everlearn.serve.ids import new_id
from everlearn.serve.outbox import Outbox, Refused, Waiting
from everlearn.serve.retry import Do, Plan, Request, Retries, Wait, judged
from everlearn.serve.wire import LARGE, PART, as_array, check_id, encoded, invalid, joined, parts, row, rows, told

T = TypeVar("T")
FINAL = (410, 413, 422)  # refusals of the feedback itself; whatever else happens to it, it can be sent again
LONGEST_QUIET = 30.0  # seconds for which the outbox is left alone after the server was away
log = logging.getLogger("everlearn.serve.client")


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction that is in the server's log. output: the answer and what belongs to it; version: which state answered."""

    id: str
    output: dict[str, Any]
    version: int

    @property
    def answer(self) -> Any:
        """The label, the values, or the action."""
        return self.output["answer"]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Feedback that is safe: in the server's log, or `queued` in the outbox for the `reason`.

    seq: its place in the order of learning, None while its prediction has not come or it is queued; duplicate: it was known.
    """

    id: str
    revision: int = 0
    seq: int | None = None
    joined: bool = False
    duplicate: bool = False
    queued: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a delivery of the outbox did: pieces of feedback that the server took, those it refused for good, those that wait."""

    delivered: int
    refused: tuple[Refused, ...]
    waiting: int


class Calls:
    """The plans of one client. outbox: where feedback waits that cannot be delivered; queued: told that some was put there."""

    def __init__(self, retries: Retries, outbox: Outbox | None = None, queued: Callable[[], None] = lambda: None):
        self.retries = retries
        self.outbox = outbox
        self.queued = queued
        self._schema: dict[str, Any] | None = None
        self._hidden = False  # the server does not tell this client its schema
        self._failures = 0
        self._quiet_until = 0.0

    @property
    def quiet(self) -> float:
        """Seconds for which the outbox is still left alone."""
        return max(0.0, self._quiet_until - self.retries.clock())

    def predict(self, x: Any, id: str | None) -> Plan[Prediction]:
        """One row answered."""
        return (yield from self.predict_many([x], None if id is None else [id]))[0]

    def predict_many(self, x: Any, ids: Sequence[str] | None) -> Plan[list[Prediction]]:
        """Rows answered, in their order."""
        given = rows(x)
        names = [new_id() for _ in given] if ids is None else [check_id(id) for id in ids]
        if len(names) != len(given):
            raise invalid(f"{len(given)} rows need as many ids, got {len(names)}.")
        schema = yield from self._known_schema(given)
        bodies = [encoded({"id": id, "x": row(item, schema)}) for id, item in zip(names, given, strict=True)]
        done: list[Prediction] = []
        for part in parts(bodies):
            wanted = names[len(done) : len(done) + len(part)]
            request = Request("POST", "/v1/predict", joined(part))
            try:
                done += yield from self._ask(request, partial(_predictions, wanted))
            except ServeError as error:
                if schema is not None and error.status == 422:
                    self._schema = None  # the server may hold another model by now
                raise
        return done

    def feedback(self, id: str, y: Any, reward: float | None, revision: int) -> Plan[Acknowledgement]:
        """One answer or reward taken, or queued."""
        item = {"id": id, "y": y, "reward": reward, "revision": revision}
        return (yield from self.feedback_many([item]))[0]

    def feedback_many(self, items: Sequence[Mapping[str, Any]]) -> Plan[list[Acknowledgement]]:
        """Feedback taken by the server; what it cannot take now waits in the outbox, if there is one."""
        pieces = [told(item) for item in items]
        bodies = [encoded(piece) for piece in pieces]
        done: list[Acknowledgement] = []
        if self.outbox is not None and not (yield Do(lambda: self.outbox.empty)):
            return (yield from self._queue(pieces, "older feedback waits"))
        for part in parts(bodies):
            taken = pieces[len(done) : len(done) + len(part)]
            try:
                done += yield from self._tell(taken, part, None if self.outbox is None else 0)
            except ServeError as error:
                if self.outbox is None or error.status in FINAL:
                    raise
                trouble = error
                break
        else:
            return done
        self._postpone(trouble)
        return done + (yield from self._queue(pieces[len(done) :], str(trouble)))

    def flush(self) -> Plan[Delivery]:
        """Everything in the outbox sent, waiting for another's delivery to end."""
        delivered, refused, end = 0, [], self.retries.clock() + self.retries.deadline
        if self.outbox is None:
            return Delivery(0, (), 0)
        for number in count():
            fates: dict[int, Acknowledgement | ServeError] = {}
            yield from self._deliver(fates, None, None)
            delivered += sum(isinstance(fate, Acknowledgement) for fate in fates.values())
            refused += [piece for piece in fates if isinstance(fates[piece], ServeError)]
            if (yield Do(lambda: self.outbox.empty)) or self.retries.clock() >= end:
                break
            yield Wait(self.retries.pause(number) / 4)
        kept = yield Do(self.outbox.refused)
        waiting = yield Do(self.outbox.__len__)
        return Delivery(delivered, tuple(piece for piece in kept if piece.number in set(refused)), waiting)

    def read(self, path: str, kind: type[T], limit: int | None = None) -> Plan[T]:
        """What the server tells at a path: a dict or a list."""
        query = () if limit is None else (("limit", str(limit)),)
        return (yield from self._ask(Request("GET", path, query=query), partial(_of, kind)))

    def schema(self) -> Plan[dict[str, Any]]:
        """What the server's requests may hold."""
        self._schema = yield from self.read("/v1/schema", dict)
        return self._schema

    def rollback(self, version: int, reason: str, after: str, first: int | None, last: int | None) -> Plan[dict[str, Any]]:
        """A version served again."""
        body = {"version": version, "reason": reason, "after": after}
        body |= {key: value for key, value in (("first", first), ("last", last)) if value is not None}
        return (yield from self._order("rollback", body))

    def release(self, first: int, last: int, reason: str) -> Plan[dict[str, Any]]:
        """Feedback that was set aside learned from."""
        return (yield from self._order("release", {"first": first, "last": last, "reason": reason}))

    def pause(self, reason: str) -> Plan[dict[str, Any]]:
        """Learning stopped."""
        return (yield from self._order("pause", {"reason": reason}, repeatable=True))

    def resume(self, reason: str) -> Plan[dict[str, Any]]:
        """Learning gone on with."""
        return (yield from self._order("resume", {"reason": reason}, repeatable=True))

    def erase(self, id: str, relearn: bool, reason: str) -> Plan[dict[str, Any]]:
        """What is stored under an id removed."""
        path = f"/v1/predictions/{quote(check_id(id), safe='')}"
        query = (("relearn", str(bool(relearn)).lower()), ("reason", reason))
        return (yield from self._ask(Request("DELETE", path, query=query, repeatable=False), partial(_of, dict)))

    def wait_ready(self, timeout: float) -> Plan[None]:
        """Nothing, once the server is ready."""
        end = self.retries.clock() + timeout
        for number in count():
            left = end - self.retries.clock()
            request = Request("GET", "/readyz", timeout=max(0.001, min(self.retries.timeout, left)))
            reply = yield request
            if reply.status == 200:
                return
            error = judged(request, reply, lambda value: value)
            if not reply.fault and reply.status not in (429, 500, 502, 503, 504):
                raise error
            pause = min(1.0, self.retries.pause(number, error.retry_after))
            if left <= pause:
                raise ServeError(error.code, f"not ready after {timeout:g} s: {error}", error.status)
            yield Wait(pause)

    def _order(self, name: str, body: dict[str, Any], repeatable: bool = False) -> Plan[dict[str, Any]]:
        request = Request("POST", f"/v1/{name}", encoded(body), repeatable=repeatable)
        return (yield from self._ask(request, partial(_of, dict)))

    def _ask(self, request: Request, read: Callable[[Any], T], retries: int | None = None) -> Plan[T]:
        result = yield from self.retries.ask(request, read, retries)
        self._failures, self._quiet_until = 0, 0.0
        return result

    def _known_schema(self, given: Sequence[Any]) -> Plan[dict[str, Any] | None]:
        """The server's schema where rows are large enough for it to matter, None where this client may not read it."""
        if self._schema is not None or self._hidden or not any(_large(item) for item in given):
            return self._schema
        try:
            return (yield from self.schema())
        except ServeError as error:
            if error.status not in (401, 403, 404):
                raise
            self._hidden = True
            return None

    def _tell(
        self, pieces: Sequence[Mapping[str, Any]], bodies: Sequence[bytes], retries: int | None
    ) -> Plan[list[Acknowledgement]]:
        request = Request("POST", "/v1/feedback", joined(bodies))
        return (yield from self._ask(request, partial(_acknowledged, pieces), retries))

    def _queue(self, pieces: Sequence[Mapping[str, Any]], reason: str) -> Plan[list[Acknowledgement]]:
        """Feedback put into the outbox, and a part of the outbox sent if the server was not away just now."""
        numbers = yield Do(partial(self.outbox.put, pieces))
        self.queued()
        fates: dict[int, Acknowledgement | ServeError] = {}
        if not self.quiet:
            try:
                yield from self._deliver(fates, 1, 0)
            except ServeError as error:
                reason = str(error)
        faults = [
            (place, fates[number]) for place, number in enumerate(numbers) if isinstance(fates.get(number), ServeError)
        ]
        if faults:
            first = faults[0][1]
            errors = [{"at": place, "detail": str(fault)} for place, fault in faults]
            rest = f" ({len(faults)} of {len(pieces)} refused)" if len(pieces) > 1 else ""
            raise ServeError(first.code, f"{first}{rest}", first.status, errors=errors)
        waiting = [Acknowledgement(piece["id"], piece["revision"], queued=True, reason=reason) for piece in pieces]
        return [fates.get(number, kept) for number, kept in zip(numbers, waiting, strict=True)]

    def _deliver(
        self, fates: dict[int, Acknowledgement | ServeError], batches: int | None, retries: int | None
    ) -> Plan[None]:
        """Send what waits, in order, at most so many batches, if no other client is about it. Fills in what became of each."""
        with ExitStack() as stack:
            if not (yield Do(lambda: stack.enter_context(self.outbox.turn()))):
                return
            for _ in count() if batches is None else range(batches):
                batch = yield Do(partial(self.outbox.oldest, PART))
                if not batch:
                    return
                try:
                    yield from self._settle(batch, fates, retries)
                except ServeError as error:
                    self._postpone(error)
                    raise

    def _settle(self, batch: list[Waiting], fates: dict[int, Any], retries: int | None) -> Plan[None]:
        """Send a batch; halve what is refused until the piece that is at fault stands alone, and set that aside."""
        halves = [batch]
        while halves:
            part = halves.pop()
            bodies = [encoded(piece.body) for piece in part]
            try:
                taken = yield from self._tell([piece.body for piece in part], bodies, retries)
            except ServeError as error:
                if error.status not in FINAL:
                    raise
                refusal = error
            else:
                yield Do(partial(self.outbox.remove, [piece.number for piece in part]))
                fates.update(zip([piece.number for piece in part], taken, strict=True))
                continue
            if len(part) > 1:
                middle = len(part) // 2
                halves += [part[middle:], part[:middle]]
                continue
            yield Do(partial(self.outbox.refuse, part[0].number, refusal))
            fates[part[0].number] = refusal
            log.warning("feedback for %s (revision %d) was refused: %s", part[0].id, part[0].revision, refusal.code)

    def _postpone(self, error: ServeError) -> None:
        """Leave the outbox alone for a while, longer each time."""
        if not self._failures:
            log.warning("feedback waits in %s: %s", self.outbox.path, error.code)
        self._failures += 1
        pause = min(LONGEST_QUIET, 0.25 * 2.0 ** min(self._failures, 20)) * self.retries.random.uniform(0.5, 1.0)
        self._quiet_until = self.retries.clock() + max(pause, error.retry_after or 0.0)


def _large(x: Any) -> bool:
    values = as_array(x)
    return values is not None and values.size >= LARGE


# What answers are read as: None where they are none of this API.


def _predictions(ids: Sequence[str], value: Any) -> list[Prediction] | None:
    answers = value if isinstance(value, list) and len(ids) > 1 else [value]
    found = [Prediction(item["id"], item["output"], item["version"]) for item in answers]
    whole = all(isinstance(item.output, dict) and "answer" in item.output and type(item.version) is int for item in found)
    return found if whole and [item.id for item in found] == list(ids) else None


def _acknowledged(pieces: Sequence[Mapping[str, Any]], value: Any) -> list[Acknowledgement] | None:
    answers = value if isinstance(value, list) and len(pieces) > 1 else [value]
    if len(answers) != len(pieces) or not all(item["accepted"] is True for item in answers):
        return None
    return [
        Acknowledgement(piece["id"], piece["revision"], item["seq"], item["joined"], item["duplicate"])
        for piece, item in zip(pieces, answers, strict=True)
    ]


def _of(kind: type[T], value: Any) -> T | None:
    return value if isinstance(value, kind) else None
