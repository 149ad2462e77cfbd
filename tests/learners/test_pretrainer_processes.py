"""Two processes that share each batch learn what one process would: the same losses, the same weights, the same bits after a stop.

Sums over rows are taken in another order, so weights differ by rounding. In float64 a sum of N = 16 rows * 8 tokens terms is off by at most
N eps = 3e-14 of the sum of their sizes (below 1 here); Adam divides what is left of a gradient that is 0 (that of the keys' biases) by its
epsilon 1e-8 at worst, so an update is off by less than lr * 3e-14 / 1e-8 = 6e-8, and 22 updates by 1.4e-6. Losses are told as float32.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .pretraining_process import ANNEAL, BATCH, CASES, FIRST, LR, SECOND, learn

SCRIPT = Path(__file__).with_name("pretraining_process.py")
UPDATES = FIRST + SECOND + ANNEAL
EXACT = UPDATES * LR * BATCH * 8 * torch.finfo(torch.float64).eps / 1e-8
SINGLE = torch.finfo(torch.float32).eps


def share(folder: Path, *cases: str) -> None:
    """Two processes, one after the other through these cases."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen(
        [*command, str(SCRIPT), str(folder), *cases],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = started.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)  # none of the processes outlives the test
    assert not started.returncode, told[-3000:]


def ends(folder: Path, case: str) -> dict[str, torch.Tensor]:
    """What the processes came to, which must be the same bits on both."""
    first, second = (load_file(folder / case / f"end.{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    return first


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight."""
    return max(float((first[key] - second[key]).abs().max()) for key in first if key != "losses")


def moved(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The distance of all weights together."""
    return sum(float((first[key] - second[key]).square().sum()) for key in first if key != "losses") ** 0.5


def half(case: str):
    """The pre-trainer of a case that forgets the other process: it sees the rows of rank 0 alone."""

    def made():
        pretrainer = CASES[case]()
        rows = pretrainer.rows
        pretrainer.rows = lambda: rows()[::2]
        return pretrainer

    return made


def test_two_processes_learn_what_one_does_and_refuse_a_batch_that_cannot_be_shared(tmp_path):
    share(tmp_path, "text", "uneven")
    two, one = ends(tmp_path, "text"), learn("text", tmp_path / "alone")
    assert len(two["losses"]) == UPDATES and two["losses"][-1] < 0.8 * two["losses"][0]
    assert torch.allclose(two["losses"], one["losses"], rtol=4 * SINGLE, atol=0.0)
    assert apart(two, one) < EXACT
    assert apart(learn("text", tmp_path / "half", made=half("text")), one) > 1e3 * EXACT  # the control
    refusals = [(tmp_path / "uneven" / f"end.{rank}.refused").read_text() for rank in (0, 1)]
    assert refusals[0] == refusals[1]
    assert (
        "batch must be a multiple of processes times accumulate, got batch=10, 2 processes and accumulate=2" in refusals[0]
    )


@pytest.mark.slow
def test_clipping_and_masks_are_those_of_the_whole_batch(tmp_path):
    share(tmp_path, "clipped", "painting")
    for case in ("clipped", "painting"):
        two, one = ends(tmp_path, case), learn(case, tmp_path / "alone")
        assert torch.allclose(two["losses"], one["losses"], rtol=4 * SINGLE, atol=0.0)
        assert apart(two, one) < EXACT
        assert apart(learn(case, tmp_path / "half", made=half(case)), one) > 1e3 * EXACT


@pytest.mark.slow
def test_fewer_digits_agree_as_far_as_they_go(tmp_path):
    """As a part of how far descent took the weights. float32: N eps. bfloat16: each side rounds gradients on the way in and out, each time
    by 2^-9 of their size at most, 4 * 2^-9 in all."""
    share(tmp_path, "float32", "bfloat16")
    start = {key: value.detach().clone() for key, value in CASES["float32"]().model.state_dict().items()}
    one = {case: learn(case, tmp_path / "alone") for case in ("float32", "bfloat16")}
    way = moved(one["float32"], start)
    for case, tolerance in (("float32", BATCH * 8 * SINGLE), ("bfloat16", 2.0**-7)):
        two = ends(tmp_path, case)
        assert moved(two, one[case]) < tolerance * way
        assert torch.allclose(two["losses"], one[case]["losses"], rtol=tolerance, atol=0.0)
        assert moved(learn(case, tmp_path / "half", made=half(case)), one[case]) > 2 * tolerance * way
    other = moved(ends(tmp_path, "bfloat16"), ends(tmp_path, "float32"))
    assert other > BATCH * 8 * SINGLE * way  # it is another arithmetic


@pytest.mark.slow
def test_stopped_in_either_phase_and_within_the_annealing_both_go_on_with_the_same_bits(tmp_path):
    stops = (FIRST - 3, FIRST + 3, FIRST + SECOND + 3)
    for cases in (["undisturbed", f"dropping@{stops[0]}"], [f"dropping@{stop}" for stop in stops[1:]], ["dropping"]):
        share(tmp_path, *cases)
    kept = sorted((tmp_path / "dropping/state").glob("*.json"))
    assert [int(path.stem) for path in kept] == list(stops[1:])  # the newest two
    resumed, whole = ends(tmp_path, "dropping"), ends(tmp_path, "undisturbed")
    assert torch.equal(resumed["losses"], whole["losses"][stops[-1] :])
    assert apart(resumed, whole) == 0.0
