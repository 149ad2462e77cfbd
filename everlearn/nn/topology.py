"""Which weights of a sparse network exist before it has learned anything.

    uniform         p_l = density
    Erdos-Renyi     p_l = eps * sum(shape_l) / prod(shape_l), at most 1, with eps so that sum_l p_l N_l = density * N

Reference: Mocanu et al. (2018), arXiv 1707.04780; Evci et al. (2020), Rigging the lottery, arXiv 1911.11134.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.nn.masks import highest

Shapes = Mapping[str, Sequence[int]]


def uniform_densities(shapes: Shapes, density: float) -> dict[str, float]:
    """The same density for every layer.

    >>> uniform_densities({"first": (4, 2)}, 0.5)
    {'first': 0.5}
    """
    _check(density)
    return dict.fromkeys(shapes, density)


def erk_densities(shapes: Shapes, density: float) -> dict[str, float]:
    """The density of each layer by the Erdos-Renyi kernel: small layers dense, large ones sparse, density * N active in all.

    shapes: {layer: shape of its weight}; density: in (0, 1].

    >>> {name: round(value, 4) for name, value in erk_densities({"a": (300, 784), "b": (100, 300), "c": (10, 100)}, 0.2).items()}
    {'a': 0.1622, 'b': 0.4694, 'c': 1.0}
    """
    _check(density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while len(dense) < len(shapes):
        sparse = [name for name in shapes if name not in dense]
        wanted = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = wanted / sum(raw[name] * sizes[name] for name in sparse)
        most = max(raw[name] for name in sparse)
        if most * scale <= 1.0:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense.update(name for name in sparse if raw[name] == most)
    return dict.fromkeys(shapes, 1.0)


def draw_mask(shape: Sequence[int], density: float, random: torch.Generator, exact: bool = True) -> Tensor:
    """A bool mask of this shape: round(density * N) places drawn at random, or each place with that chance (exact=False).

    >>> int(draw_mask((10, 10), 0.25, torch.Generator().manual_seed(0)).sum())
    25
    """
    _check(density)
    draws = torch.rand(math.prod(shape), generator=random)
    if not exact:
        return (draws < density).reshape(tuple(shape))
    return highest(-draws, round(density * len(draws))).reshape(tuple(shape))


def _check(density: float) -> None:
    if not 0.0 < density <= 1.0:
        raise ArgumentError(
            f"masks: density must be in (0, 1], got {density!r}. Use density=0.2 for a fifth of the weights."
        )
