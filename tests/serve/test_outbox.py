"""The outbox by itself: order, bounds, conflicts, several processes, forks, foreign files, and SIGKILL before every statement."""

import os
import sqlite3
import threading
from types import SimpleNamespace

import pytest

from everlearn.core.errors import ArgumentError, ServeError, StateError
from everlearn.serve import outbox as outbox_module
from everlearn.serve.outbox import Outbox

from . import lives

REFUSAL = ServeError("conflict", "told something else", 422)


def item(id, y="cat", revision=0):
    return {"id": id, "y": y, "revision": revision}


def ids(outbox):
    return [piece.id for piece in outbox.oldest(10_000)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "outbox.sqlite"


@pytest.fixture
def outbox(path):
    with Outbox(path) as outbox:
        yield outbox


def test_what_was_put_waits_in_order_until_it_is_removed(outbox):
    assert outbox.empty
    numbers = outbox.put([item("b"), item("a")]) + outbox.put([item("c", y=[1.0, 2.5], revision=3)])
    assert numbers == sorted(numbers)
    assert ids(outbox) == ["b", "a", "c"]
    assert outbox.oldest(10)[2].body == item("c", [1.0, 2.5], 3)
    assert [piece.id for piece in outbox.oldest(2)] == ["b", "a"]
    assert (len(outbox), outbox.empty) == (3, False)
    outbox.remove(numbers[:2])
    assert ids(outbox) == ["c"]


def test_it_is_on_the_disk_for_every_other_process(outbox, path):
    outbox.put([item("a")])
    with Outbox(path) as other:
        assert ids(other) == ["a"]
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert outbox._use(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (2,)  # FULL


def test_the_same_feedback_waits_once_and_another_answer_is_a_conflict(outbox):
    first = outbox.put([item("a")])
    assert outbox.put([item("a")]) == first
    with pytest.raises(ServeError, match=r"says something else\. Send a correction with revision 1") as caught:
        outbox.put([item("b"), item("a", "dog")])
    assert (caught.value.code, caught.value.status) == ("conflict", 422)
    assert ids(outbox) == ["a"]  # all or none
    outbox.put([item("a", "dog", 1)])
    assert [piece.revision for piece in outbox.oldest(9)] == [0, 1]


def test_numbers_are_never_used_twice(outbox):
    (first,) = outbox.put([item("a")])
    outbox.remove([first])
    (second,) = outbox.put([item("a")])
    assert second > first


def test_a_full_outbox_says_so_and_keeps_nothing_of_the_call(path):
    with Outbox(path, limit=3) as outbox:
        outbox.put([item("a"), item("b")])
        with pytest.raises(ServeError, match="takes no more than 3") as caught:
            outbox.put([item("c"), item("d")])
        assert (caught.value.code, caught.value.status) == ("outbox_full", 0)
        assert ids(outbox) == ["a", "b"]
        outbox.put([item("c"), item("a")])
        outbox.refuse(1, REFUSAL)
        with pytest.raises(ServeError, match="full"):
            outbox.put([item("d")])
        outbox.forget([1])
        outbox.put([item("d")])
    with pytest.raises(ArgumentError, match="limit"):
        Outbox(path, limit=0)


def test_what_is_refused_is_kept_with_the_reason(outbox):
    first, second = outbox.put([item("a"), item("b")])
    outbox.refuse(first, REFUSAL)
    outbox.refuse(first, REFUSAL)
    (kept,) = outbox.refused()
    assert (kept.id, kept.body, kept.code, kept.status, kept.detail) == (
        "a",
        item("a"),
        "conflict",
        422,
        "told something else",
    )
    assert ids(outbox) == ["b"]
    outbox.forget([second])
    assert len(outbox.refused()) == 1
    outbox.forget([first])
    assert outbox.refused() == []


def test_one_delivers_at_a_time(outbox, path):
    with Outbox(path) as other:
        with outbox.turn() as mine:
            assert mine
            with other.turn() as theirs, outbox.turn() as again:
                assert not theirs
                assert not again
            other.put([item("a")])  # whoever delivers stops nobody from putting
        with other.turn() as theirs:
            assert theirs


def test_a_turn_ends_with_its_process(outbox):
    def work(say):
        with outbox.turn() as mine:
            say(mine)
            os.kill(os.getpid(), 9)

    assert lives.life(work) == (True, ["True"])
    with outbox.turn() as mine:
        assert mine


def test_threads_share_one_outbox(outbox):
    threads = [
        threading.Thread(target=lambda name=name: [outbox.put([item(f"{name}{step}")]) for step in range(20)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(outbox)) == sorted(f"{name}{step}" for name in "abcd" for step in range(20))


def put_twenty(path, name):
    with Outbox(path) as outbox:
        for step in range(20):
            outbox.put([item(f"{name}{step}")])


def test_a_file_that_another_process_makes_between_two_looks_is_an_outbox(path):
    """While this one reads what the file is, another makes the tables; it must wait, or be seen whole."""

    class Slow:
        def __init__(self, connection):
            self.connection, self.other = connection, None

        def execute(self, text):
            rows = self.connection.execute(text).fetchall()  # read to the end, so that no lock is left
            if text == "PRAGMA application_id" and self.other is None:
                self.other = threading.Thread(target=lambda: Outbox(path).close())
                self.other.start()
                self.other.join(0.3)
            return SimpleNamespace(fetchone=lambda: rows[0])

    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 5000")
    slow = Slow(connection)
    outbox_module._prepare(slow, path)
    slow.other.join()
    connection.close()
    with Outbox(path) as outbox:
        outbox.put([item("a")])
        assert ids(outbox) == ["a"]


def test_processes_share_one_file_and_may_make_it_together(tmp_path):
    for attempt in range(5):
        path = tmp_path / f"{attempt}.sqlite"
        children = []
        for name in "abcd":
            children.append(lives.forked(lambda name=name, path=path: put_twenty(path, name)))
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        with Outbox(path) as outbox:
            found = ids(outbox)
        assert len(found) == 80
        for name in "abcd":
            assert [id for id in found if id[0] == name] == [f"{name}{step}" for step in range(20)]


def test_an_outbox_goes_on_in_forked_processes(outbox, path):
    outbox.put([item("parent")])
    heard, say = os.pipe()
    answered, answer = os.pipe()
    with outbox.turn():

        def wait_for_the_turn():
            outbox.put([item("child")])
            with outbox.turn() as before:
                os.write(answer, b"1")
            os.read(heard, 1)
            with outbox.turn() as after:
                assert after and not before

        child = lives.forked(wait_for_the_turn)
        os.read(answered, 1)
    os.write(say, b"1")
    assert os.waitpid(child, 0)[1] == 0
    for end in (heard, say, answered, answer):
        os.close(end)

    def take_the_turn():
        with outbox.turn() as mine:
            assert mine and len(outbox) == 2

    child = lives.forked(take_the_turn)
    assert os.waitpid(child, 0)[1] == 0
    outbox.put([item("after")])
    with Outbox(path) as other:
        assert ids(other) == ["parent", "child", "after"]


def test_what_a_forked_process_puts_outlives_its_parents_closing(outbox, path):
    """A connection that was carried into the child holds no lock there: the parent would remove the log under it on closing."""
    outbox.put([item("parent")])
    heard, say = os.pipe()
    answered, answer = os.pipe()

    def put_two():
        outbox.put([item("first")])
        os.write(answer, b"1")
        os.read(heard, 1)
        outbox.put([item("second")])

    child = lives.forked(put_two)
    os.read(answered, 1)
    outbox.close()
    os.write(say, b"1")
    assert os.waitpid(child, 0)[1] == 0
    for end in (heard, say, answered, answer):
        os.close(end)
    with Outbox(path) as other:
        assert ids(other) == ["parent", "first", "second"]


def test_it_can_be_used_again_after_it_was_closed(outbox):
    outbox.put([item("a")])
    outbox.close()
    outbox.close()
    assert ids(outbox) == ["a"]


def test_foreign_files_are_left_as_they_are(tmp_path):
    text, table = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("not a database at all, but long enough to be looked at " * 20)
    connection = sqlite3.connect(table)
    connection.execute("CREATE TABLE waiting(number)")
    connection.commit()
    connection.close()
    before = [path.read_bytes() for path in (text, table)]
    with pytest.raises(StateError, match="cannot be opened"):
        Outbox(text)
    with pytest.raises(StateError, match="no outbox"):
        Outbox(table)
    assert [path.read_bytes() for path in (text, table)] == before
    with pytest.raises(StateError, match="cannot be opened"):
        Outbox(tmp_path)


def test_an_outbox_of_a_later_format_is_refused(path):
    Outbox(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StateError, match="an outbox of format 2, and this version reads 1"):
        Outbox(path)


def test_a_disk_that_fails_is_an_error_and_nothing_is_half_kept(outbox, monkeypatch):
    outbox.put([item("a")])
    outbox._use(lambda connection: connection.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(ServeError, match=r"cannot be used \(database or disk is full\)") as caught:
        outbox.put([item("b"), item("c", "x" * 100_000)])
    assert (caught.value.code, caught.value.status) == ("outbox_unavailable", 0)
    assert ids(outbox) == ["a"]
    outbox.close()
    outbox.put([item("b")])
    assert ids(outbox) == ["a", "b"]


def test_killed_before_any_statement_it_holds_what_was_confirmed_and_all_or_none_of_the_rest(tmp_path):
    def whole(path, say):
        outbox = Outbox(path)
        outbox.put([item("a"), item("b"), item("c")])
        say("put")
        outbox.remove([1])
        say("removed")
        outbox.refuse(2, REFUSAL)
        say("refused")

    states = {  # what may be found, by what was said last
        None: [([], []), (["a", "b", "c"], [])],
        "put": [(["a", "b", "c"], []), (["b", "c"], [])],
        "removed": [(["b", "c"], []), (["c"], ["b"])],
        "refused": [(["c"], ["b"])],
    }
    for last in range(1, 1000):
        path = tmp_path / f"{last}.sqlite"
        killed, said = lives.life(lambda say, path=path: whole(path, say), last)
        with Outbox(path) as outbox:
            assert (ids(outbox), [piece.id for piece in outbox.refused()]) in states[said[-1] if said else None]
            assert ids(outbox) or not said
            outbox.put([item("again")])
        if not killed:
            break
    assert 20 < last < 100  # every statement had its turn
