"""Training against an adversary: classes, values, the last stage, controls, and resuming to the same bits."""

import math

import pytest
import torch

from everlearn.agents.query_policy import Policy
from everlearn.agents.query_rules import GeneralizedBinarySearch, Random
from everlearn.agents.query_training import Training, run_training, train_query_policy
from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.state import same
from everlearn.data.query_families import best_arm, thresholds
from everlearn.measure.difficulty import rho_star
from everlearn.measure.worst_case import worst_case

SMALL = {
    "rounds": 1,
    "steps": 3,
    "clone_steps": 3,
    "width": 8,
    "particles": 12,
    "ascent": 2,
    "problems": 6,
    "episodes": 3,
    "clone_batch": 16,
    "value_episodes": 5,
}


def small(difficulties=(12.0,), **settings):
    return train_query_policy(thresholds(5, horizon=5), list(difficulties), **{**SMALL, **settings})


@pytest.mark.slow
def test_every_class_has_its_value_and_the_last_stage_weighs_by_sub_optimality():
    rule = small((6.0, 24.0))
    assert list(rule.values) == [6.0, 24.0] and all(0.0 < value < 5.0 for value in rule.values.values())
    assert [(row["stage"], row["round"]) for row in rule.curve] == [(0, 0), (1, 0), (2, 0)]
    theta, level = rule.archive["theta"], rule.archive["level"]
    assert set(level.tolist()) == {0, 1} and len(theta) == len(rule.archive["loss"])
    problem = rule.problem
    for r, number in ((6.0, 0), (24.0, 1)):
        hardest = max(rho_star(problem.queries, problem.answers, row)[0] for row in theta[level == number])
        assert hardest <= 1.05 * r
    assert list(small().values) == [12.0] and len(small().curve) == 1  # one class: no last stage


def test_weights_follow_running_losses():
    training = make()
    training.loss = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
    base = torch.zeros(3, dtype=torch.float64)
    # softmax(4, 2, 2) = (e^2, 1, 1) / (e^2 + 2)
    peak = math.exp(2.0) / (math.exp(2.0) + 2.0)
    assert training._weights(base).tolist() == pytest.approx([0.7 * peak + 0.1, *([0.35 * (1 - peak) + 0.1] * 2)])
    assert training._weights(torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)).tolist() == pytest.approx([1 / 3] * 3)
    training.adversary = False
    assert training._weights(base).tolist() == pytest.approx([1 / 3] * 3)


def make(levels=(6.0, 12.0), problem=None, **settings):
    from everlearn.agents.query_training import Schedule

    figures = {key: value for key, value in SMALL.items() if key != "width"}
    given = {"trainer": "archive", "adversary": True, "margins": (0.02, 1.0), "seed": 0, "answer": "erm", "network": "mlp"}
    return Training(problem or thresholds(5, horizon=5), list(levels), Schedule(**figures), width=8, **{**given, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["archive", "simultaneous"])
def test_it_goes_on_to_the_same_bits(tmp_path, trainer):
    whole = run_training(make(trainer=trainer))

    class Stopped(Exception):
        pass

    def stop(share, figures):
        if (figures["stage"], figures["round"]) in ((0, 0), (1, 0)):
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            run_training(make(trainer=trainer), tmp_path, stop)
    resumed = run_training(make(trainer=trainer), tmp_path)
    assert same(resumed.result().state_dict(), whole.result().state_dict())
    assert same(resumed.stage_policies()[6.0].state_dict()["weights"], whole.stage_policies()[6.0].state_dict()["weights"])
    with pytest.raises(StateError, match="other arguments"):
        run_training(make(trainer=trainer, seed=1), tmp_path)


def test_progress_rises_to_one():
    seen = []
    small((6.0, 24.0), progress=lambda share, figures: seen.append(share))
    assert seen == sorted(seen) and len(seen) == 3 and seen[-1] == pytest.approx(1.0)


def test_without_an_adversary_the_prior_stays():
    still, attacked = small(adversary=False, rounds=2), small(rounds=2)
    assert len(still.archive["theta"]) == 12 * 2  # twelve a round, and none is added
    assert not same(still.state_dict()["weights"], attacked.state_dict()["weights"])
    again = small(adversary=False, rounds=2, seed=0)
    assert same(again.state_dict(), still.state_dict())


@pytest.mark.slow
def test_seeds_and_ways_to_answer_change_the_policy():
    weights = [small(**given).state_dict()["weights"] for given in ({}, {"seed": 1}, {"entropy": 0.5})]
    assert not same(weights[0], weights[1]) and not same(weights[0], weights[2])
    assert small(answer="head").scores.last.out_features == 5 + 6


def test_arms_can_be_trained():
    problem = best_arm(3, horizon=5, noise="sign")
    rule = train_query_policy(problem, [40.0], network="arms", **SMALL)
    assert rule.archive["theta"].shape[1] == 3 and rule.values[40.0] > 0.0


def test_bad_input_is_refused():
    for given, message in (
        ({"difficulties": (1.0,)}, "smallest difficulty"),
        ({"difficulties": (12.0, 6.0)}, "rise"),
        ({"difficulties": ()}, "at least one"),
        ({"trainer": "both"}, "trainer must be"),
        ({"episodes": 1}, "no baseline"),
        ({"rounds": 0}, "rounds"),
    ):
        with pytest.raises(ArgumentError, match=message):
            small(**given)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_beats_what_it_began_as_where_it_is_worst():
    """Ten thresholds, ten questions, difficulty 12: the attack on the trained policy wins less than that on the cloned rule."""
    problem = thresholds(10, horizon=10)
    rule = train_query_policy(problem, [12.0], rounds=8, steps=40, width=64)
    found = {
        name: worst_case(policy, problem, 12.0, episodes=200).worst
        for name, policy in (
            ("learned", rule),
            ("sgbs", Policy(GeneralizedBinarySearch(), problem)),
            ("random", Policy(Random(), problem)),
        )
    }
    print(found)
    assert found["learned"] < 0.9 * found["sgbs"]
