"""The same table and verdict for the command line, drawn with rich."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from everlearn.measure.report.plain_words import plain_sentence
from everlearn.measure.report.table import columns_of, lines
from everlearn.measure.report.words import sentences, verdict_of, verdict_sentence

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

STYLES = {"adapt": "bold green", "do_not_adapt": "bold yellow", "too_close": "bold cyan"}
COLUMNS = {
    "score": "Score",
    "rmse": "RMSE",
    "forgetting": "Forgotten",
    "update_ms": "Update",
    "predict_ms_p99": "p99",
    "replay_bytes": "Replay",
}
SPREAD = ("score", "forgetting")  # columns in which the half-width stands beside the mean


def terminal_table(record: Mapping[str, Any]) -> "Table":
    """Learners with mean and half-width of the 95 % interval, best score first; the best within the budget is green.

    Returns a rich Table that fits 80 characters; its caption is the verdict in one sentence. Other measures are on the page.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="dim", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("Learner", overflow="fold", min_width=20, ratio=1)
    measures = [(place, item) for place, item in enumerate(columns_of(record)) if item.key in COLUMNS]
    for _, item in measures:
        table.add_column(f"{COLUMNS[item.key]}\n{item.unit}", justify="right", no_wrap=True)
    for line in lines(record):
        faint = "dim" if line.role in ("failed", "outside") else ""
        name = Text(line.label, style="bold" if line.mark == "recommended" else faint)
        if line.mark:
            name += Text(f"\n{line.mark}", style="green" if line.mark == "recommended" else "dim")
        texts = []
        for place, item in measures:
            cell = line.cells[place]
            texts.append(Text(cell.text, style="bold green" if cell.best else faint))
            if cell.spread and item.key in SPREAD:
                texts[-1] += Text(f" {cell.spread}", style="dim")
        table.add_row(name, *texts)
    table.caption = Text("\n").join(_notes(record))
    table.caption_justify = "left"
    return table


def _notes(record: Mapping[str, Any]) -> list["Text"]:
    """Why learners failed, the verdict, and whether plain SGD is enough."""
    from rich.text import Text

    failed = [Text(f"{line.label} failed: {line.error}", style="red") for line in lines(record) if line.error]
    verdict = Text(_plain(verdict_sentence(record)), style=STYLES[verdict_of(record)["code"]])
    enough = plain_sentence(record)
    return [*failed, verdict, *([Text(_plain(enough))] if enough else [])]


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
