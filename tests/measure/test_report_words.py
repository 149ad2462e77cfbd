"""The sentences of the report say what the figures say, for every verdict and whatever is missing."""

import copy
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import numbers as say
from everlearn.measure.report import sentences, verdict_sentence

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))
ALL = ("class_incremental", "prequential", "do_not_adapt", "too_close", "with_error", "hostile", "recurring")


def told(record):
    """The answers as plain text: four, and a fifth where plain fine-tuning stands in the comparison."""
    answers = sentences(record)
    assert [question.split()[0] for question, _ in answers[:4]] == ["Is", "Which", "Where", "What"]
    plain = any(entry["name"] == "fine_tune" for entry in record["learners"])
    assert [question for question, _ in answers[4:]] == ["Is plain SGD enough on this stream?"] * plain
    return [" ".join(paragraphs).replace(say.SPACE, " ") for _, paragraphs in answers]


def score(record, label):
    return next(entry for entry in record["learners"] if entry["label"] == label)["summary"]["score"]["mean"]


def gap(record, first, second):
    for pair in record["pairs"]:
        if {pair["first"], pair["second"]} == {first, second}:
            sign = 1 if pair["first"] == first else -1
            return sign * pair["difference"], *sorted((sign * pair["low"], sign * pair["high"]))
    raise AssertionError("no such pair")


@pytest.fixture(scope="module")
def split():
    return records.class_incremental()


@pytest.fixture(scope="module")
def table():
    return records.prequential()


def test_the_first_answer_carries_the_gain_and_its_interval(split):
    worth = told(split)[0]
    best = split["verdict"]["learner"]
    difference, low, high = gap(split, best, "frozen")
    assert worth.startswith("Yes.")
    assert (
        f"`{best}` scores {100 * score(split, best):.1f} %, the frozen model {100 * score(split, 'frozen'):.1f} %" in worth
    )
    assert f"a gain of {100 * difference:.1f} points (95 % interval {100 * low:.1f} to {100 * high:.1f}, 3 seeds)" in worth
    behind, low, high = gap(split, "retrain", best)
    assert f"worse by {100 * behind:.1f} points (95 % interval {100 * low:.1f} to {100 * high:.1f}, 3 seeds)" in worth
    assert "averaged over the 5 held-out sets" in worth


def test_the_verdict_in_one_sentence(split):
    gain = split["verdict"]["gain"]["difference"]
    expected = (
        f"Adapt, with `{split['verdict']['learner']}`: {100 * gain:.1f} points better than leaving the model as it is."
    )
    assert verdict_sentence(split).replace(say.SPACE, " ") == expected


def test_do_not_adapt():
    record = records.do_not_adapt()
    assert record["verdict"]["code"] == "do_not_adapt"
    assert verdict_sentence(record).startswith("Do not adapt")
    worth, which, *_ = told(record)
    assert worth.startswith("No.")
    assert "leave the model as it is" in worth
    assert which.startswith("None: keep the frozen model.")
    assert "What it would give up" in which


def test_too_close_to_tell():
    record = records.too_close()
    assert record["verdict"]["reason"] == "reaches_zero"
    worth, which, *_ = told(record)
    assert worth.startswith("Too close to tell.")
    assert "The interval reaches zero" in worth
    assert "too close to tell between `replay` and `fine_tune`" in which or "between `fine_tune` and `replay" in which


def test_the_cheaper_of_two_is_named_as_the_reason(split):
    record = copy.deepcopy(split)
    chosen, second = record["verdict"]["learner"], record["verdict"]["runner_up"]
    for entry in record["learners"]:
        if entry["label"] == chosen:
            entry["summary"]["update_ms"]["mean"] = 9.0
    again = records.finish(record["learners"], record["stream"], record["config"])
    assert again["verdict"]["learner"] == second
    assert again["verdict"]["cheaper"]
    assert "is preferred because its update is cheaper (1.3 ms against 9 ms)" in told(again)[1]


def test_learners_that_seeds_do_not_change_have_no_interval(split):
    record = copy.deepcopy(split)
    record["verdict"]["gain"] |= {"difference": 0.308, "low": 0.308, "high": 0.308}
    count = record["verdict"]["seeds"]
    assert f"a gain of 30.8 points (the same for all {count} seeds, so chance in the data is not told)." in told(record)[0]


def test_failed_learners_are_shown_with_their_message_and_those_over_budget_are_named():
    which = told(records.with_error())[1]
    assert "`online_ewc(strength=10.0)` did not finish: online_ewc: strength must be a number between 0 and 5" in which
    assert re.search(r"`derpp\(capacity=500, alpha=0.5\)` scores [\d.]+ % but broke the budget", which)


def test_the_third_answer_names_the_users_labels(split):
    where = told(split)[2]
    best = next(entry for entry in split["learners"] if entry["label"] == split["verdict"]["learner"])
    forgot = best["summary"]["forgetting"]["mean"]
    assert f"forgot {100 * forgot:.1f} points on average" in where
    assert "most of all on “0, 1”" in where
    assert "known to change 4 times, at events 33, 66, 99 and 132 of 165" in where
    assert "`adwin`: found 4 of 4, 7 events late, 0.2 false alarms per 1,000" in where
    assert "no sign of lost plasticity" in where


