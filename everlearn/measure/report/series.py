"""From the runs of one learner to what words and charts show: curves with a band over seeds, matrices, losses by held-out set.

    forgetting of set j = max over earlier checkpoints i of a[i][j]  -  a[last][j]       (per seed, then the mean over seeds)

Reference: Chaudhry et al. (2018), Riemannian walk for incremental learning, arXiv 1801.10112.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import Entry, figures
from everlearn.measure.statistics import mean_interval

Row = dict[str, Any]


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / (most - 1)
    return [items[round(index * step)] for index in range(most)]


def curve(
    entry: Entry, monitor: str, key: str, most: int = 80, only: Sequence[int] = (), bounds: tuple[float, float] | None = None
) -> list[Row]:
    """Points (event, mean, low, high) of one figure along the stream, over all seeds that have the event.

    most: points kept; only: events to keep (all where empty); bounds: where the band is cut off. low and high equal the mean
    where there is one seed.
    """
    by_event: dict[int, list[float]] = {}
    for run in entry.get("runs") or []:
        points = {point["event"]: (point.get(monitor) or {}).get(key) for point in run.get("curve") or []}
        for event, value in points.items():
            if known(value):
                by_event.setdefault(event, []).append(value)
    most_seeds = max(map(len, by_event.values()), default=0)
    events = sorted(event for event, values in by_event.items() if len(values) == most_seeds)
    chosen = [event for event in events if event in set(only)] if only else []
    return [{"event": event, **band(by_event[event], bounds)} for event in thinned(chosen or events, most)]


def band(values: Sequence[float], bounds: tuple[float, float] | None = None) -> Row:
    """mean, low and high of values over seeds; low and high equal the mean where there is one value."""
    middle, low, high = mean_interval(values) if len(values) > 1 else (values[0], values[0], values[0])
    if not (known(low) and known(high)):
        low = high = middle
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return {"mean": middle, "low": low, "high": high}


def same_sets(entry: Entry) -> bool:
    """Whether all seeds name the held-out sets alike (they do not where each seed draws its own order of classes)."""
    found = [list(map(str, figure["names"])) for figure in figures(entry, "matrix") if figure.get("matrix")]
    return all(names == found[0] for names in found)


def set_names(entry: Entry) -> list[str]:
    """The held-out sets' names; numbered where seeds name them differently (each seed draws its own order of classes)."""
    found = [list(map(str, figure["names"])) for figure in figures(entry, "matrix") if figure.get("matrix")]
    if not found:
        return []
    if same_sets(entry):
        return found[0] if len(set(found[0])) == len(found[0]) else [f"{at + 1}: {name}" for at, name in enumerate(found[0])]
    return [f"experience {index + 1}" for index in range(min(map(len, found)))]


def matrices(entry: Entry) -> list[list[list[float]]]:
    """The accuracy matrix of each seed, [checkpoint][held-out set]; None where a set was not judged."""
    return [figure["matrix"] for figure in figures(entry, "matrix") if figure.get("matrix")]


def mean_matrix(entry: Entry) -> list[list[float | None]]:
    """The accuracy matrix, averaged over seeds."""
    found = matrices(entry)
    if not found:
        return []
    rows, columns = min(map(len, found)), min(len(matrix[0]) for matrix in found)
    return [[_mean([matrix[row][column] for matrix in found]) for column in range(columns)] for row in range(rows)]


def best_and_last(entry: Entry) -> list[dict[str, Any]]:
    """For every held-out set: name, best accuracy at an earlier checkpoint, accuracy at the end, forgetting; over seeds.

    A set that is only learned at the last checkpoint cannot have been forgotten and is left out (the last of a square matrix).
    """
    found = matrices(entry)
    if not found or min(map(len, found)) < 2:
        return []
    rows = min(map(len, found))
    columns = min(len(matrix[0]) for matrix in found)
    judged = columns - 1 if rows == columns else columns
    result = []
    for column, name in enumerate(set_names(entry)[:judged]):
        peaks, lasts = [], []
        for matrix in found:
            earlier = [row[column] for row in matrix[: rows - 1] if known(row[column])]
            if earlier and known(matrix[rows - 1][column]):
                peaks.append(max(earlier))
                lasts.append(matrix[rows - 1][column])
        if peaks:
            lost = [peak - last for peak, last in zip(peaks, lasts, strict=True)]
            result.append({"name": name, "best": _mean(peaks), "last": _mean(lasts), **band(lost)})
    return result


