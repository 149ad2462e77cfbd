"""A bandit in service: decisions with what a log must hold, rewards late, twice, otherwise or never, a server that is killed and one that
goes back; and always the state of the offline fold over its log."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from starlette.testclient import TestClient

from everlearn import Client
from everlearn.comparison.building import build_agent
from everlearn.core.agent import Agent, Decision
from everlearn.core.errors import DataError, InputError
from everlearn.core.run import run
from everlearn.data.decision_files import read_decisions
from everlearn.data.served import served
from everlearn.serve.app import create_app
from everlearn.serve.export import export
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.source import source_of

from .bandit_server import SPEC, TEXT, engine
from .test_export import learned, until
from .test_round_trip import free_port

OFFERED = [[1, 0, 1], [1, 1, 0], [1, 1, 1]]


def row(number):
    x = numpy.random.default_rng(number).normal(size=2).round(3).tolist()
    return [*x, *OFFERED[number % 3]]


def reward(number, action):
    return float((row(number)[0] > 0) == (action == 0))


def decide(client, numbers):
    """Ask for rows; the decisions are sound."""
    made = {}
    for number in numbers:
        answer = client.post("/v1/predict", json={"id": f"r{number}", "x": row(number)}).json()
        output = answer["output"]
        made[number] = output
        chances = output["probabilities"]
        assert output["propensity"] == chances[output["answer"]] > 0 and sum(chances) == pytest.approx(1.0)
        assert [chance > 0 for chance in chances] == [bool(value) for value in OFFERED[number % 3]]
    return made


def tell(client, made, numbers):
    for number in numbers:
        answered = client.post("/v1/feedback", json={"id": f"r{number}", "reward": reward(number, made[number]["answer"])})
        assert answered.status_code in (200, 202), answered.text
    return len(list(numbers))


def offline(folder, path):
    """(sha256 of the last version of the server, the fold of `run` over its exported log)."""
    with engine(folder) as made:
        last = made.versions()[0]
        export(made.history.lineage(last["version"]), path, SPEC, model=TEXT, seed=0)
    return last["sha256"], run(build_agent(TEXT, 0), served(path))


def test_rewards_late_twice_otherwise_and_never(tmp_path):
    passed = [0.0]
    with (
        engine(tmp_path / "log", lambda: time.time() + passed[0], horizon=3600.0, default=0.0) as made,
        TestClient(create_app(made)) as client,
    ):
        until(lambda: made.status()["ready"])
        first = decide(client, range(30))
        assert first[0] == decide(client, [0])[0] and first[0]["generation"] == 0  # asked twice, answered once
        tell(client, first, range(29, 9, -1))  # out of order; ten are left for later
        until(lambda: made.status()["counts"]["answers"] >= 20 and learned(made))
        asked = itertools.count(1000)  # until the policy that was fitted to them is in service
        until(lambda: decide(client, [next(asked)]).popitem()[1]["generation"] == 1)
        tell(client, first, range(5))  # late: after the period that decided them was closed
        tell(client, first, range(5))  # twice
        other = {"id": "r0", "reward": 1.0 - reward(0, first[0]["answer"])}
        refused = client.post("/v1/feedback", json=other)
        assert refused.status_code in (409, 422) and refused.json()["code"] == "conflict"
        passed[0] = 4000.0  # the others are never told: the default reward comes in their place
        until(lambda: made.status()["counts"]["answers"] >= 31 and learned(made))
        assert not made.alarms()
    sha256, result = offline(tmp_path / "log", tmp_path / "log.parquet")
    agent = result.learner
    assert result.sha256 == sha256 and agent.generation >= 1 and agent.learned >= 31
    ages = dict(zip(agent.window.ids, agent.window["generation"].tolist(), strict=True))
    assert {ages[f"r{number}"] for number in range(5)} == {0}  # of the period that decided them
    rewards = dict(zip(agent.window.ids, agent.window["reward"].tolist(), strict=True))
    assert all(rewards[f"r{number}"] == 0.0 for number in range(5, 10))


def test_its_log_is_read_as_decisions_that_another_policy_can_be_judged_on(tmp_path):
    with engine(tmp_path / "log") as made, TestClient(create_app(made)) as client:
        until(lambda: made.status()["ready"])
        seen = decide(client, range(24))
        tell(client, seen, range(24))
        until(lambda: learned(made))
    offline(tmp_path / "log", tmp_path / "log.parquet")
    log = read_decisions(tmp_path / "log.parquet", masked=True)
    assert set(log.id) == {f"r{number}" for number in range(24)}
    for place, name in enumerate(log.id):
        number = int(name[1:])
        output = seen[number]
        assert (
            log.x[place].tolist() == pytest.approx(row(number)[:2])
            and log.offered[place].int().tolist() == OFFERED[number % 3]
        )
        assert int(log.action[place]) == output["answer"] and float(log.reward[place]) == reward(number, output["answer"])
        assert (
            float(log.propensity[place]) == output["propensity"]
            and log.probabilities[place].tolist() == output["probabilities"]
        )
        assert int(log.generation[place]) == output["generation"]
    assert read_decisions(tmp_path / "log.parquet", masked=3).id == log.id
    bare = read_decisions(tmp_path / "log.parquet")
    assert bare.x.shape == (24, 5) and bare.actions == 3
    with pytest.raises(DataError, match="masked=5 leaves no column of x, which has 5"):
        read_decisions(tmp_path / "log.parquet", masked=5)


class Stubborn(Agent):
    """Always does the same, and says with which probability only where it is asked to."""

    name = "stubborn"
    parts = ("told",)

    def __init__(self, propensity):
        self.propensity, self.told = propensity, 0

    def act(self, observation, key):
        return Decision(0, self.propensity)

    def update(self, feedback):
        self.told += 1
        return {}


@pytest.mark.parametrize("propensity", [1.0, None])
def test_a_log_without_probabilities_is_read_by_the_number_of_actions(tmp_path, propensity):
    options = Options(batch=4, every=1, wait=0.01, guard=False)
    with LocalEngine(Stubborn(propensity), SPEC, tmp_path / "log", options) as made, TestClient(create_app(made)) as client:
        until(lambda: made.status()["ready"])
        for number in range(4):
            client.post("/v1/predict", json={"id": f"r{number}", "x": row(number)})
            client.post("/v1/feedback", json={"id": f"r{number}", "reward": 1.0})
        until(lambda: learned(made))
    with LocalEngine(Stubborn(propensity), SPEC, tmp_path / "log", options) as made:
        export(
            made.history.lineage(made.versions()[0]["version"]), tmp_path / "log.parquet", SPEC, model="stubborn()", seed=0
        )
    if propensity is None:
        with pytest.raises(DataError, match="the propensity was not kept"):
            read_decisions(tmp_path / "log.parquet")
        return
    log = read_decisions(tmp_path / "log.parquet", masked=3)
    assert log.probabilities is None and log.offered.int().tolist() == [OFFERED[number % 3] for number in range(4)]
    assert log.generation.tolist() == [0] * 4
    with pytest.raises(DataError, match="masked=True needs the probabilities of all actions"):
        read_decisions(tmp_path / "log.parquet", masked=True)


@pytest.mark.parametrize("after", ["skip", "replay"])
def test_going_back_gives_the_state_of_the_shorter_log(tmp_path, after):
    with engine(tmp_path / "log") as made, TestClient(create_app(made)) as client:
        until(lambda: made.status()["ready"])
        first = decide(client, range(24))
        tell(client, first, range(24))
        until(lambda: learned(made))
        before = made.versions()[0]
        second = decide(client, range(100, 124))
        tell(client, second, range(100, 124))
        until(lambda: learned(made))
        made.rollback(before["version"], "a bad day", after)
        third = decide(client, range(200, 210))
        tell(client, third, range(200, 210))
        until(lambda: learned(made))
    sha256, result = offline(tmp_path / "log", tmp_path / "log.parquet")
    agent = result.learner
    assert result.sha256 == sha256 and agent.tally["duplicates"] == 0
    assert agent.learned + agent.tally["late"] == result.events
    assert result.events == 58 if after == "replay" else 10 <= result.events <= 34
    new = {f"r{number}" for number in range(200, 210)}
    # what is replayed first may close a second period, and rows that the version gone back to decided are then too late
    assert len(new - set(agent.window.ids)) <= (agent.tally["late"] if after == "replay" else 0)


@pytest.mark.slow
def test_a_server_that_is_killed_learns_each_reward_once(tmp_path):
    port, told = free_port(), 0

    def start():
        script = Path(__file__).with_name("bandit_server.py")
        command = [sys.executable, "-m", "tests.serve.bandit_server", str(tmp_path / "log"), str(port)]
        return subprocess.Popen(command, cwd=script.parents[2], stderr=subprocess.DEVNULL)

    server = start()
    try:
        with Client(f"http://127.0.0.1:{port}", retries=50, deadline=60.0) as client:
            for life in range(3):
                client.wait_ready(60)
                for number in range(life * 30, life * 30 + 30):
                    seen = client.predict(row(number), id=f"r{number}")
                    client.feedback(seen.id, reward=reward(number, seen.answer))
                    told += 1
                server.kill()
                server.wait()
                server = start()
                client.wait_ready(60)
                client.feedback(seen.id, reward=reward(number, seen.answer))  # once more, to the server that follows
            time.sleep(0.5)
    finally:
        server.terminate()
        server.wait()
    sha256, result = offline(tmp_path / "log", tmp_path / "log.parquet")
    agent = result.learner
    assert result.sha256 == sha256
    assert agent.learned == told == 90 and agent.tally["duplicates"] == 0 and agent.generation == 4


def test_a_table_whose_columns_say_what_is_on_offer_is_served(tmp_path):
    """True and false are not scaled, so they stay what they say; numbers are, and are refused with the reason."""
    rows = [
        ("0.5", "true", "false", "x"),
        ("0.1", "true", "true", "y"),
        ("0.9", "false", "true", "x"),
        ("0.3", "true", "true", "y"),
    ]
    for name, words in (("flags", ("true", "false")), ("numbers", ("1", "0"))):
        text = "\n".join(",".join(row) for row in [("a", "first", "second", "label"), *rows])
        (tmp_path / f"{name}.csv").write_text(text.replace("true", words[0]).replace("false", words[1]) + "\n")
    flags, numbers = (
        source_of("bandit(masked=True, explore=uniformly())", data=str(tmp_path / f"{name}.csv"), target="label")
        for name in ("flags", "numbers")
    )
    x = flags.spec.tensor([flags.spec.row({"a": 0.2, "first": False, "second": True})])
    assert flags.served.act(x, 0).probabilities == (0.0, 1.0)
    with pytest.raises(InputError, match="in a table write true and false, which are not scaled"):
        numbers.served.act(numbers.spec.tensor([numbers.spec.row({"a": 0.2, "first": 0, "second": 1})]), 0)
