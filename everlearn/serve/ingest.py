"""What clients send becomes rows: whole groups of requests at once, each request wholly or not at all.

A group costs two or three statements however many requests are in it: what is known of their ids, the new rows, and the answers that
waited for them. A request that is refused leaves nothing behind and does not hold up the others.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from everlearn.core.errors import ServeError
from everlearn.serve.database import Connection
from everlearn.serve.records import Answered, Ask, Receipt, Told

Asked = Sequence[tuple[Ask, dict[str, Any], int]]  # of one request: rows with their outputs and the version that gave them
MOST_ROWS = 1000  # in one statement


def add_inputs(
    connection: Connection, requests: Sequence[Asked], now: float
) -> tuple[list[list[Answered] | ServeError], int]:
    """Store predictions. Returns what each request is answered, or its refusal (conflict), and how many answers had waited for them."""
    known = _known_inputs(connection, {ask.id for asked in requests for ask, _, _ in asked})
    results: list[list[Any] | ServeError] = []
    rows: list[tuple[Any, ...]] = []
    for asked in requests:
        fresh: dict[str, tuple[Any, ...]] = {}
        given: list[Any] = []
        for ask, output, version in asked:
            digest = hashed(ask.x)
            before = known.get(ask.id) or fresh.get(ask.id)
            if before is None:
                fresh[ask.id] = (digest, output, version, None)
                rows.append(("input", ask.id, 0, digest, ask.x, json.dumps(output), version, now))
                given.append(Answered(ask.id, output, version, 0))
            elif before[0] != digest:
                del rows[len(rows) - len(fresh) :]
                results.append(
                    ServeError("conflict", f"the id {ask.id!r} was asked before with another x; nothing was stored.", 422)
                )
                break
            else:
                given.append(Answered(ask.id, before[1], before[2], before[3] or 0, duplicate=True))
        else:
            known |= fresh
            results.append(given)
    numbers: dict[str, int] = {}
    columns = "(kind, id, revision, hash, x, output, version, created)"
    for part in _parts(rows):
        values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(part))
        sql = f"INSERT INTO event {columns} VALUES {values} RETURNING id, seq"
        numbers |= dict(connection.execute(sql, [value for row in part for value in row]).fetchall())
    joined = _join_early(connection, list(numbers), now)
    return [result if isinstance(result, ServeError) else _numbered(result, numbers) for result in results], joined


def _known_inputs(connection: Connection, ids: set[str]) -> dict[str, tuple[Any, ...]]:
    """By id, (hash, output, version, seq) of predictions that are stored."""
    found: dict[str, tuple[Any, ...]] = {}
    for part in _parts(sorted(ids)):
        sql = f"SELECT id, hash, output, version, seq FROM event WHERE kind = 'input' AND revision = 0 AND id IN ({_marks(part)})"
        for id, digest, output, version, seq in connection.execute(sql, part).fetchall():
            found[id] = (bytes(digest), json.loads(output), int(version), int(seq))
    return found


def _numbered(result: list[Answered], numbers: dict[str, int]) -> list[Answered]:
    return [
        given if given.seq else Answered(given.id, given.output, given.version, numbers[given.id], given.duplicate)
        for given in result
    ]


def _join_early(connection: Connection, ids: list[str], now: float) -> int:
    """Answers that came before their predictions take their place in the order now."""
    joined = 0
    for part in _parts(ids):
        waiting = connection.execute(
            f"SELECT id, revision, hash, y FROM early WHERE id IN ({_marks(part)}) ORDER BY id, revision", part
        ).fetchall()
        if waiting:
            insert_answers(
                connection, [(id, revision, bytes(digest), y, now, "early") for id, revision, digest, y in waiting]
            )
            connection.execute(f"DELETE FROM early WHERE id IN ({_marks(part)})", part)
            joined += len(waiting)
    return joined


def insert_answers(
    connection: Connection, rows: Sequence[tuple[str, int, bytes, str, float, str]]
) -> dict[tuple[str, int], int]:
    """Store answers (id, revision, hash, y, created, source); gives their numbers."""
    numbers: dict[tuple[str, int], int] = {}
    for part in _parts(rows):
        values = ", ".join(["('answer', ?, ?, ?, ?, ?, ?)"] * len(part))
        sql = f"INSERT INTO event (kind, id, revision, hash, y, created, source) VALUES {values} RETURNING id, revision, seq"
        for id, revision, seq in connection.execute(sql, [value for row in part for value in row]).fetchall():
            numbers[id, int(revision)] = int(seq)
    return numbers


def add_answers(
    connection: Connection, requests: Sequence[tuple[Sequence[Told], float | None]], now: float
) -> list[list[Receipt] | ServeError]:
    """Store answers and rewards. requests: (items, horizon). Returns each request's receipts, or its refusal: conflict, horizon_passed."""
    ids = sorted({item.id for items, _ in requests for item in items})
    asked, told, early = _known_answers(connection, ids)
    fresh: list[tuple[str, int, bytes, str, float, str]] = []
    waiting: list[tuple[str, int, bytes, str, float]] = []
    results: list[Any] = []
    for items, horizon in requests:
        try:
            plan = [_placed(item, horizon, now, asked, told, early) for item in items]
            _agree(items)
        except ServeError as refusal:
            results.append(refusal)
            continue
        receipts = []
        for item, digest in plan:
            key = (item.id, item.revision)
            duplicate = key in told or key in early
            receipts.append((key, duplicate))
            if duplicate:
                continue
            if item.id in asked:
                told[key] = (digest, None, "")
                fresh.append((*key, digest, json.dumps(item.y), now, ""))
            else:
                early[key] = digest
                waiting.append((*key, digest, json.dumps(item.y), now))
        results.append(receipts)
    numbers = insert_answers(connection, fresh)
    for part in _parts(waiting):
        values = ", ".join(["(?, ?, ?, ?, ?)"] * len(part))
        connection.execute(
            f"INSERT INTO early (id, revision, hash, y, created) VALUES {values}", [value for row in part for value in row]
        )
    standing = {key: seq for key, (_, seq, _) in told.items()} | numbers
    return [
        result
        if isinstance(result, ServeError)
        else [Receipt(key[0], standing.get(key), duplicate) for key, duplicate in result]
        for result in results
    ]


