"""Prequential accuracy against slow twins and River."""

import json

import pytest
import torch

from everlearn import Batch, FineTune, Learner, run
from everlearn.core.errors import ArgumentError
from everlearn.core.guard import Guard
from everlearn.core.state import capture, pack
from everlearn.measure.prequential import Prequential


class Constant(Learner):
    """Always answers the same class, or class x[0] where the first column is >= 0."""

    name = "constant"
    parts = ("guard",)

    def __init__(self):
        self.guard = Guard(self.name)

    def predict(self, x):
        return torch.nn.functional.one_hot(x[:, 0].long(), 3).float()

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


def rows(*pairs):
    """A batch of (guess, label) pairs for `Constant`."""
    guess, label = zip(*pairs, strict=True)
    return Batch(torch.tensor(guess).float()[:, None].repeat(1, 4), torch.tensor(label))


def figures_of(stream, learner=None, window=None):
    monitor = Prequential(window)
    result = run(learner or Constant(), stream, monitors=[monitor])
    return result.figures["prequential"], result.curve


def test_by_hand(listed):
    events = [rows((0, 0), (1, 0)), rows((1, 1), (1, 1), (2, 1)), rows((2, 2), (0, 2), (0, 0))]
    found, _ = figures_of(listed(events, deployed=1))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["accuracy_all"] == pytest.approx(5 / 8)
    assert (found["scored"], found["scored_all"], found["pending"]) == (6, 8, 0)
    assert found["per_class"] == {"red": 1.0, "green": pytest.approx(2 / 3), "blue": 0.5}
    # after deployment: labels 1 3 2 of six, answers 2 2 2: q = (1*2 + 3*2 + 2*2) / 36 = 1/3
    assert found["kappa"] == pytest.approx((4 / 6 - 1 / 3) / (1 - 1 / 3))


def test_nothing_after_deployment_is_no_accuracy(listed):
    found, _ = figures_of(listed([rows((0, 0))], deployed=1))
    assert found["accuracy"] is None and found["kappa"] is None
    assert (found["accuracy_all"], found["scored"], found["per_class"]) == (1.0, 0, {})


def test_window_and_total_of_the_curve(listed):
    events = [rows((0, int(index >= 60))) for index in range(100)]  # right for 60 rows, then wrong
    found, curve = figures_of(listed(events), window=10)
    by_event = {point["event"]: point["prequential"] for point in curve}
    assert by_event[60]["accuracy"] == 1.0
    assert by_event[65]["accuracy"] == pytest.approx(0.5)
    assert by_event[100]["accuracy"] == 0.0
    assert by_event[100]["total"] == pytest.approx(0.6) == found["accuracy"]
    wide = {point["event"]: point["prequential"] for point in figures_of(listed(events), window=40)[1]}
    assert wide[65]["accuracy"] == pytest.approx(35 / 40)


def test_the_curve_by_class_covers_the_rows_since_the_point_before(listed):
    events = [rows((0, 0), (1, int(index >= 50))) for index in range(100)]
    _, curve = figures_of(listed(events))
    shown = {point["event"]: point["prequential"]["per_class"] for point in curve if "per_class" in point["prequential"]}
    assert list(shown) == list(range(5, 101, 5))  # 20 points
    assert shown[50] == {"red": 0.5}
    assert shown[55] == {"red": 1.0, "green": 1.0}


def test_the_default_window_is_a_twentieth_of_the_rows(listed):
    for count, expected in ((100, 100), (2000, 200)):
        stream = listed([rows((0, 0), (0, 0)) for _ in range(count)])
        monitor = Prequential()
        monitor.start(None, stream)
        assert monitor.span == expected
    with pytest.raises(ArgumentError, match="window"):
        Prequential(window=0)


def test_learning_comes_after_the_test(listed):
    """A learner that learns a label by heart is wrong whenever the label changes: it never sees the answer first."""
    events = [Batch(torch.zeros(4, 4), torch.full((4,), index % 2)) for index in range(40)]
    learner = FineTune(torch.nn.Linear(4, 3), passes=200)
    found, _ = figures_of(listed(events, deployed=1), learner)
    assert found["accuracy"] == 0.0


