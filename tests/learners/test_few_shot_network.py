"""The network of a few-shot learner: what is cut off, what heads see, and cosine scores."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError
from everlearn.learners.few_shot_network import Recognizer


def recognizer(network, **given):
    return Recognizer("few_shot", network(), 3, **{"scale": 16.0, **given})


def test_the_encoder_is_the_network_without_its_last_layer(network):
    model, x = network(), torch.randn(4, 5)
    wanted = model[1](model[0](x))
    made = Recognizer("few_shot", model, 3, scale=16.0)
    assert torch.equal(made.features(x), wanted) and made.d == 7
    assert made(x).shape == (4, 3)
    with pytest.raises(ArgumentError, match="few_shot: the network needs a last linear layer"):
        Recognizer("few_shot", nn.ReLU(), 3, scale=16.0)


def test_scores_do_not_hang_on_lengths():
    # the cosine of (2, 0) and (0, 3) is 0, with (1, 0) it is 1: -log(e^0 / (e^16 + e^0 + e^-16)) = 16
    made = Recognizer("few_shot", nn.Linear(2, 3), 3, scale=16.0)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))
    for length in (2.0, 0.01, 500.0):
        scores = made.scores(torch.tensor([[length, 0.0]]))
        assert scores[0].tolist() == pytest.approx([16.0, 0.0, -16.0])
        wanted = 16.0 + math.log1p(math.exp(-16) + math.exp(-32))
        assert cross_entropy(scores.double(), torch.tensor([1])).item() == pytest.approx(wanted, abs=1e-6)
        assert wanted == pytest.approx(16.0, abs=1e-6)


def test_a_linear_classifier_has_a_bias_and_lengths(network):
    made = recognizer(network, kind="linear")
    h = torch.randn(2, 7)
    assert torch.allclose(made.scores(h), h @ made.weight.T + made.bias, atol=1e-6)


def test_fixed_vectors_are_no_parameters(network):
    made = recognizer(network, kind="fixed")
    made.fix(torch.eye(7)[:3])
    assert torch.equal(made.vectors, torch.eye(7)[:3]) and "fixed" in made.state_dict()
    assert [name for name, _ in made.named_parameters()] == ["body.0.weight", "body.0.bias"]
    with pytest.raises(ArgumentError, match="the encoder is all that learns"):
        Recognizer("few_shot", nn.Linear(4, 3), 3, scale=16.0, kind="fixed").fix(torch.eye(4)[:3])


def test_heads_stand_only_where_they_are_asked_for(network):
    assert recognizer(network).projection is None and recognizer(network).rotation is None
    made = recognizer(network, projection=5, rotation=True)
    h = torch.randn(6, 7)
    assert made.projected(h).norm(dim=1).tolist() == pytest.approx([1.0] * 6, abs=1e-4)
    assert made.rotation(h).shape == (6, 4)


def test_the_projection_can_be_drawn_anew_from_the_seed(network):
    made, again, other = (recognizer(network, projection=5, seed=seed) for seed in (0, 0, 1))
    before = made.projection[0].weight.clone()
    for one in (made, again, other):
        one.project_anew()
    assert not torch.equal(before, made.projection[0].weight)
    assert torch.equal(made.projection[2].weight, again.projection[2].weight)
    assert not torch.equal(made.projection[2].weight, other.projection[2].weight)


def test_embedding_is_in_evaluation_mode_and_in_parts():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    made = Recognizer("few_shot", model, 2, scale=16.0).train()
    x = torch.randn(1200, 3)
    before = model[1].running_mean.clone()
    found = made.embed(x)
    assert found.shape == (1200, 4) and not found.requires_grad
    assert torch.equal(model[1].running_mean, before)
    assert torch.allclose(found[700:], made.embed(x[700:]), atol=1e-6)
