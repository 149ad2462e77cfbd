"""The live page in a real browser: it follows the server, acts on it, and holds for phones, dark, print, keyboard and hostile texts.

Needs Debian's chromium and chromium-driver (or CHROMIUM and CHROMEDRIVER in the environment); skipped where they are missing.
"""

import json
import math
import random
import runpy
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is missing")

from everlearn.serve.page.routes import Files  # noqa: E402
from everlearn.serve.page.view import view  # noqa: E402

TESTS = Path(__file__).parents[1]
states = SimpleNamespace(**runpy.run_path(str(TESTS / "serve" / "page_states.py")))
report = SimpleNamespace(**runpy.run_path(str(TESTS / "browser" / "test_report_browser.py")))
FILES = Files()  # so that the script of the charts is made once
WIDE, PHONE = (1280, 900), (360, 780)
READY = "return document.documentElement.dataset.ready === 'true'"
DRAWN = (
    "const none = document.getElementById('chart-none');"
    "return document.documentElement.dataset.drawn === 'true' || !(none.hidden || none.textContent.includes('on its way'))"
)
pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Server:
    """A stub of an engine behind uvicorn, on a port that it keeps."""

    def __init__(self, state, tokens=None):
        self.engine = states.StubEngine(state)
        self.asked = []
        self.app = states.stub_app(self.engine, tokens, FILES)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.start()

    async def counted(self, scope, receive, send):
        """The app, with a list of the addresses that are asked for."""
        if scope["type"] == "http":
            self.asked.append(scope["path"])
        await self.app(scope, receive, send)

    def start(self):
        """Begin to answer, or do so again."""
        config = uvicorn.Config(
            self.counted, interface="asgi3", host="127.0.0.1", port=self.port, log_level="error", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        end = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)

    def stop(self):
        """Answer nobody any more."""
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


class Page(report.Page):
    """A Chromium with the page of a server in it."""

    def visit(self, address, size=WIDE, scheme="light", media="", motion="no-preference", ready=READY, drawn=True):
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(address)
        self.wait(ready)
        if drawn:
            self.wait(DRAWN)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def until(self, selector, told, seconds=12):
        """Wait until an element holds a text."""
        end = time.monotonic() + seconds
        while told not in (seen := self.text(selector)):
            assert time.monotonic() < end, f"{selector} never held {told!r}, but {seen!r}"
            time.sleep(0.05)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def module(self, name):
        """The address of one of the page's own scripts."""
        return self.run("return new URL(arguments[0], document.querySelector('script[type=module]').src).href", name)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with report.started(tmp_path_factory.mktemp("profile")) as driver:
        yield Page(driver, None)


@pytest.fixture
def serve():
    running = []

    def start(state, tokens=None):
        running.append(Server(state, tokens))
        return running[-1]

    yield start
    for server in running:
        if server.thread.is_alive():
            server.stop()


# ---- what it shows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", states.STATES)
def test_every_state_is_shown_without_a_complaint_or_another_host(page, serve, name):
    server = serve(states.STATES[name]())
    page.visit(server.address)
    assert page.complaints() == []
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert [url for url in page.requests() if not url.startswith((server.address, "data:", "about:"))] == []
    drawn = page.run("return document.querySelectorAll('.chart:not([hidden]) svg').length")
    assert drawn == (0 if name in ("fresh", "nothing", "unstarted") else 2)
    assert "{{" not in page.text("body").replace(states.HOSTILE.replace("\u202e", ""), "").replace("{{7*7}}", "")


@pytest.mark.parametrize("name", states.STATES)
def test_the_server_and_the_browser_write_the_same(page, serve, name):
    server = serve(states.STATES[name]())
    page.visit(server.address)
    theirs, ours = twin(page, server.engine.state), as_json(view(server.engine.state))
    for part in ours:
        assert theirs[part] == ours[part]
    lists = "[data-list], [data-text], [data-none], .acts"
    first, now = page.driver.execute_async_script(
        "const done = arguments[1]; const tidy = (text) => text.replace(/\\s+/g, ' ').trim();"
        "const read = (page) => [...page.querySelectorAll(arguments[0])].map((e) => [e.hidden, e.dataset.list ? [...e.children].map((c) =>"
        " [c.dataset.item, c.dataset.state, c.dataset.tone, tidy(c.textContent)]) : tidy(e.textContent)]);"
        "fetch('.').then((answer) => answer.text()).then((html) => done([read(new DOMParser().parseFromString(html, 'text/html')),"
        " read(document)]))",
        lists,
    )
    assert len(first) > 15
    assert now == first


