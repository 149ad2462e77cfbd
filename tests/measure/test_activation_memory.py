"""The meter beside the counts, on three networks, for training of everything and of batch norms alone."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn import BNStats, FineTune, Replay
from everlearn.core.errors import InputError
from everlearn.core.events import Batch
from everlearn.core.learner import Adapter
from everlearn.measure.activation_formula import formula, sizes
from everlearn.measure.activation_memory import MemoryReport, memory_report, memory_table, saved_for_backward
from everlearn.optim.optimizers import SGD, Adam

ROWS = 8


class Flat(nn.Sequential):
    """Plain layers: convolution, batch norm, ReLU, three times."""

    def __init__(self):
        layers = []
        for before, after in ((3, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, *ends(32))


class Before(nn.Module):
    """A residual block with batch norm and ReLU ahead of its convolutions."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.head = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1)
        )
        self.shortcut = nn.Conv2d(channels, width, 1, stride)

    def forward(self, x):
        a = self.head(x)
        return self.body(a) + self.shortcut(a)


class After(nn.Module):
    """A residual block whose sum goes through a ReLU."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1), nn.BatchNorm2d(width)),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride), nn.BatchNorm2d(width))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + self.shortcut(x))


def ends(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)


def before():
    last = nn.BatchNorm2d(32), nn.ReLU()
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), Before(16, 16, 1), Before(16, 32, 2), *last, *ends(32))


def after():
    stem = nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(*stem, After(16, 16, 1), After(16, 32, 2), *ends(32))


NETWORKS = {"before": before, "after": after, "flat": Flat}


class LeanConvolution(torch.autograd.Function):
    """A frozen 3x3 or 1x1 convolution that keeps its weight alone."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer, ctx.shape = layer, x.shape
        with torch.no_grad():
            return layer.plain(x)

    @staticmethod
    def backward(ctx, gradient):
        layer = ctx.layer
        return torch.nn.grad.conv2d_input(ctx.shape, layer.weight, gradient, layer.stride, layer.padding), None


class MaskedReLU(torch.autograd.Function):
    """A ReLU that keeps a byte for eight elements."""

    @staticmethod
    def forward(ctx, x):
        bits = (x > 0).flatten().reshape(-1, 8).to(torch.uint8)
        ctx.save_for_backward((bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8))
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (packed,) = ctx.saved_tensors
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        return gradient * bits.reshape(gradient.shape)


