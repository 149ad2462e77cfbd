"""The contract as code: `check_learner` and `check_agent` hold any class to it and say what to mend.

    state = fold(step, initial(arguments, seed), events)

Each check makes fresh objects, disturbs what a fold must not depend on (global random state, clock, order of predictions,
history before a load), and compares to the bit. The first fault is raised as ContractError.
"""

from collections.abc import Callable, Sequence
from typing import Any

from everlearn.core.agent import Agent
from everlearn.core.contract.agents import CHECKS as AGENT_CHECKS
from everlearn.core.contract.agents import AgentTrial
from everlearn.core.contract.disturb import disturbed
from everlearn.core.contract.learners import CHECKS as LEARNER_CHECKS
from everlearn.core.contract.problem import Problem, gaussian_problem, sampled_problem, sine_problem
from everlearn.core.contract.trial import Trial
from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Event, X, map_x, rows, size
from everlearn.core.learner import Learner


def check_learner(
    make: Callable[[int], Learner],
    *,
    events: Sequence[Event] | None = None,
    example: Batch | None = None,
    classes: int | None = 4,
    targets: int | None = None,
    verbose: bool = False,
) -> list[str]:
    """Hold a learner to the contract. Returns what was checked, one sentence each; raises ContractError at the first fault.

    make: seed -> a new learner, with a network of its own; called many times. events: labelled batches (and boundaries) to
    learn from; example: one labelled batch whose rows are drawn instead; by default small Gaussian clouds, x (8, 8) float32.
    classes: how many classes y may name, None where the learner finds out by itself; targets: instead of classes, the number of real
    values in an answer: by default windows of as many waves, x (8, 6, targets) and y (8, targets). verbose: print each check as it
    passes.

    Raises ContractError with what to change, ArgumentError where events or example cannot serve.

    >>> import torch
    >>> from everlearn import FineTune
    >>> from everlearn.core.random import isolated
    >>> def make(seed):
    ...     with isolated(seed, "network"):
    ...         return FineTune(torch.nn.Linear(8, 4), seed=seed)
    >>> check_learner(make)[2]
    'predict gives finite scores (rows, classes) or values, without a gradient, before and after learning, also for one row'
    """
    if targets is not None:
        check_count("check_learner", "targets", targets)
        classes = None
    if classes is not None:
        check_count("check_learner", "classes", classes)
    if events is not None and example is not None:
        raise ArgumentError("check_learner: events and example are two answers to one question; give one of them.")
    with disturbed(1):
        announced = bool(getattr(make(0), "needs_boundaries", False))
    if events is not None:
        problem = _given(tuple(events), classes, targets)
    elif example is not None:
        _labelled([example])
        problem = sampled_problem(example, classes, announced, targets)
    elif targets is not None:
        problem = sine_problem(targets, announced)
    else:
        problem = gaussian_problem(classes or 4, announced)
    return _run(LEARNER_CHECKS, Trial(make, problem), verbose)


def check_agent(
    make: Callable[[int], Agent], *, observation: X | None = None, actions: int | None = None, verbose: bool = False
) -> list[str]:
    """Hold an agent to the contract. Returns what was checked, one sentence each; raises ContractError at the first fault.

    make: seed -> a new agent; called many times. observation: one observation, batch of one first, (1, 8) float32 by default.
    actions: the number of actions, named 0..actions-1, None where they are something else. verbose: print each check.

    >>> from everlearn.agents.uniform import Uniform
    >>> check_agent(lambda seed: Uniform(actions=3, seed=seed), actions=3)[2]
    'act changes nothing, and asked twice for one key gives the same decision'
    """
    if actions is not None:
        check_count("check_agent", "actions", actions)
    return _run(AGENT_CHECKS, AgentTrial(make, observation, actions), verbose)


def _run(checks: Sequence[Callable[[Any], None]], trial: Any, verbose: bool) -> list[str]:
    passed = []
    for check in checks:
        with disturbed(0):
            check(trial)
        sentence = check.__doc__ or check.__name__
        passed.append(sentence)
        if verbose:
            print(f"ok  {sentence}")
    return passed


def _given(events: tuple[Event, ...], classes: int | None, targets: int | None) -> Problem:
    batches = [event for event in events if isinstance(event, Batch) and event.y is not None]
    _labelled(batches)
    if len(batches) < 3:
        raise ArgumentError(f"check_learner: events must hold at least 3 labelled batches, got {len(batches)}.")
    return Problem(events, rows(batches[0].x, slice(0, 8)), classes, targets)


def _labelled(batches: Sequence[Batch]) -> None:
    for batch in batches:
        if batch.y is None or size(map_x(lambda value: value, batch.x)) < 2:
            raise ArgumentError("check_learner: each batch must have labels y and at least 2 rows.")
