"""A linear probe: what can be read off a model's hidden states by one weight vector, layer by layer.

    p(label = 1 | h) = sigmoid(w h)          no bias: states on one side of a plane through 0 are of one label

Each layer has a w of its own, from 0 by AdamW on the binary cross-entropy of four fifths of the rows; the rest says how much is read
right. `probe_roles` asks so for the roles of words: the probe learns nouns against adjectives from tagged sentences, and is tried on made
sentences whose words have the other role, or were never seen (`data.role_templates`).

References: Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053 (probe and test). Alain & Bengio (2017), Understanding
intermediate layers using linear classifier probes, arXiv 1610.01644.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range
from everlearn.core.random import generator
from everlearn.data.role_sentences import RoleSentences
from everlearn.data.role_templates import KINDS, Place, RoleTemplates, role_places
from everlearn.data.tagged_sentences import TaggedSentence
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Law, Normal

ROWS = 2000  # windows at once

States = Callable[[Sequence[Sequence[str]], Sequence[Place]], Tensor]
"""Sentences of words, and places (sentence, word) in them -> hidden states (layers, places, dim)."""


@dataclass(frozen=True)
class Probe:
    """A weight vector for each layer, (layers, dim), and the share of held-out rows that each reads right, (layers,)."""

    weight: Tensor
    held: Tensor

    def read(self, states: Tensor) -> Tensor:
        """(layers, n) bool: the labels read off states (layers, n, dim)."""
        if states.dim() != 3 or (len(states), states.shape[2]) != tuple(self.weight.shape):
            raise InputError(
                f"probe: states must be (layers, n, dim) with layers, dim = {tuple(self.weight.shape)}, got {tuple(states.shape)}."
            )
        return torch.einsum("lnd,ld->ln", states, self.weight) > 0

    def right(self, states: Tensor, labels: Tensor) -> Tensor:
        """(layers,): the share of labels that each layer reads right."""
        return (self.read(states) == labels.bool()).double().mean(1)


def linear_probe(
    states: Tensor,
    labels: Tensor,
    *,
    epochs: int = 4,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    batch: int = 32,
    held: float = 0.2,
    seed: int = 0,
) -> Probe:
    """Learn to read labels off states, of all layers at once.

    states: (layers, n, dim), or (n, dim) of one layer; labels: (n,) of 0 and 1; held: share of the rows to judge by. Raises InputError for
    shapes that do not fit, states that are not finite, labels other than 0 and 1, or too few rows.

    >>> h = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    >>> probe = linear_probe(h, h[:, 1] > 0, lr=0.1, epochs=20)
    >>> float(probe.held) > 0.95, int(probe.weight[0].argmax())
    (True, 1)
    """
    check_count("linear_probe", "epochs", epochs)
    check_count("linear_probe", "batch", batch)
    check_range("linear_probe", "lr", lr, 0.0)
    check_range("linear_probe", "weight_decay", weight_decay, 0.0)
    check_range("linear_probe", "held", held, 0.0, 1.0)
    states = states[None] if states.dim() == 2 else states
    count = len(labels)
    if states.dim() != 3 or labels.dim() != 1 or states.shape[1] != count:
        raise InputError(
            f"linear_probe: states must be (layers, n, dim) and labels (n,), got {tuple(states.shape)} and {tuple(labels.shape)}."
        )
    if not torch.isfinite(states).all():
        raise InputError("linear_probe: states must be finite; NaN or infinite values were received.")
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise InputError(f"linear_probe: labels must be 0 or 1, got {wrong[0].item()}.")
    kept = count - round(held * count)
    if not 0 < kept < count:
        raise InputError(
            f"linear_probe: held={held:g} of {count} rows leaves none to {'learn from' if not kept else 'judge by'}."
        )
    random = generator(seed, "probe")
    order = torch.randperm(count, generator=random)
    train, rest = order[:kept], order[kept:]
    states, targets = states.detach().float(), labels.float()
    weight = torch.zeros(len(states), states.shape[2], requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=lr, weight_decay=weight_decay)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in train[torch.randperm(kept, generator=random)].split(batch):
                scores = torch.einsum("lnd,ld->ln", states[:, rows], weight)
                each = functional.binary_cross_entropy_with_logits(scores, targets[rows].expand_as(scores), reduction="none")
                optimizer.zero_grad()
                each.mean(1).sum().backward()  # no layer touches the weight of another
                optimizer.step()
    probe = Probe(weight.detach(), torch.empty(0))
    return Probe(probe.weight, probe.right(states[:, rest], targets[rest]))


@dataclass(frozen=True)
class RoleReading:
    """How far roles can be read off each layer, the embeddings first: shares of words read right, of tagged sentences that were held out
    (`held`), and by kind of made sentences. Of switched words, 1 less the share is what is read as they are by themselves."""

    held: tuple[float, ...]
    made: dict[str, tuple[float, ...]]


def probe_roles(
    states: States,
    sentences: Sequence[TaggedSentence],
    templates: RoleTemplates,
    *,
    kinds: Sequence[str] = KINDS,
    count: int = 10_000,
    seed: int = 0,
    **options: float,
) -> RoleReading:
    """Learn nouns against adjectives from the tagged sentences, and read both words of made sentences.

    states: a model's hidden states, `encoder_states(model, stream)`, `WordStates(model, tokenizer)`, or a function of the user's; kinds,
    count: of made sentences; options: of `linear_probe`. Raises ArgumentError, InputError.
    """
    check_count("probe_roles", "count", count)
    places, labels = role_places(sentences)
    if not places:
        raise ArgumentError("probe_roles: the sentences hold no word tagged NOUN or ADJ.")
    probe = linear_probe(_checked(states, [sentence.forms for sentence in sentences], places), labels, seed=seed, **options)
    made = {}
    for kind in kinds:
        drawn = templates.draw(kind, count)
        made[kind] = tuple(probe.right(_checked(states, drawn.sentences, drawn.places), drawn.labels).tolist())
    return RoleReading(tuple(probe.held.tolist()), made)


def encoder_states(model: TinyEncoder, stream: RoleSentences, *, init: Law | None = None, seed: int = 0) -> States:
    """The hidden states of words for a small encoder that was trained on `RoleSentences`: of the middle of the window around each.

    Identifiers never shown have new rows, drawn from `init` (by default the law of the model's own start), in a copy of the model.
    """
    copied = deepcopy(model).eval()
    ids = stream.ids("unseen")
    law = Normal(model.std) if init is None else init
    with torch.no_grad():
        copied.table[ids] = law.new(copied.table[ids], generator(seed, "unseen"))

    @torch.no_grad()
    def states(sentences: Sequence[Sequence[str]], places: Sequence[Place]) -> Tensor:
        windows = {number: stream.around(sentences[number]) for number in {number for number, _ in places}}
        x = torch.stack([windows[number][word] for number, word in places])
        return torch.cat([copied.layers(part)[:, :, stream.window] for part in x.split(ROWS)], 1)

    return states


def _checked(states: States, sentences: Sequence[Sequence[str]], places: Sequence[Place]) -> Tensor:
    found = states(sentences, places)
    if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[1] != len(places):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"probe_roles: states must give a tensor (layers, {len(places)}, dim) for as many places, got {got}."
        )
    return found