def _known_answers(connection: Connection, ids: list[str]) -> tuple[dict, dict, dict]:
    """What is stored of ids: {id: when it was asked}, {(id, revision): (hash, seq, source)}, {(id, revision): hash} of early ones."""
    asked, told, early = {}, {}, {}
    for part in _parts(ids):
        marks = _marks(part)
        sql = f"SELECT id, kind, revision, hash, seq, source, created FROM event WHERE id IN ({marks})"
        for id, kind, revision, digest, seq, source, created in connection.execute(sql, part).fetchall():
            if kind == "input":
                asked[id] = created
            else:
                told[id, int(revision)] = (bytes(digest), int(seq), source)
        strangers = [id for id in part if id not in asked]
        if strangers:
            sql = f"SELECT id, revision, hash FROM early WHERE id IN ({_marks(strangers)})"
            early |= {
                (id, int(revision)): bytes(digest) for id, revision, digest in connection.execute(sql, strangers).fetchall()
            }
    return asked, told, early


def _placed(item: Told, horizon: float | None, now: float, asked: dict, told: dict, early: dict) -> tuple[Told, bytes]:
    """An item with its hash. Raises ServeError where it contradicts what is stored, or comes after its horizon."""
    digest = hashed(json.dumps(item.y).encode())
    key = (item.id, item.revision)
    if key in told:
        if told[key][2] == "default":
            raise _too_late(item, horizon)
        if told[key][0] != digest:
            raise _told_otherwise(item)
    elif item.id in asked:
        if horizon is not None and now - asked[item.id] > horizon:
            raise _too_late(item, horizon)
    elif early.get(key, digest) != digest:
        raise _told_otherwise(item)
    return item, digest


def _agree(items: Sequence[Told]) -> None:
    """Refuse a request that tells one id two answers."""
    seen: dict[tuple[str, int], Any] = {}
    for item in items:
        if seen.setdefault((item.id, item.revision), item.y) != item.y:
            raise _told_otherwise(item)


def hashed(data: bytes) -> bytes:
    """What tells two bodies apart."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _parts(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + MOST_ROWS] for start in range(0, len(values), MOST_ROWS)]


def _told_otherwise(item: Told) -> ServeError:
    return ServeError(
        "conflict",
        f"the id {item.id!r} was told another answer before; nothing was stored. Send a correction with a higher revision.",
        422,
    )


def _too_late(item: Told, horizon: float | None) -> ServeError:
    waited = "" if horizon is None else f" of {horizon:g} s"
    return ServeError(
        "horizon_passed", f"the id {item.id!r} was answered after its horizon{waited}; nothing was stored.", 410
    )
