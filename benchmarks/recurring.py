"""A thousand recurring tasks of two digits each, made and walked through without training, beside Continuum.

    python benchmarks/recurring.py

Everlearn makes `recurring(mnist10k, tasks=1000, classes_per_task=2)` and goes through all of it: as numbers of rows, and as batches.
Continuum selects the same classes of the same rows from its scenario of one class a task, which is how the authors of such streams use
it (`scenario[classes]` copies the task's rows), and goes through them as they lie, cut into shuffled batches, or by its data loader.
Times are processor times of one thread. Needs mnist10k in EVERLEARN_DATA. Writes results/recurring.json and results/recurring.md.
"""

import argparse
from collections.abc import Callable
from time import process_time

import numpy
import timing
import torch
import torchvision_shim  # noqa: F401
from continuum import ClassIncremental
from continuum.datasets import InMemoryDataset
from torch.utils.data import DataLoader

from everlearn.core.events import Batch
from everlearn.data.dataset import Data
from everlearn.data.load import load
from everlearn.data.recurring import Recurring, recurring

TASKS, CLASSES, BATCH = 1000, 2, 64
LIMIT = 1.0  # seconds, for all tasks
SAMPLED = 10  # tasks that the slow contenders go through in a round
HOUSE = ("everlearn: numbers of rows", "everlearn: batches", "everlearn: batches and boundaries")
PEERS = ("continuum: tasks alone", "continuum: batches of rows as they lie", "continuum: its loader")
RATIOS = ((PEERS[0], HOUSE[0]), (PEERS[1], HOUSE[1]), (PEERS[2], HOUSE[1]))


def stream(data: Data, seed: int, boundaries: bool) -> Recurring:
    """The stream, without rows set aside, so that both libraries go through the same number."""
    return recurring(
        data, tasks=TASKS, classes_per_task=CLASSES, batch=BATCH, validation=0.0, boundaries=boundaries, seed=seed
    )


def numbers(data: Data, seed: int) -> int:
    """Every task as numbers of rows; the number of rows gone through."""
    made = stream(data, seed, False)
    return sum(len(made.rows(task)) for task in range(TASKS))


def batches(data: Data, seed: int, boundaries: bool) -> int:
    """Every event."""
    made = stream(data, seed, boundaries)
    return sum(len(event) for event in made if isinstance(event, Batch))


def scenario(x: numpy.ndarray, y: numpy.ndarray) -> ClassIncremental:
    """Continuum's scenario with a class a task, from which any classes can be selected."""
    return ClassIncremental(InMemoryDataset(x, y), increment=1)


def selected(source: ClassIncremental, drawn: list[list[int]]) -> int:
    """Continuum's tasks, made and nothing more."""
    return sum(len(source[numpy.array(classes)]) for classes in drawn)


def cut(source: ClassIncremental, drawn: list[list[int]], seed: int) -> int:
    """Its tasks, cut into shuffled batches of tensors."""
    random, rows = torch.Generator().manual_seed(seed), 0
    for classes in drawn:
        x, y, _ = source[numpy.array(classes)].get_raw_samples()
        images, labels = torch.from_numpy(x), torch.from_numpy(y)
        for places in torch.randperm(len(y), generator=random).split(BATCH):
            _, part = images[places], labels[places]
            rows += len(part)
    return rows


def loaded(source: ClassIncremental, drawn: list[list[int]]) -> int:
    """Its tasks, through its data sets and torch's loader."""
    rows = 0
    for classes in drawn:
        for _, y, _ in DataLoader(source[numpy.array(classes)], batch_size=BATCH, shuffle=True):
            rows += len(y)
    return rows


def per_thousand(call: Callable[[int], int], tasks: int) -> Callable[[int], tuple[float, float]]:
    """A contender: (processor seconds for a thousand tasks, rows a task)."""

    def contender(seed: int) -> tuple[float, float]:
        started = process_time()
        rows = call(seed)
        return 1000 / tasks * (process_time() - started), rows / tasks

    return contender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    data = load("mnist10k")
    train = stream(data, 0, False)._data  # the rows that are learned from
    x, y = train.x[:, 0].numpy(), train.y.numpy()

    def drawn(seed: int, tasks: int) -> list[list[int]]:
        made = stream(data, seed, False)
        return [list(made.classes_of(task)) for task in range(tasks)]

    source = scenario(x, y)
    draws = {seed: drawn(seed, TASKS) for seed in range(options.rounds)}
    contenders = {
        HOUSE[0]: per_thousand(lambda seed: numbers(data, seed), TASKS),
        HOUSE[1]: per_thousand(lambda seed: batches(data, seed, False), TASKS),
        HOUSE[2]: per_thousand(lambda seed: batches(data, seed, True), TASKS),
        PEERS[0]: per_thousand(lambda seed: selected(source, draws[seed]), TASKS),
        PEERS[1]: per_thousand(lambda seed: cut(source, draws[seed], seed), TASKS),
        PEERS[2]: per_thousand(lambda seed: loaded(source, draws[seed][:SAMPLED]), SAMPLED),
    }
    found = timing.interleave(contenders, options.rounds)
    seconds = {name: [run[0] for run in runs] for name, runs in found.items()}
    record = {
        "settings": {
            "data": "mnist10k",
            "tasks": TASKS,
            "classes_per_task": CLASSES,
            "batch": BATCH,
            "rounds": options.rounds,
        },
        "sampled_tasks": {PEERS[2]: SAMPLED},
        "seconds": {name: timing.summary(values) for name, values in seconds.items()},
        "rows_per_task": {name: found[name][0][1] for name in found},
        "ratios": [{"of": of, "over": over, **timing.ratio(seconds[of], seconds[over])} for of, over in RATIOS],
        "target_seconds": LIMIT,
    }
    timing.publish("recurring", record, text(record))


def text(record: dict) -> str:
    """The tables in Markdown."""
    rows = []
    for name, found in record["seconds"].items():
        target = f"<= {LIMIT:g} {'met' if found['median'] <= LIMIT else 'missed'}" if name in HOUSE[:2] else ""
        rows.append(
            [
                name,
                f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})",
                f"{record['rows_per_task'][name]:,.0f}",
                target,
            ]
        )
    first = timing.table(["1,000 tasks", "seconds (quartiles)", "rows a task", "target"], rows)
    rows = [
        [f"{pair['of']} / {pair['over']}", f"{pair['ratio']:.1f} ({pair['low']:.1f}-{pair['high']:.1f})"]
        for pair in record["ratios"]
    ]
    note = f"Continuum's loader went through {SAMPLED} tasks a round; its seconds are those of a thousand such tasks."
    return f"{first}\n\n{timing.table(['ratio of times', 'ratio (quartiles)'], rows)}\n\n{note}"


if __name__ == "__main__":
    main()
