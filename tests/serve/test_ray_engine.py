"""The engine on Ray: the contract of every engine, and workers that are killed. One cluster of this machine's own serves all tests."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from everlearn.core.errors import ArgumentError, MissingExtraError, ServeError, StateError
from everlearn.serve.database import SQLite
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.ray_engine import RayEngine, join
from everlearn.serve.records import Ask, Told

from . import engine_bench
from .engine_bench import MODELS, PATIENCE, Bench, ask, folded, go, refused, row, settle, tell, until, weights
from .engine_contract import CONTRACT

pytestmark = pytest.mark.xdist_group("ray")
SETTINGS = {"batch": 4, "every": 2, "wait": None, "guard": False}


@pytest.fixture(scope="module")
def cluster():
    """Ray, with workers that get the learners of the bench by value: test modules cannot be imported there."""
    ray, began = join(None)
    ray.cloudpickle.register_pickle_by_value(engine_bench)
    yield ray
    ray.cloudpickle.unregister_pickle_by_value(engine_bench)
    if began:
        ray.shutdown()


@pytest.fixture
def serve(cluster, tmp_path):
    """Opens engines, and ends their actors."""
    opened = []

    def open(model="classes", place="one", replicas=2, **named):
        options = Options(**(SETTINGS | named.pop("options", {})))
        served = MODELS[model]
        engine = RayEngine(
            served.make, served.spec, tmp_path / place, options, key=f"{tmp_path.name}-{place}", replicas=replicas, **named
        )
        opened.append(engine)
        engine.wait_ready()
        return engine

    yield open
    for engine in opened:
        engine.shutdown()


def opener(model, folder, options, **named):
    served = MODELS[model]
    key = f"{folder.parent.name}-{folder.name}"
    engine = RayEngine(served.make, served.spec, folder, options, key=key, replicas=1, **named)
    engine.close = engine.shutdown  # the contract's close is the end of a server, not only of one who asks
    return engine


def kill(engine, worker):
    """SIGKILL the process of the owner (0) or of a replica (1, 2, ...); gives its pid."""
    pid = engine.workers()[worker]["pid"]
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_it_keeps_the_contract(rule, cluster, tmp_path):
    with Bench(opener, tmp_path) as bench:
        rule(bench)


@pytest.mark.slow
def test_the_same_log_gives_the_versions_of_one_process(serve, tmp_path):
    on_ray = serve()
    go(on_ray, range(60))
    with LocalEngine(MODELS["classes"].make(), on_ray.spec, tmp_path / "here", on_ray.options) as here:
        here.wait_ready()
        go(here, range(60))
        names = ("version", "parent", "number", "applied_seq", "sha256", "state")
        there, ours = ([[row[name] for name in names] for row in engine.versions()] for engine in (on_ray, here))
        assert there == ours and len(ours) == 8
        assert on_ray.status()["model"] == here.status()["model"] and on_ray.status()["engine"] == "ray"
    assert weights(on_ray) == folded("classes", range(56))


@pytest.mark.slow
def test_an_owner_killed_in_the_middle_loses_nothing_and_is_the_one_that_was_not(serve):
    engine = serve()
    pids = []

    def killer():
        for limit in (20, 60, 100):
            until(lambda limit=limit: len(done) >= limit)
            pids.append(kill(engine, 0))

    done, receipts = [], []
    thread = threading.Thread(target=killer)
    thread.start()
    for number in range(144):
        asked, told = ask(engine, number), tell(engine, number)
        receipts.append((asked.seq, told.seq))
        done.append(number)
    thread.join()
    settle(engine)
    assert len(set(pids)) == 3 and engine.workers()[0]["pid"] not in pids
    assert receipts == [(2 * number + 1, 2 * number + 2) for number in range(144)]
    status = engine.status()
    assert (status["counts"]["inputs"], status["counts"]["answers"], status["counts"]["steps"]) == (144, 144, 36)
    assert weights(engine) == folded("classes", range(144))
    again = ask(engine, 7)
    assert again.duplicate and again.seq == 15


@pytest.mark.slow
def test_many_clients_and_killed_workers_lose_nothing_and_double_nothing(serve, tmp_path):
    engine = serve()
    told = []

    def client(part):
        for number in range(1000 * part, 1000 * part + 80):
            asked = ask(engine, number)
            told.append((number, asked.seq, tell(engine, number).seq))

    def killer():
        for worker, limit in ((1, 40), (0, 100), (2, 160), (0, 220)):
            until(lambda limit=limit: len(told) >= limit)
            kill(engine, worker)

    with ThreadPoolExecutor(5) as pool:
        parts = [pool.submit(client, part) for part in range(4)]
        pool.submit(killer).result()
        for part in parts:
            part.result()
    settle(engine)
    numbers = [seq for _, asked, answered in told for seq in (asked, answered)]
    assert sorted(numbers) == list(range(1, 641))
    assert engine.status()["counts"]["inputs"] == engine.status()["counts"]["answers"] == 320
    newest = engine.versions()[0]
    engine.shutdown()
    with LocalEngine(MODELS["classes"].make(), engine.spec, tmp_path / "one", engine.options) as here:
        here.wait_ready()
        moments = list(here.history.lineage())
        learned = [answer.id for moment in moments for answer in moment.answers]
        assert len(learned) == len(set(learned)) == 320
        twin = here.history.make()
        for moment in moments:
            twin.apply(moment)
        assert twin.sha256() == here.learning.fold.sha256() == newest["sha256"]


@pytest.mark.slow
def test_a_replica_that_dies_is_left_alone_until_it_is_back(serve):
    engine = serve()
    go(engine, range(12))
    gone = kill(engine, 2)
    answered = engine.predict([Ask(f"many{number}", row(number)[0]) for number in range(40)]).result(PATIENCE)
    assert len({item.seq for item in answered}) == 40
    for number in range(100, 140):
        assert not ask(engine, number).duplicate
    until(lambda: engine.workers()[2]["pid"] != gone)
    until(lambda: not any(engine._predictions.down))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ask(engine, number), range(200, 280)))
    assert engine.workers()[2]["version"] == engine.status()["version"] == 1


@pytest.mark.slow
def test_two_keys_side_by_side_know_nothing_of_each_other(serve):
    first, second = serve(place="one", replicas=0), serve("values", place="two", replicas=1)
    go(first, range(16))
    kill(first, 0)
    go(second, range(24), y=lambda number: [float(number % 5)])
    go(first, range(16, 24))
    assert weights(first) == folded("classes", range(24))
    assert weights(second) == folded("values", range(24), y=lambda number: [float(number % 5)])
    assert ask(second, 1).output != ask(first, 1).output
    first.rollback(0, "doubt")
    assert first.status()["version"] == 0 and second.status()["version"] == 3
    assert len(first.workers()) == 1 and len(second.workers()) == 2


@pytest.mark.slow
def test_a_command_is_never_given_twice(serve):
    engine = serve(replicas=0)
    go(engine, range(16))
    pid = engine.workers()[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(engine.rollback, 1, "doubt")
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServeError, match="look at the decisions") as caught:
            asked.result(PATIENCE)
    assert (caught.value.code, caught.value.status) == ("not_ready", 503)
    engine.wait_ready()
    assert [decision["action"] for decision in engine.decisions()] == ["promote", "promote"]
    assert engine.rollback(1, "doubt")["after"] == engine.status()["version"] == 1


CHILD = """
import sys
from everlearn.serve.ray_engine import RayEngine
from everlearn.serve.records import Ask, Told
engine = RayEngine(key=sys.argv[1], address=sys.argv[2])
row = bytes.fromhex(sys.argv[3])
answered = engine.predict([Ask("theirs", row)]).result(60)[0]
receipt = engine.feedback([Told("theirs", 1)]).result(60)[0]
print(answered.seq, receipt.seq, engine.predict([Ask("r1", row)]).result(60)[0].duplicate, engine.spec.kind, engine.options.batch)
engine.close()
"""


@pytest.mark.slow
def test_another_process_joins_by_the_key(serve, cluster):
    engine = serve(replicas=1)
    ask(engine, 1)
    address = cluster.get_runtime_context().gcs_address
    given = [sys.executable, "-c", CHILD, engine.key, address, row(1)[0].hex()]
    said = subprocess.run(given, capture_output=True, text=True, timeout=120)
    assert said.stdout.split() == ["2", "3", "True", "classes", "4"], said.stderr
    again = ask(engine, 1, id="theirs")
    assert again.duplicate and again.seq == 2
    assert engine.status()["counts"]["inputs"] == 2 and engine.status()["counts"]["answers"] == 1


@pytest.mark.slow
def test_a_second_engine_of_a_key_must_mean_the_same(serve, tmp_path):
    engine = serve(replicas=1)
    given = {"key": engine.key}
    make, spec = MODELS["classes"].make, engine.spec
    second = RayEngine(make, spec, tmp_path / "one", engine.options, replicas=5, **given)
    assert not ask(engine, 1).duplicate and ask(second, 1).duplicate
    assert second.workers() == engine.workers() and len(second.replicas) == 1
    second.close()
    refused("not_ready", 503, second.predict, [Ask("r9", row(9)[0])])
    assert ask(engine, 2).seq == 2
    with pytest.raises(StateError, match="stands with other folder"):
        RayEngine(make, spec, tmp_path / "two", **given)
    with pytest.raises(StateError, match="stands with other spec"):
        RayEngine(make, InputSpec("classes", (9,), "float32", classes=("a", "b")), tmp_path / "one", **given)
    with pytest.raises(StateError, match=r"stands with other options.*batch=4.*batch=8"):
        RayEngine(make, spec, tmp_path / "one", Options(batch=8), **given)
    third = RayEngine(**given)
    engine.shutdown()
    refused("not_ready", 503, third.feedback, [Told("r1", 1)])
    refused("not_ready", 503, third.status)
    refused("not_ready", 503, third.predict, [Ask("r9", row(9)[0])])
    with pytest.raises(StateError, match="no server of the key"):
        RayEngine(**given)


@pytest.mark.slow
def test_what_keeps_an_owner_from_starting_is_said_and_leaves_the_key_free(serve, cluster, tmp_path):
    lock = SQLite(tmp_path / "one" / "log.sqlite")
    lock.lead()
    with pytest.raises(StateError, match="another process serves"):
        serve()
    lock.close()
    engine = serve()
    assert ask(engine, 1).seq == 1


@pytest.mark.slow
def test_alarms_reach_a_function_that_was_sent_along(serve, tmp_path):
    heard = tmp_path / "heard"
    engine = serve(replicas=0, raised=lambda alarm: heard.write_text(alarm.kind), options={"early": 0.1})
    tell(engine, 1)
    until(lambda: heard.exists() and heard.read_text())
    assert heard.read_text() == "label_loss" == engine.alarms()[0]["kind"]


LISTENS = """
import os, sys
from pathlib import Path
from everlearn.serve.ray_engine import join
ray, began = join(None)
ray.get(ray.remote(num_cpus=0)(lambda: None).remote())
parents = {}
for folder in Path("/proc").glob("[0-9]*"):
    try:
        parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        pass
