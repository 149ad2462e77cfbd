"""Side by side: a bare PyTorch loop, Everlearn and Avalanche on digits, one thread, the same batches, network and optimiser.

    python benchmarks/continual.py

Each round is one seed: every contender trains on the same batches, one after the other. Times are medians over rounds of the median
time from one gradient step to the next; accuracy is that on the same test rows at the end, mean and 95 % interval over seeds, with
classes coming two by two (which also gives the times) and with all classes mixed. The contenders that make the same gradient steps
must end in the same bits, which is checked.
Writes results/continual.json and results/continual.md.
"""

import argparse
from functools import partial

import avalanche_peer
import timing
import torch
from digits import ALPHA, BATCH, BETA, CAPACITY, EXPERIENCES, LR, PASSES, REPLAY_BATCH, Outcome, accuracy, problem
from own import Prepared, bare, everlearn, indexed

from everlearn.data.memory import Balanced
from everlearn.learners.derpp import DERpp
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.replay import Replay

ARRIVALS = {"classes": "two by two", "mixed": "mixed"}
REPLAYING = {"capacity": CAPACITY, "replay_batch": REPLAY_BATCH}
DARK = {**REPLAYING, "alpha": ALPHA, "beta": BETA}
CONTENDERS = {
    "bare loop, batches prepared": bare,
    "bare loop, rows gathered": partial(bare, gathered=True),
    "everlearn fine_tune, batches prepared": lambda given: everlearn(FineTune, given, Prepared(given)),
    "everlearn fine_tune": lambda given: everlearn(FineTune, given, indexed(given)),
    "everlearn replay": lambda given: everlearn(partial(Replay, **REPLAYING), given, indexed(given)),
    "everlearn replay, balanced": lambda given: everlearn(
        partial(Replay, **REPLAYING, keep=Balanced()), given, indexed(given)
    ),
    "everlearn derpp": lambda given: everlearn(partial(DERpp, **DARK), given, indexed(given)),
    "everlearn derpp, balanced": lambda given: everlearn(partial(DERpp, **DARK, keep=Balanced()), given, indexed(given)),
    "avalanche Naive": avalanche_peer.naive,
    "avalanche Replay": avalanche_peer.replay,
    "avalanche DER": avalanche_peer.der,
    "avalanche Naive, task labels": partial(avalanche_peer.naive, way=avalanche_peer.LABELLED),
    "avalanche Replay, task labels": partial(avalanche_peer.replay, way=avalanche_peer.LABELLED),
    "avalanche DER, task labels": partial(avalanche_peer.der, way=avalanche_peer.LABELLED),
    "avalanche Naive, batch by batch": partial(avalanche_peer.naive, way=avalanche_peer.BATCHES),
    "avalanche Replay, batch by batch": partial(avalanche_peer.replay, way=avalanche_peer.BATCHES),
    "avalanche DER, batch by batch": partial(avalanche_peer.der, way=avalanche_peer.BATCHES),
}
SAME = tuple(name for name in CONTENDERS if "Naive" in name or "loop" in name or "fine_tune" in name)
TIMED = "classes"  # the arrival that gives the times
SLOW = {"avalanche Replay, batch by batch": 3, "avalanche DER, batch by batch": 3}  # rounds, of the timed arrival only
WAYS = ("", ", task labels", ", batch by batch")
RATIOS = (  # slower, faster, the ratio to keep below or to reach
    ("everlearn fine_tune, batches prepared", "bare loop, batches prepared", "<=", 1.15),
    ("everlearn fine_tune", "bare loop, rows gathered", "<=", 1.15),
    *((f"avalanche Naive{way}", "everlearn fine_tune", "", None) for way in WAYS),
    *((f"avalanche Replay{way}", "everlearn replay", ">=", 4.0) for way in WAYS),
    *((f"avalanche DER{way}", "everlearn derpp", ">=", 4.0) for way in WAYS),
    *((f"avalanche {name}{way}", "bare loop, rows gathered", "", None) for way in WAYS for name in ("Naive", "DER")),
)


