"""A folder held by one process alone, for as long as a block runs. The lock is the kernel's, so a killed process leaves none behind."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from everlearn.core.errors import StateError

LOCK = ".lock"  # the file in the folder that is locked


@contextmanager
def held(place: Path, instead: str) -> Iterator[Path]:
    """The folder, made where there is none. instead: what to do where another process holds it, for the message.

    Raises StateError where it cannot be made or is held.

    >>> import tempfile
    >>> with held(Path(tempfile.mkdtemp(), "new"), "choose another --folder") as place:
    ...     sorted(item.name for item in place.iterdir())
    ['.lock']
    """
    with _opened(place) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError(f"{place} is in use by another process; wait for it, or {instead}.") from error
        yield place


@contextmanager
def in_turn(place: Path) -> Iterator[Path]:
    """The folder, made where there is none; another process that wants it waits until the block ends.

    Raises StateError where it cannot be made.
    """
    with _opened(place) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def _opened(place: Path) -> IO[str]:
    try:
        place.mkdir(parents=True, exist_ok=True)
        return open(place / LOCK, "w")
    except OSError as error:
        raise StateError(f"cannot use the folder {place}: {error.strerror}.") from error
