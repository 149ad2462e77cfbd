"""The few-shot learner through its sessions: what stays, what moves, what each switch changes, and classes by name."""

import time

import pytest
import torch
from torch import nn

from everlearn.comparison.catalog import learners, values
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import isolated
from everlearn.core.spec import build, describe, parse
from everlearn.core.state import same
from everlearn.core.stream import Schema
from everlearn.data.views import Views
from everlearn.learners.few_shot import FewShot
from everlearn.learners.few_shot_session import tunable
from everlearn.learners.few_shot_tricks import Finetune
from everlearn.nn.networks import conv4
from everlearn.optim.optimizers import SGD, Adam

CLASSES = 6
SIDE = 8


def images(rows, classes, seed):
    """Blurred blobs of one channel, each class around a pattern of its own; (x uint8, y)."""
    random = torch.Generator().manual_seed(seed)
    patterns = torch.rand(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 200
    y = torch.tensor(list(classes)).repeat(-(-rows // len(list(classes))))[:rows]
    x = patterns[y] + 55 * torch.rand(rows, 1, SIDE, SIDE, generator=random)
    return x.to(torch.uint8), y


def encoder(seed=0):
    """A small convolutional network with batch norm."""
    with isolated(seed, "few-shot network"):
        return conv4(Schema((1, SIDE, SIDE), torch.uint8, tuple(map(str, range(CLASSES)))), widths=(4, 8))


BASE = images(24, range(3), 1)
FEW = [images(6, (3, 4), 2), images(3, (5,), 3)]
PROBE = torch.cat([images(12, range(CLASSES), 9)[0]])
EVENTS = [
    Boundary(0, (0, 1, 2), Batch(*BASE)),
    Batch(BASE[0][:12], BASE[1][:12]),
    Batch(BASE[0][12:], BASE[1][12:]),
    Boundary(1, (3, 4), Batch(*FEW[0])),
    Batch(*FEW[0]),
    Boundary(2, (5,), Batch(*FEW[1])),
    Batch(*FEW[1]),
]


def learner(**given):
    return FewShot(encoder(), **{"optimizer": SGD(lr=0.05), "projection": 8, "pretrain_batch": 8, **given})


@pytest.fixture
def taught(fold):
    def make(**given):
        return fold(learner(**given), EVENTS)

    return make


# ---- sessions -------------------------------------------------------------------------------------------------------------


def test_the_baseline_freezes_the_encoder_and_answers_with_class_means(fold):
    made = fold(learner(), EVENTS[:3])
    made.end_base()
    before = made.network.state_dict()
    old = {label: vector.clone() for label, vector in made.answers.classifier.prototypes.items()}
    fold(made, EVENTS[3:])
    assert same(dict(before), dict(made.network.state_dict()))
    prototypes = made.answers.classifier.prototypes
    assert all(torch.equal(prototypes[label], vector) for label, vector in old.items())
    h, y = made.network.embed(FEW[0][0]), FEW[0][1]
    assert torch.allclose(prototypes[4], h[y == 4].mean(0), atol=1e-6)
    assert made.answers.classifier.counts == [8, 8, 8, 3, 3, 3]  # rows that came twice, by boundary and batch, count once
    assert made.predict(PROBE).shape == (12, CLASSES) and made.session == 2


def test_batch_norm_and_old_prototypes_stay_while_a_session_tunes_the_encoder(fold):
    made = fold(learner(finetune=Finetune(lr=0.05, steps=5)), EVENTS[:3])
    made.end_base()
    statistics = {key: value.clone() for key, value in made.network.state_dict().items() if "running" in key}
    norms = [layer for layer in made.network.modules() if isinstance(layer, nn.BatchNorm2d)]
    affine = [layer.weight.detach().clone() for layer in norms]
    means, h = made.answers.classifier.means.clone(), made.network.embed(PROBE)
    fold(made, EVENTS[3:])
    after = made.network.state_dict()
    assert statistics and all(torch.equal(after[key], value) for key, value in statistics.items())
    assert all(torch.equal(layer.weight, value) for layer, value in zip(norms, affine, strict=True))
    assert not torch.equal(h, made.network.embed(PROBE))
    assert torch.equal(made.answers.classifier.means[:3], means)  # stale, for the old rows are gone


def test_a_subnet_of_nothing_is_the_frozen_baseline_and_one_of_everything_is_full_tuning(taught):
    given = Finetune(lr=0.02, steps=4, momentum=0.9, weight_decay=0.01)
    frozen, nothing = taught(), taught(subnet=0.0, finetune=given)
    everything, full = taught(subnet=1.0, finetune=given), taught(finetune=given)
    for first, second in ((frozen, nothing), (everything, full)):
        assert same(dict(first.network.state_dict()), dict(second.network.state_dict()))
        assert torch.equal(first.predict(PROBE), second.predict(PROBE))
    assert not torch.equal(frozen.predict(PROBE), full.predict(PROBE))


@pytest.mark.parametrize(
    "given", [Finetune(lr=0.02, momentum=0.9, weight_decay=0.1), Finetune(optimizer="adam", weight_decay=0.1)]
)
def test_a_subnet_moves_the_smallest_weights_only(fold, given):
    made = fold(learner(subnet=0.2, finetune=given), EVENTS[:3])
    made.end_base()

    def row():
        return torch.cat([weight.detach().flatten() for weight in tunable(made.network.body)])

    before = row()
    fold(made, EVENTS[3:])
    moved = row() != before
    assert int(made.mask.sum()) == round(0.2 * len(before))
    assert not bool((moved & ~made.mask).any()) and int(moved.sum()) > 0.5 * int(made.mask.sum())
    assert before[made.mask].abs().max() <= before[~made.mask].abs().min()


def test_a_subnet_alone_tunes_by_the_usual_values(taught):
    assert torch.equal(taught(subnet=0.3).predict(PROBE), taught(subnet=0.3, finetune=Finetune()).predict(PROBE))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 8.0},
        {"supcon": 0.5},
        {"prototypes": "etf"},
        {"prototypes": "spread"},
        {"pseudo_classes": "rotation2"},
        {"finetune": Finetune(lr=0.05)},
        {"subnet": 0.5},
        {"pretrain": 1},
        {"rotation": 0.5},
        {"calibrate": 0.5},
        {"average": "normalised"},
        {"head": "lda"},
        {"head": "linear"},
        {"augment": True},
        {"optimizer": Adam()},
        {"passes": 2},
        {"seed": 1, "supcon": 1.0},
    ],
    ids=str,
)
def test_every_switch_changes_the_answers(taught, change):
    assert not torch.allclose(taught().predict(PROBE), taught(**change).predict(PROBE), atol=1e-4)


