"""The verb of those who pre-train: `pretrain`, domain after domain, with a model delivered after each.

The same command goes on where it was stopped. Begun by torchrun, its processes share every batch, and the first of them writes.
"""

import hashlib
import json as json_text
import os
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from everlearn.console import Bar, console, print_json, say
from everlearn.core.errors import ArgumentError, check_count, check_range

RUNS = Path("everlearn-runs")
RATE, WARMUP, COOLDOWN = 0.001, 0.05, 0.4  # the last two of the first phase, Singh et al. (2025)


def pretrain(
    model: str = "auto",
    steps: int = 1000,
    anneal: float = 0.2,
    lr: float | None = None,
    schedule: str | None = None,
    optimizer: str = "adam(weight_decay=0.005, betas=(0.9, 0.95))",
    replay: str | None = None,
    penalty: str | None = None,
    objective: str | None = None,
    tokenizer: str | None = None,
    window: int = 128,
    split: int = 0,
    size: int | None = None,
    batch: int = 64,
    accumulate: int = 1,
    precision: str = "float32",
    device: str = "cpu",
    folder: str | None = None,
    snapshot_every: int = 200,
    seed: int = 0,
    *,
    domains: list[str],
    compiled: bool,
    resume: bool,
    json: bool,
) -> int:
    """Pre-train one model on domain after domain, and hand out an annealed copy after each.

    Args:
        model: tiny_gpt(...) for texts, masked_autoencoder(...) for images, hub('FOLDER') for a Hugging Face causal model of yours, or
            mymodule:build (default: the one for the domains)
        steps: updates in each domain, those of the annealing included
        anneal: share of them that the delivered copy is annealed for; the main line does without them
        lr: the highest rate of the usual schedule, infinite(lr, warmup=5 % of the steps, cooldown_end=40 %) (default: 0.001)
        schedule: a call string, such as repeated_cosine(0.001, steps=1000, warmup=50) or wsd(0.001, warmup=50)
        optimizer: adam(...) or sgd(...); its rate is that of the schedule
        replay: what is kept of past domains, such as replay_mix(0.25, keep=0.05): a quarter of the rows, from a 20th of each domain
        penalty: what holds the model to past domains, lwf(strength=0.5) or mas(strength=1.0)
        objective: next_token or masked_autoencoding (default: what the model is for)
        tokenizer: the folder of a Hugging Face tokenizer (default: that of hub('FOLDER'), else bytes)
        window: tokens that a model sees at once
        split: cut a data set of images into so many domains of classes
        size: pixels to which the images of a folder are brought, where they differ
        batch: rows of an update, over all processes
        accumulate: parts in which a batch is taken, to save memory
        precision: float32, or bfloat16 for the forward pass
        device: cpu, cuda, or auto
        folder: where curve, snapshots, delivered models and report go (default: a folder of everlearn-runs/ named by the settings)
        snapshot_every: updates between two snapshots
        seed: of the weights, the rows and the masks
    """
    given = {key: value for key, value in locals().items() if key not in ("resume", "json", "folder", "snapshot_every")}
    from everlearn.comparison.job import reach
    from everlearn.core.lock import held

    reach(["", str(Path.cwd())])
    check_count("pretrain", "steps", steps)
    check_range("pretrain", "anneal", anneal, 0.0, 1.0)
    settings = json_text.dumps(given, sort_keys=True)
    mark = hashlib.sha256(settings.encode()).hexdigest()[:8]
    place = Path(folder) if folder else RUNS / f"pretrain-{mark}"
    with _processes(device) as (rank, where), held(place, "choose another --folder") if rank == 0 else nullcontext():
        course = make_course(place=place, resume=resume, snapshot_every=snapshot_every, **{**given, "device": where})
        with Bar("pre-training", quiet=json or rank > 0) as bar:
            record = course.run(lambda done, total: bar.move(done / total, done, total, "updates"))
    if rank > 0:
        return _leave(0)
    from everlearn.measure.report.pretraining_page import write_pretraining_page

    write_pretraining_page(record | {"config": given}, place / "report.html")
    if json:
        return _leave(print_json(record))
    print_pretraining(record)
    say(f"models: {place / 'delivered'}\nreport: {place / 'report.html'}")
    return _leave(0)


