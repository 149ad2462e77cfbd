"""PCR: one step by hand, which classes move and may be answered, and its limits. The step itself: test_proxy_contrast."""

import math

import pytest
import torch
from torch import nn

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch, Boundary
from everlearn.learners.pcr import PCR
from everlearn.optim.optimizers import SGD

T = 0.5
pytestmark = pytest.mark.filterwarnings("ignore:.*second view")


def learner(**options):
    """Two features, three classes; the first two proxies along the axes."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1]]))
    return PCR(model, **{"capacity": 4, "replay_batch": 1, "temperature": T, "optimizer": SGD(lr=0.1), **options})


def proxies(found):
    return found.contrast_step.head.weight.detach().clone()


def test_a_step_worked_out_by_hand():
    """Memory: (1, 0) of class 0; batch: (1, 0) of class 1. Each row counts twice, for its view is itself, so n = 2 and 2.

    Scores of every row are (1, 0) / T = (2, 0). With p = 1 / (1 + exp(-2)) for class 0: rows of class 0 lose -log p + log 2, rows
    of class 1 -log(1 - p) + log 2. The gradient by the score of class 1 is the mean of (1 - p) and -p, that is 1/2 - p; proxy 1 has
    unit length at right angles to (1, 0), so its gradient is (1/2 - p) / T along (1, 0).
    """
    found = learner()
    found.update(Batch(torch.tensor([[1.0, 0]]), torch.tensor([0])))
    before = proxies(found)
    metrics = found.update(Batch(torch.tensor([[1.0, 0]]), torch.tensor([1])))
    p = 1 / (1 + math.exp(-2))
    assert metrics["loss"].item() == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2 + math.log(2), abs=1e-4)
    moved = proxies(found) - before
    assert moved[1].tolist() == pytest.approx([0.1 * (p - 0.5) / T, 0.0], abs=1e-4)
    assert moved[0].abs().max() < 1e-5 and moved[2].abs().max() == 0  # along itself nothing moves; class 2 is absent


def test_all_classes_move_where_all_compete():
    found = learner(competing="all")
    found.update(Batch(torch.tensor([[1.0, 0]]), torch.tensor([0])))
    before = proxies(found)
    found.update(Batch(torch.tensor([[1.0, 0]]), torch.tensor([1])))
    assert (proxies(found) - before)[2].abs().max() > 1e-3


def test_only_classes_that_came_are_answered_unless_told_otherwise():
    away = torch.tensor([[-1.0, -1.0]])
    for mask, answer in ((True, {0, 1}), (False, {2})):
        found = learner(mask_unseen=mask)
        found.update(Batch(torch.eye(2), torch.tensor([0, 1])))
        assert int(found.predict(away).argmax()) in answer
        found.boundary(Boundary(1, classes=(2,)))
        assert int(found.predict(away).argmax()) == 2


def test_a_budget_of_no_replay_teaches_nothing():
    found = learner()
    Budget(replay=0).limit(found)
    before = proxies(found)
    for label in (0, 1, 2):
        assert found.update(Batch(torch.randn(3, 2), torch.full((3,), label)))["loss"] == 0.0
    assert torch.equal(before, proxies(found)) and found.memory.stored == 0


def test_a_draw_larger_than_the_memory_is_refused():
    with pytest.raises(ArgumentError, match="replay_batch=9 rows cannot be drawn from a memory of capacity=4"):
        learner(replay_batch=9)
