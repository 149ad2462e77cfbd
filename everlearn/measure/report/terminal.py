"""The same table and verdict for the command line, drawn with rich."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from everlearn.measure.report.table import columns_of, lines
from everlearn.measure.report.words import sentences, verdict_of, verdict_sentence

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

STYLES = {"adapt": "bold green", "do_not_adapt": "bold yellow", "too_close": "bold cyan"}
COLUMNS = ("score", "forgetting", "update_ms", "predict_ms_p99", "seconds", "replay_bytes")  # the rest is on the page
SPREAD = ("score", "forgetting")  # columns in which the half-width stands beside the mean


def terminal_table(record: Mapping[str, Any]) -> "Table":
    """Learners with mean and half-width of the 95 % interval, best score first; the best within the budget is green.

    Returns a rich Table, whose title is the verdict in one sentence.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = Text(_plain(verdict_sentence(record)), style=STYLES[verdict_of(record)["code"]])
    table = Table(title=title, title_justify="left", header_style="dim", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Learner", overflow="fold", min_width=16)
    measures = columns_of(record)
    kept = [place for place, item in enumerate(measures) if item.key in COLUMNS]
    for item in (measures[place] for place in kept):
        table.add_column(f"{item.title}\n{item.unit}".rstrip(), justify="right")
    table.add_column("", overflow="fold")
    for line in lines(record):
        faint = "dim" if line.role in ("failed", "outside") else ""
        texts = []
        for place in kept:
            cell = line.cells[place]
            texts.append(Text(cell.text, style="bold green" if cell.best else faint, no_wrap=True))
            if cell.spread and measures[place].key in SPREAD:
                texts[-1] += Text(f" {cell.spread}", style="dim")
        style = "bold" if line.mark == "recommended" else faint
        table.add_row(
            Text(line.label, style=style), *texts, Text(line.error or line.mark, style="red" if line.error else style)
        )
    return table


def terminal_summary(record: Mapping[str, Any]) -> "Text":
    """The verdict and the first paragraph of each answer, for printing under the table."""
    from rich.text import Text

    text = Text()
    text.append(_plain(verdict_sentence(record)) + "\n", style=STYLES[verdict_of(record)["code"]])
    for question, paragraphs in sentences(record):
        text.append(f"\n{question}\n", style="bold")
        text.append(_plain(paragraphs[0]) + "\n")
    return text


def _plain(text: str) -> str:
    return text.replace("`", "")
