"""Tuning on the rows of a session: what moves and what must not, and pre-training."""

import pytest
import torch
from torch import nn

from everlearn.core.random import generator
from everlearn.data.views import Viewer
from everlearn.learners.few_shot_answers import Answers
from everlearn.learners.few_shot_network import Recognizer
from everlearn.learners.few_shot_session import MaskedUpdate, pretrain, teach, tunable, tune, tune_linear
from everlearn.learners.few_shot_tricks import Finetune
from everlearn.nn.losses import nt_xent
from everlearn.nn.masks import magnitude_mask
from everlearn.nn.pseudo_classes import PseudoClasses
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD

WEIGHTS = torch.tensor([0.5, -0.1, 0.05, -2.0, 0.3, 0.02, 1.0, -0.4, 0.2, -0.01])


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    ],
    ids=["sgd", "adam", "fused"],
)
def test_what_the_mask_leaves_out_does_not_move_by_a_bit(optimizer):
    mask = magnitude_mask([WEIGHTS], 0.3)
    assert mask.nonzero().flatten().tolist() == [2, 5, 9]
    weight = nn.Parameter(WEIGHTS.clone())
    step = MaskedUpdate(optimizer([weight]), [weight], mask)
    for number in range(5):
        step((torch.randn(10, generator=torch.Generator().manual_seed(number)),))
    assert torch.equal(weight[~mask], WEIGHTS[~mask])
    assert not bool((weight[mask] == WEIGHTS[mask]).any())


def test_a_mask_over_several_weights_is_cut_in_their_order():
    first, second = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4))
    mask = torch.tensor([1, 0, 0, 0, 0, 1, 0, 0, 1, 0]).bool()
    step = MaskedUpdate(torch.optim.SGD([first, second], lr=1.0), [first, second], mask)
    step((torch.ones(2, 3), torch.ones(4)))
    assert torch.cat([first.flatten(), second]).tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 0, 1]


def convolutional(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6)
    )
    return Recognizer("few_shot", model, 6, scale=16.0)


def session(rows=6):
    random = torch.Generator().manual_seed(3)
    return torch.rand(rows, 1, 8, 8, generator=random), torch.arange(rows) % 2


def tuned(network, views=None, mask=None, **given):
    x, places = session()
    network.embed(x)
    old = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    new = torch.stack([network.embed(x[places == label]).mean(0) for label in (0, 1)])
    tools = {"pseudo": PseudoClasses(), "viewer": Viewer("few_shot", views, generator(0))}
    tune(network, x, places, old, new, given=Finetune(**{"lr": 0.01, "steps": 5, **given}), mask=mask, **tools)
    return network


def row(network):
    return torch.cat([weight.detach().flatten() for weight in tunable(network.body)])


def test_batch_norm_stays_as_it_is():
    before, after = convolutional(), tuned(convolutional())
    for name, value in before.body[1].state_dict().items():
        assert torch.equal(value, after.body[1].state_dict()[name]), name
    assert not torch.equal(row(before), row(after))
    assert len(tunable(before.body)) == 2  # the convolution's weights and biases


def test_no_mask_is_a_mask_of_all_and_an_empty_one_moves_nothing():
    count = len(row(convolutional()))
    free = row(tuned(convolutional()))
    assert torch.equal(free, row(tuned(convolutional(), mask=torch.ones(count, dtype=torch.bool))))
    assert torch.equal(row(convolutional()), row(tuned(convolutional(), mask=torch.zeros(count, dtype=torch.bool))))


@pytest.mark.parametrize(
    "change",
    [{"lr": 0.02}, {"steps": 6}, {"momentum": 0.9}, {"weight_decay": 0.5}, {"optimizer": "adam"}, {"prototype_lr": 1.0}],
    ids=str,
)
def test_every_option_of_tuning_counts(change):
    assert not torch.equal(row(tuned(convolutional())), row(tuned(convolutional(), **change)))


def test_tuning_lowers_the_loss_of_the_rows_it_is_given():
    x, places = session()

    def separation(network):
        h = nn.functional.normalize(network.embed(x), dim=1)
        return (h[places == 0] @ h[places == 1].T).mean().item()

    assert separation(tuned(convolutional(), steps=40, lr=0.05)) < separation(convolutional())


def test_a_linear_layer_is_tuned_among_the_known_classes():
    x, y = session()
    network = convolutional()
    network = Recognizer("few_shot", nn.Sequential(network.body, nn.Linear(16, 6)), 6, scale=16.0, kind="linear")
    weight, body = network.weight.detach().clone(), row(network)
    tools = {"given": Finetune(lr=0.1), "mask": None, "viewer": Viewer("few_shot", None, generator(0))}
    tune_linear(network, x, y, torch.tensor([0, 1, 4]), encoder=False, **tools)
    moved = (network.weight != weight).any(1).tolist()
    assert moved == [True, True, False, False, True, False] and torch.equal(body, row(network))
    tune_linear(network, x, y, torch.tensor([0, 1, 4]), encoder=True, **tools)
    assert not torch.equal(body, row(network))


@pytest.mark.parametrize("rate", [None, 0.0, 0.2])
def test_the_layer_has_a_rate_of_its_own(rate):
    x, y = session()
    moved = []
    for given in (Finetune(lr=0.1, steps=1), Finetune(lr=0.1, steps=1, prototype_lr=rate)):
        network = Recognizer("few_shot", convolutional().body.append(nn.Linear(16, 6)), 6, scale=16.0, kind="linear")
        weight = network.weight.detach().clone()
        viewer = Viewer("few_shot", None, generator(0))
        tune_linear(network, x, y, torch.arange(6), given=given, encoder=False, mask=None, viewer=viewer)
        moved.append(network.weight.detach() - weight)
    assert moved[0].abs().max() > 0
    assert torch.allclose(moved[1], moved[0] * (1.0 if rate is None else rate / 0.1), atol=1e-6)


def test_teaching_without_tuning_is_the_mean_of_the_features():
    x, y = session()
    network = convolutional()
    settings = {"scale": 16.0, "average": "raw", "head": "means", "predict_with": "means", "calibrate": None}
    answers = Answers(network, PseudoClasses(), 6, aggregate=True, **settings)
    teach(answers, x, y + 2, [3], given=None, mask=None, viewer=Viewer("few_shot", None, generator(0)))
    assert answers.known == [3]
    assert torch.allclose(answers.classifier.prototypes[3], network.embed(x[y == 1]).mean(0), atol=1e-6)


def test_pretraining_lowers_its_loss_without_labels():
    network = Recognizer("few_shot", convolutional().body.append(nn.Linear(16, 6)), 6, scale=16.0, projection=8)
    x, _ = session(32)
    viewer = Viewer("few_shot", None, generator(0))

    def loss():
        with torch.no_grad():
            z = network.eval().projected(network.features(x))
        return nt_xent(z, z, 0.2).item()

    before, descent = loss(), Descent(network, SGD(lr=0.1))
    with pytest.warns(UserWarning, match="views=None"):
        pretrain(descent, x, 5, 10, 0.2, viewer)
    assert descent.steps == 5 * 4 and loss() < before
