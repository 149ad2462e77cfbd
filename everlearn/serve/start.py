"""From a name to a running server: what to serve, its folder, its engine, its face."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from everlearn.comparison.job import reach, slug
from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.spec import build, parse
from everlearn.serve.alarm_limits import Alarms
from everlearn.serve.alarms import Watch
from everlearn.serve.auth import Tokens, refuse_open_bind
from everlearn.serve.database import Database, SQLite
from everlearn.serve.engine import Engine
from everlearn.serve.fold import Served
from everlearn.serve.history import History
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import Alarm
from everlearn.serve.snapshots import Snapshots
from everlearn.serve.source import SERVER, Source, record_of, settle, source_of

FOLDERS = Path("everlearn-served")
TOKENS = "tokens.json"
SECRET = "EVERLEARN_WEBHOOK_SECRET"
PID = "server.pid"  # the number of the process that serves a folder, while it does


def unheard(alarm: Alarm) -> None:
    """Nobody listens."""


def place_of(what: str, folder: str | None, source: Source) -> Path:
    """The folder of a server: the one given, the one that is named by WHAT itself, or one named by learner and origin."""
    if folder is not None:
        return Path(folder)
    return Path(what) if (Path(what) / SERVER).exists() else FOLDERS / slug(f"{source.learner} {Path(what).name}")


def engine_of(
    source: Source,
    folder: Path,
    record: dict[str, Any],
    *,
    engine: str = "local",
    name: str | None = None,
    replicas: int = 2,
    again: Callable[[], Served] | None = None,
    raised: Callable[[Alarm], None] = unheard,
) -> Engine:
    """The engine that serves a folder. record: what its server.json says; engine: "local", "ray", or the address of a Ray cluster, where
    `name` is the model's, and `again` makes its learner in another process."""
    options = Options.from_json(record["options"])
    watch = Watch(alarms_of(record["alarms"]), source.spec)
    database = partial(database_of, folder.resolve(), record["database"], options)
    if engine == "local":
        return LocalEngine(source.served, source.spec, folder, options, watch=watch, raised=raised, database=database())
    if engine not in ("ray", "auto") and "://" not in engine and not engine.rpartition(":")[2].isdigit():
        raise ArgumentError(f"engine must be local, ray or the address of a Ray cluster, got {engine!r}.")
    from everlearn.serve.ray_engine import RayEngine

    return RayEngine(
        again, source.spec, folder, options, key=name or folder.name, replicas=replicas,
        address=None if engine == "ray" else engine, watch=watch, raised=raised, database=database,
    )  # fmt: skip


def alarms_of(text: str) -> Alarms:
    """The limits of a call string such as alarms(psi=0.5)."""
    return build(parse(text, "alarms(psi=0.5)"), {"alarms": Alarms}, "value")


def options_of(text: str) -> Options:
    """The options of a call string such as options(batch=64)."""
    return build(parse(text, "options(batch=64)"), {"options": Options}, "value")


def database_of(folder: Path, url: str | None, options: Options) -> Database:
    """SQLite in the folder, or the Postgres at a URL."""
    if url is None:
        return SQLite(folder / "log.sqlite", options.durability)
    if not url.startswith(("postgresql://", "postgres://")):
        raise ArgumentError(
            f"--database must be a URL such as postgresql://user@host/name, got one that begins {url.partition(':')[0][:20]!r}."
        )
    from everlearn.serve.postgres import Postgres

    return Postgres(url, options.durability)


