"""The checks that `check_learner` runs, in the order in which an author is best told of a fault.

Each takes a `Trial`, makes learners of its own, and raises ContractError with a sentence that says what to change. Two folds
are compared to the bit: predictions and metrics after every event, and the state at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature

import torch
from torch import Tensor

from everlearn.core.budget import Budget
from everlearn.core.contract.disturb import disturbed, global_random_state
from everlearn.core.contract.problem import contents, copied
from everlearn.core.contract.refusals import bad_input_is_refused
from everlearn.core.contract.saving import state_is_all
from everlearn.core.contract.trial import (
    SEED,
    Trial,
    answer,
    check_class,
    check_scores,
    differing,
    fault,
    fold,
    lend,
    state_of,
    step,
)
from everlearn.core.events import Batch, Boundary, Event, map_x, rows, size
from everlearn.core.learner import Learner, ask_latest
from everlearn.core.state import same
from everlearn.core.store import stores

PASSES = 3  # times that the batches are repeated where a memory is to be filled


def is_a_learner(trial: Trial) -> None:
    """it is a final class with a name, parts, and a text that can be read back"""
    check_class(trial.fresh(), Learner)


def made_from_its_seed(trial: Trial) -> None:
    """make(seed) gives the same learner each time, whatever the global random state"""
    first = trial.fresh(1)
    begun = state_of(first)
    if not same(begun, state_of(trial.fresh(2))):
        raise fault(
            first,
            f"make({SEED}) gives another initial state when the global random state differs. Build networks inside "
            "core.random.isolated(seed, 'network'), and draw other numbers from core.random.generator(seed, label).",
        )
    for event in trial.problem.events:
        step(first, event)
    if not same(begun, state_of(trial.fresh(1))):
        raise fault(
            first,
            "a learner made after another one has learned begins with what that one learned. "
            "Make a new network in each call of make, and no mutable class attributes or default arguments.",
        )


def scores_have_a_shape(trial: Trial) -> None:
    """predict gives finite scores (rows, classes) or values, without a gradient, before and after learning, also for one row"""
    learner, problem = trial.fresh(), trial.problem
    for event in (None, *problem.events):
        if event is not None:
            step(learner, event)
        for x in (problem.probe, rows(problem.probe, slice(0, 1))):
            check_scores(learner, answer(learner, x), size(x), problem)


def predict_is_pure(trial: Trial) -> None:
    """predict changes nothing, and asked twice gives the same answer"""
    learner, problem = trial.fresh(), trial.problem
    for event in (None, *problem.events):
        if event is not None:
            step(learner, event)
        before = state_of(learner)
        with disturbed(1):
            shared = global_random_state()
            first = answer(learner, problem.probe)
            if global_random_state() != shared:
                raise fault(
                    learner, "predict draws from the global random state; draw from a generator of its own, in update."
                )
        kept = first.clone()
        with disturbed(2):
            second = answer(learner, problem.probe)
        if not same(kept, second):
            raise fault(
                learner, "predict gives two answers for the same rows; evaluate the model in eval mode, draw nothing."
            )
        first.fill_(123.0)
        if not same(kept, answer(learner, problem.probe)):
            raise fault(
                learner, "predict returns a tensor of its state, not a copy: writing to the scores changed the answer."
            )
        if not same(before, state_of(learner)):
            raise fault(learner, f"predict changes its state ({differing(before, state_of(learner))}); only update may.")


def predictions_do_not_matter(trial: Trial) -> None:
    """predictions between updates change nothing of what is learned"""
    quiet, asked, problem = trial.fresh(), trial.fresh(), trial.problem
    fold(asked, problem.events, problem.probe)
    fold(quiet, problem.events)
    pair = (state_of(quiet), state_of(asked))
    if not same(*pair):
        raise fault(
            quiet,
            f"learning gives another state when predictions are made in between ({differing(*pair)}). "
            "Set training mode in update, and let predict write to no attribute.",
        )


def same_seed_same_bits(trial: Trial) -> None:
    """the same seed gives the same bits, whatever the global random state and the clock; neither is changed"""
    problem, results = trial.problem, []
    for number in (1, 2):
        learner = trial.fresh()
        with disturbed(number):
            trace = []
            for event in problem.events:
                shared = global_random_state()
                trace.append(step(learner, event))
                if global_random_state() != shared:
                    raise fault(
                        learner,
                        f"{'boundary' if isinstance(event, Boundary) else 'update'} draws from the global random state, or seeds "
                        "it. Draw from core.random.generator(seed, label), kept in parts, or inside core.random.isolated(seed, ...).",
                    )
            results.append([*trace, answer(learner, problem.probe), state_of(learner)])
    if not same(results[0], results[1]):
        raise fault(
            learner,
            f"the same seed and events gave other bits ({differing(results[0][-1], results[1][-1])}) when the clock and the "
            "global random state differed. Read no clock in a step, and draw numbers only from core.random.generator(seed, label).",
        )


def inputs_are_left_alone(trial: Trial) -> None:
    """what it is given is neither changed nor kept by reference"""
    problem = trial.problem
    clean, reused = trial.fresh(), trial.fresh()
    for event in problem.events:
        step(clean, event)
        lent = copied(event)
        lend(reused, lent)
        if not same(contents(event), contents(lent)):
            what = "boundary" if isinstance(event, Boundary) else "update"
            raise fault(reused, f"{what} changes the tensors it is given; work on a copy.")
        _overwrite(lent)
        probe = map_x(Tensor.clone, problem.probe)
        ask_latest(reused, probe)
        if not same(contents(probe), contents(problem.probe)):
            raise fault(reused, "predict changes the tensor it is given; work on a copy.")
    pair = (state_of(clean), state_of(reused))
    if not same(*pair):
        raise fault(
            clean,
            f"it keeps a reference to the tensors it was given ({differing(*pair)}): it learned something else when the caller "
            "used them again. Clone what is kept.",
        )


def unlabelled_and_single_rows(trial: Trial) -> None:
    """batches without y, of one row, and with task, time and id are accepted"""
    problem = trial.problem
    for warm in (False, True):
        learner = trial.fresh()
        if warm:
            fold(learner, problem.events)
        batch = problem.batches[0]
        count = len(batch)
        for given in (
            replace(batch, y=None),
            _rows_of(batch, slice(0, 1)),
            replace(_rows_of(batch, slice(0, 1)), y=None),
            replace(batch, task=1, time=torch.arange(count, dtype=torch.float64), id=tuple(map(str, range(count)))),
        ):
            step(learner, given)
        check_scores(learner, answer(learner, problem.probe), size(problem.probe), problem)


def boundaries_are_accepted(trial: Trial) -> None:
    """boundaries of every kind are accepted, before and after learning"""
    problem = trial.problem
    batch = problem.batches[0]
    kinds = (
        Boundary(None),
        Boundary(3),
        Boundary(4, tuple(batch.y.unique().tolist()) if problem.targets is None else ()),
        Boundary(5, (), batch),
        Boundary(6, (), replace(batch, y=None)),
    )
    for boundary in kinds:
        learner = trial.fresh()
        for event in (boundary, *problem.events, boundary, problem.batches[-1]):
            step(learner, event)
        check_scores(learner, answer(learner, problem.probe), size(problem.probe), problem)


def memory_is_bounded(trial: Trial) -> None:
    """memories stay within their capacity, and within a budget's limits"""
    learner = trial.fresh()
    capacity = getattr(learner, "capacity", None) if "capacity" in signature(type(learner)).parameters else None
    if not stores(learner):
        if isinstance(capacity, int) and capacity > 0:
            raise fault(
                learner, "it has a capacity and keeps no core.store.Store among its parts, so no budget can limit it."
            )
        return
    if any(memory.capacity is not None for memory in stores(learner)):
        _within(trial, learner, capacity if isinstance(capacity, int) else None, None)
    if learner.reference:
        return
    for limit in (3, 0):
        learner = trial.fresh()
        Budget(replay=limit).limit(learner)
        _within(trial, learner, limit, None)
    learner = trial.fresh()
    Budget(replay_bytes=400).limit(learner)
    _within(trial, learner, None, 400)


