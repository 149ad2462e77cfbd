"""EATA beside the published loop, its Fisher information, and its switches."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from everlearn import EATA, Batch, Boundary


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        model[3].weight.mul_(12.0)  # sure answers
    return model


def batches(count, rows=40):
    random = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 6, generator=random) * 1.5 + 0.3 for _ in range(count)]


def published(model, xs, source, d=0.4, beta=1.0, lr=0.001):
    """The loop of the authors' code, with the Fisher information taken row by row."""
    bn, margin = model[1], 0.4 * math.log(10)
    params = [bn.weight, bn.bias]
    model.eval()
    fisher = [torch.zeros_like(value) for value in params]
    for row in source:
        scores = model(row[None])
        for held, slope in zip(fisher, torch.autograd.grad(cross_entropy(scores, scores.argmax(1)), params), strict=True):
            held += slope**2 / len(source)
    first = [value.detach().clone() for value in params]
    bn.track_running_stats, bn.running_mean, bn.running_var = False, None, None
    optimizer, mean, answers, used = torch.optim.Adam(params, lr=lr), None, [], []
    for x in xs:
        scores = model(x)
        entropy = -(scores.softmax(1) * scores.log_softmax(1)).sum(1)
        kept = torch.where(entropy < margin)[0]
        if mean is not None:
            kept = kept[torch.where(cosine_similarity(mean[None], scores[kept].softmax(1).detach(), dim=1).abs() < d)[0]]
        if len(kept):
            now = scores[kept].softmax(1).detach().mean(0)
            mean = now if mean is None else 0.9 * mean + 0.1 * now
            weight = 1 / torch.exp(entropy[kept].detach() - margin)
            loss = (entropy[kept] * weight).mean(0)
            terms = zip(fisher, params, first, strict=True)
            loss = loss + sum(beta * (held * (value - start) ** 2).sum() for held, value, start in terms)
            for value, slope in zip(params, torch.autograd.grad(loss, params), strict=True):
                value.grad = slope
            optimizer.step()
        answers.append(scores.detach())
        used.append(len(kept))
    return answers, torch.cat([value.flatten() for value in fisher]), used


@pytest.mark.parametrize("beta", [1.0, 2000.0])
def test_it_is_the_published_loop(beta):
    source = batches(3)[-1]
    learner = EATA(network(), strength=beta)
    found = learner.estimate_fisher(source)
    wanted, fisher, used = published(network(), batches(20), source, beta=beta)
    torch.testing.assert_close(found, fisher, rtol=1e-4, atol=1e-7)
    assert 0 < sum(used[1:]) < 19 * 40  # both filters and both sides of them are met
    for x, scores in zip(batches(20), wanted, strict=True):
        torch.testing.assert_close(learner.adapt(x), scores, rtol=1e-4, atol=1e-4)


def test_the_first_batch_is_eta_without_a_filter_of_redundancy():
    x = batches(1)[0]
    whole, plain = EATA(network()), EATA(network(), fisher=False, redundancy=None)
    whole.estimate_fisher(batches(2)[1])
    first, other = (learner.update(Batch(x)) for learner in (whole, plain))
    assert first["penalty"] == 0.0 and first["learned_from"] == other["learned_from"] > 0
    assert all(torch.equal(*pair) for pair in zip(whole.adaptation.weights, plain.adaptation.weights, strict=True))
    second, other = (learner.update(Batch(batches(2)[1])) for learner in (whole, plain))
    assert second["penalty"] > 0.0 and second["learned_from"] < other["learned_from"]


def test_rows_of_the_time_with_labels_give_the_fisher_information():
    learner, told = EATA(network(), fisher_samples=100), EATA(network())
    for x in batches(2):
        learner.update(Batch(x, torch.arange(40) % 10))
        told.update(Batch(x, torch.arange(40) % 10))
    told.memory.release()
    told.estimate_fisher(torch.cat(batches(2)))
    held = copy.deepcopy(learner.memory.rows()["x"])
    learner.adapt(batches(3)[2])
    assert len(held) == 80 and learner.memory.stored == 0
    torch.testing.assert_close(learner.importance, told.importance, rtol=1e-4, atol=1e-6)
    with pytest.warns(UserWarning, match="estimate_fisher"):
        EATA(network()).adapt(batches(1)[0])


def test_switches_change_what_is_learned():
    def after(**arguments):
        learner = EATA(network(), **{"lr": 0.01, "redundancy": 0.4, **arguments})
        learner.estimate_fisher(batches(9)[-1])
        for number, x in enumerate(batches(8)):
            if number == 5:
                learner.boundary(Boundary(1))
            learner.adapt(x)
        return learner.predict(batches(1)[0])

    plain = after()
    for switch in (
        *({"fisher": False}, {"strength": 100.0}, {"redundancy": None}, {"entropy_margin": 0.2}),
        *({"method": "sgd"}, {"reset_at_boundaries": True}),
    ):
        assert not torch.equal(after(**switch), plain), switch
    assert torch.equal(after(fisher=False), after(strength=0.0))


def test_after_a_reset_answers_of_before_make_none_redundant():
    learner = EATA(network(), lr=0.01)
    learner.estimate_fisher(batches(9)[-1])
    first = [learner.adapt(x) for x in batches(4)]
    learner.reset()
    assert learner.mean is None
    assert all(torch.equal(learner.adapt(x), scores) for x, scores in zip(batches(4), first, strict=True))


def test_a_strong_hold_keeps_weights_at_the_source():
    def moved(strength):
        learner = EATA(network(), lr=0.01, redundancy=None, strength=strength)
        learner.estimate_fisher(batches(9)[-1])
        for x in batches(8):
            learner.adapt(x)
        pairs = zip(learner.adaptation.weights, learner.adaptation.origin, strict=True)
        return sum((weight - first).square().sum() for weight, first in pairs)

    assert moved(1e4) < 0.5 * moved(0.0)
