"""How much of a step is the network's own work: every learner that learns batch by batch, beside a bare PyTorch loop.

    python benchmarks/throughput.py

A learner may take the time of the passes that it needs: `passes` counts the rows that it sends through a network, forward and backward,
per row of its batch (a joint pass over batch and draw counts as its rows), and a pass without a gradient counts as the part of a whole one
that it takes in the bare loop. `share` is the bare loop's time for as many passes over the learner's time: what is left of 1
is the learner's own work. In small networks large passes cost less for their rows, so that a joint pass may go above 1, and a second
pass over few rows counts for less than it takes. Two classes at a
time would replay nothing in the first task, so times are taken in the second one, after an announced change.
Writes results/throughput.json and results/throughput.md.
"""

import argparse
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import timing
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.comparison.catalog import learners
from everlearn.core.errors import EverlearnError
from everlearn.core.events import Batch, Boundary
from everlearn.core.learner import Learner
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.presets import preset
from everlearn.learners.refresh import Refresh
from everlearn.learners.unified import Unified
from everlearn.nn.networks import NETWORKS
from everlearn.optim.optimizers import SGD

BATCH, FIRST, STEPS, LR = 32, 20, 10, 0.05
LEAST = 0.85
SCHEMA = Schema((1, 28, 28), torch.uint8, tuple("0123456789"))
BUILT = {
    "refresh(fine_tune())": lambda model: Refresh(FineTune(model)),
    **{
        f"unified(preset('{name}'))": lambda model, name=name: Unified(model, preset(name))
        for name in ("derpp", "online_ewc")
    },
}
APART = {  # learners whose updates are not passes over their batch
    "early_stopping": "a wrapper",
    "few_shot": "its sessions open with all of their rows",
    "frozen": "learns nothing",
    "gdumb": "trains at changes",
    "refresh": "a wrapper",
    "retrain": "trains on everything, now and then",
    "river": "no network",
    "sklearn": "no network",
    "unified": "by its presets",
}


class Counted(nn.Module):
    """Notes the rows that pass, with a gradient and without, wherever copies of it stand."""

    rows = {"whole": 0, "forward": 0}

    def forward(self, x: Tensor) -> Tensor:
        Counted.rows["whole" if torch.is_grad_enabled() else "forward"] += len(x)
        return x


def network(name: str, counted: bool = False) -> nn.Module:
    """The network of a name, the same weights every time."""
    with isolated(0, "network"):
        built = NETWORKS[name](SCHEMA)
    return nn.Sequential(Counted(), *built) if counted else built


def batches(first: int, count: int, seed: int) -> list[Batch]:
    """Batches of noise, of five classes from `first` on."""
    random = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randint(256, (BATCH, *SCHEMA.shape), dtype=torch.uint8, generator=random),
            first + torch.randint(5, (BATCH,), generator=random),
        )
        for _ in range(count)
    ]


def ready(make: Callable[[nn.Module], Learner], model: nn.Module) -> Learner:
    """The learner in its second task."""
    learner = make(model)
    learner.boundary(Boundary(0, classes=tuple(range(5))))
    for batch in batches(0, FIRST, 0):
        learner.update(batch)
    learner.boundary(Boundary(1, classes=tuple(range(5, 10))))
    for batch in batches(5, STEPS, 1):
        learner.update(batch)
    return learner


def passes(make: Callable[[nn.Module], Learner], name: str) -> dict[str, float]:
    """Rows sent through a network per row of a batch: `whole` with a gradient, `forward` without."""
    learner = ready(make, network(name, counted=True))
    Counted.rows.update(whole=0, forward=0)
    for batch in batches(5, STEPS, 2):
        learner.update(batch)
    return {kind: rows / (STEPS * BATCH) for kind, rows in Counted.rows.items()}


def bare(name: str, whole: bool) -> Callable[[int], float]:
    """Microseconds a step of the loop that one writes without a library; whole=False: forward alone, without gradients."""
    model, given = network(name), [(batch.x, batch.y) for batch in batches(5, STEPS, 2)]
    optimizer = SGD(lr=LR).make(model.parameters())

    def step(number: int) -> float:
        started = process_time()
        if not whole:
            model.eval()
            with torch.no_grad():
                for x, _ in given:
                    model(x)
        else:
            model.train()
            for x, y in given:
                optimizer.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
        return 1e6 * (process_time() - started) / STEPS

    return step


def clocked(learner: Learner, given: list[Batch], number: int) -> float:
    """Microseconds of processor time an update."""
    started = process_time()
    for batch in given:
        learner.update(batch)
    return 1e6 * (process_time() - started) / STEPS


def contenders() -> dict[str, Callable[[nn.Module], Learner]]:
    """{call string: how it is made from a network} of the learners that are measured."""
    own = {name: (lambda model, cls=cls: cls(model)) for name, cls in learners().items() if name not in APART}
    return {name: own[name] for name in sorted(own)} | BUILT


def measured(name: str, rounds: int, only: list[str]) -> dict[str, Any]:
    """The figures of one network."""
    counts, calls = {}, {"bare loop": bare(name, True), "forward alone": bare(name, False)}
    left = {}
    for text, make in contenders().items():
        if only and text not in only:
            continue
        try:
            count = passes(make, name)
            if not sum(count.values()):
                left[text] = "no pass through the network"
                continue
            counts[text] = count
            calls[text] = partial(clocked, ready(make, network(name)), batches(5, STEPS, 3))
        except EverlearnError as problem:
            left[text] = str(problem)
    times = timing.interleave(calls, rounds)
    part = timing.ratio(times["forward alone"], times["bare loop"])["ratio"]
    found = {}
    for text, count in counts.items():
        needed = count["whole"] + part * count["forward"]
        share = timing.ratio([needed * value for value in times["bare loop"]], times[text])
        found[text] = {**count, "passes": needed, "step_us": timing.summary(times[text]), "share": share}
        found[text]["met"] = share["ratio"] >= LEAST
    whole = timing.summary(times["bare loop"])
    return {"bare_us": whole, "forward_part": part, "learners": found, "left_out": APART | left}


def text(record: dict[str, Any]) -> str:
    """A table for each network in Markdown."""
    parts = []
    for name, figures in record["networks"].items():
        rows = [["bare loop", f"{figures['bare_us']['median']:,.0f}", "1.00", "", ""]]
        for learner, found in figures["learners"].items():
            share = found["share"]
            rows.append(
                [
                    f"`{learner}`",
                    f"{found['step_us']['median']:,.0f}",
                    f"{found['passes']:.2f}",
                    f"{share['ratio']:.2f} ({share['low']:.2f}-{share['high']:.2f})",
                    "met" if found["met"] else "missed",
                ]
            )
        head = [f"`{name}`, 1x28x28", "step, µs", "passes", "share (quartiles)", f">= {LEAST}"]
        parts.append(timing.table(head, rows))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", nargs="*", default=["mlp", "conv4"])
    parser.add_argument("--only", nargs="*", default=[], help="learners; prints, and writes nothing")
    options = parser.parse_args()
    found = {name: measured(name, options.rounds, options.only) for name in options.networks}
    record = {"settings": {"batch": BATCH, "lr": LR, "rounds": options.rounds, "least": LEAST}, "networks": found}
    if options.only:
        print(text(record))
    else:
        timing.publish("throughput", record, text(record))


if __name__ == "__main__":
    main()
