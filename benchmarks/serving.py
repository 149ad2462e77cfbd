"""How fast a server is that keeps every request: beside the same server without a log, and beside Ray Serve with one replica.

Eight connections each send a prediction and then its label, again and again, over loopback (HTTP/1.1, kept alive), from a process of
their own. The model is a perceptron 64-100-10 on digits that learns by replay while it serves. Contenders take turns.

    python benchmarks/serving.py            rates, restart, rollback, overload
    python benchmarks/serving.py soak 600   memory and lag over so many seconds
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy
from timing import interleave, publish, ratio, show, summary, table

from everlearn import Client, Replay, Schema, load
from everlearn.core.random import isolated
from everlearn.nn.networks import mlp

CONNECTIONS, SECONDS, ROUNDS = 8, 6.0, 5
LABELS = 10_000  # folded again after a restart
DIGITS = load("digits")
SCHEMA = Schema(tuple(DIGITS.x.shape[1:]), DIGITS.x.dtype, DIGITS.classes)


def learner() -> Replay:
    with isolated(0, "network"):
        return Replay(mlp(SCHEMA, hidden=(100,)), capacity=200)


# ---- servers, each in a process of its own ---------------------------------------------------------------------------------


def serve_logged(port: int, folder: str, **options: Any) -> None:
    from everlearn.serve.alarm_limits import Alarms
    from everlearn.serve.alarms import Watch
    from everlearn.serve.input_spec import InputSpec
    from everlearn.serve.local_engine import LocalEngine
    from everlearn.serve.options import Options

    made = learner()
    spec = InputSpec.of(made, SCHEMA)
    answer(LocalEngine(made, spec, folder, Options(**options), watch=Watch(Alarms(), spec)), port)


def serve_unlogged(port: int, folder: str) -> None:
    """The same server with the log switched off: nothing is stored, so nothing is learned either."""
    from everlearn.serve.engine import Engine
    from everlearn.serve.fold import Predictors
    from everlearn.serve.input_spec import InputSpec
    from everlearn.serve.options import Options
    from everlearn.serve.predicting import Predicting
    from everlearn.serve.records import Answered, Receipt

    class NoLog:
        seq = 0

        def __init__(self) -> None:
            self.asked: SimpleQueue = SimpleQueue()
            threading.Thread(target=self.run, daemon=True).start()

        def ask(self, asks: Sequence[Any], future: Future) -> Future:
            self.asked.put((asks, future))
            return future

        def run(self) -> None:
            """Answer whatever waits in one forward pass, as the log's thread does."""
            while True:
                group = [self.asked.get()]
                while len(group) < 64 and not self.asked.empty():
                    group.append(self.asked.get())
                for (_, future), asked in zip(group, self.answering([asks for asks, _ in group]), strict=True):
                    self.seq += len(asked)
                    future.set_result([Answered(ask.id, output, version, self.seq) for ask, output, version in asked])

    class Unlogged(Engine):
        def __init__(self) -> None:
            made = learner()
            self.spec = InputSpec.of(made, SCHEMA)
            self.log = NoLog()
            self.predicting = Predicting(self.log, self.spec, Options())
            self.predicting.swap(0, Predictors(made).of(made.state_dict()))

        def predict(self, asks: Sequence[Any]) -> Future:
            return self.predicting.ask(asks)

        def feedback(self, items: Sequence[Any]) -> Future:
            future: Future = Future()
            future.set_result([Receipt(item.id, 1) for item in items])
            return future

        def status(self) -> dict[str, Any]:
            return {"ready": True}

        def close(self) -> None:
            self.predicting.close()

        versions = decisions = alarms = series = rollback = release = pause = resume = erase = lambda self, *given, **named: []

    answer(Unlogged(), port)


def answer(engine: Any, port: int) -> None:
    from everlearn.serve.app import create_app
    from everlearn.serve.http import serve

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        serve(create_app(engine), port=port, announce=lambda line: None)


