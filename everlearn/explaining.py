"""The verbs that tell what there is: list, show, cite, check."""

from pathlib import Path

from everlearn.console import console, print_comparison, print_json, say
from everlearn.core.errors import SpecError


def list_(*, kind: str, json: bool) -> int:
    """Name what there is."""
    from everlearn.comparison.listing import listing
    from everlearn.studies.study import studies

    found = listing(kind, studies())
    if json:
        return print_json({group: dict(rows) for group, rows in found.items()})
    from rich.table import Table

    for group, rows in found.items():
        table = Table(title=group, title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
        for (name, line), (_, before) in zip(rows, [("", ""), *rows], strict=False):
            table.add_row(name, "the same" if line == before else line)
        console().print(table)
    return 0


def show(name: str, steps: int | None = None, output: str | None = None, *, json: bool) -> int:
    """Explain one component: its arguments with their defaults, what it does, where it comes from. Draw a schedule.

    Args:
        name: a learner, agent, network, scenario, data source, value or study; the folder of a comparison; a schedule's call string
        steps: how many steps of a schedule are drawn (default: all of it, or as many as show how it goes on)
        output: a file (png, svg or pdf) into which a schedule is drawn
    """
    from everlearn.comparison.grid import load_comparison
    from everlearn.comparison.listing import explain, named_schedule
    from everlearn.console import show_schedule
    from everlearn.studies.study import studies

    if (Path(name) / "result.json").exists():
        record = load_comparison(name).record
        if json:
            return print_json(record)
        print_comparison(record)
        return 0
    schedule = named_schedule(name)
    if schedule is not None:
        return show_schedule(schedule, steps, output, json)
    try:
        found = explain(name, studies())
    except SpecError:
        if Path(name).is_dir():
            load_comparison(name)  # says what the folder lacks
        raise
    if json:
        return print_json(found)
    say(f"{found['signature']}\n\n{found['doc']}")
    for kind, line in found["also"].items():
        say(f"\nAlso the name of one of the {kind}: {line}")
    return 0


def cite(name: str, *, json: bool) -> int:
    """Print the references of a component.

    Args:
        name: a learner, value, scenario or study
    """
    from everlearn.comparison.listing import references
    from everlearn.studies.study import studies

    found = references(name, studies())
    if json:
        return print_json({"name": name, "references": found})
    say("\n".join(found))
    return 0


def check(learner: str, *, json: bool) -> int:
    """Hold a learner or agent (the house's or your own) to the contract, and name what breaks it.

    Args:
        learner: a call string such as replay(capacity=500) or package.module:MyLearner(rate=2)
    """
    from everlearn.comparison.job import reach
    from everlearn.comparison.listing import check_named

    reach(["", str(Path.cwd())])
    passed = check_named(learner)
    if json:
        return print_json({"learner": learner, "passed": passed})
    say("\n".join(f"ok  {line}" for line in passed) + f"\n{learner} keeps the contract ({len(passed)} checks).")
    return 0
