"""Features of networks: the input of the last linear layer, purely."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.state import capture, same
from everlearn.nn.features import class_count, embed, feature_network, features, flattened, last_linear


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def test_the_last_layer_turns_features_into_scores():
    model = perceptron().eval()
    x = torch.randn(5, 4)
    found = features(model, x)
    assert torch.equal(found, model[1](model[0](x)))
    assert torch.equal(last_linear(model)(found), model(x))


def test_evaluation_mode_no_gradients_and_nothing_left_behind():
    model = perceptron().train()
    before = capture(model)
    x = torch.randn(5, 4)
    first = features(model, x)
    assert torch.equal(first, features(model, x))  # no dropout
    assert not first.requires_grad
    assert model.training
    assert all(module.training for module in model.modules())
    assert not last_linear(model)._forward_pre_hooks
    assert same(before, capture(model))


def test_the_hook_goes_even_where_the_model_fails():
    model = perceptron()
    with pytest.raises(RuntimeError):
        features(model, torch.randn(5, 9))
    assert not last_linear(model)._forward_pre_hooks
    assert model.training


def test_without_a_linear_layer_the_output_is_the_feature():
    model = nn.Conv2d(1, 2, 3)
    x = torch.randn(4, 1, 5, 5)
    assert torch.equal(features(model, x), model(x).flatten(1))
    assert last_linear(model) is None


def test_tokens_are_flattened_and_dicts_pass():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(x["values"] * x["mask"]).mean(1)

    x = {"values": torch.randn(4, 5, 3), "mask": torch.ones(4, 5, 1)}
    assert torch.equal(features(Tokens(), x), x["values"].flatten(1))


def test_flattened_rows():
    assert flattened(torch.tensor([[[1.0], [2.0]]])).tolist() == [[1.0, 2.0]]
    assert flattened(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == [[-0.5, 0.5]]
    pair = {"b": torch.ones(2, 1), "a": torch.zeros(2, 2)}
    assert flattened(pair).tolist() == [[0.0, 0.0, 1.0]] * 2
    assert flattened(torch.ones(1, 1)).dtype == torch.float64
    with pytest.raises(InputError, match="features='network'"):
        flattened(torch.ones(1, 1, dtype=torch.int64))


def test_embed_takes_either_source():
    model = perceptron()
    x = torch.randn(3, 4)
    assert torch.equal(embed(None, x), x.double())
    assert torch.equal(embed(model, x), features(model, x).double())
    assert feature_network("it", model, "input") is None
    assert feature_network("it", model, "network") is model


def test_auto_takes_the_network_where_it_has_structure():
    convolutional = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    assert feature_network("it", convolutional, "auto") is convolutional
    assert feature_network("it", perceptron(), "auto") is None
    assert feature_network("it", None, "auto") is None


def test_the_number_of_classes():
    assert class_count("it", perceptron(), None) == 3
    assert class_count("it", perceptron(), 5) == 5
    assert class_count("it", None, 2) == 2
    for model in (None, nn.ReLU()):
        with pytest.raises(ArgumentError, match=r"it: .* give classes="):
            class_count("it", model, None)
    with pytest.raises(ArgumentError, match="it: classes must be an int >= 1, got 0"):
        class_count("it", None, 0)
