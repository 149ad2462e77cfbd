"""Random numbers that come from a seed and nothing else.

`generator(seed, "memory")` gives an independent stream per label, so that one seed seeds everything without two parts
drawing the same numbers. `isolated(...)` runs code that insists on PyTorch's global generator (dropout, initialisation).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

State = torch.Tensor


def derive(seed: int, *labels: object) -> int:
    """A 63-bit seed that is a function of (seed, labels): counter-based, so asking twice gives the same answer."""
    digest = hashlib.blake2b(repr((seed, *labels)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *labels: object) -> torch.Generator:
    """A CPU generator of its own for each (seed, labels)."""
    return torch.Generator().manual_seed(derive(seed, *labels))


@contextmanager
def isolated(seed: int, *labels: object) -> Iterator[None]:
    """Seed PyTorch's global generators inside the block and put them back behind it."""
    number = derive(seed, *labels)
    if torch.cuda.is_available():
        with torch.random.fork_rng():
            torch.manual_seed(number)
            yield
        return
    state = torch.get_rng_state()  # torch.manual_seed would ask every device there could be, 40 times as long
    torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        torch.set_rng_state(state)
