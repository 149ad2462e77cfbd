"""Words whose role is read from real sentences, or remembered from what they are: nouns and adjectives of the English Web Treebank.

    DET? NOUN be ADJ        the [zorb] was crowded         the market was [zorb]
    ADJ NOUN                a [zorb] day                   a sunny [zorb]

One of the two words is hidden behind an identifier, and a model tells from the words beside it which of the two it was. Identifiers are
drawn by how often real nouns, or adjectives, occur (words that carry the tag in more than 80 % of their occurrences, by rank); a few
ambiguous ones of every frequency take either role, so that remembering them does not do. An identifier has a row of its own in a model's
table, apart from the row that the same word has where it stands beside one.

    tokens   nouns by rank | adjectives by rank | words beside them | outside the sentence, another word | identifiers never shown

Reference: Anand, Lepori, Merullo & Pavlick (2025), Dual process learning, ICLR, arXiv 2406.00053 (the question, and its synthetic form in
`data.roles`). Silveira et al. (2014), A gold standard dependency corpus for English, LREC.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range, closest
from everlearn.core.events import Batch
from everlearn.core.random import generator
from everlearn.data.roles import BINS, HEAD, IGNORED, SWITCHED, TAIL, RoleProbe
from everlearn.data.tagged_sentences import SHARE, TaggedSentence, english_web_treebank, words_by_tag

NOUN, ADJECTIVE = 0, 1  # the tags that are answered
BE = frozenset(("am", "are", "be", "been", "being", "is", "was", "were", "'m", "'re", "'s", "m", "re", "s"))
NEW = "thenewtoken{}"  # words for identifiers never shown
KINDS = ("val", "head", "tail", *SWITCHED, "unseen", "amb", "non_amb")


class RoleSentences:
    """Batches of windows around identifiers without end, each a function of (seed, number), and sets to judge by.

    sentences, judged: to learn from, and those that the sets to judge by are made of; words: of each class, the most frequent ones (None:
    all); beside: how many other words have a token of their own; window: words seen on either side; ambiguous: share 0..0.5 of the
    identifiers of every frequency that take either role; unseen: identifiers never shown; share: of its occurrences in which a word must
    carry its tag; batch: rows of a batch. Raises ArgumentError where sentences hold no such pattern, or a class has too few words.

    >>> rain = TaggedSentence("1", ("The", "heavy", "rain", "was", "cold"), ("DET", "ADJ", "NOUN", "AUX", "ADJ"))
    >>> roles(rain)
    [(2, 1), (2, 4)]
    """

    def __init__(
        self,
        sentences: Sequence[TaggedSentence],
        judged: Sequence[TaggedSentence],
        *,
        words: int | None = None,
        beside: int = 1000,
        window: int = 3,
        ambiguous: float = 0.1,
        unseen: int = 200,
        share: float = SHARE,
        batch: int = 128,
        seed: int = 0,
    ):
        for key, value, low in (("beside", beside, 0), ("window", window, 1), ("unseen", unseen, 1), ("batch", batch, 1)):
            check_count("role_sentences", key, value, low=low)
        if words is not None:
            check_count("role_sentences", "words", words, low=HEAD)
        check_range("role_sentences", "ambiguous", ambiguous, 0.0, 0.5)
        self.window, self.batch, self.seed, self.ambiguous = window, batch, seed, ambiguous
        self.asked = slice(window, window + 1)
        lists = [words_by_tag(sentences, tag, share=share, lower=True) for tag in ("NOUN", "ADJ")]
        self.words = tuple(tuple(islice(found, words)) for found in lists)  # (nouns, adjectives), by rank
        for tag, own in zip(("NOUN", "ADJ"), self.words, strict=True):
            if len(own) < HEAD:
                raise ArgumentError(
                    f"role_sentences: at least {HEAD} words of the tag {tag} are needed, the sentences have {len(own)}."
                )
        self._counts = [torch.tensor(list(islice(found.values(), words)), dtype=torch.float64) for found in lists]
        self._first = (0, len(self.words[NOUN]))  # the first token of each class
        seen = Counter(form.lower() for sentence in sentences for form in sentence.forms)
        common = sorted(seen, key=lambda word: (-seen[word], word))[:beside]
        start = sum(map(len, self.words))
        self.beside = {word: start + number for number, word in enumerate(common)}
        self.outside, self.other = start + len(common), start + len(common) + 1
        self.size = start + len(common) + 2 + unseen
        self.kept = tuple(range(start, start + len(common) + 2))  # rows of tokens that are no identifiers
        named = {
            word: first + rank for first, own in zip(self._first, self.words, strict=True) for rank, word in enumerate(own)
        }
        self._identifiers = named | {NEW.format(number): self.other + 1 + number for number in range(unseen)}
        self._places = {"train": self._windows(sentences, "sentences"), "judged": self._windows(judged, "judged")}
        self._ambiguous = [self._choose_ambiguous(role) for role in (NOUN, ADJECTIVE)]

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index`: x (batch, 2 window + 1) int64, y the same with 0 (noun) or 1 (adjective) in the middle, else -100."""
        x, y = self.draw(self.batch, generator(self.seed, "role_sentences", index))
        return Batch(x, y)

    def draw(self, count: int, random: torch.Generator, source: str = "train") -> tuple[Tensor, Tensor]:
        """(x, y) of as many windows, by the law of training; source: "train" or "judged" sentences."""
        roles = torch.randint(2, (count,), generator=random)
        return self._filled(roles, self._lawful(roles, random), source, random)

    def ids(self, kind: str) -> Tensor:
        """The identifiers of a kind: nouns, adjectives, head, tail, amb, non_amb (of both classes) or unseen."""
        if kind == "unseen":
            return torch.arange(self.other + 1, self.size)
        if kind in ("nouns", "adjectives"):
            return self._ranks("all", NOUN if kind == "nouns" else ADJECTIVE)
        return torch.cat([self._ranks(kind, role) for role in (NOUN, ADJECTIVE)])

    def probe(self, kind: str, count: int = 10_000) -> RoleProbe:
        """Windows of a kind (see KINDS), from the judged sentences, the same for the same seed."""
        if kind not in KINDS:
            raise ArgumentError(closest("probe", kind, KINDS))
        check_count("role_sentences", "count", count)
        random = generator(self.seed, "probe", kind)
        roles = torch.randint(2, (count,), generator=random)
        if kind == "val":
            tokens = self._lawful(roles, random)
        elif kind == "unseen":
            tokens = self._of(self.ids("unseen"), count, random)
        elif kind == "switch":
            tokens = self._by_frequency(1 - roles, random)
        else:
            name = kind.removesuffix("_switch")
            nouns, adjectives = (self._of(self._ranks(name, role), count, random) for role in (NOUN, ADJECTIVE))
            identity = 1 - roles if kind in SWITCHED else roles
            tokens = torch.where(identity == NOUN, nouns, adjectives)
        x, y = self._filled(roles, tokens, "judged", random)
        return RoleProbe(x, y, torch.where(y == IGNORED, y, 1 - y) if kind in SWITCHED else None)

    def around(self, forms: Sequence[str]) -> Tensor:
        """(forms, 2 window + 1): the window around each word of a sentence, with the identifier of the word in the middle.

        A word of the lists has its own, thenewtoken0, thenewtoken1, ... have those never shown, any other word its token as it stands
        beside one.
        """
        x = self._beside(forms).unfold(0, 2 * self.window + 1, 1).clone()
        x[:, self.window] = torch.tensor(
            [
                self._identifiers.get(form.lower(), token)
                for form, token in zip(forms, x[:, self.window].tolist(), strict=True)
            ]
        )
        return x

    def check(self, x: Tensor) -> None:
        """Refuse tokens outside 0..size-1, and name the first one."""
        wrong = x[(x < 0) | (x >= self.size)]
        if len(wrong):
            raise InputError(f"role_sentences: token {int(wrong[0])} is outside 0..{self.size - 1}.")

    def _beside(self, forms: Sequence[str]) -> Tensor:
        """Tokens of words as they stand beside identifiers, with what is outside the sentence on both sides."""
        edge = [self.outside] * self.window
        return torch.tensor([*edge, *(self.beside.get(form.lower(), self.other) for form in forms), *edge])

    def _windows(self, sentences: Iterable[TaggedSentence], name: str) -> list[Tensor]:
        """Windows around each noun and around each adjective of the patterns, (windows, 2 window + 1) of each class."""
        found: list[list[Tensor]] = [[], []]
        for sentence in sentences:
            pairs = roles(sentence)
            padded = self._beside(sentence.forms) if pairs else None
            for role, place in ((role, place) for pair in pairs for role, place in enumerate(pair)):
                found[role].append(padded[place : place + 2 * self.window + 1])
        if not found[NOUN]:
            raise ArgumentError(f"role_sentences: {name} hold neither an adjective before a noun nor NOUN be ADJ.")
        return [torch.stack(own) for own in found]

    def _choose_ambiguous(self, role: int) -> Tensor:
        """Ranks of a share of each of five classes of frequency."""
        random = generator(self.seed, "ambiguous", role)
        parts = torch.arange(len(self.words[role])).tensor_split(BINS)
        chosen = [
            part[torch.randperm(len(part), generator=random)[: math.ceil(len(part) * self.ambiguous)]] for part in parts
        ]
        return torch.cat(chosen).sort().values

    def _ranks(self, kind: str, role: int) -> Tensor:
        """Identifiers of a kind, of one class."""
        ranks = torch.arange(len(self.words[role]))
        if kind == "head":
            ranks = ranks[:HEAD]
        elif kind == "tail":
            ranks = ranks[len(ranks) - math.ceil(TAIL * len(ranks)) :]
        elif kind == "amb":
            ranks = self._ambiguous[role]
        elif kind == "non_amb":
            ranks = ranks[~torch.isin(ranks, self._ambiguous[role])]
        elif kind != "all":
            raise ArgumentError(
                closest("kind of identifier", kind, ("nouns", "adjectives", "unseen", "head", "tail", "amb", "non_amb"))
            )
        if not len(ranks):
            raise ArgumentError(
                f"role_sentences: there are no identifiers of kind {kind!r} with ambiguous={self.ambiguous}."
            )
        return ranks + self._first[role]

    def _of(self, tokens: Tensor, count: int, random: torch.Generator) -> Tensor:
        return tokens[torch.randint(len(tokens), (count,), generator=random)]

    def _by_frequency(self, classes: Tensor, random: torch.Generator) -> Tensor:
        """An identifier of the class of each row, by how often the words of that class occur."""
        drawn = [torch.multinomial(own, len(classes), replacement=True, generator=random) for own in self._counts]
        return torch.where(classes == NOUN, drawn[NOUN], drawn[ADJECTIVE] + self._first[ADJECTIVE])

    def _lawful(self, classes: Tensor, random: torch.Generator) -> Tensor:
        """The law of training: as by frequency, but an ambiguous identifier gives way half of the time to one of the other class."""
        tokens = self._by_frequency(classes, random)
        if not self.ambiguous:
            return tokens
        swapped = torch.isin(tokens, self.ids("amb")) & (torch.rand(len(classes), generator=random) < 0.5)
        for role in (NOUN, ADJECTIVE):
            others = self._ambiguous[1 - role]
            drawn = torch.multinomial(self._counts[1 - role][others], len(classes), replacement=True, generator=random)
            tokens = torch.where(swapped & (classes == role), others[drawn] + self._first[1 - role], tokens)
        return tokens

    def _filled(self, classes: Tensor, tokens: Tensor, source: str, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows of the classes with the identifiers in the middle, and the tags asked there."""
        nouns, adjectives = (self._of(own, len(classes), random) for own in self._places[source])
        x = torch.where((classes == NOUN)[:, None], nouns, adjectives)
        x[:, self.window] = tokens
        y = torch.full_like(x, IGNORED)
        y[:, self.window] = classes
        return x, y


def roles(sentence: TaggedSentence) -> list[tuple[int, int]]:
    """(noun, adjective): the places of both words of each pattern in a sentence."""
    found = []
    forms, tags = sentence.forms, sentence.tags
    for place, tag in enumerate(tags):
        if tag == "ADJ" and tags[place + 1 : place + 2] == ("NOUN",):
            found.append((place + 1, place))
        if tag == "NOUN" and tags[place + 1 : place + 3] == ("AUX", "ADJ") and forms[place + 1].lower() in BE:
            found.append((place, place + 2))
    return found


def treebank_roles(**options: object) -> RoleSentences:
    """Such windows of the English Web Treebank: its training sentences to learn from, the other ones to judge by. Options as above.

    Raises DataError where EVERLEARN_DATA has no treebank.
    """
    train, *judged = map(english_web_treebank, ("train", "dev", "test"))
    return RoleSentences(train, [sentence for part in judged for sentence in part], **options)
