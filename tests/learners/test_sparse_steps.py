"""Steps within a mask, by hand; and the best pass over a task's rows."""

import pytest
import torch
from torch import nn

from everlearn import Batch, Boundary, Sparse
from everlearn.core.errors import InputError
from everlearn.learners.sparse_layout import Layout
from everlearn.learners.sparse_steps import BestPass, Steps
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD

COLUMNS = torch.tensor([0])


def masked(optimizer, masks_momentum=True):
    """Steps of a network with six masked weights, all 1, and a head of two rows, all 1."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    descent = Descent(model, optimizer)
    layout = Layout("sparse", model, True, True)
    return Steps(descent, layout, masks_momentum), model


def bits(*values):
    return torch.tensor(values, dtype=torch.bool)


def ones():
    return [torch.ones(2, 3), torch.ones(2, 2)]


def test_what_stands_still_has_no_gradient_and_what_is_outside_becomes_zero():
    steps, model = masked(SGD(lr=0.5))
    steps.allow(bits(1, 0, 0, 0, 0, 0), bits(1, 1, 1, 1, 0, 0), bits(1, 0, 0, 0, 0, 0), COLUMNS)
    seen = steps.take(ones(), wanted=True)
    assert model[0].weight.flatten().tolist() == [1.0, 0.5, 0.5, 0.5, 0.0, 0.0]
    assert model[1].weight.flatten().tolist() == [0.5] * 4
    assert len(seen) == 1 and seen[0].flatten().tolist() == [1.0] * 6  # dense, as it was before isolation


def test_weight_decay_moves_neither_frozen_weights_nor_rows_of_other_tasks():
    steps, model = masked(SGD(lr=0.5, weight_decay=0.5))
    steps.allow(bits(1, 0, 0, 0, 0, 0), None, bits(1, 0, 0, 0, 0, 0), COLUMNS)
    steps.take([torch.zeros(2, 3), torch.zeros(2, 2)], wanted=False)
    assert model[0].weight.flatten().tolist() == [1.0, *[0.75] * 5]
    assert model[1].weight.tolist() == [[0.75, 0.75], [1.0, 1.0]]


@pytest.mark.parametrize(("masks", "expected"), [(True, [1.0, 1.0, 0.0]), (False, [1.0, 1.0, 1.0])])
def test_momentum_is_masked_unless_growth_reads_it(masks, expected):
    steps, model = masked(SGD(lr=0.1, momentum=0.9), masks)
    steps.allow(bits(0, 0, 0, 0, 0, 0), bits(1, 1, 0, 1, 1, 0), None, COLUMNS)
    steps.take(ones(), wanted=False)
    assert steps.descent.optimizer.state[model[0].weight]["momentum_buffer"][0].tolist() == expected


def test_a_weight_that_played_no_part_stays():
    steps, model = masked(SGD(lr=0.5))
    steps.allow(torch.zeros(6, dtype=torch.bool), None, None, COLUMNS)
    steps.take([None, torch.ones(2, 2)], wanted=False)
    assert model[0].weight.flatten().tolist() == [1.0] * 6


def test_the_best_pass_is_the_one_with_the_most_right_answers():
    best = BestPass()
    best.hear("sparse", Boundary(0, (), Batch(torch.zeros(4, 1))))
    assert [best.count(right, 2) for right in (1, 1, 2, 1, 0, 2, 2, 2)] == [
        False, True, False, True, False, False, False, True
    ]  # fmt: skip
    assert best.share == 1.0
    with pytest.raises(InputError, match="needs boundaries that bring the rows"):
        best.hear("sparse", Boundary(1))


def test_the_best_pass_is_what_a_task_leaves():
    def learned(keep):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        learner = Sparse(model, growth="none", density=0.9, keep=keep, optimizer=SGD(lr=0.3))
        source = torch.Generator().manual_seed(1)
        y = torch.arange(20) % 2
        x = torch.randn(20, 2, generator=source) + 3.0 * y[:, None]
        learner.boundary(Boundary(0, (0, 1), Batch(x, y)))
        kept = {}
        for passes in range(6):
            learner.update(Batch(x, y if passes < 4 else 1 - y))  # the last passes undo what was learned
            kept[passes] = learner.predict_in(x, 0)
        learner.boundary(Boundary(1, (0, 1), Batch(x, y)))
        return learner.predict_in(x, 0), kept

    def opened_by_a_batch():
        learner = Sparse(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)), density=0.9, keep="best_train")
        x, y = torch.randn(8, 2, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 2
        learner.boundary(Boundary(0, (0, 1), Batch(x, y)))
        learner.update(Batch(x, y))
        learner.update(Batch(x, y, task=1))  # of a task whose rows nobody told: its last weights stay
        last = learner.predict_in(x, 1)
        learner.boundary(Boundary(2, (0, 1), Batch(x, y)))
        return torch.equal(learner.predict_in(x, 1), last)

    assert opened_by_a_batch()
    last, kept = learned("last")
    assert torch.equal(last, kept[5])
    best, kept = learned("best_train")
    assert not torch.equal(best, kept[5]) and any(torch.equal(best, kept[passes]) for passes in range(4))