def _within(trial: Trial, learner: Learner, samples: int | None, nbytes: int | None) -> None:
    for event in (*trial.problem.events, *PASSES * trial.problem.batches):
        step(learner, event)
        memories = stores(learner)
        for memory in memories:
            if memory.capacity is not None and memory.stored > memory.capacity:
                raise fault(learner, f"a memory holds {memory.stored} rows; its capacity is {memory.capacity}.")
        stored, used = sum(memory.stored for memory in memories), sum(memory.nbytes for memory in memories)
        if samples is not None and stored > samples:
            raise fault(learner, f"its memories hold {stored} rows in all; {samples} are allowed.")
        if nbytes is not None and used > nbytes:
            raise fault(learner, f"its memories take {used} bytes in all; {nbytes} are allowed.")
    check_scores(learner, answer(learner, trial.problem.probe), size(trial.problem.probe), trial.problem)


CHECKS: Sequence[Callable[[Trial], None]] = (
    is_a_learner,
    made_from_its_seed,
    scores_have_a_shape,
    predict_is_pure,
    same_seed_same_bits,
    predictions_do_not_matter,
    inputs_are_left_alone,
    state_is_all,
    unlabelled_and_single_rows,
    boundaries_are_accepted,
    bad_input_is_refused,
    memory_is_bounded,
)


def _rows_of(batch: Batch, index: slice) -> Batch:
    return Batch(rows(batch.x, index), None if batch.y is None else batch.y[index])


def _overwrite(event: Event) -> None:
    """Use the tensors of an event for something else, as a caller with one buffer would."""
    batch = event.data if isinstance(event, Boundary) else event
    if batch is not None:
        map_x(Tensor.zero_, batch.x)
        if batch.y is not None:
            batch.y.zero_()
