"""SQLite as the log needs it: how it writes, who may serve it, copies while it is in use."""

import sqlite3
import subprocess
import sys

import pytest

from everlearn.core.errors import ServeError, StateError
from everlearn.serve.database import BUSY_MS, SQLite, refuse_network, unavailable


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_connections_write_ahead_and_wait_for_locks(tmp_path, durability, level):
    connection = SQLite(tmp_path / "log.sqlite", durability).connect()

    def pragma(name):
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("busy_timeout")) == ("wal", level, BUSY_MS)


def test_one_process_serves_a_log(tmp_path):
    first, second = SQLite(tmp_path / "log.sqlite"), SQLite(tmp_path / "log.sqlite")
    assert first.lead() and first.lead() and first.holds()
    with pytest.raises(StateError, match="another process serves"):
        second.lead()
    first.close()
    assert second.lead() and not first.holds()


def test_a_killed_process_lets_go_of_its_log(tmp_path):
    code = f"""
from everlearn.serve.database import SQLite
import os, signal
SQLite({str(tmp_path / "log.sqlite")!r}).lead()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert SQLite(tmp_path / "log.sqlite").lead()


def test_a_log_that_cannot_be_opened_is_told_in_one_sentence(tmp_path):
    (tmp_path / "log.sqlite").write_bytes(b"this is no database, and long enough to be read as one" * 50)
    with pytest.raises(StateError, match="cannot be opened"):
        SQLite(tmp_path / "log.sqlite").connect()


def test_network_file_systems_are_refused(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\ndisk {tmp_path}/local ext4 rw 0 0\n")
    with pytest.raises(StateError, match="nfs4"):
        refuse_network(tmp_path / "log.sqlite", mounts)
    refuse_network(tmp_path / "local" / "log.sqlite", mounts)
    refuse_network(tmp_path / "log.sqlite", tmp_path / "no such file")


def test_a_backup_holds_what_was_committed_while_another_writes(tmp_path):
    database = SQLite(tmp_path / "log.sqlite")
    writer = database.connect()
    writer.execute("CREATE TABLE t (n INTEGER)")
    writer.execute("INSERT INTO t VALUES (1)")
    database.begin(writer)
    writer.execute("INSERT INTO t VALUES (2)")
    database.backup(tmp_path / "copy.sqlite")
    writer.execute("COMMIT")
    assert sqlite3.connect(tmp_path / "copy.sqlite").execute("SELECT n FROM t").fetchall() == [(1,)]


def test_a_fault_becomes_a_refusal_that_may_be_tried_again():
    refusal = unavailable(sqlite3.OperationalError("database or disk is full"))
    assert isinstance(refusal, ServeError)
    assert (refusal.code, refusal.status, refusal.retry_after) == ("log_unavailable", 503, 1.0)
    assert "disk is full" in str(refusal)
