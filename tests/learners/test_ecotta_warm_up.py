"""The warm-up: the rate by hand, a step beside plain autograd, batches as given, and what it leaves alone."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import InputError
from everlearn.core.events import Batch
from everlearn.core.random import generator, isolated
from everlearn.core.stream import Schema
from everlearn.learners.ecotta_warm_up import rate, warm_up
from everlearn.nn.meta_network import Adapted
from everlearn.nn.partition import partition
from everlearn.nn.wide_resnet import wide_resnet


def adapted():
    with isolated(0):
        network = wide_resnet(Schema((1, 8, 8), torch.float32, ("a", "b", "c")), depth=10, width=1).eval()
        return Adapted("me", partition("me", network))


def rows(count=12):
    random = torch.Generator().manual_seed(0)
    return Batch(torch.rand(count, 1, 8, 8, generator=random), torch.arange(count) % 3)


SETTINGS = {
    "epochs": 1,
    "lr": 0.05,
    "momentum": 0.9,
    "batch": 64,
    "schedule": "steps",
    "views": None,
    "batch_stats": True,
}


def test_the_rate_by_hand():
    steps = [rate(step, 2, 10, "steps") for step in range(20)]
    assert steps == pytest.approx([0.5, *5 * [1.0], *6 * [0.2], *4 * [0.04], *4 * [0.008]])
    cosine = [rate(step, 2, 4, "cosine") for step in range(8)]
    assert cosine[0] == 0.5 and cosine[4] == pytest.approx(0.5) and cosine[1] > cosine[2] > cosine[7] > 0
    assert [rate(step, 1, 1, "steps") for step in range(1)] == [1.0]
    assert [rate(step, 1, 3, "steps") for step in range(3)] == pytest.approx([1.0, 0.2, 0.008])


def test_steps_are_those_of_plain_descent_on_the_meta_networks():
    ours, twin, batch = adapted(), adapted(), rows()
    loss = warm_up(ours, [(batch.x, batch.y)], random=generator(0), **(SETTINGS | {"epochs": 3}))
    plain = torch.optim.SGD(twin.parameters(), momentum=0.9)
    for part in (1.0, 0.2, 0.008):
        plain.param_groups[0]["lr"] = 0.05 * part
        plain.zero_grad()
        expected = cross_entropy(twin(batch.x, "exact")[0], batch.y)
        expected.backward()
        plain.step()
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    for found, wanted in zip(ours.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6) and found.grad is None


def test_source_rows_are_learned_and_shuffled_by_the_generator():
    first, again, other = adapted(), adapted(), adapted()
    settings = SETTINGS | {"epochs": 8, "batch": 4}
    losses = [
        warm_up(found, rows(), random=generator(seed), **settings) for found, seed in ((first, 0), (again, 0), (other, 1))
    ]
    assert losses[0] == losses[1] != losses[2]
    before = cross_entropy(adapted()(rows().x)[0], rows().y).item()
    assert losses[0] < before


def test_batches_come_as_they_are_given_every_epoch():
    batch = rows()
    given = [Batch(batch.x[:6], batch.y[:6]), (batch.x[6:11], batch.y[6:11]), (batch.x[11:], batch.y[11:])]
    listed, walked = adapted(), adapted()
    settings = SETTINGS | {"epochs": 3}
    warm_up(listed, given, random=generator(0), **settings)
    warm_up(walked, iter(given), random=generator(1), **settings)  # walked once, and learned from three times
    assert all(torch.equal(a, b) for a, b in zip(listed.parameters(), walked.parameters(), strict=True))


def test_what_there_is_nothing_to_learn_from():
    found = adapted()
    before = [weight.clone() for weight in found.parameters()]
    assert warm_up(found, rows(1), random=generator(0), **SETTINGS) is None
    assert warm_up(found, [], random=generator(0), **SETTINGS) is None
    assert warm_up(found, rows(), random=generator(0), **SETTINGS | {"epochs": 0}) is None
    assert all(torch.equal(a, b) for a, b in zip(before, found.parameters(), strict=True))
    with pytest.raises(InputError, match="no y"):
        warm_up(found, [Batch(rows().x)], random=generator(0), **SETTINGS)


def test_maps_of_labels_are_learned_where_scores_are_maps():
    body = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
        *(nn.ReLU(), nn.Conv2d(4, 3, 1)),
    ).eval()
    found = Adapted("me", partition("me", body))
    x = rows().x
    y = (3 * x[:, 0]).long().clamp(max=2)
    settings = SETTINGS | {"epochs": 6, "batch": 4}
    before = cross_entropy(found(x)[0], y).item()
    assert warm_up(found, Batch(x, y), random=generator(0), **settings) < before
