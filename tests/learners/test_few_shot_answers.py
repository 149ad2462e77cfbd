"""The answers of a few-shot learner: each head against what it stands for, calibration, matching, and classes that go."""

import pytest
import torch

from everlearn.core.errors import InputError
from everlearn.core.events import Batch
from everlearn.learners.few_shot_answers import UNSEEN, Answers
from everlearn.learners.few_shot_network import Recognizer
from everlearn.learners.streaming_lda import StreamingLDA
from everlearn.nn.prototypes import calibrated, directions, simplex_etf
from everlearn.nn.pseudo_classes import PseudoClasses

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3


@pytest.fixture
def answers(network):
    def make(outputs=5, kind="cosine", prototypes=None, pseudo=None, **given):
        made = Recognizer("few_shot", network(classes=outputs), outputs, scale=16.0, kind=kind)
        if prototypes is not None:
            made.fix(prototypes)
        settings = {"scale": 16.0, "average": "raw", "head": "means", "predict_with": "means", "calibrate": None}
        return Answers(made, PseudoClasses(pseudo), outputs, **{"aggregate": True, **settings, **given})

    return make


def test_means_answer_among_the_known(answers):
    made = answers()
    assert torch.equal(made.scores(X), torch.full((24, 5), UNSEEN))
    made.take(*made.embed(X, Y))
    h = made.network.embed(X)
    means = torch.stack([h[label == Y].mean(0) for label in range(3)])
    scores = made.scores(X)
    assert torch.allclose(scores[:, :3], 16.0 * directions(h) @ directions(means).T, atol=1e-4)
    assert (scores[:, 3:] == UNSEEN).all() and made.known == [0, 1, 2]


def test_linear_discriminants_are_those_of_the_streaming_learner(answers):
    made = answers(head="lda")
    twin = StreamingLDA(None, classes=5, features="input")
    for part in (slice(0, 11), slice(11, 24)):
        made.take(*made.embed(X[part], Y[part]))
        twin.update(Batch(made.network.embed(X[part]), Y[part]))
    assert torch.allclose(made.scores(X)[:, :3], twin.predict(made.network.embed(X))[:, :3].float())
    made.grow_to(7)
    assert made.scores(X).shape == (24, 7)
    made.take(*made.embed(X[:4] + 9.0, torch.full((4,), 6)))
    assert made.scores(X[:4] + 9.0).argmax(1).tolist() == [6] * 4
    made.forget(6)
    assert (made.scores(X)[:, 6] == UNSEEN).all()


def test_a_linear_classifier_answers_among_the_known_and_cannot_grow(answers):
    made = answers(kind="linear", head="linear")
    made.take(*made.embed(X, Y))
    wanted = made.network.scores(made.network.embed(X)).detach()
    assert torch.equal(made.scores(X)[:, :3], wanted[:, :3]) and (made.scores(X)[:, 3:] == UNSEEN).all()
    with pytest.raises(InputError, match="head='linear' has 5 outputs"):
        made.grow_to(6)


def test_calibration_draws_later_classes_only(answers):
    plain, drawn = answers(), answers(calibrate=0.5)
    for made in (plain, drawn):
        made.take(*made.embed(X[Y < 2], Y[Y < 2]))
        made.base = [0, 1]
        made.take(*made.embed(X[Y == 2], Y[Y == 2]))
    old = plain.vectors[1]
    wanted = directions(calibrated(old[2:], old[:2], 0.5, 16.0))
    assert torch.allclose(drawn.vectors[1], torch.cat([old[:2], wanted]), atol=1e-6)
    assert torch.equal(plain.classifier.means, drawn.classifier.means)  # what is stored stays the mean


def test_assigned_prototypes_answer_in_the_place_of_means(answers):
    made = answers(kind="fixed", prototypes=simplex_etf(5, 7), predict_with="assigned")
    means = made.means(X, Y, [0, 1, 2])
    made.match([0, 1, 2], means)
    places = made.places[:3]
    assert len(set(places.tolist())) == 3 and made.places[3:].tolist() == [-1, -1]
    made.take(*made.embed(X, Y))
    wanted = 16.0 * directions(made.network.embed(X)) @ made.network.fixed[places].T
    assert torch.allclose(made.scores(X)[:, :3], wanted, atol=1e-4)


def test_later_classes_take_what_is_left_until_nothing_is(answers):
    made = answers(outputs=4, kind="fixed", prototypes=simplex_etf(4, 7))
    made.match([2, 0], None)
    assert made.places.tolist() == [0, -1, 2, -1]
    made.match([3], made.network.fixed[1:2] + 0.01)
    assert made.places.tolist() == [0, -1, 2, 1]
    made.grow_to(6)
    with pytest.raises(InputError, match="prototypes: 2 are needed for 2 classes, and 1 of the 4 reserved are left"):
        made.match([1, 5], None)
    made.match([5], None)
    assert made.places.tolist() == [0, -1, 2, 1, -1, 3]


def test_a_class_without_rows_is_its_vector(answers):
    made = answers()
    made.hold(3)
    assert torch.allclose(made.vectors[1], directions(made.network.weight[3:4]), atol=1e-6) and made.known == [3]


def test_pseudo_classes_are_asked_together_or_not(network):
    images = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 2
    results = []
    for aggregate in (True, False):
        made = Recognizer("few_shot", torch.nn.Sequential(torch.nn.Flatten(), network(inputs=4)), 6, scale=16.0)
        settings = {"scale": 16.0, "average": "raw", "head": "means", "predict_with": "means", "calibrate": None}
        answers = Answers(made, PseudoClasses("rotation2"), 3, aggregate=aggregate, **settings)
        answers.take(*answers.embed(images, y))
        assert answers.classifier.labels == [0, 1, 2, 3] and answers.known == [0, 1]
        results.append(answers.scores(images))
        prototypes = answers.classifier.prototypes

        def cosine(x, number, made=made, prototypes=prototypes):
            return 16 * directions(made.embed(x)) @ directions(prototypes[number][None]).T

        wanted = cosine(images, 2)
        if aggregate:
            wanted = (wanted + cosine(torch.rot90(images, 2, (2, 3)), 3)) / 2
        assert torch.allclose(results[-1][:, 1:2], wanted, atol=1e-4)
    assert not torch.allclose(results[0][:, :2], results[1][:, :2], atol=1e-3)
    assert (results[0][:, 2] == UNSEEN).all()


def test_copies_know_no_class_and_share_the_matching(answers):
    made = answers(kind="fixed", prototypes=simplex_etf(5, 7))
    made.match([1], None)
    made.take(*made.embed(X[Y == 1], Y[Y == 1]))
    other = made.copied()
    assert other.known == [] and torch.equal(other.places, made.places)
    other.match([2], None)
    assert made.places[2] == -1
