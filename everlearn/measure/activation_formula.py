"""The memory of learning one batch, counted from the shapes of a network.

    activations = 4 B * (elements per row that the backward pass needs);     parameters = 4 * weights

    source, batch statistics   0
    tent                       inputs of every batch norm
    full fine-tuning           inputs of every batch norm and every convolution
    cotta                      the same; weights three times (student, teacher, anchor), and gradients
    ecotta                     sum over parts of |x_k| + 2 |o_k|: what a part is given, and twice what it gives

These are the counts that are published. Plain autograd keeps more, also for frozen layers: `autograd=True` counts that.
Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from everlearn.core.errors import ArgumentError, closest
from everlearn.measure.activation_memory import MemoryReport

FLOAT = 4  # bytes
BITS = 8  # of a mask, in a byte
SCHEMES = ("source", "bn_stats", "tent", "full", "cotta", "ecotta")
COPIES = {"cotta": 3}  # student, teacher, anchor
KERNEL = 3  # of a meta network


@dataclass(frozen=True, slots=True)
class Sizes:
    """Elements per row. norms: inputs of batch norms; convolutions: inputs of convolutions, each tensor once; autograd: those and the
    outputs of ReLUs, each tensor once, without the images; image: the input; masks: outputs of ReLUs; parameters: of the network."""

    norms: int
    convolutions: int
    autograd: int
    image: int
    masks: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a network with a meta network beside it: elements per row of its input and output, and their channels."""

    x: int
    o: int
    channels_in: int
    channels_out: int

    def meta_parameters(self, kernel: int = KERNEL) -> int:
        """Weights of its meta network: a convolution without bias, and two batch norms."""
        return kernel**2 * self.channels_in * self.channels_out + 4 * self.channels_out


def sizes(model: nn.Module, x: Tensor) -> Sizes:
    """The counts of a network for one row of x: (1, ...). Layers are found as modules; a ReLU called as a function is not seen."""
    seen: dict[str, dict[int, Tensor]] = {"norm": {}, "convolution": {}, "relu": {}}
    norms = 0

    def norm(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal norms
        norms += given[0].numel()
        _note(seen["norm"], given[0])

    def convolution(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        _note(seen["convolution"], given[0])

    def relu(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        _note(seen["relu"], out)

    kinds = ((_BatchNorm, norm), (_ConvNd, convolution), (nn.ReLU, relu))
    hooks = [
        module.register_forward_hook(look) for module in model.modules() for kind, look in kinds if isinstance(module, kind)
    ]
    _forward(model, x, hooks)
    images = x.untyped_storage().data_ptr()
    first = [tensor.numel() for place, tensor in seen["convolution"].items() if place == images]
    kept = {place: tensor.numel() for group in seen.values() for place, tensor in group.items() if place != images}
    return Sizes(
        norms=norms,
        convolutions=sum(tensor.numel() for tensor in seen["convolution"].values()),
        autograd=sum(kept.values()),
        image=sum(first),
        masks=sum(tensor.numel() for tensor in seen["relu"].values()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def part_sizes(model: nn.Module, blocks: Sequence[nn.Module], parts: Sequence[int], x: Tensor) -> list[Part]:
    """The parts of a network. blocks: modules in their order; parts: blocks in each part; x: one row. Raises ArgumentError."""
    if sum(parts) != len(blocks) or min(parts, default=0) < 1:
        raise ArgumentError(f"part_sizes: parts {list(parts)} must be counts of blocks that sum to {len(blocks)}.")
    shapes: list[tuple[torch.Size, torch.Size]] = []
    hooks = [
        block.register_forward_hook(lambda _, given, out: shapes.append((given[0].shape, out.shape))) for block in blocks
    ]
    _forward(model, x, hooks)
    found, start = [], 0
    for count in parts:
        before, after = shapes[start][0], shapes[start + count - 1][1]
        found.append(Part(before[1:].numel(), after[1:].numel(), before[1], after[1]))
        start += count
    return found


def formula(
    scheme: str, counted: Sizes, rows: int, *, parts: Sequence[Part] = (), kernel: int = KERNEL, autograd: bool = False
) -> MemoryReport:
    """The memory of a scheme of adaptation for batches of so many rows.

    scheme: one of `SCHEMES`; parts: of `part_sizes`, for "ecotta"; kernel: of its meta networks; autograd: count what plain
    autograd keeps where frozen layers are as they come, not what the scheme needs. Raises ArgumentError.

    >>> counted = Sizes(norms=704_512, convolutions=0, autograd=0, image=0, masks=0, parameters=2_255_156)
    >>> round(formula("tent", counted, 64).total / 1e6, 2)
    189.38
    """
    if scheme not in SCHEMES:
        raise ArgumentError(f"formula: {closest('scheme', scheme, SCHEMES)}")
    if scheme == "ecotta" and not parts:
        raise ArgumentError("formula: ecotta needs parts, as part_sizes(model, blocks, [3, 3, 6, 6], x) gives them.")
    learns = scheme not in ("source", "bn_stats")
    if not learns:
        elements = 0
    elif scheme == "ecotta":
        elements = sum(part.x + 2 * part.o for part in parts)
    elif scheme == "tent":
        elements = counted.autograd if autograd else counted.norms
    else:
        elements = counted.autograd + counted.image if autograd else counted.norms + counted.convolutions
    weights = counted.parameters * COPIES.get(scheme, 1)
    weights += sum(part.meta_parameters(kernel) for part in parts) if scheme == "ecotta" else 0
    weights += counted.parameters if scheme == "cotta" else 0  # gradients
    masks = -(-counted.masks * rows // BITS) if learns and not autograd else 0
    return MemoryReport(scheme, rows, FLOAT * weights, FLOAT * rows * elements, masks, formula=FLOAT * rows * elements)


def _note(seen: dict[int, Tensor], tensor: Tensor) -> None:
    """Keep a tensor by its storage; that it is kept makes the storage's place its own."""
    seen[tensor.untyped_storage().data_ptr()] = tensor


def _forward(model: nn.Module, x: Tensor, hooks: list) -> None:
    """One forward pass that changes nothing, watched by hooks, which are taken off."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for module, was in training:
            module.training = was
        for hook in hooks:
            hook.remove()
