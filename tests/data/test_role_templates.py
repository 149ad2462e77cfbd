"""Made sentences: which words stand where, for each kind, and what is refused."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.role_templates import RoleTemplates, role_places
from everlearn.data.tagged_sentences import TaggedSentence

NOUNS = tuple(f"n{rank}" for rank in range(10))
ADJECTIVES = tuple(f"a{rank}" for rank in range(8))


@pytest.fixture(scope="module")
def templates():
    return RoleTemplates(NOUNS, ADJECTIVES, each=3, new=4, seed=1)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("head", {"n0", "n1", "n2"}, {"a0", "a1", "a2"}),
        ("tail", {"n7", "n8", "n9"}, {"a5", "a6", "a7"}),
        ("head_switch", {"a0", "a1", "a2"}, {"n0", "n1", "n2"}),
        ("tail_switch", {"a5", "a6", "a7"}, {"n7", "n8", "n9"}),
        ("unseen", {f"thenewtoken{number}" for number in range(4)}, {f"thenewtoken{number}" for number in range(4)}),
    ],
)
def test_each_kind_has_its_words_in_both_places(templates, kind, first, second):
    made = templates.draw(kind, 300)
    assert {words[1] for words in made.sentences} == first and {words[3] for words in made.sentences} == second
    assert all((words[0], words[2], words[4]) == ("The", "is", ".") and words[1] != words[3] for words in made.sentences)
    assert made.places[:4] == ((0, 1), (0, 3), (1, 1), (1, 3)) and len(made.places) == 600
    assert made.labels.tolist() == [0, 1] * 300
    assert made.sentences == templates.draw(kind, 300).sentences
    assert made.sentences != RoleTemplates(NOUNS, ADJECTIVES, each=3, new=4, seed=2).draw(kind, 300).sentences


def test_labels_go_by_the_place_in_any_template():
    made = RoleTemplates(NOUNS, ADJECTIVES, template="a {adj} {noun} came", each=1).draw("head", 2)
    assert made.sentences == (("a", "a0", "n0", "came"),) * 2
    assert made.places == ((0, 2), (0, 1), (1, 2), (1, 1)) and made.labels.tolist() == [0, 1, 0, 1]


def test_frequent_and_rare_words_never_overlap():
    assert RoleTemplates(NOUNS, ADJECTIVES).each == 4  # half of 8
    many = tuple(map(str, range(4000)))
    assert RoleTemplates(many, many).each == 1500 and len(RoleTemplates(many, many).new) == 1500


def test_places_of_tagged_words():
    sentences = [
        TaggedSentence("1", ("It", "rains"), ("PRON", "VERB")),
        TaggedSentence("2", ("Cold", "rain"), ("ADJ", "NOUN")),
    ]
    places, labels = role_places(sentences)
    assert places == [(1, 0), (1, 1)] and torch.equal(labels, torch.tensor([1, 0]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"adjectives": ("red",)}, "at least 2 nouns and 2 adjectives are needed, got 10 and 1"),
        ({"each": 5}, "each must be at most 4, half of the shorter list, got 5"),
        ({"each": 0}, "each must be an int >= 1"),
        ({"new": 1}, "new must be an int >= 2"),
        ({"template": "The {noun} is {adj}."}, r"must hold \{noun\} and \{adj\} once each, with spaces around them"),
        ({"template": "{noun} {noun} {adj}"}, "once each"),
    ],
)
def test_what_makes_no_sentences_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        RoleTemplates(**{"nouns": NOUNS, "adjectives": ADJECTIVES, **wrong})


def test_unknown_kinds_are_refused(templates):
    with pytest.raises(ArgumentError, match="did you mean 'head_switch'"):
        templates.draw("head_swich")
    with pytest.raises(ArgumentError, match="count must be an int >= 1"):
        templates.draw("head", 0)