def when_new(entry: Entry) -> list[float]:
    """Accuracy on each held-out set right after it was learned (the diagonal of a square matrix), averaged over seeds."""
    matrix = mean_matrix(entry)
    if not matrix or len(matrix) != len(matrix[0]):
        return []
    diagonal = [matrix[index][index] for index in range(len(matrix))]
    return [value for value in diagonal if value is not None] if all(map(known, diagonal)) else []


def classes_at_end(entry: Entry) -> dict[str, float]:
    """Accuracy of each class at the end, in the user's labels, averaged over seeds: held-out where judged, else prequential."""
    last = [figure["per_class"][-1] for figure in figures(entry, "matrix") if figure.get("per_class")]
    last = last or [figure["per_class"] for figure in figures(entry, "prequential") if figure.get("per_class")]
    labels = dict.fromkeys(str(label) for found in last for label in found)
    means = {label: _mean([found.get(label) for found in last]) for label in labels}
    return {label: value for label, value in means.items() if value is not None}


def class_curves(entry: Entry, checkpoints: Sequence[int]) -> list[Row]:
    """Points (label, seed, event, accuracy) of each class, seed by seed: seeds may meet the classes in another order.

    Held-out accuracy at every checkpoint; where nothing was held out, of the answers given since the point before.
    """
    rows = []
    for number, run in enumerate(entry.get("runs") or []):
        judged = ((run.get("figures") or {}).get("matrix") or {}).get("per_class") or []
        events = [checkpoints[index] if index < len(checkpoints) else index + 1 for index in range(len(judged))]
        points = list(zip(events, judged, strict=True)) or _answered_by_class(run)
        rows += [
            {"label": str(label), "seed": run.get("seed", number), "event": event, "accuracy": float(value)}
            for event, found in points
            for label, value in found.items()
            if known(value)
        ]
    return rows


def _answered_by_class(run: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    points = [(point["event"], (point.get("prequential") or {}).get("per_class")) for point in run.get("curve") or []]
    return [(event, found) for event, found in points if found]


def class_losses(entry: Entry) -> list[dict[str, Any]]:
    """For every class: label, best held-out accuracy at an earlier checkpoint, accuracy at the end, their difference."""
    found = [figure["per_class"] for figure in figures(entry, "matrix") if len(figure.get("per_class") or []) > 1]
    rows = []
    for label in dict.fromkeys(label for run in found for label in run[-1]):
        runs = [run for run in found if known(run[-1].get(label)) and any(known(point.get(label)) for point in run[:-1])]
        if runs:
            best = _mean([max(point[label] for point in run[:-1] if known(point.get(label))) for run in runs])
            last = _mean([run[-1][label] for run in runs])
            rows.append({"name": str(label), "best": best, "last": last, "mean": best - last})
    return rows


def shown(detector: str) -> str:
    """A detector's call string without empty brackets."""
    return str(detector).removesuffix("()")


def alarms(entry: Entry) -> dict[str, list[list[int]]]:
    """{detector: [events of its alarms, seed by seed]}."""
    result: dict[str, list[list[int]]] = {}
    for figure in figures(entry, "drift"):
        for detector, events in (figure.get("alarms") or {}).items():
            result.setdefault(shown(detector), []).append(list(events))
    return result


def detector_scores(entry: Entry) -> dict[str, dict[str, float | None]]:
    """{detector: {found, changes, delay, false_per_1000}}, averaged over seeds."""
    result: dict[str, dict[str, list[Any]]] = {}
    for figure in figures(entry, "drift"):
        for detector, scores in (figure.get("scores") or {}).items():
            held = result.setdefault(shown(detector), {})
            for key in ("found", "changes", "delay", "false_per_1000"):
                held.setdefault(key, []).append((scores or {}).get(key))
    return {detector: {key: _mean(values) for key, values in held.items()} for detector, held in result.items()}


def first_and_last(entry: Entry | None, monitor: str, key: str, since: int = 0) -> tuple[float, float] | None:
    """A figure at the first point of the curve from event `since` on, and at the last, averaged over seeds."""
    points = [point for point in curve(entry or {}, monitor, key, most=10_000) if point["event"] >= since]
    return (points[0]["mean"], points[-1]["mean"]) if len(points) > 1 else None


def columns(rows: Sequence[Mapping[str, Any]], digits: int = 4) -> dict[str, list[Any]]:
    """Rows as columns, floats rounded: the compact form that the page carries."""
    keys = list(rows[0]) if rows else []
    return {key: [round(row[key], digits) if isinstance(row[key], float) else row[key] for row in rows] for key in keys}


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [value for value in values if known(value)]
    return sum(numbers) / len(numbers) if numbers else None