def test_any_figures_are_written_the_same_by_both(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    draw = random.Random(0)
    for _ in range(120):
        state = shaken(draw)
        assert twin(page, state) == as_json(view(state))


def shaken(draw):
    """A state whose figures are drawn, ties of rounding among them."""

    def number():
        figure = draw.choice(
            (0.0, 1.0, draw.random(), draw.randrange(64) / 64, 10 ** draw.uniform(-7, 8), draw.randrange(2000) / 16)
        )
        return draw.choice((figure, -figure, figure, None))

    def at_least():
        return abs(number() or 0.0)

    state = states.troubled()
    status = state["status"]
    status["measure"] = draw.choice(("accuracy", "error", "reward"))
    status["learning"] = draw.choice(("running", "running", "paused", "recovering", "failed", "following"))
    status["fault"] = draw.choice((None, None, "A fault."))
    status["ready"] = draw.random() < 0.7
    status["alarms"]["recent"] = draw.randrange(3)
    status["lag"] = {"events": draw.randrange(3), "answers": draw.randrange(3), "seconds": at_least()}
    status["counts"] = {key: draw.choice((0, 1, draw.randrange(10**7))) for key in status["counts"]}
    status["score"] = {"rows": draw.randrange(3), "value": number()}
    status["guard"] = {"rows": draw.randrange(3), "candidate": number(), "service": number(), "parent": number()}
    status["propensity"] = draw.choice((None, {"least": at_least(), "effective": at_least()}))
    status["delay"] = draw.choice((None, {"median": number(), "p90": number()}))
    status["unanswered_share"], status["fsync_ms"] = at_least(), number()
    status["started"] = status["time"] - at_least()
    for item in state["versions"]:
        item["score"], item["service_score"], item["rows"] = number(), number(), draw.randrange(3)
        item["created"] = status["time"] - at_least()
    for item in state["alarms"]:
        item["value"], item["limit"], item["time"] = number(), number(), status["time"] - at_least()
    return state


def twin(page, state):
    """What view.js makes of a state, as JSON with sorted names."""
    told = page.driver.execute_async_script(
        "const done = arguments[2]; import(arguments[0]).then((script) => done(JSON.stringify(script.view(JSON.parse(arguments[1])))))"
        ".catch((error) => done(String(error.stack)))",
        page.module("view.js"),
        json.dumps(state),
    )
    return json.loads(told)


def as_json(value):
    return json.loads(json.dumps(value))


def test_figures_come_whatever_becomes_of_the_charts(page, serve):
    server = serve(states.healthy())
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*vega.js"]})
    try:
        page.visit(server.address)
        page.until("#chart-none", "The chart could not be drawn")
        assert "91.5" in page.text("[data-item=score]")
        assert page.text("#link-text") == "live"
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.wait("return document.querySelectorAll('.chart:not([hidden]) svg').length === 2", 10)  # tried again by itself


def test_the_chart_marks_promotions_rollbacks_and_alarms(page, serve):
    server = serve(states.troubled())
    page.visit(server.address)
    fills = "return [...document.querySelectorAll('#chart-score svg .mark-symbol path')].map((path) => path.getAttribute('fill'))"
    found = page.run(fills)
    assert found.count("var(--caution)") == 1
    assert found.count("var(--bad)") == 2
    assert found.count("var(--muted)") == sum(item["time"] >= states.NOW - 3600 for item in states.healthy()["decisions"])
    server.engine.state["alarms"].insert(0, states.alarm("queue", 1, 900, 800, "The queue is long."))
    page.wait(f"return (() => {{ {fills} }})().filter((fill) => fill === 'var(--bad)').length === 3")
    assert page.complaints() == []


def test_the_tooltip_tells_a_mark_in_words(page, serve):
    server = serve(states.troubled())
    page.visit(server.address)
    page.run("document.getElementById('chart-score').scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y = page.run(
        "const box = document.querySelector('#chart-score svg .mark-symbol path[fill=\"var(--bad)\"]').getBoundingClientRect();"
        "return [box.left + box.width / 2, box.top + box.height / 2]"
    )
    for step in (-2, -1, 0):
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x + step, "y": y})
    page.wait("return document.querySelector('#vg-tooltip-element.visible') !== null")
    told = page.text("#vg-tooltip-element")
    assert "Input drift" in told or "Label delay" in told
    assert "undefined" not in told


