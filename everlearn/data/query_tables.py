"""Twenty questions from a table: a CSV whose rows are objects and whose columns are questions.

    yes, no, ? (and y, n, true, false, 1, 0)    P(yes) = 1 - flip, flip, 1/2
    numbers in 0..1                             P(yes) itself, within floor..1 - floor
    other numbers (strengths)                   P(yes) = clip(sigmoid((s - centre) / scale), floor, 1 - floor)

References: Hu et al. (2018), Playing 20 question game with policy-based reinforcement learning, arXiv 1808.07645; Lampert, Nickisch &
Harmeling (2009), Learning to detect unseen object classes by between-class attribute transfer (animals and attributes).
"""

import csv
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_range
from everlearn.data.network import network_file
from everlearn.data.query_families import twenty_questions
from everlearn.data.query_problem import QueryProblem

YES, NO, UNKNOWN = ("yes", "y", "true", "t", "1"), ("no", "n", "false", "f", "0"), ("", "?", "unknown", "na", "nan")
ANIMALS_SCALE = 8.0


def question_table(
    path: str,
    horizon: int = 20,
    *,
    flip: float | None = None,
    noise: float = 0.1,
    centre: float | None = None,
    scale: float | None = None,
    floor: float = 0.05,
    repeat: bool = False,
) -> QueryProblem:
    """The problem of a CSV: first column objects, others questions, cells yes/no, probabilities or strengths (one kind in a file).

    flip: None plays with probabilities, a number with sides of 1/2 that are wrong so often; noise: how often a yes or no of the table
    is answered otherwise; centre, scale: of strengths, their mean and 8 % of their range where left out; floor: no answer is more
    certain than this. A horizon beyond the questions is cut to them. Raises DataError that names the line and the column.
    """
    objects, questions, cells = read_cells(Path(path))
    check_range("question_table", "noise", noise, 1e-6, 0.5 - 1e-6)
    check_range("question_table", "floor", floor, 1e-6, 0.5 - 1e-6)
    table = _chances(Path(path), cells, questions, noise, centre, scale, floor)
    same = _twins(table if flip is None else (table > 0.5).double())
    if same is not None:
        first, second = (objects[row] for row in same)
        raise DataError(
            f"{path}: {first!r} and {second!r} have the same answers to all questions. Add a question that differs, or merge them."
        )
    horizon = horizon if repeat else min(horizon, len(questions))
    problem = twenty_questions(table, horizon, flip=flip, objects=objects, questions=questions, repeat=repeat)
    given = {
        "flip": (flip, None),
        "noise": (noise, 0.1),
        "centre": (centre, None),
        "scale": (scale, None),
        "floor": (floor, 0.05),
    }
    texts = "".join(f", {key}={value!r}" for key, (value, usual) in given.items() if value != usual)
    return replace(
        problem, spec=f"question_table({str(path)!r}, horizon={horizon}{texts}{', repeat=True' if repeat else ''})"
    )


def animals(horizon: int = 20, *, flip: float | None = None, repeat: bool = False) -> QueryProblem:
    """Guess one of 50 animals by 85 attributes, with people's strengths of association (0..100) as probabilities of yes.

    P(yes) = clip(sigmoid((s - 20.805) / 8), .05, .95); flip: as for question_table. Raises DataError where EVERLEARN_DATA has no
    animals_attributes. Reference: Lampert, Nickisch & Harmeling (2009), CVPR.
    """
    path = network_file("animals_attributes", "strength.csv")
    problem = question_table(str(path), horizon, flip=flip, scale=ANIMALS_SCALE, repeat=repeat)
    texts = (f", flip={flip!r}" if flip is not None else "") + (", repeat=True" if repeat else "")
    return replace(problem, spec=f"animals(horizon={problem.horizon}{texts})")


def read_cells(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], list[list[str]]]:
    """(objects, questions, cells as text) of a CSV; refuses ragged lines, names that come twice, and tables without two of each."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV: {getattr(error, 'strerror', None) or error}.") from error
    numbered = [(number, [cell.strip() for cell in line]) for number, line in enumerate(lines, start=1) if any(line)]
    if len(numbered) < 3 or len(numbered[0][1]) < 3:
        raise DataError(f"{path}: a header and two objects with two questions are needed at least: one row an object.")
    (_, header), body = numbered[0], numbered[1:]
    for number, line in body:
        if len(line) != len(header):
            raise DataError(f"{path}:{number}: {len(header)} cells are expected, as in the header, got {len(line)}.")
    for what, names in (("question", header[1:]), ("object", [line[0] for _, line in body])):
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None or "" in names:
            found = f"{twice!r} stands twice" if twice is not None and twice else "one has no name"
            raise DataError(f"{path}: each {what} needs a name of its own; {found}.")
    return tuple(line[0] for _, line in body), tuple(header[1:]), [line[1:] for _, line in body]


def _chances(
    path: Path,
    cells: list[list[str]],
    questions: tuple[str, ...],
    noise: float,
    centre: float | None,
    scale: float | None,
    floor: float,
) -> Tensor:
    """(objects, questions) P(yes)."""
    words = {**dict.fromkeys(YES, 1.0 - noise), **dict.fromkeys(NO, noise), **dict.fromkeys(UNKNOWN, 0.5)}
    if all(cell.lower() in words for row in cells for cell in row):
        return torch.tensor([[words[cell.lower()] for cell in row] for row in cells], dtype=torch.float64)
    rows = [
        [_number(path, number, name, cell) for name, cell in zip(questions, row, strict=True)]
        for number, row in enumerate(cells)
    ]
    values = torch.tensor(rows, dtype=torch.float64)
    known = values[~values.isnan()]
    low, high = float(known.min()), float(known.max())
    if low >= 0.0 and high <= 1.0:
        chance = values
    else:
        centre = float(known.mean()) if centre is None else centre
        scale = 0.08 * (high - low) if scale is None else scale
        if not (math.isfinite(centre) and scale > 0):
            raise ArgumentError(f"question_table: scale must be above 0 and centre finite, got {scale!r} and {centre!r}.")
        chance = torch.sigmoid((values - centre) / scale)
    return torch.where(chance.isnan(), 0.5, chance.clamp(floor, 1.0 - floor))


def _number(path: Path, row: int, question: str, cell: str) -> float:
    if cell.lower() in UNKNOWN:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise DataError(
            f"{path}: object {row + 1}, question {question!r}: {cell!r} is no number and the table has other cells than yes and no. "
            "Use yes, no and ? throughout, or numbers and ? throughout."
        )
    return value


def _twins(table: Tensor) -> tuple[int, int] | None:
    """Two rows that are the same, if there are any."""
    _, group, count = torch.unique(table, dim=0, return_inverse=True, return_counts=True)
    if int(count.max()) == 1:
        return None
    first, second = (group == int(count.argmax())).nonzero()[:2, 0].tolist()
    return first, second
