"""The page as it leaves the server: what it holds, what it never holds, and how its files are kept."""

import gzip
import re
import runpy
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.serve.page.routes import FIRST, SCRIPTS

testclient = pytest.importorskip("starlette.testclient", reason="the extra 'serve' is missing")
FAKE = str(Path(__file__).with_name("fake_engine.py"))
states = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("page_states.py"))))


class Reader(HTMLParser):
    """Elements with their attributes, and the text that people see."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.template = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.template += tag == "template"
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.template -= tag == "template"

    def handle_data(self, data):
        if not self.template:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def client(state, tokens=None):
    return testclient.TestClient(states.stub_app(states.StubEngine(state), tokens))


def page(state, tokens=None):
    answer = client(state, tokens).get("/")
    assert answer.status_code == 200
    return answer


def test_the_page_tells_the_present_state():
    text = Reader(page(states.troubled()).text).text
    for told in (
        "replay(capacity=200)", "Version 5 is in service and learning, with 2 alarms in the last hour.", "91.5 %", "31 answers",
        "the oldest for 0.4 s", "41 s", "Input drift", "Feature 'age' has drifted", "0.31 against a limit of 0.25", "4 min ago",
        "Version 5 was put back into service in place of version 7.", "labels of the morning came from a broken sensor", "by maria",
        "withdrawn", "removed", "worse than the version in service: 84.0 %",
    ):  # fmt: skip
        assert told in text.replace("\u00a0", " "), told


def test_only_versions_that_can_serve_again_have_a_button():
    html = page(states.troubled()).text
    body = html.split('<tbody role="rowgroup" data-list="versions">')[1].split("</tbody>")[0]
    rows = re.findall(r'<tr role="row" data-item="(\d+)" data-state="(\w+)">(.*?)</tr>', body, flags=re.DOTALL)
    shown = {state: "hidden" not in row.split("data-roll-back")[1].split(">")[0] for _, state, row in rows}
    assert shown == {"withdrawn": True, "active": False, "retired": True, "refused": True, "pruned": False}


def test_with_tokens_the_page_is_a_shell_without_data():
    told = page(states.troubled(), {"secret": ("read",)}).text
    text = Reader(told).text
    for secret in ("replay(capacity=200)", "Version 5", "91.5", "Input drift", "maria"):
        assert secret not in text
        assert secret not in told
    assert "asks for a token" in text


def test_while_the_engine_cannot_tell_the_page_is_a_shell():
    engine = states.StubEngine(states.healthy())
    engine.away = True
    answer = testclient.TestClient(states.stub_app(engine)).get("/")
    assert answer.status_code == 200
    assert "Version 7" not in answer.text


def test_what_a_user_wrote_stays_text():
    html = page(states.hostile()).text
    reader = Reader(html)
    assert [tag for tag, _ in reader.elements if tag == "img"] == []
    assert sum(tag == "script" for tag, _ in reader.elements) == 1
    assert "49" not in [word for word in reader.text.split() if "7*7" in word or word == "49"]
    assert reader.text.count("<img src=x onerror=alert(1)>") >= 10
    assert states.HOSTILE in unescape(html)


@pytest.mark.parametrize("name", states.STATES)
def test_no_script_style_or_handler_stands_in_the_html(name):
    reader = Reader(page(states.STATES[name]()).text)
    for tag, attributes in reader.elements:
        assert tag != "style"
        assert not [key for key in attributes if key == "style" or key.startswith("on")]
        if tag == "script":
            assert attributes["src"].startswith("static/")
        for key in ("src", "href"):
            assert not re.match(r"(https?:)?//", attributes.get(key) or "")


def test_the_policy_allows_our_own_files_alone():
    policy = page(states.healthy()).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_empty_lists_are_told_in_words():
    text = Reader(page(states.nothing()).text).text
    for told in (
        "waits for its first request",
        "no answers yet",
        "No alarm so far.",
        "Nothing was decided yet.",
        "No version was kept yet.",
    ):
        assert told in text


def test_the_html_holds_the_newest_versions_alone():
    html = page(states.large()).text
    assert len(re.findall(r'<tr role="row" data-item="\d', html)) == FIRST["versions"]
    assert html.index('data-item="199"') < html.index('data-item="180"')
    assert 'data-item="179"' not in html


def files(html):
    return re.findall(r'(?:href|src)="(static/[^"]+)"', html)


def test_files_are_kept_for_ever_by_the_hash_of_what_they_hold():
    served = client(states.healthy())
    asked = files(served.get("/").text)
    assert {name.rsplit("/", 1)[1] for name in asked} == {"style.css", *SCRIPTS}
    for name in asked:
        answer = served.get(f"/{name}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].split(";")[0] == ("text/css" if name.endswith("css") else "text/javascript")
        assert answer.headers["content-encoding"] == "gzip"
        plain = served.get(f"/{name}", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
    assert served.get("/").headers["cache-control"] == "no-store"


def test_files_that_are_not_of_the_page_are_not_given():
    served = client(states.healthy())
    digest = files(served.get("/").text)[0].split("/")[1]
    for path in (
        f"{digest}/routes.py",
        f"{digest}/template.html",
        f"{digest}/..%2Froutes.py",
        "0000000000000000/main.js",
        f"{digest}/",
    ):
        assert served.get(f"/static/{path}").status_code == 404, path


def test_another_file_gives_another_hash(tmp_path, monkeypatch):
    from everlearn.serve.page import routes

    (tmp_path / "main.js").write_text("1")
    monkeypatch.setattr(routes, "HERE", tmp_path)
    first = routes._digest.__wrapped__()
    (tmp_path / "main.js").write_text("2")
    assert routes._digest.__wrapped__() != first


def test_the_script_of_the_charts_comes_from_a_process_of_its_own():
    import sys

    served = client(states.healthy())
    digest = files(served.get("/").text)[0].split("/")[1]
    before = set(sys.modules)
    answer = served.get(f"/static/{digest}/vega.js")
    assert answer.status_code == 200
    assert "vegaEmbed" in answer.text
    assert len(answer.text) > 500_000
    charts = served.get(f"/static/{digest}/charts.json").json()
    assert set(charts) == {"score", "lag"}
    assert not {"altair", "vl_convert"} & (set(sys.modules) - before)


def test_charts_that_cannot_be_made_are_told_of_and_tried_again(monkeypatch):
    from everlearn.serve.page import routes

    served = client(states.healthy())
    digest = files(served.get("/").text)[0].split("/")[1]
    monkeypatch.setitem(routes.MADE, "charts.json", "charts")
    right = routes.HERE
    monkeypatch.setattr(routes, "HERE", Path("nowhere"))
    answer = served.get(f"/static/{digest}/charts.json")
    assert answer.status_code == 503
    assert "could not be made" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    monkeypatch.setattr(routes, "HERE", right)
    assert served.get(f"/static/{digest}/charts.json").status_code == 200


def test_compressed_files_are_the_files():
    import asyncio

    from everlearn.serve.page.routes import Files

    for name in ("style.css", *SCRIPTS):
        plain, small = asyncio.run(Files().read(name))
        assert gzip.decompress(small) == plain
        assert len(small) < len(plain)


def test_behind_the_gate_the_page_needs_no_token_and_keeps_its_policy(tmp_path):
    pytest.importorskip("fastapi", reason="the extra 'serve' is missing")
    from everlearn.serve.app import create_app
    from everlearn.serve.auth import Tokens, add_token
    from everlearn.serve.page import page_routes

    add_token(tmp_path / "tokens.json", "reader", ["read"])
    tokens, engine = Tokens(tmp_path / "tokens.json"), SimpleNamespace(**runpy.run_path(FAKE)).FakeEngine()
    served = testclient.TestClient(create_app(engine, tokens=tokens, page=page_routes(engine, tokens)))
    answer = served.get("/")
    assert answer.status_code == 200
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert "replay(capacity=200)" not in answer.text
    for name in files(answer.text):
        assert "immutable" in served.get(f"/{name}").headers["cache-control"]
    assert served.get("/v1/status").status_code == 401
