"""The plug is pulled at every point where it could matter, and at random: the server that comes back is the one that was not killed.

R1, R2, R4, R5: every accepted event is there, each answer was learned from exactly once on the line that stands, and versions, steps,
decisions and the sha256 of the learner are those of the uninterrupted twin, and of `run` over the exported log.
"""

import random
import sqlite3
import time
from collections import Counter

import pytest

from .nursery import Nursery, Twins, hold

POINTS = {  # the count of the call at which a life ends
    "before commit": 9,
    "after commit, before the answer": 11,
    "after the row of a step": 2,
    "in the middle of an update": 3,
    "after an update": 2,
    "between the files of a version": 1,
    "before the rename": 1,
    "after the rename": 1,
    "before the row of a version": 1,
    "in the transaction of a version": 1,
    "after the row of a version": 1,
    "in the transaction of a branch": 1,
    "after the row of a branch": 1,
    "after the decision to release": 1,
    "among released pieces": 2,
    "before a poisoned step is set aside": 1,
    "before the files of a version go": 1,
    "before old versions are chosen": 1,
}
FIRST_LIFE = {"before the row of a version": 1, "between the files of a version": 1, "in the transaction of a branch": 1}
LEARNERS = ["counting", "replay", "centring", "uniform", "sklearn", "river"]


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def twin(nursery, tmp_path_factory):
    return Twins(nursery, tmp_path_factory.mktemp("twins"))


@pytest.mark.slow
def test_the_twin_is_worth_being_compared_with(nursery, twin):
    report = twin("counting")
    sources = Counter(event[5] for event in report["events"])
    assert sources["early"] >= 8 and {event[3] for event in report["events"]} == {0, 1, 2}
    actions = Counter(decision[0] for decision in report["decisions"])
    assert actions["promote"] >= 3 and actions["refuse"] >= 3 and actions["release"] == 1
    assert actions["rollback"] == 3 and actions["set_aside"] == 1 and actions["erase"] == 1
    assert sum(step[4] == "released" for step in report["steps"]) >= 3
    assert any(version[6] == "pruned" for version in report["versions"])
    assert report["aside"] and sum(report["counts"].values()) > 60


def pulled(nursery, folder, learner, points):
    """One server, ended at each of the points, in the order in which the requests come to them."""
    for point, nth in points.items():
        assert nursery.life(folder, learner, point=point, nth=nth), f"never came to: {point}"
    while nursery.life(folder, learner):
        pass
    return nursery.report(folder)


def test_the_plug_is_pulled_at_every_point(nursery, twin, tmp_path):
    folder = tmp_path / "one"
    for point, nth in FIRST_LIFE.items():
        assert nursery.life(folder, "counting", point=point, nth=nth)
    hold(folder, pulled(nursery, folder, "counting", POINTS), twin("counting"))


def test_a_learner_with_everything_to_lose_survives_every_point(nursery, twin, tmp_path):
    folder = tmp_path / "one"
    hold(folder, pulled(nursery, folder, "replay", POINTS), twin("replay"))


@pytest.mark.parametrize("loss", ["DELETE FROM event WHERE seq = 19", "UPDATE event SET y = '2' WHERE seq = 19"])
def test_a_server_that_loses_an_answer_is_noticed(loss, nursery, twin, tmp_path):
    """The control: the same comparison sees a server with one answer fewer, or another one."""
    folder = tmp_path / "one"
    assert nursery.life(folder, "counting", point="before commit", nth=40)
    connection = sqlite3.connect(folder / "log.sqlite")
    assert connection.execute("SELECT kind, y FROM event WHERE seq = 19").fetchone() == ("answer", "1")
    connection.execute("DELETE FROM step")
    connection.execute("DELETE FROM version WHERE version > 0")
    connection.execute("UPDATE version SET state = 'active'")
    connection.execute(loss)
    connection.commit()
    connection.close()
    while nursery.life(folder, "counting"):
        pass
    with pytest.raises(AssertionError):
        hold(folder, nursery.report(folder), twin("counting"))


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["centring", "uniform", "sklearn", "river"])
def test_every_kind_of_learner_survives_every_point(learner, nursery, twin, tmp_path):
    folder = tmp_path / "one"
    hold(folder, pulled(nursery, folder, learner, POINTS), twin(learner))


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_each_point_again_and_again(point, nursery, twin, tmp_path):
    """The same point at other moments of a life, three times in a row on one folder."""
    folder, killed = tmp_path / "one", 0
    for nth in (POINTS[point], POINTS[point] + 1, POINTS[point]):
        killed += nursery.life(folder, "counting", point=point, nth=nth)
    assert killed
    while nursery.life(folder, "counting"):
        pass
    hold(folder, nursery.report(folder), twin("counting"))


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_the_plug_is_pulled_at_random(learner, nursery, twin, tmp_path, record_property):
    began, source, kills, folders = time.monotonic(), random.Random(LEARNERS.index(learner)), 0, 0
    while kills < 34:
        folder = tmp_path / str(folders)
        folders += 1
        longest = 0.35
        while nursery.life(folder, learner, seconds=source.uniform(0.03, longest)):
            kills, longest = kills + 1, longest + 0.02  # so that a busy machine comes to an end too
        hold(folder, nursery.report(folder), twin(learner))
    record_property("kills", kills)
    print(f"{learner}: {kills} kills, {folders} servers, {time.monotonic() - began:.1f} s")
