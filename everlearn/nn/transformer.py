"""A transformer block, for the small encoders, autoencoders and language models of the house.

    post    h = LayerNorm(h + attention(h)),  h = LayerNorm(h + W2 gelu(W1 h))
    pre     h = h + attention(LayerNorm(h)),  h = h + W2 gelu(W1 LayerNorm(h))

References: Vaswani et al. (2017), Attention is all you need, arXiv 1706.03762 (post). Xiong et al. (2020), On layer normalization in the
transformer architecture, arXiv 2002.04745 (pre).
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from everlearn.core.errors import ArgumentError, check_count

NORMS = ("post", "pre")


class Block(nn.Module):
    """Hidden rows (rows, length, dim) in and out.

    dim, heads, inner: width, attention heads (dim is a multiple of them), width within the block; norm: "post" or "pre"; causal: each
    position sees itself and those before it only.
    """

    name: ClassVar[str] = "block"

    def __init__(self, dim: int, heads: int, inner: int, *, norm: str = "post", causal: bool = False):
        super().__init__()
        for key, value in {"dim": dim, "heads": heads, "inner": inner}.items():
            check_count(self.name, key, value)
        if dim % heads:
            raise ArgumentError(f"block: dim must be a multiple of heads, got dim={dim} and heads={heads}.")
        if norm not in NORMS:
            raise ArgumentError(f"block: norm must be post or pre, got {norm!r}.")
        self.heads, self.pre, self.causal = heads, norm == "pre", causal
        self.mix = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.wide = nn.Linear(dim, inner)
        self.narrow = nn.Linear(inner, dim)
        self.inner_norm = nn.LayerNorm(dim)

    def forward(self, h: Tensor) -> Tensor:
        """Attention, then the two layers, each beside a path that passes h on."""
        if self.pre:
            h = h + self._attend(self.attention_norm(h))
            return h + self.narrow(functional.gelu(self.wide(self.inner_norm(h))))
        h = self.attention_norm(h + self._attend(h))
        return self.inner_norm(h + self.narrow(functional.gelu(self.wide(h))))

    def _attend(self, h: Tensor) -> Tensor:
        rows, length, dim = h.shape
        q, k, v = self.mix(h).view(rows, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(seen.transpose(1, 2).reshape(rows, length, dim))
