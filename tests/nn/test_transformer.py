"""The transformer block: its formulas written out slowly, what a causal one may see, and what is refused."""

import math

import pytest
import torch
from torch.nn import functional

from everlearn.core.errors import ArgumentError
from everlearn.nn.transformer import Block


def attended(block, h, causal):
    """Attention head by head and position by position."""
    rows, length, dim = h.shape
    size = dim // block.heads
    mixed = block.mix(h)
    seen = torch.zeros(rows, length, dim)
    for head in range(block.heads):
        q, k, v = (mixed[..., part * dim + head * size :][..., :size] for part in range(3))
        for place in range(length):
            last = place + 1 if causal else length
            shares = ((k[:, :last] * q[:, place : place + 1]).sum(2) / math.sqrt(size)).softmax(1)
            seen[:, place, head * size : (head + 1) * size] = (shares[:, :, None] * v[:, :last]).sum(1)
    return block.out(seen)


def made(**options):
    torch.manual_seed(0)
    block = Block(12, 3, 20, **options)
    with torch.no_grad():
        for weight in block.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return block, torch.randn(4, 6, 12)


@pytest.mark.parametrize("causal", [False, True])
def test_a_post_norm_block_is_its_formula(causal):
    block, h = made(norm="post", causal=causal)
    middle = block.attention_norm(h + attended(block, h, causal))
    slow = block.inner_norm(middle + block.narrow(functional.gelu(block.wide(middle))))
    torch.testing.assert_close(block(h), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_a_pre_norm_block_is_its_formula(causal):
    block, h = made(norm="pre", causal=causal)
    middle = h + attended(block, block.attention_norm(h), causal)
    slow = middle + block.narrow(functional.gelu(block.wide(block.inner_norm(middle))))
    torch.testing.assert_close(block(h), slow, rtol=1e-4, atol=1e-5)


def test_a_causal_block_sees_nothing_of_what_comes():
    block, h = made(causal=True)
    other = h.clone()
    other[:, 4:] += 1.0
    torch.testing.assert_close(block(h)[:, :4], block(other)[:, :4])
    assert not torch.allclose(made(causal=False)[0](h)[:, :4], made(causal=False)[0](other)[:, :4])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"dim": 10, "heads": 4}, "dim=10 and heads=4"),
        ({"inner": 0}, "inner must be an int >= 1"),
        ({"norm": "none"}, "norm must be post or pre, got 'none'"),
    ],
)
def test_what_is_no_block_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        Block(**{"dim": 12, "heads": 3, "inner": 20, **wrong})
