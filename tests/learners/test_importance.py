"""Springs: their penalty and its gradient, running and summed importances, path integrals and caps."""

import pytest
import torch

from everlearn.core.flat import flat
from everlearn.core.state import capture, restore, same
from everlearn.learners.importance import (
    Springs,
    gathered,
    importance_of_rows,
    rows_of_task,
)
from everlearn.learners.objective import FISHERS, WeightTerm
from everlearn.nn.bregman import Quadratic, Squared
from everlearn.nn.fisher import fisher_diagonal
from everlearn.nn.sensitivity import output_sensitivity


@pytest.fixture
def weights():
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in ((2, 3), (4,))]


def move(weights, seed):
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights:
            weight.copy_(torch.randn(weight.shape, generator=random, dtype=torch.float64))


def test_the_pull_is_the_gradient_of_the_penalty(weights):
    springs = Springs(WeightTerm(1.5, Quadratic(), "each_task", "fisher_exact"), weights)
    for seed in (1, 2, 3):
        springs.consolidate(torch.rand(10, dtype=torch.float64))
        move(weights, seed)
    value, pulls = springs.added([None, None])
    plain = 0.5 * (1.5 * springs.importance * (torch.cat([w.reshape(-1) for w in weights]) - springs.anchor) ** 2).sum()
    assert torch.allclose(value, springs.penalty()) and torch.allclose(value, plain + 1.5 * springs.constant)
    slopes = torch.autograd.grad(plain, weights), torch.autograd.grad(springs.penalty(), weights)
    assert all(
        torch.allclose(pull, first) and torch.allclose(pull, second)
        for pull, first, second in zip(pulls, *slopes, strict=True)
    )


def test_one_term_for_each_task_is_one_quadratic_around_their_centre(weights):
    """F1 (w - a1)^2 + F2 (w - a2)^2 = (F1 + F2)(w - c)^2 + constant, c = (F1 a1 + F2 a2) / (F1 + F2)."""
    springs = Springs(WeightTerm(1.7, Quadratic(), "each_task", "fisher_exact"), weights)
    fishers, anchors = torch.rand(3, 10, dtype=torch.float64), []
    fishers[:, 2] = 0.0  # a weight that never matters
    for seed, fisher in enumerate(fishers):
        anchors.append(flat(weights).detach())
        springs.consolidate(fisher.clone())
        move(weights, seed + 1)
    present = flat(weights).detach()
    expected = 1.7 * sum(0.5 * (f * (present - a) ** 2).sum() for f, a in zip(fishers, anchors, strict=True))
    assert springs.penalty().item() == pytest.approx(expected.item(), rel=1e-12)
    total = fishers.sum(0)
    centre = sum(f * a for f, a in zip(fishers, anchors, strict=True)) / total
    known = total > 0
    assert torch.allclose(springs.anchor[known], centre[known])
    assert torch.allclose(springs.importance, total) and springs.tasks == 3


def test_a_running_importance_decays_and_follows_the_last_anchor(weights):
    springs = Springs(WeightTerm(2.0, Quadratic(), "last_task", "fisher_exact", decay=0.5), weights)
    first, second = torch.rand(2, 10, dtype=torch.float64)
    assert not springs.pulling
    springs.consolidate(first)
    move(weights, 1)
    springs.consolidate(second)
    assert torch.allclose(springs.importance, second + 0.5 * first) and torch.equal(springs.anchor, flat(weights).detach())
    assert springs.penalty().item() == 0 and springs.pulling


def test_squared_and_given_matrices(weights):
    matrix = tuple(float(value) for value in range(10))
    start = Springs(WeightTerm(0.5, Squared(), "start"), weights)
    given = Springs(WeightTerm(0.5, Quadratic(matrix), "start"), weights)
    anchor = flat(weights).detach()
    move(weights, 1)
    offset = flat(weights).detach() - anchor
    assert start.penalty().item() == pytest.approx(0.5 * (offset**2).sum().item())
    assert given.penalty().item() == pytest.approx(0.25 * (torch.tensor(matrix) * offset**2).sum().item())
    start.consolidate(None)
    assert torch.equal(start.anchor, anchor)  # never moves
    last = Springs(WeightTerm(0.5, Squared()), weights)
    last.consolidate(None)
    last.consolidate(None)
    assert (last.importance == 2.0).all()  # the same springs, not twice as stiff


def test_the_stiffest_spring_is_capped_and_damping_added(weights):
    term = WeightTerm(2.0, Quadratic(), "last_task", "fisher_exact")
    springs = Springs(term, weights, steepest=3.0, extra=0.25)
    springs.consolidate(torch.linspace(0, 9, 10, dtype=torch.float64))
    assert springs.stiffness.tolist() == [0.25, 2.25, *[3.25] * 8]


def test_path_integrals_worked_out_by_hand():
    """g = 2 at a move of -0.1: path 0.2, over 0.1^2 + 0.1; what would be negative is 0."""
    weight = torch.tensor([1.0, 1.0], requires_grad=True)
    springs = Springs(WeightTerm(1.0, Quadratic(), "last_task", "path_integral", damping=0.1), [weight])
    springs.travel([torch.tensor([2.0, 2.0])], [torch.tensor([1.0, -1.0])], 0.1)
    with torch.no_grad():
        weight += torch.tensor([-0.1, 0.1])
    springs.consolidate(None)
    assert springs.importance.tolist() == pytest.approx([0.2 / 0.11, 0.0]) and not springs.path.any()
    assert gathered(torch.ones(1), torch.tensor([-5.0]), torch.ones(1), torch.ones(1), 0.1).item() == 0


def test_state_goes_round_and_views_follow(weights):
    springs = Springs(WeightTerm(1.0, Quadratic(), "last_task", "path_integral"), weights)
    springs.travel([torch.ones_like(weight) for weight in weights], [torch.ones_like(weight) for weight in weights], 1.0)
    state = capture(springs)
    springs.travel([torch.ones_like(weight) for weight in weights], [torch.ones_like(weight) for weight in weights], 1.0)
    restore(springs, state)
    assert same(capture(springs), state)
    springs.travel([torch.ones_like(weight) for weight in weights], [torch.ones_like(weight) for weight in weights], 1.0)
    assert (springs.path == 2.0).all()


def test_importances_by_name():
    model = torch.nn.Linear(3, 4)
    parameters, random = list(model.parameters()), torch.Generator().manual_seed(0)
    kept = {"x": torch.randn(6, 3, generator=random), "y": torch.tensor([0, 1, 2, 3, 0, 1])}
    found = {kind: importance_of_rows(kind, model, parameters, kept, 0, 0) for kind in (*FISHERS, "output_norm")}
    for kind in ("exact", "empirical", "released"):
        assert torch.equal(found[f"fisher_{kind}"], fisher_diagonal(model, parameters, kept["x"], kept["y"], kind))
    assert torch.equal(found["output_norm"], output_sensitivity(model, parameters, kept["x"]))
    again = importance_of_rows("fisher_sampled", model, parameters, kept, 0, 1)
    assert not torch.equal(found["fisher_sampled"], again)  # another task draws other labels


def test_rows_of_a_task_are_drawn_anew_within_the_same_limits():
    first = rows_of_task(50, 0, 0)
    first.limit(7, None)
    second = rows_of_task(50, 0, 1, first)
    assert second.capacity == 7 and second.stored == 0
    for memory in (first, second):
        memory.insert(x=torch.arange(100.0)[:, None])
    assert not torch.equal(first.rows()["x"], second.rows()["x"])
