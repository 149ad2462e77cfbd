"""Several processes on one log: nothing lost, nothing twice, one of them learns, and another takes over when it ends."""

import itertools
import random
import threading
import time

import pytest

from everlearn.core.errors import ServeError, StateError
from everlearn.core.events import Batch
from everlearn.core.state import digest
from everlearn.serve.fold import events_of
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.postgres import Postgres
from everlearn.serve.records import Ask, Told

from .engine_bench import MODELS, row, until
from .postgres_child import Child, go, listen

MODEL = MODELS["classes"]
OPTIONS = {"batch": 4, "every": 2, "wait": None, "guard": False}
NAMES = (f"shared_{number}" for number in itertools.count())


@pytest.fixture
def shared(server, tmp_path):
    """Opens engines and child processes on one log and one folder, and ends them."""
    place = Shared(server, tmp_path / "served")
    yield place
    for child in place.children:
        child.end()
    for engine in place.engines:
        engine.close()


class Shared:
    def __init__(self, server, folder):
        self.server, self.folder, self.schema = server, folder, next(NAMES)
        self.engines, self.children = [], []

    def database(self):
        return Postgres(self.server.url(), name=self.schema)

    def engine(self, folder=None, **options):
        made = LocalEngine(
            MODEL.make(), MODEL.spec, folder or self.folder, Options(**OPTIONS | options), database=self.database()
        )
        self.engines.append(made)
        return made

    def shut(self, engine):
        self.engines.remove(engine)
        engine.close()

    def child(self):
        made = Child(self.server.url(), self.schema, self.folder, OPTIONS)
        self.children.append(made)
        return made

    def rows(self, sql):
        return self.server.execute(sql.replace("FROM ", f"FROM {self.schema}."))

    def end_lead(self):
        """End the session of the process that learns, from the server's side."""
        name = f"everlearn {self.schema} lead"
        self.server.execute(
            f"SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory'"
            f" AND l.granted WHERE a.application_name = '{name}'"
        )


def leader_first(shared):
    """Two engines in this process: the one that learns, and one that follows."""
    first = shared.engine()
    first.wait_ready()
    second = shared.engine()
    second.wait_ready()
    assert (first.status()["learning"], second.status()["learning"]) == ("running", "following")
    return first, second


def cut_by_hand(shared):
    """sha256 after folding the table of events in groups of four answers, inputs first: the fold, written anew."""
    learner, spec = MODEL.make(), MODEL.spec
    asked, inputs, answers = {}, [], []
    for kind, id, x, y in shared.rows("SELECT kind, id, x, y FROM event ORDER BY seq"):
        if kind == "input":
            asked[id] = bytes(x)
            inputs.append(id)
            continue
        answers.append((id, int(y)))
        if len(answers) == OPTIONS["batch"]:
            if inputs:
                learner.update(Batch(spec.tensor([asked[name] for name in inputs]), id=tuple(inputs)))
            x = spec.tensor([asked[name] for name, _ in answers])
            learner.update(Batch(x, spec.answers([y for _, y in answers]), id=tuple(name for name, _ in answers)))
            inputs, answers = [], []
    return digest(learner.state_dict())


def lineage_folded(engine):
    learner = MODEL.make()
    for moment in engine.history.lineage():
        for event in events_of(moment, MODEL.spec):
            learner.update(event)
    return digest(learner.state_dict())


def hold_whole(shared, taken, numbers):
    """Nothing lost, nothing twice; every receipt names the row that stands in the log."""
    stored = shared.rows("SELECT id, kind, seq FROM event")
    assert len(stored) == 2 * len(set(numbers))
    where = {(id, kind): seq for id, kind, seq in stored}
    assert len(where) == len(stored)
    for number, asked, told, *_ in taken:
        assert where[f"r{number}", "input"] == asked and where[f"r{number}", "answer"] == told
    for place, kind in ((3, "input"), (4, "answer")):
        new = [item[0] for item in taken if item[place]]
        assert len(new) == len(set(new)), kind


# ---- following ---------------------------------------------------------------------------------------------------------------


