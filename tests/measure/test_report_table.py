"""The table of learners, on the page and in the terminal: the same figures, the best marked, failures last."""

import runpy
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report.measures import BY_KEY, COLUMNS
from everlearn.measure.report.table import columns_of, lines
from everlearn.measure.report.terminal import terminal_summary, terminal_table

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))


@pytest.fixture(scope="module")
def record():
    return records.with_error()


def printed(thing, width=200):
    from rich.console import Console

    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(thing)
    return console.file.getvalue()


def test_rows_are_ranked_and_failures_come_last(record):
    found = lines(record)
    scores = [line.cells[0].value for line in found[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert found[-1].label == "online_ewc(strength=10.0)"
    assert found[-1].error.startswith("online_ewc: strength")


def test_marks_say_what_each_learner_stands_for(record):
    marks = {line.label: line.mark for line in lines(record)}
    assert marks[record["verdict"]["learner"]] == "recommended"
    assert marks[record["verdict"]["runner_up"]] == "runner-up"
    assert marks["retrain"] == "yardstick"
    assert marks["frozen"] == "not adapted"
    assert marks["derpp(capacity=500, alpha=0.5)"] == "over budget"
    assert marks["online_ewc(strength=10.0)"] == "failed"


def test_where_not_to_adapt_the_frozen_model_is_recommended():
    marks = {line.label: line.mark for line in lines(records.do_not_adapt())}
    assert marks["frozen"] == "recommended"
    assert marks["replay(capacity=1000)"] == "best that adapts"


def test_the_best_of_a_column_is_the_best_within_the_budget(record):
    keys = [item.key for item in columns_of(record)]
    for place, key in enumerate(keys):
        best = [line for line in lines(record) if line.cells[place : place + 1] and line.cells[place].best]
        assert all(line.role == "learner" for line in best)
        if key == "score":
            assert [line.label for line in best] == [record["verdict"]["learner"]]
        if key == "update_ms":
            assert [line.label for line in best] == ["nearest_mean"]


def test_a_cell_is_mean_and_half_width():
    record = records.class_incremental()
    entry = next(entry for entry in record["learners"] if entry["label"] == "replay(capacity=500)")
    row = next(line for line in lines(record) if line.label == "replay(capacity=500)")
    score = entry["summary"]["score"]
    assert row.cells[0].text == f"{100 * score['mean']:.1f}"
    assert row.cells[0].spread == f"± {100 * (score['high'] - score['low']) / 2:.1f}"
    replay = row.cells[[item.key for item in columns_of(record)].index("replay_bytes")]
    assert (replay.text, replay.spread) == ("392", "")  # 500 rows of 784 bytes, in kB


def test_one_seed_has_no_half_width():
    assert {cell.spread for line in lines(records.class_incremental(seeds=(0,))) for cell in line.cells} == {""}


def test_columns_without_figures_are_left_out():
    assert "forgetting" in [item.key for item in columns_of(records.class_incremental())]
    assert "forgetting" not in [item.key for item in columns_of(records.prequential())]
    assert set(COLUMNS) <= set(BY_KEY)


def test_the_terminal_has_the_same_figures_as_the_page(record):
    text = printed(terminal_table(record))
    for line in lines(record):
        assert line.label in text
        for cell in line.cells[:1]:
            assert f"{cell.text} {cell.spread}".strip() in text
    assert "online_ewc: strength" in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_terminal_fits_a_usual_window(record, width):
    text = printed(terminal_table(record), width=width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for line in lines(record):
        assert line.label[:20] in text
        assert line.mark in text
        if not line.error:
            assert f"{line.cells[0].text} {line.cells[0].spread}" in text
    assert "online_ewc(strength=10.0) failed: online_ewc: strength must be a number between 0 and 5" in flat
    assert "Adapt, with streaming_lda(shrinkage=0.0001)" in flat
    assert "better than leaving the model as it is." in flat


def test_the_summary_gives_the_verdict_and_four_answers(record):
    text = " ".join(printed(terminal_summary(record), width=100).split())
    assert text.startswith("Adapt, with streaming_lda(shrinkage=0.0001):")
    for question in ("Is adapting worth it here?", "Which learner, under this budget?", "What did it cost?"):
        assert question in text
    assert "`" not in text
