"""The fifth answer says what the figures say, for every decision and whatever is missing."""

import copy
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import numbers as say
from everlearn.measure.report import terminal_summary, terminal_table
from everlearn.measure.report.plain_words import plain_answer, plain_sentence
from everlearn.measure.report.recurrence import accumulated

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))
MASKED = "fine_tune(loss=masked())"


@pytest.fixture(scope="module")
def made():
    return records.recurring()


@pytest.fixture
def record(made):
    return copy.deepcopy(made)


def told(record):
    return " ".join(plain_answer(record)).replace(say.SPACE, " ")


def short(record):
    return plain_sentence(record).replace(say.SPACE, " ")


def learner(record, label):
    return next(entry for entry in record["learners"] if entry["label"] == label)


def score(record, label):
    return 100 * learner(record, label)["summary"]["score"]["mean"]


def without(record, *labels):
    learners = [entry for entry in record["learners"] if entry["label"] not in labels]
    return records.finish(learners, record["stream"], record["config"])


def figures(record):
    for entry in record["learners"]:
        for run in entry["runs"]:
            yield run["figures"]["accumulation"]


def test_no_with_the_difference_its_interval_and_the_remedy(record):
    gap = score(record, "replay(capacity=200)") - score(record, "fine_tune")
    assert short(record) == f"Plain SGD is not enough: `replay(capacity=200)` is better by {gap:.1f} points."
    text = told(record)
    assert text.startswith(
        f"No. `fine_tune` scores {score(record, 'fine_tune'):.1f} %. Beside the best other learner within the budget"
    )
    pair = next(pair for pair in record["pairs"] if {pair["first"], pair["second"]} == {"fine_tune", "replay(capacity=200)"})
    low, high = sorted(abs(100 * pair[key]) for key in ("low", "high"))
    assert f"it is worse by {gap:.1f} points (95 % interval {low:.1f} to {high:.1f}, 3 seeds)." in text
    assert "`replay(capacity=200)` is itself one of the cheap remedies" in text


def test_the_remedy_stands_beside_plain_sgd_and_beside_the_best():
    learners = records.RECURRING | {"derpp": ("derpp", False, 0.99, 0.0, 1.1, 200)}
    record = records.recurring(learners=learners)
    text = told(record)
    gain = score(record, "replay(capacity=200)") - score(record, "fine_tune")
    behind = score(record, "derpp") - score(record, "replay(capacity=200)")
    assert f"is `replay(capacity=200)`, with {score(record, 'replay(capacity=200)'):.1f} %." in text
    assert f"Beside plain SGD it is better by {gain:.1f} points" in text
    assert f"beside `derpp` it is worse by {behind:.1f} points" in text
    bare = told(without(record, "replay(capacity=200)", MASKED))
    assert "No cheap remedy (a masked loss or replay) stands beside it. Add `fine_tune(loss=masked())` or `replay`" in bare


def test_yes_where_it_is_ahead_or_less_than_a_point_behind():
    ahead = records.recurring(learners={key: records.RECURRING[key] for key in ("frozen", "fine_tune", "retrain")} | {
        "replay(capacity=200)": ("replay", False, 0.5, 0.0, 0.7, 200),
    })  # fmt: skip
    assert short(ahead) == "Plain SGD is enough: `fine_tune` is better than every other learner within the budget."
    assert told(ahead).startswith("Yes. ")
    near = records.recurring(noise=0.0005, learners={
        "frozen": records.RECURRING["frozen"],
        "fine_tune": ("fine_tune", False, 0.960, 0.0, 0.4, 0),
        "replay(capacity=200)": ("replay", False, 0.964, 0.0, 0.7, 200),
    })  # fmt: skip
    assert "is not better than `fine_tune` by as much as one point" in short(near)
    assert "The whole interval stays above a loss of 1 point, and less than that counts as enough here." in told(near)


def test_too_close_to_tell():
    near = records.RECURRING | {"replay(capacity=200)": ("replay", False, 0.80, 0.04, 0.7, 200)}
    noisy = records.recurring(noise=0.08, learners={key: value for key, value in near.items() if key != MASKED})
    assert short(noisy).startswith("Whether plain SGD is enough is too close to tell: ")
    assert told(noisy).startswith("Too close to tell. ")
    assert "The interval reaches zero, so it may be chance; more seeds narrow it." in told(noisy)
    alone = records.recurring(seeds=(0,))
    assert "without an interval" in short(alone)
    assert "run at least three seeds" in told(alone)
    assert "95 %" not in told(alone)


def test_where_it_cannot_be_told_the_answer_says_why(record):
    only = without(record, "replay(capacity=200)", MASKED)
    assert (
        short(only)
        == "Whether plain SGD is enough cannot be told: no other learner finished within the budget beside `fine_tune`."
    )
    assert told(only).startswith("It cannot be told: no other learner finished")
    failed = copy.deepcopy(record)
    learner(failed, "fine_tune").update(error="it stopped", runs=[], summary={})
    failed = records.finish(failed["learners"], failed["stream"], failed["config"])
    assert told(failed).startswith("It cannot be told: `fine_tune` did not finish.")
    assert plain_answer(without(record, "fine_tune")) == []
    assert plain_sentence(without(record, "fine_tune")) == ""


def test_a_gain_that_is_none_over_the_frozen_model_is_told():
    text = told(records.do_not_adapt())
    assert "That says little: beside the frozen model, `replay` is worse by" in text
    assert "That says little" not in told(records.recurring())


