"""The line before actors: what waits goes together, to whoever is free, and again where an actor was lost."""

from concurrent.futures import Future

import pytest

from everlearn.core.errors import ContractError, ServeError, StateError
from everlearn.serve.actors import Outcome
from everlearn.serve.lane import DEPTH, ROWS, Lane


class Lost(Exception):
    """What a dead actor gives."""


class Yard:
    """Actors that answer when they are told to; `sent` has (actor, groups, future) of every call, the oldest first."""

    def __init__(self, actors=("a",), **named):
        self.sent, self.backs = [], []
        self.lane = Lane(actors, self.call, (Lost,), back=self.back, **named)

    def call(self, actor, groups):
        future = Future()
        self.sent.append((actor, groups, future))
        return future

    def back(self, actor):
        self.backs.append(Future())
        return self.backs[-1]

    def put(self, *rows):
        future = Future()
        self.lane.put(rows, future)
        return future

    def answer(self, number=0):
        """Let a call come back: each request is given its own rows in capitals."""
        _, groups, future = self.sent.pop(number)
        future.set_result([Outcome([row.upper() for row in group]) for group in groups])

    def lose(self, number=0):
        self.sent.pop(number)[2].set_exception(Lost())

    def actors(self):
        return [actor for actor, _, _ in self.sent]


def test_what_comes_while_all_are_busy_goes_as_one_call():
    yard = Yard()
    futures = [yard.put(f"x{number}") for number in range(DEPTH + 3)]
    assert [groups for _, groups, _ in yard.sent] == [[("x0",)], [("x1",)]]
    yard.answer()
    assert yard.sent[-1][1] == [("x2",), ("x3",), ("x4",)]
    yard.answer()
    yard.answer()
    assert [future.result(0) for future in futures] == [[f"X{number}"] for number in range(DEPTH + 3)]


def test_a_call_has_at_most_so_many_rows_but_a_request_is_never_cut():
    yard = Yard()
    for _ in range(DEPTH):
        yard.put("first")
    half = ["h"] * (ROWS // 2)
    for rows in (half, half, half, ["l"] * (3 * ROWS)):
        yard.put(*rows)
    yard.answer()
    assert [len(group) for group in yard.sent[-1][1]] == [ROWS // 2, ROWS // 2]
    yard.answer()
    assert [len(group) for group in yard.sent[-1][1]] == [ROWS // 2]
    yard.answer()
    assert [len(group) for group in yard.sent[-1][1]] == [3 * ROWS]


def test_the_actor_with_the_fewest_calls_is_next_and_turns_are_taken():
    yard = Yard("abc")
    for _ in range(4):
        yard.put("x")
    assert yard.actors() == ["a", "b", "c", "a"]
    yard.answer(1)
    yard.put("x")
    assert yard.actors()[-1] == "b"
    quiet = Yard("ab")
    for _ in range(4):
        quiet.put("x")
        quiet.answer()
    assert quiet.lane._sent == [2, 2]


def test_requests_of_a_lost_actor_go_to_another_and_it_is_left_alone_until_it_is_back():
    yard = Yard("ab", spare="owner")
    first, second = yard.put("one"), yard.put("two")
    yard.lose()
    assert yard.lane.down == [True, False] and yard.actors() == ["b", "b"]
    yard.answer()
    yard.answer()
    assert (first.result(0), second.result(0)) == (["ONE"], ["TWO"])
    yard.put("three")
    yard.answer()
    yard.put("four")
    assert yard.actors() == ["b"]
    yard.backs[0].set_result(None)
    assert yard.lane.down == [False, False]
    yard.put("five")
    assert yard.actors() == ["b", "a"]


def test_while_all_are_lost_the_spare_answers_and_each_is_called_back_once():
    yard = Yard("ab", spare="owner")
    futures = [yard.put(text) for text in ("one", "two", "three", "four")]
    while any(actor != "owner" for actor in yard.actors()):
        yard.lose(next(place for place, actor in enumerate(yard.actors()) if actor != "owner"))
    assert len(yard.backs) == 2 and yard.lane.down == [True, True]
    while yard.sent:
        yard.answer()
    assert [future.result(0) for future in futures] == [["ONE"], ["TWO"], ["THREE"], ["FOUR"]]
    yard.backs[0].set_exception(Lost())
    assert yard.lane.down == [True, True]


def test_without_a_spare_a_loss_is_a_refusal_that_says_to_ask_again():
    yard = Yard()
    future = yard.put("one")
    yard.lose()
    with pytest.raises(ServeError, match="has ended") as caught:
        future.result(0)
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("not_ready", 503, 1.0)
    spared = Yard("a", spare="owner")
    future = spared.put("one")
    spared.lose()
    spared.lose()
    assert future.exception(0).code == "not_ready"


def test_each_request_gets_its_own_outcome():
    yard = Yard()
    yard.put("busy")
    yard.put("busy")
    good, bad = yard.put("good"), yard.put("bad")
    yard.answer()
    yard.sent[-1][2].set_result([Outcome("fine"), Outcome.of(StateError("broken"))])
    assert good.result(0) == "fine"
    with pytest.raises(StateError, match="broken"):
        bad.result(0)


def test_a_call_that_cannot_be_made_fails_its_requests_alone():
    lane = Lane(["a"], lambda actor, groups: (_ for _ in ()).throw(OSError("no way")), (Lost,))
    future = Future()
    lane.put(["x"], future)
    assert isinstance(future.exception(0), ContractError) and "OSError: no way" in str(future.exception(0))


def test_a_caller_who_gives_up_takes_nothing_from_the_others():
    yard = Yard()
    futures = [yard.put(f"x{number}") for number in range(DEPTH + 3)]
    assert not any(future.cancel() for future in futures)
    while yard.sent:
        yard.answer()
    assert [future.result(0) for future in futures] == [[f"X{number}"] for number in range(DEPTH + 3)]
