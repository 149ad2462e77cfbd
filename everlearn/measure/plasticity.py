"""Whether a network can still learn: how many units are in use, how rich its features are, how large its weights have grown.

    active_units     share of hidden units i with  s_i > threshold,  s_i = mean_x |h_i(x)| / mean_k mean_x |h_k(x)|  (per layer)
    effective_rank   exp( - sum_k p_k ln p_k ),  p_k = sigma_k / sum sigma  (singular values of the features, rows x width)
    weight_norm      sqrt( sum of all squared weights )

A unit with threshold 0 is active if it is not 0 for at least one probe row; one channel of a convolution is one unit.
Reference: Sokar et al. (2023), The dormant neuron phenomenon, arXiv 2302.12902. Roy & Vetterli (2007), The effective rank.
Dohare et al. (2024), Loss of plasticity in deep continual learning, Nature 632.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.core.errors import check_count, check_range
from everlearn.core.events import Batch, Event, X, join, map_x, rows, size
from everlearn.core.learner import Learner, ask_latest
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure.contents import device_of, networks
from everlearn.nn.features import last_linear

SPREAD = 32  # places along the stream from which the probe rows come
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Tanh, nn.Sigmoid,
)  # fmt: skip


class Plasticity(Monitor):
    """Active units, effective rank and weight norm of a learner's networks, on probe rows spread over the whole stream.

    rows: probe rows (the same all along, never learned from through this monitor); threshold: 0 asks whether a unit ever fires
    (right for ReLU), 0.025 is the published value for dormant units, which smooth activations need; points: how many times along
    the stream it is measured, the end always among them.

    Hidden units are the outputs of activation modules (nn.ReLU and its kin) that `predict` runs; in a network without such
    modules, the inputs of its last linear layer. Learners without a network have no figures.
    """

    name = "plasticity"
    parts = ("last", "position", "measured")

    def __init__(self, rows: int = 256, *, threshold: float = 0.0, points: int = 20):
        check_count(self.name, "rows", rows)
        check_range(self.name, "threshold", threshold, 0.0)
        check_count(self.name, "points", points)
        self.rows = rows
        self.threshold = threshold
        self.points = points
        self.total = 1
        self.probe: X | None = None  # a function of the stream alone, so it is not state
        self.last: dict[str, Any] = {}
        self.position = 0
        self.measured = 0  # points done

    def start(self, learner: Learner, stream: Stream) -> None:
        self.total = len(stream)
        self.last, self.position, self.measured = {}, 0, 0
        self.probe = None
        if networks(learner):
            device = device_of(learner)
            self.probe = map_x(lambda value: value.to(device), probe_rows(stream, self.rows))

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        self.position = step.position + 1

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Held-out sets say nothing of the network's inside."""

    def record(self, learner: Learner) -> dict[str, Any]:
        due = self.position * self.points // self.total
        first = self.measured == 0
        if self.probe is None or not (first or due > self.measured or self.position == self.total):
            return {}
        self.measured = max(1, due)
        self.last = inspect_networks(learner, self.probe, self.threshold)
        return self.last

    def figures(self) -> dict[str, Any]:
        return self.last


def probe_rows(stream: Stream, count: int) -> X:
    """`count` rows (fewer on a short stream), taken in equal parts from places spread evenly over the stream."""
    places = sorted({index * len(stream) // SPREAD for index in range(SPREAD)})
    share = -(-count // len(places))
    parts: list[X] = []
    missing = count
    for place, following in zip(places, [*places[1:], len(stream)], strict=True):
        wanted = min(share, missing)
        for index in range(place, following):
            event = stream[index]
            if wanted and isinstance(event, Batch):
                part = rows(event.x, slice(0, wanted))
                parts.append(part)
                wanted -= size(part)
                missing -= size(part)
            if not wanted:
                break
    return reduce(join, parts)


def inspect_networks(learner: Learner, x: X, threshold: float = 0.0) -> dict[str, Any]:
    """active_units, effective_rank and weight_norm of the networks of a learner, as `predict(x)` uses them.

    Changes nothing: hooks are removed and training modes put back. A figure is None where predict runs no layer for it.
    """
    found = networks(learner)
    layers: list[Tensor] = []
    features: list[Tensor] = []
    modules = [module for network in found for module in network.modules()]
    hooks = [
        module.register_forward_hook(lambda _m, _x, y: layers.append(y))
        for module in modules
        if isinstance(module, ACTIVATIONS)
    ]
    heads = [head for head in map(last_linear, found) if head is not None]
    hooks += [head.register_forward_pre_hook(lambda _m, inputs: features.append(inputs[0])) for head in heads]
    try:
        with _modes_kept(modules), torch.no_grad():
            ask_latest(learner, x)
    finally:
        for hook in hooks:
            hook.remove()
    layers = [layer for layer in layers if len(layer) % size(x) == 0]  # a first try on one row is not the answer
    weights = {id(parameter): parameter for network in found for parameter in network.parameters()}.values()
    return {
        "active_units": active_units(layers or features[-1:], threshold),
        "effective_rank": effective_rank(_by_row(features[-1])) if features else None,
        "weight_norm": math.sqrt(math.fsum(float(weight.detach().double().square().sum()) for weight in weights)),
    }


def active_units(layers: Sequence[Tensor], threshold: float = 0.0) -> float | None:
    """The share of units whose mean activation is above `threshold` times the mean of their layer; None without layers.

    layers: activations (batch, units), (batch, tokens, units) or (batch, channels, height, width); a layer of zeros has none active.

    >>> active_units([torch.tensor([[0.0, 1.0, 0.0, 3.0], [0.0, 0.0, 2.0, 3.0]])])
    0.75
    """
    active, units = 0, 0
    for layer in layers:
        means = _by_unit(layer.detach().double().abs())
        active += int((means > threshold * means.mean()).sum())
        units += len(means)
    return active / units if units else None


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of (rows, width); 0 for a matrix of zeros.

    >>> round(effective_rank(torch.eye(5)), 9)
    5.0
    """
    sizes = torch.linalg.svdvals(features.detach().double().cpu())
    if float(sizes.sum()) == 0.0:
        return 0.0
    shares = sizes / sizes.sum()
    return math.exp(float(torch.special.entr(shares).sum()))


def _by_unit(layer: Tensor) -> Tensor:
    """(units,) means over everything but the units: the channels of planes, else the last dimension."""
    unit = 1 if layer.ndim >= 4 else layer.ndim - 1
    return layer.mean(dim=[axis for axis in range(layer.ndim) if axis != unit])


def _by_row(features: Tensor) -> Tensor:
    """(rows, width): the mean over what lies between, tokens say."""
    return features if features.ndim == 2 else features.reshape(len(features), -1, features.shape[-1]).mean(dim=1)


@contextmanager
def _modes_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
