"""One pre-training that several processes share, begun by torchrun, or by a test alone; tests/learners/test_pretrainer_processes.py.

    torchrun --nproc-per-node 2 pretraining_process.py FOLDER CASE...

A case is named in `CASES`, optionally with the update after which it stops (`kill -9` without the noise): `text@9`. It goes on from the
newest snapshot in FOLDER/CASE, made by rank 0, and leaves losses and weights in FOLDER/CASE/end.RANK.safetensors.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.state import newest_snapshot, save_snapshot
from everlearn.data.pretraining import ImageDomain, TextDomain
from everlearn.data.replay_mix import ReplayMix
from everlearn.learners.pretrainer import ContinualPretrainer
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding, NextToken
from everlearn.nn.tiny_gpt import TinyGPT
from everlearn.optim.optimizers import SGD, Adam
from everlearn.optim.schedules import Infinite

FIRST, SECOND, ANNEAL = 8, 8, 6  # updates of each phase, and of the annealing behind them
BATCH, LR = 16, 0.02
SCHEDULE = Infinite(LR, warmup=2, cooldown_end=5)


def text(name: str) -> TextDomain:
    """Counting with stumbles, forwards or backwards."""
    random = torch.Generator().manual_seed(len(name))
    step = 1 if name == "forwards" else -1
    stumbles = (torch.rand(600, generator=random) < 0.2).long()
    return TextDomain(name, (step * torch.arange(600) + stumbles.cumsum(0)) % 11, window=8)


def images(name: str, dtype: torch.dtype) -> ImageDomain:
    """Noise that is brighter on one side."""
    random = torch.Generator().manual_seed(len(name))
    noise = torch.randn(60, 1, 8, 8, generator=random, dtype=torch.float64)
    noise[..., :4] += 1.0 if name == "forwards" else -1.0
    return ImageDomain(name, noise.to(dtype))


def language(dtype: torch.dtype) -> nn.Module:
    return TinyGPT(11, dim=16, depth=1, heads=2, length=8, seed=0).to(dtype)


class Dropping(nn.Module):
    """A language model of which each forward pass sees a part."""

    def __init__(self, whole: TinyGPT):
        super().__init__()
        self.whole = whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.whole.hidden(x), 0.2, self.training) @ self.whole.table.T


def painter(dtype: torch.dtype) -> nn.Module:
    return MaskedAutoencoder(size=8, patch=2, dim=12, depth=1, decoder_depth=1, heads=2, seed=0).to(dtype)


def line(model: nn.Module, **arguments) -> ContinualPretrainer:
    """The pre-trainer of a case."""
    painting = isinstance(model, MaskedAutoencoder)
    objective = MaskedAutoencoding() if painting else NextToken()
    return ContinualPretrainer(model, objective=objective, schedule=SCHEDULE, **{"batch": BATCH, **arguments})


ADAM = Adam(lr=LR, weight_decay=0.005, betas=(0.9, 0.95))
SINGLE, DOUBLE = torch.float32, torch.float64
CASES = {
    "text": lambda: line(language(DOUBLE), optimizer=ADAM, accumulate=2, replay=ReplayMix(0.5, seed=1)),
    "clipped": lambda: line(language(DOUBLE), optimizer=SGD(lr=LR, momentum=0.9, clip=0.5)),
    "painting": lambda: line(painter(DOUBLE), optimizer=ADAM, accumulate=2),
    "dropping": lambda: line(Dropping(language(SINGLE)), optimizer=ADAM, accumulate=2, replay=ReplayMix(0.5, seed=1)),
    "float32": lambda: line(language(SINGLE), optimizer=SGD(lr=LR)),
    "bfloat16": lambda: line(language(SINGLE), optimizer=SGD(lr=LR), precision="bfloat16"),
    "uneven": lambda: line(language(SINGLE), batch=10, accumulate=2),
}
CASES["undisturbed"] = CASES["dropping"]


class Stopped(Exception):
    """The process ends here."""


def learn(case: str, folder: Path, *, until: int | None = None, made=None) -> dict[str, torch.Tensor]:
    """Losses and weights at the end of a case, which goes on from where it was stopped."""
    pretrainer = (made or CASES[case])()
    dtype = next(pretrainer.model.parameters()).dtype
    domains = [
        images(name, dtype) if isinstance(pretrainer.objective, MaskedAutoencoding) else text(name)
        for name in ("forwards", "backwards")
    ]
    found = newest_snapshot(folder / "state")
    if found is not None:
        pretrainer.load_state_dict(found[1])
        pretrainer.enter(domains[len(pretrainer.names) - 1])
    losses = {}

    def watch(trainer: ContinualPretrainer, loss: float) -> None:
        losses[trainer.steps - 1] = loss
        if trainer.steps == until:
            raise Stopped

    try:
        for domain, end in zip(domains, (FIRST, FIRST + SECOND), strict=True):
            if pretrainer.steps < end:
                pretrainer.phase(domain, end - pretrainer.steps, watch=watch)
        pretrainer.anneal(ANNEAL, watch=watch)
    except Stopped:
        if pretrainer.rank == 0:
            save_snapshot(folder / "state", pretrainer.steps, pretrainer.state_dict())
    curve = torch.tensor([losses[step] for step in sorted(losses)], dtype=torch.float64)
    return {"losses": curve, **{key: value.detach().clone() for key, value in pretrainer.model.state_dict().items()}}


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    for text_of_case in sys.argv[2:]:
        case, _, until = text_of_case.partition("@")
        folder = Path(sys.argv[1]) / case
        folder.mkdir(exist_ok=True)
        end = folder / f"end.{distributed.get_rank()}"
        try:
            save_file(learn(case, folder, until=int(until) if until else None), end.with_suffix(f"{end.suffix}.safetensors"))
        except ArgumentError as refusal:
            end.with_suffix(f"{end.suffix}.refused").write_text(str(refusal))
        distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # all is written; threads of torch's groups can abort a slow exit


if __name__ == "__main__":
    main()
