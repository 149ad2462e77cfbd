"""A labelled table as an environment: Gymnasium's own check, each row once, the reward of the class."""

import pytest
import torch

from everlearn.data.classification_rounds import rounds

pytest.importorskip("gymnasium", reason="the extra rl is not installed")
from everlearn.envs.classification_bandit import ClassificationBandit


def test_gymnasium_accepts_it():
    from gymnasium.utils.env_checker import check_env

    check_env(ClassificationBandit("digits", limit=30), skip_render_check=True)


def test_each_row_comes_once_and_pays_for_its_class():
    x, y = rounds("digits", limit=20, seed=3)
    env = ClassificationBandit("digits", limit=20, seed=3)
    observation, _ = env.reset()
    over, place = False, 0
    while not over:
        assert torch.equal(torch.from_numpy(observation), x[place])
        action = int(y[place]) if place % 2 else (int(y[place]) + 1) % 10
        observation, reward, over, truncated, _ = env.step(action)
        assert reward == place % 2 and not truncated
        place += 1
    assert place == 20 and env.action_space.n == 10
    assert torch.equal(torch.from_numpy(env.reset()[0]), x[0])
    assert not torch.equal(torch.from_numpy(env.reset(seed=4)[0]), x[0])
