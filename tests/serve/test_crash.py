"""The plug is pulled at every point where it could matter, and at random: the server that comes back is the one that was not killed.

R1, R2, R4, R5: every accepted event is there, each answer was learned from exactly once on the line that stands, and versions, steps,
decisions and the sha256 of the learner are those of the uninterrupted twin, and of `run` over the exported log.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("crash_child.py")
ROWS = 100
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
}
FIRST_LIFE = {"before the row of a version": 1, "between the files of a version": 1, "in the transaction of a branch": 1}
LEARNERS = ["counting", "replay", "centring", "uniform", "sklearn", "river"]


class Nursery:
    """The process that forks servers."""

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=environment,
        )
        self.kills = 0

    def life(self, folder, learner, **given):
        """Whether the life was ended by the plug; a life that failed fails the test with what it said."""
        folder.mkdir(exist_ok=True)
        self.process.stdin.write(json.dumps({"folder": str(folder), "learner": learner, "rows": ROWS} | given) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        self.kills += told["killed"]
        assert told["killed"] or told["status"] == 0, self.said.seek(0) or self.said.read()[-4000:]
        return told["killed"]

    def report(self, folder):
        return json.loads((folder / "report.json").read_text())

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
        self.said.close()


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def twin(nursery, tmp_path_factory):
    """By learner, what the server that nobody killed reports."""
    made = {}

    def of(learner):
        if learner not in made:
            folder = tmp_path_factory.mktemp("twins") / learner
            assert not nursery.life(folder, learner)
            made[learner] = nursery.report(folder)
        return made[learner]

    return of


def hold(folder, report, twin):
    """All that a crash may not change."""
    for key in ("sha256", "service", "events", "early", "steps", "versions", "decisions", "files", "learned", "aside"):
        assert report[key] == twin[key], key
    assert report.get("counts") == twin.get("counts")
    hold_alone(folder, report)


def hold_alone(folder, report):
    """What holds of any server."""
    assert report["sha256"] == report["offline"] == report["exported"]
    stored = {event[0]: event for event in report["events"]}
    erased = {"r61"}
    for line in (folder / "acknowledged").read_text().splitlines():
        _, told = json.loads(line)
        if told is not None and told[1] is not None and told[0] not in erased:
            assert stored[told[1]][2] == told[0]
    learned = Counter(seq for _, _, seq in report["learned"])
    assert set(learned.values()) == {1}
    aside = {seq for low, high in report["aside"] for seq in range(low, high + 1)}
    last = max(step[3] for step in report["steps"] if step[0] == max(step[0] for step in report["steps"]))
    answers = {event[0] for event in report["events"] if event[1] == "answer" and event[0] <= last}
    released = {
        seq for branch, _, low, high, reason in report["steps"] for seq in range(low, high + 1) if reason == "released"
    }
    assert answers - aside <= set(learned) <= answers
    assert set(learned) - (answers - aside) <= released
    if "counts" in report:
        assert report["counts"] == dict(Counter(id for id, _, _ in report["learned"]))
    actives = [version for version in report["versions"] if version[6] == "active"]
    assert [version[0] for version in actives] == [report["service"]]


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
