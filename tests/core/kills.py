"""Run as a program: kill a run at random moments, start it again, until it was killed often enough and has come to its end.

    python kills.py FOLDER KILLS SEED

Everything is imported once, and each life is a fork that ends in SIGKILL from outside after a random time. Prints one JSON: the
record of an undisturbed run, the records of the runs that were killed, and how often each was.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from conftest import Clouds, build_replay

from everlearn import run
from everlearn.measure.monitors import standard

EVENTS_PER_KILL = 30
EVERY = 5  # events between snapshots


def life(folder: Path, length: int) -> None:
    """One process from its birth until it is killed, or done."""
    stream = Clouds(length, boundaries=True, late=1)
    run(build_replay(), stream, monitors=standard(stream), folder=folder, snapshot_every=EVERY)


def fork(folder: Path, length: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            life(folder, length)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return child


def wait(child: int, seconds: float) -> bool:
    """Whether a child ended by itself within some seconds; if not, it is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"a life ended with status {status}"
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def record(folder: Path) -> dict:
    """All that a run leaves, without figures of the clock."""
    found = json.loads((folder / "result.json").read_text())
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for point in (found["figures"], *curve):
        point.pop("cost", None)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {key: found[key] for key in ("figures", "used", "events", "sha256")} | {"curve": curve, "files": left}


def main(place: Path, wanted: int, seed: int) -> dict:
    torch.set_num_threads(1)
    length = EVENTS_PER_KILL * wanted
    begun = time.monotonic()
    assert wait(fork(place / "undisturbed", length), 500.0)
    share = (time.monotonic() - begun) / wanted
    draw = random.Random(seed)
    records, kills = [], []
    while sum(kills) < wanted:
        folder = place / f"killed-{len(kills)}"
        kills.append(0)
        done = False
        while not done:
            patience = draw.uniform(0.2, 1.3) * share if sum(kills) < wanted else 500.0
            done = wait(fork(folder, length), patience)
            kills[-1] += not done
        records.append(record(folder))
    return {"undisturbed": record(place / "undisturbed"), "killed": records, "kills": kills}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
