"""What the command line shows: progress on standard error, tables and figures on standard output."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TITLE = 30  # characters; the bar and the time left need the others of a line of 80


class Bar:
    """A progress bar on standard error, with an estimate of the time left."""

    def __init__(self, title: str, quiet: bool):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[runs]}"))
        self.progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        self.task = self.progress.add_task(title if len(title) <= TITLE else title[: TITLE - 1] + "…", total=1.0, runs="")

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def move(self, share: float, done: int, total: int, unit: str = "runs") -> None:
        """Show a share done (0..1), and how many runs (or other units) of how many are."""
        self.progress.update(self.task, completed=share, runs=f"{done}/{total} {unit}")


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning as one line on standard error, without the line of code that it came from."""
    told = set()

    def show(message: Warning | str, *where: Any, **options: Any) -> None:
        if str(message) not in told:
            told.add(str(message))
            print(f"everlearn: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def say(text: str) -> None:
    """Print a line as it is."""
    print(text)


def print_json(value: Any) -> int:
    """Print one JSON document; the exit code 0."""
    print(json.dumps(value, indent=1))
    return 0


def print_comparison(record: dict[str, Any]) -> None:
    """Print the table of a comparison and the answers to its first two questions."""
    from everlearn.measure.report import sentences, terminal_table

    screen = console()
    table = terminal_table(record)
    note, table.caption = table.caption, None  # under the table it would be as narrow as the table
    screen.print(table)
    screen.print(note)
    for question, answers in sentences(record)[:2]:
        screen.print(f"[bold]{question}[/bold]")
        for answer in answers:
            screen.print(answer, highlight=False, markup=False)


def print_figures(figures: dict[str, Any]) -> None:
    """Print the single numbers among a run's figures, a line for each monitor."""
    for monitor, values in figures.items():
        plain = {key: value for key, value in values.items() if isinstance(value, (int, float))}
        if plain:
            say(f"{monitor}: " + ", ".join(f"{key} {value:.4g}" for key, value in plain.items()))


def show_schedule(schedule: Any, steps: int | None, output: str | None, json: bool) -> int:
    """Print a schedule as bars, or its values as JSON, and draw it into a file where one is named; the exit code 0."""
    from everlearn.measure.schedule_plot import bars, plot_schedules, shown_steps

    last = shown_steps(schedule) if steps is None else steps
    picture = bars(schedule, last)
    path = None if output is None else plot_schedules({repr(schedule): schedule}, last, output)
    if json:
        return print_json({"schedule": repr(schedule), "values": [schedule(step) for step in range(last + 1)]})
    say(f"{schedule!r}\n\n{picture}" + ("" if path is None else f"\n\nfigure: {path}"))
    return 0
