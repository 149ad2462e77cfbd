"""Memory of runs of 10,000 updates: what replay holds, and what the whole process occupies, along the run.

    EVERLEARN_DATA=../shared/data python benchmarks/memory_curve.py

Every case is a process of its own, with all standard monitors: `digits` and `images` (bytes of 3x32x32) keep 500 rows, `images,
500 kB` is held by a budget in bytes, `images, snapshots` writes a run folder as well, and `images, no limit` is the control, in which
memory grows with the rows. Growth is counted over the second half, once libraries, caches and the first judging have settled.
Writes results/memory_curve.json, results/memory_curve.md and results/memory_curve.png.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import timing
import torch
from torch import Tensor

from everlearn.core.budget import Budget
from everlearn.core.errors import DataError
from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.run import run
from everlearn.core.store import stores
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.dataset import Data
from everlearn.data.load import load
from everlearn.data.prefix import prefix
from everlearn.data.prequential import iid
from everlearn.learners.replay import Replay
from everlearn.measure.monitors import standard
from everlearn.nn.networks import mlp

UPDATES = 10_000
EVERY = 100  # updates between two readings
SETTLED = UPDATES // 2  # updates after which resident memory is compared
BATCH = 16
CONTROL = "images, no limit"
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Case:
    data: str
    capacity: int
    replay_bytes: int | None = None
    snapshots: bool = False


CASES = {
    "digits": Case("digits", 500),
    "images": Case("images", 500),
    "images, 500 kB": Case("images", UPDATES * BATCH, replay_bytes=500_000),
    "images, snapshots": Case("images", 500, snapshots=True),
    CONTROL: Case("images", UPDATES * BATCH),
}


class Occupied(Monitor):
    """Reads the resident memory of the process and the bytes of the learner's memories."""

    name = "occupied"
    parts = ()
    timed = True

    def __init__(self) -> None:
        self.readings: list[tuple[int, int, int]] = []  # updates, resident bytes, bytes of replay

    def start(self, learner: Learner, stream: Stream) -> None:
        self.readings = []

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        done = step.position + 1
        if done % EVERY == 0:
            self.readings.append((done, resident(), sum(store.nbytes for store in stores(learner))))

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Judging is part of the run; nothing to note."""

    def record(self, learner: Learner) -> dict[str, Any]:
        return {}

    def figures(self) -> dict[str, Any]:
        return {}


def resident() -> int:
    """Bytes of the process in memory (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def images() -> Data:
    """CIFAR-100 where EVERLEARN_DATA has it, else random bytes of that shape."""
    try:
        return load("cifar100_12k")
    except DataError:
        random = torch.Generator().manual_seed(0)
        x = torch.randint(256, (12_000, 3, 32, 32), dtype=torch.uint8, generator=random)
        return Data("random_bytes", x, torch.arange(12_000) % 100, tuple(map(str, range(100))))


def follow(name: str) -> dict[str, Any]:
    """One case, in this process."""
    case = CASES[name]
    budget = Budget(replay_bytes=case.replay_bytes)
    data = load("digits") if case.data == "digits" else images()
    passes = -(-UPDATES * BATCH // (len(data) // 2))
    stream = prefix(iid(data, batch=BATCH, epochs=passes), UPDATES)
    torch.manual_seed(0)
    learner = Replay(mlp(stream.schema), capacity=case.capacity, replay_batch=BATCH)
    reader = Occupied()
    with tempfile.TemporaryDirectory() as folder:
        place = folder if case.snapshots else None
        run(learner, stream, budget=budget, monitors=[*standard(stream), reader], folder=place)
    updates, residents, replay = zip(*reader.readings, strict=True)
    late = residents[updates.index(SETTLED) :]
    return {
        "data": data.name,
        "row_bytes": data.x[0].nbytes + data.y[0].nbytes,
        "learner": repr(learner),
        "budget": repr(budget),
        "updates": list(updates),
        "resident_bytes": list(residents),
        "replay_bytes": list(replay),
        "most_replay_bytes": max(replay),
        "stored": learner.memory.stored,
        "grown_bytes": max(late) - late[0],
    }


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Both curves of every case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, case in found.items():
        for axis, key in zip(axes, ("replay_bytes", "resident_bytes"), strict=True):
            values = [value / 1e6 for value in case[key]]
            axis.plot(case["updates"], values, "--" if name == CONTROL else "-", label=name)
    for axis, title in zip(axes, ("bytes of the replay memory", "resident memory of the process"), strict=True):
        axis.set(title=title, xlabel="updates", ylabel="MB", xlim=(0, UPDATES))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(frameon=False)
    figure.savefig(timing.RESULTS / "memory_curve.png", dpi=120)


def text(found: dict[str, dict[str, Any]]) -> str:
    """The table for people."""
    head = ["", "rows kept", "bytes of a row", "replay, at most", "process, grown in the second half"]
    rows = [
        [
            f"{name}: `{case['learner']}`, `{case['budget']}`",
            f"{case['stored']:,}",
            f"{case['row_bytes']:,}",
            f"{case['most_replay_bytes'] / 1e6:.2f} MB",
            f"{case['grown_bytes'] / 1e6:.1f} MB",
        ]
        for name, case in found.items()
    ]
    return f"{timing.table(head, rows)}\n\nThe last row is the control without a limit."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=list(CASES), help="one case, printed as JSON; all of them otherwise")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(follow(options.case)))
        return
    found = {}
    for name in CASES:
        timing.show(name)
        command = [sys.executable, __file__, "--case", name]
        found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    timing.RESULTS.mkdir(exist_ok=True)
    draw(found)
    timing.publish("memory_curve", {"settings": {"updates": UPDATES, "batch": BATCH}, "cases": found}, text(found))


if __name__ == "__main__":
    main()
