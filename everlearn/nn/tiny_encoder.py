"""A small transformer encoder whose output layer is its table of embeddings, for short sequences of tokens.

    h = LayerNorm(E[x] + P),   post-norm blocks (`nn.transformer`)
    scores = LayerNorm(gelu(W h)) E^T + b            of tokens; with tags, of tags: a linear layer in the place of E^T + b

Every position sees every other one. The table begins as N(0, std^2): with a tied output a token of a small row can never win the softmax,
so the width of that law decides whether tokens that training never showed can be answered at all.

Reference: Devlin et al. (2019), BERT, arXiv 1810.04805 (post-norm blocks, masked-token head).
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.core.errors import check_count, check_range
from everlearn.core.random import isolated
from everlearn.nn.transformer import Block


class TinyEncoder(nn.Module):
    """Scores (rows, length, vocabulary) for tokens (rows, length) int64.

    vocabulary: number of tokens; dim, depth, heads, inner: width, blocks, attention heads, width within a block; length: positions;
    std: of the initial embeddings; answers: the positions that are scored (all by default); tags: how many tags are scored instead of
    tokens, by an output layer that is not tied to the table; seed: of the initial weights.

    >>> model = TinyEncoder(vocabulary=442, seed=0)
    >>> model(torch.zeros(5, 7, dtype=torch.int64)).shape, model.table.shape
    (torch.Size([5, 7, 442]), torch.Size([442, 64]))
    """

    name: ClassVar[str] = "tiny_encoder"

    def __init__(
        self,
        vocabulary: int,
        *,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        inner: int = 128,
        length: int = 7,
        std: float = 1.0,
        answers: slice = slice(None),
        tags: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        for key, value in {"vocabulary": vocabulary, "dim": dim, "depth": depth, "length": length}.items():
            check_count(self.name, key, value)
        check_range(self.name, "std", std, 0.0)
        self.std, self.length, self.answers = std, length, answers
        with isolated(seed, self.name):
            self.table = nn.Parameter(std * torch.randn(vocabulary, dim))
            self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
            self.first = nn.LayerNorm(dim)
            self.blocks = nn.ModuleList(Block(dim, heads, inner) for _ in range(depth))
            self.dense = nn.Linear(dim, dim)
            self.last = nn.LayerNorm(dim)
            if tags is None:
                self.bias = nn.Parameter(torch.zeros(vocabulary))
            else:
                check_count(self.name, "tags", tags)
                self.tagger = nn.Linear(dim, tags)
        self.tags = tags

    def layers(self, x: Tensor) -> Tensor:
        """(depth + 1, rows, length, dim): the embeddings with their positions, then what each block gives."""
        return torch.stack([*self._states(x)])

    def hidden(self, x: Tensor) -> Tensor:
        """(rows, length, dim): what the last block gives."""
        *_, h = self._states(x)
        return h

    def _states(self, x: Tensor) -> Iterator[Tensor]:
        h = self.first(self.table[x] + self.positions[: x.shape[1]])
        yield h
        for block in self.blocks:
            h = block(h)
            yield h

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the answered positions."""
        h = self.last(functional.gelu(self.dense(self.hidden(x)[:, self.answers])))
        return h @ self.table.T + self.bias if self.tags is None else self.tagger(h)
