"""The stored trace of the published rule: 2,000 digits, two epochs, a swap every 200 rows; made by the plain loops beside it.

Run as a module from the top of the repository to write it anew: `python -m tests.optim.official`.
"""

import json
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from everlearn.core.random import generator

TRACE = Path(__file__).with_name("homeostatic_trace.json")
LR, EPOCH, ROWS = 0.5, 1000, 2000
SIZES = (64, 20, 16, 10)


def problem():
    """(model in float64, x (2000, 64), y as at first, {row: swapped pair})"""
    x, y = load_digits(return_X_y=True)
    order = torch.cat([torch.randperm(len(y), generator=generator(0, "rows", epoch))[:EPOCH] for epoch in range(2)])
    random, layers = generator(0, "weights"), []
    for inputs, outputs in pairwise(SIZES):
        layer = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(outputs, inputs, generator=random, dtype=torch.float64) * (2.0 / inputs) ** 0.5)
            layer.bias.copy_(torch.randn(outputs, generator=random, dtype=torch.float64))
        layers += [layer, nn.ELU()]
    pairs = torch.stack([torch.randperm(10, generator=random)[:2] for _ in range(ROWS // 200 - 1)]).tolist()
    swaps = {200 * (number + 1): tuple(pair) for number, pair in enumerate(pairs)}
    return nn.Sequential(*layers[:-1]), torch.tensor(x)[order] / 16.0, torch.tensor(y)[order], swaps


def by_reference():
    from tests.optim.homeostatic_reference import official

    model, x, y, swaps = problem()
    layers = [(layer.weight.tolist(), layer.bias.tolist()) for layer in model if isinstance(layer, nn.Linear)]
    return official(layers, x.tolist(), y.tolist(), LR, EPOCH, swaps)


if __name__ == "__main__":
    found = by_reference()
    lines = ",\n".join(json.dumps(list(decision)) for decision in found)
    TRACE.write_text(f"[\n{lines}\n]\n")
    print(len(found), "decisions,", sum(decision[5] for decision in found), "taken")
