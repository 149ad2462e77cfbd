"""Each network of convolutions in float32 and in bfloat16: the time of a gradient step and of an answer, 32 images, one thread.

    python benchmarks/precision.py

Both take turns on the same images, from the same weights. `apart` is by how much the first scores in training mode differ, as a part
of how much they differ from row to row. Writes results/precision.json and results/precision.md.
"""

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import timing
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.front import PRECISIONS
from everlearn.nn.networks import NETWORKS

ROWS = 32
CONTENDERS: dict[str, tuple[str, int, dict[str, Any]]] = {  # name: (network, side of the images, its arguments)
    "grey_cnn": ("grey_cnn", 32, {}),
    "conv4": ("conv4", 32, {}),
    "conv_stack, 16x16": ("conv_stack", 16, {}),
    "conv_stack": ("conv_stack", 32, {}),
    "small_cnn": ("small_cnn", 32, {}),
    "reduced_resnet18": ("reduced_resnet18", 32, {}),
    "cifar_resnet": ("cifar_resnet", 32, {}),
    "mobilenet_v2": ("mobilenet_v2", 32, {}),
    "resnet18": ("resnet18", 32, {}),
    'resnet18(stem="imagenet")': ("resnet18", 32, {"stem": "imagenet"}),
    "resnet12": ("resnet12", 32, {}),
}
SLOW = ("mobilenet_v2", "resnet18", "resnet12")  # a third of the rounds


def built(name: str, precision: str) -> tuple[nn.Module, Tensor]:
    """(network, images) of a contender."""
    network, side, arguments = CONTENDERS[name]
    schema = Schema((3, side, side), torch.uint8, tuple("0123456789"))
    random = torch.Generator().manual_seed(0)
    with isolated(0, "network"):
        model = NETWORKS[network](schema, precision=precision, **arguments)
    return model, torch.randint(256, (ROWS, *schema.shape), dtype=torch.uint8, generator=random)


def step(model: nn.Module, x: Tensor, number: int) -> float:
    """Milliseconds of one forward and backward pass."""
    model.train()
    started = perf_counter()
    torch.autograd.grad(cross_entropy(model(x), torch.arange(ROWS) % 10), list(model.parameters()))
    return 1e3 * (perf_counter() - started)


def answer(model: nn.Module, x: Tensor, number: int) -> float:
    """Milliseconds of one forward pass in evaluation mode."""
    model.eval()
    started = perf_counter()
    with torch.no_grad():
        model(x)
    return 1e3 * (perf_counter() - started)


def measured(name: str, rounds: int) -> dict[str, Any]:
    """The figures of one network."""
    models = {precision: built(name, precision) for precision in PRECISIONS}
    scores = [model.train()(x).detach() for model, x in models.values()]
    spread = (scores[0] - scores[0].mean(0)).norm()
    found: dict[str, Any] = {"apart": float((scores[0] - scores[1]).norm() / spread)}
    for what, clock in (("step", step), ("answer", answer)):
        calls: dict[str, Callable[[int], float]] = {key: partial(clock, *pair) for key, pair in models.items()}
        times = timing.interleave(calls, rounds)
        found[what] = {key: timing.summary(values) for key, values in times.items()}
        found[f"{what}_ratio"] = timing.ratio(times["float32"], times["bfloat16"])
    return found


def text(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    rows = []
    for name, found in record["networks"].items():
        rows.append([name])
        for what in ("step", "answer"):
            rows[-1] += [f"{found[what][key]['median']:,.1f}" for key in PRECISIONS]
            ratio = found[f"{what}_ratio"]
            rows[-1].append(f"{ratio['ratio']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})")
        rows[-1].append(f"{100 * found['apart']:.0f} %")
    head = [
        "3x32x32",
        "step, ms",
        "in bfloat16",
        "ratio (quartiles)",
        "answer, ms",
        "in bfloat16",
        "ratio (quartiles)",
        "apart",
    ]
    return timing.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    options = parser.parse_args()
    found = {}
    for name in options.networks:
        timing.show(name)
        slow = CONTENDERS[name][0] in SLOW
        found[name] = measured(name, max(3, options.rounds // 3) if slow else options.rounds)
    record = {"settings": {"rows": ROWS, "rounds": options.rounds}, "networks": found}
    timing.publish("precision", record, text(record))


if __name__ == "__main__":
    main()