def test_a_follower_serves_what_the_leader_learned_and_takes_rows_itself(shared):
    first, second = leader_first(shared)
    taken = go(first, range(40)) + go(second, range(40, 80))
    assert first.learned() and second.learned()
    hold_whole(shared, taken, range(80))
    assert first.learning.fold.sha256() == cut_by_hand(shared) == lineage_folded(second)
    until(lambda: second.status()["version"] == first.status()["version"] == 10)
    ids = [Ask("both", row(500)[0])]
    one, other = first.predict(ids).result(5)[0], second.predict(ids).result(5)[0]
    assert one.version == 10 and (other.output, other.duplicate) == (one.output, True)
    fresh = second.predict([Ask("fresh", row(501)[0])]).result(5)[0]
    assert fresh.version == 10 and fresh.output == first.predict([Ask("again", row(501)[0])]).result(5)[0].output


def test_the_status_of_a_follower_is_that_of_the_leader(shared):
    first, second = leader_first(shared)
    go(second, range(30))
    assert second.learned()
    told = first.status()
    until(lambda: second.status()["applied_seq"] == told["applied_seq"])
    heard = second.status()
    for key in ("version", "branch", "applied_seq", "last_seq", "score", "guard", "counts"):
        if key == "counts":
            told[key].pop("duplicates"), heard[key].pop("duplicates")
        assert heard[key] == told[key], key
    assert (heard["lag"]["answers"], heard["learning"], heard["ready"], heard["fault"]) == (2, "following", True, None)


def test_a_swap_reaches_followers_within_a_quarter_of_a_second(shared):
    first, second = leader_first(shared)
    go(first, range(24))
    assert first.learned()
    until(lambda: second.predicting.version == first.predicting.version == 3)
    first.rollback(1, "too early", "skip")
    began = time.monotonic()
    until(lambda: second.predicting.version == 1)
    assert time.monotonic() - began < 0.5  # a quarter, and as much again for a busy machine


def test_a_follower_without_the_versions_says_so_and_does_not_serve(shared, tmp_path):
    first = shared.engine()
    first.wait_ready()
    go(first, range(8))
    assert first.learned()
    lonely = shared.engine(tmp_path / "elsewhere")
    until(lambda: lonely.learning.fault is not None)
    assert "version 1, which is in service, cannot be read" in lonely.learning.fault
    assert "must share that folder" in lonely.learning.fault and not lonely.ready
    with pytest.raises(ServeError, match="not recovered"):
        lonely.predict([Ask("x", row(1)[0])])


def test_another_model_is_refused_a_log_in_use(shared):
    shared.engine().wait_ready()
    other = MODELS["values"]
    with pytest.raises(StateError, match="holds the log of another model"):
        LocalEngine(other.make(), other.spec, shared.folder, Options(), database=shared.database())


def test_engines_that_start_together_make_one_log(shared):
    made, faults = [], []

    def start():
        try:
            made.append(shared.engine())
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    for engine in made:
        engine.wait_ready()
    assert sorted(engine.learning.state for engine in made) == ["following"] * 3 + ["running"]
    assert shared.rows("SELECT count(*) FROM version")[0][0] == shared.rows("SELECT count(*) FROM branch")[0][0] == 1


# ---- commands ----------------------------------------------------------------------------------------------------------------


def test_commands_through_a_follower_are_carried_out_by_the_leader(shared):
    first, second = leader_first(shared)
    go(second, range(24))
    assert second.learned()
    decision = second.rollback(1, "a bad label", who="ann")
    assert (decision["action"], decision["after"], decision["who"]) == ("rollback", 1, "ann")
    assert first.status()["version"] == 1 and first.status()["branch"] == 1
    second.release(17, 48, "they were good")
    assert first.learned() and first.learning.fold.sha256() == cut_by_hand(shared)
    second.pause("lunch")
    assert first.status()["learning"] == "paused"
    second.resume("back")
    assert first.status()["learning"] == "running"
    assert second.erase("r3")["removed"] == 2
    told = [item["action"] for item in second.decisions() if item["who"] != "guard"]
    assert told == ["erase", "resume", "pause", "release", "rollback"]
    assert first.status()["counts"]["inputs"] == second.status()["counts"]["inputs"] == 23
    assert shared.rows("SELECT count(*) FROM command")[0][0] == 0


def test_refusals_come_back_as_they_were(shared):
    _, second = leader_first(shared)
    for call, code, status in (
        (lambda: second.rollback(9, "x"), "unknown_version", 404),
        (lambda: second.release(1, 2, "x"), "nothing_set_aside", 409),
        (lambda: second.erase("nobody"), "unknown_id", 404),
    ):
        with pytest.raises(ServeError) as caught:
            call()
        assert (caught.value.code, caught.value.status) == (code, status)


