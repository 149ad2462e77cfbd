"""Fixtures of the tests of the live page: `page`, a browser, and `serve`, which starts stubs of servers."""

import pytest


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pytest.importorskip("uvicorn", reason="the extra 'serve' is missing")
    from .served_page import Page, report

    with report.started(tmp_path_factory.mktemp("profile")) as driver:
        yield Page(driver, None)


@pytest.fixture
def serve():
    from .served_page import Server

    running = []

    def start(state, tokens=None):
        running.append(Server(state, tokens))
        return running[-1]

    yield start
    for server in running:
        if server.thread.is_alive():
            server.stop()
