"""Logs of decisions as Vowpal Wabbit writes them: dsjson, one JSON object for each line.

    {"_label_cost": -1, "_label_probability": 0.8, "_labelIndex": 1, "a": [2, 1], "p": [0.8, 0.2],
     "c": {shared features, "_multi": [features of action 1, of action 2]}, "EventId": ..., "Timestamp": ..., "pdrop": 0.5}

Costs are rewards with the sign turned. `a` counts actions from 1, `_labelIndex` from 0; `p[j]` is the probability of `a[j]`. With
`pdrop` a part of the events was thrown away, so each that is left stands for 1 / (1 - pdrop).
Reference: the wiki of VowpalWabbit/vowpal_wabbit, pages DSJSON and JSON.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from everlearn.core.errors import DataError
from everlearn.core.state import write_atomic
from everlearn.data.decision_log import DecisionLog

MULTI, NUMBER = "_multi", "number"
ROUNDED = 1e-3  # how far the probabilities of a row may be from a sum of one: they were written in single precision, and cut


def is_dsjson(row: Mapping[str, Any]) -> bool:
    """Whether an object is an event of such a log."""
    return "c" in row and ("_label_cost" in row or "_outcomes" in row)


def read_dsjson(path: str | Path) -> DecisionLog:
    """The decisions in a dsjson file.

    Features become columns of x in the order in which they first appear: numbers as they are, texts and truths as 0/1 columns. Where
    the same descriptions of actions come back, an action is told by its description (a number in the order of first appearance, or
    its `number`), and so may be missing from some rows; else by its place in `_multi`, and its features are columns too.
    Lines without a cost (dangling, or marked _skipLearn) are left out. Raises DataError that names the line.
    """
    path = Path(path)
    events = [_event(path, number, row) for number, row in _objects(path)]
    events = [event for event in events if event is not None]
    if not events:
        raise DataError(f"{path}: no line has a cost, so no decision can be learned from.")
    named = _by_description(events)
    actions = len(named) if named else max(len(event["multi"]) for event in events)
    columns: dict[str, int] = {}
    cells, rows = [], []
    offered = torch.zeros(len(events), actions, dtype=torch.bool)
    spread = torch.zeros(len(events), actions, dtype=torch.float64)
    action = torch.zeros(len(events), dtype=torch.int64)
    for row, event in enumerate(events):
        numbers = [named[_key(item)] for item in event["multi"]] if named else range(len(event["multi"]))
        numbers = list(numbers)
        offered[row, numbers] = True
        for place, probability in event["p"].items():
            spread[row, numbers[place]] = probability
        action[row] = numbers[event["taken"]]
        features = dict(event["shared"])
        if not named:
            features |= {
                f"{place}.{name}": value for place, item in enumerate(event["multi"]) for name, value in item.items()
            }
        for name, value in features.items():
            rows.append((row, columns.setdefault(name, len(columns))))
            cells.append(value)
    x = torch.zeros(len(events), len(columns))
    if rows:
        x[tuple(torch.tensor(rows).T)] = torch.tensor(cells, dtype=torch.float32)
    whole = all(len(event["p"]) == len(event["multi"]) for event in events)
    total = spread.sum(dim=1, keepdim=True)
    if whole and float((total - 1).abs().max()) > ROUNDED:
        line = events[int((total - 1).abs().argmax())]["line"]
        raise DataError(
            f"{path}, line {line}: the probabilities `p` sum to {float(total[(total - 1).abs().argmax()]):g}; 1 is needed."
        )
    spread = spread / total if whole else spread
    propensity = torch.tensor([event["propensity"] for event in events], dtype=torch.float64)
    held = spread.gather(1, action[:, None])[:, 0]
    agree = whole and bool(((held - propensity).abs() <= ROUNDED).all())
    times = [event["time"] for event in events]
    weights = [event["weight"] for event in events]
    try:
        return DecisionLog.of(
            x,
            offered=offered,
            action=action,
            propensity=held if agree else propensity,
            reward=torch.tensor([-event["cost"] for event in events], dtype=torch.float64),
            id=tuple(event["id"] for event in events),
            generation=_generations([event["model"] for event in events]),
            time=None if None in times else torch.tensor(times, dtype=torch.float64),
            probabilities=spread if agree else None,
            weight=None if set(weights) == {1.0} else torch.tensor(weights, dtype=torch.float64),
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write_dsjson(log: DecisionLog, path: str | Path) -> Path:
    """Write a log so that Vowpal Wabbit learns from it (`--dsjson --cb_explore_adf`), whole or not at all."""
    path = Path(path)
    text = "".join(json.dumps(_written(log, row)) + "\n" for row in range(len(log)))
    write_atomic(path, text.encode())
    return path


def _written(log: DecisionLog, row: int) -> dict[str, Any]:
    numbers = log.offered[row].nonzero().flatten().tolist()
    taken, propensity = int(log.action[row]), float(log.propensity[row])
    told = dict.fromkeys(numbers) if log.probabilities is None else dict(enumerate(log.probabilities[row].tolist()))
    order = [taken, *(number for number in numbers if number != taken)]  # the action taken stands first, as VW has it
    found = {
        "_label_cost": -float(log.reward[row]),
        "_label_probability": propensity,
        "_label_Action": numbers.index(taken) + 1,
        "_labelIndex": numbers.index(taken),
        "Version": "1",
        "EventId": log.id[row],
        "a": [numbers.index(number) + 1 for number in order],
        "c": {
            "x": {str(column): value for column, value in enumerate(log.x[row].tolist())},
            MULTI: [{"action": {NUMBER: f"{number}/{log.actions}"}} for number in numbers],
        },
        "p": [propensity] if log.probabilities is None else [told[number] for number in order],
        "VWState": {"m": str(int(log.generation[row]))},
    }
    if log.time is not None:
        found["Timestamp"] = datetime.fromtimestamp(float(log.time[row]), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if log.weight is not None:
        found["pdrop"] = 1.0 - 1.0 / float(log.weight[row])
    return found


# ---- one line --------------------------------------------------------------------------------------------------------------


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: no JSON ({error}).") from error


def _event(path: Path, line: int, row: dict[str, Any]) -> dict[str, Any] | None:
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {line}: an object is expected, got {type(row).__name__}.")
    if "c" not in row and "RewardValue" in row:
        return None  # a reward whose decision never came
    row = _outcome(path, line, row)
    if row.get("_label_cost") is None or row.get("_skipLearn"):
        return None
    try:
        shared = dict(row["c"])
        multi = [_flat(item) for item in shared.pop(MULTI)]
        places = [int(item) - 1 for item in row["a"]]
        taken = int(row["_labelIndex"]) if "_labelIndex" in row else places[0]
        if not 0 <= taken < len(multi) or any(not 0 <= place < len(multi) for place in places):
            raise DataError(
                f"{path}, line {line}: `a` and `_labelIndex` must name one of the {len(multi)} actions in `_multi`."
            )
        drop = float(row.get("pdrop", 0.0))
        if not 0.0 <= drop < 1.0:
            raise DataError(f"{path}, line {line}: pdrop is {drop:g}; it must lie in 0..1, below 1.")
        return {
            "line": line,
            "id": str(row.get("EventId", line)),
            "cost": float(row["_label_cost"]),
            "propensity": float(row["_label_probability"]),
            "taken": taken,
            "p": {place: float(value) for place, value in zip(places, row.get("p", ()), strict=False)},
            "shared": _flat(shared),
            "multi": multi,
            "time": _time(row.get("Timestamp")),
            "weight": 1.0 / (1.0 - drop),
            "model": str(row.get("VWState", {}).get("m", "")),
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{path}, line {line}: no decision can be read from it ({type(error).__name__}: {error})."
        ) from error


def _outcome(path: Path, line: int, row: dict[str, Any]) -> dict[str, Any]:
    """A line of several outcomes as one of a single one: a decision over slots is read where it has one slot."""
    outcomes = row.get("_outcomes")
    if outcomes is None:
        return row
    if len(outcomes) != 1:
        raise DataError(f"{path}, line {line}: it decides {len(outcomes)} slots at once; only lines of one slot are read.")
    one = outcomes[0]
    places = [int(item) for item in one["_a"]]  # counted from 0 here
    context = {key: value for key, value in row["c"].items() if key != "_slots"}
    return {
        **row,
        "c": context,
        "_label_cost": one.get("_label_cost"),
        "_label_probability": one["_p"][0],
        "_labelIndex": places[0],
        "a": [place + 1 for place in places],
        "p": one["_p"],
    }


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """Features as names and numbers: a text is a name of its own with the value 1."""
    found: dict[str, float] = {}
    for key, item in value.items():
        if key.startswith("_") and key != "_text":
            continue
        for name, leaf in _leaves(f"{before}{key}", item):
            found[name] = found.get(name, 0.0) + leaf
    return found


def _leaves(name: str, item: Any) -> Iterator[tuple[str, float]]:
    if isinstance(item, Mapping):
        yield from _flat(item, f"{name}.").items()
    elif isinstance(item, list):
        for place, part in enumerate(item):
            yield from _leaves(f"{name}.{place}", part)
    elif isinstance(item, str):
        yield f"{name}={item}", 1.0
    elif item is not None:
        yield name, float(item)


def _key(features: Mapping[str, float]) -> tuple:
    return tuple(sorted(features.items()))


def _by_description(events: list[dict[str, Any]]) -> dict[tuple, int]:
    """A number for each description of an action, or {} where descriptions do not name actions."""
    order: dict[tuple, int] = {}
    total = 0
    for event in events:
        keys = [_key(item) for item in event["multi"]]
        if len(set(keys)) != len(keys):
            return {}
        total += len(keys)
        for key in keys:
            order.setdefault(key, len(order))
    ours = {key: _own_number(key) for key in order}
    if all(ours.values()):
        return {key: found[0] for key, found in ours.items()} | {
            ("absent", number): number
            for number in set(range(next(iter(ours.values()))[1])) - {found[0] for found in ours.values()}
        }
    return order if 2 * len(order) <= total or len(events) == 1 else {}


def _own_number(key: tuple) -> tuple[int, int] | None:
    """(number of the action, number of actions) where `write_dsjson` wrote the description."""
    start = f"action.{NUMBER}="
    if len(key) != 1 or not key[0][0].startswith(start):
        return None
    number, _, actions = key[0][0].removeprefix(start).partition("/")
    return (int(number), int(actions)) if number.isdigit() and actions.isdigit() and int(number) < int(actions) else None


def _generations(models: list[str]) -> torch.Tensor:
    """Numbers of models: their own where they are numbers, else in the order of first appearance."""
    if all(model.isdigit() and len(model) < 16 for model in models):
        return torch.tensor([int(model) for model in models])
    order: dict[str, int] = {}
    return torch.tensor([order.setdefault(model, len(order)) for model in models])


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    stamp = text.removesuffix("Z")
    whole, dot, part = stamp.partition(".")
    moment = datetime.fromisoformat(f"{whole}.{part[:6].ljust(6, '0')}" if dot else whole)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
