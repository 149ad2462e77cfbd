"""The contract of learners that are told the task, and how a fold asks them."""

import pytest
import torch
from torch import nn

from everlearn import Batch, Boundary, Data, TaskLearner, check_learner, run
from everlearn.core.errors import InputError
from everlearn.core.guard import Guard
from everlearn.core.learner import ask, ask_latest
from everlearn.data.split import split, tasks
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.measure.plasticity import Plasticity

FLOOR = -1e9


class Centres(TaskLearner):
    """Per task the mean row of each class, of that task alone."""

    name = "centres"
    parts = ("guard", "order", "sums", "counts")
    needs_boundaries = True

    def __init__(self, model=None, *, classes=4, infer=False, seed=0):
        self.model, self.classes, self.infer, self.seed = model, classes, infer, seed
        self.infers_task = infer
        self.guard = Guard(self.name, classes)
        self.order = []
        self.sums = {}
        self.counts = {}

    @property
    def tasks(self):
        return tuple(self.order)

    def predict(self, x):
        self.guard.inputs(x)
        if not self.order:
            return torch.zeros(len(x), self.classes)
        if len(self.order) > 1 and not self.infer:
            raise InputError("centres: say which task.")
        return self.predict_in(x, self.order[-1])

    def predict_in(self, x, task):
        self.guard.inputs(x)
        if task not in self.order:
            raise InputError(f"centres: task {task} was never announced.")
        if str(task) not in self.sums:
            return torch.zeros(len(x), self.classes)
        counts = self.counts[str(task)]
        means = self.sums[str(task)] / counts.clamp(min=1.0)[:, None]
        return torch.where(counts > 0, -torch.cdist(x.flatten(1).float(), means), torch.tensor(FLOOR))

    def update(self, batch):
        self.guard.batch(batch)
        if batch.y is None or not self.order:
            return {}
        task = str(self.order[-1])
        flat = batch.x.flatten(1).float()
        sums = self.sums.get(task, torch.zeros(self.classes, flat.shape[1]))
        self.sums[task] = sums.index_add(0, batch.y, flat)
        self.counts[task] = self.counts.get(task, torch.zeros(self.classes)) + torch.bincount(
            batch.y, minlength=self.classes
        )
        return {}

    def boundary(self, boundary):
        if boundary.task not in self.order:
            self.order.append(boundary.task)


@pytest.fixture(scope="module")
def clouds():
    source = torch.Generator().manual_seed(3)
    y = torch.arange(4).repeat(50)
    x = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 0.2], [5.0, 0.2]])[y] + 0.05 * torch.randn(200, 2, generator=source)
    return Data("clouds", x, y, ("a", "b", "c", "d"))


def test_a_fold_tells_the_task_of_each_held_out_set(clouds):
    stream = tasks(clouds, experiences=2, order="given", batch=10)
    found = run(Centres(), stream, monitors=[AccuracyMatrix(), Plasticity()]).figures["matrix"]
    assert found["matrix"][1] == [1.0, 1.0]
    assert found["matrix"][0] == [1.0, 0.5]  # the second task was still to come: no class is ahead


def test_a_stream_that_tells_no_task_is_refused_unless_the_learner_finds_it(clouds):
    stream = split(clouds, experiences=2, order="given", batch=10)
    with pytest.raises(InputError, match=r"centres must be told the task .* Use a scenario that tells tasks"):
        run(Centres(), stream)
    run(Centres(infer=True), stream, monitors=[AccuracyMatrix()])


def test_ask_names_the_task_only_where_the_learner_knows_it():
    learner = Centres()
    x = torch.zeros(3, 2)
    assert ask(learner, x, 0).shape == (3, 4)
    for task, label in ((0, 0), (1, 2)):
        learner.boundary(Boundary(task=task))
        learner.update(Batch(torch.ones(2, 2), torch.tensor([label, label + 1])))
    assert (ask(learner, x, 0) == FLOOR).any(0).tolist() == [False, False, True, True]
    assert (ask_latest(learner, x) == FLOOR).any(0).tolist() == [True, True, False, False]
    assert torch.equal(ask(learner, x, 7), torch.zeros(3, 4))
    with pytest.raises(InputError, match="say which task"):
        ask(learner, x)
    with pytest.raises(InputError, match="task 7 was never announced"):
        learner.predict_in(x, 7)


def test_other_learners_never_hear_of_tasks(clouds):
    from everlearn import FineTune

    learner = FineTune(nn.Linear(2, 4))
    assert torch.equal(ask(learner, clouds.x[:5], 3), learner.predict(clouds.x[:5]))
    assert torch.equal(ask_latest(learner, clouds.x[:5]), learner.predict(clouds.x[:5]))


def test_the_contract_asks_in_the_task_announced_last():
    assert len(check_learner(lambda seed: Centres(seed=seed))) > 10
