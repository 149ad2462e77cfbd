"""Frozen parts: outputs to the bit, gradients beside plain autograd with constant statistics, and bytes kept."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.lean import frozen
from everlearn.nn.networks import NETWORKS
from everlearn.nn.partition import partition
from everlearn.nn.residual import Block
from everlearn.nn.wide_resnet import WideBlock


class Constant(nn.Module):
    """The slow twin of lean batch norm: mean and variance of the batch, detached."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean, variance = x.mean(axes).detach().view(shape), x.var(axes, unbiased=False).detach().view(shape)
        scaled = (x - mean) / (variance + self.norm.eps).sqrt()
        return scaled * self.norm.weight.view(shape) + self.norm.bias.view(shape)


def with_constants(module):
    for name, child in module.named_children():
        setattr(
            module, name, Constant(child) if isinstance(child, nn.modules.batchnorm._BatchNorm) else with_constants(child)
        )
    return module


class Functional(nn.Module):
    """Calls functions rather than modules, writes over its tensors, and adds in place."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding="same")
        self.second = nn.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False)

    def forward(self, x):
        functional.elu(x, 0.5, True)
        z = functional.relu(self.first(x), inplace=True)
        z = 2.0 * torch.relu_(self.second(z)).relu()
        z += x
        return functional.leaky_relu(z, 0.1, True)


LAYERS = {
    "wide block": lambda: WideBlock(4, 6, 2),
    "block": lambda: Block(4, 6, 2, project=True),
    "functions": lambda: Functional(4),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d((2, 3))),
    "wide pool": lambda: nn.MaxPool2d((2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), ceil_mode=True),
    "head": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU6()),
    "others": lambda: nn.Sequential(nn.GELU(), nn.GroupNorm(2, 4), nn.Hardtanh(-0.5, 0.5, inplace=True), nn.Dropout(0.5)),
    "even kernel": lambda: nn.Conv2d(4, 3, (2, 4), padding="same", dilation=(1, 2)),
    "one dimension": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 3, 5, stride=2), nn.BatchNorm1d(3), nn.ReLU()),
    "transposed": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
}


def built(name):
    with isolated(0):
        part = LAYERS[name]().double().eval()
        for layer in part.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(layer.weight, 0.5, 2.0)
                nn.init.normal_(layer.bias)
    return part


def rows(dtype=torch.float64):
    return torch.randn(3, 4, 9, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


def kept(step):
    """(what a step gives, bytes kept for backward but for weights)."""
    seen = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda held: (seen.setdefault(held.untyped_storage().data_ptr(), held), held)[1], lambda held: held
    ):
        result = step()
    return result, sum(held.untyped_storage().nbytes() for held in seen.values() if not isinstance(held, nn.Parameter))


def gradient(part, x):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    before = x.detach().clone()
    y = part(x if hasattr(part, "__name__") else x.clone())  # a module may write over what it is given
    assert torch.equal(x, before)
    pull = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    return y.detach(), torch.autograd.grad((y * pull).sum(), x)[0]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])
@pytest.mark.parametrize("name", LAYERS)
def test_lean_is_plain_autograd_with_constant_statistics(name, order):
    x = rows().contiguous(memory_format=order)
    wanted, slope = gradient(with_constants(built(name)), x)
    part = built(name)
    exact = gradient(lambda z: frozen(part, z, "exact"), x)
    lean = gradient(lambda z: frozen(part, z, "lean"), x)
    assert torch.equal(lean[0], exact[0]) and torch.equal(lean[0], frozen(part, x, "cut"))
    assert (lean[0] - wanted).abs().max() < 1e-8 and (lean[1] - slope).abs().max() < 1e-8
    plain = gradient(built(name).train(name not in ("others",)), x)
    assert torch.allclose(exact[0], plain[0], atol=1e-12) and torch.allclose(exact[1], plain[1], atol=1e-12)
    norms = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in part.modules())
    assert norms != torch.allclose(lean[1], exact[1], atol=1e-8)  # the mean and variance do pull, where there are any


@pytest.mark.parametrize("gradient_kind", ["lean", "exact", "cut"])
def test_running_statistics_are_neither_changed_nor_asked(gradient_kind):
    part = built("wide block")
    before = {key: value.clone() for key, value in part.state_dict().items()}
    x = rows().requires_grad_()
    y = frozen(part, x, gradient_kind)
    assert all(torch.equal(before[key], value) for key, value in part.state_dict().items())
    assert y.requires_grad == (gradient_kind != "cut")
    for layer in part.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean += 1.0
    assert torch.equal(y, frozen(part, x, gradient_kind))
    source = frozen(part, x, gradient_kind, batch_stats=False)
    assert torch.allclose(source, part(x), atol=1e-12) and not torch.allclose(source, y)


def test_lean_slopes_by_running_statistics_are_plain_ones():
    part, x = built("block"), rows()
    lean = gradient(lambda z: frozen(part, z, "lean", batch_stats=False), x)
    plain = gradient(part, x)
    assert torch.allclose(lean[0], plain[0], atol=1e-12) and (lean[1] - plain[1]).abs().max() < 1e-8


def test_what_backward_keeps_by_hand():
    """A wide block of 4 channels on a 9 x 8 plane, stride 2 to 6 channels on 5 x 4: bits of two ReLUs, and scales."""
    part, x = built("wide block").float(), rows(torch.float32).requires_grad_()
    for weight in part.parameters():
        weight.requires_grad_(False)
    _, lean = kept(lambda: frozen(part, x, "lean"))
    bits = -(-3 * 4 * 72 // 8) + 3 * 6 * 20 // 8
    assert lean == bits + 4 * (4 + 6)
    _, exact = kept(lambda: frozen(part, x, "exact"))
    assert exact >= 4 * (2 * 3 * 4 * 72 + 2 * 3 * 6 * 20)
    pool = nn.MaxPool2d(2)
    assert kept(lambda: frozen(pool, x, "lean"))[1] == 3 * 4 * 4 * 4  # a byte for each maximum
    assert kept(lambda: frozen(nn.AvgPool2d(2), x, "lean"))[1] == 0


@pytest.mark.parametrize("name", ["wide_resnet", "resnet18", "resnet50", "mobilenet_v2", "conv4"])
def test_parts_of_the_house_networks_keep_no_planes(name):
    """Whatever the network, lean parts keep a tenth of the bytes of plain autograd or less."""
    with isolated(0):
        options = {"wide_resnet": {"depth": 10, "width": 1}, "conv4": {}, "mobilenet_v2": {"width": 0.25}}
        network = NETWORKS[name](Schema((3, 16, 16), torch.float32, ("a", "b")), **options.get(name, {"width": 4}))
    network.eval().requires_grad_(False)
    pieces = partition("me", network)
    z = pieces.stem(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    for part in pieces.parts:
        x = z.detach().requires_grad_()
        y, lean = kept(lambda part=part, x=x: frozen(part, x, "lean"))
        same, exact = kept(lambda part=part, x=x: frozen(part, x, "exact"))
        assert torch.equal(y, same) and 10 * lean < exact
        z = y.detach()


def test_another_word_for_the_gradient_is_refused():
    with pytest.raises(ArgumentError, match="'lean', 'exact', 'cut'"):
        frozen(nn.ReLU(), rows(), "some")
