"""One look for each learner, the same in every chart: a colour, a dash and a point shape, by its role in the comparison.

Colours are names of CSS variables, so that light, dark and print are decided by the style sheet alone. Hues repeat after six
learners with another dash, so no two learners look the same; the tests check that hues stay apart for colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.measure.report.reading import Entry, role
from everlearn.measure.report.reading import plain as is_plain

HUES = 6
DASHES = ([], [7, 3], [2, 2], [9, 3, 2, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")


@dataclass(frozen=True)
class Look:
    """color: a CSS colour; dash: lengths of strokes and gaps, [] for an unbroken line; shape: of points."""

    color: str
    dash: list[int]
    shape: str


def looks(learners: Sequence[Entry], first: Sequence[str | None] = ()) -> dict[str, Look]:
    """{label: look}. The frozen model is grey, yardsticks are in the ink of the text, all others have hues.

    first: labels that take the first hues, so that those which stand side by side in charts never share one.
    """
    order = {label: number for number, label in enumerate(dict.fromkeys(first))}
    found: dict[str, Look] = {}
    hued = yardsticks = frozen = 0
    for entry in sorted(learners, key=lambda entry: order.get(entry["label"], len(order))):
        part = role(entry)
        if part == "frozen":
            found[entry["label"]] = Look("var(--frozen)", DASHES[frozen % len(DASHES)], "circle")
            frozen += 1
        elif part == "reference":
            found[entry["label"]] = Look("var(--ink)", DASHES[(2 + yardsticks) % len(DASHES)], "cross")
            yardsticks += 1
        elif part != "failed":
            lap, hue = divmod(hued, HUES)
            shape = SHAPES[(hue + lap) % len(SHAPES)]
            found[entry["label"]] = Look(f"var(--hue-{hue + 1})", DASHES[lap % len(DASHES)], shape)
            hued += 1
    return found


def looks_of(learners: Sequence[Entry], verdict: Mapping[str, Any]) -> dict[str, Look]:
    """The looks of a record: the learners that its verdict names, and plain fine-tuning, take the first hues."""
    plain = [entry["label"] for entry in learners if is_plain(entry)]
    return looks(learners, [verdict["learner"], verdict["runner_up"], *plain])
