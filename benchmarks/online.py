"""Online class-incremental learning of MNIST digits: every row comes once, in batches of 10, and 10 are replayed; beside Avalanche.

    python benchmarks/online.py

The same rows, order, network and rate for all: `conv4` for accuracy, and a perceptron (784-100-10), on which a library's own work
shows, for the time of a step of plain replay; `step` is the median processor time of a step once rows are replayed. The peer is fed
by experience, two classes each, its fastest way, and batch by batch, the setting of Everlearn, where its memory takes in rows as they
come.
Needs mnist10k in EVERLEARN_DATA. Writes results/online.json and results/online.md.
"""

import argparse
from collections.abc import Callable
from functools import partial

import avalanche_peer
import timing
import torch
from continual import spread
from digits import Outcome, Problem, Settings, accuracy
from own import learned
from torch import Tensor, nn

from everlearn.core.random import generator
from everlearn.core.stream import Schema
from everlearn.data.load import load
from everlearn.data.views import Views
from everlearn.learners.er_ace import ERACE
from everlearn.learners.hpcr import HPCR
from everlearn.learners.pcr import PCR
from everlearn.learners.replay import Replay
from everlearn.learners.scr import SCR
from everlearn.nn.networks import conv4, mlp

PER_CLASS = 150  # rows to learn from
TESTED = 200  # rows of each class
EXPERIENCES = 5
D = 64  # features of conv4
TEMPERATURE = 0.07
LIMIT = 3.0  # peer's step over the house's
SETTINGS = Settings(batch=10, passes=1, lr=0.1, capacity=100, replay_batch=10)
HELD = {"capacity": SETTINGS.capacity, "replay_batch": SETTINGS.replay_batch}
SCHEMA = Schema((1, 28, 28), torch.uint8, tuple("0123456789"))


def given(build: Callable[[Schema], nn.Module]) -> Callable[[int], Problem]:
    """seed -> the stream: it draws the order of classes and rows, and the weights; the test rows are the same for every seed."""
    data = load("mnist10k")
    rows = [(data.y == label).nonzero().squeeze(1) for label in range(10)]
    learned_from = torch.cat([places[:PER_CLASS] for places in rows])
    test = torch.cat([places[-TESTED:] for places in rows])

    def problem(seed: int) -> Problem:
        random = torch.Generator().manual_seed(seed)
        order = learned_from[torch.randperm(len(learned_from), generator=random)]
        group = torch.empty(10, dtype=torch.int64)
        group[torch.randperm(10, generator=random)] = torch.arange(10) // (10 // EXPERIENCES)
        order = order[torch.sort(group[data.y[order]], stable=True).indices]
        sizes = tuple(torch.bincount(group[data.y[order]]).tolist())
        return Problem(
            data.x[order], data.y[order], sizes, data.x[test], data.y[test], seed, SETTINGS, partial(build, SCHEMA)
        )

    return problem


def view(seed: int) -> Callable[[Tensor], Tensor]:
    """The house's random views, for the peer."""
    family, random = Views(), generator(seed, "views")
    return lambda x: family(x, random)


