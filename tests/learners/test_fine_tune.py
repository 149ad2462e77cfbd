"""Plain fine-tuning: a step worked out by hand, passes, and what it must refuse."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.optim.optimizers import SGD, Adam


def test_a_step_worked_out_by_hand():
    # Softmax regression from zero weights: p = (1/2, 1/2), gradient of W is (p - onehot) x^T, so W <- W - lr (p - onehot) x^T.
    model = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    learner = FineTune(model, optimizer=SGD(lr=0.5))
    metrics = learner.update(Batch(torch.tensor([[2.0, -4.0]]), torch.tensor([0])))
    assert metrics["loss"] == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert model.weight.tolist() == [[0.5, -1.0], [-0.5, 1.0]]
    assert model.bias.tolist() == [0.25, -0.25]


def test_it_equals_the_bare_loop(network, batches, weights):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    learner = FineTune(network(), optimizer=SGD(lr=0.05))
    for batch in batches():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
        learner.update(batch)
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    # The fused optimiser may contract w - lr * g into one rounding where the bare one has two: half an ulp a step.
    assert torch.allclose(
        weights(learner), expected, rtol=0, atol=12 * torch.finfo(torch.float32).eps * expected.abs().max()
    )


def test_two_passes_equal_the_batch_given_twice(network, batches, fold):
    twice = [batch for batch in batches() for _ in range(2)]
    first, second = fold(FineTune(network(), passes=2), batches()), fold(FineTune(network()), twice)
    assert same(first.state_dict()["descent"], second.state_dict()["descent"])


@pytest.mark.parametrize("optimizer", [SGD(), SGD(lr=0.1, momentum=0.9), Adam()], ids=repr)
def test_continues_from_a_snapshot(network, batches, continues, optimizer):
    assert continues(lambda: FineTune(network(), optimizer=optimizer), batches())


def test_boundaries_and_batches_without_answers_change_nothing(network, batches):
    learner = FineTune(network())
    learner.update(batches()[0])
    before = learner.state_dict()
    learner.boundary(Boundary(1))
    assert learner.update(Batch(torch.ones(2, 5))) == {}
    assert same(before, learner.state_dict())


def test_bad_input_is_refused_with_nothing_changed(network, batches):
    learner = FineTune(network())
    learner.update(batches()[0])
    before = learner.state_dict()
    for x, y in (
        (torch.full((1, 5), float("nan")), torch.tensor([0])),
        (torch.zeros(1, 5), torch.tensor([3])),
        (torch.zeros(1, 4), torch.tensor([0])),
        (torch.zeros(1, 5, dtype=torch.float64), torch.tensor([0])),
    ):
        with pytest.raises(InputError, match="fine_tune"):
            learner.update(Batch(x, y))
    assert same(before, learner.state_dict())
    with pytest.raises(ArgumentError, match="passes must be an int >= 1, got 0"):
        FineTune(network(), passes=0)


def test_its_call_string_names_what_differs_from_the_defaults(network):
    assert repr(FineTune(network())) == "fine_tune()"
    assert repr(FineTune(network(), passes=2, optimizer=SGD(lr=0.2))) == "fine_tune(optimizer=sgd(lr=0.2), passes=2)"