@pytest.mark.parametrize(
    ("given", "change"),
    [
        ({"prototypes": "spread"}, {"predict_with": "assigned"}),
        ({"prototypes": "spread"}, {"prototype_loss": "dot_regression"}),
        ({"pseudo_classes": "rotation2"}, {"aggregate": False}),
        ({"supcon": 1.0}, {"classification": 0.0}),
        ({"supcon": 1.0}, {"temperature": 0.5}),
        ({"supcon": 1.0}, {"projection": 4}),
        ({"supcon": 1.0}, {"views": Views(scale=(0.3, 0.5))}),
        ({"predict_with": "assigned", "prototypes": "spread"}, {"finetune": Finetune(lr=0.05)}),
    ],
    ids=str,
)
def test_every_option_of_a_switch_changes_the_answers(taught, given, change):
    assert not torch.allclose(taught(**given).predict(PROBE), taught(**given | change).predict(PROBE), atol=1e-4)


def test_all_tricks_at_once(taught):
    assert torch.equal(
        taught(tricks="all", pretrain=1).predict(PROBE),
        taught(
            supcon=1.0,
            prototypes="spread",
            pseudo_classes="rotation2",
            finetune=Finetune(),
            subnet=0.1,
            pretrain=1,
            rotation=0.5,
        ).predict(PROBE),
    )


