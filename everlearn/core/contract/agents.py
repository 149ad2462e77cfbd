"""The checks that `check_agent` runs, in the order in which an author is best told of a fault.

An agent acts with numbered keys, is told rewards that are a function of (key, action), and is compared to the bit with another
that did the same in a disturbed world. How often an action is taken must agree with the propensity stated for it:

    |count(a) - N p(a)| <= 6 sqrt(N p(a) (1 - p(a))) + 1        over N keys at one state
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from everlearn.core.agent import Agent, Decision
from everlearn.core.contract.disturb import disturbed, global_random_state
from everlearn.core.contract.leftovers import leftovers
from everlearn.core.contract.problem import contents
from everlearn.core.contract.refusals import refused
from everlearn.core.contract.saving import attempt_after_load, move_state, refuse_borrowing
from everlearn.core.contract.trial import SEED, attempt, check_class, fault, state_of
from everlearn.core.errors import EverlearnError
from everlearn.core.events import Feedback, X, map_x
from everlearn.core.random import derive
from everlearn.core.spec import describe
from everlearn.core.state import capture, digest, same
from everlearn.core.store import stores

ROUNDS = 24  # decisions in one fold
KEYS = 600  # decisions at one state, where frequencies are counted
SIGMAS = 6.0  # a right frequency is further off than this once in 5e8 counts


@dataclass(frozen=True)
class AgentTrial:
    """How to make the agent, and what it sees."""

    make: Callable[[int], Agent]
    observation: X | None
    actions: int | None

    def fresh(self, number: int = 1) -> Agent:
        """A new agent, made while the global random state and the clock are those of `number`."""
        with disturbed(number):
            return self.make(SEED)

    def sees(self, key: int) -> X:
        """The observation at a decision."""
        if self.observation is not None:
            return map_x(Tensor.clone, self.observation)
        return torch.randn(1, 8, generator=torch.Generator().manual_seed(key))


def choose(trial: AgentTrial, agent: Agent, observation: X, key: int) -> Decision:
    """An agent's decision, once it is known to be one."""
    decision = attempt(agent, f"act with key {key}", lambda: agent.act(observation, key))
    _check_decision(trial, agent, decision)
    return decision


def consequence(trial: AgentTrial, decision: Decision, key: int) -> Feedback:
    """A reward in 0..1 that is a function of (key, action); every eighth decision ends an episode."""
    reward = derive(key, describe(decision.action)) % 1000 / 999.0
    done = key % 8 == 7
    following = None if done else trial.sees(key + 1)
    return Feedback(str(key), trial.sees(key), decision.action, decision.propensity, reward, following, done)


def learn(agent: Agent, feedback: Feedback) -> Any:
    """Tell an agent one consequence and give what it returned, in comparable form."""
    metrics = attempt(agent, f"update with the feedback on {feedback.action!r}", lambda: agent.update(feedback))
    if not isinstance(metrics, dict):
        raise fault(agent, f"update must return a dict of metrics, got {type(metrics).__name__}; return {{}} for none.")
    return attempt(agent, "reading the metrics of update", lambda: capture(metrics))


def live(trial: AgentTrial, agent: Agent, keys: Sequence[int]) -> list[Any]:
    """Act and learn once for each key: the decisions, what update returned, and the state at the end."""
    trace: list[Any] = []
    for key in keys:
        decision = choose(trial, agent, trial.sees(key), key)
        trace += [describe(decision.action), decision.propensity, learn(agent, consequence(trial, decision, key))]
    return [*trace, state_of(agent)]


def is_an_agent(trial: AgentTrial) -> None:
    """it is a final class with a name, parts, and a text that can be read back"""
    check_class(trial.fresh(), Agent)


def made_from_its_seed(trial: AgentTrial) -> None:
    """make(seed) gives the same agent each time, whatever the global random state"""
    first = trial.fresh(1)
    begun = state_of(first)
    if not same(begun, state_of(trial.fresh(2))):
        raise fault(
            first,
            f"make({SEED}) gives another initial state when the global random state differs. "
            "Draw from core.random.generator(seed, label).",
        )
    live(trial, first, range(ROUNDS))
    if not same(begun, state_of(trial.fresh(1))):
        raise fault(
            first,
            "an agent made after another one has learned begins with what that one learned; "
            "share no network, mutable class attribute or default argument.",
        )


