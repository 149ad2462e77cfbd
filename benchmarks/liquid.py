"""Liquid cells beside the package ncps: a forward and backward pass of a sequence, the same weights in both, one thread.

    python benchmarks/liquid.py

Rows of 24 steps with one feature, 32 neurons, batches of 64. Before anything is timed both must give the same answers from the same
weights to 1e-6, or the script stops. Times are those of the processor. Writes results/liquid.json and results/liquid.md.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from time import process_time
from typing import Any

import timing
import torch
from ncps import wirings
from ncps.torch import LTC, CfC
from torch import Tensor, nn

from everlearn.core.random import isolated
from everlearn.nn.closed_form import CfCCell, WiredCfCCell
from everlearn.nn.liquid import LiquidRNN
from everlearn.nn.time_constant import LTCCell
from everlearn.nn.wiring import auto_ncp

BATCH, STEPS, UNITS, OUTPUTS = 64, 24, 32, 4
TARGETS = {"CfC": 2.0, "CfC, wired": 2.0, "LTC": 5.0, "LTC, wired": 5.0}
CFC = {"ff1": "heads.f1", "ff2": "heads.f2", "time_a": "heads.a", "time_b": "heads.b", "backbone.0": "backbone.0"}
SYNAPSES = {"w": "w", "sigma": "sigma", "mu": "mu", "erev": "E"}
LTC_NAMES = {
    "gleak": "g",
    "vleak": "vleak",
    "cm": "C",
    **SYNAPSES,
    **{f"sensory_{a}": f"sensory_{b}" for a, b in SYNAPSES.items()},
}
Pair = tuple[nn.Module, LiquidRNN]


def copied(theirs: nn.Module, ours: nn.Module, names: Mapping[str, str]) -> None:
    """Put the peer's weights into our cell; names: {its name, or the beginning of it: ours}."""
    given = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            for their_name, our_name in names.items():
                rest = name.removeprefix(our_name)
                if name.startswith(our_name) and rest[:1] in ("", ".") and their_name + rest in given:
                    parameter.copy_(given[their_name + rest])


def pairs() -> dict[str, Pair]:
    """{name: (the peer's network, ours)} with the same weights."""
    found: dict[str, Pair] = {}
    with isolated(0, "networks"):
        found["CfC"] = (CfC(1, UNITS), LiquidRNN(CfCCell(1, UNITS)))
        copied(found["CfC"][0].rnn_cell, found["CfC"][1].cell, CFC)
        wired = WiredCfCCell(auto_ncp(1, UNITS, OUTPUTS))
        found["CfC, wired"] = (CfC(1, wirings.AutoNCP(UNITS, OUTPUTS)), LiquidRNN(wired))
        for number, cell in enumerate(wired.cells):
            copied(getattr(found["CfC, wired"][0].rnn_cell, f"layer_{number}"), cell, CFC)
        found["LTC"] = (LTC(1, UNITS), LiquidRNN(LTCCell(UNITS, 1)))
        found["LTC, wired"] = (LTC(1, wirings.AutoNCP(UNITS, OUTPUTS)), LiquidRNN(LTCCell(auto_ncp(1, UNITS, OUTPUTS))))
        for name in ("LTC", "LTC, wired"):
            copied(found[name][0].rnn_cell, found[name][1].cell, LTC_NAMES)
    return found


def step(model: nn.Module, x: Tensor, number: int) -> float:
    """Milliseconds of one forward and backward pass."""
    started = process_time()
    model(x)[0].pow(2).sum().backward()
    taken = 1e3 * (process_time() - started)
    model.zero_grad()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    x = torch.randn(BATCH, STEPS, 1, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {}
    rows = []
    for name, (theirs, ours) in pairs().items():
        timing.show(name)
        apart = float((theirs(x)[0] - ours(x)[0]).abs().max())
        if apart > 1e-6:
            raise SystemExit(f"{name}: the answers are {apart:.1e} apart, so these are not the same cells")
        calls: dict[str, Callable[[int], float]] = {"ncps": partial(step, theirs, x), "everlearn": partial(step, ours, x)}
        times = timing.interleave(calls, rounds)
        ratio = timing.ratio(times["ncps"], times["everlearn"])
        spread = {key: timing.summary(values) for key, values in times.items()}
        found[name] = {"apart": apart, "ms": spread, "ratio": ratio, "target": TARGETS[name]}
        verdict = "met" if ratio["ratio"] >= TARGETS[name] else "missed"
        cells = [f"{spread[key]['median']:.1f} ({spread[key]['low']:.1f}-{spread[key]['high']:.1f})" for key in calls]
        quartiles = f"{ratio['ratio']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
        rows.append([name, *cells, quartiles, f">= {TARGETS[name]:g} {verdict}", f"{apart:.0e}"])
    head = [
        "forward and backward",
        "ncps, ms (quartiles)",
        "everlearn, ms (quartiles)",
        "ratio (quartiles)",
        "target",
        "apart",
    ]
    settings = {"batch": BATCH, "steps": STEPS, "units": UNITS, "rounds": rounds}
    timing.publish("liquid", {"settings": settings, "cells": found}, timing.table(head, rows))


if __name__ == "__main__":
    main()
