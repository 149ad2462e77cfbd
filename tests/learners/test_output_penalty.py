"""Values of output terms against the published identities."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, mse_loss, one_hot

from everlearn.learners.objective import OutputTerm
from everlearn.learners.output_penalty import binary_task_loss, output_penalty
from everlearn.learners.presets import preset
from everlearn.nn.bregman import BinaryNegEntropy, LogNorm, NegEntropy, Quadratic, Squared, bregman
from everlearn.nn.losses import soft_distillation


@pytest.fixture
def scores():
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = torch.tensor([0, 3, 1, 1, 2])


def test_replayed_labels_are_a_cross_entropy(scores):
    assert torch.equal(output_penalty(preset("er").output[0], scores[0], LABELS), cross_entropy(scores[0], LABELS))


def test_dark_replay_is_a_mean_squared_error_and_the_sum_is_classes_times_it(scores):
    new, old = scores
    assert torch.equal(output_penalty(preset("der").output[0], new, old), mse_loss(new, old))
    summed = OutputTerm(1.0, Squared(), source="memory", target="stored_logits")
    assert torch.allclose(output_penalty(summed, new, old), 4 * mse_loss(new, old))


def test_distillation_is_a_cross_entropy_less_the_entropy_of_the_old_answers(scores):
    new, old = scores
    columns = torch.tensor([0, 2, 3])
    found = output_penalty(preset("lwf", temperature=2.0).output[0], new, old, columns)
    soft = (old[:, columns] / 2).softmax(1)
    entropy = -(soft * soft.log()).sum(1).mean()
    assert torch.allclose(found, soft_distillation(new[:, columns], old[:, columns], 2.0) - entropy)
    assert torch.allclose(found, kl_div((new[:, columns] / 2).log_softmax(1), soft, reduction="batchmean"))


def test_icarl_keeps_old_sigmoids(scores):
    new, old = scores
    coins = old.sigmoid()
    entropy = binary_cross_entropy_with_logits(old, coins, reduction="sum") / 5
    crossed = binary_cross_entropy_with_logits(new, coins, reduction="sum") / 5
    assert torch.allclose(output_penalty(preset("icarl").output[0], new, old), crossed - entropy)
    assert torch.allclose(
        binary_task_loss(new, LABELS, None),
        binary_cross_entropy_with_logits(new, one_hot(LABELS, 4).double(), reduction="sum") / 5,
    )


def test_cpr_is_the_entropy_that_is_missing():
    scores = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    assert output_penalty(preset("cpr").output[0], scores, None).item() == pytest.approx(0.2662167068, abs=1e-10)
    two = output_penalty(preset("cpr").output[0], torch.zeros(1, 4), None, torch.tensor([0, 1]))
    assert two.item() == pytest.approx(0.0, abs=1e-7)


FORMS = {
    "negentropy": (NegEntropy(), "probs", lambda s: s.softmax(1)),
    "binary_negentropy": (BinaryNegEntropy(), "sigmoid", torch.sigmoid),
    "lognorm": (LogNorm("categorical"), "logits", lambda s: s),
    "squared": (Squared(), "logits", lambda s: s),
    "squared probs": (Squared(), "probs", lambda s: s.softmax(1)),
    "squared features": (Squared(), "features", lambda s: s),
    "quadratic": (Quadratic((1.0, 2.0, 3.0, 4.0)), "sigmoid", torch.sigmoid),
}


@pytest.mark.parametrize("order", ["target_first", "model_first"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_plain_divergence_of_its_view(name, order, scores):
    potential, view, look = FORMS[name]
    h, z = map(look, scores)
    pair = (z, h) if order == "target_first" else (h, z)
    term = OutputTerm(1.0, potential, view, order=order)
    assert torch.allclose(output_penalty(term, *scores), bregman(*pair, potential).mean())
    meant = OutputTerm(1.0, potential, view, order=order, reduce="mean")
    assert torch.allclose(output_penalty(meant, *scores), bregman(*pair, potential).mean() / 4)


def test_temperature_divides_the_scores_of_both_and_leaves_labels_alone(scores):
    term = OutputTerm(1.0, Squared(), "probs", temperature=3.0)
    expected = bregman((scores[0] / 3).softmax(1), (scores[1] / 3).softmax(1), Squared()).mean()
    assert torch.allclose(output_penalty(term, *scores), expected)
    brier = OutputTerm(1.0, Squared(), "probs", target="label", temperature=3.0)
    expected = ((scores[0] / 3).softmax(1) - one_hot(LABELS, 4)).square().sum(1).mean()
    assert torch.allclose(output_penalty(brier, scores[0], LABELS), expected)
    soft = OutputTerm(1.0, NegEntropy(), "probs", target="label", temperature=3.0)
    assert torch.allclose(output_penalty(soft, scores[0], LABELS), cross_entropy(scores[0] / 3, LABELS))


def test_uniform_coins_are_fair():
    term = OutputTerm(1.0, BinaryNegEntropy(), "sigmoid", target="uniform")
    assert output_penalty(term, torch.zeros(3, 2), None).item() == pytest.approx(0.0, abs=1e-7)
    far = output_penalty(term, torch.full((3, 2), math.log(3.0)), None).item()
    assert far == pytest.approx(2 * -0.5 * math.log(4 * 0.75 * 0.25))
