"""Pre-training beside the loops that one writes without a library: language models, masked autoencoders, two processes, schedules.

    python benchmarks/pretraining.py

The bare loops draw rows, set the rate, and step with the optimiser that Everlearn names; the second one is nanoGPT's, with its way to
gather a batch and its module (Karpathy, 2022, train.py and model.py, without dropout). On the same rows the first one must end in the same
weights as Everlearn, to the bit, or the script stops. Two processes are begun by torchrun; one alone, two that share nothing and two that
share every batch take turns. Writes results/pretraining.json and results/pretraining.md.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy
import timing
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from everlearn.core.random import isolated
from everlearn.data.pretraining import ImageDomain, TextDomain
from everlearn.learners.pretrainer import ContinualPretrainer
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding, NextToken
from everlearn.nn.tiny_gpt import TinyGPT
from everlearn.optim.optimizers import Adam
from everlearn.optim.rates import InfiniteLR
from everlearn.optim.schedules import Infinite

MAX_LR, WARMUP, COOLDOWN = 1e-3, 10, 100
SCHEDULE = Infinite(MAX_LR, WARMUP, COOLDOWN)
ADAM = Adam(lr=MAX_LR, weight_decay=0.005, betas=(0.9, 0.95))
SHAPES: dict[str, dict[str, Any]] = {  # name: network and rows of an update
    "small": {"dim": 64, "depth": 2, "heads": 4, "length": 64, "batch": 16},
    "larger": {"dim": 128, "depth": 4, "heads": 4, "length": 128, "batch": 16},
}
STEPS = {"small": 20, "larger": 4, "images": 10}  # of a turn
IMAGES = {"size": 28, "patch": 7, "dim": 48, "batch": 64}
LEAST = 0.95
MOST_US = 20.0
TOKENS = torch.randint(256, (500_000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
Turn = Callable[[int], float]


def rate(step: int) -> float:
    """A rate as nanoGPT writes it: warm-up, then half a cosine."""
    if step < WARMUP:
        return MAX_LR * step / WARMUP
    share = min(1.0, (step - WARMUP) / (COOLDOWN - WARMUP))
    return 0.5 * MAX_LR + 0.25 * MAX_LR * (1.0 + math.cos(math.pi * share))


class NanoBlock(nn.Module):
    """The block of nanoGPT's model.py."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.c_attn, self.attn_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.c_fc, self.mlp_proj, self.gelu = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        rows, length, dim = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(dim, dim=2)
        k = k.view(rows, length, self.heads, dim // self.heads).transpose(1, 2)
        q = q.view(rows, length, self.heads, dim // self.heads).transpose(1, 2)
        v = v.view(rows, length, self.heads, dim // self.heads).transpose(1, 2)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0, is_causal=True)
        x = x + self.attn_proj(y.transpose(1, 2).contiguous().view(rows, length, dim))
        return x + self.mlp_proj(self.gelu(self.c_fc(self.ln_2(x))))


class Nano(nn.Module):
    """The model of nanoGPT's model.py: scores and loss of (idx, targets)."""

    def __init__(self, dim: int, depth: int, heads: int, length: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(256, dim), nn.Embedding(length, dim)
        self.h = nn.ModuleList([NanoBlock(dim, heads) for _ in range(depth)])
        self.ln_f, self.lm_head = nn.LayerNorm(dim), nn.Linear(dim, 256, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.wte(idx) + self.wpe(torch.arange(0, idx.size(1), dtype=torch.long))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return logits, functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


def bare(loss_of: Callable[..., Tensor], model: nn.Module, rows: Callable[[], tuple[Tensor, ...]], half: bool = False):
    """step() of a loop without a library."""
    optimizer = ADAM.make(model.parameters())
    model.train()
    at = 0

    def step() -> float:
        nonlocal at
        for group in optimizer.param_groups:
            group["lr"] = rate(at)
        inputs = rows()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(*inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        at += 1
        return loss.detach()

    return step


def gathered(length: int, batch: int) -> Callable[[], tuple[Tensor]]:
    """Rows of tokens, gathered at once."""
    window = torch.arange(length + 1)
    return lambda: (TOKENS[torch.randint(len(TOKENS) - length, (batch, 1)) + window].long(),)


def stacked(length: int, batch: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """get_batch of nanoGPT's train.py."""
    data = TOKENS.numpy()

    def get_batch() -> tuple[Tensor, Tensor]:
        ix = torch.randint(len(data) - length, (batch,))
        x = torch.stack([torch.from_numpy((data[i : i + length]).astype(numpy.int64)) for i in ix])
        y = torch.stack([torch.from_numpy((data[i + 1 : i + 1 + length]).astype(numpy.int64)) for i in ix])
        return x, y

    return get_batch


def next_token(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The loss of rows of tokens under a model."""
    return lambda rows: functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def language(shape: dict[str, Any]) -> TinyGPT:
    return TinyGPT(**{key: value for key, value in shape.items() if key != "batch"}, seed=0)


def pretrainer(shape: dict[str, Any], **arguments: Any) -> ContinualPretrainer:
    """Everlearn on the same text."""
    return ContinualPretrainer(
        language(shape), schedule=SCHEDULE, optimizer=ADAM, objective=NextToken(), batch=shape["batch"], **arguments
    )


def text(shape: dict[str, Any]) -> TextDomain:
    return TextDomain("noise", TOKENS, window=shape["length"], held=0.0)


def images() -> ImageDomain:
    random = torch.Generator().manual_seed(0)
    return ImageDomain("noise", torch.randn(2000, 1, IMAGES["size"], IMAGES["size"], generator=random))


def autoencoder() -> MaskedAutoencoder:
    return MaskedAutoencoder(IMAGES["size"], patch=IMAGES["patch"], dim=IMAGES["dim"], seed=0)


def painter() -> ContinualPretrainer:
    return ContinualPretrainer(
        autoencoder(), schedule=SCHEDULE, optimizer=ADAM, objective=MaskedAutoencoding(), batch=IMAGES["batch"]
    )


def turn(step: Callable[[], Any], steps: int) -> Turn:
    """Milliseconds of processor time an update, of a bare loop."""

    def clocked(number: int) -> float:
        started = process_time()
        losses = torch.zeros(steps)
        for place in range(steps):
            losses[place] = step()
        return 1e3 * (process_time() - started) / steps

    return clocked


def ours(line: ContinualPretrainer, domain: Any, steps: int) -> Turn:
    """The same of Everlearn."""

    def clocked(number: int) -> float:
        started = process_time()
        line.phase(domain, steps)
        return 1e3 * (process_time() - started) / steps

    return clocked


def check_same() -> None:
    """The bare loop on Everlearn's rows, masks and rates ends in the same bits. Stops where it does not."""
    shape = SHAPES["small"]
    for line, domain, model in (
        (pretrainer(shape), text(shape), language(shape)),
        (painter(), images(), autoencoder()),
    ):
        taken: list[tuple[Tensor, ...]] = []
        rates: list[float] = []
        whole = type(line.objective).draw

        class Noted(type(line.objective)):
            def draw(self, model, x, random, whole=whole, taken=taken):
                drawn = whole(self, model, x, random)
                taken.append(drawn)
                return drawn

        line.objective = Noted()
        line.phase(domain, 12, watch=lambda line, loss, rates=rates: rates.append(line.rate))
        loss_of = next_token(model) if isinstance(model, TinyGPT) else model.loss
        optimizer = ADAM.make(model.parameters())
        for inputs, value in zip(taken, rates, strict=True):
            optimizer.param_groups[0]["lr"] = value
            inputs = (inputs[0].long(),) if isinstance(model, TinyGPT) else inputs
            loss_of(*inputs).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not all(map(torch.equal, model.state_dict().values(), line.model.state_dict().values())):
            sys.exit(f"the bare loop and Everlearn learn different weights: {line.objective}")


def languages(name: str, rounds: int, compiled: bool) -> dict[str, list[float]]:
    """Milliseconds an update of each contender, of each round."""
    shape, steps = SHAPES[name], STEPS[name]
    length, batch = shape["length"], shape["batch"]
    with isolated(0, "nano"):
        nano = Nano(shape["dim"], shape["depth"], shape["heads"], length)
    plain, in_half = language(shape), language(shape)
    calls: dict[str, Turn] = {
        "bare loop": turn(bare(next_token(plain), plain, gathered(length, batch)), steps),
        "nanoGPT's loop": turn(bare(lambda x, y: nano(x, y)[1], nano, stacked(length, batch)), steps),
        "everlearn": ours(pretrainer(shape), text(shape), steps),
        "bare loop, bfloat16": turn(bare(next_token(in_half), in_half, gathered(length, batch), half=True), steps),
        "everlearn, bfloat16": ours(pretrainer(shape, precision="bfloat16"), text(shape), steps),
    }
    if compiled:
        source = language(shape)
        calls["bare loop, compiled"] = turn(bare(next_token(torch.compile(source)), source, gathered(length, batch)), steps)
        calls["everlearn, compiled"] = ours(pretrainer(shape, compile=True), text(shape), steps)
    return timing.interleave(calls, rounds)


def paintings(rounds: int) -> dict[str, list[float]]:
    """The same for masked autoencoders."""
    model, domain, random = autoencoder(), images(), torch.Generator().manual_seed(1)

    def rows() -> tuple[Tensor, Tensor]:
        drawn = domain.images[torch.randint(len(domain.images), (IMAGES["batch"],))]
        return drawn, torch.rand(len(drawn), model.tokens, generator=random).argsort(1) >= model.kept

    steps = STEPS["images"]
    calls = {"bare loop": turn(bare(model.loss, model, rows), steps), "everlearn": ours(painter(), domain, steps)}
    return timing.interleave(calls, rounds)


def schedules(rounds: int, steps: int = 2000) -> dict[str, list[float]]:
    """Microseconds of a schedule's step, for an optimiser of one group."""

    def composed(optimizer: torch.optim.Optimizer) -> Any:
        from torch.optim import lr_scheduler as torchs

        parts = [
            torchs.LinearLR(optimizer, 1e-8, 1.0, WARMUP),
            torchs.CosineAnnealingLR(optimizer, COOLDOWN - WARMUP, 0.5 * MAX_LR),
            torchs.ConstantLR(optimizer, 0.5, 10**9),
        ]
        return torchs.SequentialLR(optimizer, parts, [WARMUP, COOLDOWN])

    def clocked(make: Callable[[torch.optim.Optimizer], Any]) -> Turn:
        def one(number: int) -> float:
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=MAX_LR)
            scheduler = make(optimizer)
            optimizer.step()
            started = process_time()
            for _ in range(steps):
                scheduler.step()
            return 1e6 * (process_time() - started) / steps

        return one

    calls = {
        "SequentialLR of torch": clocked(composed),
        "everlearn InfiniteLR": clocked(
            lambda optimizer: InfiniteLR(optimizer, MAX_LR, warmup=WARMUP, cooldown_end=COOLDOWN)
        ),
    }
    return timing.interleave(calls, rounds)


def shared(rounds: int) -> dict[str, Any]:
    """Milliseconds an update of one process, of two that share nothing, and of two that share each batch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        told = [__file__, "--worker", folder, "--rounds", str(rounds)]
        subprocess.run([*command, *told], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    wall = {name: [max(pair) for pair in zip(*(one[name]["wall"] for one in found), strict=True)] for name in found[0]}
    work = {name: [sum(pair) for pair in zip(*(one[name]["work"] for one in found), strict=True)] for name in found[0]}
    return {"wall_ms": wall, "work_ms": work}


def worker(folder: str, rounds: int) -> None:
    """What each of two processes does for `shared`."""
    shape, steps = SHAPES["larger"], STEPS["larger"]
    alone, domain = pretrainer(shape), text(shape)  # made before there are others, so it asks nobody
    distributed.init_process_group("gloo")
    rank, together = distributed.get_rank(), pretrainer(shape)
    lines = {"one process": alone, "two processes that share nothing": alone, "two processes": together}
    found: dict[str, dict[str, list[float]]] = {name: {"wall": [], "work": []} for name in lines}
    for number in range(-1, rounds):
        for name, line in lines.items():
            distributed.barrier()
            wall, work = perf_counter(), process_time()
            if rank == 0 or name != "one process":
                line.phase(domain, steps)
            wall, work = perf_counter() - wall, process_time() - work
            if number >= 0:
                found[name]["wall"].append(1e3 * wall / steps)
                found[name]["work"].append(1e3 * work / steps)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


PAIRS = (  # (ours, theirs): ratios of speed
    ("everlearn", "bare loop", True),
    ("everlearn", "nanoGPT's loop", True),
    ("everlearn, bfloat16", "bare loop, bfloat16", True),
    ("everlearn, compiled", "bare loop, compiled", True),
    ("everlearn, bfloat16", "everlearn", False),
    ("everlearn, compiled", "everlearn", False),
)


def text_of(record: dict[str, Any]) -> str:
    """The tables in Markdown."""
    parts = []
    for name, figures in record["languages"].items():
        shape = SHAPES[name]
        head = f"{name}: {shape['dim']} wide, {shape['depth']} blocks, {shape['batch']} x {shape['length']} tokens"
        parts.append(_times(head, figures, shape["batch"] * shape["length"], "tokens/s"))
    parts.append(_times("masked autoencoder, 64 images of 28x28", record["images"], IMAGES["batch"], "images/s"))
    rows = []
    for name, figures in [*record["languages"].items(), ("masked autoencoder", record["images"])]:
        for first, second, asked in PAIRS:
            if first in figures and second in figures:
                found = timing.ratio(figures[second], figures[first])
                told = "" if not asked else f">= {LEAST} {'met' if found['ratio'] >= LEAST else 'missed'}"
                rows.append([f"{name}: {first} / {second}", _spread(found, "ratio"), told])
    parts.append(timing.table(["ratio of speeds", "ratio (quartiles)", "target"], rows))
    rows = []
    for name, values in record["schedules"].items():
        found = timing.summary(values)
        told = "" if "everlearn" not in name else f"< {MOST_US:.0f} {'met' if found['median'] < MOST_US else 'missed'}"
        rows.append([name, _spread(found, "median", 1), told])
    parts.append(timing.table(["a schedule's step", "µs (quartiles)", "target"], rows))
    rows = []
    one = record["shared"]["wall_ms"]["one process"], record["shared"]["work_ms"]["one process"]
    for name, wall in record["shared"]["wall_ms"].items():
        work = record["shared"]["work_ms"][name]
        batches = 2 if "nothing" in name else 1
        gain = timing.ratio([batches * value for value in one[0]], wall)
        costs = timing.ratio(work, [batches * value for value in one[1]])
        rows.append([name, f"{timing.summary(wall)['median']:,.0f}", _spread(gain, "ratio"), _spread(costs, "ratio")])
    head = [
        "larger, by torchrun, one thread each",
        "wall, ms",
        "batches a second / one process",
        "processor time a batch / one process",
    ]
    parts.append(timing.table(head, rows))
    return "\n\n".join(parts)


def _times(head: str, figures: dict[str, list[float]], units: int, unit: str) -> str:
    rows = []
    for name, values in figures.items():
        found = timing.summary(values)
        rows.append([name, _spread(found, "median", 1), f"{1e3 * units / found['median']:,.0f}"])
    return timing.table([head, "update, ms (quartiles)", unit], rows)


def _spread(found: dict[str, float], key: str, digits: int = 2) -> str:
    return f"{found[key]:.{digits}f} ({found['low']:.{digits}f}-{found['high']:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="torch.compile needs a C++ compiler")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.rounds)
        return
    check_same()
    record = {
        "settings": {"shapes": SHAPES, "images": IMAGES, "steps": STEPS, "rounds": options.rounds},
        "languages": {name: languages(name, options.rounds, not options.no_compile) for name in SHAPES},
        "images": paintings(options.rounds),
        "schedules": schedules(options.rounds),
        "shared": shared(options.rounds),
    }
    timing.publish("pretraining", record, text_of(record))


if __name__ == "__main__":
    main()
