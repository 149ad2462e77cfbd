"""What the live page shows in a real browser, how it follows a stub of a server, and a real one.

Needs Debian's chromium and chromium-driver (or CHROMIUM and CHROMEDRIVER in the environment); skipped where they are missing.
"""

import json
import random
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is missing")

from everlearn.serve.page.view import view

from .served_page import FILES, button, states

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


# ---- before a real server ------------------------------------------------------------------------------------------------


def test_a_real_server_is_followed_and_sent_back_to_a_version(page, tmp_path):
    """Requests come by HTTP, versions come of learning, and a click goes back to one of them: all with no stub in between."""
    import torch

    from everlearn.learners.replay import Replay
    from everlearn.serve.app import create_app
    from everlearn.serve.client import Client
    from everlearn.serve.http import running
    from everlearn.serve.input_spec import InputSpec
    from everlearn.serve.local_engine import LocalEngine
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
