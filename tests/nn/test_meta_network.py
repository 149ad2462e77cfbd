"""Meta networks: the formula, the distance and its gradient, layouts of parts, published counts, and refusals."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, relu

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.bottleneck import resnet50
from everlearn.nn.meta_network import Adapted, MetaNetwork, distance
from everlearn.nn.networks import conv4
from everlearn.nn.partition import Partition, partition
from everlearn.nn.wide_resnet import wide_resnet


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def schema(side=32, classes=10, channels=3):
    return Schema((channels, side, side), torch.float32, tuple(map(str, range(classes))))


def adapted(network, parts=4, **options):
    network.eval()
    return Adapted("me", partition("me", network, parts), **options)


def test_a_meta_network_is_its_formula():
    with isolated(0):
        meta = MetaNetwork(4, 6, (2, 2)).double()
    nn.init.uniform_(meta.norm.weight, 0.5, 2.0)
    x, o = numbers(3, 4, 9, 8), numbers(3, 6, 5, 4, seed=1)

    def normed(z, layer):
        return batch_norm(z, None, None, layer.weight, layer.bias, training=True)

    wanted = normed(o, meta.norm) + relu(normed(conv2d(x, meta.convolution.weight, stride=2, padding=1), meta.inner_norm))
    assert torch.allclose(meta(x, o), wanted, atol=1e-12)
    meta.eval()
    assert torch.allclose(meta(x, o), wanted, atol=1e-12)  # by the batch's statistics at all times
    assert meta.convolution.bias is None and sum(p.numel() for p in meta.parameters()) == 9 * 4 * 6 + 4 * 6


def test_vectors_and_planes_that_disagree_by_a_pixel():
    assert MetaNetwork(4, 6, ()).convolution.weight.shape == (6, 4)
    meta = MetaNetwork(2, 3, (2, 2))
    assert meta(torch.randn(4, 2, 7, 7), torch.randn(4, 3, 3, 3)).shape == (4, 3, 3, 3)
    assert MetaNetwork(4, 6, (2, 2), side=1).convolution.weight.shape == (6, 4, 1, 1)
    assert MetaNetwork(2, 3, (2,))(torch.randn(4, 2, 8), torch.randn(4, 3, 4)).shape == (4, 3, 4)


def test_the_distance_and_its_gradient():
    o = numbers(3, 5, 7)
    x = (o + 0.1 * numbers(3, 5, 7, seed=1)).requires_grad_()
    with torch.no_grad():
        x[0, 0] = o[0, 0]  # where nothing differs, nothing pulls
    plain = (x - o).abs().mean()
    found = distance(x, o.requires_grad_())
    assert found.item() == pytest.approx(plain.item(), abs=1e-15)
    gradient = torch.autograd.grad(3.0 * found, x)[0]
    assert torch.allclose(gradient, torch.autograd.grad(3.0 * plain, x)[0], atol=1e-15) and not gradient[0, 0].any()


def test_without_meta_networks_it_is_the_network():
    """Convolutions of zero and identities in the place of batch norm leave what the frozen parts say, to the bit."""
    with isolated(0):
        network = adapted(wide_resnet(schema(8), depth=16, width=1))
    for meta in network.metas:
        nn.init.zeros_(meta.convolution.weight)
        meta.norm = nn.Identity()
    x = numbers(4, 3, 8, 8).float()
    scores, apart = network(x, apart=True)
    assert torch.equal(scores, network.frozen_alone(x)) and [value.item() for value in apart] == 4 * [0.0]
    assert not torch.equal(scores, network.frozen_alone(x, batch_stats=False))


def test_the_gradient_modes_answer_alike_and_cut_keeps_parts_apart():
    with isolated(0):
        network = adapted(wide_resnet(schema(8), depth=10, width=1))
    x = numbers(4, 3, 8, 8).float()
    found = {mode: network(x, mode)[0] for mode in ("exact", "lean", "cut")}
    assert torch.equal(found["exact"], found["lean"]) and torch.equal(found["exact"], found["cut"])
    slopes = {mode: torch.autograd.grad(found[mode].square().sum(), list(network.parameters())) for mode in found}
    first = {mode: slopes[mode][0] for mode in found}
    assert not torch.allclose(first["exact"], first["lean"]) and not torch.allclose(first["exact"], first["cut"])
    # the last meta network lies behind no frozen part but the head, which differentiates batch norm in "exact" alone
    assert torch.equal(slopes["cut"][-1], slopes["exact"][-1])


def test_it_holds_the_meta_networks_and_nothing_else():
    network = adapted(wide_resnet(schema(8), depth=10, width=1))
    assert all(key.startswith("metas.") for key in network.state_dict())
    assert {id(weight) for weight in network.parameters()} == {id(w) for meta in network.metas for w in meta.parameters()}


# network, parts, side, megabytes of activations at 64 rows, weights of the meta networks
COUNTED = {
    "WRN-40-2, 4 parts": (lambda: wide_resnet(schema(32, 100)), 4, 32, 71.30, 107_008),
    "WRN-40-2, 5 parts": (lambda: wide_resnet(schema(32, 100)), 5, 32, 83.89, 144_128),
    "WRN-28-10, 4 parts": (lambda: wide_resnet(schema(), 28, 10), 4, 32, 339.74, 2_562_560),
    "WRN-28-10, 5 parts": (lambda: wide_resnet(schema(), 28, 10), 5, 32, 402.65, 3_485_440),
    "ResNet-50, 4 parts": (lambda: resnet50(schema(224, 1000)), 4, 224, 1181.75, 24.9e6),
    "ResNet-50, 5 parts": (lambda: resnet50(schema(224, 1000)), 5, 224, 1335.89, 34.4e6),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_are_as_published(name):
    """4 bytes of |x_k| + 2 |o_k| for each of 64 rows."""
    build, parts, side, megabytes, weights = COUNTED[name]
    with torch.device("meta"):
        network = build().eval()
        found = Adapted("me", partition("me", network, parts), shape=(3, side, side))
        planes = found.planes(torch.zeros(2, 3, side, side))
    total, own = sum(x + 2 * o for x, o in planes), sum(weight.numel() for weight in found.parameters())
    assert round(4 * 64 * total / 1e6, 2) == megabytes
    assert own == weights if isinstance(weights, int) else round(own / 1e6, 1) == weights / 1e6
    if name.startswith("WRN-40-2"):
        whole = own + sum(weight.numel() for weight in network.parameters())
        assert total == {4: 278_528, 5: 327_680}[parts]
        assert round(4 * (64 * total + whole) / 1e6, 2) == {4: 80.75, 5: 93.48}[parts]
        if parts == 4:
            assert [x for x, _ in planes] == [16384, 32768, 32768, 16384]
            assert [o for _, o in planes] == [32768, 32768, 16384, 8192]


def test_small_convolutions_for_networks_of_many_channels():
    with torch.device("meta"):
        network = resnet50(schema(224, 1000)).eval()
        cut = partition("me", network)
        small, large = (Adapted("me", cut, form, (3, 224, 224)) for form in ("1x1", "3x3"))
    weights = [sum(meta.convolution.weight.numel() for meta in found.metas) for found in (small, large)]
    assert 9 * weights[0] == weights[1]


def test_what_it_refuses():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(ArgumentError, match=r"no batch norm.*got Conv2d, ReLU, Flatten, Linear.*--model resnet18"):
        Adapted("me", partition("me", plain))
    network = conv4(schema()).eval()
    with pytest.raises(ArgumentError, match="meta must be '3x3' or '1x1', got '5x5'"):
        Adapted("me", partition("me", network), "5x5")
    with pytest.raises(ArgumentError, match="Give the shape of a row"):
        Adapted("me", partition("me", network), shape=(4, 32, 32))
    flat = Partition(network[:4], (nn.Sequential(*network[4:7], nn.Flatten()),), nn.Identity(), (1,))
    with pytest.raises(ArgumentError, match=r"part 1 takes .* must keep"):
        Adapted("me", flat)
