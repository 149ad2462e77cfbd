"""Card payments as a Gymnasium environment: one step is one payment, one episode one period, after which the world drifts.

    env = PaymentAuthorisation(seed=0)
    observation, info = env.reset()                      info["action_mask"]: what this payment may have
    observation, reward, _, over, info = env.step(0)     reward 1: approved; over: the period ends

With `delay` a reward comes, with that probability, one period late: its step gives 0 and `info["pending"]`, and the next `reset`
brings it in `info["arrived"]` by the id of its payment. Never count what is pending as declined.
Reference: Vangara & Egg (2024), arXiv 2412.00569; `payment_world` has the equations.
"""

from typing import Any

import numpy
import torch

from everlearn.core.errors import check_count, check_range, optional
from everlearn.core.random import generator
from everlearn.envs.payment_world import ACTIONS, payment_world

gymnasium = optional("gymnasium", "rl", "an environment")


class PaymentAuthorisation(gymnasium.Env):
    """Choose a treatment for each payment so that the issuer approves it.

    delay: the probability that a reward comes one period late; period: payments in an episode. An action outside the mask declines the
    payment, and `info["refused"]` says so. `reset()` goes on with the next period of the same world, `reset(seed=...)` begins another.

    >>> env = PaymentAuthorisation(period=2, seed=3)
    >>> observation, info = env.reset()
    >>> observation.shape, info["id"], int(info["action_mask"][0])
    ((23,), '0/0', 1)
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        issuers: int = 12,
        merchants: int = 8,
        drift: float = 0.1,
        *,
        delay: float = 0.0,
        period: int = 3000,
        seed: int = 0,
    ):
        check_range("payments", "delay", delay, 0.0, 1.0)
        check_count("payments", "period", period)
        self.issuers, self.merchants, self.drift = issuers, merchants, drift
        self.delay, self.period = delay, period
        self._begin(seed)
        self.observation_space = gymnasium.spaces.Box(-numpy.inf, numpy.inf, (self.world.width,), numpy.float32)
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[numpy.ndarray, dict[str, Any]]:
        """The first payment of the next period, or of another world's first period where a seed is given."""
        super().reset(seed=seed)
        if seed is not None:
            self._begin(seed)
        elif self.place is not None:
            self.world = self.world.drifted()
            self._fill()
        self.place = 0
        arrived, self.pending = self.pending, {}
        return self._observation(), self._info() | {"arrived": arrived}

    def step(self, action: int) -> tuple[numpy.ndarray, float, bool, bool, dict[str, Any]]:
        """Treat the payment; the next one, the reward, never terminated, whether the period is over, and what goes with the next."""
        row, told = self.place, {"pending": False, "refused": False}
        if not self.payments.offered[row, int(action)]:
            reward, told["refused"] = 0.0, True
        else:
            reward = float(self.payments.luck[row] < self.payments.chances[row, int(action)])
            if self.late[row]:
                self.pending[self._id()] = reward
                reward, told["pending"] = 0.0, True
        self.place = row + 1
        over = self.place >= self.period
        self.place = min(self.place, self.period - 1)  # what is seen behind the last payment is that payment again
        return self._observation(), reward, False, over, self._info() | told

    def _begin(self, seed: int) -> None:
        self.world = payment_world(self.issuers, self.merchants, drift=self.drift, seed=seed)
        self.pending: dict[str, float] = {}  # by id
        self.place: int | None = None
        self._fill()

    def _fill(self) -> None:
        self.payments = self.world.payments(self.period)
        random = generator(self.world.seed, "late", self.world.generation)
        self.late = (torch.rand(self.period, generator=random) < self.delay).tolist()

    def _observation(self) -> numpy.ndarray:
        return self.payments.x[self.place].numpy().copy()

    def _info(self) -> dict[str, Any]:
        mask = self.payments.offered[self.place].numpy().astype(numpy.int8)
        return {"action_mask": mask, "id": self._id(), "generation": self.world.generation}

    def _id(self) -> str:
        return f"{self.world.generation}/{self.place}"