def test_later_rows_of_known_classes_count_only_where_they_are_to_refine(fold):
    x, y = images(4, (0,), 7)
    for refine, count in ((False, 8), (True, 12)):
        made = fold(learner(refine=refine), EVENTS[:4])
        made.boundary(Boundary(9))
        made.update(Batch(x, y))
        assert made.answers.classifier.counts[0] == count
    made = fold(learner(refine=True), EVENTS)
    assert made.answers.classifier.counts == [8, 8, 8, 3, 3, 3]  # the batch that repeats its boundary is passed over


def test_rows_of_new_classes_teach_as_they_come_where_no_boundary_brings_them(fold):
    made = fold(learner(), EVENTS[:3])
    made.boundary(Boundary(1))
    x, y = FEW[0]
    for row in range(len(y)):
        made.update(Batch(x[row : row + 1], y[row : row + 1]))
    whole = fold(learner(), EVENTS[:4])
    assert made.answers.known == [0, 1, 2, 3, 4]
    assert torch.allclose(made.predict(PROBE), whole.predict(PROBE), atol=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"tricks": "all", "pretrain": 1},
        {"head": "lda"},
        {"head": "linear"},
        {"prototypes": "etf", "predict_with": "assigned"},
    ],
    ids=str,
)
def test_continues_from_a_snapshot(continues, given):
    for cut in (EVENTS, EVENTS[:3], EVENTS[:5]):
        assert continues(lambda: learner(**given), cut)


def test_it_can_be_typed_and_told():
    text = "few_shot(supcon=0.5, finetune=finetune(lr=0.01), subnet=0.1)"
    call = parse(text)
    made = learners()["few_shot"](encoder(), **{key: build(value, values(), "value") for key, value in call.kwargs})
    assert describe(made) == text
    assert describe(FewShot(encoder(), tricks="all")) == "few_shot(tricks='all')"


# ---- direct use -----------------------------------------------------------------------------------------------------------


def test_fitting_is_the_fold_over_shuffled_batches():
    made = learner()
    made.fit_base(*BASE, epochs=3, batch=12)
    assert made.over and made.base.learned == 72 and made.descent.steps == 6 and made.base.memory.stored == 0
    with pytest.raises(InputError, match="has begun already"):
        made.fit_base(*BASE, epochs=1)


def test_classes_come_and_go_by_name(fold):
    made = fold(learner(), EVENTS)
    before, vectors = made.predict(PROBE), made.answers.classifier.means.clone()
    x, _ = images(5, (2,), 5)
    assert made.add_class(255 - x, "negative") == CLASSES
    assert made.add_class(x.flip(2), "mirror") == CLASSES + 1
    scores = made.predict(255 - x)
    assert scores.shape == (5, CLASSES + 2) and scores.argmax(1).tolist() == [CLASSES] * 5
    assert torch.equal(made.answers.classifier.means[:CLASSES], vectors)
    assert torch.allclose(made.predict(PROBE)[:, :CLASSES], before, atol=1e-5)
    assert made.classes == [0, 1, 2, 3, 4, 5, "negative", "mirror"] and made.number("mirror") == 7
    made.refresh_class(x, "negative")
    assert torch.allclose(made.answers.classifier.prototypes[6], made.network.embed(x).mean(0), atol=1e-6)
    made.remove_class("negative")
    made.remove_class(0)
    assert made.classes == [1, 2, 3, 4, 5, "mirror"] and not bool((made.predict(PROBE).argmax(1) == 0).any())
    with pytest.raises(InputError, match="no class 'negative'; there are 1, 2"):
        made.number("negative")
    assert made.add_class(x, "again") == 0  # the first number that is free


def test_what_was_added_goes_on_elsewhere(fold):
    made, other = fold(learner(), EVENTS), learner()
    made.add_class(images(5, (2,), 5)[0], "extra")
    other.load_state_dict(made.state_dict())
    assert torch.equal(made.predict(PROBE), other.predict(PROBE)) and other.number("extra") == CLASSES
    other.update(Batch(PROBE[:1], torch.tensor([CLASSES])))  # the wider range of labels is known there too


