"""Anything that clients and operators may do in any order, with kills and garbled files in between, against the twin in plain Python."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from everlearn.core.errors import ServeError, StateError
from everlearn.core.learner import Learner
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told

from .served_model import Model, Refused, chained

SPEC = InputSpec("classes", (1,), "float32", classes=("no", "yes"))
HORIZON, EARLY = 100.0, 50.0
IDS = st.integers(0, 11).map(lambda number: f"r{number}")
ANSWERS = st.integers(0, 1)


class Chain(Learner):
    """The learner of the twin."""

    name = "chain"
    parts = ("chain", "counts")

    def __init__(self):
        self.chain = 7
        self.counts: dict[str, int] = {}

    def predict(self, x):
        side = (x[:, 0].double() + self.chain % 97) % 2
        return torch.stack([side, 1 - side], dim=1)

    def update(self, batch):
        for id, y in zip(batch.id, batch.y.tolist() if batch.y is not None else (), strict=False):
            self.chain = chained(self.chain, id, y)
            self.counts[id] = self.counts.get(id, 0) + 1
        return {}

    def boundary(self, boundary):
        pass


class Server(RuleBasedStateMachine):
    """The engine and its twin, side by side."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="states"))
        self.engine = None

    @initialize(
        batch=st.integers(1, 3), every=st.integers(1, 3), keep=st.integers(1, 3), default=st.sampled_from([None, "yes"])
    )
    def begin(self, batch, every, keep, default):
        self.options = Options(
            batch=batch, every=every, keep=keep, wait=None, guard=False, horizon=HORIZON, early=EARLY, default=default,
            durability="normal",
        )  # fmt: skip
        self.model = Model(batch, every, keep, HORIZON, EARLY, None if default is None else 1)
        self.given = {}  # id -> what it was answered first
        self.forgotten = set()  # numbers erased without being unlearned
        self.open()

    def open(self):
        self.engine = LocalEngine(Chain(), SPEC, self.folder, self.options, clock=lambda: self.model.now)
        self.engine.upkeep._tended = float("inf")  # the clock of this test decides, not that of the machine
        self.engine.wait_ready()

    def teardown(self):
        if self.engine is not None:
            self.engine.close()
        shutil.rmtree(self.folder)

    def settle(self):
        """Let both learn what is due."""
        self.model.learn()
        if not self.model.paused:
            self.engine.learning.wake()
            assert self.engine.learned(10)

    def both(self, real, twin):
        """What both give; where the twin refuses, the engine must, by the same code."""
        try:
            expected = twin()
        except Refused as refusal:
            with pytest.raises(ServeError) as caught:
                real()
            assert caught.value.code == str(refusal)
            return None, None
        return real(), expected

    # ---- clients ---------------------------------------------------------------------------------------------------------

    @rule(id=IDS, x=st.sampled_from([0.0, 0.0, 0.0, 1.0]))
    def ask(self, id, x):
        row = SPEC.row([x])
        given, expected = self.both(
            lambda: self.engine.predict([Ask(id, row)]).result(10)[0], lambda: self.model.ask(id, row)
        )
        if given is not None:
            assert (given.seq, given.duplicate) == expected
            first = self.given.setdefault(id, given)
            assert (given.output, given.version) == (first.output, first.version)
            self.settle()

    @rule(ids=st.lists(IDS, min_size=2, max_size=5))
    def ask_many(self, ids):
        row = SPEC.row([0.0])
        if any(self.model.asked.get(id, (row,))[0] != row for id in ids):
            with pytest.raises(ServeError) as caught:
                self.engine.predict([Ask(id, row) for id in ids]).result(10)
            assert caught.value.code == "conflict"
            return
        given = self.engine.predict([Ask(id, row) for id in ids]).result(10)
        fresh = list(dict.fromkeys(id for id in ids if id not in self.model.asked))
        for id in fresh:  # rows of one request come before the answers that waited for them
            self.model.asked[id] = (row, self.model._add("input", id), self.model.now)
        for key in sorted(key for key in self.model.waiting if key[0] in fresh):
            y, _ = self.model.waiting.pop(key)
            self.model.told[key] = (y, self.model._add("answer", key[0], y), False)
        assert [answered.seq for answered in given] == [self.model.asked[id][1] for id in ids]
        assert sum(not answered.duplicate for answered in given) == len(fresh)
        for answered in given:
            self.given.setdefault(answered.id, answered)
        self.settle()

    @rule(id=IDS, y=ANSWERS, revision=st.sampled_from([0, 0, 0, 1, 2]))
    def tell(self, id, y, revision):
        given, expected = self.both(
            lambda: self.engine.feedback([Told(id, y, revision)]).result(10)[0], lambda: self.model.tell(id, y, revision)
        )
        if given is not None:
            assert (given.seq, given.duplicate) == expected
            self.settle()

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0, 120.0]))
    def tick(self, seconds):
        self.model.tick(seconds)
        log, default = self.engine.log, self.engine.upkeep.default
        log.write(lambda connection: log.close_open(connection, HORIZON, default)).result()
        log.write(lambda connection: log.expire_early(connection, EARLY)).result()
        self.settle()

    # ---- operators -------------------------------------------------------------------------------------------------------

    @rule(
        back=st.integers(-1, 6), after=st.sampled_from(["replay", "skip", "quarantine"]), whole=st.booleans(), data=st.data()
    )
    def rollback(self, back, after, whole, data):
        version = len(self.model.kept) - 1 - back if back >= 0 else len(self.model.kept)
        version = max(version, 0)
        span = {}
        if not whole:
            low = data.draw(st.integers(0, self.model.last + 2))
            span = {"first": low, "last": data.draw(st.integers(low, self.model.last + 3))}
        given, _ = self.both(
            lambda: self.engine.rollback(version, "back", after, **span),
            lambda: self.model.rollback(version, after, *span.values()) or True,
        )
        if given is not None:
            assert given["after"] == version
            self.settle()

    @rule(low=st.integers(0, 30), length=st.integers(0, 60))
    def release(self, low, length):
        def twin():
            self.model.release(low, low + length)
            return True

        given, _ = self.both(lambda: self.engine.release(low, low + length, "good"), twin)
        if given is not None:
            self.settle()

    @rule(id=IDS, relearn=st.booleans())
    def erase(self, id, relearn):
        numbers = {number for number, event in self.model.events.items() if event[1] == id}
        given, expected = self.both(lambda: self.engine.erase(id, relearn=relearn), lambda: self.model.erase(id, relearn))
        if given is not None:
            assert (given["removed"], given["relearned"]) == expected
            self.given.pop(id, None)
            if not given["relearned"]:
                lines = [self.model.line, *(kept.line for kept in self.model.kept if kept.state != "pruned")]
                self.forgotten |= numbers & {number for line in lines for number in line.learned}
            self.settle()

    @rule()
    def pause(self):
        self.engine.pause("p")
        self.model.paused = True

    @precondition(lambda self: self.model.paused)
    @rule()
    def resume(self):
        self.engine.resume("r")
        self.model.paused = False
        self.settle()

    # ---- the machine -----------------------------------------------------------------------------------------------------

    @rule()
    def restart(self):
        self.engine.close()
        self.model.stop()
        self.open()
        self.settle()

    def kill(self):
        """End the threads where they stand; nothing is kept that was not kept before."""
        self.engine.learning.line.keep = lambda *given: None
        self.engine.close()

    @rule()
    def kill_and_recover(self):
        self.kill()
        self.open()
        self.settle()

    @precondition(lambda self: not self.forgotten)
    @rule(which=st.lists(st.integers(0, 5), min_size=1, max_size=4), how=st.sampled_from(["flip", "cut", "gone"]))
    def garble_and_recover(self, which, how):
        self.kill()
        files = sorted((self.folder / "versions").glob("*.json"), reverse=True)
        for place in set(which):
            if place < len(files):
                garble(files[place], how)
        self.open()
        self.settle()
        for number, kept in enumerate(self.model.kept):  # each can be made again from the log
            if kept.state != "pruned":
                assert self.engine.history.learner_state(number)["chain"] == kept.line.chain

    # ---- what always holds -----------------------------------------------------------------------------------------------

    @invariant()
    def they_are_alike(self):
        if self.engine is None:
            return
        model, status, history = self.model, self.engine.status(), self.engine.history
        counts = status["counts"]
        kinds = Counter(event[0] for event in model.events.values())
        assert (counts["inputs"], counts["answers"], counts["early_waiting"]) == (
            kinds["input"], kinds["answer"], len(model.waiting),
        )  # fmt: skip
        assert {key: counts[key] for key in model.counts} == model.counts
        assert counts["steps"] == model.steps
        learner, line = self.engine.learning.fold.learner, model.line
        assert learner.chain == line.chain
        assert (status["applied_seq"], status["branch"], status["version"]) == (line.applied, line.branch, model.service)
        assert len(set(line.learned)) == len(line.learned)
        assert not set(line.learned) & line.aside
        versions = history.versions()
        assert [str(version.state) for version in versions] == [kept.state for kept in model.kept]
        assert [version.parent for version in versions] == [kept.parent for kept in model.kept]
        assert all(version.parent < version.version for version in versions[1:])
        assert [version.version for version in versions if version.state == "active"] == [model.service]
        assert [version.applied_seq for version in versions] == [kept.line.applied for kept in model.kept]
        files = {int(path.stem) for path in (self.folder / "versions").glob("*.json")}
        assert files <= {number for number, kept in enumerate(model.kept) if kept.state != "pruned"}
        folded = [answer.seq for moment in history.lineage() for answer in moment.answers]
        assert folded == [number for number in line.learned if number in model.events]
        steps = self.engine.log.rows("SELECT branch, last, reason FROM step ORDER BY branch, number")
        for branch in {step[0] for step in steps}:
            ends = [last for number, last, reason in steps if number == branch and reason != "released"]
            assert ends == sorted(set(ends))