# ---- taking over -------------------------------------------------------------------------------------------------------------


def test_a_follower_takes_over_when_the_leader_stops(shared):
    first, second = leader_first(shared)
    go(first, range(30))
    shared.shut(first)
    began = time.monotonic()
    until(lambda: second.status()["learning"] == "running")
    assert time.monotonic() - began < 2.0
    go(second, range(30, 48))
    assert second.learned()
    assert second.learning.fold.sha256() == cut_by_hand(shared) == lineage_folded(second)


def test_a_leader_that_loses_its_session_gives_way_and_what_it_writes_is_refused(shared):
    first, second = leader_first(shared)
    go(first, range(10))
    learning, term = first.learning._learning, first.log.term
    shared.end_lead()
    until(lambda: learning.ended)
    until(lambda: sorted(engine.learning.state for engine in (first, second)) == ["following", "running"])
    go(first, range(10, 20))
    go(second, range(20, 28))
    leader, follower = (first, second) if first.learning.leads else (second, first)
    assert leader.learned()
    assert leader.learning.fold.sha256() == cut_by_hand(shared)
    steps = shared.rows("SELECT count(*) FROM step")[0][0]
    follower.log.term = term  # as one would write that has not heard of it
    sql = "INSERT INTO step (branch, number, first, last, reason, created) VALUES (0, 99, 1, 2, 'late', 0)"
    with pytest.raises(ServeError, match="another process learns now"):
        follower.log.write(lambda connection: connection.execute(sql), leading=True).result(5)
    assert shared.rows("SELECT count(*) FROM step")[0][0] == steps == 7
    with pytest.raises(ServeError, match="another process learns now"):
        learning.ask("pause", {"paused": True, "reason": "", "who": ""})


@pytest.mark.slow
def test_the_database_restarted_in_the_middle_loses_nothing(shared):
    first, second = leader_first(shared)
    results = [None, None]

    def work(place, engine, numbers):
        results[place] = go(engine, numbers)

    threads = [
        threading.Thread(target=work, args=(0, first, range(60))),
        threading.Thread(target=work, args=(1, second, range(40, 100))),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    shared.server.stop("QUIT")  # at once, as in a crash
    with pytest.raises(ServeError) as caught:
        first.status()
    assert (caught.value.code, caught.value.status) == ("log_unavailable", 503)
    shared.server.start()
    for thread in threads:
        thread.join(60)
    assert None not in results
    until(lambda: sorted(engine.learning.state for engine in (first, second)) == ["following", "running"])
    leader = first if first.learning.leads else second
    assert leader.learned()
    hold_whole(shared, results[0] + results[1], range(100))
    assert leader.learning.fold.number == 25
    assert leader.learning.fold.sha256() == cut_by_hand(shared) == lineage_folded(first)


# ---- processes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_that_overlap_lose_nothing_and_double_nothing(shared):
    children = [shared.child(), shared.child()]
    assert [child.hear() for child in children] == ["ready", "ready"]
    numbers = (range(200), range(120, 320))
    for child, rows in zip(children, numbers, strict=True):
        child.tell("go", numbers=list(rows))
    heard = [listen(child) for child in children]
    for thread, _ in heard:
        thread.join(120)
    taken = heard[0][1] + heard[1][1]
    hold_whole(shared, taken, range(320))
    twice = [number for number, _, _, new, _ in heard[0][1] if not new] + [
        number for number, _, _, new, _ in heard[1][1] if not new
    ]
    assert sorted(set(twice)) == list(range(120, 200))
    until(lambda: all(child.ask("status")["lag"]["answers"] == 0 for child in children))
    states = sorted(child.ask("status")["learning"] for child in children)
    assert states == ["following", "running"]
    watcher = shared.engine()
    watcher.wait_ready()
    assert watcher.learned()
    newest = watcher.versions()[0]
    assert newest["applied_seq"] == shared.rows("SELECT max(seq) FROM event")[0][0]
    assert newest["sha256"] == cut_by_hand(shared) == lineage_folded(watcher)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.15, 0.6])