def test_a_class_of_many_rows_and_of_one_is_the_mean_whatever_the_order(fold):
    made = fold(learner(), EVENTS[:4])
    x, _ = images(7, (5,), 4)
    made.adapt(x, torch.full((7,), 5))
    first = made.answers.classifier.prototypes[5]
    made.refresh_class(x[torch.tensor([3, 1, 6, 0, 2, 5, 4])], 5)
    assert torch.allclose(first, made.answers.classifier.prototypes[5], atol=1e-6)


def test_a_session_that_names_a_known_class_is_refused_unless_it_is_to_update(fold):
    made = fold(learner(), EVENTS[:4])
    x, y = images(4, (4, 5), 8)
    before = made.state_dict()
    with pytest.raises(InputError, match=r"y names classes that are known already \(4\). Use update=True"):
        made.adapt(x, y)
    assert same(before, made.state_dict())
    made.adapt(x, y, update=True)
    assert made.answers.classifier.counts == [8, 8, 8, 3, 5, 2]


def test_memory_per_class(fold):
    assert fold(learner(), EVENTS).bytes_per_class == 8 * 8  # float64 numbers
    assert fold(learner(pseudo_classes="rotation4"), EVENTS).bytes_per_class == 4 * 8 * 8


def test_an_encoder_that_was_trained_elsewhere_needs_no_base_session():
    made = learner()
    for label in ("cup", "hat"):
        made.add_class(images(5, (len(label) + made.session) % 3 * torch.ones(1).long(), 2)[0], label)
    assert made.classes == ["cup", "hat"] and (made.predict(PROBE)[:, 2:] < -1e8).all()
    made.call(["first"])
    assert made.number("first") == 0


def test_refusals(fold):
    made = fold(learner(), EVENTS[:4])
    before = made.state_dict()
    x, y = images(4, (5,), 8)
    cases = [
        (lambda: made.boundary(Boundary(2, (4, 5), Batch(x, y))), r"classes 4 are announced, and data holds no row"),
        (lambda: made.update(Batch(x, torch.full((4,), CLASSES))), "label 6 is out of range"),
        (lambda: made.adapt(x[:0], y[:0]), "x must hold at least one row"),
        (lambda: made.add_class(x[:0]), "x must hold at least one row"),
        (lambda: made.add_class(x, 4), "class 4 is known already"),
        (lambda: made.add_class(x, 1.5), "label must be a name or a number"),
        (lambda: made.refresh_class(x, "cup"), "no class 'cup'"),
        (lambda: made.remove_class(5), "no class 5"),
        (lambda: made.predict(x.float()), "dtype"),
    ]
    for call, says in cases:
        with pytest.raises(InputError, match=says):
            call()
    assert same(before, made.state_dict())
    with pytest.raises(InputError, match="pseudo_classes='colour3'"):
        learner(pseudo_classes="colour3").boundary(EVENTS[0])
    with pytest.raises(InputError, match="rotation"):
        FewShot(nn.Linear(4, 3), rotation=0.5).update(Batch(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(InputError, match="prototypes: 1 are needed"):
        full = fold(learner(prototypes="spread"), EVENTS)
        full.add_class(x)
    with pytest.raises(ArgumentError, match="last linear layer"):
        FewShot(nn.ReLU())


def test_a_class_is_added_from_five_images_within_a_blink():
    """On 32x32 colour images with the usual small network: 50 ms at most, the median of several."""
    network = conv4(Schema((3, 32, 32), torch.uint8, tuple(map(str, range(60)))))
    made = FewShot(network)
    x = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    times = []
    for number in range(9):
        start = time.perf_counter()
        made.add_class(x, f"class {number}")
        times.append(time.perf_counter() - start)
    print(f"{1000 * sorted(times)[4]:.1f} ms")
    assert sorted(times)[4] <= 0.05
