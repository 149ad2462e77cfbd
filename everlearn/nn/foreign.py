"""Networks that were trained elsewhere: weights from a safetensors file, or a classifier of the Hugging Face hub.

    pretrained(mymodule:build, 'weights.safetensors')      huggingface('folder-or-name')

Both are names for call strings, wherever a network is asked for.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from everlearn.core.errors import DataError, InputError, first_line, optional
from everlearn.core.events import X
from everlearn.core.stream import Schema


def pretrained(schema: Schema, build: Callable[..., nn.Module], weights: str) -> nn.Module:
    """A network of the user's with its weights from a safetensors file.

    build: a function () or (schema) that makes the module; weights: the path of a file that `safetensors.torch.save_file` wrote.
    Raises DataError where the file cannot be read or does not fit the module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(weights).is_file():
        raise DataError(f"pretrained: there is no file {weights!r}.")
    model = build(schema) if inspect.signature(build).parameters else build()
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"pretrained: {weights} does not fit {type(model).__name__}: {error}") from error
    return model


class HuggingFace(nn.Module):
    """A Hugging Face classifier that answers like any other network: (batch, classes) scores.

    x: a dict of what the model takes (input_ids, attention_mask, ...), token numbers (batch, length) int64, or pixels
    (batch, channels, height, width).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: X) -> Tensor:
        if isinstance(x, dict):
            return self.model(**x).logits
        if x.dtype == torch.uint8:
            x = x.float() / 127.5 - 1.0
        return self.model(**{"pixel_values" if x.is_floating_point() else "input_ids": x}).logits


def huggingface(schema: Schema, name: str) -> HuggingFace:
    """A classifier of the Hugging Face hub, or of a folder, with a head for the classes of this stream.

    name: a folder that `save_pretrained` wrote, or a name on the hub. The head is new where its number of classes differs.
    Needs the extra `hub`.
    """
    transformers = optional("transformers", "hub", "huggingface(...)")
    images = schema.dtype.is_floating_point or schema.dtype == torch.uint8
    auto = transformers.AutoModelForImageClassification if images else transformers.AutoModelForSequenceClassification
    try:
        model = auto.from_pretrained(name, num_labels=schema.outputs, ignore_mismatched_sizes=True)
    except (OSError, ValueError) as error:
        raise InputError(f"huggingface: no classifier can be loaded from {name!r}: {first_line(error)}") from error
    return HuggingFace(model)


FOREIGN = {"pretrained": pretrained, "huggingface": huggingface}
