"""Identifiers in real sentences: patterns, windows, frequencies, sets to judge by, and what is refused."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError, InputError
from everlearn.core.random import generator
from everlearn.data.role_sentences import ADJECTIVE, KINDS, NOUN, RoleSentences, roles, treebank_roles
from everlearn.data.tagged_sentences import TaggedSentence


def tagged(text, name="1"):
    """Words written FORM/TAG."""
    forms, tags = zip(*(word.split("/") for word in text.split()), strict=True)
    return TaggedSentence(name, forms, tags)


def lexicon(count=30):
    """Sentences in which noun r, and adjective r, occur count - r times, each before or behind the other kind."""
    made = []
    for rank in range(count):
        made += [tagged(f"the/DET a{rank:02}/ADJ n{rank:02}/NOUN rained/VERB")] * (count - rank)
    return made


JUDGED = [tagged("our/PRON n00/NOUN Was/AUX a00/ADJ ./PUNCT")]


@pytest.fixture(scope="module")
def stream():
    return RoleSentences(lexicon(), JUDGED, beside=2, window=2, unseen=5, seed=3)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("the/DET cold/ADJ rain/NOUN", [(2, 1)]),
        ("the/DET rain/NOUN is/AUX cold/ADJ", [(1, 3)]),
        ("Rain/NOUN 's/AUX cold/ADJ", [(0, 2)]),
        ("cold/ADJ rain/NOUN WAS/AUX heavy/ADJ rain/NOUN", [(1, 0), (1, 3), (4, 3)]),
        ("rain/NOUN can/AUX cold/ADJ", []),  # no form of be
        ("rain/NOUN is/AUX very/ADV cold/ADJ", []),
        ("rain/NOUN is/VERB cold/ADJ", []),
        ("cold/ADJ heavy/ADJ", []),
        ("rain/NOUN is/AUX", []),
    ],
)
def test_patterns_are_found_where_they_stand(text, pairs):
    assert roles(tagged(text)) == pairs


def test_tokens_lie_in_their_order(stream):
    assert stream.words[NOUN][:3] == ("n00", "n01", "n02") and stream.words[ADJECTIVE][29] == "a29"
    assert stream.beside == {"rained": 60, "the": 61}  # 465 times each
    assert (stream.outside, stream.other, stream.size, stream.kept) == (62, 63, 69, (60, 61, 62, 63))
    assert stream.ids("unseen").tolist() == [64, 65, 66, 67, 68]
    assert stream.ids("nouns").tolist() == list(range(30)) and stream.ids("adjectives").tolist() == list(range(30, 60))
    assert stream.ids("head").tolist() == [*range(20), *range(30, 50)]
    assert stream.ids("tail").tolist() == [27, 28, 29, 57, 58, 59]
    chosen = stream.ids("amb")
    assert [int(((chosen >= low) & (chosen < low + 6)).sum()) for low in range(0, 60, 6)] == [
        1
    ] * 10  # a tenth of 6, rounded up
    assert set(chosen.tolist()) | set(stream.ids("non_amb").tolist()) == set(range(60))


def test_windows_hold_the_words_beside_an_identifier_and_its_tag(stream):
    """the ADJ NOUN rained: the other word of the two is none of the two common ones, so it reads as another word."""
    x, y = stream.draw(4000, generator(0, "x"))
    the, rained, outside, other = stream.beside["the"], stream.beside["rained"], stream.outside, stream.other
    assert x.shape == y.shape == (4000, 5) and (y[:, [0, 1, 3, 4]] == -100).all()
    beside = {tuple(row) for row in x[:, [0, 1, 3, 4]][y[:, 2] == NOUN].tolist()}
    assert beside == {(the, other, rained, outside)}
    beside = {tuple(row) for row in x[:, [0, 1, 3, 4]][y[:, 2] == ADJECTIVE].tolist()}
    assert beside == {(outside, the, other, rained)}
    assert float((y[:, 2] == NOUN).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(4000))
    judged, tags = stream.draw(50, generator(0, "x"), "judged")
    noun = [other, None, other, other]  # our _ was a00: none is common in the sentences to learn from
    assert judged[tags[:, 2] == NOUN][0].tolist() == [outside, other, judged[tags[:, 2] == NOUN][0, 2], *noun[2:]]
    assert judged[tags[:, 2] == ADJECTIVE][0, [0, 1, 3, 4]].tolist() == [other, other, other, outside]


def test_identifiers_are_drawn_as_often_as_their_words_occur():
    flat = RoleSentences(lexicon(), JUDGED, beside=2, ambiguous=0.0, seed=0)
    count = 40_000
    x, y = flat.draw(count, generator(1, "many"))
    tokens, tags = x[:, 3], y[:, 3]
    assert (tokens[tags == NOUN] < 30).all() and ((tokens >= 30) & (tokens < 60))[tags == ADJECTIVE].all()
    for tag, first in ((NOUN, 0), (ADJECTIVE, 30)):
        own = tokens[tags == tag] - first
        for rank in (0, 9, 29):
            chance = (30 - rank) / 465  # 30 + 29 + ... + 1 = 465 words
            share = float((own == rank).double().mean())
            assert share == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / len(own)))


def test_ambiguous_identifiers_give_way_half_of_the_time_to_those_of_the_other_class(stream):
    count = 40_000
    x, y = stream.draw(count, generator(2, "swaps"))
    tokens, tags = x[:, 2], y[:, 2]
    swapped = (tokens >= 30) != (tags == ADJECTIVE)
    assert torch.isin(tokens[swapped], stream.ids("amb")).all()
    weights = 30 - torch.arange(30, dtype=torch.float64)
    expected = []
    for tag, first in ((NOUN, 0), (ADJECTIVE, 30)):
        own = stream.ids("amb")
        own = own[(own >= first) & (own < first + 30)] - first
        expected.append(0.5 * float(weights[own].sum()) / 465)
        share = float(swapped[tags == tag].double().mean())
        assert share == pytest.approx(expected[-1], abs=5 * math.sqrt(expected[-1] / (count / 2)))
        others = tokens[swapped & (tags != tag)]  # of this class, in the place of the other one: as often as they occur
        chance = float(weights[own[0]] / weights[own].sum())
        found = float((others == own[0] + first).double().mean())
        assert found == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / len(others)))
    assert min(expected) > 0.05


def test_sets_of_all_words_follow_the_law_of_training_or_of_the_other_class(stream):
    """val: ambiguous ones swapped as in training; switch: the other class by frequency, rank 0 with 30 of 465."""
    count = 20_000
    probe = stream.probe("val", count)
    tokens, tags = probe.x[:, 2], probe.y[:, 2]
    swapped = (tokens >= 30) != (tags == ADJECTIVE)
    counts = 30 - torch.arange(30, dtype=torch.float64).repeat(2)
    share = 0.25 * float(counts[stream.ids("amb")].sum()) / 465  # half of them, over both classes
    assert float(swapped.double().mean()) == pytest.approx(share, abs=5 * math.sqrt(share / count))
    switched = stream.probe("switch", count).x[:, 2]
    for first in (0, 30):
        assert float((switched == first).double().mean()) == pytest.approx(15 / 465, abs=5 * math.sqrt(15 / 465 / count))


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_to_judge_by_holds_the_identifiers_of_its_kind(stream, kind):
    probe = stream.probe(kind, 3000)
    tokens, tags = probe.x[:, 2], probe.y[:, 2]
    if kind not in ("val", "switch"):
        assert set(tokens.tolist()) == set(stream.ids(kind.removesuffix("_switch")).tolist())
    if kind == "unseen":
        assert probe.by_identity is None and set(tags.tolist()) == {0, 1}
    elif kind.endswith("switch"):
        assert torch.equal(tokens < 30, tags == ADJECTIVE)
        assert torch.equal(probe.by_identity[:, 2], 1 - tags) and (probe.by_identity[:, [0, 1, 3, 4]] == -100).all()
    elif kind != "val":
        assert torch.equal(tokens < 30, tags == NOUN) and probe.by_identity is None
    other = probe.x[:, [0, 1, 3, 4]]
    assert torch.isin(other, torch.tensor([stream.other, stream.outside])).all()  # of the judged sentence, not of the others
    assert torch.equal(probe.x, stream.probe(kind, 3000).x)


def test_batches_are_functions_of_seed_and_number(stream):
    again = RoleSentences(lexicon(), JUDGED, beside=2, window=2, unseen=5, seed=3)
    other = RoleSentences(lexicon(), JUDGED, beside=2, window=2, unseen=5, seed=4)
    for index in (0, 7, 100_000):
        assert torch.equal(stream[index].x, again[index].x) and torch.equal(stream[index].y, again[index].y)
        assert int(stream[index].x.max()) < 64 and stream[index].x.shape == (128, 5)
    assert not torch.equal(stream[0].x, stream[1].x) and not torch.equal(stream[0].x, other[0].x)
    assert not torch.equal(stream.ids("amb"), other.ids("amb"))
    nouns, adjectives = stream.ids("amb")[:5], stream.ids("amb")[5:]
    assert not torch.equal(nouns, adjectives - 30)  # each class has ranks of its own
    first, second = (RoleSentences(lexicon(), JUDGED, ambiguous=0.0, seed=seed) for seed in (3, 4))  # nothing is chosen
    assert not torch.equal(first[0].x, second[0].x)
    assert not torch.equal(first.probe("head", 300).x, second.probe("head", 300).x)
    assert not torch.equal(first.probe("head", 300).y, first.probe("tail", 300).y)


def test_a_sentence_of_words_becomes_a_window_around_each(stream):
    x = stream.around(["The", "N01", "is", "thenewtoken4"])
    outside, the, other = stream.outside, stream.beside["the"], stream.other
    assert x.tolist() == [
        [outside, outside, the, other, other],
        [outside, the, 1, other, other],
        [the, other, other, other, outside],
        [other, other, 68, outside, outside],
    ]


def test_fewer_words_and_wider_windows(stream):
    cut = RoleSentences(lexicon(), JUDGED, words=20, beside=0, window=4, unseen=1, batch=2)
    assert (cut.size, cut.beside, cut[0].x.shape, cut.asked) == (43, {}, (2, 9), slice(4, 5))
    assert cut.ids("tail").tolist() == [18, 19, 38, 39]
    odd = RoleSentences(lexicon(25), JUDGED)
    assert odd.ids("tail").tolist() == [22, 23, 24, 47, 48, 49]  # a tenth of 25, rounded up


def test_the_case_of_letters_counts_not():
    loud = [
        TaggedSentence("1", tuple(form.upper() for form in sentence.forms) if number % 4 else sentence.forms, sentence.tags)
        for number, sentence in enumerate(lexicon())
    ]
    plain, mixed = (RoleSentences(sentences, JUDGED, beside=2, seed=0) for sentences in (lexicon(), loud))
    assert (mixed.words, mixed.beside) == (plain.words, plain.beside)
    assert torch.equal(mixed[0].x, plain[0].x)
    assert torch.equal(mixed.around(["THE", "N01", "Rained"]), plain.around(["the", "n01", "rained"]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"words": 19}, "words must be an int >= 20, got 19"),
        ({"window": 0}, "window must be an int >= 1"),
        ({"beside": -1}, "beside must be an int >= 0"),
        ({"unseen": 0}, "unseen must be an int >= 1"),
        ({"ambiguous": 0.6}, "ambiguous must be a number between 0 and 0.5, got 0.6"),
        ({"batch": 0}, "batch must be an int >= 1"),
        ({"share": 2.0}, "share must be a number between 0 and 1"),
        ({"judged": [tagged("rain/NOUN")]}, "judged hold neither an adjective before a noun nor NOUN be ADJ"),
        ({"sentences": lexicon(19)}, "at least 20 words of the tag NOUN are needed, the sentences have 19"),
    ],
)
def test_what_makes_no_stream_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        RoleSentences(**{"sentences": lexicon(), "judged": JUDGED, **wrong})


def test_unknown_sets_and_tokens_are_refused(stream):
    with pytest.raises(ArgumentError, match="did you mean 'head_switch'"):
        stream.probe("head_swich")
    with pytest.raises(ArgumentError, match="unknown kind of identifier 'verbs'"):
        stream.ids("verbs")
    with pytest.raises(ArgumentError, match="no identifiers of kind 'amb'"):
        RoleSentences(lexicon(), JUDGED, ambiguous=0.0).probe("amb")
    stream.check(torch.tensor([[0, 68]]))
    for token in (69, -1):
        with pytest.raises(InputError, match=rf"token {token} is outside 0\.\.68"):
            stream.check(torch.tensor([[0, token]]))


def test_the_treebank_gives_thousands_of_windows():
    try:
        found = treebank_roles(words=1000)
    except DataError:
        pytest.skip("EVERLEARN_DATA has no ud_english_ewt")
    assert found.words[NOUN][:3] == ("time", "people", "thanks") and found.words[ADJECTIVE][:3] == ("good", "other", "new")
    assert [len(windows) for windows in found._places["train"]] == [6804 + 347] * 2  # ADJ NOUN, and NOUN be ADJ
    assert [len(windows) for windows in found._places["judged"]] == [951 + 54 + 894 + 59] * 2
