"""SAR beside the published loop and beside filtered Tent, the last stage, and the way back."""

import math

import pytest
import torch
from torch import nn

from everlearn import SAR, Batch, Boundary, Tent
from everlearn.core.errors import ArgumentError
from everlearn.learners.sar import last_stage


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU()),
        nn.Linear(12, 10),
    )
    with torch.no_grad():
        model[6].weight.mul_(10.0)  # sure answers
    return model


def batches(count, rows=40):
    random = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 6, generator=random) * 1.5 + 0.3 for _ in range(count)]


def published(model, xs, lr, rho=0.05):
    """The loop of the authors' code, on both norm layers, without the reset."""
    margin, params = 0.4 * math.log(10), []
    for module in (model[1], model[4]):
        module.track_running_stats, module.running_mean, module.running_var = False, None, None
        params += [module.weight, module.bias]
    optimizer, ema, answers = torch.optim.SGD(params, lr=lr, momentum=0.9), None, []

    def entropy(scores):
        return -(scores.softmax(1) * scores.log_softmax(1)).sum(1)

    for x in xs:
        scores = model(x)
        first = entropy(scores)
        kept = torch.where(first < margin)
        slopes = torch.autograd.grad(first[kept].mean(0), params)
        norm = torch.norm(torch.stack([slope.norm(p=2) for slope in slopes]), p=2)
        moves = [slope * rho / (norm + 1e-12) for slope in slopes]
        with torch.no_grad():
            for value, move in zip(params, moves, strict=True):
                value.add_(move)
        second = entropy(model(x))[kept]
        loss = second[torch.where(second < margin)].mean(0)
        ema = loss.detach() if ema is None else 0.9 * ema + 0.1 * loss.detach()
        slopes = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for value, move, slope in zip(params, moves, slopes, strict=True):
                value.sub_(move)
                value.grad = slope
        optimizer.step()
        answers.append(scores.detach())
    return answers, ema


def test_it_is_the_published_loop():
    learner = SAR(network(), lr=0.01, exclude=(), reset_below=0.0)
    wanted, ema = published(network(), batches(20), lr=0.01)
    for x, scores in zip(batches(20), wanted, strict=True):
        torch.testing.assert_close(learner.adapt(x), scores, rtol=1e-4, atol=1e-4)
    assert learner.mean.item() == pytest.approx(ema.item(), rel=1e-4)


def test_without_the_ascent_it_is_filtered_tent():
    still = SAR(network(), lr=0.01, rho=0.0, reset_below=0.0, exclude=())
    plain = Tent(network(), lr=0.01, method="sgd", entropy_margin=0.4)
    control = SAR(network(), lr=0.01, reset_below=0.0, exclude=())
    for x in batches(10):
        scores = still.adapt(x)
        assert torch.equal(scores, plain.adapt(x))
        control.adapt(x)
    assert plain.adaptation.steps == 10
    assert not torch.equal(control.predict(x), still.predict(x))


def test_switches_change_what_is_learned():
    def after(**arguments):
        learner = SAR(network(), **{"lr": 0.01, "reset_below": 0.0, **arguments})
        for number, x in enumerate(batches(6)):
            if number == 3:
                learner.boundary(Boundary(1))
            learner.adapt(x)
        return learner.predict(batches(1)[0])

    plain = after()
    for switch in (
        *({"rho": 0.5}, {"exclude": ()}, {"exclude": ("1",)}, {"entropy_margin": 0.1}, {"method": "adam"}),
        *({"reset_below": 9.0}, {"reset_at_boundaries": True}),
    ):
        assert not torch.equal(after(**switch), plain), switch


def test_it_goes_back_to_the_source_where_the_entropy_falls_too_low():
    learner = SAR(network(), lr=0.01, reset_below=9.0)
    first = learner.adaptation.model[1].weight.detach().clone()
    metrics = learner.update(Batch(batches(1)[0]))
    assert metrics["reset"] == 1 and learner.resets == 1 and learner.mean is None
    assert torch.equal(learner.adaptation.model[1].weight, first)
    high = SAR(network(), lr=0.01, reset_below=1e-6)
    assert "reset" not in high.update(Batch(batches(1)[0])) and high.resets == 0


class Staged(nn.Module):
    """Norm layers under the names of a residual network or a vision transformer."""

    def __init__(self, names, width=4):
        super().__init__()
        for name in names:
            place = self
            *path, last = name.split(".")
            for step in path:
                if step not in place._modules:
                    place.add_module(step, nn.Module())
                place = place._modules[step]
            place.add_module(last, nn.LayerNorm(width))


def test_the_last_stage_by_name_and_by_width():
    resnet = [f"layer{stage}.0.bn{number}" for stage in (1, 2, 3, 4) for number in (1, 2)]
    assert last_stage(Staged(resnet)) == ("layer4.0.bn1", "layer4.0.bn2")
    vit = [f"blocks.{block}.norm{number}" for block in range(12) for number in (1, 2)]
    wanted = tuple(f"blocks.{block}.norm{number}" for block in (9, 10, 11) for number in (1, 2))
    assert last_stage(Staged([*vit, "norm"])) == (*wanted, "norm")
    assert last_stage(network()) == ("4",)
    assert last_stage(nn.Sequential(*(nn.LayerNorm(4) for _ in range(5)))) == ("3", "4")  # a quarter, rounded up
    assert last_stage(nn.Sequential(nn.LayerNorm(4))) == ()
    with pytest.raises(ArgumentError, match="exclude must be beginnings"):
        SAR(network(), exclude=("layer4",))