def lean(network):
    """The same network whose convolutions and ReLUs keep what must be kept."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.plain = module.forward
            module.forward = lambda x, module=module: LeanConvolution.apply(x, module)
        elif isinstance(module, nn.ReLU):
            module.forward = MaskedReLU.apply
    return network


def entropy(scores):
    return -(scores.softmax(1) * scores.log_softmax(1)).sum(1).mean()


def only_norms(network):
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(isinstance(module, nn.BatchNorm2d))
    return network.train()


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]()


def x(rows=ROWS):
    return torch.rand(rows, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def metered(network, loss):
    held = [*network.parameters(), *network.buffers()]
    return saved_for_backward(lambda: loss(network(x())).backward(), held)[1:]


def test_full_fine_tuning_keeps_what_the_count_says(network):
    """The published count leaves out the output of the last ReLU, which feeds no convolution: much of a flat net, little of a deep one."""
    activations, _ = metered(network, lambda scores: cross_entropy(scores, torch.zeros(ROWS, dtype=torch.int64)))
    counted = sizes(network, x(1))
    assert activations == pytest.approx(formula("full", counted, ROWS, autograd=True).activations, rel=0.05)
    last = [module for module in network.modules() if isinstance(module, nn.ReLU)][-1]
    outputs = []
    last.register_forward_hook(lambda module, given, out: outputs.append(out.numel()))
    network(x())
    published = formula("full", counted, ROWS).activations
    assert activations == pytest.approx(published + 4 * outputs[0], rel=0.05)


def test_batch_norms_alone_still_keep_nearly_all_in_plain_autograd(network):
    counted = sizes(network, x(1))
    activations, _ = metered(only_norms(network), entropy)
    assert activations == pytest.approx(formula("tent", counted, ROWS, autograd=True).activations, rel=0.05)
    assert activations > 1.5 * formula("tent", counted, ROWS).activations


def test_batch_norms_alone_keep_their_inputs_where_frozen_layers_are_lean(network):
    counted = formula("tent", sizes(network, x(1)), ROWS)
    plain = network(x()).detach()
    activations, masks = metered(lean(only_norms(network)), entropy)
    assert activations == pytest.approx(counted.activations, rel=0.05)
    assert masks == counted.masks
    assert torch.allclose(network(x()), plain, atol=1e-4)  # training mode both times: the same statistics of the batch


def test_weights_and_buffers_do_not_count_and_a_storage_counts_once():
    weight, given = torch.ones(4, 4, requires_grad=True), torch.ones(6, 4)
    step = lambda: ((given @ weight) @ weight.T * given.view(6, 4)).sum().backward()  # noqa: E731
    assert saved_for_backward(step, [weight])[1] == 4 * 6 * 4 * 2  # given, given @ weight; its view is the same storage
    assert saved_for_backward(step)[1] == 4 * 6 * 4 * 2 + 4 * 16


def test_the_most_at_one_time_counts_not_the_sum():
    given = torch.ones(8, 4)
    weight = torch.ones(4, 2, requires_grad=True)

    def step():
        for _ in range(3):
            (given.clone() @ weight).sum().backward()

    assert saved_for_backward(step, [weight])[1] == 4 * 8 * 4


class Norms(Adapter):
    """Adapts batch norms by entropy."""

    name = "norms"
    parts = ("model", "optimizer")

    def __init__(self, model):
        self.model = only_norms(model)
        self.optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def predict(self, x):
        with torch.no_grad():
            return self.model(x)

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass

    def adapt(self, x):
        scores = self.model(x)
        self.optimizer.zero_grad()
        entropy(scores).backward()
        self.optimizer.step()
        return scores.detach()


def test_the_report_of_an_adapter(network):
    learner = Norms(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = memory_report(learner, Batch(x()), formula=1000)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    affine = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert report.parameters == 4 * parameters and report.rows == ROWS and report.formula == 1000
    assert report.optimizer == pytest.approx(2 * 4 * affine, rel=0.3)  # two moments, and a count for each tensor
    assert report.buffers > 0 and report.total == report.parameters + report.activations
    assert report.activations == metered(network, entropy)[0]
    fresh = network.state_dict()
    assert all(torch.equal(fresh[key], value) for key, value in before.items() if "running" not in key and "num" not in key)
    assert not learner.optimizer.state


def test_the_report_of_a_learner_from_answers():
    network = Flat()
    y = torch.zeros(ROWS, dtype=torch.int64)
    report = memory_report(FineTune(network), Batch(x(), y))
    assert report.activations == pytest.approx(
        formula("full", sizes(network, x(1)), ROWS, autograd=True).activations, rel=0.05
    )
    with pytest.raises(InputError, match="give memory_report a batch with y"):
        memory_report(FineTune(network), Batch(x()))


def test_what_an_optimiser_moves_is_told_from_what_it_does_not():
    """Fused steps, plain descent that writes the weights itself, and no step at all."""
    network = Flat()
    frozen_weight = next(network.parameters()).requires_grad_(False)
    batch = Batch(x(), torch.zeros(ROWS, dtype=torch.int64))
    weights = 4 * sum(weight.numel() for weight in network.parameters()) - 4 * frozen_weight.numel()
    for optimizer, state in ((SGD(), 0), (SGD(momentum=0.9), weights), (Adam(), 2 * weights)):
        report = memory_report(FineTune(network, optimizer=optimizer), batch)
        assert report.trained == weights
        assert report.optimizer == pytest.approx(state, rel=0.02, abs=1)
    assert memory_report(BNStats(network), Batch(x())).trained == 0


def test_replay_is_weighed_by_its_capacity():
    learner = Replay(Flat(), capacity=20)
    batch = Batch(x(), torch.zeros(ROWS, dtype=torch.int64))
    learner.update(batch)
    report = memory_report(learner, batch)
    assert report.replay_rows == 20
    assert report.replay >= 20 * (4 * x()[0].numel() + 8)
    assert memory_report(FineTune(Flat()), batch).replay == 0


def test_the_table():
    first = MemoryReport("tent()", 64, 9_020_624, 180_355_072, formula=180_355_072, trained=21_000, replay_rows=0, replay=0)
    table = memory_table([first, MemoryReport("a", 1, 0, 0)]).splitlines()
    assert table[0].startswith("| learner | rows | parameters MB | trained MB | activations MB | by formula MB |")
    assert table[2] == "| `tent()` | 64 | 9.02 | 0.0210 | 180.36 | 180.36 | 0.00 | 0.00 | 189.38 | 0 | 0.00 |"
    assert table[3] == "| `a` | 1 | 0.00 |  | 0.00 |  | 0.00 | 0.00 | 0.00 |  |  |"
