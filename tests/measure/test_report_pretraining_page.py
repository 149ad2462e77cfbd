"""The page of a pre-training: figures in words and tables, charts that show what they should, nothing that asks for anything."""

import json
import re

import pytest

from everlearn.measure.report.pretraining_page import headline, render_pretraining, rows_of, tiles_of, write_pretraining_page


def record_of(**changes):
    points = []
    for phase in range(2):
        for within in range(1, 5):
            update, fork = 4 * phase + within, within > 3
            point = {
                "update": update,
                "step": update,
                "phase": phase,
                "fork": fork,
                "lr": 0.1 / within,
                "loss": 3.0 - 0.1 * update,
            }
            if within in (2, 4):
                point["held_out"] = {"en": 2.0 + phase, "de": 4.0 - phase}
            points.append(point | ({"delivered": True} if within == 4 else {}))
    return {
        "kind": "pretraining",
        "schedule": "infinite(0.1, warmup=1, cooldown_end=2)",
        "domains": ["en", "de"],
        "steps": 4,
        "anneal": 1,
        "delivered": [[2.0, 4.0], [3.0, 3.5]],
        "forgetting": [1.0, 0.0],
        "learning": [None, 0.5],
        "final": 3.25,
        "rewarming": 0.75,
        "updates": 8,
        "rows": 64,
        "rows_per_second": 12.4,
        "tokens_per_second": 1234.5,
        "processes": 2,
        "curve": points,
        "environment": {"everlearn": "0", "torch": "2"},
        **changes,
    }


def charts(page):
    text = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(text)


def values(chart):
    """The values of the layer that is not the borders."""
    sets = chart.get("datasets", {})
    found = []
    for layer in chart["layer"]:
        data = layer.get("data", chart.get("data", {}))
        found.append(sets.get(data.get("name"), data.get("values")))
    return max((rows for rows in found if rows), key=len)


def test_the_headline_names_what_was_forgotten_most():
    assert headline(record_of()) == "After 2 domains the mean held-out loss is 3.25; most forgotten: `en`, by 1"
    assert "nothing was forgotten" in headline(record_of(forgetting=[-0.5, 0.0]))
    assert headline(record_of(domains=["en"], final=2.0)) == "`en` learned: held-out loss 2"


def test_the_table_has_each_model_and_what_phases_took():
    assert rows_of(record_of()) == [
        ["after en", "2.000", "4.000"],
        ["after de", "3.000", "3.500"],
        ["forgotten since", "1.000", "0.000"],
        ["learned in its phase", "–", "0.500"],
    ]
    assert rows_of(record_of(forgetting=[-1.0, 0.0]))[2][1] == "−1.000"


def test_the_tiles_say_what_it_cost():
    tiles = {name: (figure, beside) for name, figure, beside in tiles_of(record_of())}
    assert tiles["Updates"] == ("8", "64 rows") and tiles["Speed"] == ("1,234", "tokens a second, 2 processes")
    assert tiles["Rise within a phase"][0] == "0.75"
    told = {name: figure for name, figure, _ in tiles_of(record_of(tokens_per_second=None, rewarming=None, processes=1))}
    assert told["Speed"] == "12" and told["Rise within a phase"] == "–"
    beside = {name: text for name, _, text in tiles_of(record_of(tokens_per_second=None))}
    assert beside["Speed"].startswith("images")


def test_the_charts_hold_every_point_once():
    drawn = charts(render_pretraining(record_of()))
    assert set(drawn) == {"rate", "held", "loss"}
    rate = values(drawn["rate"])
    assert [row["lr"] for row in rate] == pytest.approx([0.1, 0.05, 0.1 / 3, 0.025] * 2)
    assert [row["line"] for row in rate] == (["main line"] * 3 + ["fork"]) * 2
    held = values(drawn["held"])
    assert len(held) == 8 and sum(row["delivered"] for row in held) == 4
    assert [row["loss"] for row in values(drawn["loss"])] == pytest.approx([3.0 - 0.1 * update for update in range(1, 9)])


def test_borders_and_forks_are_marked():
    text = json.dumps(charts(render_pretraining(record_of()))["held"])
    assert '{"update": 4, "kind": "de begins"}' in text
    assert '{"update": 3, "kind": "fork, delivered after en"}' in text and '{"update": 7,' in text
    plain = json.dumps(charts(render_pretraining(record_of(anneal=0)))["held"])
    assert "fork, delivered" not in plain and "!datum.delivered" not in plain


def test_the_page_asks_for_nothing_and_escapes_what_a_user_wrote(tmp_path):
    page = render_pretraining(record_of(domains=["<script>alert(1)</script>", "de"]))
    assert "<script>alert(1)" not in page and "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["']https?:""", page.split('<script type="application/json"')[0])
    write_pretraining_page(record_of(), tmp_path / "page.html")
    assert "after en" in (tmp_path / "page.html").read_text()
