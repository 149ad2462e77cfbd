"""A causal language model of the `transformers` library, from a folder of the user's.

`nn.pretext.NextToken` takes it as it is: it gives an object with `logits`. Its embeddings may be tied; snapshots and copies keep them so.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from everlearn.core.errors import ArgumentError, DataError, first_line, optional

PROBE = 4  # tokens that show whether a model looks ahead
NEAR = 1e-5  # of the scores' size: about a hundred roundings of float32


def causal_model(folder: str | Path, *, vocabulary: int | None = None, window: int | None = None) -> nn.Module:
    """The model in a folder that `save_pretrained` wrote, in float32 whatever its file holds.

    vocabulary, window: what it must take: numbers of tokens, and tokens at once. Needs the extra `hub`, and never asks a network.
    Raises DataError where there is no such model, weights are missing, or a position's scores depend on tokens behind it; ArgumentError
    where the tokens or the window are too many.
    """
    transformers = optional("transformers", "hub", "a causal language model")
    if not Path(folder).is_dir():
        raise DataError(f"hub: there is no folder {str(folder)!r}.")
    try:
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # the library raises errors of every kind for files that it does not know
        raise DataError(f"hub: no causal language model can be loaded from {str(folder)!r}: {first_line(error)}") from error
    absent = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if absent:
        raise DataError(f"hub: {folder} lacks {len(absent)} of the weights of {type(model).__name__}, such as {absent[0]}.")
    _check_sizes(model, vocabulary, window)
    model = model.float()
    _check_causal(model, folder)
    return model


def _check_sizes(model: Any, vocabulary: int | None, window: int | None) -> None:
    config = model.config.get_text_config()
    rows, length = model.get_input_embeddings().num_embeddings, getattr(config, "max_position_embeddings", None)
    if vocabulary is not None and vocabulary > rows:
        raise ArgumentError(
            f"hub: the tokenizer has {vocabulary} tokens, and {type(model).__name__} was made for {rows}; call "
            f"model.resize_token_embeddings({vocabulary}) and save it anew."
        )
    if window is not None and length is not None and window > length:
        raise ArgumentError(f"hub: {type(model).__name__} takes {length} tokens at once, fewer than window={window}.")


@torch.no_grad()
def _check_causal(model: Any, folder: str | Path) -> None:
    """Compare the scores at a first token before tokens that differ."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    rows = torch.zeros(2, PROBE, dtype=torch.int64, device=device)
    rows[1, 1:] = 1
    first, second = model(rows).logits[:, 0]
    model.train(training)
    if (first - second).abs().max() > NEAR * first.abs().max():
        raise DataError(
            f"hub: {type(model).__name__} in {str(folder)!r} sees the tokens that it is to tell; use a model that looks back alone."
        )