# ---- how it follows ------------------------------------------------------------------------------------------------------


def test_it_follows_the_server_without_a_reload(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    page.run("window.marker = 1; document.querySelector('[data-roll-back]:not([hidden])').focus()")
    focused = page.run("return document.activeElement.closest('[data-item]').dataset.item")
    state = server.engine.state
    state["status"] |= {"version": 8, "score": {"rows": 200, "value": 0.755}, "time": states.NOW + 60}
    state["versions"][0]["state"] = "retired"
    state["versions"].insert(0, {**states.versions(9)[0], "state": "active"})
    page.until("#headline", "Version 8 is in service")
    page.until("[data-item=score] .figure", "75.5")
    assert page.run("return window.marker") == 1
    assert page.run("return document.querySelector('[data-list=versions] tr').dataset.item") == "8"
    assert page.run("return document.title") == "Healthy – Version 8 – Everlearn"
    assert page.run("return document.activeElement.closest('[data-item]').dataset.item") == focused
    assert page.complaints() == []


def test_rows_that_did_not_change_are_the_same_elements(page, serve):
    server = serve(states.troubled())
    page.visit(server.address)
    page.run("for (const row of document.querySelectorAll('[data-item]')) row.seen = true")
    server.engine.state["alarms"].insert(0, states.alarm("queue", 1, 900, 800, "The queue is long."))
    page.until("[data-list=alarms]", "The queue is long.")
    fresh = page.run(
        "return [...document.querySelectorAll('[data-item]')].filter((row) => !row.seen).map((row) => row.dataset.item)"
    )
    assert [key.split()[0] for key in fresh] == ["queue"]


def test_it_keeps_the_last_figures_while_the_server_is_away(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    server.stop()
    page.until("#link-text", "reconnecting; the figures are of")
    assert "91.5" in page.text("[data-item=score]")
    assert "reconnecting" in page.run("return document.getElementById('heard').textContent")
    server.engine.state["status"]["score"]["value"] = 0.5
    server.start()
    page.until("#link-text", "live", 20)
    page.until("[data-item=score]", "50.0")
    assert page.run("return document.getElementById('heard').textContent") == "Version 7 is in service and learning."


def test_it_asks_less_often_of_a_server_that_cannot_answer(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    server.engine.away = True
    page.until("#link-text", "reconnecting")
    server.asked.clear()
    time.sleep(7.5)  # after 2 s, and 4 s after that
    assert 1 <= server.asked.count("/v1/status") <= 2


def test_a_hidden_page_rests_and_a_page_that_is_looked_at_again_asks_at_once(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    hide = (
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => arguments[0]});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.run(hide, True)
    time.sleep(2.5)
    server.asked.clear()
    time.sleep(4.5)
    assert server.asked == []
    server.engine.state["status"]["score"]["value"] = 0.5
    page.run(hide, False)
    page.until("[data-item=score]", "50.0", 1.5)


# ---- what it does --------------------------------------------------------------------------------------------------------


def button(page, version):
    return page.find(f'[data-list="versions"] [data-item="{version}"] [data-roll-back]')


def test_a_version_is_gone_back_to_by_clicking(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    button(page, 4).click()
    assert page.text("#back-title") == "Roll back to version 4"
    assert "in place of version 7" in page.text("#back-what")
    assert page.text("#back-will") == (
        "4,192 rows of the log came after what it has learned from (up to row 4,000); the feedback among them is set aside until "
        "someone releases it."
    )
    page.find("#back [value=replay]").click()
    assert "learned from again, on top of this version" in page.text("#back-will")
    page.find("#back-form [type=submit]").click()
    assert "Say why" in page.text("#back-fault")
    assert server.engine.asked == []
    page.find("#back-reason").send_keys("labels <b>went</b> wrong")
    page.find("#back-form [type=submit]").click()
    page.until("#outcome", "Version 4 is in service again. Feedback that came since is learned from again")
    page.until("#headline", "Version 4 is in service")
    assert server.engine.asked == [("rollback", 4, "labels <b>went</b> wrong", "replay", "tester")]
    assert page.run("return document.getElementById('back').open") is False
    assert "labels <b>went</b> wrong" in page.text('[data-list="decisions"]')


@pytest.mark.parametrize("after", ["quarantine", "replay", "skip"])
def test_the_fate_of_later_feedback_begins_as_the_server_is_set(page, serve, after):
    state = states.healthy()
    state["status"]["options"] = {"after": after}
    page.visit(serve(state).address)
    button(page, 4).click()
    assert page.run("return document.getElementById('back-form').elements.after.value") == after


def test_what_the_server_refuses_is_told_in_the_dialog(page, serve):
    server = serve(states.recovering())
    page.visit(server.address)
    button(page, 3).click()
    page.find("#back-reason").send_keys("why")
    page.find("#back-form [type=submit]").click()
    page.until("#back-fault", "The server is starting; ask again in a moment.")
    assert page.run("return document.getElementById('back').open") is True
    page.find("#back [data-close]").click()
    assert page.run("return document.getElementById('back').open") is False


def test_learning_is_paused_and_resumed(page, serve):
    server = serve(states.healthy())
    page.visit(server.address)
    page.find("#pause").click()
    page.find("#learn-reason").send_keys("maintenance")
    page.find("#learn-do").click()
    page.until("#headline", "learning is paused")
    assert not page.find("#pause").is_displayed()
    page.find("#resume").click()
    assert "31 answers that came meanwhile" in page.text("#learn-what")
    page.find("#learn-reason").send_keys("done")
    page.find("#learn-do").click()
    page.until("#headline", "in service and learning")
    assert server.engine.asked == [("pause", "maintenance", "tester"), ("resume", "done", "tester")]


def test_everything_can_be_done_by_keyboard(page, serve):
    from selenium.webdriver.common.keys import Keys

    server = serve(states.healthy())
    page.visit(server.address)
    press = page.driver.switch_to
    page.run("document.querySelector('.skip').focus()")
    press.active_element.send_keys(Keys.ENTER)
    reached = []
    for _ in range(12):
        press.active_element.send_keys(Keys.TAB)
        reached.append(page.run("return document.activeElement.innerText || document.activeElement.tagName"))
        if "Roll back to version 6" in " ".join(reached[-1].split()):
            break
    else:
        pytest.fail(f"no way to a button of the table: {reached}")
    press.active_element.send_keys(Keys.SPACE)
    assert page.run("return document.activeElement.value") == "quarantine"
    press.active_element.send_keys(Keys.ESCAPE)
    assert page.run("return document.getElementById('back').open") is False
    assert "version 6" in page.run("return document.activeElement.textContent")
    press.active_element.send_keys(Keys.ENTER)
    press.active_element.send_keys(Keys.ARROW_DOWN)
    press.active_element.send_keys(Keys.TAB)
    press.active_element.send_keys("by keys")
    press.active_element.send_keys(Keys.TAB)
    press.active_element.send_keys(Keys.TAB)
    press.active_element.send_keys(Keys.ENTER)
    page.until("#headline", "Version 6 is in service")
    assert server.engine.asked == [("rollback", 6, "by keys", "replay", "tester")]


# ---- tokens --------------------------------------------------------------------------------------------------------------

TOKENS = {"reader": ("read",), "phone": ("predict",), "boss": ("admin",)}
ASKS = "return !document.getElementById('ask').hidden"


def enter(page, token):
    page.find("#ask-token").send_keys(token)
    page.find("#ask-form button").click()


def test_a_token_is_asked_for_and_kept_for_the_tab(page, serve):
    server = serve(states.healthy(), TOKENS)
    page.visit(server.address, ready=ASKS, drawn=False)
    time.sleep(0.3)
    assert not [path for path in server.asked if path.startswith("/v1/")]  # nothing is asked for without a token
    enter(page, "wrong")
    page.until("#ask-fault", "wants a bearer token")
    enter(page, "phone")
    page.until("#ask-fault", "lacks the scope")
    enter(page, "reader")
    page.until("#headline", "Version 7 is in service")
    assert page.run("return location.href") == server.address
    assert page.run("return [localStorage.length, document.cookie]") == [0, ""]
    page.driver.refresh()
    page.until("#headline", "Version 7 is in service")
    page.find("#forget").click()
    page.wait(ASKS)
    assert page.run("return sessionStorage.length") == 0
    assert "Version 7" not in page.text("body")


def test_a_token_that_is_withdrawn_is_asked_for_anew(page, serve):
    tokens = dict(TOKENS)
    server = serve(states.healthy(), tokens)
    page.visit(server.address, ready=ASKS, drawn=False)
    enter(page, "reader")
    page.until("#headline", "Version 7 is in service")
    del tokens["reader"]
    page.wait(ASKS)
    assert "Version 7" not in page.text("body")


def test_to_act_a_token_with_the_scope_is_asked_for_and_not_kept(page, serve):
    server = serve(states.healthy(), TOKENS)
    page.visit(server.address, ready=ASKS, drawn=False)
    enter(page, "reader")
    page.until("#headline", "Version 7 is in service")
    button(page, 4).click()
    assert not page.find("#back-token").is_displayed()
    page.find("#back-reason").send_keys("why")
    page.find("#back-form [type=submit]").click()
    page.until("#back-fault", "This needs a token with the scope admin.")
    assert page.run("return document.activeElement.id") == "back-token"
    page.find("#back-token").send_keys("phone")
    page.find("#back-form [type=submit]").click()
    page.until("#back-fault", "That token does not do")
    assert server.engine.asked == []
    page.find("#back-token").send_keys("boss")
    page.find("#back-form [type=submit]").click()
    page.until("#headline", "Version 4 is in service")
    assert server.engine.asked == [("rollback", 4, "why", "quarantine", "tester")]
    assert page.run("return Object.values({...sessionStorage})") == ["reader"]


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


# ---- before a real server ------------------------------------------------------------------------------------------------


def test_a_real_server_is_followed_and_sent_back_to_a_version(page, tmp_path):
    """Requests come by HTTP, versions come of learning, and a click goes back to one of them: all with no stub in between."""
    import torch

    from everlearn.learners.replay import Replay
    from everlearn.serve.app import create_app
    from everlearn.serve.client import Client
    from everlearn.serve.engine import LocalEngine
    from everlearn.serve.http import running
    from everlearn.serve.input_spec import InputSpec
    from everlearn.serve.options import Options
    from everlearn.serve.page import page_routes

    spec = InputSpec("classes", (2,), "float32", classes=("ant", "<b>bee</b>"))
    options = Options(batch=8, every=2, window=40, least=8, guard=False)
    with LocalEngine(Replay(torch.nn.Linear(2, 2), capacity=50), spec, tmp_path, options) as engine:
        app = create_app(engine, page=page_routes(engine, None, FILES))
        with running(app) as address, Client(address) as client:
            page.visit(address)
            assert page.text("#headline") == "Version 0 waits for its first request."
            rows = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
            for part in rows.split(16):
                given = client.predict_many(part.tolist())
                client.feedback_many(
                    [{"id": item.id, "y": spec.classes[int(row[0] > 0)]} for item, row in zip(given, part, strict=True)]
                )
            page.until("[data-item=requests]", "80 answers came")
            page.wait("return document.querySelectorAll('[data-list=versions] tr').length >= 4")
            page.until("#headline", f"Version {engine.status()['version']} is in service and learning.")
            assert page.complaints() == []
            wanted = engine.versions()[2]["version"]
            page.run("arguments[0].click()", button(page, wanted))
            page.find("#back [value=skip]").click()
            page.find("#back-reason").send_keys("<i>wrong</i> labels")
            page.find("#back-form [type=submit]").click()
            page.until("#outcome", f"Version {wanted} is in service again")
            page.until("#headline", f"Version {wanted} is in service")
            assert engine.status()["version"] == wanted
            decision = engine.decisions()[0]
            assert (decision["action"], decision["after"]) == ("rollback", wanted)
            assert "<i>wrong</i> labels" in decision["reason"]
            page.until('[data-list="decisions"]', "<i>wrong</i> labels")
    assert page.complaints() == []
