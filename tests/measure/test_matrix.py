"""The accuracy matrix of known learners."""

from dataclasses import replace

import pytest
import torch

from everlearn import FineTune, HeldOut, Learner, run
from everlearn.measure.matrix import AccuracyMatrix


class Latest(Learner):
    """Answers the label that came last for every row; class 0 before any came."""

    name = "latest"
    parts = ("label",)

    def __init__(self):
        self.label = 0

    def predict(self, x):
        return torch.nn.functional.one_hot(torch.full((len(x),), self.label), 3).float()

    def update(self, batch):
        if batch.y is not None:
            self.label = int(batch.y[-1])
        return {}

    def boundary(self, boundary):
        pass


def test_the_learner_that_knows_only_the_latest_class(incremental):
    monitor = AccuracyMatrix()
    result = run(Latest(), incremental(checkpoints=(11, 22, 36)), monitors=[monitor])
    found = result.figures["matrix"]
    assert found["names"] == ["only 0", "only 1", "only 2"]
    assert found["matrix"] == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert found["baseline"] == [1.0, 0.0, 0.0]
    assert found["average_accuracy"] == pytest.approx(1 / 3)
    assert found["anytime_accuracy"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found["forgetting"] == 1.0
    assert found["backward_transfer"] == -1.0
    assert found["forward_transfer"] == 0.0
    assert found["task_accuracy"] == 1.0  # one class in each set: nothing competes
    assert found["per_class"] == [
        {"red": 1.0, "green": 0.0, "blue": 0.0},
        {"red": 0.0, "green": 1.0, "blue": 0.0},
        {"red": 0.0, "green": 0.0, "blue": 1.0},
    ]
    points = [(point["event"], point["matrix"]) for point in result.curve if "matrix" in point]
    assert [event for event, _ in points] == [11, 22, 36]
    assert [point["seen_accuracy"] for _, point in points] == pytest.approx([1.0, 1 / 2, 1 / 3])
    assert [point["average_accuracy"] for _, point in points] == pytest.approx([1 / 3] * 3)
    assert points[1][1]["per_class"] == found["per_class"][1]


def test_classes_are_pooled_over_the_held_out_sets(incremental):
    stream = incremental()
    first = stream.held_out[0]
    stream.held_out = [first, replace(first, y=torch.cat([torch.zeros(5), torch.ones(15)]).long())]
    found = run(Latest(), stream, monitors=[AccuracyMatrix()]).figures["matrix"]
    assert found["matrix"][0] == [1.0, 0.25]
    assert found["per_class"][0] == {"red": 1.0, "green": 0.0}
    assert found["backward_transfer"] is None and found["baseline"] == []  # three checkpoints, two sets


def test_where_the_task_is_told_only_its_classes_compete(incremental):
    y = torch.tensor([1, 2, 1, 2])
    scores = torch.tensor([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0], [0.0, 1.0, 0.5], [0.0, 1.0, 0.5]])
    found = []
    for task in (None, 0):
        monitor = AccuracyMatrix()
        monitor.start(Latest(), incremental())
        monitor.judge(0, 0, HeldOut("pair", torch.zeros(4, 4), y, task), scores)
        found.append((monitor.matrix, monitor.figures()["per_class"]))
        assert monitor.figures()["task_accuracy"] == 0.75  # the same rows, whether the task is told or not
    assert found[0] == ([[0.25]], [{"green": 0.5, "blue": 0.0}])
    assert found[1] == ([[0.75]], [{"green": 1.0, "blue": 0.5}])


def test_the_baseline_is_the_learner_before_its_first_event(incremental, network):
    stream = incremental()
    model = network()
    expected = [float((model(item.x).argmax(1) == item.y).double().mean()) for item in stream.held_out]
    found = run(FineTune(network()), stream, monitors=[AccuracyMatrix()]).figures["matrix"]
    assert found["baseline"] == pytest.approx(expected)
    table = found["matrix"]
    assert found["forward_transfer"] == pytest.approx(((table[0][1] - expected[1]) + (table[1][2] - expected[2])) / 2)


def test_a_stream_that_was_never_judged_has_no_figures(incremental):
    found = run(Latest(), incremental(checkpoints=()), monitors=[AccuracyMatrix()]).figures["matrix"]
    assert found["matrix"] == [] and found["average_accuracy"] is None and found["forgetting"] is None


class Backwards(Learner):
    """Prefers the class with the highest number, whatever it has seen."""

    name = "backwards"
    parts = ()

    def predict(self, x):
        return torch.arange(3.0).expand(len(x), 3)

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


def test_only_classes_that_came_compete_where_that_is_asked(incremental):
    """Classes come as 0, 1, 2: masked, the highest class that came wins; unmasked, class 2 wins from the start."""
    plain, masked = AccuracyMatrix(), AccuracyMatrix(seen_only=True)
    run(Backwards(), incremental(checkpoints=(11, 22, 36)), monitors=[plain])
    run(Backwards(), incremental(checkpoints=(11, 22, 36)), monitors=[masked])
    assert plain.figures()["matrix"] == [[0.0, 0.0, 1.0]] * 3
    assert masked.figures()["matrix"] == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
