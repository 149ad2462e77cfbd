"""The same table and verdict for the command line, drawn with rich."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from everlearn.measure.report.table import columns_of, lines
from everlearn.measure.report.words import sentences, verdict_sentence

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

STYLES = {"adapt": "bold green", "do_not_adapt": "bold yellow", "too_close": "bold cyan"}


def terminal_table(record: Mapping[str, Any]) -> "Table":
    """Learners with mean and half-width of the 95 % interval, best score first; the best of each column is bold.

    Returns a rich Table, whose title is the verdict in one sentence.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_plain(verdict_sentence(record))), title_style="bold", title_justify="left", header_style="dim")
    table.add_column("Learner", overflow="fold")
    for item in columns_of(record):
        table.add_column(f"{item.title}\n{item.unit}".rstrip(), justify="right", no_wrap=True)
    table.add_column("")
    for line in lines(record):
        faint = "dim" if line.role in ("failed", "outside") else ""
        texts = []
        for cell in line.cells:
            figure = Text(cell.text, style="bold green" if cell.best else faint)
            texts.append(figure + Text(f" {cell.spread}", style="dim") if cell.spread else figure)
        style = "bold" if line.mark == "recommended" else faint
        table.add_row(
            Text(line.label, style=style), *texts, Text(line.error or line.mark, style="red" if line.error else style)
        )
    return table


def terminal_summary(record: Mapping[str, Any]) -> "Text":
    """The verdict and the first paragraph of each answer, for printing under the table."""
    from rich.text import Text

    text = Text()
    text.append(_plain(verdict_sentence(record)) + "\n", style=STYLES[_code(record)])
    for question, paragraphs in sentences(record):
        text.append(f"\n{question}\n", style="bold")
        text.append(_plain(paragraphs[0]) + "\n")
    return text


def _code(record: Mapping[str, Any]) -> str:
    from everlearn.measure.report.words import verdict_of

    return verdict_of(record)["code"]


def _plain(text: str) -> str:
    return text.replace("`", "")
