"""Published index lists of few-shot streams: a folder of session_1.txt, session_2.txt, ..., one row number or image in a line.

An image is named by a path whose last parts are its path below the folder of the data set, or by its file name where one image only has it.

Lists pin down which rows the later sessions have, so that figures can be held against published ones, which rest on one draw.

Reference: Tao et al. (2020), Few-shot class-incremental learning, arXiv 2004.10956.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.dataset import Data

LIST = re.compile(r"session_(\d+)\.txt")


def listed(train: Data, folder: Path) -> Tensor:
    """(rows,) the session in which a row comes by the lists of a folder, -1 for none.

    Where session_1.txt is missing, the base session has all rows of the classes that no list has. Raises ArgumentError, DataError.
    """
    if not folder.is_dir():
        raise ArgumentError(f"few_shot: index must be a folder of session_1.txt, session_2.txt, ..., got {str(folder)!r}.")
    found = {int(match[1]): path for path in folder.iterdir() if (match := LIST.fullmatch(path.name))}
    last = max(found, default=0)
    missing = [number for number in range(2, last + 1) if number not in found]
    if last < 2 or missing or 0 in found:
        lacks = f"session_{missing[0] if missing else 2}.txt" if 0 not in found else "a count from session_1.txt"
        raise DataError(f"few_shot: the index folder {folder} lacks {lacks}; lists are numbered from 1, the base session.")
    session = torch.full((len(train),), -1)
    places = _by_path(train.files)
    for number in sorted(found):
        rows = torch.tensor(_row_numbers(found[number], len(train), places))
        if bool((session[rows] >= 0).any()) or len(rows.unique()) < len(rows):
            raise DataError(f"{found[number]}: a row number stands twice, here or in an earlier list. Leave it in one list.")
        session[rows] = number - 1
    if 1 not in found:
        session[~torch.isin(train.y, train.y[session > 0])] = 0
    return session


def listed_classes(
    train: Data, chosen: Tensor, base_classes: int, way: int, shot: int, sessions: int, index: str
) -> list[tuple[int, ...]]:
    """The classes of each listed session, where they agree with the arguments and no class comes twice.

    chosen: what `listed` gives; index: the folder, for messages. Raises ArgumentError for an argument that differs, DataError.
    """
    groups: list[tuple[int, ...]] = []
    seen: set[int] = set()
    last = int(chosen.max())
    _agree("sessions", last, sessions, index)
    for number in range(last + 1):
        labels, counts = train.y[chosen == number].unique(return_counts=True)
        group = tuple(labels.tolist())
        if again := seen & set(group):
            raise DataError(
                f"few_shot: in {index} session {number + 1} has rows of class {train.classes[min(again)]!r}, which an earlier "
                "one brought. Each class belongs to one session."
            )
        _agree("way" if number else "base_classes", len(group), way if number else base_classes, index)
        if number:
            for count in counts.tolist():
                _agree("shot", count, shot, index)
        seen |= set(group)
        groups.append(group)
    return groups


def _by_path(files: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """({path: row}, {file name: row}) of the images of a data set; file names that several images have are left out."""
    names: dict[str, int] = {}
    for row, file in enumerate(files):
        name = file.rpartition("/")[2]
        names[name] = -1 if name in names else row
    return {file: row for row, file in enumerate(files)}, {name: row for name, row in names.items() if row >= 0}


def _row_of(text: str, places: tuple[dict[str, int], dict[str, int]]) -> int | None:
    """The row of the image whose path a line ends with, or whose file name it is."""
    paths, names = places
    parts = text.split("/")
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    found = next((paths[tail] for tail in tails if tail in paths), None)
    return names.get(text) if found is None else found


def _row_numbers(path: Path, count: int, places: tuple[dict[str, int], dict[str, int]]) -> list[int]:
    """The numbers of the rows in a file, one in a line."""
    numbers = []
    for place, line in enumerate(path.read_text(encoding="utf8", errors="replace").splitlines(), start=1):
        text = line.strip()
        row = _row_of(text, places)
        if row is not None:
            numbers.append(row)
            continue
        if text and not (text.isascii() and text.isdigit() and int(text) < count):
            images = " or the path of one of its images" if places[0] else ""
            raise DataError(
                f"{path}:{place}: a row number 0..{count - 1} of the training part{images} is expected, got {text!r}."
            )
        numbers += [int(text)] if text else []
    if not numbers:
        raise DataError(f"{path}: it lists no row. Put one row number in a line.")
    return numbers


def _agree(argument: str, found: int, given: int, index: str) -> None:
    """Refuse an argument that the lists do not bear out."""
    if found != given:
        raise ArgumentError(f"few_shot: {argument}={given} differs from the lists of {index}. Use {argument}={found}.")
