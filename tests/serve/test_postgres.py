"""The log in Postgres keeps what SQLite keeps, its numbers come in the order of commits, and it says clearly why it cannot be used."""

import itertools
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from everlearn.core.errors import ServeError, StateError
from everlearn.serve import postgres
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.log import Log
from everlearn.serve.postgres import Postgres, lock_key, translated
from everlearn.serve.records import Ask, Told

from .engine_bench import MODELS, Bench
from .engine_contract import CONTRACT

NAMES = (f"model_{number}" for number in itertools.count())
QUICK = {
    "the_same_id_with_another_row_is_refused_and_nothing_of_the_request_stays",
    "answers_told_together_are_taken_all_or_none",
    "an_early_answer_waits_for_its_prediction",
    "clients_that_overlap_lose_nothing_and_double_nothing",
}


@pytest.fixture
def opener(server):
    names = {}

    def open_engine(model, folder, options):
        name = names.setdefault(folder, next(NAMES))
        database = Postgres(server.url(), options.durability, name=name)
        return LocalEngine(MODELS[model].make(), MODELS[model].spec, folder, options, database=database)

    return open_engine


@pytest.fixture
def database(server):
    made = Postgres(server.url(), name=next(NAMES))
    yield made
    made.close()


@pytest.fixture
def log(database):
    made = Log(database)
    yield made
    made.close()


def ask(log, id, x=b"x"):
    return log.keep([(Ask(id, x), {"answer": 1}, 0)])


@pytest.mark.parametrize(
    "rule",
    [pytest.param(rule, marks=() if rule.__name__ in QUICK else pytest.mark.slow) for rule in CONTRACT],
    ids=lambda rule: rule.__name__,
)
def test_it_keeps_the_contract_of_every_engine(rule, opener, tmp_path):
    with Bench(opener, tmp_path) as bench:
        rule(bench)


# ---- numbers -----------------------------------------------------------------------------------------------------------------


def watch_numbers(database, stop, late):
    """Look at numbers as they become visible, and gather those that came after a higher one had been seen."""
    seen, top, connection = set(), 0, database.connect()
    while True:
        last = stop.is_set()
        rows = {row[0] for row in connection.execute("SELECT seq FROM event").fetchall()}
        late.extend(seq for seq in rows - seen if seq < top)
        seen |= rows
        top = max(seen, default=0)
        if last:
            return


def test_numbers_become_visible_in_order_whoever_writes(server):
    name = next(NAMES)
    databases = [Postgres(server.url(), name=name) for _ in range(3)]
    logs = [Log(database) for database in databases[:2]]
    stop, late = threading.Event(), []
    watcher = threading.Thread(target=watch_numbers, args=(databases[2], stop, late))
    watcher.start()
    waiting = []
    for number in range(300):
        waiting += [ask(log, f"{place} {number}") for place, log in enumerate(logs)]
        if number % 3 == 0:
            [future.result(5) for future in waiting]
    [future.result(5) for future in waiting]
    stop.set()
    watcher.join()
    assert not late
    assert [row[0] for row in logs[0].rows("SELECT seq FROM event ORDER BY seq")] == list(range(1, 601))
    for log in logs:
        log.close()
    for database in databases:
        database.close()


def test_without_the_lock_of_the_transaction_they_would_not(server, log, database):
    """A control: two plain transactions, of which the one that drew its number first commits last."""
    insert = "INSERT INTO event (kind, id, revision, hash, created) VALUES ('input', %s, 0, '', 0) RETURNING seq"
    options = f"-c search_path={database.schema}"
    with psycopg.connect(server.url(), options=options) as slow, psycopg.connect(server.url(), options=options) as fast:
        first = slow.execute(insert, ("slow",)).fetchone()[0]
        second = fast.execute(insert, ("fast",)).fetchone()[0]
        fast.commit()
        assert [row[0] for row in log.rows("SELECT seq FROM event")] == [second] and first < second
        slow.commit()
    assert [row[0] for row in log.rows("SELECT seq FROM event ORDER BY seq")] == [first, second]


def test_one_waits_while_another_writes_and_is_refused_after_a_while(database, monkeypatch):
    monkeypatch.setattr(postgres, "BUSY_MS", 100)
    one, other = database.connect(), database.connect()
    database.begin(one)
    began = time.monotonic()
    with pytest.raises(database.faults):
        database.begin(other)
    assert 0.09 < time.monotonic() - began < 2.0
    other.execute("ROLLBACK")
    one.execute("COMMIT")
    database.begin(other)
    other.execute("COMMIT")
    one.close()
    other.close()


