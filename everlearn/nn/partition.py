"""A classifier cut into a stem, consecutive parts of its encoder, and a head; put together again they are the classifier, to the bit.

    head(part_K(... part_1(stem(x)))) = model(x)

The network is walked as a chain: a Sequential gives its children, any other module its graph, cut where one value alone is alive.
The encoder is the blocks of that chain: the modules of the network's own making (residual blocks, say), or, where there are none,
each convolution or linear layer with what follows it.

Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904, table 13 (how many blocks each part has).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.nn.front import ChannelsLast, Rounded, Scale

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
POOLED = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.Flatten)
# functions and methods by which planes or positions are lost
FLATTENING = ("flatten", "reshape", "view", "mean", "amax", "squeeze", "adaptive_avg_pool2d", "adaptive_max_pool2d")
FRONT = (Scale, ChannelsLast)  # of the house's networks
# (blocks, parts) -> blocks of each part, as published: WRN-28-10, WRN-40-2, ResNet-50
PUBLISHED = {
    (12, 4): (2, 2, 4, 4),
    (12, 5): (2, 2, 2, 2, 4),
    (18, 4): (3, 3, 6, 6),
    (18, 5): (3, 3, 3, 3, 6),
    (16, 4): (3, 3, 5, 5),
    (16, 5): (2, 2, 4, 4, 4),
}
HINT = "Name the blocks: blocks=['layer1', 'layer2'], or a function from the model to (stem, [blocks], head)."

Blocks = Sequence[str] | Callable[[nn.Module], tuple[nn.Module, Sequence[nn.Module], nn.Module]] | None


@dataclass(frozen=True)
class Partition:
    """A network in pieces that share its weights. `sizes`: the number of blocks in each part."""

    stem: nn.Module
    parts: tuple[nn.Module, ...]
    head: nn.Module
    sizes: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """What the network gives."""
        for piece in (self.stem, *self.parts, self.head):
            x = piece(x)
        return x


def partition(owner: str, model: nn.Module, parts: int | Sequence[int] = 4, blocks: Blocks = None) -> Partition:
    """Cut a network's encoder into parts, the shallow ones finer.

    owner: who asks, for messages; parts: how many (as published for 12, 16 and 18 blocks; else the last has a third of the blocks
    and the others share the rest; at most one for each block), or the number of blocks in each part, first to last; blocks: None to
    find them, the names of the modules that are the blocks, in order, or a function (model) -> (stem, [blocks], head).

    Raises ArgumentError where there are no two pieces to be told apart, or parts do not sum up to the blocks.

    >>> from everlearn.core.stream import Schema
    >>> from everlearn.nn.wide_resnet import wide_resnet
    >>> network = wide_resnet(Schema((3, 32, 32), torch.float32, ("cat", "dog")), depth=40, width=1)
    >>> partition("me", network).sizes
    (3, 3, 6, 6)

    Reference: Song et al. (2023), arXiv 2303.01904.
    """
    training = model.training
    model.eval()  # a traced function keeps the mode in which it was seen
    try:
        stem, found, head = _given(owner, model, blocks) if blocks is not None else _found(owner, model)
    finally:
        model.train(training)
    sizes = part_sizes(owner, len(found), parts)
    grouped, start = [], 0
    for size in sizes:
        grouped.append(_joined(found[start : start + size]))
        start += size
    return Partition(stem, tuple(grouped), head, sizes)


def part_sizes(owner: str, blocks: int, parts: int | Sequence[int]) -> tuple[int, ...]:
    """The number of blocks in each part.

    >>> part_sizes("me", 18, 4), part_sizes("me", 8, 4), part_sizes("me", 6, 3), part_sizes("me", 3, 4)
    ((3, 3, 6, 6), (1, 2, 2, 3), (2, 2, 2), (1, 1, 1))
    """
    if isinstance(parts, (list, tuple)):
        for size in parts:
            check_count(owner, "the size of each part", size)
        if sum(parts) != blocks:
            raise ArgumentError(
                f"{owner}: parts must sum up to the network's {blocks} blocks, got {list(parts)}, which is {sum(parts)}. "
                f"Use parts={min(blocks, 4)} to let them be shared out."
            )
        return tuple(parts)
    check_count(owner, "parts", parts)
    count = min(parts, blocks)
    if (blocks, count) in PUBLISHED:
        return PUBLISHED[blocks, count]
    last = max(1, min(round(blocks / 3), blocks - count + 1)) if count > 1 else blocks
    return (*_shared(blocks - last, count - 1), last)


def _shared(total: int, count: int) -> tuple[int, ...]:
    """total as a sum of `count` numbers that differ by 1 at most, the smaller ones first."""
    return tuple((total + place) // count for place in range(count)) if count else ()


# ---- the chain -------------------------------------------------------------------------------------------------------------


class Cast(nn.Module):
    """A piece of a network that computes in bfloat16, without the cast back at its end."""

    def __init__(self, piece: nn.Module):
        super().__init__()
        self.piece = piece

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            return self.piece(x)


class Widened(nn.Module):
    """The cast back to float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def chain(model: nn.Module, named: frozenset[str] = frozenset()) -> list[nn.Module]:
    """The steps of a network, one after the other, as finely as it can be cut without cutting a block.

    named: modules to be left whole, where their parents are to be opened. Raises the error of tracing where the network is no
    Sequential and decides by its numbers what it computes.
    """
    return list(_steps(model, "", named, root=True))


