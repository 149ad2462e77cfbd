"""The charts of the page: what their data are called, and that a program prints them without the rest of the house."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra 'serve' is missing")

from everlearn.serve.page import chart


def named(spec):
    """Every name of data in a specification."""
    found = {spec["data"]["name"]} if "name" in spec.get("data", {}) else set()
    for layer in spec.get("layer", []):
        found |= named(layer)
    return found


def test_the_charts_are_fed_by_points_and_marks():
    found = chart.charts()
    assert {name: named(spec) for name, spec in found.items()} == {"score": {"points", "marks"}, "lag": {"points", "marks"}}
    fields = json.dumps(found["score"]) + json.dumps(found["lag"])
    for field in ("time", "score", "lag", "kind"):
        assert f'"field": "{field}"' in fields


def test_every_kind_of_mark_has_a_colour_of_the_page():
    style = Path(chart.__file__).with_name("style.css").read_text()
    assert len(chart.MARKS) == len(chart.COLORS) == len(set(chart.COLORS))
    for color in chart.COLORS:
        assert f"{color.removeprefix('var(').removesuffix(')')}:" in style


def test_as_a_program_it_prints_the_charts_and_needs_nothing_of_the_house():
    told = subprocess.run([sys.executable, "-I", chart.__file__, "charts"], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == chart.charts()
    assert "everlearn" not in Path(chart.__file__).read_text().split('"""')[2]


def test_the_script_is_the_one_that_reports_carry():
    from everlearn.measure.report.page import vega

    assert runpy.run_path(chart.__file__)["script"]().replace("</script", "<\\/script") == vega()
