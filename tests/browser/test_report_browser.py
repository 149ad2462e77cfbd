"""The report in a real browser: nothing is asked of any network, every chart is drawn, phone, dark and print are right.

Needs Debian's chromium and chromium-driver (or CHROMIUM and CHROMEDRIVER in the environment); skipped where they are missing.
"""

import json
import os
import runpy
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import verdict_sentence, write_report

RECORDS = Path(__file__).parents[1] / "measure" / "test_report_records.py"
records = SimpleNamespace(**runpy.run_path(str(RECORDS)))
NAMES = ("class_incremental", "prequential", "do_not_adapt", "too_close", "with_error", "hostile", "large")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
)  # fmt: skip
WIDE, PHONE = (1280, 900), (390, 844)
pytestmark = [pytest.mark.browser, pytest.mark.slow]

CONTRAST = """
const number = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = number(getComputedStyle(at).backgroundColor);
    if (found.length < 4 || found[3] > 0.99) return found;
  }
  return [255, 255, 255];
};
const poor = [];
for (const element of document.querySelectorAll("body *:not(script):not(style):not(svg):not(svg *)")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const box = element.getBoundingClientRect();
  if (!own || !box.width || !box.height || element.closest(".skip")) continue;
  const [a, b] = [light(number(getComputedStyle(element).color)), light(ground(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push([element.tagName, element.className, element.textContent.slice(0, 30), ratio]);
}
for (const text of document.querySelectorAll(".chart svg text")) {
  if (!text.textContent.trim()) continue;
  const [a, b] = [light(number(getComputedStyle(text).fill)), light(ground(text.closest("figure")))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(["text", text.textContent, getComputedStyle(text).fill, ratio]);
}
return poor;
"""


class Page:
    """A Chromium with one report in it."""

    def __init__(self, driver, folder):
        self.driver = driver
        self.folder = folder

    def open(self, name, size=WIDE, scheme="light", media=""):
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get((self.folder / f"{name}.html").as_uri())
        self.wait("return document.documentElement.dataset.ready === 'true'")

    def wait(self, script, seconds=30):
        end = time.monotonic() + seconds
        while not self.driver.execute_script(script):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.05)

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def requests(self):
        """Addresses that the page asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@contextmanager
def started(profile):
    """A browser with an empty page: its own first page, which asks for pictures of its own, is gone."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
    service = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not browser or not service:
        pytest.skip(
            "Chromium or its driver is missing: apt install chromium chromium-driver, or set CHROMIUM and CHROMEDRIVER"
        )
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install 'everlearn[dev]'")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service))
    try:
        driver.get("about:blank")
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for name in NAMES:
        write_report(getattr(records, name)(), folder / f"{name}.html")
    with started(tmp_path_factory.mktemp("profile")) as driver:
        yield Page(driver, folder)


@pytest.mark.parametrize("name", NAMES)
def test_every_chart_is_drawn_without_a_complaint_or_a_request(page, name):
    page.open(name)
    assert page.complaints() == []
    assert page.requests() == [(page.folder / f"{name}.html").as_uri()]
    boxes = page.run(
        "return [...document.querySelectorAll('.chart')].map((box) => { const svg = box.querySelector('svg');"
        "const size = svg?.getBoundingClientRect(); return [box.id, size?.width, size?.height,"
        "svg?.querySelectorAll('path, rect, text').length, svg?.closest('[aria-label]')?.getAttribute('aria-label'), size && size.right - "
        "box.getBoundingClientRect().right]; })"
    )
    assert len(boxes) >= 6
    for identifier, width, height, marks, described, beyond in boxes:
        assert width > 200, identifier
        assert height > 60, identifier
        assert marks > 8, identifier
        assert described, identifier
        assert beyond <= 1, identifier


@pytest.mark.parametrize("name", NAMES)
def test_a_phone_shows_the_verdict_first_and_never_scrolls_sideways(page, name):
    page.open(name, PHONE)
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    text, bottom = page.run("const h = document.querySelector('h1'); return [h.innerText, h.getBoundingClientRect().bottom]")
    assert " ".join(text.split()) == " ".join(verdict_sentence(getattr(records, name)()).replace("`", "").split())
    assert bottom <= PHONE[1]
    scrolls = page.run("const box = document.querySelector('.scroll'); return box.scrollWidth > box.clientWidth")
    assert scrolls  # the table scrolls inside its own box
    assert page.complaints() == []


def test_dark_is_dark_and_light_is_light(page):
    page.open("class_incremental", scheme="dark")
    assert max(page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) < 40
    assert min(page.run("return getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")) > 200
    line = "return getComputedStyle(document.querySelector('#chart-held_out path[stroke=\"var(--hue-1)\"]')).stroke"
    dark = page.run(line)
    page.open("class_incremental", scheme="light")
    assert min(page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) > 230
    assert page.run(line) != dark


