"""The live page in a browser, for the tests of it: a stub of a server, a Chromium with its page, and what both are asked for.

Needs Debian's chromium and chromium-driver (or CHROMIUM and CHROMEDRIVER in the environment); skipped where they are missing.
"""

import runpy
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import uvicorn

from everlearn.serve.page.routes import Files

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


def button(page, version):
    """The button that goes back to a version."""
    return page.find(f'[data-list="versions"] [data-item="{version}"] [data-roll-back]')