def act_is_pure(trial: AgentTrial) -> None:
    """act changes nothing, and asked twice for one key gives the same decision"""
    agent = trial.fresh()
    for learned in (False, True):
        if learned:
            live(trial, agent, range(ROUNDS))
        before, decisions = state_of(agent), {}
        for number, keys in ((1, range(ROUNDS)), (2, range(ROUNDS - 1, -1, -1))):
            with disturbed(number):
                shared = global_random_state()
                for key in keys:
                    decision = choose(trial, agent, trial.sees(key), key)
                    seen = (describe(decision.action), decision.propensity)
                    if decisions.setdefault(key, seen) != seen:
                        raise fault(
                            agent,
                            f"act gives {decisions[key]} and then {seen} for key {key}; its randomness must come from (seed, key): "
                            "core.random.generator(seed, 'act', key).",
                        )
                if global_random_state() != shared:
                    raise fault(
                        agent, "act draws from the global random state; use core.random.generator(seed, 'act', key)."
                    )
        if not same(before, state_of(agent)):
            raise fault(agent, "act changes its state; only update may.")


def decisions_are_sound(trial: AgentTrial) -> None:
    """propensities lie in (0, 1] and agree with how often each action is taken over many keys"""
    agent = trial.fresh()
    for learned in (False, True):
        if learned:
            live(trial, agent, range(ROUNDS))
        observation = trial.sees(0)
        counts: Counter[str] = Counter()
        stated: dict[str, float | None] = {}
        for key in range(KEYS):
            decision = choose(trial, agent, observation, key)
            text = describe(decision.action)
            counts[text] += 1
            if stated.setdefault(text, decision.propensity) != decision.propensity:
                raise fault(
                    agent,
                    f"the propensity of action {text} at one state and observation is {stated[text]} for one key and "
                    f"{decision.propensity} for another; it is the probability over keys, so it cannot depend on the key.",
                )
        if len(counts) > KEYS // 2:
            continue  # actions without number, such as real vectors: frequencies say nothing
        for text, count in counts.items():
            chance = stated[text]
            if chance is None:
                continue
            margin = SIGMAS * math.sqrt(KEYS * chance * (1.0 - chance)) + 1.0
            if abs(count - KEYS * chance) > margin:
                raise fault(
                    agent,
                    f"action {text} has propensity {chance:.4g} and was taken for {count} of {KEYS} keys "
                    f"(expected {KEYS * chance:.0f} +- {margin:.0f}); derive the choice from (seed, key), and log its probability.",
                )


def _check_decision(trial: AgentTrial, agent: Agent, decision: Any) -> None:
    if not isinstance(decision, Decision):
        raise fault(agent, f"act must return a Decision(action, propensity), got {type(decision).__name__}.")
    chance = decision.propensity
    number = isinstance(chance, (int, float)) and not isinstance(chance, bool)
    if chance is not None and not (number and 0.0 < chance <= 1.0):
        raise fault(agent, f"the propensity of a decision must be in (0, 1], or None where there is none, got {chance!r}.")
    if trial.actions is not None and not (isinstance(decision.action, int) and 0 <= decision.action < trial.actions):
        raise fault(agent, f"act must choose an int in 0..{trial.actions - 1}, got {decision.action!r}.")


def same_seed_same_bits(trial: AgentTrial) -> None:
    """the same seed gives the same bits, whatever the global random state and the clock; neither is changed"""
    results = []
    for number in (1, 2):
        agent = trial.fresh()
        with disturbed(number):
            shared = global_random_state()
            results.append(live(trial, agent, range(ROUNDS)))
            if global_random_state() != shared:
                raise fault(
                    agent,
                    "update draws from the global random state, or seeds it. "
                    "Draw from core.random.generator(seed, label), kept in parts.",
                )
    if not same(results[0], results[1]):
        raise fault(
            agent,
            "the same seed and feedback gave other bits when the clock and the global random state differed. "
            "Read no clock, and draw numbers only from core.random.generator(seed, label).",
        )


def inputs_are_left_alone(trial: AgentTrial) -> None:
    """observations are neither changed nor kept by reference"""
    clean, reused = trial.fresh(), trial.fresh()
    for key in range(ROUNDS):
        lent = trial.sees(key)
        decision = choose(trial, reused, lent, key)
        if not same(contents(lent), contents(trial.sees(key))):
            raise fault(reused, "act changes the observation it is given; work on a copy.")
        feedback = consequence(trial, decision, key)
        learn(clean, consequence(trial, choose(trial, clean, trial.sees(key), key), key))
        learn(reused, feedback)
        if not same(contents(feedback.observation), contents(trial.sees(key))):
            raise fault(reused, "update changes the observation it is given; work on a copy.")
        for x in (feedback.observation, feedback.next_observation, lent):
            if x is not None:
                map_x(Tensor.zero_, x)
    if not same(state_of(clean), state_of(reused)):
        raise fault(
            clean, "it keeps a reference to observations: it learned something else when the caller used them again."
        )


