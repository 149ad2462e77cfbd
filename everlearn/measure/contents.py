"""What a learner is made of: its networks, the device they are on, and the bytes that it holds.

The walk follows `parts`, as `core.state` does, so whatever counts as state is found, also inside learners that wrap learners.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.core.store import Store


def networks(value: Any) -> list[nn.Module]:
    """Every network among an object's parts, in order, each once."""
    return list({id(item): item for item in _pieces(value) if isinstance(item, nn.Module)}.values())


def device_of(value: Any) -> torch.device:
    """The device of the first parameter found; the CPU where there is none."""
    found = (parameter.device for network in networks(value) for parameter in network.parameters())
    return next(found, torch.device("cpu"))


def model_bytes(value: Any) -> int:
    """Bytes of the weights and buffers of all networks, each tensor once."""
    return storage_bytes(tensor for network in networks(value) for tensor in _weights(network))


def optimizer_bytes(value: Any) -> int:
    """Bytes of the state of all optimisers: momenta, second moments."""
    optimizers = [piece for piece in _pieces(value) if isinstance(piece, torch.optim.Optimizer)]
    return storage_bytes(tensor for optimizer in optimizers for tensor in _tensors(optimizer))


def state_bytes(value: Any) -> int:
    """Bytes of everything that an object keeps: weights, buffers, their gradients, optimiser state, memories, other tensors."""
    pieces = list(_pieces(value))
    kept = sum(piece.nbytes for piece in pieces if isinstance(piece, Store))
    return kept + storage_bytes(tensor for piece in pieces for tensor in _tensors(piece))


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each storage once, however many tensors look at it.

    >>> whole = torch.zeros(4, 2)
    >>> storage_bytes([whole, whole[1:], whole.T])
    32
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _pieces(value: Any) -> Iterator[Any]:
    """The leaves of the walk over parts: modules, optimisers, stores, tensors and scalars."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _pieces(item)
    elif isinstance(value, (Store, nn.Module)) or not getattr(value, "parts", ()):
        yield value
    else:
        for part in value.parts:
            yield from _pieces(getattr(value, part))


def _tensors(piece: Any) -> Iterator[Tensor]:
    if isinstance(piece, Tensor):
        yield piece
    elif isinstance(piece, nn.Module):
        yield from _weights(piece)
        yield from (parameter.grad for parameter in piece.parameters() if parameter.grad is not None)
    elif isinstance(piece, torch.optim.Optimizer):
        for state in piece.state.values():
            yield from (item for item in state.values() if isinstance(item, Tensor))


def _weights(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
