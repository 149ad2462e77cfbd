"""The agent's contract checks find planted faults, each with the sentence that tells its author what to mend."""

import random
import time
from abc import abstractmethod

import numpy
import pytest
import torch

from everlearn import Agent, Decision, Feedback, check_agent
from everlearn.core.errors import ArgumentError, ContractError, InputError
from everlearn.core.random import derive, generator
from everlearn.core.store import Store

ACTIONS = 3
EPSILON = 0.3


class Greedy(Agent):
    """What all agents here share: the best mean so far, or (EPSILON) any. Abstract, so that each is a final class of its own."""

    parts = ("pulls", "rewards")

    def __init__(self, seed=0):
        self.seed = seed
        self.pulls = torch.zeros(ACTIONS)
        self.rewards = torch.zeros(ACTIONS)
        self.begin()

    @abstractmethod
    def begin(self):
        """Attributes of its own."""

    def best(self):
        return int((self.rewards / self.pulls.clamp(min=1.0)).argmax())

    def chance(self, action):
        return EPSILON / ACTIONS + (1.0 - EPSILON) * (action == self.best())

    def act(self, observation, key):
        draw = generator(self.seed, "act", key)
        explore = float(torch.rand(1, generator=draw)) < EPSILON
        action = int(torch.randint(ACTIONS, (1,), generator=draw)) if explore else self.best()
        return Decision(action, self.chance(action))

    def update(self, feedback):
        self.check(feedback)
        self.learn(feedback)
        return {}

    def learn(self, feedback):
        self.pulls[feedback.action] += 1.0
        self.rewards[feedback.action] += feedback.reward

    def check(self, feedback):
        if not isinstance(feedback, Feedback):
            raise InputError(f"greedy: update takes a Feedback, got {type(feedback).__name__}.")
        numbers = feedback.reward, feedback.propensity if feedback.propensity is not None else 1.0
        if not all(isinstance(value, float) and abs(value) < 1e9 for value in numbers) or not 0.0 < numbers[1] <= 1.0:
            raise InputError(f"greedy: reward and propensity must be finite numbers, got {numbers}.")
        if feedback.action not in range(ACTIONS):
            raise InputError(f"greedy: action must be in 0..{ACTIONS - 1}, got {feedback.action!r}.")
        if not torch.isfinite(feedback.observation).all():
            raise InputError("greedy: the observation holds NaN.")


@pytest.fixture
def agent():
    """A final agent class with these members on top of the greedy one; its abstract method is written here."""

    def make(**members):
        return type("Planted", (Greedy,), {"name": "planted", "begin": lambda self: None, **members})

    return make


def test_what_is_right_passes_and_says_what_was_checked(agent, capsys):
    passed = check_agent(agent(), actions=ACTIONS, verbose=True)
    assert len(passed) == len(set(passed)) == 9
    assert capsys.readouterr().out.splitlines() == [f"ok  {sentence}" for sentence in passed]


def test_the_observation_that_is_given_is_the_one_that_is_seen(agent):
    shapes = set()

    def act(self, observation, key):
        shapes.add(tuple(observation.shape))
        return Greedy.act(self, observation, key)

    check_agent(agent(act=act), observation=torch.zeros(1, 5))
    assert shapes == {(1, 5)}


def test_agents_with_a_continuum_of_actions_pass(agent):
    def act(self, observation, key):
        return Decision(torch.rand(1, generator=generator(self.seed, key)).item(), None)

    def learn(self, feedback):
        self.rewards += feedback.reward

    def check(self, feedback):
        if not isinstance(feedback, Feedback) or not isinstance(feedback.action, float):
            raise InputError("planted: no feedback.")
        Greedy.check(self, Feedback(feedback.id, feedback.observation, 0, feedback.propensity, feedback.reward))

    check_agent(agent(act=act, learn=learn, check=check))


def _by_global(draw):
    def act(self, observation, key):
        action = draw()
        return Decision(action, 1.0 / ACTIONS)

    return act


def _by_count(self, observation, key):
    self._asked += 1
    return Decision(derive(self.seed, self._asked) % ACTIONS, 1.0 / ACTIONS)


def _greedy_but_says_uniform(self, observation, key):
    return Decision(self.best(), 1.0 / ACTIONS)


def _says(chance):
    def act(self, observation, key):
        return Decision(derive(self.seed, key) % ACTIONS, chance(key) if callable(chance) else chance)

    return act


def _counts_decisions(self, observation, key):
    self.pulls[0] += 1.0
    return Decision(0, 1.0)


def _writes_to_what_it_sees(self, observation, key):
    observation.sub_(observation.mean())
    return Decision(0, 1.0)


def _learns_in_place(self, feedback):
    Greedy.learn(self, feedback)
    feedback.observation.mul_(0.5)


def _keeps_sight(self, feedback):
    Greedy.learn(self, feedback)
    self.last = feedback.observation


def _counts_silently(self, feedback):
    Greedy.learn(self, feedback)
    self.steps += 1
    if self.steps > 10**6:
        self.rewards *= 0.5


def _discounts(self, feedback):
    self.steps += 1
    self.rewards[feedback.action] += feedback.reward * 0.9**self.steps
    self.pulls[feedback.action] += 1.0


def _by_the_clock(self, feedback):
    self.rewards[feedback.action] += feedback.reward + 1e-3 * (time.time() % 7)


def _with_global_noise(self, feedback):
    self.rewards[feedback.action] += feedback.reward + random.random()


def _learns_before_checking(self, feedback):
    if isinstance(feedback, Feedback):
        self.pulls[0] += 1.0
    self.check(feedback)
    return {}