def state_is_all(trial: AgentTrial) -> None:
    """saved in the middle and loaded elsewhere, also into one that has learned other things, it goes on to the same bits"""
    histories = {"a fresh one": range(0), "one that had learned other things": range(100, 100 + ROUNDS + 5)}
    for cut in (0, 1, ROUNDS // 2):
        agent = trial.fresh()
        live(trial, agent, range(cut))
        state = agent.state_dict()
        number, held = digest(state), leftovers(agent)
        expected = live(trial, agent, range(cut, ROUNDS))
        if digest(state) != number:
            raise fault(agent, "state_dict gave tensors that later updates changed; give copies (core.state.capture does).")
        for history, past in histories.items():
            other = trial.fresh()
            live(trial, other, past)
            stored = move_state(state, other, history)
            number = digest(stored)
            found = leftovers(other)
            forgotten = sorted(path for path in {*held, *found} if held.get(path) != found.get(path))
            rest = attempt_after_load(other, history, lambda one=other, at=cut: live(trial, one, range(at, ROUNDS)))
            refuse_borrowing(other, stored, number)
            named = ", ".join(f"`{path}`" for path in forgotten[:5]) or "something that updates change"
            if not same(expected, rest):
                raise fault(
                    agent,
                    f"its state saved after {cut} decisions and loaded into {history} goes on to other bits. "
                    f"Not carried along: {named}. Add it to parts.",
                )
            if any((held.get(path) or found[path]).strict for path in forgotten):
                raise fault(
                    agent,
                    f"learning changes {named}, which `parts` does not name, so it is lost at a resume. "
                    "Add it to parts; if it is only a cache, begin its name with an underscore.",
                )


def bad_feedback_is_refused(trial: AgentTrial) -> None:
    """bad feedback is refused with one of Everlearn's errors, and nothing changes"""
    for begun in (0, ROUNDS // 2):
        clean, tried = trial.fresh(), trial.fresh()
        for agent in (clean, tried):
            live(trial, agent, range(begun))
        good = consequence(trial, choose(trial, tried, trial.sees(begun), begun), begun)
        cases: list[tuple[str, Any]] = [("a dict in the place of a Feedback", {"id": "0", "reward": 1.0})]
        cases += [(f"reward {value!r}", replace(good, reward=value)) for value in (math.nan, math.inf, -math.inf, None, "1")]
        cases += [(f"propensity {value!r}", replace(good, propensity=value)) for value in (0.0, -0.5, 1.5, math.nan)]
        if trial.actions is not None:
            wrong = (-1, trial.actions, "no such action")
            cases += [(f"action {value!r}", replace(good, action=value)) for value in wrong]
        for what, feedback in cases:
            refused(tried, f"update with {what}", partial(tried.update, feedback))
        keys = range(begun, ROUNDS)
        if not same(live(trial, clean, keys), live(trial, tried, keys)):
            raise fault(
                tried, "after refusing bad feedback it learned something else than without; check before anything changes."
            )
        _poison(trial, good, begun)


def _poison(trial: AgentTrial, good: Feedback, begun: int) -> None:
    """An observation that holds NaN is refused, or plays no part: it must not get into the state."""
    broken = map_x(lambda value: torch.full_like(value, math.nan) if value.is_floating_point() else value, good.observation)
    if same(contents(broken), contents(good.observation)):
        return
    agent = trial.fresh()
    live(trial, agent, range(begun))
    before = state_of(agent)
    try:
        agent.update(replace(good, observation=broken))
    except EverlearnError:
        if not same(before, state_of(agent)):
            raise fault(agent, "an observation with NaN was refused, but only after the state had changed.") from None
        return
    except Exception as error:
        raise fault(
            agent, f"an observation with NaN raised {type(error).__name__} ({error}); refuse it with an InputError."
        ) from error
    if _holds_nan(state_of(agent)):
        raise fault(
            agent, "an observation with NaN was accepted, and its state now holds NaN; refuse it with an InputError."
        )


def _holds_nan(state: Any) -> bool:
    if isinstance(state, Tensor):
        return bool(torch.isnan(state).any()) if state.is_floating_point() else False
    if isinstance(state, dict):
        return any(map(_holds_nan, state.values()))
    if isinstance(state, list):
        return any(map(_holds_nan, state))
    return isinstance(state, float) and math.isnan(state)


def memory_is_bounded(trial: AgentTrial) -> None:
    """memories stay within their capacity"""
    agent = trial.fresh()
    if not stores(agent):
        return
    for key in range(8 * ROUNDS):
        learn(agent, consequence(trial, choose(trial, agent, trial.sees(key), key), key))
        for memory in stores(agent):
            if memory.capacity is not None and memory.stored > memory.capacity:
                raise fault(agent, f"a memory holds {memory.stored} rows; its capacity is {memory.capacity}.")


CHECKS: Sequence[Callable[[AgentTrial], None]] = (
    is_an_agent,
    made_from_its_seed,
    act_is_pure,
    decisions_are_sound,
    same_seed_same_bits,
    inputs_are_left_alone,
    state_is_all,
    bad_feedback_is_refused,
    memory_is_bounded,
)
