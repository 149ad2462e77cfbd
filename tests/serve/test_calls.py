"""Feedback through an outbox: nothing is lost, nothing counts twice, order is kept, and what is refused is said, whoever dies when."""

import asyncio
import logging
import os
import random
import time

import pytest

from everlearn import AsyncClient, Client
from everlearn.core.errors import ServeError
from everlearn.serve.calls import Acknowledgement, Delivery
from everlearn.serve.outbox import Outbox

from . import lives, rude

AWAY = (503, "log_unavailable")


@pytest.fixture
def server():
    with rude.serving() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def client(server, path):
    with Client(server.url, outbox=path, seed=0) as client:
        yield client


def impatient(client):
    """The outbox is tried again at once after the server was away."""
    client._calls._quiet_until = 0.0
    return client


def waiting(client):
    return [piece.id for piece in client.outbox.oldest(10_000)]


def test_a_server_that_is_there_leaves_the_outbox_empty(client, server):
    assert client.feedback("a", y="cat") == Acknowledgement("a", 0, 1, True)
    assert client.outbox.empty
    assert client.flush() == Delivery(0, (), 0)


def test_without_an_outbox_there_is_nothing_to_flush_and_nothing_is_queued(server):
    with Client(server.url, retries=0) as client:
        assert client.flush() == Delivery(0, (), 0)
        server.faults.append(AWAY)
        with pytest.raises(ServeError, match="log_unavailable"):
            client.feedback("a", y="cat")


