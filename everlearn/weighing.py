"""The verb `memory`: what learning one batch takes, learner by learner."""

from dataclasses import asdict
from pathlib import Path

from everlearn.console import console, print_json, say

SHORT = (
    "learner",
    "",
    "param.",
    "trained",
    "activ.",
    "formula",
    "masks",
    "optim.",
    "total",
    "rows",
    "replay",
)  # for HEADS, in 80 columns
LEGEND = """MB. activ.: what is kept for the backward pass; formula: what the method needs of it, as published (plain autograd keeps more);
total: parameters and activations; rows: that the replay memory holds."""


def memory(
    learners: str | list[str],
    data: str = "corruptions(digits(side=32))",
    model: str = "auto",
    rows: int = 64,
    seed: int = 0,
    *,
    json: bool,
) -> int:
    """Weigh what learning one batch takes: weights, activations kept for the backward pass, optimiser state, replay.

    Args:
        learners: call strings, separated by commas, such as "tent, ecotta(partitions=5), replay(capacity=500)"
        data: the stream whose rows are learned, such as corruptions(digits(side=32)), or a data set's name
        model: the network that every learner trains, such as "resnet18(width=8)" or mymodule:build
        rows: of the batch
        seed: seeds network and learner
    """
    from everlearn.comparison.job import reach
    from everlearn.comparison.weighing import weigh
    from everlearn.measure.activation_memory import memory_cells

    reach(["", str(Path.cwd())])
    reports = weigh(learners, data, model=model, rows=rows, seed=seed)
    if json:
        return print_json([{**asdict(report), "total": report.total} for report in reports])
    from rich.table import Table

    table = Table(
        box=None, padding=(0, 1, 0, 0), title_justify="left", title=f"{model} on {data}, batches of {reports[0].rows}"
    )
    for head in filter(None, SHORT):
        number = head != "learner"
        table.add_column(
            head, justify="right" if number else "left", no_wrap=number, overflow="fold", min_width=None if number else 17
        )
    for report in reports:
        table.add_row(*[cell for short, cell in zip(SHORT, memory_cells(report), strict=True) if short])
    console().print(table)
    say(LEGEND)
    return 0
