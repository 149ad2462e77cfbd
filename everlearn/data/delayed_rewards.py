"""Rewards that come later than the decisions they are for, joined by id: late, twice, out of order, or never.

    a decision (id, time)  +  a reward (id, time')  ->  a row of the log, where time' - time <= ttl

A decision without a reward is *unknown* and no row of the log: to count it as a failure would bias every estimate, and most of all
those of the actions that are answered slowest. The log stands in the order of the decisions, so it does not depend on the order in
which rewards came. Reference: Joulani, György & Szepesvári (2013), arXiv 1306.0686.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from everlearn.core.errors import DataError, check_range
from everlearn.data.decision_log import DecisionLog

STATES = ("joined", "late", "twice", "unknown")


@dataclass(frozen=True)
class Open:
    """One decision as it was made: x (d,), offered (actions,), and what the log keeps of it."""

    x: Tensor
    offered: Tensor
    action: int
    propensity: float
    time: float
    generation: int = 0
    probabilities: tuple[float, ...] | None = None


class DelayedRewards:
    """Decisions that wait for their rewards. counts: how many rewards were joined, late, twice, unknown, and decisions expired.

    ttl: how long a decision waits, in the unit of the times.

    >>> import torch
    >>> waiting = DelayedRewards(ttl=10.0)
    >>> waiting.decide("a", Open(torch.zeros(1), torch.ones(2, dtype=torch.bool), action=1, propensity=0.5, time=0.0))
    >>> waiting.reward("a", 1.0, time=3.0), waiting.reward("a", 1.0, time=4.0), waiting.reward("b", 1.0, time=4.0)
    ('joined', 'twice', 'unknown')
    >>> len(waiting.log())
    1
    """

    def __init__(self, ttl: float = math.inf):
        check_range("delayed_rewards", "ttl", ttl, 0.0)
        self.ttl = ttl
        self.counts: Counter[str] = Counter(dict.fromkeys((*STATES, "expired"), 0))
        self._decisions: dict[str, Open] = {}
        self._rewards: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._decisions) - len(self._rewards)

    def decide(self, id: str, decision: Open) -> None:
        """Keep a decision. Raises DataError where the id stands for an earlier one."""
        if id in self._decisions:
            raise DataError(f"delayed_rewards: the decision {id!r} was made before; an id names one decision.")
        self._decisions[id] = decision

    def reward(self, id: str, reward: float, time: float) -> str:
        """Join a reward: "joined", "twice" (the same again, no effect), "late" (past ttl, dropped), "unknown" (no such decision).

        Raises DataError, with nothing changed, where the reward is not finite or another than the one that was joined.
        """
        if not math.isfinite(reward):
            raise DataError(f"delayed_rewards: the reward of {id!r} is {reward}; it must be a finite number.")
        decision = self._decisions.get(id)
        if decision is None:
            found = "unknown"
        elif id in self._rewards:
            if self._rewards[id] != reward:
                raise DataError(f"delayed_rewards: {id!r} has the reward {self._rewards[id]:g} already, got {reward:g}.")
            found = "twice"
        elif time - decision.time > self.ttl:
            found = "late"
        else:
            found = "joined"
            self._rewards[id] = float(reward)
        self.counts[found] += 1
        return found

    def expire(self, now: float) -> int:
        """Forget decisions that have waited longer than ttl; how many. Rewards that come for them are unknown from then on."""
        old = [id for id, item in self._decisions.items() if id not in self._rewards and now - item.time > self.ttl]
        for id in old:
            del self._decisions[id]
        self.counts["expired"] += len(old)
        return len(old)

    def log(self) -> DecisionLog:
        """The rows that are known, in the order of (time of the decision, id). Raises DataError where there are none yet."""
        order = sorted(self._rewards, key=lambda id: (self._decisions[id].time, id))
        if not order:
            raise DataError("delayed_rewards: no reward has been joined yet, so there is no log.")
        items = [self._decisions[id] for id in order]
        told = [item.probabilities for item in items]
        return DecisionLog.of(
            torch.stack([item.x for item in items]),
            offered=torch.stack([item.offered for item in items]),
            action=torch.tensor([item.action for item in items]),
            propensity=torch.tensor([item.propensity for item in items], dtype=torch.float64),
            reward=torch.tensor([self._rewards[id] for id in order], dtype=torch.float64),
            id=tuple(order),
            generation=torch.tensor([item.generation for item in items]),
            time=torch.tensor([item.time for item in items], dtype=torch.float64),
            probabilities=None if None in told else torch.tensor(told, dtype=torch.float64),
        )
