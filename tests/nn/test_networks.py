"""Networks from schemas: shapes, scaling, seeding, single rows, and what is refused."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.networks import NETWORKS, Scale, auto, linear, mlp, small_cnn

VECTOR = Schema((7,), torch.float32, ("a", "b", "c"))
IMAGE = Schema((3, 32, 32), torch.uint8, ("a", "b", "c"))
GREY = Schema((1, 28, 28), torch.uint8, ("a", "b"))


def rows(schema, count, seed=0):
    random = torch.Generator().manual_seed(seed)
    if schema.dtype == torch.uint8:
        return torch.randint(256, (count, *schema.shape), dtype=torch.uint8, generator=random)
    return torch.randn(count, *schema.shape, generator=random)


def sizes(network):
    return [tuple(parameter.shape) for parameter in network.parameters()]


def test_scaling_by_hand():
    assert Scale()(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([-0.5, -0.3, 0.5])
    assert Scale()(torch.tensor([7], dtype=torch.uint8)).dtype == torch.float32


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("schema", [VECTOR, IMAGE, GREY], ids=["vector", "image", "grey"])
def test_every_network_scores_and_trains_on_a_single_row(name, schema):
    if name == "small_cnn" and schema is VECTOR:
        with pytest.raises(ArgumentError):
            small_cnn(schema)
        return
    network = NETWORKS[name](schema)
    assert network(rows(schema, 4)).shape == (4, schema.outputs)
    network.train()
    network(rows(schema, 1)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["linear", "mlp", "small_cnn"])
def test_rows_do_not_see_each_other(name):
    network = NETWORKS[name](IMAGE).train()
    x = rows(IMAGE, 6)
    alone = torch.cat([network(row[None]) for row in x])
    # The same sums in another order: a few roundings of numbers near 1.
    assert torch.allclose(network(x), alone, atol=1e-5)


def test_sizes_follow_the_arguments():
    assert sizes(linear(VECTOR)) == [(3, 7), (3,)]
    assert sizes(mlp(VECTOR)) == [(100, 7), (100,), (3, 100), (3,)]
    assert sizes(mlp(VECTOR, hidden=(5, 4))) == [(5, 7), (5,), (4, 5), (4,), (3, 4), (3,)]
    assert sizes(mlp(GREY, hidden=()))[0] == (2, 784)
    assert sizes(small_cnn(IMAGE, width=12))[::3] == [(12, 3, 3, 3), (24, 12, 3, 3), (48, 24, 3, 3), (3, 48)]


def test_the_size_that_the_doc_string_states():
    ten = Schema((3, 32, 32), torch.uint8, tuple("0123456789"))
    assert round(sum(parameter.numel() for parameter in small_cnn(ten).parameters()) / 1000) == 95


def test_a_linear_network_is_softmax_regression():
    network = linear(VECTOR)
    weight, bias = network.parameters()
    x = rows(VECTOR, 5)
    assert torch.allclose(network(x), x @ weight.T + bias, atol=1e-6)


def test_an_mlp_by_hand():
    network = mlp(VECTOR, hidden=(4,))
    first, shift, second, end = network.parameters()
    x = rows(VECTOR, 5)
    assert torch.allclose(network(x), (x @ first.T + shift).clamp(min=0) @ second.T + end, atol=1e-6)


def test_float_images_are_not_scaled():
    schema = Schema((3, 32, 32), torch.float32, ("a", "b"))
    assert not any(isinstance(layer, Scale) for layer in small_cnn(schema).modules())
    with isolated(0):
        bytes_network = small_cnn(IMAGE)
    with isolated(0):
        float_network = small_cnn(Schema(IMAGE.shape, torch.float32, IMAGE.classes))
    x = rows(IMAGE, 2)
    assert torch.equal(bytes_network(x), float_network(x.float() / 255 - 0.5))


def test_auto_chooses_by_the_rows():
    def convolutional(network):
        return any(isinstance(layer, nn.Conv2d) for layer in network.modules())

    assert convolutional(auto(IMAGE))
    assert convolutional(auto(GREY))
    assert not convolutional(auto(VECTOR))
    assert not convolutional(auto(Schema((1, 8, 8), torch.uint8, ("a", "b"))))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_seed_decides_the_weights(name):
    def made(seed):
        with isolated(seed, "network"):
            return torch.cat([parameter.detach().flatten() for parameter in NETWORKS[name](IMAGE).parameters()])

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


def test_small_cnn_learns_what_a_linear_network_cannot():
    # Whether a bright spot has a neighbour is no linear function of the pixels, wherever the spots are.
    random = torch.Generator().manual_seed(0)
    x = torch.zeros(256, 1, 16, 16, dtype=torch.uint8)
    y = torch.arange(256) % 2
    for row in range(256):
        top, left, other = (
            int(torch.randint(low, high, (1,), generator=random)) for low, high in ((0, 16), (0, 14), (0, 2))
        )
        x[row, 0, top, left] = 255
        x[row, 0, top, left + 1 if y[row] else (left + 8 + other) % 16] = 255
    schema = Schema((1, 16, 16), torch.uint8, ("apart", "together"))
    found = {}
    for build in (linear, lambda schema: small_cnn(schema, width=8)):
        with isolated(0):
            network = build(schema)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[:192]), y[:192]).backward()
            optimizer.step()
        found[len(found)] = (network(x[192:]).argmax(1) == y[192:]).double().mean().item()
    assert found[1] > 0.95 > found[0] + 0.2


def test_refusals():
    with pytest.raises(ArgumentError, match=r"small_cnn: rows must be images .* got \(7,\)\. Use mlp or auto"):
        small_cnn(VECTOR)
    with pytest.raises(ArgumentError, match="a width in hidden must be an int >= 1, got 0"):
        mlp(VECTOR, hidden=(4, 0))
    with pytest.raises(ArgumentError, match="width must be an int >= 1"):
        small_cnn(IMAGE, width=0)
    with pytest.raises(ArgumentError, match="rows must be uint8 or float32, got torch"):
        mlp(Schema((7,), torch.int64, ("a", "b")))
    with pytest.raises(ArgumentError, match="names no classes"):
        mlp(Schema((7,), torch.float32, ()))