def make_course(
    *, domains: Sequence[str], place: Path, resume: bool, snapshot_every: int, seed: int, device: str, **given: Any
) -> Any:
    """The course that the arguments of `everlearn pretrain` name. Raises SpecError, ArgumentError, DataError, StateError."""
    from everlearn.comparison.pretraining_parts import build_network, deliver, read_domains, shape_of, tokenizer_of
    from everlearn.core.spec import build, parse
    from everlearn.data.replay_mix import ReplayMix
    from everlearn.learners.pretrainer import ContinualPretrainer
    from everlearn.learners.pretraining_course import Course
    from everlearn.learners.pretraining_penalties import PENALTIES
    from everlearn.nn.pretext import pretext
    from everlearn.optim.optimizers import OPTIMIZERS
    from everlearn.optim.schedules import SCHEDULES, Infinite

    steps = given["steps"]
    reader = tokenizer_of(given["tokenizer"], given["model"])
    streams = read_domains(
        domains, window=given["window"], split=given["split"], size=given["size"], reader=reader, cache=place / "tokens"
    )
    shape = shape_of(streams[0], reader)
    network = build_network(given["model"], shape, seed).to(device)
    if given["schedule"] is None:
        schedule = Infinite(RATE if given["lr"] is None else given["lr"], round(WARMUP * steps), round(COOLDOWN * steps))
    else:
        schedule = build(parse(given["schedule"]), SCHEDULES, "schedule")
        if given["lr"] is not None:
            raise ArgumentError("pretrain: lr is the rate of the usual schedule; give it within schedule, and leave lr out.")
    infinite = isinstance(schedule, Infinite) and schedule.anneal_start is None
    images = hasattr(streams[0], "images")
    objective = pretext(given["objective"] or ("masked_autoencoding" if images else "next_token"))
    penalties = {name: partial(cls, objective) for name, cls in PENALTIES.items()}
    line = ContinualPretrainer(
        network,
        optimizer=build(parse(given["optimizer"]), OPTIMIZERS, "optimizer"),
        schedule=schedule,
        objective=objective,
        replay=None if given["replay"] is None else build(parse(given["replay"]), {"replay_mix": ReplayMix}, "replay"),
        penalty=None if given["penalty"] is None else build(parse(given["penalty"]), penalties, "penalty"),
        batch=given["batch"],
        accumulate=given["accumulate"],
        precision=given["precision"],
        compile=given["compiled"],
        seed=seed,
    )
    return Course(
        line,
        streams,
        steps=steps,
        anneal=round(given["anneal"] * steps) if infinite else 0,
        folder=place,
        resume=resume,
        snapshot_every=snapshot_every,
        deliver=partial(deliver, text=given["model"], shape=shape, reader=reader),
        clock=time.perf_counter,
        config={**given, "domains given": list(domains), "seed": seed},
    )


def print_pretraining(record: dict[str, Any]) -> None:
    """Print what each delivered model loses on each domain, and what phases took and cost."""
    from rich.table import Table

    names = record["domains"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title="held-out loss", title_justify="left")
    table.add_column("delivered after")
    for name in names:
        table.add_column(name, justify="right")
    for name, row in zip(names, record["delivered"], strict=True):
        table.add_row(name, *(f"{value:.4f}" for value in row))
    table.add_row("forgotten since", *(f"{value:+.4f}" for value in record["forgetting"]))
    console().print(table)
    speed = record["tokens_per_second"] or record["rows_per_second"]
    unit = "tokens" if record["tokens_per_second"] else "images"
    told = "" if speed is None else f", {speed:,.0f} {unit} a second"
    say(f"{record['updates']:,} updates, {record['rows']:,} rows{told}")


@contextmanager
def _processes(device: str) -> Any:
    """(rank, device) of this process; processes that torchrun began are joined for the length of the block."""
    import torch

    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if device not in ("cpu", "cuda", "auto"):
        raise ArgumentError(f"pretrain: device must be cpu, cuda or auto, got {device!r}.")
    if on_gpu and not torch.cuda.is_available():
        raise ArgumentError("pretrain: there is no GPU here; use --device cpu.")
    if "WORLD_SIZE" not in os.environ:
        yield 0, "cuda" if on_gpu else "cpu"
        return
    from torch import distributed

    local = int(os.environ.get("LOCAL_RANK", "0"))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield distributed.get_rank(), f"cuda:{local}" if on_gpu else "cpu"
        distributed.barrier()  # none goes while another still counts on it
    finally:
        distributed.destroy_process_group()


def _leave(code: int) -> int:
    """The exit code; a process that torchrun began ends here and now, since threads of torch's groups can abort a slow exit."""
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
