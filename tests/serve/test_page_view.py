"""The words and figures of the page, from states of a server that are worked out by hand."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("starlette", reason="the extra 'serve' is missing")

from everlearn.serve.page.view import age, blank, figure, gap, score, view

states = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("page_states.py"))))
HARD, MINUS = "\u00a0", "\u2212"


def shown(name, **changes):
    state = states.STATES[name]()
    state["status"] |= changes
    return view(state)


def tile(found, key):
    return next(((item["figure"], item["beside"]) for item in found["tiles"] if item["key"] == key), None)


@pytest.mark.parametrize(
    ("name", "tone", "badge", "headline"),
    [
        ("healthy", "good", "Healthy", "Version 7 is in service and learning."),
        ("troubled", "caution", "Needs a look", "Version 5 is in service and learning, with 2 alarms in the last hour."),
        ("failed", "bad", "Learning has stopped", "Version 7 still answers, but learning has stopped."),
        ("paused", "caution", "Paused", "Version 7 answers, and learning is paused."),
        ("recovering", "open", "Starting", "The server is starting from its log."),
        ("unstarted", "bad", "Failed", "Nothing answers: the server could not start from its log."),
        ("following", "open", "Following", "Version 7 answers, and another process learns."),
        ("behind", "caution", "Not ready", "Version 7 answers, but the server is not ready."),
        ("fresh", "open", "Ready", "Version 0 waits for its first request."),
    ],
)
def test_the_headline_says_how_it_stands(name, tone, badge, headline):
    found = shown(name)
    assert (found["tone"], found["badge"], found["headline"]) == (tone, badge, headline)


@pytest.mark.parametrize(
    ("name", "beneath"),
    [
        ("healthy", ""),
        ("troubled", "Feature 'age' has drifted from the first rows. Look at what feeds it."),
        ("paused", "140 answers not learned from yet; feedback is kept, and nothing is lost."),
        ("recovering", "1 row of the log left to learn again."),
        ("behind", f"4,100 answers not learned from yet, the oldest for 1{HARD}min 15{HARD}s."),
    ],
)
def test_what_stands_beneath_is_the_reason(name, beneath):
    assert shown(name)["beneath"] == beneath


def test_a_fault_is_told_whatever_else_holds():
    assert shown("failed")["beneath"].startswith("The update failed")
    assert shown("healthy", fault="The disk is full.")["beneath"] == "The disk is full."
    assert shown("healthy", fault="The disk is full.")["badge"] == "Not ready"


def test_one_alarm_is_one_alarm():
    one = shown("troubled", alarms={"recent": 1, "latest": None})
    assert one["headline"] == "Version 5 is in service and learning, with 1 alarm in the last hour."
    assert one["beneath"] == ""


def test_only_learning_that_goes_on_can_be_paused_and_only_a_pause_resumed():
    found = {name: shown(name)["learning"] for name in ("healthy", "paused", "failed", "following", "recovering")}
    assert found == {"healthy": "pause", "paused": "resume", "failed": "", "following": "", "recovering": ""}


def test_tiles_of_a_classifier():
    found = shown("troubled")
    assert tile(found, "score") == (f"91.5{HARD}%", "over the newest 200 answers")
    assert tile(found, "version") == ("Version 5", f"made 30{HARD}min ago")
    assert tile(found, "lag") == ("31 answers", f"the oldest for 0.4{HARD}s")
    assert tile(found, "delay") == (f"41{HARD}s", f"one in ten after 5{HARD}min 20{HARD}s")
    assert tile(found, "unanswered") == (f"9.9{HARD}%", "428 of 4,310 predictions")
    assert tile(found, "requests") == ("4,310", "3,882 answers came, 2 early")
    assert tile(found, "queue") == ("3", "of 1,000 that may wait")
    assert tile(found, "propensity") is None


def test_predictions_that_were_given_up_are_told():
    counts = {**states.status()["counts"], "unanswered": 40}
    assert tile(shown("healthy", counts=counts), "unanswered")[1] == "428 of 4,310 predictions, 40 given up"


def test_tiles_where_something_is_not_known_yet():
    assert tile(shown("fresh"), "score") == ("–", "no answers yet")
    assert tile(shown("fresh"), "lag") == ("Nothing", "every answer is learned from")
    assert tile(shown("healthy"), "delay") is None
    assert tile(shown("healthy", delay={"median": 2.0}), "delay") == (f"2{HARD}s", "the median")
    assert tile(shown("unstarted"), "version")[0] == "No version"
    assert shown("unstarted")["title"] == "Failed – Everlearn"


def test_tiles_of_values_and_actions():
    found = shown("values")
    assert found["measure"] == "Mean absolute error"
    assert found["better"] == "lower is better"
    assert tile(found, "score") == ("0.0123", "over the newest answer")
    found = shown("actions")
    assert tile(found, "score") == (f"{MINUS}3.25", "over the newest 200 answers")
    assert tile(found, "propensity") == ("0.05", f"effective sample 70{HARD}%")


def test_scores_and_how_far_they_are_apart():
    assert score("accuracy", 0.875) == f"87.5{HARD}%"
    assert score("error", -0.5) == "0.5"
    assert score("reward", -0.5) == f"{MINUS}0.5"
    assert score("accuracy", None) == score("error", None) == "–"
    assert gap("accuracy", 0.92, 0.91) == f"+1.0{HARD}point"
    assert gap("accuracy", 0.90, 0.92) == f"{MINUS}2.0{HARD}points"
    assert gap("error", -0.5, -0.75) == f"{MINUS}0.25"
    assert gap("error", -0.75, -0.5) == "+0.25"
    assert gap("reward", 1.5, 1.0) == "+0.5"
    assert gap("reward", None, 1.0) == gap("accuracy", 0.5, None) == ""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-3, "just now"), (4.9, "just now"), (5, "5 s ago"), (59.9, "59 s ago"), (60, "1 min ago"), (3599, "59 min ago"),
     (3600, "1 h ago"), (172799, "47 h ago"), (172800, "2 days ago"), (86400 * 1500, "1,500 days ago")],
)  # fmt: skip
def test_ages(seconds, told):
    assert age(seconds).replace(HARD, " ") == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.01234, "0.0123"), (0.0000123, f"1.23e{MINUS}5"), (-0.0000123, f"{MINUS}1.23e{MINUS}5"), (1e-20, f"1e{MINUS}20"), (0, "0"),
     (1e-4, "0.0001"), (1234.5, "1,234"), (1.234e9, "1.23e9"), (-1e29, f"{MINUS}1e29"), (None, "–"), (float("nan"), "–")],
)  # fmt: skip
def test_figures_without_many_zeros(value, told):
    assert figure(value) == told


def test_decisions_are_sentences():
    found = {item["action"]: item for item in shown("troubled")["decisions"]}
    assert found["rollback"]["sentence"] == "Version 5 was put back into service in place of version 7."
    assert found["rollback"]["who"] == "by maria"
    assert found["refuse"]["sentence"] == "Version 5 was refused; version 4 stayed in service."
    assert found["pause"]["sentence"] == "Learning was paused."
    assert found["refuse"]["who"] == found["resume"]["who"] == ""
    state = states.healthy()
    state["decisions"] = [
        states.decision("promote", 1, None, 0),
        states.decision("new_kind", 1),
        states.decision("refuse", 1, None, 3),
    ]
    told = [item["sentence"] for item in view(state)["decisions"]]
    assert told == ["Version 0 went into service.", "New kind.", "Version 3 was refused."]


def test_what_a_user_wrote_is_no_pattern():
    state = states.healthy()
    state["decisions"] = [states.decision("{after.__class__}", 1, 1, 2, "{before}", "{after}")]
    item = view(state)["decisions"][0]
    assert item["sentence"] == "{after.  class  }."
    assert (item["reason"], item["who"]) == ("{before}", "by {after}")


def test_the_guard_says_what_it_compares():
    told = f"The candidate stands at 92.0{HARD}%, the one in service at 91.5{HARD}%, its parent at 90.0{HARD}%, over 200 answers."
    assert shown("healthy")["guard"] == told
    assert shown("fresh")["guard"] == ""
    assert "its parent" not in shown("values")["guard"]


def test_versions_that_can_serve_again():
    found = {item["state"]: item["back"] for item in shown("troubled")["versions"]}
    assert found == {"withdrawn": True, "active": False, "retired": True, "refused": True, "pruned": False}
    assert [item["branch"] for item in shown("troubled")["versions"]][:2] == ["branch 1", ""]


def test_the_foot_tells_what_is_kept():
    assert shown("healthy")["foot"] == (
        f"Up for 2{HARD}h 1{HARD}min; log up to row 8,192, learned up to row 8,120; 8 versions, 160 steps; "
        f"what is accepted is kept through a power cut; a write takes 0.2{HARD}ms."
    )
    assert shown("large")["foot"].startswith(f"Up for 115{HARD}days;")
    assert "kept through a crash." in shown("following")["foot"]


def test_a_view_that_tells_nothing_has_every_name():
    assert set(blank()) == set(shown("healthy"))
