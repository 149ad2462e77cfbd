"""A table of 100,000 rows from a CSV file to figures: how long reading takes, and how long each learner takes, test then learn.

    python benchmarks/tabular.py

The CSV is made here: ten numeric and two text columns, missing values, and a target whose rule turns slowly as time goes on, so that
a model that learned once grows wrong. Every learner runs in batches of 32 with the prequential monitor; times are medians over
interleaved rounds. Writes results/tabular.json and results/tabular.md.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy
import timing
import torch

from everlearn.core.learner import Learner
from everlearn.core.run import run
from everlearn.core.stream import Stream
from everlearn.data.prequential import prequential
from everlearn.data.tables import table
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.frozen import Frozen
from everlearn.learners.replay import Replay
from everlearn.learners.river_model import RiverModel
from everlearn.learners.streaming_lda import StreamingLDA
from everlearn.measure.prequential import Prequential
from everlearn.nn.networks import mlp

NUMERIC = 10
BATCH = 32
DEPLOYED = 0.1
LEARNERS: dict[str, Callable[[Stream], Learner]] = {
    "frozen": lambda stream: Frozen(mlp(stream.schema), updates=stream.deployed),
    "fine_tune": lambda stream: FineTune(mlp(stream.schema)),
    "replay(capacity=500)": lambda stream: Replay(mlp(stream.schema), capacity=500),
    "streaming_lda": lambda stream: StreamingLDA(mlp(stream.schema)),
    "river: naive_bayes.GaussianNB": lambda stream: RiverModel("naive_bayes.GaussianNB()", classes=stream.schema.outputs),
    "river: scaler, logistic regression": lambda stream: RiverModel(None, classes=stream.schema.outputs),
    "river: tree.HoeffdingTreeClassifier": lambda stream: RiverModel(
        "tree.HoeffdingTreeClassifier()", classes=stream.schema.outputs
    ),
}


def write_csv(path: Path, rows: int, seed: int = 0) -> None:
    """Rows in the order of time; the weights of the rule turn by a right angle from the first row to the last."""
    random = numpy.random.default_rng(seed)
    x = random.normal(size=(rows, NUMERIC))
    city, plan = random.integers(5, size=rows), random.integers(3, size=rows)
    start, end = random.normal(size=(2, NUMERIC))
    angle = numpy.linspace(0.0, numpy.pi / 2, rows)[:, None]
    rule = numpy.cos(angle) * start + numpy.sin(angle) * end
    score = (x * rule).sum(1) + 0.5 * (city - 2) + random.normal(scale=0.5, size=rows)
    bought = numpy.where(score > 0.7 * numpy.where(plan == 0, 1.0, -0.5), "yes", "no")
    gap = random.random((rows, NUMERIC)) < 0.01
    with open(path, "w") as file:
        file.write("day," + ",".join(f"x{column}" for column in range(NUMERIC)) + ",city,plan,bought\n")
        for row in range(rows):
            cells = ("" if gap[row, column] else f"{x[row, column]:.4f}" for column in range(NUMERIC))
            file.write(f"{row},{','.join(cells)},city_{city[row]},plan_{plan[row]},{bought[row]}\n")


def measured(stream: Stream, make: Callable[[Stream], Learner]) -> dict[str, float]:
    """One run: seconds and accuracy after deployment."""
    torch.manual_seed(0)
    learner = make(stream)
    started = perf_counter()
    result = run(learner, stream, monitors=[Prequential()])
    return {"seconds": perf_counter() - started, "accuracy": result.figures["prequential"]["accuracy"]}


def text(record: dict[str, Any], rows: int) -> str:
    """The table for people."""
    read = record["reading"]
    lines = [
        [
            "reading the CSV",
            f"{read['median']:.2f} ({read['low']:.2f}-{read['high']:.2f})",
            f"{rows / read['median']:,.0f}",
            "",
        ]
    ]
    for name, found in record["learners"].items():
        time = found["seconds"]
        spread = f"{time['median']:.2f} ({time['low']:.2f}-{time['high']:.2f})"
        lines.append([name, spread, f"{rows / time['median']:,.0f}", f"{100 * found['accuracy']:.1f}"])
    return timing.table([f"{rows:,} rows", "seconds (quartiles)", "rows/s", "accuracy %"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.csv")
        write_csv(path, options.rows)
        times = []
        for _ in range(options.rounds):
            started = perf_counter()
            data = table(path, target="bought", time="day")
            times.append(perf_counter() - started)
    stream = prequential(data, batch=BATCH, deployed=DEPLOYED)
    contenders = {name: (lambda _, make=make: measured(stream, make)) for name, make in LEARNERS.items()}
    outcomes = timing.interleave(contenders, options.rounds, warm=False)
    record = {
        "settings": {"rows": options.rows, "columns": data.x.shape[1], "batch": BATCH, "rounds": options.rounds},
        "reading": timing.summary(times),
        "learners": {
            name: {"seconds": timing.summary([one["seconds"] for one in found]), "accuracy": found[0]["accuracy"]}
            for name, found in outcomes.items()
        },
    }
    timing.publish("tabular", record, text(record, options.rows))


if __name__ == "__main__":
    main()
