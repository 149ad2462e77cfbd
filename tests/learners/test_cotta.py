"""CoTTA beside the published loop, the way back to the source, and the averaged teacher."""

import copy
from unittest.mock import patch

import pytest
import torch
from torch import nn

from everlearn import Batch, Boundary, CoTTA
from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.core.state import capture, same
from everlearn.data.gentle_views import GentleViews
from everlearn.learners.adaptation import by_statistics
from everlearn.nn.batch_statistics import by_batch, normalised


def network(seed=0, maps=False):
    torch.manual_seed(seed)
    body = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(4, 5, 1)) if maps else nn.Sequential(*body, nn.Flatten(), nn.Linear(144, 5))


def batches(count, rows=12):
    random = torch.Generator().manual_seed(1)
    return [torch.rand(rows, 1, 6, 6, generator=random) for _ in range(count)]


def published(student, xs, decay=0.999, symmetric=False):
    """The loop of the authors' code where the source is sure: student, teacher, no views, no way back."""
    for model in (student, teacher := copy.deepcopy(student)):
        model[1].track_running_stats, model[1].running_mean, model[1].running_var = False, None, None
    optimizer, answers = torch.optim.Adam(student.parameters(), lr=1e-3), []
    for x in xs:
        own, told = student(x), teacher(x).detach()
        loss = -(told.softmax(1) * own.log_softmax(1)).sum(1)
        if symmetric:
            loss = 0.5 * loss - 0.5 * (own.softmax(1) * told.log_softmax(1)).sum(1)
        optimizer.zero_grad()
        loss.mean(0).backward()
        optimizer.step()
        for mean, value in zip(teacher.parameters(), student.parameters(), strict=True):
            mean.data = decay * mean.data + (1 - decay) * value.data
        answers.append(told)
    return answers


@pytest.mark.parametrize("symmetric", [False, True])
def test_it_is_the_published_loop(symmetric):
    """A quick teacher (0.9), so that what the student learned shows in the answers."""
    arguments = {"decay": 0.9, "augmentations": 0, "restore": 0.0}
    learner, control = CoTTA(network(), symmetric=symmetric, **arguments), CoTTA(network(), **{**arguments, "decay": 0.99})
    for x, scores in zip(batches(20), published(network(), batches(20), 0.9, symmetric), strict=True):
        torch.testing.assert_close(learner.adapt(x), scores, rtol=1e-5, atol=1e-5)
        other = control.adapt(x)
    assert (other - scores).abs().max() > 1e-3


def test_with_certain_restoring_the_student_stays_at_the_source():
    learner, free = CoTTA(network(), restore=1.0, augmentations=0), CoTTA(network(), restore=0.0, augmentations=0)
    before = capture(learner.adaptation.model)
    for x in batches(4):
        learner.adapt(x)
        free.adapt(x)
    assert learner.adaptation.steps == 4
    assert same(before, capture(learner.adaptation.model)) and not same(before, capture(free.adaptation.model))


def test_weights_go_back_as_often_as_told():
    """1,000 and more weights at a quarter: within four deviations of the binomial."""
    learner = CoTTA(network(), restore=0.25, augmentations=0)
    learner.adapt(batches(1)[0])
    pairs = zip(learner.adaptation.weights, learner.adaptation.origin, strict=True)
    back = torch.cat([(weight == first).flatten() for weight, first in pairs])
    moved = CoTTA(network(), restore=0.0, augmentations=0)
    moved.adapt(batches(1)[0])
    pairs = zip(moved.adaptation.weights, moved.adaptation.origin, strict=True)
    still = torch.cat([(weight == first).flatten() for weight, first in pairs])  # weights without a gradient
    share, count = back[~still].double().mean().item(), int((~still).sum())
    assert count > 500 and abs(share - 0.25) < 4 * (0.25 * 0.75 / count) ** 0.5
    learner.adapt(batches(2)[1])  # others go back at the next step: a quarter of a quarter does both times
    pairs = zip(learner.adaptation.weights, learner.adaptation.origin, strict=True)
    again = torch.cat([(weight == first).flatten() for weight, first in pairs])
    both = (back & again)[~still].double().mean().item()
    assert abs(both - 0.0625) < 4 * (0.0625 * 0.9375 / count) ** 0.5


def test_where_the_source_is_unsure_answers_are_means_over_views():
    x = batches(1)[0]
    learner = CoTTA(network(), augmentations=3, confidence=1.0, seed=5)
    metrics = learner.update(Batch(x))
    assert metrics["averaged"] == 1 and 0.2 < metrics["confidence"] < 1.0
    fresh = CoTTA(network(), augmentations=3, confidence=1.0, seed=5)
    random, views = generator(5, "views", 0), GentleViews()
    with normalised(network(), by_batch()) as model, torch.no_grad():
        wanted = sum(model(views(x, random)) for _ in range(3)) / 3
    torch.testing.assert_close(fresh.adapt(x), wanted)
    sure = CoTTA(network(), augmentations=3, confidence=0.0)
    assert sure.update(Batch(x))["averaged"] == 0
    assert not torch.allclose(CoTTA(network(), augmentations=0).adapt(x), wanted)
    assert CoTTA(network(), augmentations=0).update(Batch(x))["averaged"] == 0


def test_a_reset_takes_the_teacher_back_too():
    learner = CoTTA(network(), augmentations=0, lr=0.01, decay=0.5)
    first = [learner.adapt(x) for x in batches(4)]
    assert not torch.equal(learner.predict(batches(1)[0]), first[0])
    learner.reset()
    assert torch.equal(learner.predict(batches(1)[0]), first[0])


def test_the_source_alone_tells_whether_to_average():
    x = batches(1)[0]
    learner = CoTTA(network(), augmentations=3, confidence=0.92)
    first = learner.update(Batch(x))
    with torch.no_grad():
        learner.teacher[-1].weight.mul_(1000.0)
    assert by_statistics(learner.teacher, x).softmax(1).amax(1).mean() > 0.92 > first["confidence"]
    told = learner.update(Batch(x))
    assert told["averaged"] == 1 and told["confidence"] == first["confidence"]


def test_views_of_maps_leave_pixels_in_place():
    learner, seen = CoTTA(network(maps=True), augmentations=3, confidence=1.0), []
    plain = GentleViews.__call__
    with patch.object(GentleViews, "__call__", lambda self, x, random: (seen.append(self.moved), plain(self, x, random))[1]):
        assert learner.adapt(batches(1)[0]).shape == (12, 5, 6, 6)
    assert seen == [True, False, False, False]  # the first shows what the answers are, and is not used


def test_switches_change_what_is_learned_and_said():
    def after(**arguments):
        learner = CoTTA(network(), **{"augmentations": 2, "decay": 0.9, "confidence": 1.0, **arguments})
        for number, x in enumerate(batches(4)):
            if number == 3:
                learner.boundary(Boundary(1))
            learner.adapt(x)
        return learner.predict(batches(1)[0])

    plain = after()
    for switch in (
        *({"augmentations": 0}, {"augmentations": 3}, {"confidence": 0.0}, {"restore": 0.0}, {"decay": 0.5}),
        *({"symmetric": True}, {"method": "sgd"}, {"views": GentleViews(degrees=90.0)}, {"reset_at_boundaries": True}),
    ):
        assert not torch.equal(after(**switch), plain), switch
    with pytest.raises(ArgumentError, match=r"views must be gentle\(\.\.\.\)"):
        CoTTA(network(), views=None)
