"""Few-shot sessions in the report: figures of the record in the chart and the table, and neither where there are none."""

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import render
from everlearn.measure.report.charts import MAKERS
from everlearn.measure.report.palette import looks_of
from everlearn.measure.report.reading import ranked, role
from everlearn.measure.report.scene import Scene
from everlearn.measure.report.sessions import session_curve, sessions, sessions_table
from everlearn.measure.report.words import verdict_of

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))

BY_SEED = (
    {
        "all": [0.9, 0.7, 0.6], "base": [0.9, 0.8, 0.7], "new": [None, 0.2, 0.3], "harmonic_mean": [None, 0.32, 0.42],
        "classes": [6, 8, 10], "average": 2.2 / 3, "performance_drop": 0.3,
    },
    {
        "all": [0.8, 0.7, 0.4], "base": [0.8, 0.8, 0.5], "new": [None, 0.4, 0.1], "harmonic_mean": [None, 0.5333, 0.1667],
        "classes": [6, 8, 10], "average": 1.9 / 3, "performance_drop": 0.4,
    },
)  # fmt: skip


def judged(record, labels=None):
    """The record with figures by session for some learners, of two seeds each."""
    record = copy.deepcopy(record)
    for entry in record["learners"]:
        if labels is None or entry["label"] in labels:
            for run, figures in zip(entry["runs"], BY_SEED, strict=True):
                run["figures"]["sessions"] = copy.deepcopy(figures)
    return record


@pytest.fixture(scope="module")
def plain():
    return records.class_incremental(seeds=(0, 1), experiences=3)


def rows(chart):
    keys = list(chart.table)
    return [dict(zip(keys, values, strict=True)) for values in zip(*chart.table.values(), strict=True)]


def sessions_of(record):
    verdict = verdict_of(record)
    able = [entry for entry in ranked(record["learners"]) if role(entry) != "failed"]
    assert sessions in MAKERS
    return sessions(Scene(record, verdict, able, looks_of(record["learners"], verdict)))


def test_a_curve_is_the_mean_over_seeds_from_the_first_session_that_has_the_figure(plain):
    entry = judged(plain)["learners"][0]
    assert [(row["session"], round(row["mean"], 12)) for row in session_curve(entry, "all")] == [
        (0, 0.85),
        (1, 0.7),
        (2, 0.5),
    ]
    assert [(row["session"], round(row["mean"], 12)) for row in session_curve(entry, "new")] == [(1, 0.3), (2, 0.2)]
    one = session_curve(entry, "all")[1]
    assert one["low"] == one["high"] == 0.7  # both seeds agree


def test_the_chart_has_a_panel_for_each_kind_and_the_numbers_of_the_record(plain):
    chart = sessions_of(judged(plain))
    assert chart.panels == 4 and chart.wide
    found = {(row["kind"], row["learner"], row["session"]): row["mean"] for row in rows(chart)}
    labels = [entry["label"] for entry in plain["learners"]]
    assert {kind for kind, _, _ in found} == {"All classes", "Base classes", "New classes", "Harmonic mean"}
    assert len(found) == len(labels) * (3 + 3 + 2 + 2)
    assert found["Base classes", labels[0], 2] == pytest.approx(0.6) and found[
        "New classes", labels[-1], 1
    ] == pytest.approx(0.3)
    assert "ends at 60 % on the base classes and at 20 % on those that came later".replace(
        " %", "\u00a0%"
    ) in chart.title.replace("\u202f", "\u00a0")
    json.dumps(chart.spec)


def test_the_title_is_about_a_learner_that_has_the_figures(plain):
    chosen = plain["learners"][1]["label"]
    assert chosen in sessions_of(judged(plain, [chosen])).title


def test_the_table_has_where_each_learner_ends(plain):
    found = sessions_table(judged(plain))
    assert found.sessions == 2
    assert [title for title, _, _ in found.headings] == [
        "All classes", "Base classes", "New classes", "Harmonic mean", "Average", "Drop",
    ]  # fmt: skip
    assert [unit for _, unit, _ in found.headings] == ["%"] * 5 + ["points"]
    label, cells = found.rows[0]
    assert label in [entry["label"] for entry in plain["learners"]]
    # two seeds: half-width = t(0.975, 1) * |a - b| / 2 = 12.706 * |a - b| / 2, cut off at 0 and 1 nowhere in a table
    assert [text for text, _ in cells] == ["50.0", "60.0", "20.0", "29.3", "68.3", "35.0"]
    assert cells[0][1] == "± 127.1" and cells[5][1] == "± 63.5"


def test_one_seed_has_no_interval(plain):
    record = records.class_incremental(seeds=(0,), experiences=3)
    for entry in record["learners"]:
        entry["runs"][0]["figures"]["sessions"] = copy.deepcopy(BY_SEED[0])
    assert sessions_table(record).rows[0][1][:3] == [("60.0", ""), ("70.0", ""), ("30.0", "")]


def test_other_streams_show_nothing_of_it(plain):
    assert sessions_table(plain) is None and sessions_of(plain) is None
    lone = judged(plain)
    for entry in lone["learners"]:
        for run in entry["runs"]:
            for key in ("all", "base", "new", "harmonic_mean", "classes"):
                run["figures"]["sessions"][key] = run["figures"]["sessions"][key][:1]
    assert sessions_table(lone) is None and sessions_of(lone) is None


def test_the_page_shows_table_and_chart(plain):
    page = render(judged(plain))
    assert "Few-shot sessions" in page and 'id="chart-sessions"' in page
    assert page.index("Few-shot sessions") > page.index("All learners")
    section = page[page.index('id="sessions-title"') : page.index("</section>", page.index('id="sessions-title"'))]
    assert "last of 2 sessions" in section and section.count("<tr>") == 1 + len(plain["learners"])
    assert "29.3" in section


def test_a_learner_that_failed_or_lacks_a_figure_is_no_obstacle(plain):
    record = judged(plain)
    first, second = record["learners"][:2]
    first |= {"error": "it stopped", "runs": [], "summary": {}}
    second["runs"][0]["figures"]["sessions"]["new"][-1] = None
    found = dict(sessions_table(record).rows)
    assert first["label"] not in found
    assert found[second["label"]][2] == ("–", "")
    assert [row["session"] for row in session_curve(second, "new")] == [1]
