"""What several arms of a study share for one seed, a trained network say: made once, kept beside the cells, read by every process.

    state = shared("trained", seed, make=train)

Cells are measured in several processes, and each would train the same network again. Bits do not depend on who makes the state:
what is read back equals what `make` gave. Outside a running study nothing is kept.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everlearn.core.state import newest_snapshot, write_snapshot

_place: Path | None = None


def keep_in(folder: Path | None) -> None:
    """Keep in a folder, from now on and in this process, what is shared; None: keep nothing."""
    global _place
    _place = folder


def forget(folder: Path) -> None:
    """Remove what is kept in a folder, so that it is made anew."""
    shutil.rmtree(folder, ignore_errors=True)


def shared(*key: str | int, make: Callable[[], Any]) -> Any:
    """The state (a tree of tensors and JSON scalars) of a key: read where it is kept, else made and kept."""
    if _place is None:
        return make()
    folder = _place / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    with _waited_for(folder):
        kept = newest_snapshot(folder)
        if kept is not None:
            return kept[1]
        made = make()
        write_snapshot(folder, 0, made)
        return made


@contextmanager
def _waited_for(folder: Path) -> Iterator[None]:
    """Alone with a folder: a second process waits for what the first is making. The kernel frees the lock of a killed one."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
