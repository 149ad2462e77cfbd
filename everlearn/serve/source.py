"""What to serve, by name: a run or comparison that has learned, a learner by its call string, or a server's own folder.

A folder keeps in server.json what its learner is made of (call strings, seed, what a row is), so that a restart needs neither the
data nor the run that it came from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import torch
import yaml

from everlearn.comparison.building import build_agent, build_learner, build_stream
from everlearn.comparison.catalog import agents, learners, scenarios, sources
from everlearn.comparison.job import slug
from everlearn.comparison.stream_text import TABLES, stream_text
from everlearn.comparison.usual_network import usual_network
from everlearn.core.agent import Agent
from everlearn.core.errors import ArgumentError, SpecError, StateError, closest
from everlearn.core.events import Batch, Event
from everlearn.core.run_folder import CONFIG, RESULT, SNAPSHOTS
from everlearn.core.spec import import_reference, parse
from everlearn.core.state import newest_snapshot, write_atomic
from everlearn.core.stream import Schema, Stream
from everlearn.measure.contents import networks
from everlearn.serve.fold import Served
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.options import Options

SERVER = "server.json"
FORMAT = 1


@dataclass(frozen=True)
class Source:
    """A learner as it is to be served first, and what it can be made from again.

    outputs: how many of the classes its network was built for, the first ones; a learner that was taught more knows the others too.
    """

    served: Served
    spec: InputSpec
    learner: str
    model: str
    seed: int
    origin: str
    outputs: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What server.json keeps of it."""
        return {
            "format": FORMAT, "learner": self.learner, "model": self.model, "seed": self.seed, "origin": self.origin,
            "spec": self.spec.to_json(), "outputs": self.outputs,
        }  # fmt: skip


class Sketch(Stream):
    """Stands for the stream of a learner that is made without its data: it knows what a row is, and holds two rows of zeros."""

    def __init__(self, schema: Schema):
        self.name = "sketch"
        self.schema = schema

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Event:
        return Batch(torch.zeros(2, *self.schema.shape, dtype=self.schema.dtype))


def source_of(
    what: str,
    *,
    learner: str | None = None,
    data: str | None = None,
    target: str | None = None,
    model: str = "auto",
    seed: int = 0,
    weights: str | None = None,
) -> Source:
    """The learner that a name stands for.

    what: the folder of one run (its snapshot is served), of a comparison (the learner that it recommends, or `learner`), or the call
    string of a learner or agent, which then needs `data`: a stream or data set whose rows look like those to come; target: the
    column to predict where data is a table; weights: a safetensors file for its network.
    Raises SpecError, ArgumentError, StateError, DataError.
    """
    path = Path(what)
    made = {"data": data, "target": target, "model": None if model == "auto" else model}
    if (path / SERVER).exists():
        _refuse(what, "the folder of a server", {"learner": learner, **made})
        source = remade(path)
    elif (path / RESULT).exists() and (path / "runs").is_dir():
        _refuse(what, "the folder of a comparison", made)
        source = _of_run(_cell(path, learner, seed))
    elif (path / CONFIG).exists():
        _refuse(what, "the folder of a run", {"learner": learner, **made})
        source = _of_run(path)
    elif path.is_dir():
        raise StateError(
            f"{what} is neither a run, a comparison nor a server's folder: it has no {CONFIG}, {RESULT} or {SERVER}."
        )
    else:
        _refuse(what, "a call string", {"learner": learner})
        source = _of_call(what, data, target, model, seed)
    if weights is not None:
        _load_weights(source, Path(weights))
    return source


def _refuse(what: str, kind: str, given: Mapping[str, str | None]) -> None:
    """Refuse what would be passed over in silence."""
    idle = [f"--{name}" for name, value in given.items() if value is not None]
    if idle:
        raise ArgumentError(f"{what} is {kind}, which says by itself what is served; leave {' and '.join(idle)} out.")


def _cell(folder: Path, learner: str | None, seed: int) -> Path:
    """The run of a comparison whose learner is asked for, or recommended."""
    try:
        record = json.loads((folder / RESULT).read_text())
        labels = [row["label"] for row in record["learners"]]
        chosen = learner or record["verdict"].get("learner")
    except (OSError, ValueError, KeyError) as error:
        raise StateError(f"{folder / RESULT} cannot be read: {error}.") from error
    if chosen is None:
        raise SpecError(f"{folder} recommends no learner; name one of {', '.join(labels)} with --learner.")
    if chosen not in labels:
        raise SpecError(closest("learner", chosen, labels))
    place = folder / "runs" / slug(chosen) / f"seed-{seed}"
    if not (place / CONFIG).exists():
        raise StateError(f"{folder} holds no run of {chosen} with seed {seed}.")
    return place


