"""River's own loop and the same River model as an Everlearn learner, side by side: test, then learn, row by row.

    EVERLEARN_DATA=../shared/data python benchmarks/river_wrapper.py

A real data set is repeated to 100,000 rows. `river, dicts ready` is the barest loop: rows are dicts before the clock starts. `river`
is the loop of its documentation, over `stream.iter_array`. `everlearn` is `run` with the prequential monitor, in batches of 32; every
row is predicted before its batch is learned. Times are medians over interleaved repetitions; ratios are to River's documented loop.
Writes results/river_wrapper.json and results/river_wrapper.md.
"""

import argparse
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import timing  # first: it sets the threads
from river import compose, linear_model, multiclass, preprocessing, stream, tree

from everlearn.core.errors import DataError
from everlearn.core.run import run
from everlearn.data.dataset import Data
from everlearn.data.load import load
from everlearn.data.prequential import prequential
from everlearn.learners.river_model import RiverModel
from everlearn.measure.prequential import Prequential

BATCH = 32
TARGET = 1.3
MODELS: dict[str, tuple[str, Callable[[], Any]]] = {  # data set, model
    "logistic": ("spambase", lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression()),
    "one_vs_rest": (
        "page_blocks",
        lambda: compose.Pipeline(
            preprocessing.StandardScaler(), multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
        ),
    ),
    "hoeffding_tree": ("page_blocks", tree.HoeffdingTreeClassifier),
}


def repeated(name: str, rows: int) -> Data:
    """The first `rows` rows of a data set said again and again; digits where EVERLEARN_DATA lacks it."""
    try:
        data = load(f"bandit_classification/{name}")
    except DataError:
        data = load("digits")
        if name == "spambase":  # a set of two classes
            data = Data("digits", data.x, data.y % 2, ("even", "odd"))
    times = -(-rows // len(data))
    x = data.x.repeat(times, *[1] * (data.x.ndim - 1))[:rows].float()
    return Data(data.name, x, data.y.repeat(times)[:rows], data.classes)


def own(data: Data, make: Callable[[], Any], ready: bool) -> dict[str, float]:
    """River's loop. Returns seconds, processor seconds, accuracy."""
    model, binary = make(), len(data.classes) == 2
    names = [f"x{column}" for column in range(data.x.shape[1])]
    x, y = data.x.numpy(), data.y.numpy().astype(bool) if binary else data.y.numpy()
    pairs: Any = stream.iter_array(x, y, feature_names=names)
    if ready:
        pairs = [(dict(zip(names, row, strict=True)), label) for row, label in zip(x.tolist(), y.tolist(), strict=True)]
    right, began, used = 0, perf_counter(), process_time()
    for row, label in pairs:
        right += model.predict_one(row) == label
        model.learn_one(row, label)
    return _outcome(began, used, float(right) / len(data))


def wrapped(data: Data, make: Callable[[], Any]) -> dict[str, float]:
    """The same through the learner and the fold."""
    learner = RiverModel(make(), classes=len(data.classes))
    events, monitor = prequential(data, batch=BATCH, deployed=0.0), Prequential()
    began, used = perf_counter(), process_time()
    result = run(learner, events, monitors=[monitor])
    return _outcome(began, used, result.figures["prequential"]["accuracy"])


def _outcome(began: float, used: float, accuracy: float) -> dict[str, float]:
    return {"seconds": perf_counter() - began, "processor": process_time() - used, "accuracy": accuracy}


def contest(name: str, rows: int, repetitions: int) -> dict[str, Any]:
    """The figures of one model."""
    source, make = MODELS[name]
    data = repeated(source, rows)
    contenders = {
        "river, dicts ready": lambda _: own(data, make, ready=True),
        "river": lambda _: own(data, make, ready=False),
        "everlearn": lambda _: wrapped(data, make),
    }
    outcomes = timing.interleave(contenders, repetitions)
    taken = {key: [outcome["seconds"] for outcome in found] for key, found in outcomes.items()}
    processor = {key: [outcome["processor"] for outcome in found] for key, found in outcomes.items()}
    return {
        "data": f"{data.name}, {data.x.shape[1]} features, {len(data.classes)} classes, repeated to {rows} rows",
        "contenders": {
            key: {
                "seconds": timing.summary(taken[key]),
                "processor_seconds": timing.summary(processor[key]),
                "rows_per_second": rows / timing.summary(taken[key])["median"],
                "accuracy": outcomes[key][0]["accuracy"],
                "ratio": timing.ratio(taken[key], taken["river"]),
                "processor_ratio": timing.ratio(processor[key], processor["river"]),
                "ratio_to_ready": timing.ratio(taken[key], taken["river, dicts ready"]),
            }
            for key in contenders
        },
    }


def text(record: dict[str, Any]) -> str:
    """The table for people."""
    head = ["", "seconds (quartiles)", "rows/s", "accuracy", "/ river", "processor time / river", "/ river, dicts ready"]
    rows = []
    for model, found in record["models"].items():
        for name, figures in found["contenders"].items():
            time = figures["seconds"]
            rows.append(
                [
                    f"{model}: {name}",
                    f"{time['median']:.2f} ({time['low']:.2f}-{time['high']:.2f})",
                    f"{figures['rows_per_second']:,.0f}",
                    f"{figures['accuracy']:.4f}",
                    *(f"{figures[key]['ratio']:.2f}" for key in ("ratio", "processor_ratio", "ratio_to_ready")),
                ]
            )
    worst = max(found["contenders"]["everlearn"]["ratio"]["ratio"] for found in record["models"].values())
    verdict = f"Largest ratio of everlearn to river: {worst:.2f}; target {TARGET}: {'met' if worst <= TARGET else 'missed'}."
    data = "\n".join(f"- {model}: {found['data']}" for model, found in record["models"].items())
    return f"{timing.table(head, rows)}\n\n{verdict}\n\n{data}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    record = {
        "settings": {"rows": options.rows, "repetitions": options.repetitions, "batch": BATCH},
        "models": {name: contest(name, options.rows, options.repetitions) for name in options.models},
    }
    timing.publish("river_wrapper", record, text(record))


if __name__ == "__main__":
    main()
