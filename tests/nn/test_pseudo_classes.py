"""Pseudo-classes: which transforms a name stands for, their labels, and how their scores are put together."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.nn.pseudo_classes import NAMES, PseudoClasses, turned

COUNTS = {"rotation2": 2, "rotation4": 4, "colour3": 3, "colour6": 6, "rotation2_colour3": 6, "rotation2_colour6": 12}
COUNTS |= {"rotation4_colour3": 12, "rotation4_colour6": 24}


def image(channels=3, side=4, rows=2):
    return torch.randint(256, (rows, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_every_name_is_known():
    assert set(NAMES) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_the_transforms_differ_begin_with_the_row_itself_and_keep_its_pixels(name):
    pseudo, x = PseudoClasses(name), image()
    assert len(pseudo) == COUNTS[name]
    found = pseudo(x).view(2, COUNTS[name], -1)
    assert torch.equal(found[:, 0], x.flatten(1)) and pseudo(x).dtype == x.dtype
    assert len({tuple(row) for row in found[1].tolist()}) == COUNTS[name]
    assert all(sorted(row) == sorted(x[1].flatten().tolist()) for row in found[1].tolist())


def test_transforms_by_hand():
    x = torch.arange(12).view(1, 3, 2, 2)
    half = PseudoClasses("rotation2")(x)[1]
    assert half[0].tolist() == [[3, 2], [1, 0]]
    cyclic = PseudoClasses("colour3")(x)
    assert cyclic[1].tolist() == x[0, [1, 2, 0]].tolist() and cyclic[2].tolist() == x[0, [2, 0, 1]].tolist()


def test_labels():
    pseudo = PseudoClasses("rotation4")
    assert pseudo.labels(torch.tensor([0, 3])).tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    assert PseudoClasses().labels(torch.tensor([5, 1])).tolist() == [5, 1]


def test_aggregation_by_hand_and_by_a_slow_twin():
    pseudo = PseudoClasses("rotation2")
    assert pseudo.aggregate(torch.arange(24.0).view(4, 6)).tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    pseudo, scores = PseudoClasses("colour3"), torch.randn(5 * 3, 4 * 3)
    slow = [[sum(scores[i * 3 + k, c * 3 + k] for k in range(3)) / 3 for c in range(4)] for i in range(5)]
    assert torch.allclose(pseudo.aggregate(scores), torch.tensor(slow), atol=1e-6)


def test_without_a_name_rows_of_any_kind_stay_as_they_are():
    x = torch.randn(3, 5)
    assert PseudoClasses()(x) is x and len(PseudoClasses()) == 1
    assert torch.equal(PseudoClasses().aggregate(x), x)


def test_each_image_is_turned_by_its_own_quarters():
    x = image(rows=8)
    quarters = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    found = turned(x, quarters)
    for row, quarter in enumerate(quarters.tolist()):
        assert torch.equal(found[row], torch.rot90(x[row], quarter, (1, 2)))


def test_refusals():
    with pytest.raises(ArgumentError, match="unknown pseudo_classes 'rotate2'; did you mean 'rotation2'"):
        PseudoClasses("rotate2")
    with pytest.raises(InputError, match=r"pseudo_classes='colour3' changes the order of three colours, got images of 1"):
        PseudoClasses("colour3")(image(1))
    with pytest.raises(InputError, match=r"pseudo_classes='rotation2' needs images .*, got rows of \(5,\)"):
        PseudoClasses("rotation2")(torch.zeros(2, 5))
    oblong = torch.zeros(1, 3, 4, 6)
    with pytest.raises(InputError, match="'rotation4' needs square images, got 4x6"):
        PseudoClasses("rotation4")(oblong)
    assert PseudoClasses("rotation2")(oblong).shape == (2, 3, 4, 6)
