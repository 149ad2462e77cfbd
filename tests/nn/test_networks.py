"""Networks from schemas: shapes, scaling, seeding, single rows, and what is refused."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.features import features, last_linear
from everlearn.nn.front import Rounded, Scale
from everlearn.nn.networks import (
    NETWORKS,
    auto,
    cifar_resnet,
    conv4,
    conv_stack,
    grey_cnn,
    linear,
    mlp,
    reduced_resnet18,
    resnet18,
    small_cnn,
)
from everlearn.nn.residual import UnitLinear
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Adam

VECTOR = Schema((7,), torch.float32, ("a", "b", "c"))
IMAGE = Schema((3, 32, 32), torch.uint8, ("a", "b", "c"))
GREY = Schema((1, 28, 28), torch.uint8, ("a", "b"))
DIGITS = Schema((1, 28, 28), torch.uint8, tuple("0123456789"))
COLOUR = Schema((3, 32, 32), torch.uint8, tuple("0123456789"))
OF_ROWS = ("auto", "elu_mlp", "linear", "mlp")  # networks for rows of any shape; the others take images
NORMALISED = (
    "cifar_resnet",
    "conv4",
    "conv_stack",
    "mobilenet_v2",
    "reduced_resnet18",
    "resnet12",
    "resnet18",
)  # batch norm
NARROW = {
    "mobilenet_v2": {"width": 0.25},
    "resnet12": {"width": 4},
    "resnet18": {"width": 4},
    "reduced_resnet18": {"width": 4},
}
IMAGES = sorted(set(NETWORKS) - set(OF_ROWS))


def rows(schema, count, seed=0):
    random = torch.Generator().manual_seed(seed)
    if schema.dtype == torch.uint8:
        return torch.randint(256, (count, *schema.shape), dtype=torch.uint8, generator=random)
    return torch.randn(count, *schema.shape, generator=random)


def made(name, schema, **arguments):
    """The network of a name, with few channels where it has many."""
    return NETWORKS[name](schema, **NARROW.get(name, {}), **arguments)


def sizes(network):
    return [tuple(parameter.shape) for parameter in network.parameters()]


def weights(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("schema", [VECTOR, IMAGE, GREY], ids=["vector", "image", "grey"])
def test_every_network_scores_and_trains_on_a_single_row(name, schema):
    if name not in OF_ROWS and schema is VECTOR:
        with pytest.raises(ArgumentError, match=f"{name}: rows must be images"):
            made(name, schema)
        return
    network = made(name, schema)
    assert network(rows(schema, 4)).shape == (4, schema.outputs)
    network.train()
    network(rows(schema, 1)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 3, 5), (1, 8, 8), (3, 4, 16), (3, 13, 7)])
def test_networks_with_batch_norm_train_on_one_small_image(name, shape):
    schema = Schema(shape, torch.uint8, ("a", "b"))
    network = made(name, schema).train()
    network(rows(schema, 1)).sum().backward()
    planes = [layer.running_mean for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert planes and all(torch.isfinite(mean).all() for mean in planes)
    assert network.eval()(rows(schema, 3)).shape == (3, 2)


@pytest.mark.parametrize("name", ["linear", "mlp", "small_cnn", "grey_cnn"])
def test_rows_do_not_see_each_other(name):
    network = made(name, IMAGE).train()
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
    assert round(weights(small_cnn(COLOUR)) / 1000) == 95


def test_the_documented_table_names_every_network_with_its_weights():
    text = (Path(__file__).parents[2] / "docs/command-line.md").read_text().split("## Networks")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]*) ?\|$", text, re.MULTILINE))
    with torch.device("meta"):  # shapes alone
        found = {name: f"{weights(NETWORKS[name](COLOUR)):,}" for name in NETWORKS if name != "auto"}
    assert told == {"auto": "", **found}


def test_weights_of_grey_cnn_by_hand():
    # 25 * 1 * 10 + 10, 25 * 10 * 20 + 20, 320 * 50 + 50, 50 * 10 + 10
    assert weights(grey_cnn(DIGITS)) == 260 + 5020 + 16050 + 510 == 21840
    # 20 channels of ((84 - 4) / 2 - 4) / 2 = 18 by ((33 - 4) // 2 - 4) // 2 = 5
    assert sizes(grey_cnn(Schema((3, 84, 33), torch.uint8, ("a", "b"))))[4] == (50, 20 * 18 * 5)


def test_grey_cnn_by_hand():
    network = grey_cnn(Schema((1, 28, 28), torch.float32, ("a", "b")))
    first, shift, second, offset, inner, bias, outer, end = network.parameters()
    x = rows(GREY, 3).float() / 255
    z = nn.functional.max_pool2d(nn.functional.conv2d(x, first, shift), 2).clamp(min=0)
    z = nn.functional.max_pool2d(nn.functional.conv2d(z, second, offset), 2).clamp(min=0).flatten(1)
    assert torch.allclose(network(x), (z @ inner.T + bias).clamp(min=0) @ outer.T + end, atol=1e-5)


def test_weights_of_conv4_by_hand():
    # 9 * inputs * outputs per convolution, 2 * outputs per batch norm, 64 * 10 + 10
    convolutions = 9 * (1 * 16 + 16 * 32 + 32 * 64 + 64 * 64)
    assert weights(conv4(DIGITS)) == convolutions + 2 * (16 + 32 + 64 + 64) + 650 == 61050
    assert sizes(conv4(DIGITS, widths=(4, 6)))[::3] == [(4, 1, 3, 3), (6, 4, 3, 3), (10, 6)]


def test_weights_of_conv_stack_by_hand():
    # in convolutions alone; beside them 2 per channel of batch norm, and the head
    assert 27 * 24 + 9 * (24 * 48 + 48 * 96 + 96 * 96) == 135_432
    network = conv_stack(COLOUR)
    assert sum(layer.weight.numel() for layer in network if isinstance(layer, nn.Conv2d)) == 135_432
    assert weights(network) == 135_432 + 2 * (24 + 48 + 96 + 96) + 970
    assert sizes(conv_stack(DIGITS, widths=(4, 6, 8)))[::3] == [(4, 1, 3, 3), (6, 4, 3, 3), (8, 6, 3, 3), (10, 8)]


def test_conv_stack_is_conv4_on_bytes_around_zero():
    floats = Schema((3, 16, 16), torch.float32, COLOUR.classes)
    widths = (4, 6, 8, 8)
    with isolated(0):
        stack = conv_stack(Schema((3, 16, 16), torch.uint8, COLOUR.classes), widths)
    with isolated(0):
        four = conv4(floats, widths)
    x = rows(Schema((3, 16, 16), torch.uint8, COLOUR.classes), 4)
    assert torch.equal(stack(x), four(x.float() / 255 - 0.5))


def multiplications(network, schema):
    """Of all convolutions for one row: weights times the pixels of the plane that they give."""
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, plane: found.append(layer.weight.numel() * plane.shape[2] * plane.shape[3])
            )
    network.eval()(rows(schema, 1))
    return sum(found)


def test_work_of_conv4_by_hand():
    # 28x28, 14x14, 7x7 and 3x3 pixels; forward and backward together three times, two operations per multiplication: the
    # 40 images of a replay step with views take 0.54 thousand million operations
    by_hand = 784 * 9 * 16 + 196 * 9 * 16 * 32 + 49 * 9 * 32 * 64 + 9 * 9 * 64 * 64
    assert multiplications(conv4(DIGITS), DIGITS) == by_hand == 2_251_008
    assert round(40 * 3 * 2 * by_hand / 1e9, 2) == 0.54
    small = Schema((3, 16, 16), torch.uint8, ("a", "b"))
    assert round(multiplications(conv_stack(small), small) / 1e6, 2) == 1.82


def test_weights_of_the_reduced_resnet_by_hand():
    """A block of equal width w has 2 (9 w^2 + 2 w) weights; one from v to w has 9 v w + 9 w^2 + v w + 6 w."""

    def equal(w):
        return 2 * (9 * w * w + 2 * w)

    def wider(v, w):
        return 9 * v * w + 9 * w * w + v * w + 6 * w

    by_hand = 27 * 20 + 40 + 2 * equal(20) + sum(wider(w // 2, w) + equal(w) for w in (40, 80, 160))
    assert by_hand == 1_093_140
    assert weights(reduced_resnet18(COLOUR)) == by_hand + 160 * 10 + 10
    hundred = Schema((3, 32, 32), torch.uint8, tuple(str(number) for number in range(100)))
    assert weights(reduced_resnet18(hundred)) == 1_109_240
    assert sizes(reduced_resnet18(COLOUR, width=3))[0] == (3, 3, 3, 3)


@pytest.mark.parametrize(("side", "d"), [(32, 160), (84, 640), (28, 160), (64, 640), (8, 160)])
def test_the_reduced_resnet_has_features_for_every_size(side, d):
    schema = Schema((3, side, side), torch.uint8, ("a", "b"))
    network = reduced_resnet18(schema)
    assert last_linear(network).in_features == d
    assert features(network, rows(schema, 2)).shape == (2, d)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        # n blocks a stage: 464 + n * 4672 + (13952 + (n - 1) * 18560) + (55552 + (n - 1) * 73984) + 650
        ({}, 269_722),
        ({"shortcut": "projection"}, 272_474),
        ({"depth": 32}, 464_154),
        ({"depth": 44}, 658_586),
        ({"depth": 56}, 853_018),
        ({"head": "weightnorm"}, 269_712),
        ({"depth": 8, "width": 2}, 463 * 2 + 2 + 18_560 + 55_552 + 221_696 + 1290),
    ],
)
def test_weights_of_cifar_resnets(arguments, count):
    assert weights(cifar_resnet(COLOUR, **arguments)) == count


def test_weights_of_the_smallest_depth_by_hand():
    # one block a stage: two convolutions of 3x3 and two batch norms; the stem; the head
    blocks = 2 * (9 * 16 * 16 + 32) + (9 * 16 * 32 + 9 * 32 * 32 + 128) + (9 * 32 * 64 + 9 * 64 * 64 + 256)
    assert weights(cifar_resnet(COLOUR, depth=8)) == 27 * 16 + 32 + blocks + 650


@pytest.mark.parametrize(
    ("stem", "classes", "count", "maskable"),
    [
        ("cifar", 10, 11_173_962, 11_164_352),
        ("cifar", 100, 11_220_132, 11_210_432),
        ("imagenet", 100, 11_227_812, 11_218_112),
    ],
)
def test_weights_of_resnet18(stem, classes, count, maskable):
    with torch.device("meta"):
        network = resnet18(Schema((3, 32, 32), torch.uint8, tuple(map(str, range(classes)))), stem=stem)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert weights(network) == count
    assert len(layers) == 21 and sum(layer.weight.numel() for layer in layers) == maskable


def test_the_stems_of_resnet18_by_hand():
    """One sees every pixel, the other every fourth."""
    small, large = resnet18(COLOUR, width=2), resnet18(COLOUR, width=2, stem="imagenet")
    assert sizes(small)[0] == (2, 3, 3, 3) and sizes(large)[0] == (2, 3, 7, 7)
    planes = {}
    for name, network in (("cifar", small), ("imagenet", large)):
        blocks = [layer for layer in network if type(layer).__name__ == "Block"]
        for block in blocks:
            block.register_forward_hook(lambda _, __, plane, name=name: planes.setdefault(name, []).append(plane.shape[2]))
        network(rows(COLOUR, 1))
    assert planes == {"cifar": [32, 32, 16, 16, 8, 8, 4, 4], "imagenet": [8, 8, 4, 4, 2, 2, 2, 2]}


@pytest.mark.parametrize("name", IMAGES)
def test_bfloat16_changes_the_convolutions_alone(name):
    """The same weights in the same order; scores within the rounding of a network in bfloat16, and not the same.

    Batch norm takes away what channels have in common and with it digits; MobileNetV2 does so 52 times, mostly without a shortcut,
    and ResNet-50 53 times, at last on planes of 2x2.
    """
    built = {}
    for precision in ("float32", "bfloat16"):
        with isolated(0, "network"):
            built[precision] = made(name, COLOUR, precision=precision)
    full, rounded = built.values()
    assert not any(isinstance(layer, Rounded) for layer in full.modules())
    assert all(torch.equal(one, other) for one, other in zip(full.parameters(), rounded.parameters(), strict=True))
    x = rows(COLOUR, 8)
    scores, other = full.train()(x), rounded.train()(x)
    assert other.dtype == torch.float32 and not torch.equal(scores, other)
    assert (scores - other).norm() < (0.3 if name in ("mobilenet_v2", "resnet50") else 0.03) * scores.norm()
    other.sum().backward()
    assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in rounded.parameters())
    assert torch.equal(rounded.eval()(x), rounded(x))


def test_the_head_of_a_cifar_resnet():
    assert isinstance(last_linear(cifar_resnet(COLOUR, depth=8, head="weightnorm")), UnitLinear)
    assert type(last_linear(cifar_resnet(COLOUR, depth=8))) is nn.Linear


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"auto"}))
def test_the_last_layer_is_linear_with_one_row_per_class(name):
    network = made(name, COLOUR)
    assert last_linear(network) is network[-1] and network[-1].out_features == 10


def test_conv4_by_hand():
    network = conv4(GREY).train()
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    x = rows(GREY, 4)
    z = x.float() / 255
    for number, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        z = nn.functional.conv2d(z, convolution.weight, padding=1)
        z = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), keepdim=True, correction=0) + norm.eps).sqrt()
        z = z.clamp(min=0)
        z = nn.functional.max_pool2d(z, 2) if number < 3 else z.mean((2, 3))
    assert torch.allclose(network(x), z @ network[-1].weight.T + network[-1].bias, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(IMAGES) - {"small_cnn"}))
@pytest.mark.parametrize("schema", [DIGITS, COLOUR], ids=["grey", "colour"])
def test_convolutions_go_on_in_the_order_that_they_are_given(name, schema):
    network = made(name, schema)
    orders = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda _, inputs, plane: orders.append(plane.is_contiguous(memory_format=torch.channels_last))
            )
    network(rows(schema, 2)).sum().backward()
    assert orders and all(orders)
    assert all(weight.is_contiguous() and weight.grad.is_contiguous() for weight in network.parameters())


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9), Adam()], ids=["sgd", "momentum", "adam"])
def test_steps_are_those_of_an_optimiser_that_is_not_fused(name, optimizer):
    """Gradients may lie in another order than their weights, which fused optimisers do not look at."""
    with isolated(0, "network"):
        network = made(name, COLOUR)
    slow = copy.deepcopy(network)
    kind = torch.optim.AdamW if isinstance(optimizer, Adam) else torch.optim.SGD
    settings = {} if isinstance(optimizer, Adam) else {"momentum": optimizer.momentum}
    plain = kind(slow.parameters(), lr=optimizer.lr, weight_decay=optimizer.weight_decay, foreach=False, **settings)
    x, y = rows(COLOUR, 4), torch.arange(4)
    Descent(network, optimizer)(lambda: nn.functional.cross_entropy(network(x), y))
    nn.functional.cross_entropy(slow.train()(x), y).backward()
    plain.step()
    for weight, other in zip(network.parameters(), slow.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-6)


@pytest.mark.parametrize("name", ["conv4", "reduced_resnet18"])
def test_networks_whose_source_keeps_bytes_above_zero(name):
    network = made(name, COLOUR).eval()
    floats = made(name, Schema(COLOUR.shape, torch.float32, COLOUR.classes)).eval()
    floats.load_state_dict(
        {f"{int(key.split('.')[0]) - 1}.{key.split('.', 1)[1]}": v for key, v in network.state_dict().items()}
    )
    x = rows(COLOUR, 2)
    assert torch.equal(network(x), floats(x.float() / 255))
    assert not torch.allclose(network(x), floats(x.float() / 255 - 0.5), atol=1e-3)


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
    def drawn(seed):
        with isolated(seed, "network"):
            return torch.cat([parameter.detach().flatten() for parameter in made(name, IMAGE).parameters()])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


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
    with pytest.raises(ArgumentError, match="auto: norm must be one of 'group', 'batch', got 'layer'"):
        auto(IMAGE, norm="layer")
    with pytest.raises(ArgumentError, match="width must be an int >= 1"):
        small_cnn(IMAGE, width=0)
    with pytest.raises(ArgumentError, match="grey_cnn: images must have 16x16 pixels or more, got 15x28"):
        grey_cnn(Schema((1, 15, 28), torch.uint8, ("a", "b")))
    with pytest.raises(ArgumentError, match="conv4: images must have 2x2 pixels or more, got 1x9"):
        conv4(Schema((1, 1, 9), torch.uint8, ("a", "b")))
    for build, name in ((conv4, "conv4"), (conv_stack, "conv_stack")):
        with pytest.raises(ArgumentError, match=rf"{name}: widths must be .* got 3"):
            build(GREY, widths=3)
    with pytest.raises(ArgumentError, match="a width in widths must be an int >= 1, got 0"):
        conv4(GREY, widths=(4, 0))
    with pytest.raises(ArgumentError, match=r"depth must be 6n \+ 2, such as 20, 32, 44 or 56, got 18"):
        cifar_resnet(COLOUR, depth=18)
    with pytest.raises(ArgumentError, match="head must be 'linear' or 'weightnorm', got 'cosine'"):
        cifar_resnet(COLOUR, head="cosine")
    with pytest.raises(ArgumentError, match="shortcut must be 'zeros' or 'projection', got 'none'"):
        cifar_resnet(COLOUR, shortcut="none")
    with pytest.raises(ArgumentError, match="reduced_resnet18: width must be an int >= 1"):
        reduced_resnet18(COLOUR, width=0)
    with pytest.raises(ArgumentError, match="resnet18: stem must be 'cifar' or 'imagenet', got 'small'"):
        resnet18(COLOUR, stem="small")
    with pytest.raises(ArgumentError, match="resnet18: images must have 16x16 pixels or more, got 8x8"):
        resnet18(Schema((1, 8, 8), torch.uint8, ("a", "b")), stem="imagenet")
    for name in IMAGES:
        with pytest.raises(ArgumentError, match=f"{name}: precision must be 'float32' or 'bfloat16', got 'float16'"):
            made(name, COLOUR, precision="float16")
    with pytest.raises(ArgumentError, match="rows must be uint8 or float32, got torch"):
        mlp(Schema((7,), torch.int64, ("a", "b")))
    with pytest.raises(ArgumentError, match="names no classes"):
        mlp(Schema((7,), torch.float32, ()))
