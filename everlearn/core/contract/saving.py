"""State is all there is: saved in the middle and loaded elsewhere, a fold goes on to the same bits.

The state goes through a snapshot on disk, into a fresh object and into one that had learned other things: everything that
`parts` do not name is thereby perturbed. What differs afterwards is named as what was forgotten.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from everlearn.core.contract.leftovers import leftovers
from everlearn.core.contract.trial import Trial, answer, attempt, differing, fault, fold
from everlearn.core.errors import ContractError
from everlearn.core.learner import Learner
from everlearn.core.state import digest, load_snapshot, same, save_snapshot


def state_is_all(trial: Trial) -> None:
    """saved in the middle and loaded elsewhere, also into one that has learned other things, it goes on to the same bits"""
    events = trial.problem.events
    histories = {"a fresh one": (), "one that had learned other things": (*events[1:3], *events[::-1])}
    for cut in sorted({0, 1, len(events) // 2, len(events) - 2} & set(range(len(events)))):
        learner = trial.fresh()
        fold(learner, events[:cut])
        state = learner.state_dict()
        number = digest(state)
        held = leftovers(learner)
        expected = _future(trial, learner, cut)
        if digest(state) != number:
            raise fault(
                learner, "state_dict gave tensors that later updates changed; give copies (core.state.capture does)."
            )
        for history, past in histories.items():
            other = trial.fresh()
            fold(other, past, trial.problem.probe)
            stored = move_state(state, other, history)
            number = digest(stored)
            found = leftovers(other)
            forgotten = [path for path in held if path in found and held[path].print != found[path].print]
            forgotten += sorted(set(held) ^ set(found))
            rest = attempt_after_load(other, history, partial(_future, trial, other, cut))
            refuse_borrowing(other, stored, number)
            strict = [path for path in forgotten if (held.get(path) or found[path]).strict]
            if not same(expected, rest):
                raise fault(
                    learner,
                    f"its state saved after {cut} events and loaded into {history} goes on to other bits. "
                    + _missing(forgotten, expected[-1], rest[-1]),
                )
            if strict:
                raise fault(
                    learner,
                    f"learning changes {_named(strict)}, which `parts` does not name, so it is lost at a resume. "
                    "Add it to parts; if it is only a cache, begin its name with an underscore.",
                )


def _future(trial: Trial, learner: Learner, cut: int) -> list[Any]:
    """What a learner answers at once, and gives for all events from `cut` on."""
    probe = trial.problem.probe
    return [answer(learner, probe).clone(), *fold(learner, trial.problem.events[cut:], probe)]


def refuse_borrowing(other: Any, stored: Any, number: str) -> None:
    """Refuse an object that wrote to the tensors of the state that it was given."""
    if digest(stored) != number:
        raise fault(other, "it writes to the tensors that load_state_dict was given; copy them (core.state.load does).")


def move_state(state: Any, other: Any, history: str) -> Any:
    """Take a state through a snapshot on disk into another object, and refuse what does not come out as it went in.

    Returns the state that was loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        stored = attempt(other, "writing its state", lambda: load_snapshot(save_snapshot(Path(folder), 1, state))[1])
    attempt_after_load(
        other,
        history,
        lambda: attempt(other, f"load_state_dict into {history}", lambda: other.load_state_dict(stored)),
    )
    if not same(other.state_dict(), state):
        raise fault(
            other,
            f"state_dict after load_state_dict into {history} differs from what was loaded ({differing(state, other.state_dict())}).",
        )
    return stored


def attempt_after_load(other: Any, history: str, call: Callable[[], Any]) -> Any:
    """Go on from a loaded state; an error then means that something did not come back as the kind of thing it was."""
    try:
        return call()
    except ContractError as error:
        raise ContractError(
            f"{error} This was with a state loaded into {history}. A part that is None in __init__ and an object later "
            "comes back as plain tensors: make the object in __init__. The keys of a dict come back as text: turn them back in `restored`."
        ) from error


def _named(paths: Sequence[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths[:5])


def _missing(forgotten: Sequence[str], first: Any, second: Any) -> str:
    if forgotten:
        return f"Not carried along: {_named(forgotten)}. Add it to parts, or make it anew in a method `restored`."
    return f"The first difference is in {differing(first, second)}. Something that updates change is missing from parts."
