"""Made sentences in which a noun and an adjective stand where their role is certain: "The {noun} is {adj}."

    head, tail                  both words frequent, or both rare
    head_switch, tail_switch    an adjective where the noun stands, and a noun where the adjective does
    unseen                      words that occur nowhere: thenewtoken0, thenewtoken1, ...

They tell whether a model reads a word's role from its place or from what it is (`measure.probe`). Labels go by the place: 0 for the
noun's, 1 for the adjective's.

Reference: Anand, Lepori, Merullo & Pavlick (2025), Dual process learning, ICLR, arXiv 2406.00053 (the naturalistic part).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, closest
from everlearn.core.random import generator
from everlearn.data.role_sentences import NEW
from everlearn.data.tagged_sentences import TaggedSentence

Place = tuple[int, int]  # the number of a sentence, and of a word in it
KINDS = ("head", "tail", "head_switch", "tail_switch", "unseen")
SLOTS = ("{noun}", "{adj}")  # by their label
MOST = 1500  # words that count as frequent, or as rare, in each class


@dataclass(frozen=True)
class MadeSentences:
    """Sentences of words, places (sentence, word) of their nouns and adjectives, and as many labels by the place, 0 (noun) or 1."""

    sentences: tuple[tuple[str, ...], ...]
    places: tuple[Place, ...]
    labels: Tensor


class RoleTemplates:
    """Sentences from one template, and lists of nouns and adjectives, the most frequent first (`words_by_tag`).

    template: words with spaces between them, {noun} and {adj} once each; each: how many words count as frequent, and as rare (None: 1,500,
    at most half of the shorter list); new: how many words that occur nowhere. Raises ArgumentError where they do not fit.

    >>> templates = RoleTemplates(("time", "way"), ("good", "new"), each=1)
    >>> templates.draw("tail_switch", 1).sentences, templates.draw("head", 1).labels.tolist()
    ((('The', 'new', 'is', 'way', '.'),), [0, 1])
    """

    def __init__(
        self,
        nouns: Sequence[str],
        adjectives: Sequence[str],
        *,
        template: str = "The {noun} is {adj} .",
        each: int | None = None,
        new: int = MOST,
        seed: int = 0,
    ):
        self.words = tuple(nouns), tuple(adjectives)
        half = min(map(len, self.words)) // 2
        if not half:
            raise ArgumentError(
                f"role_templates: at least 2 nouns and 2 adjectives are needed, got {len(nouns)} and {len(adjectives)}."
            )
        self.each = min(MOST, half) if each is None else each
        check_count("role_templates", "each", self.each)
        check_count("role_templates", "new", new, low=2)
        if self.each > half:
            raise ArgumentError(f"role_templates: each must be at most {half}, half of the shorter list, got {each}.")
        self.template = tuple(template.split())
        if any(self.template.count(slot) != 1 for slot in SLOTS):
            raise ArgumentError(
                f"role_templates: the template must hold {' and '.join(SLOTS)} once each, with spaces around them, got {template!r}."
            )
        self.new = tuple(NEW.format(number) for number in range(new))
        self.seed = seed

    def draw(self, kind: str, count: int = 10_000) -> MadeSentences:
        """Sentences of a kind (see KINDS), the same for the same seed."""
        if kind not in KINDS:
            raise ArgumentError(closest("kind of sentence", kind, KINDS))
        check_count("role_templates", "count", count)
        random = generator(self.seed, "templates", kind)
        if kind == "unseen":
            first = torch.randint(len(self.new), (count,), generator=random)
            second = (first + torch.randint(1, len(self.new), (count,), generator=random)) % len(self.new)  # another one
            pairs = [[self.new[rank] for rank in ranks.tolist()] for ranks in (first, second)]
        else:
            part = slice(self.each) if kind.startswith("head") else slice(-self.each, None)
            lists = [own[part] for own in (reversed(self.words) if kind.endswith("switch") else self.words)]
            pairs = [[own[rank] for rank in torch.randint(self.each, (count,), generator=random).tolist()] for own in lists]
        slots = [self.template.index(slot) for slot in SLOTS]
        made = []
        for pair in zip(*pairs, strict=True):
            words = list(self.template)
            for slot, word in zip(slots, pair, strict=True):
                words[slot] = word
            made.append(tuple(words))
        places = tuple((number, slot) for number in range(count) for slot in slots)
        return MadeSentences(tuple(made), places, torch.tensor([0, 1]).repeat(count))


def role_places(sentences: Sequence[TaggedSentence]) -> tuple[list[Place], Tensor]:
    """The places of all words tagged NOUN or ADJ, and their labels, 0 and 1."""
    marks = {"NOUN": 0, "ADJ": 1}
    found = [
        ((number, word), marks[tag])
        for number, sentence in enumerate(sentences)
        for word, tag in enumerate(sentence.tags)
        if tag in marks
    ]
    return [place for place, _ in found], torch.tensor([label for _, label in found])