def test_a_killed_leader_is_followed_by_another_with_the_same_weights(shared, after):
    leader = shared.child()
    assert leader.hear() == "ready"
    follower = shared.engine()
    follower.wait_ready()
    assert follower.learning.state == "following"
    leader.tell("go", numbers=list(range(2000)))
    thread, taken = listen(leader)
    mine = go(follower, range(2000, 2030))
    time.sleep(after)
    leader.kill()
    killed = time.monotonic()
    until(lambda: follower.learning.state == "running")
    took_over = time.monotonic() - killed
    thread.join(10)
    assert taken and took_over < 2.0
    mine += go(follower, range(2030, 2060))
    assert follower.learned()
    stored = {id for (id,) in shared.rows("SELECT id FROM event WHERE kind = 'answer'")}
    assert stored >= {f"r{item[0]}" for item in taken + mine}
    assert follower.learning.fold.sha256() == cut_by_hand(shared) == lineage_folded(follower)
    print(f"took over in {took_over:.2f} s after {len(taken)} rows")


@pytest.mark.slow
def test_leaders_killed_one_after_another_lose_nothing_and_double_nothing(shared):
    """Two processes take rows all the time; the one that learns is killed at a random moment, and a new one comes."""
    chance, taken, next_number = random.Random(0), [], 0
    standing = [shared.child(), shared.child()]
    assert [child.hear() for child in standing] == ["ready", "ready"]
    for _ in range(3):
        leader = next(child for child in standing if child.ask("status")["learning"] == "running")
        numbers = {
            child: range(next_number + 60 * place, next_number + 40 * place + 60) for place, child in enumerate(standing)
        }
        next_number += 100
        heard = {}
        for child in standing:
            child.tell("go", numbers=list(numbers[child]))
            heard[child] = listen(child)
        time.sleep(chance.uniform(0.0, 0.5))
        leader.kill()
        for thread, rows in heard.values():
            thread.join(60)
            taken += rows
        other = next(child for child in standing if child is not leader)
        other.tell("go", numbers=list(numbers[leader]))  # as its clients would
        taken += other.taken()
        standing = [other, shared.child()]
        assert standing[1].hear() == "ready"
    watcher = shared.engine()
    watcher.wait_ready()
    until(lambda: standing[0].ask("status")["lag"]["answers"] < OPTIONS["batch"])
    assert watcher.learned()
    for child in standing:
        child.ask("close")
    hold_whole(shared, taken, range(next_number))
    until(lambda: watcher.learning.state == "running")
    assert watcher.learned()
    assert watcher.learning.fold.sha256() == cut_by_hand(shared) == lineage_folded(watcher)


def test_a_version_overwritten_by_one_that_led_before_is_made_again(shared):
    first, second = leader_first(shared)
    go(first, range(24))
    assert first.learned()
    row, snapshots = first.history.version(2), first.history.snapshots
    assert first.history.snapshot(row) is not None
    snapshots.save(2, snapshots.load(1))
    assert first.history.snapshot(row) is None and second.history.snapshot(row) is None
    second.rollback(2, "it is fine")
    until(lambda: second.predicting.version == 2)
    assert digest(second.predicting._service[1].state_dict()) == row.sha256
    assert digest(snapshots.load(2)["fold"]["learner"]) == row.sha256


# ---- feedback told to two processes ------------------------------------------------------------------------------------------


def test_conflicts_duplicates_and_early_answers_are_the_same_whoever_is_told(shared):
    first, second = leader_first(shared)
    asked = first.predict([Ask("a", row(1)[0])]).result(5)[0]
    with pytest.raises(ServeError) as caught:
        second.predict([Ask("a", row(2)[0])]).result(5)
    assert caught.value.code == "conflict"
    told = second.feedback([Told("a", 1)]).result(5)[0]
    again = first.feedback([Told("a", 1)]).result(5)[0]
    assert (told.duplicate, again.duplicate, again.seq) == (False, True, told.seq) and told.seq > asked.seq
    with pytest.raises(ServeError) as caught:
        first.feedback([Told("a", 2)]).result(5)
    assert caught.value.code == "conflict"
    assert not first.feedback([Told("early", 1)]).result(5)[0].joined
    with pytest.raises(ServeError) as caught:
        second.feedback([Told("early", 2)]).result(5)
    assert caught.value.code == "conflict"
    late = second.predict([Ask("early", row(3)[0])]).result(5)[0]
    assert first.feedback([Told("early", 1)]).result(5)[0].seq == late.seq + 1
