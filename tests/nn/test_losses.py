"""Contrastive, masked and distillation losses against numbers worked out by hand and slow twins."""

import math
import time

import pytest
import torch
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError
from everlearn.nn.losses import (
    counted_cross_entropy,
    counts_of,
    dot_regression,
    logit_distillation,
    mask_absent_logits,
    normalised,
    nt_xent,
    present,
    proxy_contrastive_loss,
    relation_distillation,
    soft_distillation,
    supervised_contrastive_loss,
    with_samples,
)

T = 0.09
FAR = 1e6  # rows this long are unit vectors to twelve digits, whatever is added to their length


def vectors(dtype=torch.float64):
    """The rows and proxies of the worked examples."""
    features = FAR * torch.tensor([[1, 0], [0, 1], [1, 1], [3, 4]], dtype=dtype)
    proxies = FAR * torch.tensor([[1, 0], [0, 2], [-1, -1]], dtype=dtype)
    return features, proxies


def by_pairs(features, labels, proxies, temperature):
    """The published double sum: every anchor against the proxies of all N rows, one pair at a time."""
    rows, classes = normalised(features), normalised(proxies)
    losses = []
    for i, label in enumerate(labels.tolist()):
        against = [float(rows[i] @ classes[other]) / temperature for other in labels.tolist()]
        top = max(against)
        log_sum = top + math.log(sum(math.exp(value - top) for value in against))
        own = [value - log_sum for value, other in zip(against, labels.tolist(), strict=True) if other == label]
        losses.append(-sum(own) / len(own))
    return losses


def test_the_proxy_contrast_of_two_classes_of_equal_size():
    features, proxies = vectors()
    labels = torch.tensor([0, 1, 1, 0])
    rows = [0.693162, 0.693162, 1.386294, 3.018258]
    assert by_pairs(features, labels, proxies, T) == pytest.approx(rows, abs=1e-6)
    assert proxy_contrastive_loss(features, labels, proxies, T).item() == pytest.approx(1.4477191749, abs=1e-9)
    assert proxy_contrastive_loss(features, labels, proxies, 1.0).item() == pytest.approx(1.2225995368, abs=1e-9)


def test_a_proxy_counts_once_for_each_of_its_rows():
    features, proxies = vectors()
    labels = torch.tensor([0, 1, 1, 1])
    assert by_pairs(features, labels, proxies, T) == pytest.approx([4.483501e-05, 1.098617, 1.386294, 1.134098], abs=1e-6)
    assert proxy_contrastive_loss(features, labels, proxies, T).item() == pytest.approx(0.9047635759, abs=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_count_form_is_the_double_sum(dtype, tolerance):
    random = torch.Generator().manual_seed(3)
    features, proxies = (torch.randn(size, 8, generator=random, dtype=torch.float64) for size in (40, 12))
    labels = torch.randint(12, (40,), generator=random)
    slow = sum(by_pairs(features, labels, proxies, T)) / 40
    fast = proxy_contrastive_loss(features.to(dtype), labels, proxies.to(dtype), T).item()
    assert fast == pytest.approx(slow, rel=tolerance, abs=tolerance)


def test_the_count_form_costs_less_than_the_pairs():
    random = torch.Generator().manual_seed(3)
    rows, classes = normalised(torch.randn(512, 64, generator=random)), normalised(torch.randn(100, 64, generator=random))
    labels = torch.randint(100, (512,), generator=random)

    def pairs():
        logits = rows @ classes[labels].T / T
        same = labels[:, None] == labels
        return -((logits.log_softmax(1) * same).sum(1) / same.sum(1)).mean()

    def counted():
        return counted_cross_entropy(rows @ classes.T / T, labels, counts_of(labels, 100))

    assert counted().item() == pytest.approx(pairs().item(), rel=1e-5)
    assert 2.0 * _fastest(counted) < _fastest(pairs)  # about 4 to 6 times


def _fastest(step):
    times = []
    for _ in range(30):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return min(times)


def test_rows_join_the_contrast():
    features, proxies = vectors()
    labels = torch.tensor([0, 1, 1, 0])
    each = [with_samples_row(features, proxies, labels, row, T) for row in range(4)]
    assert each == pytest.approx([2.199513, 1.848870, 3.373012, 4.671319], abs=1e-6)
    found = proxy_contrastive_loss(features, labels, proxies, T, anchors="proxy+sample").item()
    assert found == pytest.approx(3.0231785475, abs=1e-9)


def with_samples_row(features, proxies, labels, row, temperature):
    """One anchor of the joint contrast, pair by pair."""
    rows, classes = normalised(features), normalised(proxies)
    terms = [(float(rows[row] @ classes[label]) / temperature, label == labels[row]) for label in labels]
    terms += [(float(rows[row] @ rows[j]) / temperature, labels[j] == labels[row]) for j in range(len(labels)) if j != row]
    top = max(value for value, _ in terms)
    log_sum = top + math.log(sum(math.exp(value - top) for value, _ in terms))
    own = [value - log_sum for value, same in terms if same]
    return -sum(own) / len(own)


def test_proxies_as_anchors_are_the_contrast_of_all_with_all():
    features, proxies = vectors()
    labels = torch.tensor([0, 1, 1, 0])
    both = torch.cat([normalised(features), normalised(proxies)[labels]])
    names = torch.cat([labels, labels])
    losses = []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        logits = torch.stack([both[i] @ both[j] / T for j in others]).log_softmax(0)
        own = [logits[place] for place, j in enumerate(others) if names[j] == names[i]]
        losses.append(-torch.stack(own).mean())
    found = proxy_contrastive_loss(features, labels, proxies, T, anchors="all")
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-12)
    assert abs(found.item() - 3.0231785475) > 0.1


