"""One look for each learner, the same in every chart: a colour, a dash and a point shape, by its role in the comparison.

Colours are names of CSS variables, so that light, dark and print are decided by the style sheet alone. Hues repeat after six
learners with another dash, so no two learners look the same; the tests check that hues stay apart for colour-blind readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from everlearn.measure.report.reading import Entry, role

HUES = 6
DASHES = ([], [7, 3], [2, 2], [9, 3, 2, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")


@dataclass(frozen=True)
class Look:
    """color: a CSS colour; dash: lengths of strokes and gaps, [] for an unbroken line; shape: of points."""

    color: str
    dash: list[int]
    shape: str


def looks(learners: Sequence[Entry]) -> dict[str, Look]:
    """{label: look}. The frozen model is grey, yardsticks are in the ink of the text, all others have hues."""
    found: dict[str, Look] = {}
    hued = yardsticks = frozen = 0
    for entry in learners:
        part = role(entry)
        if part == "frozen":
            found[entry["label"]] = Look("var(--frozen)", DASHES[frozen % len(DASHES)], "stroke")
            frozen += 1
        elif part == "reference":
            found[entry["label"]] = Look("var(--ink)", DASHES[(2 + yardsticks) % len(DASHES)], "cross")
            yardsticks += 1
        elif part != "failed":
            dash, hue = divmod(hued, HUES)
            shape = SHAPES[hued % len(SHAPES)]
            found[entry["label"]] = Look(f"var(--hue-{hue + 1})", DASHES[dash % len(DASHES)], shape)
            hued += 1
    return found