def twin(stream, learner):
    """The obvious loop: predict, keep, score when the answer comes; corrections overwrite."""
    kept, score = {}, {}
    for position, event in enumerate(stream):
        if not isinstance(event, Batch):
            learner.boundary(event)
            continue
        names = event.id or tuple(f"{position}#{row}" for row in range(len(event)))
        guess = learner.predict(event.x).argmax(1).tolist()
        for row, name in enumerate(names):
            kept.setdefault(name, (guess[row], position))
            if event.y is not None:
                score[name] = (*kept[name], int(event.y[row]))
        learner.update(event)
    after = [guess == label for guess, position, label in score.values() if position >= stream.deployed]
    every = [guess == label for guess, _, label in score.values()]
    return sum(after) / len(after), sum(every) / len(every), len(after), len(kept) - len(score)


@pytest.mark.parametrize("deployed", [0, 13, 25])
def test_late_answers_equal_the_slow_twin(incremental, network, deployed):
    stream = incremental(deployed=deployed)
    stream.events = [*stream.events[:-2], *stream.events[-1:]]  # one batch is never answered
    stream.checkpoints = ()
    stream.held_out = ()
    expected = twin(stream, FineTune(network()))
    found, _ = figures_of(stream, FineTune(network()))
    assert (found["accuracy"], found["accuracy_all"], found["scored"], found["pending"]) == pytest.approx(expected)
    assert found["pending"] == 8


def test_a_late_answer_to_a_prediction_made_before_deployment_does_not_count_as_after(listed):
    asked = rows((0, 0))
    events = [Batch(asked.x, None, id=("a",)), rows((0, 1)), Batch(asked.x, asked.y, id=("a",))]
    found, _ = figures_of(listed(events, deployed=1))
    assert (found["accuracy"], found["accuracy_all"], found["scored"]) == (0.0, 0.5, 1)


def test_corrections_move_counts_to_the_right_label(listed):
    asked = rows((0, 0), (1, 1))
    names = ("a", "b")
    wrong, right = torch.tensor([2, 1]), torch.tensor([0, 1])
    events = [Batch(asked.x, None, id=names), Batch(asked.x, wrong, id=names), Batch(asked.x[:1], right[:1], id=("a",))]
    before, _ = figures_of(listed(events[:2]))
    after, _ = figures_of(listed(events))
    assert (before["accuracy"], before["per_class"]) == (0.5, {"green": 1.0, "blue": 0.0})
    assert (after["accuracy"], after["per_class"], after["scored"]) == (1.0, {"red": 1.0, "green": 1.0}, 2)


class OfRiver(Learner):
    """A River classifier of two classes as a learner, row by row."""

    name = "of_river"
    parts = ()

    def __init__(self, model):
        self.model = model

    def predict(self, x):
        answers = [int(self.model.predict_one(dict(enumerate(row)))) for row in x.tolist()]
        return torch.nn.functional.one_hot(torch.tensor(answers), 2).float()

    def update(self, batch):
        if batch.y is not None:
            for row, label in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
                self.model.learn_one(dict(enumerate(row)), bool(label))
        return {}

    def boundary(self, boundary):
        pass


@pytest.mark.parametrize("delay", [0, 1, 30])
def test_equals_rivers_progressive_validation(listed, delay):
    from river import evaluate, linear_model, metrics
    from river.stream import simulate_qa
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    table = (data.data - data.data.mean(0)) / data.data.std(0)
    source = [
        (dict(enumerate(map(float, row))), bool(label)) for row, label in zip(table[:300], data.target[:300], strict=True)
    ]
    events = []
    for number, x, y, *_ in simulate_qa(source, None, delay):
        tensor = torch.tensor([list(x.values())], dtype=torch.float64)
        events.append(Batch(tensor, None if y is None else torch.tensor([int(y)]), id=(str(number),)))
    stream = listed(events, classes=("malign", "benign"), shape=(30,))
    found, _ = figures_of(stream, OfRiver(linear_model.LogisticRegression()))
    metric = evaluate.progressive_val_score(source, linear_model.LogisticRegression(), metrics.Accuracy(), delay=delay)
    assert found["scored"] == 300
    assert found["accuracy"] == pytest.approx(metric.get(), abs=1e-12)
    assert 0.5 < found["accuracy"] < 1.0


def test_the_state_does_not_grow_with_the_stream(listed):
    sizes = []
    for count in (2_000, 8_000):
        monitor = Prequential(window=100)
        run(Constant(), listed([rows((0, 0), (1, 2))] * count), monitors=[monitor])
        tensors, tree = pack(capture(monitor))
        sizes.append(len(tensors) + len(json.dumps(tree)))
    assert abs(sizes[0] - sizes[1]) < 32  # digits of the counters
