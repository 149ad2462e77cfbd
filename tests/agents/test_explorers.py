"""Explorers: numbers worked out by hand, properties that hold for any scores, and refusals that name the row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.agents.explorers import EXPLORERS, EpsilonGreedy, Greedy, Softmax, Uniformly
from everlearn.agents.gap_weighting import FastCB, SquareCB, SquareCBExact
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.spec import build, parse
from everlearn.measure.policy_generation import effective_actions


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def near(found, *row, error=1e-8):
    """Whether what was found is one row of these numbers."""
    return found.shape == (1, len(row)) and torch.allclose(found, table(row), rtol=0.0, atol=error)


def test_plain_rules_by_hand():
    scores, offered = table([0.9, 0.95, 0.5]), torch.tensor([[True, False, True]])
    assert near(Uniformly().probabilities(scores, offered), 0.5, 0.0, 0.5)
    assert near(Greedy().probabilities(scores, offered), 1.0, 0.0, 0.0)
    assert near(EpsilonGreedy(0.1).probabilities(scores, offered), 0.95, 0.0, 0.05)
    assert near(Softmax(0.1).probabilities(table([0.9, 0.8])), 0.73105858, 0.26894142)
    assert near(Greedy().probabilities(table([0.5, 0.7, 0.7])), 0.0, 1.0, 0.0)  # the lowest number among equals


def test_effective_actions_is_the_exponential_of_the_entropy():
    assert float(effective_actions(SquareCB(gamma=20.0).probabilities(table([0.9, 0.8, 0.5])))) == pytest.approx(
        2.189435, abs=1e-6
    )
    assert effective_actions(table([0.25] * 4, [1.0, 0.0, 0.0, 0.0])).tolist() == pytest.approx([4.0, 1.0])


def test_the_floor_is_a_least_probability_and_no_mixture():
    """k = 3, floor .3: .1 at least. Only the second action lies below, so the others keep their ratio: .9 / (.96) of each."""
    greedy = Greedy(floor=0.3).probabilities(table([0.9, 0.8, 0.5]))
    assert near(greedy, 0.8, 0.1, 0.1)
    plain = SquareCB(gamma=60.0).probabilities(table([0.9, 0.8, 0.88]))  # 1/9 and 1/4.2 beside the leader
    lifted = SquareCB(gamma=60.0, floor=0.36).probabilities(table([0.9, 0.8, 0.88]))
    rest = (1 - 0.12) / float(plain[0, 0] + plain[0, 2])
    assert near(lifted, float(plain[0, 0]) * rest, 0.12, float(plain[0, 2]) * rest)
    assert near(SquareCB(gamma=1e6, floor=1.0).probabilities(table([0.9, 0.8])), 0.5, 0.5)


def test_the_uniform_share_is_a_mixture():
    assert near(Greedy(share=0.3).probabilities(table([0.9, 0.8, 0.5])), 0.8, 0.1, 0.1)
    assert EpsilonGreedy(0.2, share=0.1).uniform_part == pytest.approx(0.28)
    assert (Uniformly().uniform_part, Greedy(floor=0.2, share=0.1).uniform_part, Greedy().uniform_part) == (1.0, 0.2, 0.0)


RULES = {
    "squarecb": SquareCB(gamma=30.0),
    "squarecb_exact": SquareCBExact(gamma=30.0),
    "fastcb": FastCB(gamma=30.0),
    "softmax": Softmax(0.1),
    "epsilon_greedy": EpsilonGreedy(0.1),
    "floored": SquareCB(gamma=1000.0, floor=0.2),
    "shared": SquareCB(gamma=1000.0, share=0.2),
    "even": SquareCB(effective_actions=2.0),
}
LEADS = ("squarecb", "squarecb_exact", "fastcb", "shared")


@pytest.mark.parametrize("name", RULES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_what_holds_for_any_scores(name, data):
    """Rows sum to 1, nothing off the mask, rising in the score, the leader has 1 / k at least, and numbers of actions mean nothing."""
    actions = data.draw(st.integers(1, 6))
    grid = st.integers(0, 40).map(lambda value: value / 40)
    scores = table(data.draw(st.lists(grid, min_size=actions, max_size=actions, unique=True)))
    mask = data.draw(st.lists(st.booleans(), min_size=actions, max_size=actions))
    offered = torch.tensor([mask]) | (torch.arange(actions) == data.draw(st.integers(0, actions - 1)))
    rule = RULES[name]
    found = rule.probabilities(scores, offered)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)
    assert (found[~offered] == 0.0).all() and (found[offered] >= 0.0).all()
    allowed = offered[0].nonzero().flatten()
    order = scores[0, allowed].argsort()
    assert (found[0, allowed[order]].diff() >= -1e-12).all()
    leader = allowed[order[-1]]
    if name in LEADS:
        assert float(found[0, leader]) >= 1.0 / len(allowed) - 1e-12
    turned = torch.arange(actions).flip(0)
    torch.testing.assert_close(
        rule.probabilities(scores[:, turned], offered[:, turned]), found[:, turned], rtol=0, atol=1e-12
    )
    if name != "fastcb":  # it reads the losses themselves, not only their gaps
        moved = rule.probabilities(scores + 3.0, offered)
        torch.testing.assert_close(moved, found, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_each_row_is_told_apart(name):
    scores = torch.rand(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rule = SquareCB(gamma=5.0) if name == "even" else RULES[name]  # "even" sets one sharpness for all rows
    alone = torch.cat([rule.probabilities(row[None]) for row in scores])
    assert torch.equal(rule.probabilities(scores), alone)


def test_scores_of_half_the_precision_give_sound_probabilities():
    """Gaps that float32 cannot tell from 0, and masses that it would round below 1 / k or below 0."""
    scores = torch.tensor([[0.1, 0.1 + 1e-9, 0.1]] * 2, dtype=torch.float32)
    for gamma in (0.0, 1e3, 1e12):
        found = SquareCB(gamma=gamma).probabilities(scores)
        assert found.dtype == torch.float64 and (found >= 0).all() and (found[:, 0] >= 1 / 3).all()
        torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-15)


def test_refusals_name_the_rows_and_what_is_allowed():
    scores = table([0.1, 0.2], [0.3, float("nan")], [0.1, float("inf")])
    with pytest.raises(InputError, match="squarecb: scores are NaN or infinite in rows 1, 2; every score must be finite"):
        SquareCB().probabilities(scores)
    found = SquareCB(gamma=0.0).probabilities(scores, torch.tensor([[True, True], [True, False], [True, False]]))
    assert near(found[1:2], 1.0, 0.0)  # what is not on offer plays no part
    with pytest.raises(InputError, match=r"greedy: no action is on offer in row 1; each row needs 1\.\.2"):
        Greedy().probabilities(scores[:2].nan_to_num(), torch.tensor([[True, False], [False, False]]))
    with pytest.raises(InputError, match="offered must be a bool tensor of shape"):
        Greedy().probabilities(scores, torch.ones(3, 2))
    with pytest.raises(InputError, match=r"scores must be a float tensor \(rows, actions\), got"):
        Greedy().probabilities(torch.zeros(3))
    with pytest.raises(ArgumentError, match=r"squarecb: gamma must be a number >= 0, got -1\.0"):
        SquareCB(gamma=-1.0)
    with pytest.raises(ArgumentError, match="epsilon must be a number between 0 and 1"):
        EpsilonGreedy(1.5)
    with pytest.raises(ArgumentError, match="temperature must be above 0"):
        Softmax(0.0)
    with pytest.raises(ArgumentError, match="floor must be a number between 0 and 1"):
        Greedy(floor=2.0)


def test_they_are_named_by_call_strings():
    for text in (
        "squarecb(gamma=20.0)",
        "squarecb(scale=10.0, floor=0.1)",
        "epsilon_greedy(epsilon=0.2)",
        "uniformly()",
        "lints()",
    ):
        assert repr(build(parse(text), EXPLORERS)) == text
