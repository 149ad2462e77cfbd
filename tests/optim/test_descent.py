"""One gradient step: what it computes, what it counts, and where its randomness comes from."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.state import capture, restore, same
from everlearn.optim.descent import Descent, clipped, evaluate, step_along
from everlearn.optim.optimizers import SGD, Adam


def network(dropout=0.0):
    with isolated(0, "test"):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout) if dropout else nn.Identity(), nn.Linear(8, 2))


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 0, 1, 0, 1])


def step(descent):
    return descent(lambda: nn.functional.cross_entropy(descent.model(X), Y))


def test_a_step_by_hand():
    # loss = (3 w)^2 at w = 2: slope 2 * 3 * 6 = 36, so w <- 2 - 0.01 * 36.
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    descent = Descent(model, SGD(lr=0.01))
    loss = descent(lambda: (model(torch.tensor([[3.0]])) ** 2).sum())
    assert loss.item() == 36.0
    assert not loss.requires_grad
    assert model.weight.item() == pytest.approx(1.64, rel=1e-6)
    assert descent.steps == 1


def test_slopes_do_not_add_up_over_steps():
    model, bare = network(), network()
    descent, optimizer = Descent(model, SGD(lr=0.1)), SGD(lr=0.1).make(bare.parameters())
    for _ in range(3):
        step(descent)
        optimizer.zero_grad()
        nn.functional.cross_entropy(bare(X), Y).backward()
        optimizer.step()
    assert same(capture(model), capture(bare))


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9), Adam()], ids=repr)
def test_following_the_gradients_is_the_step(optimizer):
    whole, parted = Descent(network(0.5), optimizer), Descent(network(0.5), optimizer)
    for _ in range(3):
        value, gradients = parted.gradients(lambda: nn.functional.cross_entropy(parted.model(X), Y))
        assert not value.requires_grad
        parted.follow(gradients)
        assert torch.equal(value, step(whole))
    assert same(capture(whole), capture(parted))


def test_an_optimiser_follows_gradients_whatever_their_order_in_memory():
    """By hand, w - 0.5 g; the images of g lie pixel by pixel, those of w plane by plane."""
    weight = nn.Parameter(torch.zeros(1, 2, 2, 2))
    gradient = torch.arange(8.0).reshape(1, 2, 2, 2).contiguous(memory_format=torch.channels_last)
    step_along(SGD(lr=0.5).make([weight]), [weight], [gradient])
    assert weight.flatten().tolist() == [0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0, -3.5]


def test_gradients_change_nothing_and_labels_tell_losses_of_one_step_apart():
    descent = Descent(network(0.5), SGD())
    before = capture(descent)

    def loss(*labels):
        return descent.gradients(lambda: nn.functional.cross_entropy(descent.model(X), Y), *labels)[0].item()

    assert loss() == loss() and loss("memory") == loss("memory")
    assert loss() != loss("memory")
    assert same(before, capture(descent))


def test_dropout_comes_from_the_seed_and_the_step():
    torch.manual_seed(5)
    first = Descent(network(0.5), SGD(), seed=3)
    before = torch.get_rng_state()
    losses = [step(first) for _ in range(3)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second, other = Descent(network(0.5), SGD(), seed=3), Descent(network(0.5), SGD(), seed=4)
    assert [step(second) for _ in range(3)] == losses
    assert [step(other) for _ in range(3)] != losses
    still = Descent(network(0.5), SGD(lr=0.0), seed=3)
    assert len({float(step(still)) for _ in range(3)}) == 3  # another mask at every step


def test_prediction_is_in_evaluation_mode_without_gradients():
    descent = Descent(network(0.5), SGD())
    step(descent)
    before = capture(descent)
    first = descent.predict(X)
    assert torch.equal(first, descent.predict(X))
    assert not first.requires_grad
    assert same(before, capture(descent))
    descent.model.train()
    assert torch.equal(first, evaluate(descent.model, X))


def test_training_mode_comes_back_after_a_prediction():
    modes = []
    descent = Descent(network(), SGD())
    descent.predict(X)
    descent(lambda: modes.append(descent.model.training) or descent.model(X).sum())
    assert modes == [True]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9), Adam()], ids=repr)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_continues_from_its_state(optimizer, dropout):
    whole = Descent(network(dropout), optimizer, seed=1)
    for _ in range(4):
        step(whole)
    state = capture(whole)
    second = Descent(network(dropout), optimizer, seed=1)
    step(second)
    restore(second, state)
    for _ in range(3):
        step(whole)
        step(second)
    assert same(capture(whole), capture(second))


def test_layers_that_need_no_gradient_stay():
    model = network()
    model[0].weight.requires_grad_(False)
    before = capture(model)
    descent = Descent(model, SGD(lr=0.5))
    step(descent)
    assert torch.equal(before["0.weight"], model[0].weight)
    assert not torch.equal(before["3.weight"], model[3].weight)
    assert len(descent.parameters) == 3


def test_what_is_no_network_is_refused_with_what_to_pass():
    from everlearn.core.errors import ArgumentError

    with pytest.raises(ArgumentError, match=r"torch\.nn\.Module, got 5"):
        Descent(5, SGD())


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.5, clip=0.01), SGD(lr=0.5, momentum=0.9, clip=0.01), Adam(lr=0.5, clip=0.01)]
)
def test_clipped_steps_are_those_of_torch(optimizer):
    """The slow twin: backward, torch's own clipping over all weights, and the optimiser's step."""
    fast, slow = (torch.nn.Linear(3, 2) for _ in range(2))
    slow.load_state_dict(fast.state_dict())
    descent, twin = Descent(fast, optimizer), optimizer.make(slow.parameters())
    x = torch.randn(5, 3)
    for _ in range(3):
        descent(lambda: fast(x).square().sum())
        twin.zero_grad()
        slow(x).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(slow.parameters(), 0.01)
        twin.step()
        assert norm > 0.01
        for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_a_gradient_shorter_than_the_limit_stays_as_it_is():
    gradients = [torch.tensor([0.3, 0.4]), None]
    assert torch.equal(clipped(gradients, 10.0)[0], gradients[0]) and clipped(gradients, 10.0)[1] is None


def test_a_limit_of_zero_is_refused():
    with pytest.raises(ArgumentError, match="clip=0 leaves no step"):
        SGD(clip=0.0)