def test_print_is_light_even_for_a_dark_screen(page):
    page.open("class_incremental", scheme="dark", media="print")
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("return getComputedStyle(document.querySelector('.choice')).display") == "none"
    assert page.run("return getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["with_error", "do_not_adapt", "too_close"])
def test_all_text_has_a_contrast_of_four_and_a_half(page, name, scheme):
    page.open(name, scheme=scheme)
    assert page.run(CONTRAST) == []


def test_the_check_of_contrast_would_find_poor_text(page):
    page.open("too_close")
    page.run("document.querySelector('h1').style.color = '#aaaaaa'")
    assert [found[0] for found in page.run(CONTRAST)][:1] == ["H1"]


def test_what_a_user_wrote_never_runs(page):
    page.open("hostile")
    assert page.run("return document.images.length") == 0
    assert page.run("return document.querySelectorAll('script').length") == 3
    assert "<img src=x onerror=alert(1)>" in page.run("return document.querySelector('main').innerText")


def column(page, number):
    return page.run(
        "return [...document.querySelectorAll('#learners tbody tr')].map((row) => row.cells[arguments[0]]?.dataset.value ?? '')",
        number,
    )


def test_a_heading_sorts_the_table_both_ways_and_keeps_gaps_last(page):
    page.open("with_error")
    score = [float(value) for value in column(page, 1) if value]
    assert score == sorted(score, reverse=True)
    click = "document.querySelectorAll('#learners thead button')[arguments[0]].click()"
    page.run(click, 4)
    times = column(page, 4)
    assert [float(value) for value in times[:-1]] == sorted(float(value) for value in times[:-1])
    assert times[-1] == ""  # the learner that failed
    page.run(click, 4)
    times = column(page, 4)
    assert [float(value) for value in times[:-1]] == sorted((float(value) for value in times[:-1]), reverse=True)
    assert times[-1] == ""
    states = page.run(
        "return [...document.querySelectorAll('#learners thead th')].map((head) => head.getAttribute('aria-sort'))"
    )
    assert states.count("descending") == 1
    assert states[4] == "descending"
    page.run(click, 0)
    assert column(page, 0) == sorted(column(page, 0))


def test_a_press_on_the_legend_brings_a_learner_forward_in_every_chart(page):
    page.open("class_incremental")
    faint = (
        "return ['held_out', 'cost'].map((name) => [...document.querySelectorAll(`#chart-${name} svg [stroke='var(--hue-3)'],"
        "#chart-${name} svg [fill='var(--hue-3)']`)].map((mark) => Number(mark.getAttribute('opacity') ?? 1)))"
    )
    before = page.run(faint)
    assert all(values for values in before)
    page.run("document.querySelector('.chip[data-learner=\"frozen\"]').click()")
    page.wait(f"return JSON.stringify((() => {{ {faint} }})()) !== {json.dumps(json.dumps(before, separators=(',', ':')))}")
    assert max(max(values) for values in page.run(faint)) <= 0.2
    assert page.run("return document.querySelectorAll('.chip[aria-pressed=true]').length") >= 2
    page.run("document.querySelector('.chip[data-learner=\"frozen\"]').click()")
    page.wait(f"return JSON.stringify((() => {{ {faint} }})()) === {json.dumps(json.dumps(before, separators=(',', ':')))}")


def test_the_matrix_shows_the_learner_that_is_chosen(page):
    page.open("class_incremental")
    cells = (
        "return [...document.querySelectorAll('#chart-matrix .mark-text text')].map((text) => text.textContent).join(' ')"
    )
    before = page.run(cells)
    page.run(
        "const select = document.querySelector('select[data-chart=matrix]'); select.value = 'fine_tune';"
        "select.dispatchEvent(new Event('change'))"
    )
    page.wait(f"return (() => {{ {cells} }})() !== {json.dumps(before)}")
    entry = next(entry for entry in records.class_incremental()["learners"] if entry["label"] == "fine_tune")
    first = sum(run["figures"]["matrix"]["matrix"][0][0] for run in entry["runs"]) / 3
    assert f"{100 * first:.0f}%" in page.run(cells).split()


@pytest.mark.parametrize("chart", ["held_out", "cost", "matrix", "forgetting", "plasticity", "classes", "drift"])
def test_what_is_under_the_pointer_is_told_in_words(page, chart):
    page.open("class_incremental")
    page.run(
        "document.getElementById(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", f"chart-{chart}"
    )
    marks = f"#chart-{chart} :is(.mark-symbol, .mark-rect) > path[aria-label]"
    spots = page.run(
        "return [...document.querySelectorAll(arguments[0])].map((mark) => mark.getBoundingClientRect()).filter((box) => box.top > 0"
        " && box.bottom < innerHeight && box.width < 600).map((box) => [box.left + box.width / 2, box.top + box.height / 2])",
        marks,
    )
    assert spots
    for x, y in spots[:: max(1, len(spots) // 8)]:
        for step in (-2, -1, 0):  # a pointer comes by steps
            page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x + step, "y": y})
        page.wait("return document.querySelector('#vg-tooltip-element.visible') !== null")
        text = page.run("return document.getElementById('vg-tooltip-element').innerText")
        assert "undefined" not in text
        assert "NaN" not in text
        assert text.split()[0] in ("Learner", "Class", "Detector", "Here", "Measure"), text
    assert page.complaints() == []


def test_panels_follow_the_width_of_the_window(page):
    page.open("class_incremental")
    widths = "return [...document.querySelectorAll('#chart-classes svg')].map((svg) => svg.getBoundingClientRect().width)[0]"
    wide = page.run(widths)
    metrics = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.wait(f"return (() => {{ {widths} }})() < {wide - 200} && document.documentElement.scrollWidth <= 700")
    assert page.complaints() == []
