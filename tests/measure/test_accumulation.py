"""Knowledge accumulation: curve, level, score, frequencies and absences worked out by hand, and resumed to the same figures."""

import json
import math

import pytest
import torch

from everlearn import Batch, Boundary, FineTune, HeldOut, run
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, restore
from everlearn.measure.accumulation import KnowledgeAccumulation, accumulation_score

LABELS = ("red", "green", "blue")


def batch(*labels):
    return Batch(torch.zeros(len(labels), 4), torch.tensor(labels))


def answers(*labels):
    """Scores whose highest are those labels."""
    return torch.nn.functional.one_hot(torch.tensor(labels), 3).float()


def fed(monitor, listed, steps, held_out, learner=None, **attributes):
    """A monitor that was shown events, and answers on the held-out sets wherever a tuple of answers stands among them."""
    events = [step for step in steps if not isinstance(step, tuple)]
    monitor.start(learner, listed(events, boundaries=any(isinstance(step, Boundary) for step in events), **attributes))
    position = checkpoint = 0
    for step in steps:
        if isinstance(step, tuple):
            for index, (part, given) in enumerate(zip(held_out, step, strict=True)):
                monitor.judge(checkpoint, index, part, answers(*given))
            checkpoint += 1
        else:
            monitor.seen.see(step, position)
            position += 1
    return monitor


ONE = [HeldOut("all", torch.zeros(6, 4), torch.tensor([0, 0, 1, 1, 2, 2]))]
STEPS = [
    Boundary(0), batch(0, 1), ([0, 0, 1, 1, 0, 0],),  # 4 of 6; red 1, green 1, blue never came
    Boundary(1), batch(2), ([0, 2, 2, 2, 2, 2],),  # 3 of 6: red 1/2 and green 0, one task later
    Boundary(2), batch(0), ([0, 0, 1, 2, 2, 2],),  # 5 of 6: green 1/2, two tasks later, blue 1, one task later
]  # fmt: skip


