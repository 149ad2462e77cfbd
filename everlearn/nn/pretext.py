"""What a model is pre-trained to do where nobody labels: say the next token, or paint the patches that are hidden.

    next_token           mean over positions t of  -log p(x[t+1] | x[0..t])
    masked_autoencoding  mean squared error of the pixels out of sight

An objective draws what is random for a whole batch at once, and then takes the loss of any share of its rows: processes that share a batch
see together what one process would see.

References: Radford et al. (2019), Language models are unsupervised multitask learners. He et al. (2022), Masked autoencoders are scalable
vision learners, CVPR, arXiv 2111.06377.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.core.errors import ArgumentError, closest
from everlearn.core.spec import Described


class Pretext(Protocol):
    """An objective that needs no labels."""

    name: ClassVar[str]

    def draw(self, model: nn.Module, x: Tensor, random: torch.Generator) -> tuple[Tensor, ...]:
        """What `loss` takes, row by row, for a whole batch."""
        ...

    def loss(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The mean over these rows."""
        ...

    def tokens(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """(rows, length, dim): what the model makes of these rows before its last part. Penalties ask for it; nothing else does."""
        ...


@dataclass(frozen=True, repr=False)
class NextToken(Described):
    """Cross-entropy, in nats, of each next token; for rows (rows, length + 1) of token ids, of any integer type.

    The model gives scores (rows, length, vocabulary), or an object with such `logits` (a Hugging Face causal model).
    """

    name: ClassVar[str] = "next_token"

    def draw(self, model: nn.Module, x: Tensor, random: torch.Generator) -> tuple[Tensor, ...]:
        """The rows themselves: nothing is random. Raises ArgumentError for what are no token ids."""
        if x.dim() != 2 or x.is_floating_point():
            raise ArgumentError(
                f"next_token: rows must be token ids (rows, length + 1), got {x.dtype} {tuple(x.shape)}; images take masked_autoencoding()."
            )
        return (x,)

    def loss(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The mean over rows and positions."""
        (x,) = inputs
        x = x.long()
        told = model(x[:, :-1])
        scores = told if isinstance(told, Tensor) else told.logits
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half the digits are too few for the sum
        return functional.cross_entropy(scores.flatten(0, 1), x[:, 1:].flatten())

    def tokens(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """What the last layer sees: `model.hidden(x)`, or the last hidden state of a Hugging Face model."""
        x = inputs[0].long()[:, :-1]
        hidden = getattr(model, "hidden", None)
        return model(x, output_hidden_states=True).hidden_states[-1] if hidden is None else hidden(x)


@dataclass(frozen=True, repr=False)
class MaskedAutoencoding(Described):
    """Squared error of hidden patches; for images (rows, channels, size, size) of floats and a model such as `MaskedAutoencoder`."""

    name: ClassVar[str] = "masked_autoencoding"

    def draw(self, model: nn.Module, x: Tensor, random: torch.Generator) -> tuple[Tensor, ...]:
        """The images and which of their patches are hidden. Raises ArgumentError for a model that hides none."""
        if not hasattr(model, "draw_masks"):
            raise ArgumentError(
                f"masked_autoencoding: {type(model).__name__} draws no masks; use masked_autoencoder(...) or next_token()."
            )
        return x, model.draw_masks(len(x), random).to(x.device)

    def loss(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The mean over hidden pixels."""
        return model.loss(*inputs)

    def tokens(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """What the encoder makes of the patches in sight."""
        return model.encode_seen(*inputs)


PRETEXTS: dict[str, type[NextToken | MaskedAutoencoding]] = {cls.name: cls for cls in (NextToken, MaskedAutoencoding)}


def pretext(name: str) -> Pretext:
    """The objective of a name. Raises ArgumentError with the closest one.

    >>> pretext("next_token")
    next_token()
    """
    if name not in PRETEXTS:
        raise ArgumentError(f"objective: {closest('objective', name, list(PRETEXTS))}")
    return PRETEXTS[name]()
