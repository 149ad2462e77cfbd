"""Wrong labels: how many, which, where, and that held-out rows keep theirs."""

import pytest
import torch

from everlearn.comparison.building import build_stream
from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch
from everlearn.data.delayed import delayed
from everlearn.data.load import load
from everlearn.data.noisy import noisy, wrong_labels
from everlearn.data.split import split


@pytest.mark.parametrize("share, count", [(0.0, 0), (0.2, 1000), (1.0, 5000)])
def test_the_share_is_exact_and_no_label_stays_by_chance(share, count):
    y = torch.arange(5000) % 10
    assert int((wrong_labels(y, 10, share, seed=3) != y).sum()) == count


def test_each_other_class_is_as_likely():
    """9000 draws over 9 classes: 1000 each, standard deviation below 30; five of them are allowed."""
    found = wrong_labels(torch.full((9000,), 4), 10, 1.0, seed=0).bincount(minlength=10)
    assert found[4] == 0
    assert (found[torch.arange(10) != 4] - 1000).abs().max() < 150


def test_a_seed_draws_the_same_rows_and_another_one_others():
    y = torch.arange(100) % 4
    first, again, other = (wrong_labels(y, 4, 0.3, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_data_set_keeps_its_held_out_labels():
    digits = load("digits")
    spoiled = noisy(digits, labels=0.5, seed=1)
    assert torch.equal(spoiled.test_y.bincount(), noisy(digits, labels=0.0, seed=1).test_y.bincount())
    clean = noisy(digits, labels=0.0, seed=1)
    assert torch.equal(spoiled.x, clean.x) and torch.equal(spoiled.test_y, clean.test_y)
    assert (spoiled.y != clean.y).float().mean().item() == pytest.approx(0.5, abs=1e-3)
    again = noisy(spoiled, labels=0.5, seed=2)  # its test part stands already
    assert torch.equal(again.test_x, spoiled.test_x) and len(again) == len(spoiled)


def labels_by_row(stream):
    found = {}
    for event in stream:
        if isinstance(event, Batch):
            for x, y in zip(event.x, event.y.tolist(), strict=True):
                found.setdefault(x.numpy().tobytes(), set()).add(y)
    return found


def test_a_scenario_gives_a_row_the_same_wrong_label_each_time_and_leaves_the_rest_alone():
    plain = split(load("digits"), epochs=2, seed=0)
    spoiled = noisy(plain, labels=0.3, seed=0)
    assert spoiled.name == "noisy(split(digits, epochs=2), labels=0.3)"
    told, true = labels_by_row(spoiled), labels_by_row(plain)
    assert all(len(labels) == 1 for labels in told.values())
    wrong = sum(told[row] != true[row] for row in true) / len(true)
    assert wrong == pytest.approx(0.3, abs=0.01)
    for mine, theirs in zip(spoiled.held_out, plain.held_out, strict=True):
        assert torch.equal(mine.y, theirs.y)
    assert labels_by_row(plain) == true  # the stream that was given is as it was


def test_it_can_be_typed_on_either_side_of_a_scenario():
    outer, inner = build_stream("noisy(split(digits), labels=0.4)", 1), build_stream("split(noisy(digits, labels=0.4))", 1)
    assert len(outer.held_out) == len(inner.held_out) == 5
    classes = [set(inner[0].classes), set(outer[0].classes)]
    assert classes[0] >= {int(label) for event in (inner[1], inner[2]) for label in event.y}
    assert not classes[1] >= {int(label) for number in range(1, 20) for label in outer[number].y}


def test_what_cannot_be_spoiled_is_refused():
    with pytest.raises(ArgumentError, match=r"labels must be a number between 0 and 1, got 1\.5"):
        noisy(load("digits"), labels=1.5)
    with pytest.raises(ArgumentError, match=r"got delayed\(.*Put noisy inside it"):
        noisy(delayed(split(load("digits"))))
    with pytest.raises(ArgumentError, match="test must lie between 0 and 1"):
        noisy(load("digits"), test=0.0)
    with pytest.raises(ArgumentError, match="no other class"):
        wrong_labels(torch.zeros(5, dtype=torch.int64), 1, 0.5, 0)
