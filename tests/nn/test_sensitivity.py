"""How weights move the length of an answer: by hand, against a loop, and where vmap cannot go."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.nn.sensitivity import output_sensitivity


def slow(model, x):
    total = 0
    for row in x:
        slopes = torch.autograd.grad(model(row[None]).square().sum(), list(model.parameters()))
        total = total + torch.cat([slope.reshape(-1) for slope in slopes]).abs()
    return total / len(x)


def test_equals_a_loop_over_rows_in_pieces_of_any_size():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(5, 2)).eval()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    for chunk in (1, 3, 7, 50):
        found = output_sensitivity(model, list(model.parameters()), x, chunk)
        assert torch.allclose(found, slow(model, x), rtol=1e-5, atol=1e-6)


class Branching(torch.nn.Module):
    """Decides by values, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x) * (2.0 if x.sum().item() > 0 else 1.0)


def test_a_model_that_decides_by_values_is_taken_row_by_row():
    model, x = Branching(), torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert torch.allclose(output_sensitivity(model, list(model.parameters()), x), slow(model, x))


def test_rows_that_are_dicts():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x["a"] + x["b"])

    model, a = Sum(), torch.ones(3, 2)
    found = output_sensitivity(model, list(model.parameters()), {"a": a, "b": 2 * a})
    assert torch.allclose(found, slow(model.layer, 3 * a))


def test_foreign_parameters_are_refused():
    with pytest.raises(ArgumentError, match="the model's own"):
        output_sensitivity(torch.nn.Linear(2, 2), list(torch.nn.Linear(2, 2).parameters()), torch.ones(1, 2))
