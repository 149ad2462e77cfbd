"""Kill a run at random moments, start it again each time, and end with the same weights as an undisturbed run.

Run it with `python examples/resume_after_kill.py`.
"""

import multiprocessing
import random
import tempfile
import time
from pathlib import Path

import torch

from everlearn import run
from everlearn.comparison.building import build_learner, build_stream


def fold(folder: Path) -> str:
    """One run over digits with replay; the digest of everything the learner is made of."""
    torch.set_num_threads(1)
    stream = build_stream("split(digits, experiences=5, epochs=3)", seed=0)
    learner = build_learner("replay(capacity=200)", stream, "mlp(hidden=(100,))", seed=0)
    return run(learner, stream, folder=folder, snapshot_every=20).sha256


def main() -> None:
    random.seed(0)
    with tempfile.TemporaryDirectory() as place:
        undisturbed = fold(Path(place) / "undisturbed")
        folder = Path(place) / "killed"
        kills = 0
        while not (folder / "result.json").exists():
            child = multiprocessing.get_context("fork").Process(target=fold, args=(folder,))
            child.start()
            time.sleep(random.uniform(0.05, 0.4))
            if child.is_alive() and kills < 5:
                child.kill()
                kills += 1
            child.join()
        print(f"killed {kills} times; the same weights: {fold(folder) == undisturbed}")


if __name__ == "__main__":
    main()
