"""A process that forks servers and lets them be killed: at a named point, or after so many seconds.

It reads one JSON line per life from its standard input and answers with one: {"killed", "status"}. A life is an engine on a folder
with one client that goes through a fixed list of requests, notes each one that was acknowledged, and goes on from there the next time.
"""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

from everlearn.agents.uniform import Uniform
from everlearn.core import state
from everlearn.core.errors import ServeError
from everlearn.core.events import Batch
from everlearn.core.learner import Adapter, Learner
from everlearn.core.random import isolated
from everlearn.core.run import run
from everlearn.core.stream import Stream
from everlearn.data.served import served
from everlearn.learners.replay import Replay
from everlearn.learners.river_model import RiverModel
from everlearn.learners.sklearn_estimator import SklearnEstimator
from everlearn.optim.optimizers import Adam
from everlearn.serve.export import export
from everlearn.serve.fold import ServedFold, events_of
from everlearn.serve.history import History
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.line import Line
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told
from everlearn.serve.snapshots import Snapshots

SIDE, CLASSES = 4, ("ant", "bee", "cow")
POISON = 99  # a label that no learner takes
ACKNOWLEDGED, REPORT = "acknowledged", "report.json"


class Counting(Learner):
    """Counts how often each id was learned from, and chains all that it was told into one number: order matters."""

    name = "counting"
    parts = ("counts", "chain")

    def __init__(self):
        self.counts: dict[str, int] = {}
        self.chain = 7

    def predict(self, x):
        return torch.stack([torch.full((len(x),), float(self.chain % part)) for part in (3, 5, 7)], dim=1)

    def update(self, batch):
        if batch.y is None:
            return {}
        if int(batch.y.max()) == POISON:
            raise ValueError("poison")
        for id, y in zip(batch.id, batch.y.tolist(), strict=True):
            self.counts[id] = self.counts.get(id, 0) + 1
            self.chain = (self.chain * 1_000_003 + sum(map(ord, id)) * 31 + y) % (2**61 - 1)
        return {}

    def boundary(self, boundary):
        pass


class Centring(Adapter):
    """Learns the mean of its inputs as they are predicted, and the classes' scales from answers."""

    name = "centring"
    parts = ("mean", "seen", "weight")

    def __init__(self):
        self.mean = torch.zeros(SIDE, dtype=torch.float64)
        self.seen = 0
        self.weight = torch.eye(SIDE, dtype=torch.float64)[:, : len(CLASSES)].clone()

    def predict(self, x):
        return ((x.double() - self.mean) @ self.weight).float()

    def adapt(self, x):
        self.seen += len(x)
        self.mean = self.mean + (x.double() - self.mean).sum(dim=0) / self.seen
        return self.predict(x)

    def update(self, batch):
        if batch.y is None:
            return {}
        if int(batch.y.max()) == POISON:
            raise ValueError("poison")
        self.weight[:, batch.y] *= 1.01
        return {}

    def boundary(self, boundary):
        pass


def replay():
    """Dropout, Adam, a reservoir."""
    with isolated(0, "network"):
        network = nn.Sequential(nn.Linear(SIDE, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, len(CLASSES)))
        return Replay(network, capacity=20, replay_batch=8, optimizer=Adam(lr=0.01))


LEARNERS = {
    "counting": Counting,
    "replay": replay,
    "centring": Centring,
    "uniform": lambda: Uniform(actions=3),
    "sklearn": lambda: SklearnEstimator("SGDClassifier()", classes=len(CLASSES)),
    "river": lambda: RiverModel("naive_bayes.GaussianNB()", classes=len(CLASSES)),
}


def spec_of(learner):
    if learner == "uniform":
        return InputSpec("actions", (SIDE,), "float32")
    return InputSpec("classes", (SIDE,), "float32", classes=CLASSES)


def x_of(row):
    return torch.randn(SIDE, generator=torch.Generator().manual_seed(row)).numpy().tobytes()