def garble(path, how):
    """Spoil the files of a version."""
    tensors = path.with_suffix(".safetensors")
    if how == "flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    else:
        path.unlink()


def many(examples, steps, **named):
    """Settings of a search."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        **named,
    )


def test_whatever_is_done_the_server_is_its_twin():
    run_state_machine_as_test(Server, settings=many(10, 25))


@pytest.mark.slow
def test_whatever_is_done_for_long_the_server_is_its_twin():
    run_state_machine_as_test(Server, settings=many(150, 60))


class Forgetful(Server):
    """The control: an engine that skips one answer of the log."""

    def open(self):
        super().open()
        moment = self.engine.log.moment

        def forgets(branch, number, first, last, holes=()):
            return moment(branch, number, first, last, (*holes, (5, 5)))

        self.engine.log.moment = forgets


@pytest.mark.parametrize("machine", [Server, Forgetful])
def test_the_twin_notices_one_answer_fewer(machine):
    """It shows as an answer that differs, or as a log that no longer gives the sha256 of a snapshot: whichever comes first."""
    walk = machine()

    def tell(id):
        walk.tell(id=id, y=1, revision=0)
        walk.they_are_alike()

    try:
        walk.begin(batch=1, every=1, keep=2, default=None)
        for id in ("r0", "r1", "r2"):
            walk.ask(id=id, x=0.0)
        tell("r0")  # number 4: nothing is forgotten so far
        if machine is Server:
            tell("r1")
        else:
            with pytest.raises((AssertionError, StateError)):
                tell("r1")  # number 5
    finally:
        walk.teardown()


@pytest.mark.slow
def test_the_search_finds_one_answer_fewer():
    with pytest.raises((AssertionError, StateError)):
        run_state_machine_as_test(Forgetful, settings=many(2000, 25, phases=[Phase.generate], report_multiple_bugs=False))