def serve_ray(port: int, folder: str) -> None:
    """Ray Serve with one replica: the same model and routes, nothing stored, nothing learned."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import torch
    from fastapi import FastAPI, Request
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    app = FastAPI()

    @serve.deployment(num_replicas=1, max_ongoing_requests=100)
    @serve.ingress(app)
    class Model:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.learner = learner()

        @app.post("/v1/predict")
        async def predict(self, request: Request) -> dict[str, Any]:
            body = await request.json()
            scores = self.learner.predict(torch.tensor([body["x"]], dtype=SCHEMA.dtype))
            return {"id": body.get("id", ""), "output": {"answer": int(scores.argmax())}, "version": 0}

        @app.post("/v1/feedback")
        async def feedback(self, request: Request) -> dict[str, Any]:
            await request.json()
            return {"accepted": True}

        @app.get("/readyz")
        async def ready(self) -> dict[str, Any]:
            return {"ready": True}

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Model.bind())
    signal.pause()


SERVERS = {"logged": serve_logged, "normal": serve_logged, "unlogged": serve_unlogged, "ray": serve_ray}


@contextlib.contextmanager
def running(kind: str, folder: str | None = None, **options: Any) -> Iterator[tuple[int, subprocess.Popen]]:
    """(port, process) of a server that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = folder or tempfile.mkdtemp(prefix="everlearn-serving-")
    if kind == "normal":
        options = {"durability": "normal", **options}
    command = [sys.executable, "-W", "ignore", __file__, "--server", kind, str(port), place, json.dumps(options)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def wait_for(port: int, process: subprocess.Popen, seconds: float = 120.0) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as link:
            link.sendall(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            if b" 200 " in link.recv(200):
                return time.perf_counter() - began
        time.sleep(0.02)
    raise RuntimeError("the server does not answer")


# ---- load ------------------------------------------------------------------------------------------------------------------


def request(route: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST {route} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


ROWS = [json.loads(json.dumps(row.tolist())) for row in DIGITS.x[:500].numpy()]
NAMES = [DIGITS.classes[label] for label in DIGITS.y[:500].tolist()]


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> tuple[int, bytes]:
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    return int(head[9:12]), await reader.readexactly(length)


async def converse(port: int, name: str, end: float, times: list[float], statuses: dict[int, int]) -> None:
    """Predict, tell, predict, tell, ... until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.perf_counter() < end:
        id, place = f"{name}-{number}", number % len(ROWS)
        number += 1
        for data in (
            request("/v1/predict", {"id": id, "x": ROWS[place]}),
            request("/v1/feedback", {"id": id, "y": NAMES[place]}),
        ):
            began = time.perf_counter()
            status, _ = await send(reader, writer, data)
            times.append(time.perf_counter() - began)
            statuses[status] = statuses.get(status, 0) + 1
    writer.close()


async def pressed(port: int, seconds: float, connections: int) -> dict[str, Any]:
    times: list[float] = []
    statuses: dict[int, int] = {}
    began = time.perf_counter()
    salt = os.urandom(4).hex()
    await asyncio.gather(
        *(converse(port, f"{salt}-{number}", began + seconds, times, statuses) for number in range(connections))
    )
    took = time.perf_counter() - began
    low, high = numpy.percentile(times, [50, 99]) * 1000
    return {"rate": len(times) / took, "p50": float(low), "p99": float(high), "statuses": statuses, "requests": len(times)}


def press(port: int, seconds: float = SECONDS, connections: int = CONNECTIONS) -> dict[str, Any]:
    return asyncio.run(pressed(port, seconds, connections))


def rate_of(kind: str) -> Any:
    def contender(number: int) -> dict[str, Any]:
        with running(kind) as (port, _):
            press(port, 1.0)
            found = press(port)
        if set(found["statuses"]) != {200}:
            raise RuntimeError(f"{kind} answered {found['statuses']}")
        show(f"{kind}: {found['rate']:.0f} requests/s, p99 {found['p99']:.1f} ms")
        return found

    return contender


def by_client(number: int) -> dict[str, Any]:
    """The same conversation by eight threads of the library's own client."""
    with running("logged") as (port, _):
        times: list[float] = []

        def talk(name: str, end: float) -> None:
            with Client(f"http://127.0.0.1:{port}") as client:
                step = 0
                while time.perf_counter() < end:
                    place = step % len(ROWS)
                    began = time.perf_counter()
                    client.predict(ROWS[place], id=f"{name}-{step}")
                    middle = time.perf_counter()
                    client.feedback(f"{name}-{step}", y=NAMES[place])
                    times.extend((middle - began, time.perf_counter() - middle))
                    step += 1

        began = time.perf_counter()
        threads = [threading.Thread(target=talk, args=(str(n), began + SECONDS)) for n in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
    low, high = numpy.percentile(times, [50, 99]) * 1000
    show(f"client: {len(times) / took:.0f} requests/s")
    return {"rate": len(times) / took, "p50": float(low), "p99": float(high)}


WRK = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '%s'
"""


def by_wrk(kind: str) -> Any:
    """Predictions alone, sent by wrk."""

    def contender(number: int) -> dict[str, Any]:
        with running(kind) as (port, _), tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(WRK % json.dumps({"x": ROWS[0]}))
            script.flush()
            told = subprocess.run(
                ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:g}s", "--latency", "-s", script.name, f"http://127.0.0.1:{port}/v1/predict"],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        rate = float(told.split("Requests/sec:")[1].split()[0])
        if "Non-2xx" in told:
            raise RuntimeError(told)
        show(f"wrk, {kind}: {rate:.0f} predictions/s")
        return {"rate": rate}

    return contender


# ---- restart, rollback, overload, soak -------------------------------------------------------------------------------------


def restart() -> dict[str, float]:
    """Seconds until a killed server has folded 10,000 labels again, and those of a rollback."""
    place = tempfile.mkdtemp(prefix="everlearn-serving-")
    try:
        with running("logged", place, every=1_000_000) as (port, process):
            sent = 0
            with Client(f"http://127.0.0.1:{port}") as client:
                while sent < LABELS:
                    ids = [f"{sent + place_}" for place_ in range(500)]
                    client.predict_many(ROWS, ids=ids)
                    client.feedback_many([{"id": id, "y": name} for id, name in zip(ids, NAMES, strict=True)])
                    sent += 500
                while client.status()["lag"]["answers"] > 32:
                    time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        bare = tempfile.mkdtemp(prefix="everlearn-serving-")
        began = time.perf_counter()
        with running("logged", bare):
            empty = time.perf_counter() - began
        began = time.perf_counter()
        with running("logged", place, every=1_000_000) as (port, _):
            whole = time.perf_counter() - began
            with Client(f"http://127.0.0.1:{port}") as client:
                steps = client.status()["counts"]["steps"]
                began = time.perf_counter()
                client.rollback(0, "timing")
                client.predict(ROWS[0])
                back = time.perf_counter() - began
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {
        "restart_seconds": whole,
        "empty_start_seconds": empty,
        "replay_seconds": whole - empty,
        "steps": steps,
        "rollback_seconds": back,
    }


def overload() -> dict[str, Any]:
    """Far more connections than the queue has places: who is turned away, and what is kept."""
    with running("logged", queue=20) as (port, process):
        before = resident(process.pid)
        found = press(port, SECONDS, 200)
        after = resident(process.pid)
        with Client(f"http://127.0.0.1:{port}") as client:
            counts = client.status()["counts"]
    kept = counts["inputs"] + counts["answers"] + counts["early_waiting"]
    accepted = found["statuses"].get(200, 0)
    return {"statuses": found["statuses"], "accepted": accepted, "kept": kept, "mb_before": before, "mb_after": after}


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def soak(seconds: float) -> None:
    """Memory and lag while two connections talk without a pause."""
    points = []
    with running("logged") as (port, process):
        press(port, 20.0, 2)
        began = time.perf_counter()
        talk = threading.Thread(target=press, args=(port, seconds, 2))
        talk.start()
        with Client(f"http://127.0.0.1:{port}") as client:
            while talk.is_alive():
                status = client.status()
                points.append(
                    [time.perf_counter() - began, resident(process.pid), status["lag"]["answers"], status["last_seq"]]
                )
                show(f"{points[-1][0]:.0f} s: {points[-1][1]:.1f} MB, lag {points[-1][2]}, {points[-1][3]} events")
                talk.join(10.0)
    times, memory = (numpy.array([point[place] for point in points]) for place in (0, 1))
    half = len(times) // 2
    slope = float(numpy.polyfit(times[half:], memory[half:], 1)[0]) * 60
    lags = [point[2] for point in points]
    rows = [
        ["seconds", f"{times[-1]:.0f}"], ["events", f"{points[-1][3]:,}"], ["memory at the beginning, MB", f"{memory[0]:.1f}"],
        ["memory at the end, MB", f"{memory[-1]:.1f}"], ["slope over the second half, MB a minute", f"{slope:+.3f}"],
        ["answers waiting to be learned, most", f"{max(lags)}"],
    ]  # fmt: skip
    publish("serving_soak", {"points": points, "slope_mb_per_minute": slope}, table(["soak", ""], rows))


def main() -> None:
    contenders = {kind: rate_of(kind) for kind in ("logged", "normal", "unlogged", "ray")} | {"client": by_client}
    if shutil.which("wrk"):
        contenders |= {f"wrk {kind}": by_wrk(kind) for kind in ("logged", "unlogged", "ray")}
    outcomes = interleave(contenders, ROUNDS, fewer={"ray": 3, "wrk ray": 2, "normal": 3, "client": 3}, warm=False)
    rates = {name: [outcome["rate"] for outcome in found] for name, found in outcomes.items()}
    told = {
        "logged": "everlearn, every request durable", "normal": "everlearn, durability normal", "unlogged": "the same server without a log",
        "ray": "Ray Serve, one replica, no log", "client": "everlearn, by its own client",
        "wrk logged": "wrk, predictions alone: everlearn", "wrk unlogged": "wrk: without a log", "wrk ray": "wrk: Ray Serve",
    }  # fmt: skip
    rows = []
    for name, found in rates.items():
        middle = summary(found)
        against = ratio(rates[name], rates["wrk unlogged" if name.startswith("wrk") else "unlogged"])
        tails = [
            f"{summary([o[key] for o in outcomes[name]])['median']:.1f}" if key in outcomes[name][0] else ""
            for key in ("p50", "p99")
        ]
        rows.append(
            [
                told[name],
                f"{middle['median']:.0f}",
                f"{against['ratio']:.2f} ({against['low']:.2f}-{against['high']:.2f})",
                *tails,
            ]
        )
    from everlearn.serve.local_engine import fsync_ms

    again, turned = restart(), overload()
    extra = [
        [
            "restart and folding 10,000 labels again, s (an empty start)",
            f"{again['restart_seconds']:.2f} ({again['empty_start_seconds']:.2f})",
        ],
        ["rollback and the next answer, s", f"{again['rollback_seconds']:.3f}"],
        ["overload: accepted / kept in the log", f"{turned['accepted']:,} / {turned['kept']:,}"],
        ["overload: turned away (429)", f"{turned['statuses'].get(429, 0):,}"],
        ["overload: memory before and after, MB", f"{turned['mb_before']:.0f} / {turned['mb_after']:.0f}"],
    ]
    text = table(["server", "requests/s", "of no log", "p50 ms", "p99 ms"], rows) + "\n\n" + table(["", ""], extra)
    publish(
        "serving",
        {
            "fsync_ms": fsync_ms(Path(tempfile.gettempdir())),
            "rates": rates,
            "outcomes": outcomes,
            "restart": again,
            "overload": turned,
        },
        text,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--server"]:
        SERVERS[sys.argv[2]](int(sys.argv[3]), sys.argv[4], **json.loads(sys.argv[5]))
    elif sys.argv[1:2] == ["soak"]:
        soak(float(sys.argv[2]) if len(sys.argv) > 2 else 600.0)
    else:
        main()
