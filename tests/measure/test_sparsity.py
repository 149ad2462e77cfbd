"""What masks read, share and leave free, by hand; and the forecast under independent draws."""

import math

import pytest
import torch
from torch import nn

from everlearn import Boundary, Sparse, run
from everlearn.core.monitor import Step
from everlearn.data.load import load
from everlearn.data.split import tasks
from everlearn.measure.sparsity import Sparsity, tasks_left, used_fraction


class Masked:
    """Four weights in one layer and four in another."""

    layers = {"a": slice(0, 4), "b": slice(4, 8)}

    def __init__(self, *masks):
        self.masks = [torch.tensor([bit == "1" for bit in mask]) for mask in masks]

    @property
    def tasks(self):
        return tuple(range(len(self.masks)))

    def mask_of(self, task):
        return self.masks[task]


def look(watch, learner):
    watch.observe(Step(0, Boundary(0), None, None, 0.0, 0.0), learner)
    return watch.figures()


@pytest.mark.parametrize(("density", "count", "used"), [(0.2, 10, 0.892626), (0.05, 10, 0.401263), (0.5, 5, 0.96875)])
def test_used_under_independent_draws(density, count, used):
    assert used_fraction(density, count) == pytest.approx(used, abs=5e-7)
    drawn = torch.rand(count, 200_000, generator=torch.Generator().manual_seed(0)) < density
    assert float(drawn.any(0).double().mean()) == pytest.approx(used, abs=4 * math.sqrt(used * (1 - used) / 200_000))


def test_figures_by_hand():
    watch = Sparsity(reserve=0.3)
    learner = Masked("11001000")
    assert look(watch, learner)["by_task"] == [{"task": 0, "density": 0.375, "reuse": 0.0, "used": 0.375}]
    learner.masks.append(torch.tensor([True, False, True, False, True, False, False, False]))
    found = look(watch, learner)
    assert found["by_task"][1] == {"task": 1, "density": 0.375, "reuse": 2 / 3, "used": 0.5}
    assert found["used"] == {"a": 0.75, "b": 0.25} and found["full"] == ["a"]
    assert found["tasks_left"]["a"] == 0.0
    assert found["tasks_left"]["b"] == pytest.approx(math.log(0.3 / 0.75) / (math.log(0.75) / 2))
    assert found["next_full"] == {"layer": "b", "tasks": found["tasks_left"]["b"]}


def test_the_open_task_is_looked_at_anew():
    watch, learner = Sparsity(), Masked("10000000", "01000000")
    look(watch, learner)
    learner.masks[1] = torch.tensor([False, True, True, True, False, False, False, False])
    assert [row["density"] for row in look(watch, learner)["by_task"]] == [0.125, 0.375]


def test_the_forecast_is_that_of_its_formula():
    assert tasks_left(used_fraction(0.05, 10), 10, 0.1) == pytest.approx(math.log(0.1) / math.log(0.95) - 10)
    assert tasks_left(1.0, 3) == 0.0 and tasks_left(0.96, 3) == 0.0
    assert tasks_left(0.0, 3) is None


def test_without_a_reserve_a_layer_is_full_when_nothing_is_free():
    assert tasks_left(0.5, 3, 0.0) is None and tasks_left(1.0, 3, 0.0) == 0.0
    found = look(Sparsity(reserve=0.0), Masked("11111000"))
    assert found["full"] == ["a"] and found["tasks_left"] == {"a": 0.0, "b": None} and found["next_full"] is None


def test_a_run_tells_before_a_layer_is_full():
    stream = tasks(load("digits"), experiences=5, batch=50)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    learner = Sparse(model, init="uniform", density=0.3, growth="none")
    found = run(learner, stream, monitors=[Sparsity()]).figures["sparsity"]
    assert [row["task"] for row in found["by_task"]] == [0, 1, 2, 3, 4]
    assert all(row["density"] == pytest.approx(0.3, abs=1e-3) for row in found["by_task"])
    expected = [used_fraction(0.3, count) for count in range(1, 6)]
    assert [row["used"] for row in found["by_task"]] == pytest.approx(expected, abs=0.02)
    assert [row["reuse"] for row in found["by_task"]] == pytest.approx([0.0, *expected[:4]], abs=0.03)
    assert found["next_full"]["tasks"] == pytest.approx(math.log(0.05) / math.log(0.7) - 5, abs=0.5)


def test_other_learners_leave_no_figures():
    from everlearn import FineTune

    watch = Sparsity()
    assert look(watch, FineTune(nn.Linear(2, 2))) == {} and watch.record(FineTune(nn.Linear(2, 2))) == {}