def scored(problem: Callable[[int], Problem]) -> dict[str, Callable[[int], Outcome]]:
    """The contenders whose accuracy is told."""
    makes = {
        "everlearn replay": partial(Replay, **HELD),
        "everlearn er_ace": partial(ERACE, **HELD),
        "everlearn scr": partial(SCR, **HELD, temperature=TEMPERATURE),
        "everlearn pcr": partial(PCR, **HELD),
        "everlearn hpcr": partial(HPCR, **HELD, period=PER_CLASS * 10 // EXPERIENCES // SETTINGS.batch),
    }
    return {
        **{name: (lambda seed, make=make: learned(make, problem(seed))) for name, make in makes.items()},
        "avalanche Replay": lambda seed: avalanche_peer.replay(problem(seed), by_step=True),
        "avalanche Replay, batch by batch": lambda seed: avalanche_peer.replay(
            problem(seed), way=avalanche_peer.BATCHES, by_step=True
        ),
        "avalanche ER_ACE": lambda seed: avalanche_peer.er_ace(problem(seed)),
        "avalanche SCR": lambda seed: avalanche_peer.scr(problem(seed), D, view(seed), TEMPERATURE),
    }


def clocked(problem: Callable[[int], Problem]) -> dict[str, Callable[[int], Outcome]]:
    """Plain replay on the perceptron."""
    return {
        "everlearn replay": lambda seed: learned(partial(Replay, **HELD), problem(seed)),
        "avalanche Replay": lambda seed: avalanche_peer.replay(problem(seed), by_step=True),
        "avalanche Replay, batch by batch": lambda seed: avalanche_peer.replay(
            problem(seed), way=avalanche_peer.BATCHES, by_step=True
        ),
    }


COLUMNS = ("step (quartiles)", "whole run", "processor time", "points of accuracy won")
RATIOS = {  # network: (slower, faster, target)
    "conv4": (
        ("avalanche Replay", "everlearn replay", False),
        ("avalanche Replay, batch by batch", "everlearn replay", False),
        ("avalanche ER_ACE", "everlearn er_ace", False),
        ("avalanche SCR", "everlearn scr", False),
    ),
    "mlp": (
        ("avalanche Replay", "everlearn replay", True),
        ("avalanche Replay, batch by batch", "everlearn replay", True),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    problems = {"conv4": given(conv4), "mlp": given(mlp)}
    calls = {"conv4": scored(problems["conv4"]), "mlp": clocked(problems["mlp"])}
    record = {
        "settings": {
            "data": f"mnist10k, {PER_CLASS} rows a class to learn from, {TESTED} to test",
            "experiences": EXPERIENCES,
            **vars(SETTINGS),
            "temperature of SCR": TEMPERATURE,
            "seeds": options.seeds,
        },
        "networks": {},
    }
    for network, contenders in calls.items():
        timing.show(network)
        found = timing.interleave(contenders, options.seeds, warm=network == "mlp")
        test = problems[network](0)
        record["networks"][network] = {
            "contenders": {
                name: {
                    "step_us": timing.summary([run.step_us for run in runs]),
                    "steps_per_second": timing.summary([run.steps / run.seconds for run in runs]),
                    "accuracy": timing.interval([accuracy(run, test) for run in runs]),
                    "state_bytes": runs[0].state,
                }
                for name, runs in found.items()
            },
            "ratios": [compared(found, test, *pair) for pair in RATIOS[network]],
        }
    timing.publish("online", record, text(record))


def compared(found: dict[str, list[Outcome]], test: Problem, of: str, over: str, targeted: bool) -> dict:
    """The ratio of two contenders' times, and what the second gains in accuracy, in points."""
    first, second = found[of], found[over]
    step = timing.ratio([run.step_us for run in first], [run.step_us for run in second])
    whole = timing.ratio(*([run.seconds / run.steps for run in runs] for runs in (first, second)))
    processor = timing.ratio(*([run.cpu_seconds / run.steps for run in runs] for runs in (first, second)))
    met = step["ratio"] >= LIMIT if targeted else None
    points = [100 * (accuracy(b, test) - accuracy(a, test)) for a, b in zip(first, second, strict=True)]
    times = {"step": step, "whole_run": whole, "processor": processor, "points": timing.interval(points)}
    return {"of": of, "over": over, **times, "target": LIMIT if targeted else None, "met": met}


def text(record: dict) -> str:
    """The tables in Markdown."""
    parts = []
    for network, found in record["networks"].items():
        rows = [
            [
                name,
                spread(one["step_us"], 0),
                f"{one['steps_per_second']['median']:,.0f}",
                f"{100 * one['accuracy']['mean']:.1f} ± {100 * (one['accuracy']['half'] or 0):.1f}",
                f"{one['state_bytes'] / 1000:,.0f} kB",
            ]
            for name, one in found["contenders"].items()
        ]
        parts.append(timing.table([f"`{network}`", "step, µs (quartiles)", "steps/s", "accuracy %", "state"], rows))
        rows = [
            [
                f"{pair['of']} / {pair['over']}",
                spread({"median": pair["step"]["ratio"], "low": pair["step"]["low"], "high": pair["step"]["high"]}, 2),
                f"{pair['whole_run']['ratio']:.2f}",
                f"{pair['processor']['ratio']:.2f}",
                f"{pair['points']['mean']:+.1f} ± {pair['points']['half'] or 0:.1f}",
                "" if pair["target"] is None else f">= {pair['target']:g} {'met' if pair['met'] else 'missed'}",
            ]
            for pair in found["ratios"]
        ]
        parts.append(timing.table([f"ratio of times, `{network}`", *COLUMNS, "target"], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
