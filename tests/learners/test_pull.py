"""The pull of springs by hand, and beside what autograd makes of the penalty."""

import pytest
import torch

from everlearn.learners.pull import Pull


def test_penalty_and_pull_by_hand():
    # 1/2 (8 * 3/16 * 0.5^2 + 8 * 3/16 * 1^2) and its slope 8 * 3/16 * d
    weight = torch.tensor([[1.5, -1.0]], requires_grad=True)
    pull = Pull([weight], torch.tensor([1.0, 0.0]), torch.full((2,), 8 * 3 / 16))
    slope = torch.tensor([[0.75, -1.5]])
    assert pull.penalty().item() == pytest.approx(0.9375)
    assert torch.allclose(torch.autograd.grad(pull.penalty(), weight)[0], slope)
    gradient = torch.tensor([[1.0, -2.0]])
    penalty, (pulled,) = pull.added([gradient])
    assert penalty.item() == pytest.approx(0.9375) and torch.allclose(pulled, gradient + slope)
    assert gradient.tolist() == [[1.0, -2.0]]
    _, (pulled,) = pull.added([None])  # rows are filled anew, nothing is left of the call before
    assert torch.allclose(pulled, slope)


def test_it_pulls_at_weights_as_they_are_now():
    weight = torch.tensor([1.0])
    pull = Pull([weight], torch.tensor([0.0]), torch.tensor([2.0]))
    assert pull.added([None])[0].item() == 1.0
    weight.fill_(3.0)
    penalty, (pulled,) = pull.added([None])
    assert (penalty.item(), pulled.item()) == (9.0, 6.0)


def test_gradients_of_other_weights_stay_as_they_are():
    pull = Pull([torch.tensor([1.0])], torch.tensor([0.0]), torch.tensor([1.0]))
    other = torch.tensor([5.0])
    _, (first, second, third) = pull.added([torch.tensor([1.0]), other, None])
    assert first.item() == 2.0 and second is other and third is None


def test_weights_in_another_order_in_memory_are_pulled_in_their_own():
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    pull = Pull([weight], torch.zeros(96), torch.ones(96))
    gradient = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(pull.added([gradient])[1][0], weight)
