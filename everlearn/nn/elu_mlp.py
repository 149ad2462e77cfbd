"""The small perceptron of homeostatic learning: ELU, weights and biases drawn as published.

    weights ~ N(0, sqrt(2 / inputs)),   biases ~ N(0, 1);       bytes as x / 255
    ELU: f(z) = z for z > 0, exp(z) - 1 otherwise

References: Man, Damasio & Neven (2022), arXiv 2205.08645; Clevert, Unterthiner & Hochreiter (2016), Fast and accurate deep network
learning by exponential linear units, arXiv 1511.07289.
"""

import math
from itertools import pairwise

from torch import nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.stream import Schema
from everlearn.nn.front import front


def elu_mlp(schema: Schema, hidden: tuple[int, ...] = (80, 60)) -> nn.Module:
    """A perceptron with ELU on the flattened row, first drawn as published; hidden: widths of its hidden layers.

    At 784 pixels, 80 and 60 hidden units and 10 classes it has 68,270 weights.

    Raises ArgumentError where a width is not an int >= 1 or the schema has no classes.

    >>> import torch
    >>> network = elu_mlp(Schema((1, 28, 28), torch.uint8, tuple("0123456789")))
    >>> sum(weight.numel() for weight in network.parameters())
    68270

    Reference: Man, Damasio & Neven (2022), arXiv 2205.08645.
    """
    if not isinstance(hidden, (tuple, list)):
        raise ArgumentError(f"elu_mlp: hidden must be the widths of the hidden layers such as (80, 60), got {hidden!r}.")
    for width in hidden:
        check_count("elu_mlp", "a width in hidden", width)
    layers: list[nn.Module] = [*front("elu_mlp", schema, shift=0.0), nn.Flatten()]
    for inputs, outputs in pairwise([math.prod(schema.shape), *hidden, schema.outputs]):
        layer = nn.Linear(inputs, outputs)
        nn.init.normal_(layer.weight, std=math.sqrt(2.0 / inputs))
        nn.init.normal_(layer.bias)
        layers += [layer, nn.ELU()]
    return nn.Sequential(*layers[:-1])
