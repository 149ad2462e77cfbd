"""What the live page does in a real browser: going back, pausing, by mouse and by keyboard, with tokens and without.

Needs Debian's chromium and chromium-driver (or CHROMIUM and CHROMEDRIVER in the environment); skipped where they are missing.
"""

import time

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is missing")

from .served_page import button, states

pytestmark = [pytest.mark.browser, pytest.mark.slow]


# ---- what it does --------------------------------------------------------------------------------------------------------


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
