"""A small masked autoencoder: it sees a quarter of an image's patches, and is to paint the others.

    kept = floor(T (1 - r)) patches, drawn for each image        z = encoder([cls, patches kept + positions])
    painted = decoder(z and mask tokens, put back in order)       loss = mean over all pixels of (painted - x)^2 [masked] / r

Reference: He et al. (2022), Masked autoencoders are scalable vision learners, CVPR, arXiv 2111.06377.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.random import isolated
from everlearn.nn.transformer import Block

SPREAD = 0.02  # of positions and tokens at the start


class MaskedAutoencoder(nn.Module):
    """For images (rows, channels, size, size) of floats.

    size, channels, patch: of the images, and the side of a patch (size is a multiple of it); dim, depth, decoder_depth, heads: width,
    blocks of the encoder and of the decoder, attention heads; mask_ratio: share r of the patches that are hidden; seed: of the weights.

    >>> model = MaskedAutoencoder(size=28, channels=1, patch=7, seed=0)
    >>> images = torch.zeros(3, 1, 28, 28)
    >>> hidden = model.draw_masks(3, torch.Generator().manual_seed(0))
    >>> hidden.sum(1).tolist(), model(images, hidden).shape, model.encode(images).shape
    ([12, 12, 12], torch.Size([3, 16, 49]), torch.Size([3, 48]))
    """

    name: ClassVar[str] = "masked_autoencoder"

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        *,
        patch: int = 7,
        dim: int = 48,
        depth: int = 2,
        decoder_depth: int = 1,
        heads: int = 3,
        mask_ratio: float = 0.75,
        seed: int = 0,
    ):
        super().__init__()
        counts = {"size": size, "channels": channels, "patch": patch, "depth": depth, "decoder_depth": decoder_depth}
        for key, value in counts.items():
            check_count(self.name, key, value)
        check_range(self.name, "mask_ratio", mask_ratio, 0.0, 1.0)
        if size % patch:
            raise ArgumentError(f"masked_autoencoder: size must be a multiple of patch, got size={size} and patch={patch}.")
        self.patch, self.mask_ratio = patch, mask_ratio
        self.tokens = (size // patch) ** 2
        self.kept = int(self.tokens * (1.0 - mask_ratio))
        if not 0 < self.kept < self.tokens:
            raise ArgumentError(
                f"masked_autoencoder: mask_ratio={mask_ratio} keeps {self.kept} of {self.tokens} patches; at least one must be kept and "
                "one hidden."
            )
        pixels = channels * patch * patch
        with isolated(seed, self.name):
            self.embed = nn.Linear(pixels, dim)
            self.cls = nn.Parameter(SPREAD * torch.randn(1, 1, dim))
            self.positions = nn.Parameter(SPREAD * torch.randn(1, self.tokens, dim))
            self.encoder = nn.Sequential(*(Block(dim, heads, 4 * dim, norm="pre") for _ in range(depth)), nn.LayerNorm(dim))
            self.mask_token = nn.Parameter(SPREAD * torch.randn(1, 1, dim))
            self.decoder_positions = nn.Parameter(SPREAD * torch.randn(1, self.tokens + 1, dim))
            self.decoder = nn.Sequential(*(Block(dim, heads, 4 * dim, norm="pre") for _ in range(decoder_depth)))
            self.paint = nn.Linear(dim, pixels)

    def patches(self, images: Tensor) -> Tensor:
        """(rows, tokens, pixels of a patch), row by row of patches."""
        rows, channels, height, width = images.shape
        side = self.patch
        cut = images.view(rows, channels, height // side, side, width // side, side)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * side * side)

    def draw_masks(self, rows: int, random: torch.Generator) -> Tensor:
        """(rows, tokens) bool: which patches of each image are hidden."""
        order = torch.rand(rows, self.tokens, generator=random).argsort(1)
        return order >= self.kept  # the rank of each patch is drawn evenly, so any set of `kept` is as likely

    def encode(self, images: Tensor) -> Tensor:
        """(rows, dim): the first token, with every patch in sight."""
        return self._encode(self.embed(self.patches(images)) + self.positions)[:, 0]

    def _encode(self, seen: Tensor) -> Tensor:
        return self.encoder(torch.cat([self.cls.expand(len(seen), -1, -1), seen], 1))

    def encode_seen(self, images: Tensor, hidden: Tensor) -> Tensor:
        """(rows, 1 + kept, dim): the first token, and one for each patch that is not `hidden` (rows, tokens), in their order."""
        seen = _seen_first(hidden)[:, : self.kept, None]
        embedded = self.embed(self.patches(images)) + self.positions
        return self._encode(embedded.gather(1, seen.expand(-1, -1, embedded.shape[2])))

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Painted patches (rows, tokens, pixels) where `hidden` (rows, tokens) are out of sight."""
        rows = len(images)
        z = self.encode_seen(images, hidden)
        back = _seen_first(hidden).argsort(1)[:, :, None].expand(-1, -1, z.shape[2])
        masks = self.mask_token.expand(rows, self.tokens - self.kept, -1)
        placed = torch.cat([z[:, 1:], masks], 1).gather(1, back)
        decoded = self.decoder(torch.cat([z[:, :1], placed], 1) + self.decoder_positions)
        return self.paint(decoded[:, 1:])

    def loss(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of hidden pixels; what is in sight plays no part."""
        error = (self(images, hidden) - self.patches(images)).square().mean(2)
        return (error * hidden).mean() / self.mask_ratio


def _seen_first(hidden: Tensor) -> Tensor:
    """(rows, tokens) int64: the places of the patches in sight, in their order, then those of the others."""
    return hidden.int().argsort(dim=1, stable=True)