def test_a_process_that_stands_still_within_a_transaction_is_thrown_out(database, monkeypatch):
    monkeypatch.setattr(postgres, "IDLE_MS", 100)
    one, other = database.connect(), database.connect()
    database.begin(one)
    one.execute("CREATE TABLE half (x INTEGER)")
    time.sleep(0.3)
    database.begin(other)
    other.execute("COMMIT")
    with pytest.raises(database.faults):
        one.execute("COMMIT")
    assert other.execute("SELECT to_regclass('half')").fetchone()[0] is None
    one.close()
    other.close()


def test_a_transaction_that_failed_is_not_taken_for_committed(database):
    connection = database.connect()
    database.begin(connection)
    with pytest.raises(database.faults):
        connection.execute("SELECT nothing")
    with pytest.raises(database.faults, match="had failed, and was undone"):
        connection.execute("COMMIT")
    connection.close()


# ---- lost connections --------------------------------------------------------------------------------------------------------


def end_connections(server):
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'everlearn%'")


def test_a_connection_lost_within_a_group_fails_it_and_the_next_works(server, log):
    ask(log, "before").result(5)

    def cut(connection):
        connection.execute("INSERT INTO setting (name, value) VALUES ('half', 'done')")
        end_connections(server)
        connection.execute("SELECT 1")

    with pytest.raises(ServeError) as caught:
        log.write(cut).result(5)
    assert (caught.value.code, caught.value.status) == ("log_unavailable", 503)
    assert log.setting("half") == ""
    assert not ask(log, "after").result(5)[0].duplicate
    assert log.counts()["inputs"] == 2


def test_a_connection_lost_between_two_groups_goes_unnoticed(server, log):
    ask(log, "before").result(5)
    log.counts()
    end_connections(server)
    assert not ask(log, "after").result(5)[0].duplicate
    end_connections(server)
    assert log.counts()["inputs"] == 2


def test_while_the_server_is_away_requests_are_refused_and_nothing_of_them_stays(server, log):
    ask(log, "before").result(5)
    server.stop()
    try:
        for call in (lambda: ask(log, "lost").result(5), log.counts, lambda: log.tell([Told("before", 1)]).result(5)):
            with pytest.raises(ServeError, match="cannot be written") as caught:
                call()
            assert (caught.value.code, caught.value.status) == ("log_unavailable", 503) and caught.value.retry_after
            assert "secret" not in str(caught.value)
    finally:
        server.start()
    assert not ask(log, "lost").result(5)[0].duplicate
    assert (log.counts()["inputs"], log.counts()["answers"]) == (2, 0)


# ---- the lead ----------------------------------------------------------------------------------------------------------------


def comes_to_lead(database):
    """Whether it leads within ten seconds: the server hears of a closed connection a moment later."""
    end = time.monotonic() + 10
    while not database.lead():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_one_leads_until_it_closes_or_loses_its_session(server):
    name = next(NAMES)
    one, other, apart = (
        Postgres(server.url(), name=name),
        Postgres(server.url(), name=name),
        Postgres(server.url(), name=next(NAMES)),
    )
    assert [one.lead(), other.lead(), one.lead(), apart.lead()] == [True, False, True, True]
    assert (one.holds(), other.holds()) == (True, False)
    one.close()
    assert not one.holds() and comes_to_lead(other)
    end_connections(server)
    assert not other.holds()
    assert comes_to_lead(one) and not other.lead()
    server.restart()
    assert not one.holds()
    assert comes_to_lead(other) and not one.lead()
    for database in (one, other, apart):
        database.close()


def test_the_lead_goes_with_the_process(server):
    name = next(NAMES)
    lines = (
        "from everlearn.serve.postgres import Postgres",
        f"log = Postgres({server.url()!r}, name={name!r})",
        "print(log.lead(), flush=True)",
        "input()",
    )
    child = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "True\n"
    database = Postgres(server.url(), name=name)
    assert not database.lead()
    child.kill()
    child.communicate()
    end = time.monotonic() + 5
    while not database.lead():
        assert time.monotonic() < end
    database.close()


# ---- schemas -----------------------------------------------------------------------------------------------------------------


def test_two_models_share_a_database_and_know_nothing_of_each_other(server):
    databases = [Postgres(server.url(), name=next(NAMES)) for _ in range(2)]
    logs = [Log(database) for database in databases]
    assert [ask(log, "same", bytes([place])).result(5)[0].seq for place, log in enumerate(logs)] == [1, 1]
    assert [log.counts()["inputs"] for log in logs] == [1, 1]
    for log, database in zip(logs, databases, strict=True):
        log.close()
        database.close()