def test_by_hand(listed):
    monitor = fed(KnowledgeAccumulation(), listed, STEPS, ONE)
    assert monitor.curve() == [[1, 4 / 6], [2, 3 / 6], [3, 5 / 6]]
    assert monitor.end() == 5 / 6  # the last tenth of three checkpoints is the last one
    assert monitor.instability() is None  # and so is the last fifth
    assert monitor.level() == pytest.approx((2 + 1 + 1) / 3 / 3)  # classes per task over classes
    assert monitor.score(5 / 6) == 1.0
    assert monitor.per_class() == {"red": 1.0, "green": 0.5, "blue": 1.0}
    assert monitor.by_frequency() == [
        {"label": "red", "frequency": 2 / 3, "accuracy": 1.0},
        {"label": "green", "frequency": 1 / 3, "accuracy": 0.5},
        {"label": "blue", "frequency": 1 / 3, "accuracy": 1.0},
    ]
    assert monitor.forgetting_curve() == [
        {"tasks": [0, 0], "accuracy": 1.0, "count": 4},  # red, green | blue | red
        {"tasks": [1, 1], "accuracy": (0.5 + 0.0 + 1.0) / 3, "count": 3},  # red, green | blue
        {"tasks": [2, 3], "accuracy": 0.5, "count": 1},  # green
    ]
    found = monitor.figures()
    assert found["returning"] == 1  # red
    assert (found["unit"], found["window"]) == ("task", None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_score_at_its_ends():
    """Nothing beyond the task at hand gives 0, the i.i.d. accuracy 1; one that falls below the level is negative."""
    assert accumulation_score(0.2, 0.2, 0.9) == 0.0
    assert accumulation_score(0.9, 0.2, 0.9) == 1.0
    assert accumulation_score(0.55, 0.2, 0.9) == pytest.approx(0.5)
    assert accumulation_score(0.1, 0.2, 0.9) < 0
    assert accumulation_score(0.5, 0.5, 0.5) is None
    assert accumulation_score(0.5, 0.5, 0.4) is None


def test_rows_of_several_held_out_sets_are_pooled(listed):
    apart = [
        HeldOut("red", torch.zeros(2, 4), torch.tensor([0, 0])),
        HeldOut("others", torch.zeros(4, 4), torch.tensor([1, 1, 2, 2])),
    ]
    steps = [(step[0][:2], step[0][2:]) if isinstance(step, tuple) else step for step in STEPS]
    assert fed(KnowledgeAccumulation(), listed, steps, apart).figures() == (
        fed(KnowledgeAccumulation(), listed, STEPS, ONE).figures()
    )


def test_the_level_weighs_classes_by_their_held_out_rows(listed):
    """Tasks {red, green}, {blue}, {red}; 1, 1 and 4 held-out rows: 2/6, 4/6 and 1/6 can be known from the task at hand."""
    held_out = [HeldOut("all", torch.zeros(6, 4), torch.tensor([0, 1, 2, 2, 2, 2]))]
    monitor = fed(KnowledgeAccumulation(), listed, STEPS, held_out)
    assert monitor.level() == pytest.approx((2 / 6 + 4 / 6 + 1 / 6) / 3)


def test_ends_are_means_over_the_last_checkpoints(listed):
    """Twenty checkpoints: the last tenth is two, the last fifth is four."""
    right = [0] * 16 + [1, 3, 2, 6]
    steps = [Boundary(0), batch(0)]
    for hits in right:
        wrong = [(label + 1) % 3 for label in ONE[0].y.tolist()]
        steps.append(([*ONE[0].y.tolist()[:hits], *wrong[hits:]],))
    monitor = fed(KnowledgeAccumulation(), listed, steps, ONE)
    assert monitor.end() == pytest.approx((2 + 6) / 12)
    mean = 3.0
    assert monitor.instability() == pytest.approx(math.sqrt(sum((hits - mean) ** 2 for hits in right[-4:]) / 3) / 6)
    assert monitor.per_class() == {"red": 1.0, "green": 0.5, "blue": 0.5}


def test_a_stream_without_tasks_is_cut_into_windows(listed):
    events = [batch(number % 3) for number in range(300)]
    found = fed(KnowledgeAccumulation(), listed, events, ONE).figures()
    assert (found["unit"], found["window"], found["recurrence"]["tasks"]) == ("window", 30, 10)  # ten rows for each class
    large = fed(KnowledgeAccumulation(), listed, [batch(*range(3)) for _ in range(3000)], ONE).figures()
    assert (large["window"], large["recurrence"]["tasks"]) == (30, 100)
    assert found["returning"] == 0  # every window holds every class
    assert not found["recurrence"]["connected"]  # but no batch holds two
    own = fed(KnowledgeAccumulation(window=1), listed, events, ONE).figures()
    assert (own["recurrence"]["tasks"], own["returning"]) == (300, 3)
    assert own["recurrence"]["expected_gaps"] == [3.0, 3.0, 3.0]


def test_where_nothing_is_held_out_there_are_occurrences_only(listed):
    found = fed(KnowledgeAccumulation(window=1), listed, [batch(0, 1), batch(2)], ONE).figures()
    assert found["curve"] == found["by_frequency"] == found["forgetting_curve"] == []
    assert found["end"] is found["level"] is found["instability"] is None
    assert found["per_class"] == {}
    assert found["recurrence"]["expected_gaps"] == [2.0, 2.0, 2.0]
    assert fed(KnowledgeAccumulation(), listed, [batch(0)], ONE).score(0.9) is None


def test_the_window_is_checked():
    with pytest.raises(ArgumentError, match="accumulation: window must be an int >= 1, got 0"):
        KnowledgeAccumulation(window=0)


def test_passes_are_those_of_the_learner(listed, network):
    assert fed(KnowledgeAccumulation(), listed, STEPS, ONE, FineTune(network(), passes=3)).figures()["passes"] == 3
    assert fed(KnowledgeAccumulation(), listed, STEPS, ONE, None).figures()["passes"] is None


def test_in_a_run_it_agrees_with_the_accuracy_matrix_and_with_a_slow_twin(incremental, network):
    from everlearn.measure.matrix import AccuracyMatrix

    stream = incremental()
    monitor, matrix = KnowledgeAccumulation(), AccuracyMatrix()
    result = run(FineTune(network()), stream, monitors=[monitor, matrix])
    averages = [sum(row) / len(row) for row in matrix.matrix]  # sets of one size: the pooled rows give the same
    assert [accuracy for _, accuracy in monitor.curve()] == pytest.approx(averages)
    assert monitor.figures()["per_class"] == matrix.figures()["per_class"][-1]
    points = [point["accumulation"] for point in result.curve if "accumulation" in point]
    assert [[point["tasks"], point["accuracy"]] for point in points] == monitor.curve()
    by_absence: dict[int, list[float]] = {}
    classes = matrix.figures()["per_class"]
    came = {0: {"red": 0}, 1: {"red": 1, "green": 0}, 2: {"red": 2, "green": 0, "blue": 0}}  # answers for green come late
    for checkpoint, absences in came.items():
        for label, tasks in absences.items():
            by_absence.setdefault(tasks, []).append(classes[checkpoint][label])
    expected = [
        {"tasks": [low, high], "accuracy": pytest.approx(sum(found) / len(found)), "count": len(found)}
        for low, high, found in ((0, 0, by_absence[0]), (1, 1, by_absence[1]), (2, 3, by_absence[2]))
    ]
    assert monitor.forgetting_curve() == expected


@pytest.mark.parametrize("at", range(1, len(STEPS)))
def test_resumed_anywhere_it_ends_in_the_same_figures(listed, at):
    whole = fed(KnowledgeAccumulation(), listed, STEPS, ONE)
    first = fed(KnowledgeAccumulation(), listed, STEPS[:at], ONE)
    second = KnowledgeAccumulation()
    second.start(None, listed([], boundaries=True))
    restore(second, capture(first))
    position = sum(not isinstance(step, tuple) for step in STEPS[:at])
    for step in STEPS[at:]:
        if isinstance(step, tuple):
            second.judge(len(second.right), 0, ONE[0], answers(*step[0]))
        else:
            second.seen.see(step, position)
            position += 1
    assert second.figures() == whole.figures()
