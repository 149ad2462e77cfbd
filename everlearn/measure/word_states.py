"""Hidden states of words, from a Hugging Face model and its tokenizer: of each layer, the mean over the pieces that a word is cut into.

Words that the model shall not know are given vectors of their own: they stand as one piece each, and where the model looks that piece up
it finds their vector. Neither the model nor the tokenizer is changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everlearn.core.errors import InputError, check_count
from everlearn.core.random import generator
from everlearn.optim.forgetting import Law, Normal


class WordStates:
    """Sentences of words, and places (sentence, word) in them -> hidden states (layers + 1, places, dim), the embeddings first.

    model: any of `transformers` that gives hidden states; tokenizer: its own, a fast one; new: vectors (dim,) of words, see `new_words`;
    batch: sentences at once. Raises InputError for places outside the sentences, sentences too long for the model, tokenizers that cannot
    say which word a piece is of, and vectors that do not fit.
    """

    def __init__(self, model: nn.Module, tokenizer: object, *, new: Mapping[str, Tensor] | None = None, batch: int = 32):
        check_count("word_states", "batch", batch)
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.new = dict(new or {})
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"word_states: {type(tokenizer).__name__} cannot say which word a piece is of. Load the fast tokenizer of the model."
            )
        width = model.get_input_embeddings().weight.shape[1]
        for word, vector in self.new.items():
            if tuple(vector.shape) != (width,):
                raise InputError(f"word_states: the vector of {word!r} must be ({width},), got {tuple(vector.shape)}.")
        self._stand_in = next(
            (token for token in (tokenizer.mask_token, tokenizer.unk_token, tokenizer.eos_token) if token), None
        )
        if self.new and self._stand_in is None:
            raise InputError(
                "word_states: the tokenizer has neither a mask, an unknown nor an end token to stand for new words."
            )

    @torch.no_grad()
    def __call__(self, sentences: Sequence[Sequence[str]], places: Sequence[tuple[int, int]]) -> Tensor:
        """(layers + 1, places, dim) float32."""
        wanted: dict[int, list[tuple[int, int]]] = {}  # sentence -> (place's number, word)
        for row, (number, word) in enumerate(places):
            if not (0 <= number < len(sentences) and 0 <= word < len(sentences[number])):
                raise InputError(f"word_states: there is no word {word} of sentence {number}.")
            wanted.setdefault(number, []).append((row, word))
        found: list[Tensor | None] = [None] * len(places)
        numbers = sorted(wanted, key=lambda number: len(sentences[number]))  # as long ones together: little is padded
        mode = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(numbers), self.batch):
                part = numbers[start : start + self.batch]
                states, words = self._forward([sentences[number] for number in part])
                for line, number in enumerate(part):
                    for row, word in wanted[number]:
                        pieces = [place for place, owner in enumerate(words[line]) if owner == word]
                        if not pieces:
                            raise InputError(
                                f"word_states: the tokenizer makes nothing of {sentences[number][word]!r} (sentence {number})."
                            )
                        found[row] = states[:, line, pieces].mean(1)
        finally:
            self.model.train(mode)
        return torch.stack(found, 1)

    def _forward(self, sentences: Sequence[Sequence[str]]) -> tuple[Tensor, list[list[int | None]]]:
        """(layers + 1, sentences, pieces, dim), and the word that each piece is of."""
        texts = [[self._stand_in if word in self.new else word for word in words] for words in sentences]
        try:
            inputs = self.tokenizer(texts, is_split_into_words=True, padding=True, return_tensors="pt")
        except (ValueError, AssertionError, TypeError) as error:
            raise InputError(f"word_states: the tokenizer refuses sentences of words: {error}") from error
        words = [inputs.word_ids(line) for line in range(len(texts))]
        length, most = inputs["input_ids"].shape[1], getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and length > most:
            longest = max(sentences, key=len)
            raise InputError(
                f"word_states: a sentence of {len(longest)} words has {length} pieces, and the model takes {most}. Leave long ones out."
            )
        with self._vectors(sentences, words):
            output = self.model(**inputs.to(self.model.device), output_hidden_states=True)
        return torch.stack([state.float().cpu() for state in output.hidden_states]), words

    @contextmanager
    def _vectors(self, sentences: Sequence[Sequence[str]], words: Sequence[Sequence[int | None]]) -> Iterator[None]:
        """While it lasts, pieces of new words are looked up as their vectors."""
        at = [
            (line, place, self.new[sentences[line][owner]])
            for line, owners in enumerate(words)
            for place, owner in enumerate(owners)
            if owner is not None and sentences[line][owner] in self.new
        ]
        if not at:
            yield
            return
        lines, columns, vectors = zip(*at, strict=True)

        def put(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            output = output.clone()
            output[list(lines), list(columns)] = torch.stack(vectors).to(output)
            return output

        handle = self.model.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()


def new_words(model: nn.Module, names: Sequence[str], *, init: Law | None = None, seed: int = 0) -> dict[str, Tensor]:
    """Vectors for words that a Hugging Face model never saw: {name: (dim,)}.

    init: their law, by default normal with the spread of the model's own table as it is.
    """
    table = model.get_input_embeddings().weight.detach()
    law = Normal(float(table.std())) if init is None else init
    drawn = law.new(torch.zeros(len(names), table.shape[1]), generator(seed, "new words"))
    return dict(zip(names, drawn, strict=True))