def test_logs_that_are_made_at_once_are_made_once(server):
    name, faults = next(NAMES), []
    databases = [Postgres(server.url(), name=name) for _ in range(6)]
    start = threading.Barrier(6)

    def make(database):
        start.wait()
        try:
            Log(database).close()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=make, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert server.execute(f"SELECT count(*) FROM {name}.setting")[0][0] == 1
    for database in databases:
        database.close()


def test_each_log_counts_what_the_other_writes_and_removes(server):
    name = next(NAMES)
    databases = [Postgres(server.url(), name=name) for _ in range(2)]
    one, other = (Log(database) for database in databases)
    for number in range(4):
        ask(one, f"{number}").result(5)
    assert [(log.counts()["inputs"], log.newest()) for log in (one, other)] == [(4, 4), (4, 4)]
    other.tell([Told("1", 1)]).result(5)
    one.write(lambda connection: one.erase(connection, "1")).result(5)
    ask(other, "new").result(5)
    for log in (one, other):
        assert (log.counts()["inputs"], log.counts()["answers"], log.newest()) == (4, 0, 6)
    one.write(lambda connection: one.forget_before(connection, one.clock() + 1, 2)).result(5)
    assert one.counts()["inputs"] == other.counts()["inputs"] == 3
    for log, database in zip((one, other), databases, strict=True):
        log.close()
        database.close()


def test_durability_is_that_of_the_commit(server):
    for durability, setting in (("full", "on"), ("normal", "off")):
        database = Postgres(server.url(), durability, name=next(NAMES))
        assert database.connect().execute("SHOW synchronous_commit").fetchone()[0] == setting
        database.close()


def test_readers_share_connections_and_give_them_back(server, log, database):
    threads = [threading.Thread(target=lambda: [log.counts() for _ in range(5)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine = f"application_name = 'everlearn {database.schema}'"
    end = time.monotonic() + 5
    while server.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {mine}")[0][0] > 1 + postgres.IDLE_READERS:
        assert time.monotonic() < end, "connections were left open"
        time.sleep(0.02)


def test_a_backup_holds_the_log_and_shows_no_password(server, log, database, tmp_path, monkeypatch):
    ask(log, "kept").result(5)
    database.backup(tmp_path / "copy")
    listed = subprocess.run(
        [server.bin / "pg_restore", "-f", "-", tmp_path / "copy"], capture_output=True, text=True, check=True
    )
    assert f"COPY {database.schema}.event" in listed.stdout and "\tkept\t" in listed.stdout
    seen = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda given, **named: seen.append(given) or run(given, **named))
    database.backup(tmp_path / "again")
    assert "secret" not in " ".join(map(str, seen[0]))
    with pytest.raises(StateError, match="pg_dump cannot copy database 'postgres'") as caught:
        database.backup(tmp_path / "no" / "folder")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StateError, match=r"needs the program pg_dump.*Install postgresql-client"):
        database.backup(tmp_path / "copy")


# ---- what cannot be used -----------------------------------------------------------------------------------------------------


def test_a_database_that_cannot_be_used_is_refused_with_a_fix(server):
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    cases = {
        server.url(password="wr0ng"): "does not accept the password of the user 'everlearn'. Put the right one into the URL",
        server.url("nowhere"): "there is no database 'nowhere' at 127.0.0.1.*Make it with: createdb nowhere",
        f"postgresql://someone:wr0ng@127.0.0.1:{server.port + 1}/x": "database 'x' at 127.0.0.1:.* cannot be reached .*Is Postgres",
        server.url(user="guest", password="guest"): "the user 'guest' may not make a schema.*Grant it CREATE",
    }
    for url, said in cases.items():
        for use in (Postgres(url).connect, Postgres(url).lead):
            with pytest.raises(StateError, match=said) as caught:
                use()
            assert "wr0ng" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ? FROM a WHERE b = ?", "SELECT %s FROM a WHERE b = %s"),
        ("SELECT (place - 1) % ? = 0", "SELECT (place - 1) %% %s = 0"),
        ("SELECT 'what?', '50%', ?", "SELECT 'what?', '50%%', %s"),
        ("SELECT 'it''s ?', ?", "SELECT 'it''s ?', %s"),
    ],
)
def test_statements_are_translated_outside_quotes(sql, expected):
    assert translated(sql) == expected


def test_locks_differ_by_purpose_and_schema():
    keys = {lock_key(purpose, name) for purpose in ("write", "lead") for name in ("a", "b")}
    assert len(keys) == 4 and all(-(2**63) <= key < 2**63 for key in keys)
