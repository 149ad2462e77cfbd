"""The loss of the base session: each part against a slow twin, and refusals of rows that a part cannot be made of."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from everlearn.core.errors import InputError
from everlearn.core.random import generator
from everlearn.data.views import Viewer, Views
from everlearn.learners.few_shot_loss import BaseLoss
from everlearn.learners.few_shot_network import Recognizer
from everlearn.nn.losses import supervised_contrastive_loss
from everlearn.nn.prototypes import simplex_etf
from everlearn.nn.pseudo_classes import PseudoClasses, turned
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD

CLASSES = 4
PLAIN = {"supcon": 0.0, "rotation": 0.0, "classification": 1.0, "temperature": 0.1, "regression": False, "augment": False}


def network(pseudo=None, kind="cosine"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 32), nn.ReLU(), nn.Linear(32, CLASSES)).double()
    outputs = CLASSES * len(PseudoClasses(pseudo))
    made = Recognizer("few_shot", model, outputs, scale=16.0, kind=kind, projection=8, rotation=True)
    if kind == "fixed":
        made.fix(simplex_etf(outputs, 32))
    return made


X = torch.rand(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def step(made, pseudo=None, columns=range(3), places=None, views=Views(), seed=0, **given):
    """The metrics of one step, and the viewer as it stood before."""
    viewer = Viewer("few_shot", views, generator(seed))
    loss = BaseLoss(made, PseudoClasses(pseudo), viewer, **(PLAIN | given))
    places = torch.arange(len(made.vectors)) if places is None else places
    return loss(Descent(made, SGD(lr=0.1)), X, Y, torch.tensor(list(columns)), places)


def test_classes_that_have_not_come_do_not_compete():
    made = network()
    with torch.no_grad():
        wanted = cross_entropy(made.scores(made.features(X))[:, :3], Y).item()
    weight = made.weight.detach().clone()
    found = step(made)
    assert set(found) == {"loss", "classification"}
    assert found["loss"].item() == pytest.approx(wanted, rel=1e-12)
    assert (made.weight != weight).any(1).tolist() == [True, True, True, False]


def test_all_parts_against_a_slow_twin():
    made, pseudo = network("rotation2"), PseudoClasses("rotation2")
    given = {"supcon": 0.7, "rotation": 0.3, "classification": 0.9, "temperature": 0.2}
    viewer = Viewer("few_shot", Views(), generator(0))
    rows, fine = pseudo(X), torch.tensor([2 * int(label) + k for label in Y for k in (0, 1)])
    seen = viewer(rows)
    quarters = torch.randint(4, (6,), generator=viewer.random)
    with torch.no_grad():
        both, labels = torch.cat([made.features(rows), made.features(seen.double())]), torch.cat([fine, fine])
        cosines = 16.0 * normalize(both, dim=1) @ normalize(made.weight, dim=1).T
        first = cross_entropy(cosines[:, :6], labels)
        second = supervised_contrastive_loss(made.projected(both), labels, 0.2)
        third = cross_entropy(made.rotation(made.features(turned(X, quarters))), quarters)
    found = step(made, "rotation2", columns=range(6), **given)
    parts = (found["classification"], found["contrast"], found["rotation"])
    assert [part.item() for part in parts] == pytest.approx([first.item(), second.item(), third.item()], rel=1e-9)
    assert found["loss"].item() == pytest.approx((0.9 * first + 0.7 * second + 0.3 * third).item(), rel=1e-9)


def test_fixed_prototypes_are_approached_and_all_of_them_compete():
    made = network(kind="fixed")
    places = torch.tensor([3, 1, 0, -1])
    h = made.features(X).detach()
    cosines = normalize(h, dim=1) @ normalize(made.fixed, dim=1).T
    targets = torch.tensor([3, 1, 0, 3, 1, 0])
    own = cosines[range(6), targets]
    assert step(made, places=places)["loss"].item() == pytest.approx(cross_entropy(16 * cosines, targets).item(), rel=1e-9)
    found = step(network(kind="fixed"), places=places, regression=True)["loss"].item()
    assert found == pytest.approx(10 * ((own - 1) ** 2 / 2).mean().item(), rel=1e-5)  # lengths carry an epsilon of 1e-6


def weights(made):
    return torch.cat([weight.detach().flatten() for weight in made.parameters()])


@pytest.mark.parametrize(
    "change",
    [
        {"supcon": 1.0},
        {"rotation": 0.5},
        {"classification": 0.5},
        {"augment": True},
        {"supcon": 1.0, "temperature": 0.5},
        {"supcon": 1.0, "views": Views(jitter=0.0)},
        {"supcon": 1.0, "seed": 1},
    ],
    ids=str,
)
def test_every_part_moves_the_weights_otherwise(change):
    first, second = network(), network()
    step(first, **({"supcon": 1.0} if len(change) > 1 else {}))
    step(second, **change)
    assert not torch.equal(weights(first), weights(second))


def test_contrast_alone_leaves_the_classifier_as_it_is():
    made = network()
    before = made.weight.detach().clone()
    assert set(step(made, classification=0.0, supcon=1.0)) == {"loss", "contrast"}
    assert torch.equal(before, made.weight)


def test_rows_that_cannot_be_turned_are_refused():
    loss = BaseLoss(network(), PseudoClasses(), Viewer("few_shot", None, generator(0)), **(PLAIN | {"rotation": 0.5}))
    with pytest.raises(InputError, match=r"rotation=0.5 needs square images, got rows of \(5,\)"):
        loss.check(torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"rotation=0.5 needs square images, got rows of \(3, 4, 6\)"):
        loss.check(torch.zeros(2, 3, 4, 6))
    loss.check(X)
    coloured = BaseLoss(network(), PseudoClasses("colour3"), Viewer("few_shot", None, generator(0)), **PLAIN)
    with pytest.raises(InputError, match="pseudo_classes='colour3'"):
        coloured.check(torch.zeros(2, 1, 8, 8))