def script(learner, rows):
    """What the client does: asks and tells in a fixed order, with doubles, early and late answers, corrections and contradictions."""
    poison = float("inf") if learner == "uniform" else POISON
    y = (lambda row: row / 8) if learner == "uniform" else (lambda row: row * 7 % 3)
    steps = []
    for row in range(rows):
        late = row - 3
        if row % 11 == 3:
            steps.append(("tell", row, y(row), 0))
        steps.append(("ask", row))
        if row % 7 == 2:
            steps.append(("ask", row))
        if late >= 0 and late % 13 != 5:
            steps.append(("tell", late, y(late), 0))
        if row % 9 == 4:
            steps.append(("tell", late, y(late), 0))
        if row % 10 == 6:
            steps.append(("tell", row - 4, y(row), 1))
        if row % 17 == 8 and late % 13 != 5:
            steps.append(("contradict", late, y(late + 1), 0))
        part = row / rows
        if row == rows * 4 // 10:
            steps += [("command", "rollback", {"back": 2, "reason": "one", "after": "quarantine"})]
        if row == rows * 5 // 10:
            steps += [("command", "release", {"first": 1, "last": 10**9, "reason": "two"})]
        if row == rows * 6 // 10:
            steps += [("command", "rollback", {"back": 3, "reason": "three", "after": "replay"})]
        if row == rows * 7 // 10:
            steps += [("erase", f"r{row - 9}")]
        if row == rows * 8 // 10:
            steps += [("tell", row, poison, 2)]
        if part > 0.85 and row % 13 == 5:
            steps.append(("tell", row, y(row), 0))  # one that was thought never to come
    return steps


OPTIONS = {
    "batch": 4, "every": 3, "wait": None, "least": 20, "window": 40, "margin": 1.0, "keep": 4, "durability": "normal",
}  # fmt: skip


class FlakyDisk:
    """A disk that is full now and then: no file may grow beyond `limit` bytes while it is."""

    def __init__(self, limit, seconds):
        self.limit, self.seconds = limit, seconds
        self.refusals = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *fault):
        self._over.set()
        self._thread.join()

    def _run(self):
        source = random.Random(0)
        while not self._over.is_set():
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))
            self._over.wait(source.uniform(0.2, 1.0) * self.seconds)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            self._over.wait(source.uniform(0.2, 1.0) * self.seconds)

    def through(self, engine, step):
        """A request, again and again until it is taken."""
        while True:
            try:
                return perform(engine, step)
            except ServeError as refusal:
                assert (refusal.code, refusal.status) in (("log_unavailable", 503), ("not_ready", 503)), refusal
                self.refusals += 1
                time.sleep(0.01)


def live_on_a_flaky_disk(folder, learner, rows, limit, seconds):
    """One life on a disk that is full every now and then."""
    spec = spec_of(learner)
    engine = LocalEngine(LEARNERS[learner](), spec, folder, Options(**OPTIONS), clock=lambda: 1e9)
    engine.wait_ready()
    told = []
    with FlakyDisk(limit, seconds) as disk:
        for number, step in enumerate(script(learner, rows)):
            told.append(json.dumps([number, disk.through(engine, step)]))
    (folder / ACKNOWLEDGED).write_text("\n".join(told) + "\n")
    engine.wait_ready()
    assert engine.learned()
    report(engine, folder, learner, spec, refusals=disk.refusals)
    engine.close()