def test_costs_are_seconds_bytes_and_rows(record):
    own, other = (learner(record, label)["summary"]["seconds"]["mean"] for label in ("fine_tune", "replay(capacity=200)"))
    text = told(record)
    assert (
        f"Per seed, `fine_tune` takes {say.seconds(own)}, keeps nothing for replay and trains on 8,000 rows".replace(
            say.SPACE, " "
        )
        in text
    )
    assert (
        f"takes {say.seconds(other)} ({other / own:.1f} times as long), keeps 157 kB for replay".replace(say.SPACE, " ")
        in text
    )
    assert "and trains on 8,600 rows (1.1 times as many)." in text


def test_classes_that_come_back_are_told_with_their_gaps(record):
    assert "a task has 2 of 10 classes, and a class comes again after 4.2 tasks (“2”) to 25 tasks (“0”)." in told(record)
    for found in figures(record):
        found["recurrence"]["expected_gaps"] = [5.0] * 10
    assert "a class comes again about every 5 tasks." in told(record)
    for found in figures(record):
        found |= {"unit": "window", "window": 12}
    assert "Tasks are not told here: windows of 12 events stand for them." in told(record)
    for found in figures(record):
        found["returning"] = 0
    assert "No class comes back once it was absent" in told(record)
    assert "Knowledge accumulation" not in told(record)
    for found in figures(record):
        found["recurrence"]["expected_gaps"] = [1.0] * 10
    assert "Every window has rows of every class, so no class is ever absent." in told(record)


def test_knowledge_accumulation_names_its_yardstick(record):
    found = accumulated(learner(record, "fine_tune"), learner(record, "retrain"))
    text = told(record)
    assert f"has {found['mean']:.2f} (95 % interval {found['low']:.2f} to {found['high']:.2f}), `replay`" in text
    assert "0 is nothing kept beyond the classes of the task at hand (20.0 %), 1 is as good as `retrain`" in text
    assert "That yardstick stands for training on the same rows in no order of tasks, which was not run." in text
    assert "accuracy still varies by 2.0 points from checkpoint to checkpoint." in text
    assert "is not known: that takes `retrain` beside it, as the yardstick." in told(without(record, "retrain"))


def test_rare_classes_are_named_in_the_users_labels_and_at_most_five(record):
    text = told(record)
    runs = [run["figures"]["accumulation"]["per_class"] for run in learner(record, "fine_tune")["runs"]]
    replayed = [run["figures"]["accumulation"]["per_class"] for run in learner(record, "replay(capacity=200)")["runs"]]
    zero = sum(run["0"] for run in runs) / 3
    rare, kept = (sum(run["0"] + run["1"] for run in held) / 6 for held in (runs, replayed))
    assert f"Too rare for plain SGD: “0” ({100 * zero:.1f} %, every 25 tasks) and “1”" in text
    assert f"On these classes its accuracy is {100 * rare:.1f} %, that of `replay` {100 * kept:.1f} %." in text
    third = learner(record, "fine_tune")["runs"][2]["figures"]["accumulation"]
    third["by_frequency"][0] |= {"frequency": 0.24}
    assert "every 25 tasks, seeds 0 and 1)" in told(record)
    many = records.recurring()
    for run in learner(many, "fine_tune")["runs"]:
        for row in run["figures"]["accumulation"]["by_frequency"][:7]:
            row |= {"frequency": 0.04, "accuracy": 0.1}
    assert "and 2 more. On these classes" in told(many)


def test_a_masked_loss_is_warned_of_where_classes_stay_apart(record):
    assert "Beware" not in told(record)
    for found in figures(record):
        found["recurrence"] |= {"connected": False, "components": [[0, 1], [2, 3, 4, 5, 6, 7, 8, 9]]}
    text = told(record)
    assert (
        "Beware of the masked loss of `fine_tune(loss=masked())`: classes fall into 2 groups that never share a task" in text
    )
    assert "(“0, 1” and “2, 3, 4, 5, 6, …”). A masked loss never compares classes of different groups" in text
    assert "Beware" not in told(without(record, MASKED))
    for run in learner(record, MASKED)["runs"]:
        run["figures"]["memory"]["replayed"] = 10  # rows remembered meet those at hand
    assert "Beware" not in told(record)


def test_a_masked_loss_is_no_plain_fine_tuning_elsewhere_in_the_report(record):
    from everlearn.measure.report import sentences

    worth = " ".join(sentences(record)[0][1]).replace(say.SPACE, " ")
    assert f"Plain fine-tuning scores {score(record, 'fine_tune'):.1f} %" in worth
    assert score(record, MASKED) > score(record, "fine_tune")


def test_the_terminal_has_the_answer_in_one_line(record):
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(record).caption)
    console.print(terminal_summary(record))
    text = console.export_text()
    assert text.count(plain_sentence(record).replace("`", "")) == 1
    assert "Is plain SGD enough on this stream?\nNo. fine_tune scores" in text


@pytest.mark.parametrize("part", ["matrix", "accumulation", "memory", "cost"])
def test_any_figure_may_be_missing(record, part):
    for entry in record["learners"]:
        for run in entry["runs"]:
            run["figures"].pop(part)
            for point in run["curve"]:
                point.pop(part, None)
        if part in ("memory", "cost"):
            for key in ("replay_bytes", "seconds", "update_ms"):
                entry["summary"].pop(key, None)
    text = told(record)
    assert text.startswith("No.")
    assert "None" not in text and "nan" not in text and "  " not in text
