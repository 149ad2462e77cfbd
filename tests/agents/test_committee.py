"""Committees: votes by hand, rows counted by Poisson's law, and the bonus of cover."""

import math

import numpy
import pytest
import torch

from everlearn.agents.committee import POISSON, Bag, Cover, Lesson, even, shares
from everlearn.agents.oracles import Ridge
from everlearn.core.errors import ArgumentError

VOTES = torch.tensor([[[0.1, 0.9, 0.5]], [[0.2, 0.2, 0.1]], [[0.0, 0.1, 0.4]], [[0.3, 0.1, 0.2]]], dtype=torch.float64)
SCORES = torch.zeros(1, 3, dtype=torch.float64)


def lesson(place, action=0, reward=1.0, propensity=0.5, learned=9):
    return Lesson(
        str(place), numpy.array([1.0]), numpy.array([True, True, True]), action, reward, propensity, numpy.zeros(3), learned
    )


def test_votes_by_hand():
    assert Bag(4).probabilities(SCORES, votes=VOTES).tolist() == [[0.5, 0.25, 0.25]]
    offered = torch.tensor([[False, True, True]])
    assert Bag(4).probabilities(SCORES, offered, votes=VOTES).tolist() == [[0.0, 0.5, 0.5]]
    least = 1.0 / math.sqrt(3 * 48)  # t = 48: 1 / 12
    found = Cover(4).probabilities(SCORES, learned=48, votes=VOTES)[0].tolist()
    assert found == pytest.approx([least + (1 - 3 * least) * share for share in (0.5, 0.25, 0.25)])
    assert Cover(4).probabilities(SCORES, learned=0, votes=VOTES)[0].tolist() == pytest.approx([1 / 3] * 3)
    assert shares(VOTES.numpy().transpose(0, 2, 1), numpy.ones((3, 1), bool)).ravel().tolist() == [0.5, 0.25, 0.25]
    assert even(numpy.array([2.0]), 8).tolist() == [0.25]


def test_members_of_a_bag_count_rows_by_poissons_law_whatever_the_order():
    """The Gram matrix of one constant column is 1 + (rows counted) / penalty, so its inverse tells how often a row was counted."""
    counted = numpy.zeros((400, 5))
    for place in range(400):
        committee = [Ridge().start(3, 0) for _ in range(5)]
        Bag(5).teach(committee, lesson(place), seed=1)
        for number, member in enumerate(committee):
            if len(member.theta[0]):
                inverse = float(member.inverse[0, 0, 0])
                counted[place, number] = round(1.0 / inverse - 1.0) if inverse < 1 else 0
                counted[place, number] = round((1.0 - inverse) / (2.0 * inverse - 1.0))
    share = [(counted == times).mean() for times in range(3)]
    law = numpy.diff([0.0, *POISSON[:3]])
    assert law == pytest.approx([math.exp(-1), math.exp(-1), math.exp(-1) / 2])
    margins = 5 * numpy.sqrt(law * (1 - law) / 2000)
    assert (numpy.abs(share - law) < margins).all()


def test_cover_pays_later_members_for_what_the_first_do_not_choose():
    """Rewards by importance: 1 / .5 = 2 for the action taken, 0 for the others; the bonus psi eps / p is least where the first voted."""
    committee = [Ridge(1e-9).start(3, 0) for _ in range(2)]
    cover = Cover(2, psi=1.0)
    cover.teach(committee, lesson(0, action=1, learned=12), seed=0)
    first, second = (member.scores(numpy.array([[1.0]]))[:, 0] for member in committee)
    least = 1.0 / 6.0  # 1 / sqrt(3 * 12)
    numpy.testing.assert_allclose(first, [0.0, 2.0, 0.0], atol=1e-6)
    voted = least + (1 - 3 * least) * 1.0  # the untaught first member leads with action 0
    numpy.testing.assert_allclose(second, [least / voted, 2.0 + 1.0, 1.0], atol=1e-6)
    flat = [Ridge(1e-9).start(3, 0) for _ in range(2)]
    Cover(2, psi=0.0).teach(flat, lesson(0, action=1, learned=12), seed=0)
    numpy.testing.assert_allclose(flat[1].scores(numpy.array([[1.0]]))[:, 0], first, atol=1e-12)


def test_arguments():
    with pytest.raises(ArgumentError, match="bag: members must be an int >= 1"):
        Bag(0)
    with pytest.raises(ArgumentError, match="cover: psi must be a number >= 0"):
        Cover(2, psi=-1.0)
