"""Payments as an environment: Gymnasium's own check, the batched form as its twin, periods that drift, and rewards that come late."""

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.envs.payment_world import payment_world

pytest.importorskip("gymnasium", reason="the extra rl is not installed")
from everlearn.envs.payments import PaymentAuthorisation


@pytest.mark.filterwarnings("ignore:.*infinity")  # amounts have no bound
def test_gymnasium_accepts_it():
    from gymnasium.utils.env_checker import check_env

    check_env(PaymentAuthorisation(period=20, delay=0.5), skip_render_check=True)


def episode(env, choose):
    observation, info = env.reset()
    seen, over = [], False
    while not over:
        action = choose(info["action_mask"])
        before = observation, info["action_mask"], info["id"], action
        observation, reward, terminated, over, info = env.step(action)
        assert not terminated
        seen.append((*before, reward, info["pending"], info["refused"]))
    return seen


def test_steps_are_the_rows_of_the_batched_world_and_episodes_its_periods():
    env, world = PaymentAuthorisation(period=30, seed=5), payment_world(seed=5)
    for generation in range(2):
        seen = episode(env, lambda mask: int(mask.nonzero()[0][-1]))
        payments = world.payments(30)
        assert numpy.array_equal(numpy.stack([row[0] for row in seen]), payments.x.numpy())
        assert numpy.array_equal(numpy.stack([row[1] for row in seen]).astype(bool), payments.offered.numpy())
        assert [row[2] for row in seen] == [f"{generation}/{place}" for place in range(30)]
        action = torch.tensor([row[3] for row in seen])
        assert [row[4] for row in seen] == payments.rewards(action).tolist()
        world = world.drifted()


def test_late_rewards_arrive_with_the_next_period_by_their_ids_and_lose_nothing():
    env, twin = PaymentAuthorisation(period=200, delay=0.3, seed=5), PaymentAuthorisation(period=200, seed=5)
    seen, sure = episode(env, lambda mask: 0), episode(twin, lambda mask: 0)
    arrived = env.reset()[1]["arrived"]
    late = {row[2] for row in seen if row[5]}
    assert set(arrived) == late and 30 < len(late) < 90  # 60 expected, deviation 6.5
    for row, known in zip(seen, sure, strict=True):
        assert (arrived[row[2]] if row[5] else row[4]) == known[4]
    assert env.reset(seed=5)[1]["arrived"] == {} and env.reset()[1]["generation"] == 1


def test_what_is_not_offered_is_refused_and_declined():
    env = PaymentAuthorisation(period=50, seed=5)
    seen = episode(env, lambda mask: int(mask.argmin()))
    assert all(row[4] == 0.0 and row[6] for row in seen if not row[1].all())


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="delay must be a number between 0 and 1"):
        PaymentAuthorisation(delay=1.5)