def rounds(arrival: str, seeds: int) -> dict[str, list[Outcome]]:
    """The outcomes of every contender, a seed a round. Raises SystemExit where equal steps gave other weights."""
    given = [problem(arrival, seed) for seed in range(seeds)]
    timing.show(f"classes arrive: {ARRIVALS[arrival]}")
    calls = {name: (lambda number, run=run: run(given[number])) for name, run in CONTENDERS.items()}
    found = timing.interleave(calls, seeds, SLOW if arrival == TIMED else dict.fromkeys(SLOW, 0))
    for name in SAME:
        for seed, (first, second) in enumerate(zip(found[SAME[0]], found[name], strict=True)):
            pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
            if not all(torch.equal(a, b) for a, b in pairs):
                raise SystemExit(f"{name} and {SAME[0]} made the same steps and ended in other weights (seed {seed})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    found = {arrival: rounds(arrival, options.seeds) for arrival in ARRIVALS}
    scores = {
        arrival: {name: [accuracy(run, problem(arrival, 0)) for run in runs] for name, runs in outcomes.items()}
        for arrival, outcomes in found.items()
    }
    record = {
        "settings": {
            "data": "digits, 1,437 rows to learn from, 360 to test",
            "network": "MLP 64-100-10",
            "optimizer": f"SGD, lr={LR}, fused",
            "batch": BATCH,
            "experiences": EXPERIENCES,
            "passes": PASSES,
            "capacity": CAPACITY,
            "replay_batch": REPLAY_BATCH,
            "alpha": ALPHA,
            "beta": BETA,
            "seeds": options.seeds,
            "fewer_seeds": SLOW,
        },
        "contenders": {name: row(name, found[TIMED][name], scores) for name in CONTENDERS},
        "ratios": [compared(*pair, found[TIMED], scores) for pair in RATIOS],
        "same_weights": list(SAME),
    }
    timing.publish("continual", record, text(record))


def row(name: str, runs: list[Outcome], scores: dict[str, dict[str, list[float]]]) -> dict:
    """The figures of one contender."""
    return {
        "step_us": timing.summary([run.step_us for run in runs]),
        "mean_step_us": timing.summary([1e6 * run.seconds / run.steps for run in runs]),
        "steps_per_second": timing.summary([run.steps / run.seconds for run in runs]),
        "processor_step_us": timing.summary([1e6 * run.cpu_seconds / run.steps for run in runs]),
        "steps": runs[0].steps,
        "state_bytes": runs[0].state,
        "accuracy": {arrival: timing.interval(scored[name]) for arrival, scored in scores.items()},
    }


def compared(
    slow: str, fast: str, sense: str, limit: float | None, outcomes: dict[str, list[Outcome]], scores: dict
) -> dict:
    """Ratios of two contenders' times (median step, whole run, processor time), and what the second gains in accuracy, in points."""
    first, second = outcomes[slow], outcomes[fast]
    step = timing.ratio([run.step_us for run in first], [run.step_us for run in second])
    return {
        "of": slow,
        "over": fast,
        "step": step,
        "whole_run": timing.ratio(*([run.seconds / run.steps for run in runs] for runs in (first, second))),
        "processor": timing.ratio(*([run.cpu_seconds / run.steps for run in runs] for runs in (first, second))),
        "target": None if limit is None else f"{sense} {limit:g}",
        "met": None if limit is None else (step["ratio"] >= limit if sense == ">=" else step["ratio"] <= limit),
        "points": {
            arrival: timing.interval([100 * (b - a) for a, b in zip(scored[slow], scored[fast], strict=False)])
            for arrival, scored in scores.items()
        },
    }


def text(record: dict) -> str:
    """Both tables in Markdown."""
    rows = []
    for name, found in record["contenders"].items():
        rows.append(
            [
                name,
                spread(found["step_us"], 0),
                f"{found['mean_step_us']['median']:,.0f}",
                f"{found['steps_per_second']['median']:,.0f}",
                *(plus_minus(found["accuracy"][arrival], 100) for arrival in ARRIVALS),
                f"{found['state_bytes'] / 1000:,.0f} kB",
            ]
        )
    head = [
        "",
        "step, µs (quartiles)",
        "whole run, µs a step",
        "steps/s",
        *(f"accuracy %, {how}" for how in ARRIVALS.values()),
        "state",
    ]
    first = timing.table(head, rows)
    rows = []
    for pair in record["ratios"]:
        step = {"median": pair["step"]["ratio"], "low": pair["step"]["low"], "high": pair["step"]["high"]}
        rows.append(
            [
                f"{pair['of']} / {pair['over']}",
                spread(step, 2),
                f"{pair['whole_run']['ratio']:.2f}",
                f"{pair['processor']['ratio']:.2f}",
                "" if pair["target"] is None else f"{pair['target']} {'met' if pair['met'] else 'missed'}",
                *(plus_minus(pair["points"][arrival], 1, "+") for arrival in ARRIVALS),
            ]
        )
    points = [f"points of accuracy won, {how}" for how in ARRIVALS.values()]
    return f"{first}\n\n{timing.table(['ratio of times', 'step (quartiles)', 'whole run', 'processor time', 'target', *points], rows)}"


def spread(found: dict[str, float], digits: int) -> str:
    """median (low-high)."""
    return f"{found['median']:,.{digits}f} ({found['low']:,.{digits}f}-{found['high']:,.{digits}f})"


def plus_minus(found: dict[str, float], scale: float, sign: str = "") -> str:
    """mean ± half the width of the interval."""
    return f"{scale * found['mean']:{sign}.1f} ± {scale * found['half']:.1f}" if len(found["values"]) > 1 else ""


if __name__ == "__main__":
    main()