def _of_run(folder: Path) -> Source:
    """A learner in the state in which its run ended."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text())
        text, model, seed, stream_name = config["learner"], config["model"], config["seed"], config["stream"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise StateError(f"{folder / CONFIG} cannot be read: {error}.") from error
    found = newest_snapshot(folder / SNAPSHOTS)
    if found is None:
        raise StateError(f"{folder} holds no snapshot; run it to its end first.")
    stream = build_stream(stream_name, seed)
    served = build_learner(text, stream, model, seed)
    state = found[1]
    served.load_state_dict(state["learner"])
    schema = replace(stream.schema, classes=tuple(state.get("classes", stream.schema.classes)))  # more, where it was taught
    return Source(served, InputSpec.of(served, schema), text, model, seed, str(folder), stream.schema.outputs)


def _of_call(text: str, data: str | None, target: str | None, model: str, seed: int) -> Source:
    known = {**learners(), **agents()}
    call = parse(text)
    if ":" not in call.name and call.name not in known:
        raise SpecError(f"{text} is no folder, and {closest('learner or agent', call.name, known)}")
    if data is None:
        raise ArgumentError(f"{text}: name the data whose rows look like those to come with --data, such as --data digits.")
    stream, model = build_stream(_stream_of(data, target), seed), usual_network(model, [text])
    served = _made(text, stream, model, seed)
    return Source(served, InputSpec.of(served, stream.schema), repr(served), model, seed, text)


def _stream_of(data: str, target: str | None) -> str:
    """The call string of a stream for data that may be a stream, a data set, a table or a folder of images."""
    if target is not None or any(data.lower().endswith(f".{ending}") for ending in TABLES):
        return stream_text(data, target=target)
    if Path(data).is_dir() and data not in sources():
        return f"prequential(images({data!r}))"
    call = parse(data)
    return str(call) if call.name in scenarios() or ":" in call.name else f"prequential({call})"


def _made(text: str, stream: Stream, model: str, seed: int) -> Served:
    name = parse(text).name
    found = import_reference(name) if ":" in name else agents().get(name)
    is_agent = isinstance(found, type) and issubclass(found, Agent)
    return build_agent(text, seed) if is_agent else build_learner(text, stream, model, seed)


def remade(folder: Path) -> Source:
    """The learner of a server's folder, made again as it was before it learned. Its version 0 is in the folder."""
    record = record_of(folder)
    spec, outputs = InputSpec.from_json(record["spec"]), record.get("outputs")
    built = replace(spec.schema, classes=spec.classes[:outputs])
    served = _made(record["learner"], Sketch(built), record["model"], record["seed"])
    return Source(served, spec, record["learner"], record["model"], record["seed"], record["origin"], outputs)


def record_of(folder: Path) -> dict[str, Any]:
    """What server.json says. Raises StateError where it cannot be read, or was written by a newer release."""
    path = folder / SERVER
    if not path.exists():
        raise StateError(
            f"{folder} is not a server's folder: it has no {SERVER}. `everlearn serve WHAT --folder {folder}` makes one."
        )
    try:
        record = json.loads(path.read_text())
        if record["format"] > FORMAT:
            raise StateError(f"{path} was written by a newer release (format {record['format']}); upgrade everlearn.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} cannot be read: {error}.") from error
    return record


def settle(
    folder: Path, source: Source, options: Options | None, alarms: str | None, database: str | None = None
) -> dict[str, Any]:
    """Write server.json, or bring what it says of options, alarms and database up to date; returns what now holds.

    The password in a database's URL is for this start alone: the file keeps the URL without it.
    """
    standing = record_of(folder) if (folder / SERVER).exists() else {}
    given = json.loads(json.dumps(source.to_json()))
    if standing and any(standing[key] != given[key] for key in ("spec", "learner", "origin", "seed", "model")):
        raise StateError(
            f"{folder} serves {standing['learner']} from {standing['origin']} already. Choose another --folder."
        )
    record = given
    kept = options or Options.from_json(standing.get("options", {}))
    record["options"] = kept.to_json()
    record["alarms"] = alarms if alarms is not None else standing.get("alarms", "alarms()")
    record["database"] = without_password(database) if database is not None else standing.get("database")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot make the folder {folder}: {error.strerror}.") from error
    write_atomic(folder / SERVER, json.dumps(record, indent=1).encode())
    return record if database is None else {**record, "database": database}


def without_password(url: str) -> str:
    """A URL as it may lie in a file. PGPASSWORD, or a .pgpass file, gives the password to the next start."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}@{place}"))


def _load_weights(source: Source, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path} cannot be read as safetensors: {error}.") from error
    found = networks(source.served)
    if not found:
        raise ArgumentError(f"{source.learner} has no network that weights could be loaded into.")
    for network in found:
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise StateError(f"{path} does not fit the network {source.model}: {' '.join(str(error).split())}") from error