ours = {os.getpid()}
while more := {child for child, parent in parents.items() if parent in ours} - ours:
    ours |= more
sockets = set()
for pid in ours:
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            sockets.add(os.readlink(link))
        except OSError:
            pass
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            print(*fields[1].split(":"))
print("began", began, os.environ["RAY_USAGE_STATS_ENABLED"])
ray.shutdown()
"""
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


@pytest.mark.slow
def test_a_cluster_of_its_own_listens_on_the_loopback_interface_alone_and_has_no_dashboard():
    said = subprocess.run([sys.executable, "-c", LISTENS], capture_output=True, text=True, timeout=120)
    *sockets, last = said.stdout.splitlines()
    assert last == "began True 0", said.stderr
    assert len(sockets) > 3
    assert {line.split()[0] for line in sockets} <= set(LOOPBACK)
    assert 8265 not in {int(line.split()[1], 16) for line in sockets}


SIDE_BY_SIDE = """
import sys
from functools import partial
from everlearn.agents.uniform import Uniform
from everlearn.core.errors import ServeError
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.ray_engine import RayEngine
from everlearn.serve.records import Ask
spec, row = InputSpec("actions", (4,), "float32"), bytes(16)
first, second = (
    RayEngine(partial(Uniform, actions=3), spec, f"{sys.argv[1]}/{key}", key=key, replicas=0) for key in ("a", "b")
)
second.predict([Ask("one", row)]).result(60)
first.shutdown()
print(second.predict([Ask("two", row)]).result(60)[0].seq)
second.shutdown()
first.shutdown()
alone = RayEngine(partial(Uniform, actions=3), spec, f"{sys.argv[1]}/a", key="a", replicas=0)
first._ray.shutdown()
for call in (lambda: alone.predict([Ask("three", row)]).result(60), alone.status):
    try:
        call()
    except ServeError as refusal:
        print(refusal.code)