def test_an_absent_class_gets_no_gradient_and_lengths_do_not_matter():
    features, proxies = vectors()
    features, proxies = features / FAR, (proxies / FAR).requires_grad_()
    labels = torch.tensor([0, 1, 1, 0])
    loss = proxy_contrastive_loss(features, labels, proxies, T)
    (gradient,) = torch.autograd.grad(loss, proxies)
    assert gradient[2].abs().max() == 0 and gradient[:2].abs().max() > 0.1
    for scaled in ((features * torch.tensor([[5.0], [1], [1], [1]]), proxies), (features, proxies * 5)):
        assert abs(proxy_contrastive_loss(scaled[0], labels, scaled[1], T) - loss) < 1e-5


def test_all_classes_once_is_the_cross_entropy():
    features, proxies = vectors()
    labels = torch.tensor([2, 0, 1])
    logits = normalised(features[:3]) @ normalised(proxies).T / T
    expected = cross_entropy(logits, labels)
    assert proxy_contrastive_loss(features[:3], labels, proxies, T).item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_masked_loss_worked_out_by_hand():
    # log(1 + exp(-2)) = 0.1269280, log(1 + exp(-3)) = 0.0485874; their mean is 0.0877577
    logits = torch.tensor([[2.0, 0, 1, 5], [0, 3, 1, 5]], requires_grad=True)
    labels = torch.tensor([0, 1])
    assert cross_entropy(logits, labels).item() == pytest.approx(2.6104636, abs=1e-6)
    before = logits.detach().clone()
    loss = counted_cross_entropy(logits, labels, present(labels, 4))
    assert loss.item() == pytest.approx(0.0877577, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient[:, 2:], torch.zeros(2, 2)) and bool((gradient[:, :2] != 0).all())
    assert torch.equal(logits.detach(), before)
    assert cross_entropy(mask_absent_logits(logits, present(labels, 4)), labels).item() == pytest.approx(loss.item())


def test_rows_of_one_class_give_a_masked_loss_of_zero_without_gradient():
    logits = torch.tensor([[2.0, 0, 1], [0, 3, 1]], requires_grad=True)
    labels = torch.tensor([1, 1])
    loss = counted_cross_entropy(logits, labels, present(labels, 3))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0.0 and torch.equal(gradient, torch.zeros(2, 3))


def test_relations_kept_cost_their_entropy_which_is_the_least():
    features, _ = vectors()
    entropies = []
    for i in range(4):
        logits = torch.stack([normalised(features)[i] @ normalised(features)[j] / T for j in range(4) if j != i])
        entropies.append(-(logits.softmax(0) * logits.log_softmax(0)).sum().item())
    assert entropies == pytest.approx([0.545714, 0.576807, 0.332562, 0.401634], abs=1e-6)
    moving = features.clone().requires_grad_()
    loss = relation_distillation(moving, features, T)
    assert loss.item() == pytest.approx(0.4641793543, abs=1e-9)
    assert torch.autograd.grad(loss, moving)[0].abs().max() < 1e-9
    turn = torch.tensor([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]], dtype=torch.float64)
    assert relation_distillation(features @ turn, features, T).item() == pytest.approx(loss.item(), abs=1e-12)
    assert relation_distillation(features.flip(0) * torch.tensor([1.0, 2.0]), features, T) > loss
    assert relation_distillation(features[:1], features[:1], T).item() == 0.0


