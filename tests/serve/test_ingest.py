"""Groups of requests become rows: each wholly or not at all, beside a slow twin that writes one row after the other."""

import json
import random

import pytest

from everlearn.core.errors import ServeError
from everlearn.serve.database import SQLite
from everlearn.serve.ingest import add_answers, add_inputs, hashed
from everlearn.serve.records import Ask, Told
from everlearn.serve.tables import tables


@pytest.fixture
def connection(tmp_path):
    database = SQLite(tmp_path / "log.sqlite")
    connection = database.connect()
    for statement in tables(database):
        connection.execute(statement)
    yield connection
    connection.close()


def asked(*ids, x=b"x"):
    return [(Ask(id, x), {"answer": id}, 3) for id in ids]


def stored(connection):
    return connection.execute("SELECT seq, kind, id, revision, y FROM event ORDER BY seq").fetchall()


def test_rows_of_a_group_are_numbered_in_order(connection):
    (first, second), joined = add_inputs(connection, [asked("a", "b"), asked("c")], 1.0)
    assert [(row.id, row.seq, row.version, row.output) for row in (*first, *second)] == [
        ("a", 1, 3, {"answer": "a"}), ("b", 2, 3, {"answer": "b"}), ("c", 3, 3, {"answer": "c"}),
    ]  # fmt: skip
    assert joined == 0


def test_an_id_asked_again_gets_its_first_answer_in_the_same_group_or_a_later_one(connection):
    (first, second), _ = add_inputs(connection, [asked("a"), [(Ask("a", b"x"), {"answer": "other"}, 9)]], 1.0)
    ((third,),), _ = add_inputs(connection, [[(Ask("a", b"x"), {"answer": "third"}, 11)]], 2.0)
    assert [(row.output, row.version, row.seq, row.duplicate) for row in (*first, *second, third)] == [
        ({"answer": "a"}, 3, 1, False), ({"answer": "a"}, 3, 1, True), ({"answer": "a"}, 3, 1, True),
    ]  # fmt: skip
    assert len(stored(connection)) == 1


def test_a_request_with_one_conflict_is_stored_not_at_all_and_the_others_are(connection):
    add_inputs(connection, [asked("a")], 1.0)
    results, _ = add_inputs(connection, [asked("b"), [*asked("c", "d"), *asked("a", x=b"y")], asked("e")], 2.0)
    assert isinstance(results[1], ServeError) and results[1].code == "conflict"
    assert [row[2] for row in stored(connection)] == ["a", "b", "e"]
    assert [row.seq for row in (*results[0], *results[2])] == [2, 3]


def test_a_request_that_contradicts_itself_leaves_its_ids_free(connection):
    results, _ = add_inputs(connection, [[*asked("a"), *asked("a", x=b"y")], asked("a", x=b"z")], 1.0)
    assert isinstance(results[0], ServeError)
    assert (results[1][0].id, results[1][0].duplicate) == ("a", False)


def test_answers_that_waited_follow_their_prediction(connection):
    results = add_answers(connection, [([Told("a", 1), Told("a", 2, revision=1)], None), ([Told("b", 0)], None)], 1.0)
    assert [receipt.seq for result in results for receipt in result] == [None, None, None]
    _, joined = add_inputs(connection, [asked("b", "a")], 2.0)
    assert joined == 3
    assert [row[1:] for row in stored(connection)] == [
        ("input", "b", 0, None), ("input", "a", 0, None), ("answer", "a", 0, "1"), ("answer", "a", 1, "2"), ("answer", "b", 0, "0"),
    ]  # fmt: skip
    assert connection.execute("SELECT count(*) FROM early").fetchone() == (0,)


def test_answers_are_taken_once_and_contradictions_refused(connection):
    add_inputs(connection, [asked("a", "b")], 1.0)
    results = add_answers(
        connection, [([Told("a", 1)], None), ([Told("a", 1)], None), ([Told("b", 1), Told("a", 2)], None)], 2.0
    )
    assert [(receipt.seq, receipt.duplicate) for result in results[:2] for receipt in result] == [(3, False), (3, True)]
    assert isinstance(results[2], ServeError) and results[2].code == "conflict"
    assert [row[2] for row in stored(connection) if row[1] == "answer"] == ["a"]
    assert add_answers(connection, [([Told("a", 2, revision=1)], None)], 3.0)[0][0].seq == 4


def test_early_answers_too_are_taken_once(connection):
    results = add_answers(connection, [([Told("a", 1)], None), ([Told("a", 1)], None), ([Told("a", 2)], None)], 1.0)
    assert [result[0].duplicate for result in results[:2]] == [False, True]
    assert isinstance(results[2], ServeError)


def test_an_answer_after_the_horizon_is_refused(connection):
    add_inputs(connection, [asked("a", "b")], 0.0)
    late, punctual = add_answers(connection, [([Told("a", 1)], 10.0), ([Told("b", 1)], 30.0)], 20.0)
    assert (late.code, late.status) == ("horizon_passed", 410)
    assert punctual[0].seq == 3


def test_a_closed_id_takes_no_answer_whatever_the_horizon_says_now(connection):
    add_inputs(connection, [asked("a")], 0.0)
    sql = "INSERT INTO event (kind, id, revision, hash, y, created, source) VALUES ('answer', 'a', 0, ?, '0.0', 1.0, 'default')"
    connection.execute(sql, (hashed(b"0.0"),))
    assert add_answers(connection, [([Told("a", 1.0)], None)], 2.0)[0].code == "horizon_passed"


@pytest.mark.parametrize("seed", range(30))
def test_groups_give_what_one_request_after_the_other_gives(connection, seed):
    """The twin is a dict: the first body of an id stands, another is refused, and nothing of a refused request is kept."""
    chance = random.Random(seed)
    inputs, answers = {}, {}
    for _ in range(12):
        requests = [
            [(chance.choice("abcdefgh"), chance.choice([b"1", b"2", b"2"])) for _ in range(chance.randint(1, 3))]
            for _ in range(3)
        ]
        given, _ = add_inputs(connection, [[(Ask(id, x), {}, 0) for id, x in rows] for rows in requests], 1.0)
        for rows, result in zip(requests, given, strict=True):
            trial = dict(inputs)
            good = all(trial.setdefault(id, x) == x for id, x in rows)
            assert good != isinstance(result, ServeError)
            inputs = trial if good else inputs
        requests = [
            [(chance.choice("abcdefgh"), chance.choice([1, 2, 2])) for _ in range(chance.randint(1, 3))] for _ in range(3)
        ]
        given = add_answers(connection, [([Told(id, y) for id, y in rows], None) for rows in requests], 1.0)
        for rows, result in zip(requests, given, strict=True):
            trial = dict(answers)
            good = all(trial.setdefault(id, y) == y for id, y in rows)
            assert good != isinstance(result, ServeError)
            answers = trial if good else answers
    rows = connection.execute("SELECT kind, id, x, y FROM event").fetchall()
    waiting = connection.execute("SELECT id, y FROM early").fetchall()
    assert {id: bytes(x) for kind, id, x, _ in rows if kind == "input"} == inputs
    joined = {id: json.loads(y) for kind, id, _, y in rows if kind == "answer"}
    assert joined | {id: json.loads(y) for id, y in waiting} == answers
    assert set(joined) == set(inputs) & set(answers)
    assert len(rows) == len(inputs) + len(joined)
