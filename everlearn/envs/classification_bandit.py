"""Any labelled table as a Gymnasium bandit: one step is one row, the reward is 1 where the action is its class.

    env = ClassificationBandit("letter", seed=0)         26 actions, 20,000 rows, each once
    env = ClassificationBandit((x, y))

Reference: Bietti, Agarwal & Langford (2021), A contextual bandit bake-off, JMLR, arXiv 1802.04064.
"""

from typing import Any

import numpy
from torch import Tensor

from everlearn.core.errors import optional
from everlearn.data.classification_rounds import rounds
from everlearn.data.dataset import Data
from everlearn.data.load import load

gymnasium = optional("gymnasium", "rl", "an environment")


class ClassificationBandit(gymnasium.Env):
    """Name the class of each row; only whether it was right is told.

    data: a name that `load` knows, labelled rows, or (x, y); limit: rows at most; the order is drawn from `seed`. An episode is one pass;
    `reset()` gives the same order again, `reset(seed=...)` another.

    >>> env = ClassificationBandit("digits", limit=3)
    >>> observation, info = env.reset()
    >>> observation.shape, int(env.action_space.n), int(info["action_mask"].sum())
    ((64,), 10, 10)
    """

    metadata = {"render_modes": []}

    def __init__(self, data: Data | str | tuple[Tensor, Tensor] = "digits", *, limit: int | None = None, seed: int = 0):
        self.data, self.limit = load(data) if isinstance(data, str) else data, limit
        self._begin(seed)
        actions = int(data[1].max()) + 1 if isinstance(data, tuple) else len(self.data.classes)
        low, high = float(self.x.min()), float(self.x.max())
        self.observation_space = gymnasium.spaces.Box(low, high, self.x.shape[1:], numpy.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[numpy.ndarray, dict[str, Any]]:
        """The first row."""
        super().reset(seed=seed)
        if seed is not None:
            self._begin(seed)
        self.place = 0
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[numpy.ndarray, float, bool, bool, dict[str, Any]]:
        """The next row, the reward, whether the pass is over, never truncated, and what goes with the next row."""
        reward = float(int(action) == self.y[self.place])
        self.place += 1
        over = self.place >= len(self.y)
        self.place = min(self.place, len(self.y) - 1)  # what is seen behind the last row is that row again
        return self._observation(), reward, over, False, self._info()

    def _begin(self, seed: int) -> None:
        self.x, self.y = rounds(self.data, limit=self.limit, seed=seed)
        self.place = 0

    def _observation(self) -> numpy.ndarray:
        return self.x[self.place].numpy().copy()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": numpy.ones(self.action_space.n, numpy.int8), "id": str(self.place)}
