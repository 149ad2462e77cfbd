"""Batch norm by other statistics beside torch's own layers and slow twins; running statistics stay."""

import math

import pytest
import torch
from torch import nn

from everlearn.core.state import capture, same
from everlearn.nn.batch_statistics import batch_norms, by_batch, by_instance, corrected, norm_layers, normalised


def images(count=6, channels=3, side=4, seed=0):
    return 1.5 + 2.0 * torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def layer(channels=3, kind=nn.BatchNorm2d):
    """A batch norm whose running statistics and weights are no defaults."""
    made, random = kind(channels), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for held in (made.weight, made.bias, made.running_mean):
            held.copy_(torch.randn(channels, generator=random))
        made.running_var.copy_(0.5 + torch.rand(channels, generator=random))
    return made


def applied(rule, made, x):
    before = capture(made)
    with normalised(made, rule):
        found = made(x)
    assert same(before, capture(made)) or rule.__qualname__.startswith("by_instance")
    assert "forward" not in vars(made)
    return found


def test_the_batch_alone_is_training_mode_and_none_of_it_evaluation_mode():
    x = images()
    trained = layer().train()(x)
    assert torch.equal(applied(by_batch(1.0), layer(), x), trained)
    torch.testing.assert_close(applied(by_batch(0.0), layer(), x), layer().eval()(x))
    torch.testing.assert_close(applied(by_batch(1.0 - 1e-7), layer(), x), trained)  # the formula beside torch's kernel


@pytest.mark.parametrize("alpha", [0.1, 0.7])
def test_a_mixture_beside_its_slow_twin(alpha):
    x, made = images(), layer()
    found = applied(by_batch(alpha), made, x)
    for channel in range(3):
        values = x[:, channel].flatten().tolist()
        mean = sum(values) / len(values)
        var = sum((value - mean) ** 2 for value in values) / len(values)
        mu = (1 - alpha) * made.running_mean[channel].item() + alpha * mean
        sigma = math.sqrt((1 - alpha) * made.running_var[channel].item() + alpha * var + made.eps)
        wanted = (x[:, channel] - mu) / sigma * made.weight[channel] + made.bias[channel]
        torch.testing.assert_close(found[:, channel], wanted.detach(), rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_the_statistics_of_the_batch():
    x = images().double().requires_grad_()
    made = layer().double()
    with normalised(made, by_batch(0.5)):
        assert torch.autograd.gradcheck(made, (x,))


@pytest.mark.parametrize("width", [0.0, 1.0, 4.0])
def test_instances_beside_their_slow_twin(width):
    x, made = images(), layer()
    x[0] += 9.0  # one row far from the others
    found = applied(by_instance(width), made, x)
    pixels = 16

    def shrunk(difference, limit):
        return math.copysign(max(abs(difference) - limit, 0.0), difference)

    for row in range(len(x)):
        for channel in range(3):
            values = x[row, channel].flatten().tolist()
            own = sum(values) / pixels
            spread = sum((value - own) ** 2 for value in values) / (pixels - 1)
            mean, var = made.running_mean[channel].item(), made.running_var[channel].item()
            mu = mean + shrunk(own - mean, width * math.sqrt((var + made.eps) / pixels))
            sigma = max(var + shrunk(spread - var, width * (var + made.eps) * math.sqrt(2 / (pixels - 1))), 0.0)
            wanted = (x[row, channel] - mu) / math.sqrt(sigma + made.eps) * made.weight[channel] + made.bias[channel]
            torch.testing.assert_close(found[row, channel], wanted.detach(), rtol=1e-4, atol=1e-4)


def test_limits_of_instances():
    x = images()
    torch.testing.assert_close(applied(by_instance(math.inf), layer(), x), layer().eval()(x))
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))  # without a plane
    torch.testing.assert_close(
        applied(by_instance(0.0), layer(kind=nn.BatchNorm1d), vectors), layer(kind=nn.BatchNorm1d).eval()(vectors)
    )
    one = applied(by_instance(), layer(), x)[2:3]
    torch.testing.assert_close(applied(by_instance(), layer(), x[2:3]), one)  # a row does not see the others
    mean, var = corrected(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0), 9, 0.0, 0.0)
    assert (mean.item(), var.item()) == (1.0, 0.0)


def test_a_step_moves_running_statistics_as_batch_norm_does():
    x, made, twin = images(), layer(), layer()
    x[0] += 20.0  # a row that differs beyond chance
    twin.momentum = 0.01
    twin.train()(x)
    with normalised(made, by_instance(momentum=0.01)):
        found = made(x)
    torch.testing.assert_close(made.running_mean, twin.running_mean)
    torch.testing.assert_close(made.running_var, twin.running_var)
    with normalised(made, by_instance(math.inf, momentum=0.0)):
        central = made(x)
    biased = math.sqrt((len(x) * 16 - 1) / (len(x) * 16))  # torch divides by the biased variance, this by the other
    wanted = (layer().train()(x) - made.bias[:, None, None]) * biased + made.bias[:, None, None]
    torch.testing.assert_close(central, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, central)


def test_layers_without_running_statistics_and_half_precision():
    x = images()
    bare = nn.BatchNorm2d(3, affine=False, track_running_stats=False)
    with normalised(bare, by_batch(0.3)):
        mixed = bare(x)
    assert torch.equal(mixed, bare(x))
    made = layer()
    for rule in (by_batch(), by_batch(0.5), by_instance()):
        with normalised(made, rule):
            narrow = made(x.bfloat16())
        assert narrow.dtype == torch.bfloat16
        with normalised(made, rule):
            torch.testing.assert_close(
                narrow.float(), made(x), rtol=0.05, atol=0.1
            )  # 8 binary digits, of x and of the result


def test_everything_is_put_back_after_an_error():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(RuntimeError), normalised(model, by_batch()):
        model(images())
    assert "forward" not in vars(model[0]) and batch_norms(model) == [model[0]]


def test_norm_layers_are_those_with_weights():
    model = nn.Sequential(
        *(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.LayerNorm(4, elementwise_affine=False)),
        *(nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.Linear(4, 4)),
    )
    assert list(norm_layers(model)) == ["0", "1", "2", "5"]