def _steps(model: nn.Module, path: str, named: frozenset[str], root: bool = False) -> Iterator[nn.Module]:
    if path in named and not root:
        yield model
    elif type(model).forward is nn.Sequential.forward:
        for name, child in model.named_children():
            yield from _steps(child, _under(path, name), named)
    elif isinstance(model, Rounded):
        yield from (Cast(step) for step in _steps(model.layers, _under(path, "layers"), named))
        yield Widened()
    elif not _is_leaf(model) and (root or _holds_blocks(model) or any(name.startswith(path + ".") for name in named)):
        yield from _traced(model, path, named, root)
    else:
        yield model


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_leaf(module: nn.Module) -> bool:
    """A layer of torch's, or one of the house's fronts."""
    inner = type(module).__module__.startswith("torch.nn") and type(module).forward is not nn.Sequential.forward
    return inner or isinstance(module, FRONT)


def _is_own(module: nn.Module) -> bool:
    """A module of the network's own making that holds weights: what blocks are made of."""
    plain = _is_leaf(module) or type(module).forward is nn.Sequential.forward or isinstance(module, (Rounded, nn.ModuleList))
    return not plain and any(isinstance(inner, WEIGHTED) for inner in module.modules())


def _holds_blocks(module: nn.Module) -> bool:
    """Whether blocks stand one behind the other somewhere inside, so that a module is a stage rather than a block."""
    lists = [inner for inner in module.modules() if isinstance(inner, (nn.Sequential, nn.ModuleList))]
    return any(sum(map(_is_own, inner.children())) > 1 for inner in lists)


def _traced(model: nn.Module, path: str, named: frozenset[str], root: bool) -> Iterator[nn.Module]:
    """The steps of a module with a forward of its own: its graph, cut wherever one value alone goes on."""
    graph = _Tracer().trace(model)
    nodes = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    place = {node: index for index, node in enumerate(nodes)}
    inputs = [node for node in nodes if node.op == "placeholder" and node.users]
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if len(inputs) != 1 or not isinstance(result, fx.Node):
        raise ArgumentError(f"its forward takes {len(inputs)} inputs that it uses, or returns more than one tensor.")
    last_use = [max((place[user] for user in node.users if user in place), default=-1) for node in nodes]
    last_use[place[result]] = len(nodes)
    start, previous = 0, inputs[0]
    pieces: list[tuple[fx.Node, list[fx.Node], fx.Node]] = []
    alive = last_use[place[previous]]
    for index, node in enumerate(nodes):
        if node.op == "placeholder":
            start = index + 1
            continue
        if alive <= index and max(last_use[start:index], default=-1) <= index:  # nothing but this value is wanted behind it
            pieces.append((previous, nodes[start : index + 1], node))
            start, previous, alive = index + 1, node, last_use[index]
    if len(pieces) == 1 and not root:
        yield model
        return
    for before, inside, after in pieces:
        only = inside[0]
        if len(inside) == 1 and only.op == "call_module" and only.args == (before,) and not only.kwargs:
            yield from _steps(model.get_submodule(str(only.target)), _under(path, str(only.target)), named)
        else:
            yield _piece(model, before, inside, after)


