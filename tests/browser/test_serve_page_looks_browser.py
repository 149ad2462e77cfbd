"""How the live page looks in a real browser: phones, dark, print, hostile texts, contrast, and what a screen reader is told.

Needs Debian's chromium and chromium-driver (or CHROMIUM and CHROMEDRIVER in the environment); skipped where they are missing.
"""

import math
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is missing")

from .served_page import PHONE, button, report, states

pytestmark = [pytest.mark.browser, pytest.mark.slow]


# ---- how it looks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", states.STATES)
def test_a_phone_shows_the_headline_first_and_never_scrolls_sideways(page, serve, name):
    server = serve(states.STATES[name]())
    page.visit(server.address, PHONE)
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    if name not in ("hostile", "large"):
        assert page.run("return document.querySelector('h1').getBoundingClientRect().bottom") < PHONE[1] / 2
    wide = page.run(
        "return [...document.querySelectorAll('#whole *')].filter((e) => e.getBoundingClientRect().right > 361)"
        ".filter((e) => !e.closest('.heard, svg'))"
        ".map((e) => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))"
    )
    assert wide == []


def test_the_dialog_fits_a_phone(page, serve):
    page.visit(serve(states.large()).address, PHONE)
    page.run("[...document.querySelectorAll('[data-roll-back]')].find((one) => !one.hidden).click()")
    box = page.run(
        "const b = document.getElementById('back').getBoundingClientRect(); return [b.left, b.right, b.top, b.bottom]"
    )
    assert box[0] >= 0
    assert box[1] <= PHONE[0]
    assert box[2] >= 0
    assert box[3] <= PHONE[1]
    assert page.run("const d = document.getElementById('back'); return d.scrollWidth <= d.clientWidth")


def test_many_versions_are_shown_when_asked_for(page, serve):
    server = serve(states.large())
    page.visit(server.address)
    count = "return document.querySelectorAll('[data-list=versions] tr').length"
    assert page.run(count) == 20
    more = page.find("[data-more=versions]")
    assert more.text == "Show all 200"
    page.run("arguments[0].click()", more)
    assert page.run(count) == 200
    order = page.run(
        "return [...document.querySelectorAll('[data-list=versions] tr')].map((row) => Number(row.dataset.item))"
    )
    assert order == sorted(order, reverse=True)
    time.sleep(2.5)  # the next figures leave it open
    assert page.run(count) == 200
    assert page.run("return arguments[0].getAttribute('aria-expanded')", more) == "true"
    page.run("arguments[0].click()", more)
    assert page.run(count) == 20


def test_what_a_user_wrote_never_runs(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    page.run("window.alert = () => { window.harmed = true }")
    state = states.hostile()
    state["status"]["time"] += 1
    server.engine.state.update(state)
    page.until("#headline", "learning has stopped")
    assert page.run("return document.images.length") == 0
    assert page.run("return document.querySelectorAll('script').length") == 2  # the page's own, and that of the charts
    assert page.run("return window.harmed === undefined")
    assert page.text("#whole").count("<img src=x onerror=alert(1)>") > 8
    assert page.complaints() == []


def test_a_text_that_turns_direction_turns_nothing_else(page, serve):
    page.visit(serve(states.hostile()).address)
    bidi = page.run(
        "return ['[data-text=beneath]', '[data-field=message]', '[data-field=reason]', '[data-field=who]', '[data-text=model]'].map("
        "(one) => getComputedStyle(document.querySelector(one)).unicodeBidi)"
    )
    assert set(bidi) <= {"isolate", "plaintext"}
    times = page.run(
        "return [...document.querySelectorAll('[data-list=alarms] time')].map((one) => one.getBoundingClientRect().right)"
    )
    assert max(times) - min(times) < 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["troubled", "failed", "fresh"])
def test_all_text_has_a_contrast_of_four_and_a_half(page, serve, name, scheme):
    page.visit(serve(states.STATES[name]()).address, scheme=scheme)
    assert page.run(report.CONTRAST) == []
    if name == "troubled":
        button(page, 4).click()
        assert page.run(report.CONTRAST.replace('"body *', '"#back *')) == []


def test_dark_is_dark_and_light_is_light(page, serve):
    server = serve(states.troubled())
    ground = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    page.visit(server.address, scheme="dark")
    assert max(page.run(ground)) < 40
    page.visit(server.address, scheme="light")
    assert min(page.run(ground)) > 230


def test_print_is_light_and_without_buttons(page, serve):
    page.visit(serve(states.troubled()).address, scheme="dark", media="print")
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = page.run(
        "return [...document.querySelectorAll('button')].filter((one) => one.getBoundingClientRect().width > 0).length"
    )
    assert shown == 0


def test_nothing_moves_for_those_who_ask_for_that(page, serve):
    moving = "return getComputedStyle(document.querySelector('.dot')).animationName"
    for motion, found in (("no-preference", "wait"), ("reduce", "none")):
        server = serve(states.healthy())
        page.visit(server.address, motion=motion)
        server.engine.away = True
        page.until("#link-text", "reconnecting")
        assert page.run(moving) == found


def test_every_control_has_a_name_and_every_row_its_roles(page, serve):
    page.visit(serve(states.troubled()).address)
    nameless = page.run(
        "return [...document.querySelectorAll('button, input, textarea')].filter((one) => !(one.labels?.length || one.textContent.trim()))"
        ".map((one) => one.id)"
    )
    assert set(nameless) <= {"learn-do"}  # is named when its dialog opens
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("table") == 1
    assert roles.count("row") == 9
    assert roles.count("rowheader") == 8
    assert roles.count("heading") == 5
    names = {node["name"]["value"] for node in tree if not node["ignored"] and node["role"]["value"] == "button"}
    assert {"Pause learning", "Roll back to version 4"} <= {" ".join(name.split()) for name in names}


def test_a_chart_without_a_single_score_says_so(page, serve):
    state = states.healthy()
    for point in state["series"]:
        point["score"] = None
    page.visit(serve(state).address)
    assert page.text("#chart-none") == "Once answers come, the score is drawn here."
    assert math.isclose(page.run("return document.querySelectorAll('.chart svg').length"), 0)
