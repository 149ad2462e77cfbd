"""Serve a model that learns from late labels, change its world, kill it, and find it as it was.

Uses LocalEngine and HTTP on this machine. Run it: python examples/serve_and_feed_back.py
"""

import multiprocessing
import os
import signal
import time
from pathlib import Path

from everlearn import Client, Replay, load
from everlearn.nn.networks import mlp
from everlearn.optim.optimizers import Adam
from everlearn.serve.app import create_app
from everlearn.serve.http import Server
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options

FOLDER = Path("served-digits")
PORT = FOLDER / "port"


def server() -> None:
    """Answer until killed, and say on which port."""
    digits = load("digits")
    learner = Replay(mlp(digits.schema), capacity=200, optimizer=Adam(lr=0.003))
    engine = LocalEngine(learner, InputSpec.of(learner, digits.schema), FOLDER, Options(batch=16, wait=0.2, every=4))
    face = Server(create_app(engine), port=0)
    PORT.write_text(str(face.port))
    face.run()


def start() -> tuple[multiprocessing.Process, Client]:
    """A server in a process of its own, and a client of it."""
    PORT.unlink(missing_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=server, daemon=True)
    process.start()
    while not (PORT.exists() and PORT.read_text()):
        time.sleep(0.05)
    client = Client(f"http://127.0.0.1:{PORT.read_text()}")
    client.wait_ready()
    return process, client


def visit(client: Client, digits, first: int, rows: int, turn: bool) -> float:
    """Ask about rows in one request, and tell their labels a moment later. Gives the share of right answers."""
    numbers = [number % len(digits) for number in range(first, first + rows)]
    x = digits.x[numbers].reshape(-1, 8, 8)
    x = (x.rot90(dims=(1, 2)) if turn else x).flatten(1)
    answers = client.predict_many(x, ids=[f"visit-{first + place}" for place in range(rows)])
    labels = [digits.classes[digits.y[number]] for number in numbers]
    client.feedback_many([{"id": answer.id, "y": label} for answer, label in zip(answers, labels, strict=True)])
    caught_up(client)
    return sum(answer.answer == label for answer, label in zip(answers, labels, strict=True)) / rows


def caught_up(client: Client) -> None:
    """Wait until every label has been learned from."""
    while client.status()["lag"]["answers"] or client.status()["applied_seq"] < client.status()["last_seq"]:
        time.sleep(0.05)


def weights(client: Client) -> dict[int, str]:
    """The sha256 of every version's state."""
    return {row["version"]: row["sha256"] for row in client.versions()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    digits = load("digits")
    process, client = start()
    for first in range(0, 1600, 100):
        right = visit(client, digits, first, 100, turn=first >= 800)
        print(f"rows {first}..{first + 99} {'turned' if first >= 800 else 'upright'}: {right:.0%} right")
    before, then = weights(client), client.status()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    process, client = start()
    now = client.status()
    print(f"killed; the same version {now['version']}: {now['version'] == then['version']}")
    print("the same weights:", weights(client) == before)
    version = client.versions()[-1]["version"]
    print("rolled back:", client.rollback(version, "a rehearsal")["after"] == client.status()["version"])
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