class _Tracer(fx.Tracer):
    """Looks into no module but the one it was given."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def _piece(model: nn.Module, before: fx.Node, inside: Sequence[fx.Node], after: fx.Node) -> nn.Module:
    """The part of a graph from one value to another, as a module that shares the weights."""
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {before: graph.placeholder("x")}

    def of(node: fx.Node) -> fx.Node:
        if node not in known and node.op == "get_attr":
            known[node] = graph.node_copy(node)
        return known[node]

    for node in inside:
        known[node] = graph.node_copy(node, of)
    graph.output(known[after])
    return fx.GraphModule(model, graph)


# ---- blocks ----------------------------------------------------------------------------------------------------------------


def _found(owner: str, model: nn.Module) -> tuple[nn.Module, list[nn.Module], nn.Module]:
    """Stem, blocks and head of a network that names none."""
    try:
        steps = chain(model)
    except Exception as error:  # whatever the network's own code raises when it is run on a stand-in
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(
            f"{owner}: {type(model).__name__} cannot be cut into a chain of steps: {reason} {HINT}"
        ) from error
    own = [index for index, step in enumerate(steps) if _is_own(_bare(step))]
    modules = [index for index in own if not isinstance(_bare(steps[index]), fx.GraphModule)]
    own = modules if len(modules) > 1 else own  # what stands written out between blocks is none itself
    if len(own) > 1:
        starts, end = own, own[-1] + 1
        if end == len(steps):
            starts, end = own[:-1], own[-1]  # the last module of all is the head
    else:
        starts, end = _layers(steps)
    if not starts:
        raise ArgumentError(
            f"{owner}: {type(model).__name__} has no encoder that could be cut: one step after the other is needed, and its "
            f"{len(steps)} steps hold {len(own)} blocks. {HINT}"
        )
    bounds = [*starts, end]
    found = [_joined(steps[first:behind]) for first, behind in pairwise(bounds)]
    return _joined(steps[: bounds[0]]), found, _joined(steps[end:])


def _bare(step: nn.Module) -> nn.Module:
    return step.piece if isinstance(step, Cast) else step


def _layers(steps: Sequence[nn.Module]) -> tuple[list[int], int]:
    """(where blocks begin, where the head begins) in a plain chain of layers: each convolution or linear layer begins a block.

    The head begins at the first layer that pools the whole plane or flattens, else at the last layer with weights. The first
    block is the stem, where there are more.
    """
    bare = [_bare(step) for step in steps]
    weighted = [index for index, step in enumerate(bare) if any(isinstance(inner, WEIGHTED) for inner in step.modules())]
    if len(weighted) < 2:
        return [], 0
    ends = [index for index, step in enumerate(bare) if _pools(step) and index > weighted[0]]
    end = ends[0] if ends else weighted[-1]
    widened = next((index for index, step in enumerate(steps) if isinstance(step, Widened)), end)
    starts = [index for index in weighted if index < end]
    return (starts[1:] if len(starts) > 1 else starts), (widened if widened < end else end)


def _pools(step: nn.Module) -> bool:
    if not isinstance(step, fx.GraphModule):
        return isinstance(step, POOLED)
    called = [getattr(node.target, "__name__", node.target) for node in step.graph.nodes]
    modules = (step.get_submodule(str(node.target)) for node in step.graph.nodes if node.op == "call_module")
    return any(name in FLATTENING for name in called) or any(isinstance(module, POOLED) for module in modules)


def _given(owner: str, model: nn.Module, blocks: Any) -> tuple[nn.Module, list[nn.Module], nn.Module]:
    """Stem, blocks and head as the user names them."""
    if callable(blocks):
        told = blocks(model)
        good = isinstance(told, tuple) and len(told) == 3 and isinstance(told[1], (list, tuple, nn.ModuleList))
        if not good or not all(isinstance(item, nn.Module) for item in (told[0], *told[1], told[2])) or not len(told[1]):
            raise ArgumentError(
                f"{owner}: blocks(model) must give (stem, [blocks], head) in modules, got {type(told).__name__}."
            )
        return told[0], list(told[1]), told[2]
    known = dict(model.named_modules())
    if isinstance(blocks, str) or not blocks or not all(name in known for name in blocks):
        wrong = [name for name in blocks if name not in known] if not isinstance(blocks, str) else [blocks]
        children = ", ".join(name for name, _ in model.named_children())
        raise ArgumentError(f"{owner}: blocks must be names of modules of the network, such as {children}; got {wrong!r}.")
    try:
        steps = chain(model, frozenset(blocks))
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(
            f"{owner}: {type(model).__name__} cannot be followed from block to block: {reason} Give a function from the model to "
            "(stem, [blocks], head)."
        ) from error
    places = [next((i for i, step in enumerate(steps) if _bare(step) is known[name]), -1) for name in blocks]
    if min(places) < 0 or places != sorted(set(places)):
        lost = [name for name, place in zip(blocks, places, strict=True) if place < 0]
        why = f"{lost} do not stand alone on the way" if lost else "they are not in the order of the way"
        raise ArgumentError(f"{owner}: the network cannot be cut at blocks={list(blocks)!r}: {why} from input to output.")
    bounds = [*places, places[-1] + 1]
    found = [_joined(steps[first:behind]) for first, behind in pairwise(bounds)]
    return _joined(steps[: bounds[0]]), found, _joined(steps[bounds[-1] :])


def _joined(steps: Sequence[nn.Module]) -> nn.Module:
    return steps[0] if len(steps) == 1 else nn.Sequential(*steps)
