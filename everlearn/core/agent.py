"""The contract of everything that learns from the consequences of its own choices.

`act` is pure: its randomness comes from (seed, key), so asking twice gives the same answer and a replayed log gives the same
policy. `update` is the only way in which an agent's state changes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from everlearn.core.events import Feedback, Metrics, X
from everlearn.core.spec import describe
from everlearn.core.state import capture, load


@dataclass(frozen=True)
class Decision:
    """What was chosen, and with which probability (the number to log: off-policy estimates need it).

    probabilities: those of all actions, where there is a list of them; generation: how often the policy had been fitted anew.
    """

    action: Any
    propensity: float | None = None
    probabilities: tuple[float, ...] | None = None
    generation: int | None = None


class Agent(ABC):
    """Chooses, is told what came of it, and learns. `parts` name the attributes that are state.

    needs_boundaries and reference mean what they mean for a learner, and hold for no agent so far.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    needs_boundaries: ClassVar[bool] = False
    reference: ClassVar[bool] = False

    @abstractmethod
    def act(self, observation: X, key: int) -> Decision:
        """Choose for one observation; `key` is the decision's number. Changes nothing."""

    @abstractmethod
    def update(self, feedback: Feedback) -> Metrics:
        """Learn from one consequence; refuse bad input before any state changes."""

    def state_dict(self) -> dict[str, Any]:
        """All state, as a tree of tensors and JSON scalars."""
        return capture(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave. Raises StateError, with nothing changed, where it does not fit."""
        load(self, state)

    def __repr__(self) -> str:
        return describe(self)