print(first._ray.is_initialized())
"""


@pytest.mark.slow
def test_a_cluster_of_its_own_lasts_while_a_key_stands_and_is_not_begun_again_by_a_call(tmp_path):
    given = [sys.executable, "-c", SIDE_BY_SIDE, str(tmp_path)]
    said = subprocess.run(given, capture_output=True, text=True, timeout=120)
    assert said.stdout.split() == ["2", "not_ready", "not_ready", "False"], said.stderr


def test_without_ray_the_message_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"everlearn\[ray\]"):
        RayEngine(MODELS["classes"].make, MODELS["classes"].spec, tmp_path)


@pytest.mark.parametrize("wrong", [{"replicas": -1}, {"cpus": -0.5}, {"grace": float("nan")}])
def test_arguments_out_of_range_are_refused_before_anything_starts(wrong, tmp_path):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        RayEngine(MODELS["classes"].make, MODELS["classes"].spec, tmp_path, **wrong)
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "somewhere", "10.0.0.1:port"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(ArgumentError, match=r"'auto' or HOST:PORT"):
        RayEngine(key="one", address=address)


def test_a_cluster_that_does_not_answer_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StateError, match=f"no Ray cluster answers at 127.0.0.1:{port}: Connection refused"):
        RayEngine(key="one", address=f"127.0.0.1:{port}")
