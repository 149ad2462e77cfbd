"""What is counted of a regulated rate, over a fold and by hand."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch
from everlearn.core.monitor import Step
from everlearn.core.run import run
from everlearn.core.state import capture, restore
from everlearn.data.label_swaps import label_swaps
from everlearn.data.load import load
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.homeostatic import Homeostatic
from everlearn.measure.regulation import Regulation
from everlearn.nn.networks import mlp

ROW = {"decided": True, "taken": False, "wrong": False, "clipped": False, "finite": True}


def test_rates_and_counts_are_those_that_were_told():
    watch = Regulation()
    assert watch.figures() == {} and watch.record(None) == {}
    rows = [{"lr": 0.2, "taken": True, "wrong": True}, {"lr": 0.1}, {"lr": 0.4, "taken": True, "clipped": True}]
    for row in [*rows, {"lr": 0.3, "finite": False, "decided": False}]:
        watch.note(ROW | row)
    found = watch.figures()
    assert found["lr"] == pytest.approx({"start": 0.2, "end": 0.3, "mean": 0.25, "lowest": 0.1, "highest": 0.4})
    counts = {"steps": 4, "decided": 3, "taken": 2, "wrong": 1, "clipped": 1, "skipped": 1}
    assert {name: found[name] for name in counts} == counts
    assert watch.record(None) == {"lr": 0.3, "taken": 2}


def test_the_trace_has_the_mean_rate_of_each_span():
    watch = Regulation(points=2)
    stream = label_swaps(load("digits"), swaps=1, epochs=1, batch=400)  # four events, two a span
    watch.start(FineTune(mlp(stream.schema)), stream)
    batch = Batch(torch.zeros(1, 64), torch.zeros(1, dtype=torch.int64))
    for position, lr in enumerate((0.1, 0.3, 0.5, None)):
        metrics = None if lr is None else ROW | {"lr": lr}
        watch.observe(Step(position, batch, None, metrics, 0.0, 0.0), None)
    assert [[event, round(lr, 9)] for event, lr in watch.figures()["trace"]] == [[2.0, 0.2], [4.0, 0.5]]
    other = Regulation(points=2)
    restore(other, capture(watch))
    assert other.figures() == watch.figures()


def test_it_watches_a_fold_and_leaves_others_alone():
    stream = label_swaps(load("digits"), epochs=1)
    learner = Homeostatic(mlp(stream.schema))
    watched = run(learner, stream, monitors=[Regulation(points=10)])
    found = watched.figures["regulation"]
    assert found["lr"]["end"] == learner.regulation.lr and found["steps"] == len(stream) == found["decided"] + 1
    assert found["taken"] >= found["wrong"] > 0 and len(found["trace"]) == 10
    assert found["balance"] == learner.regulation.balance
    whole = sum(lr for _, lr in found["trace"][:-1]) * 15 + found["trace"][-1][1] * (len(stream) - 9 * 15)
    assert whole / len(stream) == pytest.approx(found["lr"]["mean"])
    assert run(FineTune(mlp(stream.schema)), stream, monitors=[Regulation()]).figures["regulation"] == {}


def test_points_are_one_or_more():
    with pytest.raises(ArgumentError, match="regulation: points must be an int >= 1"):
        Regulation(points=0)
