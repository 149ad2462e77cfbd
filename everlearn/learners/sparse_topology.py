"""The topology of one sparse task: the first draw, and the changes while it trains.

    update   remove ceil(rate * active) weights of each layer, grow as many; rate falls from first to last over the task
    auto     Erdos-Renyi while its sparsest layer keeps a free part above `floor`, uniform from then on; growth by momentum in
             layers of which less than half is used, at random (which may read used weights) in the others

Reference: Yildirim et al. (2024), arXiv 2308.14831. The automatic choice is this project's own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.nn.growth import GROWTH, REMOVAL, SCHEDULES, growth_score, rate_at, remove, rewire
from everlearn.nn.masks import highest
from everlearn.nn.topology import draw_mask, erk_densities, uniform_densities

INITS = ("erk", "uniform", "auto")
HALF = 0.5  # of a layer used: from here on growth="auto" grows at random


@dataclass(frozen=True)
class Topology:
    """The rules by which tasks get their masks; the arguments are those of `Sparse`."""

    density: float = 0.2
    init: str = "erk"
    growth: str = "random"
    removal: str = "magnitude"
    rate: tuple[float, float] = (0.5, 0.005)
    schedule: str = "cosine"
    update_every: int = 400
    task_steps: int = 1000
    exact: bool = True
    share: bool = True
    isolate: bool = True
    floor: float = 0.2

    def check(self, owner: str, shapes: Mapping[str, Sequence[int]]) -> None:
        """Refuse what cannot be, the layer by name that would have no active weight."""
        for argument, value, known in (
            ("init", self.init, INITS),
            ("growth", self.growth, GROWTH),
            ("removal", self.removal, REMOVAL),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise ArgumentError(f"{owner}: {argument} must be one of {', '.join(map(repr, known))}, got {value!r}.")
        if not isinstance(self.density, (int, float)) or not 0.0 < self.density <= 1.0:
            raise ArgumentError(
                f"{owner}: density must be in (0, 1], got {self.density!r}. Use density=0.2 for a fifth of the weights."
            )
        if not isinstance(self.rate, (tuple, list)) or len(self.rate) != 2:
            raise ArgumentError(f"{owner}: rate must be (first, last), got {self.rate!r}. Use rate=(0.5, 0.005).")
        for share in self.rate:
            check_range(owner, "rate", share, 0.0, 1.0)
        check_range(owner, "floor", self.floor, 0.0, 1.0)
        check_count(owner, "update_every", self.update_every)
        check_count(owner, "task_steps", self.task_steps)
        for name in INITS[:2] if self.init == "auto" else (self.init,):
            for layer, share in densities(name, shapes, self.density).items():
                if share * math.prod(shapes[layer]) < 1.0:
                    raise ArgumentError(
                        f"{owner}: at density={self.density!r} with init={self.init!r} the layer {layer!r} would have less "
                        "than one active weight. Use a larger density or a wider network."
                    )

    def draw(self, shapes: Mapping[str, Sequence[int]], used: Sequence[Tensor], random: torch.Generator) -> list[Tensor]:
        """The mask of a task for each layer. used: bool, what earlier tasks read; without `share` the draw keeps off it.

        A layer with fewer free places than the draw wants then gives all it has.
        """
        chosen = self.chosen_init(shapes, used)
        masks = []
        for (layer, share), taken in zip(densities(chosen, shapes, self.density).items(), used, strict=True):
            if self.share:
                masks.append(draw_mask(shapes[layer], share, random, self.exact))
                continue
            wanted = torch.rand(taken.shape, generator=random)
            if self.exact:
                free = int((~taken).sum())
                masks.append(highest(-wanted.masked_fill(taken, math.inf), min(free, round(share * taken.numel()))))
            else:
                masks.append((wanted < share) & ~taken)
        return masks

    def chosen_init(self, shapes: Mapping[str, Sequence[int]], used: Sequence[Tensor]) -> str:
        """ "erk" or "uniform": which draw the next task gets. For "auto", by what would be free after it in the sparsest layer."""
        if self.init != "auto":
            return self.init
        shares = densities("erk", shapes, self.density)
        sparsest = min(range(len(used)), key=lambda place: list(shares.values())[place])
        share = list(shares.values())[sparsest]
        free = float((~used[sparsest]).double().mean()) * (1.0 - share)
        return "erk" if free > self.floor else "uniform"

    def chosen_growth(self, used: Tensor) -> str:
        """The growth rule of a layer whose used places are these."""
        if self.growth != "auto":
            return self.growth
        return "momentum" if float(used.double().mean()) < HALF else "random"

    def due(self, step: int) -> bool:
        """Whether the topology changes after this many steps of the task."""
        return self.growth != "none" and step % self.update_every == 0 and step < self.task_steps

    def evolve(
        self,
        step: int,
        mask: Tensor,
        weight: Tensor,
        *,
        used: Tensor,
        gradient: Tensor,
        moment: Tensor | None,
        fired: Tensor,
        random: torch.Generator,
    ) -> Tensor:
        """The mask of one layer after removal and growth; all tensors have the shape of its weight.

        used: places that other tasks hold. They come last where gradients decide, which isolation makes 0 there, and without
        `share` always; a removed place may grow again, so a free one is never lacking then.
        """
        rate = rate_at(self.schedule, step, self.task_steps, *self.rate)
        kept = remove(self.removal, mask, weight, gradient, rate)
        rule = self.chosen_growth(used)
        score = growth_score(rule, weight, gradient=gradient, moment=moment, fired=fired, random=random)
        by_gradient = self.isolate and rule in ("gradient", "momentum")
        return rewire(mask, kept, score, used if by_gradient or not self.share else None)


def densities(init: str, shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The density of each layer under "erk" or "uniform"."""
    return erk_densities(shapes, density) if init == "erk" else uniform_densities(shapes, density)