def _sees(self, feedback):
    Greedy.learn(self, feedback)
    self.rewards += 0.0 * feedback.observation.sum()


def _blind_check(self, feedback):
    if isinstance(feedback, Feedback):
        feedback = Feedback(feedback.id, torch.zeros(1), feedback.action, feedback.propensity, feedback.reward)
    Greedy.check(self, feedback)


class Heap(Store):
    """Keeps more than it says."""

    parts = ("capacity", "seen", "replayed", "rows")

    def __init__(self):
        self.capacity, self.seen, self.replayed, self.rows = 5, 0, 0, torch.zeros(0)

    @property
    def stored(self):
        return len(self.rows)

    @property
    def nbytes(self):
        return self.rows.nbytes

    def limit(self, samples, nbytes):
        self.capacity = samples


def _heaps(self, feedback):
    Greedy.learn(self, feedback)
    self.heap.rows = torch.cat([self.heap.rows, torch.tensor([feedback.reward])])


def begins(**attributes):
    def begin(self):
        for name, make in attributes.items():
            setattr(self, name, make())

    return begin


SHARED = torch.zeros(ACTIONS)
PARTS = Greedy.parts
FAULTS = {
    "values from the global state": ({"begin": begins(rewards=lambda: torch.rand(ACTIONS))}, "another initial state"),
    "one table for all": ({"begin": begins(rewards=lambda: SHARED)}, "begins with what that one learned"),
    "torch's global state": (
        {"act": _by_global(lambda: int(torch.randint(ACTIONS, (1,))))},
        "act gives .* for key|act draws from the global",
    ),
    "numpy's global state": (
        {"act": _by_global(lambda: int(numpy.random.randint(ACTIONS)))},
        "act gives .* for key|act draws from the global",
    ),
    "Python's global state": (
        {"act": _by_global(lambda: random.randrange(ACTIONS))},
        "act gives .* for key|act draws from the global",
    ),
    "a draw that is thrown away": (
        {"act": lambda self, observation, key: Decision(0 * random.randrange(9), 1.0)},
        "act draws from the global random state",
    ),
    "choices by the number of calls": ({"begin": begins(_asked=int), "act": _by_count}, r"must come from \(seed, key\)"),
    "acting that is learning": ({"act": _counts_decisions}, "act changes its state"),
    "greedy choices under uniform propensities": (
        {"act": _greedy_but_says_uniform},
        r"propensity 0.3333 and was taken for 600 of 600 keys \(expected 200",
    ),
    "propensity 0": ({"act": _says(0.0)}, r"must be in \(0, 1\], or None.*got 0.0"),
    "propensity in per cent": ({"act": _says(33.3)}, r"must be in \(0, 1\].*got 33.3"),
    "propensity NaN": ({"act": _says(float("nan"))}, r"must be in \(0, 1\].*nan"),
    "propensity by key": ({"act": _says(lambda key: 0.3 + 1e-4 * key)}, "cannot depend on the key"),
    "an action for a decision": ({"act": lambda self, observation, key: 0}, "must return a Decision.*got int"),
    "an action beyond the last": (
        {"act": lambda self, observation, key: Decision(ACTIONS, 1.0)},
        r"an int in 0\.\.2, got 3",
    ),
    "act that writes to what it sees": ({"act": _writes_to_what_it_sees}, "act changes the observation"),
    "update that writes to what it saw": ({"learn": _learns_in_place}, "update changes the observation"),
    "keeping what was lent": (
        {"parts": (*PARTS, "last"), "begin": begins(last=lambda: torch.zeros(1, 8)), "learn": _keeps_sight},
        "keeps a reference to observations",
    ),
    "a forgotten counter": ({"begin": begins(steps=int), "learn": _discounts}, "goes on to other bits.*`steps`"),
    "a forgotten counter that will matter later": (
        {"begin": begins(steps=int), "learn": _counts_silently},
        "learning changes `steps`",
    ),
    "reading the clock": ({"learn": _by_the_clock}, "Read no clock"),
    "noise from the global state": ({"learn": _with_global_noise}, "update draws from the global random state"),
    "learning before checking": ({"update": _learns_before_checking}, "only after the state had changed"),
    "no check": ({"check": lambda self, feedback: None}, "a dict in the place of a Feedback raised AttributeError"),
    "any reward": (
        {"check": lambda self, feedback: None if isinstance(feedback, Feedback) else Greedy.check(self, feedback)},
        "reward nan was accepted",
    ),
    "NaN in the state": ({"learn": _sees, "check": _blind_check}, "its state now holds NaN"),
    "a memory that overflows": (
        {"parts": (*PARTS, "heap"), "begin": begins(heap=Heap), "learn": _heaps},
        "a memory holds 6 rows; its capacity is 5",
    ),
    "no metrics": ({"update": lambda self, feedback: self.check(feedback)}, "dict of metrics, got NoneType"),
    "a part that is not there": ({"parts": (*PARTS, "memory")}, "`parts` names 'memory'"),
    "a text that cannot be read": ({"__repr__": lambda self: "<planted>"}, "not a call string"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_named(agent, fault):
    members, sentence = FAULTS[fault]
    with pytest.raises(ContractError, match=sentence):
        check_agent(agent(**members), actions=ACTIONS)


def test_something_else_than_an_agent_is_refused():
    with pytest.raises(ContractError, match="must give an Agent, got object"):
        check_agent(lambda seed: object())


def test_arguments_that_cannot_serve_are_refused(agent):
    with pytest.raises(ArgumentError, match="actions must be an int >= 1"):
        check_agent(agent(), actions=0)
