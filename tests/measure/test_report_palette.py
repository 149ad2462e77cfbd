"""Learners look alike in no two cases, and colours keep their contrast and stay apart for colour-blind readers."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from everlearn.measure import report
from everlearn.measure.report.palette import HUES, looks, looks_of

STYLE = (Path(report.__file__).parent / "style.css").read_text()
# Machado, Oliveira & Fernandes (2009), severity 1.0, on linear RGB.
BLIND = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def themes():
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    found = {}
    for name, block in (("light", light), ("dark", light + dark)):
        found[name] = {key: value for key, value in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)}  # noqa: C416
    return found


def linear(color):
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    light, dark = sorted((float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(matrix @ rgb / [0.9505, 1.0, 1.089], 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half_and_marks_of_three(theme):
    colors = themes()[theme]
    for text in ("ink", "muted", "bad", "good"):
        for ground in ("page", "card"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert contrast(colors["ink"], colors["code"]) >= 4.5
    assert contrast(colors["muted"], colors["code"]) >= 4.5
    for badge in ("good", "caution", "open"):
        assert contrast(colors["on-badge"], colors[badge]) >= 4.5
    for mark in ("frozen", "accent", *(f"hue-{number + 1}" for number in range(HUES))):
        assert contrast(colors[mark], colors["card"]) >= 3.0, mark


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_on_the_heat_map_can_be_read_at_every_shade(theme):
    colors = themes()[theme]

    def encoded(rgb):
        return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)

    def plain(color):
        return np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255

    for value in np.linspace(0, 1, 21):
        opacity = 0.05 + 0.95 * value  # the scale of `shade`
        ground = encoded(opacity * plain(colors["heat"]) + (1 - opacity) * plain(colors["card"]))
        assert contrast(colors["ink"], ground) >= 4.5, value


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("sight", list(BLIND))
def test_hues_stay_apart_for_every_kind_of_sight(theme, sight):
    colors = themes()[theme]
    names = [f"hue-{number + 1}" for number in range(HUES)] + ["frozen"]
    seen = {name: lab(np.clip(BLIND[sight] @ linear(colors[name]), 0, 1)) for name in names}
    for first, second in combinations(names, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 15, (first, second)  # six times what is just noticeable


def entry(label, name="replay", reference=False):
    return {"label": label, "name": name, "reference": reference, "error": None, "summary": {"score": {"mean": 0.5}}}


def test_no_two_learners_look_alike():
    many = [entry(f"replay(capacity={number})") for number in range(1, 21)]
    found = looks([entry("frozen", "frozen"), entry("retrain", "retrain", True), entry("other", "oracle", True), *many])
    assert len({(look.color, tuple(look.dash)) for look in found.values()}) == 23
    assert found["frozen"].color == "var(--frozen)"
    assert found["retrain"].color == found["other"].color == "var(--ink)"


def test_those_that_stand_side_by_side_never_share_a_hue():
    many = [entry(f"replay(capacity={number})") for number in range(1, 9)] + [entry("fine_tune", "fine_tune")]
    verdict = {"learner": "replay(capacity=8)", "runner_up": "replay(capacity=2)"}
    found = looks_of(many, verdict)
    assert [found[label].color for label in (*verdict.values(), "fine_tune")] == [f"var(--hue-{n})" for n in (1, 2, 3)]
    assert all(not found[label].dash for label in (*verdict.values(), "fine_tune"))
