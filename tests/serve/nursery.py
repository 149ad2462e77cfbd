"""Servers that are killed, and what is held of those that come back: for every test that pulls the plug or spoils the disk."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

CHILD = Path(__file__).with_name("crash_child.py")
ROWS = 100


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


class Twins:
    """By learner, what the server that nobody killed reports."""

    def __init__(self, nursery, folder):
        self.nursery, self.folder, self.made = nursery, folder, {}

    def __call__(self, learner):
        if learner not in self.made:
            place = self.folder / learner
            assert not self.nursery.life(place, learner)
            self.made[learner] = self.nursery.report(place)
        return self.made[learner]


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
