"""The verb that judges a policy on a log: evaluate."""

import platform
from pathlib import Path
from typing import Any

from everlearn.console import console, print_json, say
from everlearn.core.errors import ArgumentError

RUNS = Path("everlearn-runs")


def evaluate(
    log: str,
    policy: str = "uniform()",
    estimators: str = "snips, dr",
    interval: str = "bootstrap",
    model: str | None = None,
    train: float = 0.5,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    folder: str | None = None,
    strict: bool = False,
    masked: int = 0,
    *,
    json: bool,
) -> int:
    """Tell what another policy would have earned, from the log of the one that decided.

    Args:
        log: a log of decisions: .parquet, .jsonl, Vowpal Wabbit's .dsjson, the Open Bandit Dataset, or the exported log of a server
        policy: uniform(), constant(action=2), logged(), or an agent, which is trained on the earlier part of the log
        estimators: some of dm, ips(clip=10), snips, dr, sndr, switch_dr(tau=10), dros(shrinkage=100), mrdr, replay
        interval: bootstrap, bernstein, clopper_pearson or cressie_read
        model: of the reward, ridge or logistic (default: logistic where rewards are 0 or 1)
        train: the part of the log on which an agent is trained; the rest judges it
        draws: resamples of the bootstrap
        level: of the intervals
        seed: of the agent, the folds and the resamples
        folder: where result.json and report.html go (default: everlearn-runs/evaluate-NAME)
        strict: refuse where the log weighs too little for the policy
        masked: how many last columns of x say which actions were on offer, in the log of a server
    """
    from everlearn.core.spec import split_list
    from everlearn.core.state import write_atomic
    from everlearn.data.decision_files import read_decisions
    from everlearn.measure.report.policy_page import write_policy_page

    if not 0.0 < train < 1.0:
        raise ArgumentError(f"evaluate: train must lie between 0 and 1, got {train}; 0.5 is usual.")
    record = judge(
        read_decisions(log, masked=masked or False),
        policy,
        estimators=split_list(estimators),
        interval=interval,
        model=model,
        train=train,
        draws=draws,
        level=level,
        seed=seed,
        strict=strict,
    )
    record["config"] = {"log": log, "policy": policy, "estimators": estimators, "interval": interval, "model": model}
    record["config"] |= {"train": train, "draws": draws, "level": level, "seed": seed}
    place = Path(folder) if folder else RUNS / f"evaluate-{Path(log).stem}"
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(place / "result.json", (_text(record) + "\n").encode())
    write_policy_page(record, place / "report.html")
    if json:
        return print_json(record)
    print_evaluation(record)
    say(f"report: {place / 'report.html'}")
    return 0


def judge(
    log: Any, policy: str, *, train: float = 0.5, seed: int = 0, estimators: Any = ("snips", "dr"), **options: Any
) -> dict:
    """The record of one evaluation: what result.json holds. The further arguments are those of `measure.off_policy.evaluate`."""
    from importlib.metadata import version

    from everlearn.comparison.policies import policy_on
    from everlearn.measure.off_policy import evaluate as estimate

    judged = policy_on(policy, log, train=train, seed=seed)
    chosen = estimators if judged.exact else ("ips",)
    found = estimate(judged.log, judged.probabilities, options.pop("model", None), chosen, seed=seed, **options)
    return {
        "kind": "evaluation",
        "format": 1,
        "policy": policy,
        "log": {"rounds": len(log), "judged": len(judged.log), "trained": judged.trained, "actions": log.actions},
        **found.as_dict(),
        "environment": {"everlearn": version("everlearn"), "python": platform.python_version()},
    }


def print_evaluation(record: dict[str, Any]) -> None:
    """Print the table of an evaluation and its warnings, in words."""
    from rich.table import Table

    from everlearn.measure.report.policy_page import headline, rows_of, warnings_of

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(("estimator", "value", "low", "high", "ess", "max weight")):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows_of(record):
        table.add_row(*row)
    screen = console()
    screen.print(table)
    screen.print(headline(record), highlight=False, markup=False)
    for line in warnings_of(record):
        screen.print(f"! {line}", highlight=False, markup=False)


def _text(record: dict[str, Any]) -> str:
    import json

    return json.dumps(record, indent=1)
