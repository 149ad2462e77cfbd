"""What there is, in words: lists of names, the explanation of one, its references, and the contract check by name."""

import inspect
import os
import re
from collections.abc import Mapping
from typing import Any

from everlearn.comparison import building, catalog
from everlearn.comparison.job import reach
from everlearn.core.agent import Agent
from everlearn.core.errors import ArgumentError, SpecError, closest
from everlearn.core.spec import Call, build, import_reference, lookup, parse
from everlearn.optim.schedules import SCHEDULES, Schedule

KINDS = ("learners", "agents", "networks", "scenarios", "data", "values", "studies")
Rows = list[tuple[str, str]]


def listing(kind: str, studies: Mapping[str, Any]) -> dict[str, Rows]:
    """{group: [(name, one line)]} of one kind, or of "all"."""
    from everlearn.data.load import known

    if kind not in (*KINDS, "all"):
        raise ArgumentError(closest("kind", kind, (*KINDS, "all")))
    rows = {
        group: [(name, _first_line(value)) for name, value in table.items()] for group, table in _groups(studies).items()
    }
    rows["data"] = list(known())
    return {group: rows[group] for group in KINDS if kind in (group, "all")}


def _groups(studies: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        "learners": catalog.learners(),
        "agents": catalog.agents(),
        "networks": catalog.networks(),
        "scenarios": catalog.scenarios(),
        "data": catalog.sources(),
        "values": catalog.values(),
        "studies": studies,
    }


def _first_line(value: Any) -> str:
    return (inspect.getdoc(value) or "").split("\n")[0]


def _find(name: str, studies: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """[(kind, component)] of a name, in the order of the kinds: a learner and the study of it may share one."""
    if ":" in name:
        reach(["", os.getcwd()])
        return [("", import_reference(name))]
    groups = _groups(studies)
    found = [(group, table[name]) for group, table in groups.items() if name in table]
    if not found:
        everything = {key for table in groups.values() for key in table}
        raise SpecError(closest("component", name, everything, told="`everlearn list` names all"))
    return found


def explain(name: str, studies: Mapping[str, Any]) -> dict[str, Any]:
    """The call of a component with its arguments and defaults, and its doc-string; `also`: what else bears its name, kind by kind."""
    (_, value), *others = _find(name, studies)
    also = {kind: _first_line(other) for kind, other in others}
    if not callable(value):
        return {"name": name, "signature": name, "doc": inspect.getdoc(value) or "", "also": also}
    shown = []
    for parameter in inspect.signature(value).parameters.values():
        text = parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        shown.append(text)
    return {"name": name, "signature": f"{name}({', '.join(shown)})", "doc": inspect.getdoc(value) or "", "also": also}


def named_schedule(text: str) -> Schedule | None:
    """The schedule of a call string with its arguments; None where the text is anything else."""
    if "(" not in text:
        return None
    call = parse(text)
    return build(call, SCHEDULES, "schedule") if isinstance(call, Call) and call.name in SCHEDULES else None


def references(name: str, studies: Mapping[str, Any]) -> list[str]:
    """The references in the doc-strings of all that bears a name, and of their modules."""
    values = [value for _, value in _find(name, studies)]
    text = "\n\n".join(inspect.getdoc(part) or "" for value in values for part in (value, inspect.getmodule(value)))
    blocks = re.findall(r"References?:\s*(.+?)(?:\n\s*\n|\nDiffers from|\Z)", text, flags=re.DOTALL)
    found = _longest([re.sub(r"\s+", " ", block).strip() for block in blocks])
    return found or [f"{name} is not from a publication."]


def _longest(found: list[str]) -> list[str]:
    """References without those that another one holds in more words: the same "Authors (year)" at the beginning."""
    work = {text: re.match(r".*?\(\d{4}\)", text) for text in found}
    kept = []
    for text, begins in work.items():
        longer = [other for other in work if len(other) > len(text) and begins and begins[0] in other]
        if not longer:
            kept.append(text)
    return kept


def check_named(text: str) -> list[str]:
    """Run the contract checks on the learner or agent of a call string; the names of those passed."""
    from everlearn.core.check import check_agent, check_learner
    from everlearn.data.load import load
    from everlearn.data.split import split

    call = parse(text)
    found = lookup(call.name, {**catalog.learners(), **catalog.agents()}, "learner or agent")
    if isinstance(found, type) and issubclass(found, Agent):
        return check_agent(lambda seed: building.build_agent(text, seed))
    stream = split(load("iris"), experiences=3, batch=8, seed=0)
    events = [stream[index] for index in range(len(stream))]
    return check_learner(
        lambda seed: building.build_learner(text, stream, "mlp(hidden=(16,))", seed),
        events=events,
        classes=stream.schema.outputs,
    )
