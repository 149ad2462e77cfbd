"""The tables: made once, and what they refuse."""

import sqlite3

import pytest

from everlearn.serve.database import SQLite
from everlearn.serve.tables import FORMAT, tables

NAMES = {"event", "early", "step", "version", "branch", "decision", "alarm", "point", "command", "setting"}


@pytest.fixture
def connection(tmp_path):
    database = SQLite(tmp_path / "log.sqlite")
    connection = database.connect()
    for _ in range(2):  # made where they are missing, left alone where they stand
        for statement in tables(database):
            connection.execute(statement)
    yield connection
    connection.close()


def test_every_table_is_there(connection):
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    assert {name for (name,) in found} == NAMES and FORMAT == "1"


INSERTS = {
    "one event for each id, kind and revision": (
        "INSERT INTO event (kind, id, revision, hash, created) VALUES ('answer', 'a', 0, x'00', 1.0)"
    ),
    "one early answer for each id and revision": "INSERT INTO early VALUES ('a', 0, x'00', '1', 1.0)",
    "one step for each number of a branch": "INSERT INTO step VALUES (0, 1, 1, 5, 'full', 1.0)",
    "one alarm of a kind at a number": (
        "INSERT INTO alarm (time, seq, kind, value, limit_value, message) VALUES (1.0, 5, 'lag', 1.0, 0.5, 'm')"
    ),
    "one branch of a number": "INSERT INTO branch VALUES (1, 0, 0, '[[], []]', 0, 1.0)",
    "one version of a number": (
        "INSERT INTO version VALUES (1, 0, 0, 2, 10, 'sha', 'active', 1.0, NULL, NULL, 0, 10, 'why', 1)"
    ),
}


@pytest.mark.parametrize("rule", INSERTS)
def test_a_row_may_not_come_twice(rule, connection):
    connection.execute(INSERTS[rule])
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(INSERTS[rule])


def test_numbers_of_events_are_never_used_twice(connection):
    sql = INSERTS["one event for each id, kind and revision"]
    connection.execute(sql)
    connection.execute("DELETE FROM event")
    connection.execute(sql)
    assert connection.execute("SELECT seq FROM event").fetchall() == [(2,)]