def test_score_distillation_weighs_columns_by_how_often_they_are_named():
    new, old = torch.tensor([[1.0, 2, 3], [0, 1, -1]]), torch.tensor([[1.0, 1, 3], [2, 1, -2]])
    assert logit_distillation(new, old, torch.tensor([0, 1, 1, 0])).item() == pytest.approx(1.25)
    assert ((new - old) ** 2).mean().item() == pytest.approx(1.0)
    columns = torch.tensor([2, 0, 0])
    slow = torch.stack([(new[:, k] - old[:, k]) ** 2 for k in columns]).mean()
    assert logit_distillation(new, old, columns).item() == pytest.approx(slow.item())


def test_supervised_contrast_leaves_out_rows_without_a_partner():
    features = normalised(torch.tensor([[1.0, 0.2], [0.9, 0.1], [-1.0, 0.3]], dtype=torch.float64))
    labels = torch.tensor([0, 0, 1])
    products = features @ features.T / 0.5
    rows = [-(products[i, 1 - i] - torch.stack([products[i, 1 - i], products[i, 2]]).logsumexp(0)) for i in (0, 1)]
    found = supervised_contrastive_loss(features, labels, 0.5)
    assert found.item() == pytest.approx(torch.stack(rows).mean().item(), abs=1e-12)
    assert supervised_contrastive_loss(features, torch.tensor([0, 1, 2]), 0.5).item() == 0.0


def test_soft_targets_worked_out_by_hand():
    # softened by 2: old (ln 3, 0) -> (sqrt 3, 1) / (1 + sqrt 3); new (0, 0) -> halves, so the loss is ln 2 whatever the old
    old, new = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2, requires_grad=True)
    loss = soft_distillation(new, old, 2.0)
    assert loss.item() == pytest.approx(math.log(2.0))
    share = math.sqrt(3.0) / (1.0 + math.sqrt(3.0))
    assert torch.autograd.grad(loss, new)[0].flatten().tolist() == pytest.approx([(0.5 - share) / 2, (share - 0.5) / 2])


def test_unknown_anchors_and_temperatures_are_refused():
    features, proxies = vectors()
    with pytest.raises(ArgumentError, match="anchors"):
        proxy_contrastive_loss(features, torch.tensor([0, 1, 1, 0]), proxies, T, anchors="proxies")
    with pytest.raises(ArgumentError, match="above 0"):
        proxy_contrastive_loss(features, torch.tensor([0, 1, 1, 0]), proxies, 0.0)
    logits = normalised(features) @ normalised(proxies).T / T
    assert torch.isfinite(with_samples(logits, normalised(features), torch.tensor([0, 1, 1, 0]), T))


# ---- contrast of a few-shot learner ----------------------------------------------------------------------------------------

POINTS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("labels", "temperature", "over", "loss"),
    [
        ([0, 0, 1, 1], 0.1, "all", 0.0637798398),
        ([0, 0, 1, 1], 1.0, "all", 0.6735767889),
        ([0, 0, 1, 1], 0.1, "positives", 0.0637798398),
        ([0, 0, 1, 2], 0.1, "all", 0.0318899199),
        ([0, 0, 1, 2], 0.1, "positives", 0.0637798398),
    ],
)
def test_the_supervised_contrast_at_known_points(labels, temperature, over, loss):
    found = supervised_contrastive_loss(POINTS, torch.tensor(labels), temperature, over=over)
    assert found.item() == pytest.approx(loss, abs=2e-10)


def test_the_contrast_of_two_views_against_a_slow_twin():
    first, second = (torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1) for _ in range(2))
    both = [*first, *second]
    total = 0.0
    for i, anchor in enumerate(both):
        others = [j for j in range(10) if j != i]
        scores = torch.stack([anchor @ both[j] / 0.3 for j in others])
        total -= scores.log_softmax(0)[others.index((i + 5) % 10)].item()
    assert nt_xent(first, second, 0.3).item() == pytest.approx(total / 10, rel=1e-12)


def test_dot_regression_by_hand():
    h, p = torch.tensor([[5.0, 0.0]], dtype=torch.float64), torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    # cosine 0.6: (0.6 - 1)^2 / 2; lengths carry an epsilon of 1e-6
    assert dot_regression(h, p).item() == pytest.approx(0.08, abs=2e-6)
    assert 10 * dot_regression(h.repeat(3, 1), p.repeat(3, 1)).item() == pytest.approx(0.8, abs=2e-5)
