"""One process at a time in a folder."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from everlearn.core.errors import StateError
from everlearn.core.lock import LOCK, held, in_turn

HOLDER = """
import pathlib, sys, time
from everlearn.core.lock import held
with held(pathlib.Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_made_and_held_until_the_block_ends(tmp_path):
    place = tmp_path / "a" / "b"
    with held(place, "choose another") as inside:
        assert inside == place and (place / LOCK).exists()
        with (
            pytest.raises(StateError, match="b is in use by another process; wait for it, or choose another"),
            held(place, "choose another"),
        ):
            pass
    with held(place, "choose another"):
        pass


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(ValueError), held(tmp_path, "wait"):
        raise ValueError
    with held(tmp_path, "wait"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StateError, match="in use"), held(tmp_path, "wait"):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with held(tmp_path, "wait"):
        pass


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot use the folder"), held(tmp_path / "file", "wait"):
        pass


def test_who_waits_comes_in_when_the_block_ends(tmp_path):
    order, began = [], threading.Event()

    def second():
        began.set()
        with in_turn(tmp_path / "new"):
            order.append("second")

    other = threading.Thread(target=second)
    with in_turn(tmp_path / "new") as inside:
        other.start()
        began.wait()
        other.join(0.2)
        order.append("first")
        assert inside == tmp_path / "new" and other.is_alive()
    other.join(10)
    assert order == ["first", "second"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot use the folder"), in_turn(tmp_path / "file"):
        pass
