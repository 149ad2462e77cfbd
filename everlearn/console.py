"""What the command line shows: progress on standard error, tables and figures on standard output."""

import json
from typing import Any


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
        self.task = self.progress.add_task(title, total=1.0, runs="")

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def move(self, share: float, done: int, total: int) -> None:
        """Show a share done (0..1), and how many runs of how many are."""
        self.progress.update(self.task, completed=share, runs=f"{done}/{total} runs")


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console()


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
    screen.print(terminal_table(record))
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
