"""The page: one file that asks for nothing, in which nothing that a user wrote can become markup."""

import html
import json
import re
import runpy
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.core.errors import StateError
from everlearn.measure.report import render, sentences, verdict_sentence, write_report
from everlearn.measure.report.page import breaks, embedded, printable, prose, vega
from everlearn.measure.report.plain_table import plain_table

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))
NAMES = ("class_incremental", "prequential", "do_not_adapt", "too_close", "with_error", "hostile", "recurring")
VOID = {"meta", "link", "wbr", "br", "line", "img", "input"}


class Reader(HTMLParser):
    """Collects elements, attributes and text outside scripts and styles; checks that elements nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made():
    return {name: getattr(records, name)() for name in NAMES}


@pytest.fixture(scope="module")
def pages(made):
    return {name: render(record) for name, record in made.items()}


def test_no_page_of_other_streams_speaks_of_few_shot_sessions(pages):
    assert not [name for name, page in pages.items() if "Few-shot sessions" in page]


def words_of(text):
    return " ".join("".join(Reader(text).text).split())


def test_every_page_is_under_two_megabytes(pages):
    for name, text in pages.items():
        assert len(text.encode()) < 2_000_000, name


@pytest.mark.slow
def test_ten_learners_five_seeds_and_a_hundred_classes_stay_under_two_megabytes():
    assert 1_000_000 < len(render(records.large()).encode()) < 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_for_nothing(pages, name):
    reader = Reader(pages[name])
    assert not any(tag in ("iframe", "object", "embed", "img", "base", "form") for tag, _ in reader.elements)
    for tag, attributes in reader.elements:
        assert "src" not in attributes, tag
        if "href" in attributes:
            assert attributes["href"].startswith(("#", "data:,")), attributes
        assert not any(key.startswith("on") for key in attributes), attributes
    assert "url(" not in pages[name].split("<script", 1)[0]
    assert "@import" not in pages[name].split("<script", 1)[0]
    policy = next(item["content"] for item in reader.all("meta") if item.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


@pytest.mark.parametrize("name", NAMES)
def test_the_words_on_the_page_are_the_sentences(made, pages, name):
    record = printable(made[name])
    text = words_of(pages[name])
    assert " ".join(verdict_sentence(record).replace("`", "").split()) in text
    for question, paragraphs in sentences(record):
        assert question in text
        for paragraph in paragraphs:
            assert " ".join(paragraph.replace("`", "").split()) in text


def test_what_a_user_wrote_stays_text(pages):
    page = pages["hostile"]
    reader = Reader(page)
    assert records.HOSTILE not in page
    assert html.escape(records.HOSTILE) in page
    assert [tag for tag, _ in reader.elements].count("script") == 3
    assert "alert(2)" in page
    assert "</script><script>alert(2)" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}|“(49)”", page)
    assert "{{ 7 * 7 }}" in json.dumps(data_of(page))


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)[1])


def test_data_reads_back_unharmed_and_cannot_end_its_script():
    value = {"</script>": ["<!--", "&amp;", "\u2028", 0.5, None]}
    text = str(embedded(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028") & set(text)
    assert str(embedded([float("nan"), float("inf")])) == "[null,null]"


def test_control_characters_become_spaces_and_all_else_stays():
    assert printable({"a\u2028b": ["c\x00d", 1, None, "é\n"]}) == {"a b": ["c d", 1, None, "é\n"]}


def test_prose_sets_code_and_escapes_all():
    assert str(prose("a `f(x=1)` <b>")) == "a <code>f(<wbr>x=1)</code> &lt;b&gt;"
    assert str(breaks("<i>(,")) == "&lt;i&gt;(<wbr>,<wbr>"


def test_the_scripts_of_the_charts_stand_once_and_only_where_there_are_charts(pages):
    assert pages["class_incremental"].count("window.vegaEmbed=") == 1
    assert "</script" not in vega()
    record = records.prequential()
    for entry in record["learners"]:
        entry |= {"error": "it stopped", "runs": [], "summary": {}}
    empty = render(records.finish(record["learners"], record["stream"], record["config"]))
    assert "window.vegaEmbed=" not in empty
    assert "No learner finished" in words_of(empty)


def test_the_page_has_what_is_needed_to_make_it_again(made, pages):
    config, text = made["class_incremental"]["config"], words_of(pages["class_incremental"])
    assert config["command"] in text
    for label in config["learners"]:
        assert f"- {label}" in text
    for value in ("budget(replay=500)", "mlp(hidden=(100,))", "2.13.0+cpu", "1f0c9a7e55d2", "[0, 1, 2]"):
        assert value in text


def test_the_glossary_has_a_formula_beside_each_figure(made, pages):
    record, text = made["class_incremental"], words_of(pages["class_incremental"])
    best = next(entry for entry in record["learners"] if entry["label"] == record["verdict"]["learner"])
    found = best["summary"]["forgetting"]
    assert "meanj ( maxi<T ai,j − aT,j )" in text
    assert f"{100 * found['mean']:.1f} ± {50 * (found['high'] - found['low']):.1f} points" in text


def test_the_page_can_be_read_by_machines(pages):
    reader = Reader(pages["class_incremental"])
    assert reader.all("html")[0]["lang"] == "en"
    assert reader.all("meta")[1]["content"].startswith("width=device-width")
    assert len(reader.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(item.get("scope") in ("row", "col") for item in reader.all("th"))
    identifiers = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for attributes in (attributes for _, attributes in reader.elements if "aria-labelledby" in attributes):
        assert attributes["aria-labelledby"] in identifiers


def test_a_minimal_record_still_makes_a_page():
    learner = {"label": "replay", "name": "replay", "reference": False, "summary": {"score": {"mean": 0.5, "values": [0.5]}}}
    text = words_of(render({"kind": "comparison", "learners": [learner]}))
    assert "no frozen model" in text
    assert "Costs were not measured" in text
    assert render({"learners": []})


def test_the_report_is_written_whole_or_not_at_all(tmp_path, made, pages):
    write_report(made["too_close"], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == pages["too_close"]  # the same record gives the same page
    with pytest.raises(StateError, match="cannot write"):
        write_report(made["too_close"], tmp_path / "nowhere" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_plain_sgd_is_weighed_in_a_table_where_another_learner_stands_beside_it(made, pages):
    table = plain_table(made["recurring"])
    text = words_of(pages["recurring"])
    for label, texts in table.rows:
        assert " ".join([label, *texts]).replace("\xa0", " ") in text.replace("\xa0", " ")
    assert " ".join(["Learner", *table.headings]).replace(" ", "") in text.replace(" ", "")
    assert pages["recurring"].count('class="weighed"') == 1
    alone = records.recurring(learners={"frozen": records.RECURRING["frozen"], "fine_tune": records.RECURRING["fine_tune"]})
    assert 'class="weighed"' not in render(alone)
