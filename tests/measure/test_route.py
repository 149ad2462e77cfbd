"""By which route a model answers: models that take one route by construction, unseen rows drawn anew, and nothing changed."""

import math

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.data.role_sentences import RoleSentences
from everlearn.data.roles import ASKED, RoleStream
from everlearn.data.tagged_sentences import TaggedSentence
from everlearn.measure.route import preference, route
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Normal

STREAM = RoleStream(vocabulary=400, seed=1)


class Route(nn.Module):
    """Answers by the rule it is given, from tokens (adjective, noun, query) of the context."""

    def __init__(self, rule, whole=True):
        super().__init__()
        self.rule, self.whole = rule, whole
        self.table = nn.Parameter(torch.zeros(STREAM.size, 1))

    def forward(self, x):
        rows = torch.arange(len(x))
        place = (x[:, :3] == STREAM.copula).int().argmax(1)
        adjective, noun = x[rows, place + 1], torch.where(place == 0, x[:, 2], x[:, 0])
        first, query = self.rule(self, adjective, noun, x[:, 3]), x[:, 3]
        asked = torch.stack([first, query, query], 1)
        scores = nn.functional.one_hot(asked, STREAM.size).float()
        if not self.whole:
            return scores
        return torch.cat([torch.rand(len(x), 4, STREAM.size), scores], 1)


def from_context(model, adjective, noun, query):
    return adjective


def from_weights(model, adjective, noun, query):
    """The one of both that is an adjective by identity."""
    return torch.where((adjective >= 200) & (adjective < 400), adjective, noun)


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_that_reads_the_context_answers_all_by_it(whole):
    report = route(Route(from_context, whole), STREAM, count=300, bias=None)
    assert (report.val, report.head, report.tail, report.unseen) == (1.0, 1.0, 1.0, 1.0)
    assert (report.icl, report.icl_head, report.icl_tail) == (1.0, 1.0, 1.0)
    assert (report.iwl, report.iwl_head, report.iwl_tail) == (0.0, 0.0, 0.0) and report.preference == 1.0


def test_a_model_that_knows_tokens_answers_switched_ones_by_identity():
    report = route(Route(from_weights), STREAM, count=300, bias=None)
    assert (report.icl, report.icl_head, report.icl_tail) == (0.0, 0.0, 0.0)
    assert (report.iwl, report.iwl_head, report.iwl_tail) == (1.0, 1.0, 1.0) and report.preference == 0.0
    assert report.head == report.tail == 1.0 and report.unseen < 0.1
    assert 0.8 < report.val < 1.0  # ambiguous tokens take the other role


def test_one_wrong_position_makes_a_sequence_wrong():
    class Half(Route):
        def forward(self, x):
            scores = super().forward(x)
            scores[::2, 6] = 0.0
            scores[::2, 6, STREAM.mask] = 1.0
            return scores

    assert route(Half(from_context), STREAM, count=300, bias=None).icl == pytest.approx(0.5)


def test_unseen_rows_are_drawn_anew_and_the_model_is_left_as_it_was():
    model = TinyEncoder(STREAM.size, dim=16, heads=2, inner=16, answers=ASKED, seed=0)
    with torch.no_grad():
        model.table[STREAM.ids("unseen")] = 0.0  # such rows win no softmax
        model.bias[STREAM.ids("unseen")] = -100.0
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (route(model, STREAM, count=400, seed=3) for _ in range(2))
    assert first == again and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert route(model, STREAM, count=400, fresh=False).unseen == 0.0

    seen = {}

    def look(module, inputs):
        assert not module.training
        held = STREAM.ids("unseen")
        if torch.isin(inputs[0], held).any():
            seen["table"], seen["bias"] = module.table.detach().clone(), module.bias.detach().clone()
        else:
            assert torch.equal(module.table, before["table"])

    model.register_forward_pre_hook(look)
    route(model, STREAM, count=400, init=Normal(3.0), seed=3)
    held = STREAM.ids("unseen")
    assert float(seen["table"][held].std()) == pytest.approx(3.0, rel=0.1) and not seen["bias"][held].any()
    assert torch.equal(seen["table"][:402], before["table"][:402]) and torch.equal(seen["bias"][:402], before["bias"][:402])
    model.std, drawn = 0.02, []  # of the model's own start
    for seed in (3, 3, 4):
        route(model, STREAM, count=400, seed=seed)
        drawn.append(seen["table"][held])
    assert float(drawn[0].std()) == pytest.approx(0.02, rel=0.1)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def sentences():
    """Real sentences in the small: 40 nouns and 40 adjectives, both after "the", the adjective before another word."""
    pairs = [(f"n{rank:02}", f"a{rank:02}") for rank in range(40)]
    made = [
        TaggedSentence("1", ("the", adjective, noun, "rained"), ("DET", "ADJ", "NOUN", "VERB")) for noun, adjective in pairs
    ]
    return RoleSentences(made, made, beside=2, window=1, unseen=5)


class Tagger(nn.Module):
    """Tells the tag by the word before the identifier, or by what the identifier is."""

    def __init__(self, stream, by_context):
        super().__init__()
        self.stream, self.by_context = stream, by_context
        self.table = nn.Parameter(torch.zeros(stream.size, 1))

    def forward(self, x):
        adjective = x[:, 0] == self.stream.beside["the"] if self.by_context else torch.isin(x[:, 1], self.adjectives())
        return nn.functional.one_hot(adjective.long(), 2)[:, None].float()

    def adjectives(self):
        return self.stream.ids("adjectives")


def test_the_route_of_taggers_of_real_sentences():
    stream = sentences()
    report = route(Tagger(stream, True), stream, count=400, bias=None)
    assert (report.val, report.head, report.tail, report.unseen) == (1.0, 1.0, 1.0, 1.0)
    assert (report.icl, report.icl_head, report.icl_tail, report.iwl, report.iwl_head, report.iwl_tail) == (1, 1, 1, 0, 0, 0)
    report = route(Tagger(stream, False), stream, count=400, bias=None)
    assert (report.icl, report.icl_head, report.icl_tail, report.iwl, report.iwl_head, report.iwl_tail) == (0, 0, 0, 1, 1, 1)
    assert report.head == report.tail == 1.0 and report.preference == 0.0
    assert report.unseen == pytest.approx(0.5, abs=5 * 0.5 / 20)  # all of them are told to be nouns


def test_new_rows_are_those_of_identifiers_never_shown():
    stream = sentences()
    model = TinyEncoder(stream.size, dim=8, heads=2, inner=8, length=3, answers=stream.asked, tags=2)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(module.table.detach().clone()))
    route(model, stream, count=50, bias=None)
    changed = (seen[-1] != seen[0]).any(1).nonzero().flatten()
    assert changed.tolist() == stream.ids("unseen").tolist()


def test_a_preference_needs_answers():
    assert preference(0.2, 0.6) == pytest.approx(0.25) and math.isnan(preference(0.04, 0.04))
    assert preference(0.05, 0.0) == 1.0


def test_unknown_names_are_refused():
    with pytest.raises(ArgumentError, match="no parameter 'embedding'; it has table"):
        route(Route(from_context), STREAM, table="embedding", bias=None)
    with pytest.raises(ArgumentError, match="no parameter 'bias'"):
        route(Route(from_context), STREAM)
