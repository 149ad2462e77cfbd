"""What learning one batch takes, learner by learner: `weigh("tent, fine_tune")`.

Each learner is brought to where it learns: known changes are announced, some labelled rows of the stream train it, and one that adapts
without labels is deployed by these rows without theirs. Then they are learned once more, and that is weighed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from everlearn.comparison.building import build_learner, build_stream
from everlearn.comparison.stream_text import stream_text
from everlearn.comparison.usual_network import usual_network
from everlearn.core.errors import ArgumentError, DataError, check_count
from everlearn.core.events import Batch, Boundary, join
from everlearn.core.events import rows as rows_of
from everlearn.core.learner import Adapter, Learner
from everlearn.core.spec import split_list
from everlearn.core.stream import Stream
from everlearn.measure.activation_formula import FLOAT, formula, sizes
from everlearn.measure.activation_memory import MemoryReport, memory_report
from everlearn.measure.contents import networks

DATA = "corruptions(digits(side=32))"
LESSONS = (
    200  # steps with labels at the most, until most answers are sure: learners that leave out others would take no step
)
SURE = 0.9  # probability of an answer
LOOKS = 8  # batches until a learner that trains weights has taken a step; those that step once in a while take no more
SCHEMES = {"bn_stats": "bn_stats", "tent": "tent", "eata": "tent", "cotta": "cotta", "fine_tune": "full"}


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
    check_count("memory", "rows", rows)
    named = split_list(learners) if isinstance(learners, str) else list(learners)
    if not named:
        raise ArgumentError('memory: no learner was named; try "tent, fine_tune".')
    model = usual_network(model, named)
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
