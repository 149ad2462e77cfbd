"""The agent that chooses uniformly at random and learns nothing but counts: the control beside every other agent.

    P(action) = 1 / actions

Its choice is a function of (seed, key), so asking twice gives the same answer; its propensities are exact, so its log is the one
from which any other policy can be judged off-policy. Reference: Li et al. (2011), arXiv 1003.5956.
"""

import math

import torch

from everlearn.core.agent import Agent, Decision
from everlearn.core.errors import InputError, check_count
from everlearn.core.events import Feedback, Metrics, X
from everlearn.core.random import derive


class Uniform(Agent):
    """Chooses among `actions` with equal probability; counts how often each was taken and what it gave.

    actions: the number of actions, named 0..actions-1. State: pulls (actions,) int64, rewards (actions,) float64 sums.

    >>> import torch
    >>> from everlearn import Feedback
    >>> agent = Uniform(actions=4, seed=1)
    >>> decision = agent.act(torch.zeros(1, 3), key=7)
    >>> decision == agent.act(torch.zeros(1, 3), key=7), decision.propensity
    (True, 0.25)
    >>> metrics = agent.update(Feedback("7", torch.zeros(1, 3), decision.action, decision.propensity, reward=1.0))
    >>> int(agent.pulls.sum()), float(agent.rewards.sum())
    (1, 1.0)
    """

    name = "uniform"
    parts = ("pulls", "rewards")

    def __init__(self, actions: int = 2, *, seed: int = 0):
        check_count(self.name, "actions", actions)
        self.actions = actions
        self.seed = seed
        self.pulls = torch.zeros(actions, dtype=torch.int64)
        self.rewards = torch.zeros(actions, dtype=torch.float64)

    def act(self, observation: X, key: int) -> Decision:
        """An action drawn from (seed, key); the observation plays no part."""
        return Decision(derive(self.seed, self.name, key) % self.actions, 1.0 / self.actions)

    def update(self, feedback: Feedback) -> Metrics:
        """Count one consequence. Raises InputError, with nothing changed, where it cannot be one of this agent's decisions."""
        self._check(feedback)
        self.pulls[feedback.action] += 1
        self.rewards[feedback.action] += feedback.reward
        return {"reward": float(feedback.reward)}

    def _check(self, feedback: Feedback) -> None:
        if not isinstance(feedback, Feedback):
            raise InputError(f"uniform: update takes a Feedback, got {type(feedback).__name__}.")
        action, propensity, reward = feedback.action, feedback.propensity, feedback.reward
        if not isinstance(action, int) or isinstance(action, bool) or not 0 <= action < self.actions:
            raise InputError(f"uniform: action must be an int in 0..{self.actions - 1}, got {action!r}.")
        if propensity is not None and not (_number(propensity) and 0.0 < propensity <= 1.0):
            raise InputError(f"uniform: propensity must be None or a number above 0 and at most 1, got {propensity!r}.")
        if not (_number(reward) and math.isfinite(reward)):
            raise InputError(f"uniform: reward must be a finite number, got {reward!r}.")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
