"""Jester as a linear bandit: the division of users, and what recommending the most popular joke costs."""

import pytest
import torch

from everlearn.agents.arm_rules import Thompson, Ucb
from everlearn.agents.query_policy import replay
from everlearn.data.folders import roots
from everlearn.data.jokes import jokes

pytestmark = pytest.mark.skipif(not any((root / "jester5k").is_dir() for root in roots()), reason="jester5k is not there")


def test_the_most_popular_joke_costs_what_it_should():
    found = jokes()
    assert found.ratings.shape == (473, 100) and found.problem.queries.shape == (100, 9)
    popular = found.problem.offset.argmax().expand(473)
    assert float(found.losses(popular).mean()) == pytest.approx(4.47, abs=0.005)


def play(rule, horizon, seed=0):
    """Mean loss and its standard error over users, who answer with their own ratings."""
    found = jokes(horizon)
    answer = replay(rule, found.problem, found.ratings, torch.Generator().manual_seed(seed))
    loss = found.losses(answer)
    return float(loss.mean()), float(loss.std()) / len(loss) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "figures"), [(Ucb(), (2.25, 2.18, 2.41)), (Thompson(), (3.15, 2.48, 2.37))])
def test_rules_that_play_lose_little(rule, figures):
    """Regret at 5, 10 and 20 ratings, within three standard errors of the difference of two such runs."""
    for horizon, figure in zip((5, 10, 20), figures, strict=True):
        loss, error = play(rule, horizon)
        assert abs(loss - figure) <= 3 * 2**0.5 * error