FAULTS = [
    "drop_before",
    "drop_after",
    "garbage",
    "partial",
    AWAY,
    (429, "overloaded"),
    (500, "internal"),
    (401, "unauthorized"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_cannot_be_delivered_is_on_the_disk_before_the_call_returns(client, server, path, fault):
    server.faults.append(fault)
    kept = client.feedback("a", y="cat", revision=2)
    assert (kept.queued, kept.seq, kept.id, kept.revision) == (True, None, "a", 2)
    assert kept.reason
    assert len(server.seen) == 1  # with an outbox, one try
    with Outbox(path) as other:
        assert other.oldest(9)[0].body == {"id": "a", "y": "cat", "revision": 2}
    assert client.flush() == Delivery(1, (), 0)
    assert server.order == ["a"]  # once, whether the first try was heeded or not


@pytest.mark.parametrize("item", [{"id": "gone", "y": "cat"}, {"id": "a", "y": "elephant"}])
def test_what_the_server_refuses_is_raised_and_not_queued(client, server, item):
    with pytest.raises(ServeError) as caught:
        client.feedback(**item)
    assert caught.value.status in (410, 422)
    assert client.outbox.empty
    assert client.outbox.refused() == []


def test_older_feedback_goes_first_and_in_one_request(client, server):
    server.faults.append(AWAY)
    for name in "abc":
        client.feedback(name, y="cat")
    assert len(server.seen) == 1  # while the server is away, calls return at once
    assert waiting(client) == ["a", "b", "c"]
    last = impatient(client).feedback("d", y="cat")
    assert last == Acknowledgement("d", 0, 4, True)
    assert [len(body) for body in server.bodies("/v1/feedback")[1:]] == [4]
    assert server.order == ["a", "b", "c", "d"]
    assert client.outbox.empty


def test_the_server_is_left_alone_for_a_while_that_grows_with_its_absence(client, server):
    server.always = AWAY
    spans = []
    for number in range(6):
        impatient(client).feedback(f"i{number}", y="cat")
        spans.append(client.quiet)
    assert all(0.2 * 2**number <= span <= 0.5 * 2**number for number, span in enumerate(spans))
    server.always = (429, "overloaded", {"retry-after": "100"})
    impatient(client).feedback("z", y="cat")
    assert 99 < client.quiet <= 100
    server.always = None
    client.predict([1])  # the server is back, whatever it was that showed it
    assert client.quiet == 0.0
    assert not client.feedback("y", y="cat").queued


def test_a_full_batch_takes_the_oldest_and_the_newest_waits(client, server):
    client.outbox.put([{"id": f"i{number}", "y": number, "revision": 0} for number in range(1005)])
    assert client.feedback("last", y="cat").queued
    assert waiting(client) == [f"i{number}" for number in range(1000, 1005)] + ["last"]
    assert client.flush() == Delivery(6, (), 0)
    assert server.order == [f"i{number}" for number in range(1005)] + ["last"]


def test_flush_says_who_is_away_and_loses_nothing(client, server):
    client.outbox.put([{"id": f"i{number}", "y": number, "revision": 0} for number in range(1500)])
    server.faults += ["drop_after", (401, "unauthorized")]
    with pytest.raises(ServeError, match="unauthorized"):
        client.flush()
    assert len(client.outbox) == 1500
    assert client.flush() == Delivery(1500, (), 0)
    assert server.order == [f"i{number}" for number in range(1500)]


def test_a_cafe_that_answers_200_has_not_taken_anything(client, server):
    client.outbox.put([{"id": "a", "y": 1, "revision": 0}, {"id": "b", "y": 2, "revision": 0}])
    heed = server.heed
    for answer in ([], [{"accepted": True}], {"accepted": True}, [{"accepted": False}] * 2, "welcome", None, [1, 2]):
        server.heed = lambda *request, answer=answer: answer
        client._calls.retries.retries = 0
        with pytest.raises(ServeError, match="no answer of this API"):
            client.flush()
        assert len(client.outbox) == 2
    server.heed = heed
    assert client.flush().delivered == 2


def test_what_is_refused_later_is_set_aside_with_its_reason_and_the_rest_goes_through(client, server, caplog):
    names = [f"i{number}" for number in range(1000)]
    names[17], names[500], names[501] = "gone-1", "gone-2", "bad"
    server.told[("i3", 0)] = {"id": "i3", "y": "other", "revision": 0}
    client.outbox.put([{"id": name, "y": "elephant" if name == "bad" else "cat", "revision": 0} for name in names])
    done = client.flush()
    assert (done.delivered, done.waiting) == (996, 0)
    found = {piece.id: (piece.code, piece.status) for piece in done.refused}
    assert found == {
        "gone-1": ("horizon_passed", 410),
        "gone-2": ("horizon_passed", 410),
        "bad": ("invalid_request", 422),
        "i3": ("conflict", 422),
    }
    assert client.outbox.refused() == list(done.refused)
    assert server.order == [name for name in names if name not in found]
    assert len(server.seen) < 2 * 4 * 11  # halves: at most two requests per level of a thousand and refusal
    assert "feedback for gone-1 (revision 0) was refused: horizon_passed" in caplog.text
    assert "elephant" not in caplog.text


def test_feedback_that_is_refused_behind_older_feedback_is_raised_and_set_aside(client, server):
    client.outbox.put([{"id": "a", "y": "cat", "revision": 0}])
    with pytest.raises(ServeError, match="horizon_passed") as caught:
        client.feedback_many([{"id": "b", "y": "cat"}, {"id": "gone", "y": "cat"}, {"id": "c", "y": "cat"}])
    assert "(1 of 3 refused)" in str(caught.value)
    assert caught.value.errors == [{"at": 1, "detail": "no: horizon_passed"}]
    assert server.order == ["a", "b", "c"]
    assert [piece.id for piece in client.outbox.refused()] == ["gone"]


def test_a_conflict_with_what_waits_is_raised_at_once(client, server):
    server.always = AWAY
    client.feedback("a", y="cat")
    assert client.feedback("a", y="cat").queued
    with pytest.raises(ServeError, match="waits to be sent and says something else"):
        client.feedback("a", y="dog")
    server.always = None
    assert client.flush().delivered == 1


def test_much_feedback_is_kept_from_the_part_that_failed_on(client, server):
    server.faults += [("slow", 0.0), AWAY]
    taken = client.feedback_many([{"id": f"i{number}", "y": 1} for number in range(2100)])
    assert [item.queued for item in taken] == [False] * 1000 + [True] * 1100
    assert client.flush().delivered == 1100
    assert server.order == [f"i{number}" for number in range(2100)]


def test_a_full_outbox_refuses_loudly(server, path):
    server.always = AWAY
    with Client(server.url, outbox=Outbox(path, limit=2)) as client:
        client.feedback("a", y=1)
        client.feedback("b", y=1)
        with pytest.raises(ServeError, match="takes no more than 2") as caught:
            client.feedback("c", y=1)
        assert caught.value.code == "outbox_full"
        assert waiting(client) == ["a", "b"]


def test_while_another_delivers_feedback_is_queued_and_flush_waits_its_turn(client, server, path):
    client.outbox.put([{"id": "a", "y": 1, "revision": 0}])
    client._calls.retries.deadline = 0.2
    with Outbox(path) as other, other.turn():
        assert client.feedback("b", y=1).queued
        assert client.flush() == Delivery(0, (), 2)
    assert server.seen == []
    assert client.flush() == Delivery(2, (), 0)


def test_asyncio_keeps_feedback_the_same_way(server, path):
    async def main():
        async with AsyncClient(server.url, outbox=path) as client:
            server.faults.append(AWAY)
            first = await client.feedback("a", y="cat")
            client._calls._quiet_until = 0.0
            second = await client.feedback("b", y="cat")
            server.always = ("slow", 0.3)
            client.outbox.put([{"id": "c", "y": 1, "revision": 0}])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.flush(), 0.05)
            server.always = None
            with client.outbox.turn() as free:  # a cancelled delivery gives up its turn
                assert free
            return first.queued, second.queued, (await client.flush()).waiting

    assert asyncio.run(main()) == (True, False, 0)
    assert server.order == ["a", "b", "c"]


def test_an_absence_is_logged_once(client, server, caplog):
    caplog.set_level(logging.WARNING)
    server.always = AWAY
    for number in range(5):
        impatient(client).feedback(f"i{number}", y="cat")
    assert caplog.text.count("log_unavailable") == 1


# ---- several processes, and their deaths -----------------------------------------------------------------------------------


def test_processes_share_an_outbox_while_the_server_comes_and_goes(server, path):
    draw = random.Random(0)
    server.faults += draw.choices(["drop_after", "drop_before", AWAY, "garbage", ("slow", 0.0)], k=100)
    children = []
    for name in "abcd":

        def tell(name=name):
            with Client(server.url, outbox=path, seed=1) as client:
                for number in range(40):
                    impatient(client).feedback(f"{name}{number}", y=number)

        children.append(lives.forked(tell))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    server.faults.clear()
    with Client(server.url, outbox=path) as client:
        client.flush()
        assert client.outbox.refused() == []
    assert sorted(server.order) == sorted(f"{name}{number}" for name in "abcd" for number in range(40))


SCRIPT = ["a", "b", "gone", "c", "d"]


def story(url, path, say):
    """Feedback while the server is away and comes back. What was not confirmed in an earlier life is told again, as a user would."""
    with Client(url, outbox=path, seed=0, retries=2) as client:
        client._calls.retries.first = 0.001
        for name in SCRIPT:
            try:
                impatient(client).feedback(name, y="cat")
                say(f"confirmed-{name}")
            except ServeError as error:
                say(f"{error.code}-{name}")
        client.flush()


@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_no_confirmed_feedback_is_lost_and_none_counts_twice(server, tmp_path, stride):
    """Steps: every statement of SQLite, every request before it is sent and after its answer came; the server fails in three ways."""
    kills = 0
    for last in range(1, 10_000, stride):
        path = tmp_path / f"{last}.sqlite"
        server.told.clear(), server.order.clear(), server.faults.clear()
        server.faults += [AWAY, "drop_before", "drop_after"]
        killed, said = lives.life(lambda say, path=path: story(server.url, path, say), last)
        kills += killed
        confirmed = [word.removeprefix("confirmed-") for word in said if word.startswith("confirmed")]
        with Outbox(path) as outbox:
            safe = {*server.order, *(piece.id for piece in outbox.oldest(99)), *(piece.id for piece in outbox.refused())}
        assert set(confirmed) <= safe
        again, _ = lives.life(lambda say, path=path: story(server.url, path, say)) if killed else (False, [])
        assert not again
        with Outbox(path) as outbox:
            assert outbox.empty
            assert {piece.id for piece in outbox.refused()} <= {"gone"}
        assert server.order == ["a", "b", "c", "d"]  # each once, in the order in which they were told
        if not killed:
            break
    assert kills == (last - 1) // stride
    assert last > 60


@pytest.mark.slow
def test_killed_at_random_times_by_the_clock(server, tmp_path):
    draw = random.Random(5)
    for attempt in range(40):
        path = tmp_path / f"{attempt}.sqlite"
        server.told.clear(), server.order.clear()
        server.faults.extend(draw.choices(["drop_after", "drop_before", AWAY, "garbage"], k=6))
        for _ in range(4):
            child = lives.forked(lambda path=path: story(server.url, path, lambda text: None))
            time.sleep(draw.uniform(0.0, 0.05))
            os.kill(child, 9)
            os.waitpid(child, 0)
        server.faults.clear()
        lives.life(lambda say, path=path: story(server.url, path, say))
        with Outbox(path) as outbox:
            assert outbox.empty
        assert server.order == ["a", "b", "c", "d"]
