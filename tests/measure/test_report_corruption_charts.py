"""Corruptions in the report: figures of the record in both charts, and neither where there are none."""

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import render
from everlearn.measure.report.charts import MAKERS
from everlearn.measure.report.corruption_charts import (
    CLEAN,
    corruption_rounds,
    corruption_types,
    round_errors,
    type_errors,
)
from everlearn.measure.report.palette import looks_of
from everlearn.measure.report.reading import ranked, role
from everlearn.measure.report.scene import Scene
from everlearn.measure.report.words import verdict_of

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))


def figures(fog, snow, clean):
    """Of two rounds: the second is 0.1 worse."""
    rounds = [{"fog": fog + more, "snow": snow + more, "mean": (fog + snow) / 2 + more} for more in (-0.05, 0.05)]
    return {
        "mean_error": (fog + snow) / 2, "by_type": {"fog": fog, "snow": snow}, "by_severity": {}, "by_round": rounds,
        "clean": [0.1, clean, clean], "clean_before": 0.1, "clean_after": clean, "held_out": {}, "rows": 100,
    }  # fmt: skip


BY_SEED = (figures(0.3, 0.5, 0.12), figures(0.5, 0.7, 0.14))


@pytest.fixture(scope="module")
def plain():
    return records.class_incremental(seeds=(0, 1), experiences=3)


@pytest.fixture(scope="module")
def judged(plain):
    record = copy.deepcopy(plain)
    for entry in record["learners"]:
        for run, found in zip(entry["runs"], BY_SEED, strict=True):
            run["figures"]["corruption"] = copy.deepcopy(found)
    return record


def drawn(maker, record):
    verdict = verdict_of(record)
    able = [entry for entry in ranked(record["learners"]) if role(entry) != "failed"]
    assert maker in MAKERS
    return maker(Scene(record, verdict, able, looks_of(record["learners"], verdict)))


def test_errors_by_type_are_means_over_seeds(judged):
    rows = type_errors(judged["learners"][0])
    assert [(row["type"], row["mean"]) for row in rows] == [
        ("fog", pytest.approx(0.4)),
        ("snow", pytest.approx(0.6)),
        (CLEAN, pytest.approx(0.13)),
    ]
    assert rows[0]["low"] < 0.4 < rows[0]["high"]


def test_errors_by_round_and_clean_errors_from_deployment_on(judged):
    rows = [(row["panel"].split()[0], row["round"], round(row["mean"], 6)) for row in round_errors(judged["learners"][0])]
    assert rows == [
        ("Corrupted", 1, 0.45),
        ("Corrupted", 2, 0.55),
        ("Clean", 0, 0.1),
        ("Clean", 1, 0.13),
        ("Clean", 2, 0.13),
    ]


def test_both_charts_carry_the_numbers(judged):
    chart = drawn(corruption_types, judged)
    assert chart.table["type"][:3] == ["fog", "snow", CLEAN] and chart.table["mean"][:3] == pytest.approx([0.4, 0.6, 0.13])
    assert "errs on 50" in chart.title
    rounds = drawn(corruption_rounds, judged)
    assert rounds.panels == 2 and set(rounds.table["round"]) == {0, 1, 2}
    json.dumps([chart.spec, rounds.spec])


def test_one_round_has_no_chart_of_rounds(judged):
    record = copy.deepcopy(judged)
    for entry in record["learners"]:
        for run in entry["runs"]:
            found = run["figures"]["corruption"]
            found["by_round"], found["clean"] = found["by_round"][:1], found["clean"][:2]
    assert drawn(corruption_rounds, record) is None and drawn(corruption_types, record) is not None


def test_other_streams_show_nothing_of_it(plain):
    assert drawn(corruption_types, plain) is None and drawn(corruption_rounds, plain) is None


def test_the_page_shows_them(judged):
    page = render(judged)
    assert 'id="chart-corruption-types"' in page and 'id="chart-corruption-rounds"' in page