def live(folder, learner, rows, **named):
    """One life: serve, be asked and told from where it was left, and report when the list is done."""
    spec = spec_of(learner)
    options = Options(**(OPTIONS | named))
    engine = LocalEngine(LEARNERS[learner](), spec, folder, options, clock=lambda: 1e9)
    engine.wait_ready()
    note = os.open(folder / ACKNOWLEDGED, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    done = (folder / ACKNOWLEDGED).read_text().count("\n")
    for number, step in enumerate(script(learner, rows)):
        if number >= done:
            told = perform(engine, step)
            os.write(note, f"{json.dumps([number, told])}\n".encode())
    assert engine.learned()
    report(engine, folder, learner, spec)
    engine.close()


def perform(engine, step):
    """One request, in a way that may be repeated; gives [id, seq] of what was accepted."""
    word, *given = step
    if word == "ask":
        answered = engine.predict([Ask(f"r{given[0]}", x_of(given[0]))]).result(60)[0]
        return [answered.id, answered.seq]
    if word == "tell":
        row, y, revision = given
        receipt = engine.feedback([Told(f"r{row}", y, revision)]).result(60)[0]
        return [receipt.id, receipt.seq]
    if word == "contradict":
        row, y, revision = given
        try:
            engine.feedback([Told(f"r{row}", y, revision)]).result(60)
        except ServeError as refusal:
            assert refusal.code == "conflict", refusal
            return None
        raise AssertionError("a contradiction was taken")
    engine.wait_ready()
    engine.learning.wake()
    assert engine.learned()
    if word == "erase":
        try:
            engine.erase(given[0], relearn=True, reason="asked to")
        except ServeError as refusal:
            assert refusal.code == "unknown_id", refusal  # the answer of the first time was lost
        return None
    command, body = given
    if not any(decision["reason"].startswith(body["reason"]) for decision in engine.decisions(1000)):
        if "back" in body:  # so many versions before the newest
            standing = [version["version"] for version in engine.versions() if version["state"] != "pruned"]
            body = {key: value for key, value in body.items() if key != "back"} | {"version": standing[body["back"]]}
        getattr(engine, command)(**body)
    return None


class Lived(Stream):
    """The events behind the learner as it stands."""

    def __init__(self, history, spec):
        self.name, self.schema = "lived", spec.schema
        self.events = [event for moment in history.lineage() for event in events_of(moment, spec)]

    def __len__(self):
        return len(self.events)

    def __getitem__(self, index):
        return self.events[index]


def report(engine, folder, learner, spec, **more):
    """What became of it all, for the comparison with the server that nobody killed."""
    log, history = engine.log, engine.history
    exported = export(history.lineage(), folder / "log.parquet", spec, model=learner, seed=0, force=True)
    line = list(history.lineage())
    versions = [
        [
            getattr(version, name)
            for name in ("version", "parent", "branch", "number", "applied_seq", "sha256", "state", "score")
        ]
        for version in history.versions()
    ]
    content = more | {
        "alarms": engine.alarms(1000),
        "sha256": engine.learning.fold.sha256(),
        "service": engine.status()["version"],
        "offline": run(LEARNERS[learner](), Lived(history, spec)).sha256,
        "exported": run(LEARNERS[learner](), served(exported.path)).sha256,
        "events": [list(row) for row in log.rows("SELECT seq, kind, id, revision, y, source FROM event ORDER BY seq")],
        "early": log.counts()["early_waiting"],
        "steps": [
            list(row) for row in log.rows("SELECT branch, number, first, last, reason FROM step ORDER BY branch, number")
        ],
        "versions": versions,
        "decisions": [
            list(row) for row in log.rows("SELECT action, from_version, to_version, reason FROM decision ORDER BY number")
        ],
        "files": sorted(path.name for path in (folder / "versions").iterdir()),
        "learned": [[answer.id, answer.revision, answer.seq] for moment in line for answer in moment.answers],
        "answers": engine.status()["counts"]["answers"],
        "aside": [list(hole) for hole in engine.learning.branch.holes],
    }
    if learner == "counting":
        content["counts"] = engine.learning.fold.learner.counts
    (folder / REPORT).write_text(json.dumps(content))


# ---- where it may end --------------------------------------------------------------------------------------------------------


def end():
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # a signal to oneself may take a moment


class Ending:
    """Wraps a function so that the process ends before or after its nth call that counts."""

    def __init__(self, nth):
        self.left = nth

    def wrap(self, owner, name, *, after=False, counts=lambda given: True):
        inner = getattr(owner, name)

        def wrapped(*given, **named):
            hit = counts(given) and self._hit()
            if hit and not after:
                end()
            result = inner(*given, **named)
            if hit:
                end()
            return result

        setattr(owner, name, wrapped)

    def _hit(self):
        self.left -= 1
        return self.left == 0


def tensors(given):
    return str(given[0]).endswith(".safetensors")


def record(given):
    return Path(given[0]).suffix == ".json"


def arrange(point, nth):
    """Let this process end at a point."""
    ending = Ending(nth)
    later = threading.local()

    def in_transaction(given):
        return getattr(later, "on", False)

    def mark(owner, name, counts=lambda given: True):
        """Have the commit count that follows a call."""
        inner = getattr(owner, name)

        def wrapped(*given, **named):
            result = inner(*given, **named)
            later.on = counts(given)
            return result

        setattr(owner, name, wrapped)

    if point == "before commit":
        ending.wrap(Log, "commit")
    elif point == "after commit, before the answer":
        ending.wrap(Log, "commit", after=True)
    elif point == "after the row of a step":
        ending.wrap(Line, "step", after=True)
    elif point == "in the middle of an update":
        from everlearn.core.run import Fold

        ending.wrap(Fold, "step", after=True)
    elif point == "after an update":
        ending.wrap(ServedFold, "apply", after=True)
    elif point == "between the files of a version":
        ending.wrap(state, "write_atomic", after=True, counts=tensors)
    elif point == "before the rename":
        ending.wrap(os, "replace", counts=lambda given: str(given[1]).endswith(".json"))
    elif point == "after the rename":
        ending.wrap(state, "write_atomic", after=True, counts=record)
    elif point == "before the row of a version":
        ending.wrap(History, "add_version")
    elif point == "in the transaction of a version":
        mark(History, "add_version")
        ending.wrap(Log, "commit", counts=in_transaction)
    elif point == "after the row of a version":
        ending.wrap(Line, "keep", after=True)
    elif point == "in the transaction of a branch":
        mark(History, "add_branch")
        ending.wrap(Log, "commit", counts=in_transaction)
    elif point == "after the row of a branch":
        ending.wrap(Line, "begin_branch", after=True)
    elif point == "after the decision to release":
        ending.wrap(Line, "release", after=True)
    elif point == "among released pieces":
        ending.wrap(Line, "step", after=True, counts=lambda given: given[3] == "released")
    elif point == "before a poisoned step is set aside":
        from everlearn.serve.learning import Learning

        ending.wrap(Learning, "_set_aside")
    elif point == "before old versions are chosen":
        ending.wrap(Line, "prune")
    elif point == "before the files of a version go":
        ending.wrap(Snapshots, "remove")
    else:
        raise AssertionError(point)


def fork(life):
    child = os.fork()
    if child == 0:
        try:
            os.dup2(2, 1)  # standard output is the parent's
            if life.get("point"):
                arrange(life["point"], life["nth"])
            place = Path(life["folder"]), life["learner"], life["rows"]
            if "flaky" in life:
                live_on_a_flaky_disk(*place, **life["flaky"])
            else:
                live(*place, **life.get("options", {}))
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
    if life.get("seconds") is not None:
        until = time.monotonic() + life["seconds"]
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def warm():
    """Let libraries load what they load at their first step, once for all lives."""
    import scipy.special  # noqa: F401

    for learner in ("replay", "sklearn", "river"):
        made, spec = LEARNERS[learner](), spec_of(learner)
        made.update(Batch(spec.tensor([x_of(row) for row in range(4)]), torch.tensor([0, 1, 2, 0])))


def main():
    torch.set_num_threads(1)
    warm()
    for line in sys.stdin:
        status = fork(json.loads(line))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"killed": killed, "status": status}), flush=True)


if __name__ == "__main__":
    main()
