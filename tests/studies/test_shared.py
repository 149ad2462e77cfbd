"""What arms share: made once, equal to the bit when read back, made anew once it is forgotten."""

from itertools import count

import pytest
import torch

from everlearn.core.state import same
from everlearn.studies.shared import forget, keep_in, shared


@pytest.fixture
def kept(tmp_path):
    keep_in(tmp_path / "shared")
    yield tmp_path / "shared"
    keep_in(None)


def counted():
    """A maker that tells how often it was asked."""
    asked = count(1)

    def make():
        time = next(asked)
        return {"weight": torch.full((2, 3), time / 3), "seen": time}

    return make


def test_a_state_is_made_once_for_each_key(kept):
    make = counted()
    first = shared("trained", 0, make=make)
    again = shared("trained", 0, make=make)
    assert same(first, again) and again["seen"] == 1
    assert shared("trained", 1, make=make)["seen"] == 2
    assert shared("trained", "1", make=make)["seen"] == 3


def test_what_is_forgotten_is_made_again(kept):
    make = counted()
    shared("trained", 0, make=make)
    forget(kept)
    assert shared("trained", 0, make=make)["seen"] == 2
    forget(kept.parent / "never was")


def test_outside_a_study_nothing_is_kept(tmp_path):
    make = counted()
    assert shared("trained", 0, make=make)["seen"] == 1
    assert shared("trained", 0, make=make)["seen"] == 2


def test_a_second_process_waits_for_what_the_first_is_making(kept):
    """The lock is held while a state is made, by the kernel's word."""
    import fcntl

    def make():
        (place,) = kept.iterdir()
        with open(place / ".lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return {"seen": 1}

    assert shared("trained", 0, make=make)["seen"] == 1
    (place,) = kept.iterdir()
    with open(place / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
