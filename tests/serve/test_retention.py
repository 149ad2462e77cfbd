"""What is removed was not needed: by any restart, by the guard's way back, or by what was promised."""

import pytest

from everlearn.core.errors import StateError
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told

from .test_log_states import SPEC, Chain

DAY = 86_400.0


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(tmp_path, clock):
    opened = []

    def begin(**options):
        settings = {"batch": 2, "every": 3, "wait": None, "guard": False, "durability": "normal"} | options
        engine = LocalEngine(Chain(), SPEC, tmp_path / "one", Options(**settings), clock=clock)
        engine.wait_ready()
        opened.append(engine)
        return engine

    yield begin
    for engine in opened:
        engine.close()


def feed(engine, numbers):
    for number in numbers:
        engine.predict([Ask(f"r{number}", SPEC.row([0.0]))]).result(10)
        engine.feedback([Told(f"r{number}", number % 2)]).result(10)
    engine.learning.wake()
    assert engine.learned()


def kill(engine):
    engine.learning.line.keep = lambda *given: None
    engine.close()


def sweep(engine):
    """One round of housekeeping, now."""
    upkeep = engine.upkeep
    upkeep._tended = upkeep._swept = float("-inf")
    while upkeep._tended == float("-inf"):
        engine.learning.wake()
    engine.resume("the round is over when this is obeyed")


def files(engine):
    return engine.history.snapshots.numbers()


def test_old_versions_go_and_those_that_are_needed_stay(start):
    engine = start(keep=1)
    feed(engine, range(60))
    states = {version["version"]: version["state"] for version in engine.versions()}
    assert files(engine) == [0, 8, 9, 10]  # the first, one that is kept, the one before the newest, and the one in service
    assert [number for number, state in states.items() if state != "pruned"][::-1] == files(engine)
    assert states[10] == "active" and engine.learning.fold.parent == 9


@pytest.mark.parametrize("spoiled", [[10], [10, 9], [10, 9, 8, 7], [10, 9, 8, 7, 0]])
def test_with_few_versions_kept_all_of_them_may_be_spoiled(start, spoiled):
    engine = start(keep=1)
    feed(engine, range(61))
    chain = engine.learning.fold.learner.chain
    kill(engine)
    for number in spoiled:
        (engine.history.snapshots.folder / f"{number:09d}.json").write_text("{}")
    engine = start(keep=1)
    assert engine.learning.fold.learner.chain == chain and engine.status()["version"] == 10
    assert engine.predict([Ask("r3", SPEC.row([0.0]))]).result(10)[0].duplicate


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_days_remove_no_row_that_a_restart_needs(start, clock, extra):
    """`extra` answers were folded after the newest version; the newest version itself may be spoiled as well."""
    engine = start(keep_days=1.0, every=6)
    feed(engine, range(36 + 2 * extra))
    clock.now += 2 * DAY
    sweep(engine)
    counts = engine.status()["counts"]
    assert counts["inputs"] == counts["answers"] == 12 + 2 * extra  # all but what came after the second newest version
    chain, applied = engine.learning.fold.learner.chain, engine.status()["applied_seq"]
    kill(engine)
    newest = max(path for path in engine.history.snapshots.folder.glob("*.json"))
    newest.unlink()
    engine = start(keep_days=1.0, every=6)
    assert (engine.learning.fold.learner.chain, engine.status()["applied_seq"]) == (chain, applied)
    feed(engine, range(100, 120))
    assert engine.learning.fold.learner.counts["r0"] == 1


def test_without_days_nothing_goes(start, clock):
    engine = start()
    feed(engine, range(36))
    clock.now += 1000 * DAY
    sweep(engine)
    assert engine.status()["counts"]["inputs"] == 36


def test_where_rows_are_gone_a_spoiled_version_says_so_and_another_can_be_served(start):
    """Erased rows cannot be learned again; the server says what happened instead of serving something else."""
    engine = start(keep=10)
    feed(engine, range(25))
    engine.erase("r24")  # not folded yet: no version holds it
    engine.erase("r20")
    feed(engine, range(30, 40))
    kill(engine)
    folder = engine.history.snapshots.folder
    spoiled = [number for number in files(engine) if number >= 4]
    for number in spoiled:
        (folder / f"{number:09d}.json").unlink()
    engine = LocalEngine(Chain(), SPEC, folder.parent, engine.options, clock=engine.log.clock)
    with pytest.raises(StateError, match="erased or removed since; roll back"):
        engine.wait_ready(10)
    status = engine.status()
    assert status["learning"] == "failed" and "erased or removed" in status["fault"] and not status["ready"]
    assert engine.rollback(2, "as it was")["after"] == 2
    engine.wait_ready(10)
    assert engine.predict([Ask("new", SPEC.row([0.0]))]).result(10)[0].version == 2
    engine.close()
