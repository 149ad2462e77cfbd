"""A small decoder-only language model: each position is scored from itself and those before it.

    h = E[x] + P,   pre-norm causal blocks (`nn.transformer`),   scores = LayerNorm(h) E^T

The output layer is the table of embeddings. With the defaults its tokens are bytes, so it reads any text; `dim`, `depth`, `heads` and
`length` are what to scale it by.

Reference: Radford et al. (2019), Language models are unsupervised multitask learners (GPT-2).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from everlearn.core.errors import InputError, check_count
from everlearn.core.random import isolated
from everlearn.nn.transformer import Block

SPREAD = 0.02  # of the initial weights


class TinyGPT(nn.Module):
    """Scores (rows, length, vocabulary) of the next token for tokens (rows, length) int64.

    vocabulary: number of tokens (256: bytes); dim, depth, heads: width, blocks, attention heads; a block is four times as wide inside;
    length: positions at most; seed: of the initial weights. Layers that add to the path are begun smaller by sqrt(2 depth).

    >>> model = TinyGPT(dim=32, depth=1, length=16, seed=0)
    >>> model(torch.zeros(2, 16, dtype=torch.int64)).shape, sum(weight.numel() for weight in model.parameters())
    (torch.Size([2, 16, 256]), 21472)
    """

    name: ClassVar[str] = "tiny_gpt"

    def __init__(
        self, vocabulary: int = 256, *, dim: int = 64, depth: int = 2, heads: int = 4, length: int = 128, seed: int = 0
    ):
        super().__init__()
        for key, value in {"vocabulary": vocabulary, "dim": dim, "depth": depth, "length": length}.items():
            check_count(self.name, key, value)
        self.vocabulary, self.length = vocabulary, length
        with isolated(seed, self.name):
            self.table = nn.Parameter(SPREAD * torch.randn(vocabulary, dim))
            self.positions = nn.Parameter(SPREAD * torch.randn(length, dim))
            self.blocks = nn.ModuleList(Block(dim, heads, 4 * dim, norm="pre", causal=True) for _ in range(depth))
            self.last = nn.LayerNorm(dim)
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=SPREAD)
                    nn.init.zeros_(layer.bias)
            for block in self.blocks:
                for layer in (block.out, block.narrow):
                    nn.init.normal_(layer.weight, std=SPREAD / (2 * depth) ** 0.5)

    def hidden(self, x: Tensor) -> Tensor:
        """(rows, length, dim): what the last layer sees. Raises InputError for rows longer than `length`."""
        if x.shape[1] > self.length:
            raise InputError(
                f"tiny_gpt: a row has {x.shape[1]} tokens, and the model was made for {self.length}; pass length={x.shape[1]}."
            )
        h = self.table[x] + self.positions[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.last(h)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of what comes next at each position."""
        return self.hidden(x) @ self.table.T
