"""The verb `memory`: what learning one batch takes, learner by learner.

Each learner is brought to where it learns: known changes are announced, some labelled rows of the stream train it, and one that adapts
without labels is deployed by these rows without theirs. Then they are learned once more, and that is weighed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from everlearn.console import console, print_json, say
from everlearn.core.errors import ArgumentError, DataError, check_count
from everlearn.core.events import Batch, Boundary, join
from everlearn.core.events import rows as rows_of
from everlearn.core.learner import Adapter, Learner
from everlearn.core.stream import Stream
from everlearn.measure.activation_formula import FLOAT, formula, sizes
from everlearn.measure.activation_memory import MemoryReport, memory_cells, memory_report
from everlearn.measure.contents import networks

DATA = "corruptions(digits(side=32))"
LESSONS = (
    200  # steps with labels at the most, until most answers are sure: learners that leave out others would take no step
)
SURE = 0.9  # probability of an answer
LOOKS = 8  # batches until a learner that trains weights has taken a step; those that step once in a while take no more
SCHEMES = {"bn_stats": "bn_stats", "tent": "tent", "eata": "tent", "cotta": "cotta", "fine_tune": "full"}
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
    data: str = DATA,
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


def weigh(
    learners: str | Sequence[str], data: str = DATA, *, model: str = "auto", rows: int = 64, seed: int = 0
) -> list[MemoryReport]:
    """What learning one batch takes, in bytes, for each learner; the arguments are those of `everlearn memory`.

    A learner that needs no answers is weighed as it adapts, any other as it learns from answers. Where one steps once in several
    batches, a batch with a step is weighed. Raises SpecError, ArgumentError, DataError.

    >>> first, second = weigh("tent, fine_tune", model="conv4(widths=(4, 4))", rows=16)
    >>> first.name, first.trained, first.activations < second.activations
    ('tent()', 64, True)
    """
    from everlearn.comparison.catalog import build_stream, stream_text
    from everlearn.core.spec import split_list

    check_count("memory", "rows", rows)
    named = split_list(learners) if isinstance(learners, str) else list(learners)
    if not named:
        raise ArgumentError('memory: no learner was named; try "tent, fine_tune".')
    stream = build_stream(stream_text(data), seed)
    labelled, begin = _labelled(stream, rows)
    return [_weighed(text, stream, labelled, begin, model, seed) for text in named]


def _labelled(stream: Stream, rows: int) -> tuple[Batch, int]:
    """The first labelled rows of a stream, so many, and the number of the event where they begin."""
    begin, x, y = 0, None, None
    for index in range(len(stream)):
        event = stream[index]
        if not isinstance(event, Batch) or event.y is None:
            continue
        begin = index if x is None else begin
        x = event.x if x is None else join(x, event.x)
        y = event.y if y is None else torch.cat([y, event.y])
        if len(y) >= rows:
            break
    if y is None:
        raise DataError(f"memory: {stream.name} has no labelled batch, so no learner can be brought to where it learns.")
    return Batch(rows_of(x, slice(0, rows)), y[:rows]), begin


def _weighed(text: str, stream: Stream, labelled: Batch, begin: int, model: str, seed: int) -> MemoryReport:
    from everlearn.comparison.catalog import build_learner

    learner = build_learner(text, stream, model, seed)
    for event in (stream[index] for index in range(begin)):
        if isinstance(event, Boundary):
            learner.boundary(event)
    adapts = isinstance(learner, Adapter)
    batch = Batch(labelled.x) if adapts else labelled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few source rows: no answer is wanted here
        for lesson in range(LESSONS if adapts else 1):
            learner.update(labelled)
            if lesson % 10 == 9 and learner.predict(labelled.x).softmax(1).amax(1).median() > SURE:
                break
        counted = _counted(learner, labelled)  # before it is deployed and frozen
        for _ in range(LOOKS):
            learner.adapt(batch.x) if adapts else learner.update(batch)
            report = memory_report(learner, batch)
            if report.trained or not any(weight.requires_grad for net in networks(learner) for weight in net.parameters()):
                break
    return replace(report, name=text, formula=counted)


def _counted(learner: Learner, batch: Batch) -> int | None:
    """The bytes of activations by the count that is published for a learner, None where none is."""
    if learner.name == "ecotta":
        return FLOAT * len(batch) * sum(x + 2 * o for x, o in learner.adapted.planes(rows_of(batch.x, slice(0, 1))))
    found = networks(learner)
    if learner.name not in SCHEMES or not found:
        return None
    return formula(SCHEMES[learner.name], sizes(found[0], rows_of(batch.x, slice(0, 1))), len(batch)).formula
