"""What every benchmark here shares: one thread, interleaved repetitions, medians with quartiles, and the record of the machine.

Contenders take turns (A B C, A B C, ...), so that a slow minute of the machine falls on all of them alike, and what is compared is
the ratio of their medians.
"""

import gc
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch

torch.set_num_threads(1)

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "everlearn",
    "torch",
    "numpy",
    "numba",
    "scikit-learn",
    "avalanche-lib",
    "continuum",
    "river",
    "ncps",
    "vowpalwabbit",
    "mabwiser",
    "scikit-activeml",
    "ray",
    "fastapi",
    "uvicorn",
)
Outcome = TypeVar("Outcome")


def interleave(
    contenders: Mapping[str, Callable[[int], Outcome]],
    rounds: int,
    fewer: Mapping[str, int] | None = None,
    warm: bool = True,
) -> dict[str, list[Outcome]]:
    """{name: outcomes}: each contender is called with the number of the round, one after the other, again and again.

    fewer: {name: rounds} of contenders that are too slow for all of them; they take part in the first ones. warm: a round before the
    first is thrown away, which pays for imports and for filling caches.
    """
    limits = dict.fromkeys(contenders, rounds) | dict(fewer or {})
    outcomes: dict[str, list[Outcome]] = {name: [] for name in contenders}
    for number in range(-1 if warm else 0, rounds):
        for name, contender in contenders.items():
            if number >= limits[name] or (number < 0 and limits[name] < rounds):
                continue
            gc.collect()
            outcome = contender(max(number, 0))
            if number >= 0:
                outcomes[name].append(outcome)
        show(f"round {number + 1} of {rounds}")
    return outcomes


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = numpy.percentile(numpy.asarray(values, dtype=float), [25, 50, 75])
    return {"median": float(middle), "low": float(low), "high": float(high)}


def ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Median of first over median of second, with the quartiles of the ratio inside one round; over the rounds that both ran."""
    rounds = min(len(first), len(second))
    first, second = first[:rounds], second[:rounds]
    pairs = summary([a / b for a, b in zip(first, second, strict=True)])
    return {"ratio": float(numpy.median(first) / numpy.median(second)), "low": pairs["low"], "high": pairs["high"]}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and half the width of its 95 % t interval (None where there are too few values), with the values."""
    from scipy.stats import t

    count = len(values)
    mean = statistics.fmean(values) if count else None
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5 if count > 1 else None
    return {"mean": mean, "half": half, "values": list(values)}


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code: processor, threads, versions, and how busy the machine was."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def write(name: str, record: dict[str, Any]) -> Path:
    """Write a record with the machine's own to results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip()
    path.write_text(json.dumps({"command": command, "machine": machine(), **record}, indent=1) + "\n")
    return path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def publish(name: str, record: dict[str, Any], text: str) -> None:
    """Write results/NAME.json and results/NAME.md, and print the table."""
    path = write(name, record)
    found = machine()
    versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    note = f"{found['processor']}, {found['threads']} thread, {found['system']}, Python {found['python']}, {versions}."
    path.with_suffix(".md").write_text(f"{text}\n\n{note}\n")
    print(f"\n{text}\n\n{note}")


def show(text: str) -> None:
    """A line of progress, on the error stream."""
    print(text, file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value.strip()}
    family, model = found.get("cpu family"), found.get("model")
    name = found.get("model name", platform.processor() or "unknown")
    return f"{name} (family {family}, model {model})" if family and model else name
