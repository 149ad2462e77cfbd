"""Tent beside the published loop, its switches, and layer norm."""

import math

import pytest
import torch
from torch import nn

from everlearn import Batch, BNStats, Boundary, Tent


def network(seed=0):
    torch.manual_seed(seed)
    body = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)]
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))


def batches(count, rows=32):
    random = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 3, 6, 6, generator=random) * 2.0 + 0.5 for _ in range(count)]


def published(model, xs, make):
    """The loop of the authors' code: training mode, no running statistics, mean entropy, scale and shift of batch norm."""
    model.train()
    model.requires_grad_(False)
    params = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(True)
            module.track_running_stats = False
            module.running_mean = None
            module.running_var = None
            params += [module.weight, module.bias]
    optimizer = make(params)
    answers = []
    for x in xs:
        outputs = model(x)
        loss = -(outputs.softmax(1) * outputs.log_softmax(1)).sum(1).mean(0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        answers.append(outputs.detach())
    return answers


@pytest.mark.parametrize(
    ("arguments", "make"),
    [
        ({}, lambda some: torch.optim.Adam(some, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)),
        ({"lr": 0.00025, "method": "sgd"}, lambda some: torch.optim.SGD(some, lr=0.00025, momentum=0.9)),
    ],
)
def test_it_is_the_published_loop(arguments, make):
    """Equal logits to 1e-5 over 20 batches; a control at twice the rate must differ by more."""
    learner, twice = Tent(network(), **arguments), Tent(network(), **{**arguments, "lr": 2 * arguments.get("lr", 1e-3)})
    worst = control = 0.0
    for x, wanted in zip(batches(20), published(network(), batches(20), make), strict=True):
        worst = max(worst, (learner.adapt(x) - wanted).abs().max().item())
        control = max(control, (twice.adapt(x) - wanted).abs().max().item())
    print(f"largest difference {worst:.1e}, control {control:.1e}")
    assert worst < 1e-5 < control


def test_at_no_rate_it_is_batch_statistics():
    still, plain = Tent(network(), lr=0.0), BNStats(network())
    assert all(torch.equal(still.adapt(x), plain.adapt(x)) for x in batches(3))


def test_switches_change_what_is_learned():
    def after(**arguments):
        learner = Tent(network(), lr=0.01, **arguments)
        for number, x in enumerate(batches(6)):
            if number == 3:
                learner.boundary(Boundary(1))
            learner.adapt(x)
        return learner.predict(batches(1)[0])

    plain = after()
    for switch in ({"method": "sgd"}, {"entropy_margin": 0.9}, {"alpha": 0.5}, {"reset_at_boundaries": True}):
        assert not torch.equal(after(**switch), plain), switch


def test_no_step_where_no_answer_is_sure():
    learner = Tent(network(), entropy_margin=1e-6)
    assert learner.update(Batch(batches(1)[0])) == {"learned_from": 0.0}
    assert learner.adaptation.steps == 0
    with torch.no_grad():
        learner.adaptation.model[7].weight.zero_()
        learner.adaptation.model[7].bias.zero_()
    assert Tent(learner.adaptation.model).update(Batch(batches(1)[0]))["loss"].item() == pytest.approx(math.log(10))


class Transformer(nn.Module):
    """Rows of (tokens, width): attention between two layer norms."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm1 = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        z = self.norm1(x)
        return self.head(self.norm(x + self.attention(z, z, z)[0]).mean(1))


def test_layer_norm_adapts_and_its_rows_do_not_see_each_other():
    x = torch.randn(16, 4, 8, generator=torch.Generator().manual_seed(0))
    learner = Tent(Transformer(), lr=0.01)
    first, model = learner.adapt(x), Transformer()
    torch.testing.assert_close(first, model(x).detach())
    weights = [*model.norm1.parameters(), *model.norm.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.01)
    scores = model(x)
    (-(scores.softmax(1) * scores.log_softmax(1)).sum(1)).mean().backward(inputs=weights)
    optimizer.step()
    torch.testing.assert_close(learner.predict(x), model(x).detach())
    torch.testing.assert_close(learner.predict(x[3:4]), learner.predict(x)[3:4])