def test_where_seeds_order_the_classes_differently_single_classes_are_named(split):
    record = copy.deepcopy(split)
    for entry in record["learners"]:
        entry["runs"][1]["figures"]["matrix"]["names"] = ["8, 9", "6, 7", "4, 5", "2, 3", "0, 1"]
        for run in entry["runs"]:
            run["figures"]["matrix"]["per_class"][-1]["7"] = 0.25
            run["figures"]["matrix"]["per_class"][-2]["7"] = 0.75
    where = told(record)[2]
    assert "most of all on “experience 1”" in where
    assert "Of the classes, “7” lost most: 75.0 % at its best, 25.0 % at the end." in where
    assert "Weakest at the end: “7” (25.0 %)" in where


def worn(record, *, retrain_too):
    """The record in which units fall silent and features grow poorer, for all learners or for all but the one retrained."""
    record = copy.deepcopy(record)
    for entry in record["learners"]:
        for run in entry["runs"] if retrain_too or entry["name"] != "retrain" else ():
            for point in run["curve"]:
                share = point["event"] / 165
                point["plasticity"] = {"active_units": 0.9 - 0.3 * share, "effective_rank": 30 - 20 * share}
    return record


def test_lost_plasticity_is_said_where_a_retrained_network_stands_better(split):
    where = told(worn(split, retrain_too=False))[2]
    assert "shows signs of lost plasticity (units fell silent and its features grew poorer)" in where
    # deployed at event 33 of 165: 0.9 - 0.3/5 and 30 - 20/5
    assert "since deployment active units went from 84.0 % to 60.0 %" in where
    assert "the effective rank of its features from 26.0 to 10.0" in where


def test_what_training_does_to_every_network_is_no_sign_of_lost_plasticity(split):
    assert "shows no sign of lost plasticity" in told(worn(split, retrain_too=True))[2]


def test_the_fourth_answer_has_time_latency_memory_and_labels(split):
    cost = told(split)[3]
    best = next(entry for entry in split["learners"] if entry["label"] == split["verdict"]["learner"])["summary"]
    assert f"takes {best['update_ms']['mean']:.2f} ms per update" in cost
    assert f"within {best['predict_ms_p99']['mean']:.2f} ms" in cost
    assert "nothing for replay" in cost
    assert "1,438 labels" in cost
    assert "`retrain` took longest" in cost


def test_a_table_without_held_out_sets_says_what_was_not_measured(table):
    where = told(table)[2]
    assert "was not judged on held-out sets" in where
    assert "known to change twice, at events 1,500 and 2,800 of 4,000" in where
    assert "before their labels were known" in told(table)[0]


def test_one_seed_says_that_there_is_no_interval():
    record = records.class_incremental(seeds=(0,))
    worth = told(record)[0]
    assert "(one seed, no interval)" in worth
    assert "run at least three" in worth
    assert "95 %" not in worth


def without(record, *names):
    learners = [entry for entry in record["learners"] if entry["name"] not in names]
    return records.finish(learners, record["stream"], record["config"])


def test_without_yardsticks_the_answers_say_so(split):
    assert "Retraining from scratch is not part of this comparison" in told(without(split, "retrain"))[0]
    alone = without(split, "frozen")
    assert verdict_sentence(alone).startswith("Too close to tell: no frozen model")
    assert told(alone)[0].startswith("It cannot be told.")


def test_where_nothing_can_be_recommended_the_answers_still_stand(split):
    only = without(split, "replay", "derpp", "online_ewc", "nearest_mean", "streaming_lda", "fine_tune")
    assert only["verdict"]["reason"] == "no_learner"
    assert told(only)[0].startswith("No learner can be recommended")
    empty = copy.deepcopy(split)
    for entry in empty["learners"]:
        entry |= {"error": "it stopped", "runs": [], "summary": {}}
    empty = records.finish(empty["learners"], empty["stream"], empty["config"])
    assert "8 ended in an error" in told(empty)[0]
    assert told(empty)[3] == "No learner finished, so there is nothing to say."


@pytest.mark.parametrize("part", ["matrix", "plasticity", "memory", "cost", "drift"])
def test_any_figure_may_be_missing(split, part):
    record = copy.deepcopy(split)
    for entry in record["learners"]:
        for run in entry["runs"]:
            run["figures"].pop(part)
            for point in run["curve"]:
                point.pop(part, None)
    for text in told(record):
        assert text
        assert "nan" not in text.lower().replace("nan`", "")
        assert "None" not in text


@pytest.mark.parametrize("name", ALL)
def test_every_paragraph_is_a_whole_sentence_with_balanced_code(name):
    for _, paragraphs in sentences(getattr(records, name)()):
        assert paragraphs
        for text in paragraphs:
            assert text.count("`") % 2 == 0, text
            assert text[0] == "`" or text[0].isupper(), text
            assert "  " not in text
            if "did not finish" not in text:
                assert text.endswith("."), text


def test_a_record_without_a_verdict_gets_one_from_its_figures(split):
    record = {key: value for key, value in split.items() if key != "verdict"}
    assert verdict_sentence(record) == verdict_sentence(split)


def test_a_learner_without_a_network_has_no_plasticity_to_lose():
    record = records.class_incremental()
    best = next(entry for entry in record["learners"] if entry["label"] == record["verdict"]["learner"])
    for run in best["runs"]:
        run["figures"]["plasticity"] = {}
        run["curve"] = [{key: value for key, value in point.items() if key != "plasticity"} for point in run["curve"]]
    text = " ".join(paragraph for _, paragraphs in sentences(record) for paragraph in paragraphs)
    assert "was not measured: it trains no network" in text
    assert "lost plasticity" not in text