def start(
    what: str,
    *,
    folder: str | None = None,
    learner: str | None = None,
    data: str | None = None,
    target: str | None = None,
    model: str = "auto",
    weights: str | None = None,
    seed: int = 0,
    options: str | None = None,
    alarms: str | None = None,
    webhook: str | None = None,
    database: str | None = None,
    engine: str = "local",
    name: str | None = None,
    replicas: int = 2,
    host: str = "127.0.0.1",
    port: int = 8000,
    rate: float | None = None,
    certificate: str | None = None,
    key: str | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until a signal comes. See `everlearn serve --help`."""
    from everlearn.serve.app import create_app
    from everlearn.serve.http import serve
    from everlearn.serve.page import page_routes

    here = ["", str(Path.cwd())]
    reach(here)
    named = str(Path(what).resolve()) if Path(what).exists() else what
    given = {"learner": learner, "data": data, "target": target, "model": model, "seed": seed, "weights": weights}
    source = source_of(what, **given)
    place = place_of(what, folder, source)
    chosen = None if options is None else options_of(options)
    if alarms is not None:
        alarms_of(alarms)
    tokens = Tokens(place / TOKENS) if (place / TOKENS).exists() else None
    refuse_open_bind(host, tokens)
    raised = unheard
    if webhook is not None:
        webhook_to(webhook)  # refused here, not at the first alarm
        raised = partial(post, webhook)
    record = settle(place, source, chosen, alarms, database)
    made = engine_of(
        source, place, record, engine=engine, name=name, replicas=replicas, again=partial(served_again, named, given, here),
        raised=raised,
    )  # fmt: skip
    announce(f"{source.learner} from {source.origin}, kept in {place}")
    (place / PID).write_text(str(os.getpid()))
    try:
        app = create_app(made, tokens=tokens, rate=rate, page=page_routes(made, tokens))
        serve(app, host, port, certificate=certificate, key=key, announce=announce)
    finally:
        made.close()
        (place / PID).unlink(missing_ok=True)
        if webhook is not None:
            webhook_to(webhook).close()


def served_again(what: str, given: dict[str, Any], path: list[str]) -> Served:
    """The learner of a name, made in another process."""
    reach(path)
    return source_of(what, **given).served


@cache
def webhook_to(url: str) -> Any:
    """The one webhook of this process for a URL; its posts are signed where EVERLEARN_WEBHOOK_SECRET is set."""
    from everlearn.serve.webhook import Webhook

    return Webhook(url, os.environ.get(SECRET) or None)


def post(url: str, alarm: Alarm) -> None:
    """Tell a URL of an alarm."""
    webhook_to(url).send(alarm)


def history_of(folder: str | Path) -> tuple[Log, History, InputSpec, dict[str, Any]]:
    """The log of a server's folder, to be read while it runs or not."""
    place = Path(folder)
    record = record_of(place)
    options = Options.from_json(record["options"])
    if record["database"] is None and not (place / "log.sqlite").exists():
        raise StateError(f"{place} holds no log yet; start the server once.")
    log = Log(database_of(place, record["database"], options))
    return log, History(log, Snapshots(place / "versions"), None, None), InputSpec.from_json(record["spec"]), record


def export_log(folder: str | Path, output: str | Path, version: int | None = None, *, force: bool = False) -> dict[str, Any]:
    """Write what a server has learned, or what one of its versions had, as Parquet. Returns what was written, as plain JSON."""
    from everlearn.serve.export import export

    log, history, spec, record = history_of(folder)
    try:
        written = export(history.lineage(version), output, spec, model=record["learner"], seed=record["seed"], force=force)
    finally:
        log.close()
    return {**asdict(written), "path": str(written.path)}


def back_up(folder: str | Path, target: str | Path) -> dict[str, Any]:
    """Copy a server's folder while it runs: versions, server.json, tokens, and the log last. `everlearn serve TARGET` serves the copy.

    A version that is not in the copy is made again from the log. Returns what was copied, as plain JSON. Raises StateError where the
    target holds something, and for a log in Postgres, which `pg_dump` copies.
    """
    place, goal = Path(folder), Path(target)
    record = record_of(place)
    if goal.exists() and any(goal.iterdir()):
        raise StateError(f"{goal} is not empty; name a folder that is, or that does not exist yet.")
    if record["database"] is not None:
        raise StateError("the log of this server is kept in Postgres: copy it with pg_dump, and the folder with any tool.")
    if not (place / "log.sqlite").exists():
        raise StateError(f"{place} holds no log yet; start the server once.")
    try:
        shutil.copytree(place / "versions", goal / "versions", ignore=shutil.ignore_patterns(".*"))
        for name in (SERVER, TOKENS):
            if (place / name).exists():
                shutil.copy2(place / name, goal / name)
        SQLite(place / "log.sqlite").backup(goal / "log.sqlite")
    except (OSError, shutil.Error) as error:
        raise StateError(f"cannot copy {place} to {goal}: {error}.") from error
    return {
        "path": str(goal),
        "versions": len(list((goal / "versions").glob("*.json"))),
        "bytes": (goal / "log.sqlite").stat().st_size,
    }
