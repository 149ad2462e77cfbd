"""Label shift: proportions that follow the Dirichlet draw, rows used up before they come again, changes where phases start."""

from collections import Counter
from itertools import pairwise

import numpy
import pytest
import torch
from scipy.stats import chi2

from everlearn.core.errors import ArgumentError
from everlearn.data.label_shift import draw_classes, label_shift, phase_of_rows, proportions


def phases_of(stream):
    starts = [0, *stream.changes, len(stream)]
    return [torch.cat([stream[event].y for event in range(low, high)]) for low, high in pairwise(starts)]


def distance(counts, shares):
    """Chi-squared of counts against shares, and its degrees of freedom; classes that expect under 5 rows join the least other."""
    order = numpy.argsort(-shares)
    counts, expected = counts[order], shares[order] * counts.sum()
    many = int((expected >= 5).sum())
    counts = numpy.append(counts[: many - 1], counts[many - 1 :].sum())
    expected = numpy.append(expected[: many - 1], expected[many - 1 :].sum())
    return ((counts - expected) ** 2 / expected).sum(), many - 1


def test_each_phase_follows_its_own_proportions(digits):
    """At the 99.99 % point for 12 phases; the control, the proportions of the next phase, fails in each of them."""
    for seed in range(3):
        stream = label_shift(digits, seed=seed)
        shares = proportions(10, "sudden", 4, 0.3, seed)
        for number, y in enumerate(phases_of(stream)):
            counts = numpy.bincount(y.numpy(), minlength=10)
            value, freedom = distance(counts, shares[number])
            assert value < chi2.ppf(0.9999, max(freedom, 1))
            control, freedom = distance(counts, shares[(number + 1) % 4])
            assert control > chi2.ppf(0.9999, max(freedom, 1))


def test_proportions_are_dirichlet():
    """Each share of a symmetric Dirichlet over K classes has mean 1 / K and variance (1 / K)(1 - 1 / K) / (K c + 1)."""
    for concentration in (0.3, 5.0):
        drawn = numpy.concatenate([proportions(10, "sudden", 4, concentration, seed) for seed in range(1000)])
        assert numpy.allclose(drawn.sum(1), 1.0)
        variance = 0.1 * 0.9 / (10 * concentration + 1)
        assert abs(drawn[:, 0].mean() - 0.1) < 4 * (variance / 4000) ** 0.5
        assert drawn.var() == pytest.approx(variance, rel=0.1)


def test_concentration_makes_phases_even_or_uneven(digits):
    def largest(concentration):
        return numpy.mean(
            [(y.bincount() / len(y)).max() for y in phases_of(label_shift(digits, concentration=concentration))]
        )

    assert largest(0.1) > largest(100.0) + 0.2


def test_recurring_goes_back_and_forth():
    shares = proportions(10, "recurring", 5, 0.3, 0)
    assert numpy.array_equal(shares[0], shares[2]) and numpy.array_equal(shares[1], shares[3])
    assert numpy.array_equal(shares[0], shares[4]) and not numpy.array_equal(shares[0], shares[1])


def test_gradual_slides_over_the_first_half_of_a_phase():
    """The share still drawn from the phase before, in fifths of the first half of phase 1: 0.9, 0.7, 0.5, 0.3, 0.1 (four
    deviations of sqrt(0.25 / 2000)); nothing after; phase 0 has no phase before."""
    source = phase_of_rows([20_000, 20_000], "gradual", 0)
    before = source[20_000:30_000].reshape(5, 2000) == 0
    assert numpy.allclose(before.mean(1), [0.9, 0.7, 0.5, 0.3, 0.1], atol=4 * (0.25 / 2000) ** 0.5)
    assert (source[30_000:] == 1).all() and (source[:20_000] == 0).all()
    assert (phase_of_rows([20_000, 20_000], "sudden", 0) == numpy.repeat([0, 1], 20_000)).all()


def test_kinds_give_different_streams(digits):
    def labels(kind):
        return torch.cat([event.y for event in label_shift(digits, kind=kind)])

    drawn = [labels(kind) for kind in ("sudden", "gradual", "recurring")]
    assert len({tuple(y.tolist()) for y in drawn}) == 3


def test_classes_are_drawn_from_shares():
    shares = numpy.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    labels = draw_classes(shares, numpy.repeat([0, 1], 4000), 0)
    assert (labels[4000:] == 2).all() and set(labels[:4000]) == {0, 1}
    assert abs(labels[:4000].mean() - 0.5) < 4 * (0.25 / 4000) ** 0.5


def test_rows_are_used_up_before_they_come_again(numbered):
    stream = label_shift(numbered([30, 50, 40]), batch=7, phases=3, seed=2)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for event in stream:
        for label, moment in zip(event.y.tolist(), event.time.tolist(), strict=True):
            seen[label].append(int(moment))
    for rows in seen.values():
        own = len(set(rows))
        for start in range(0, len(rows), own):
            assert max(Counter(rows[start : start + own]).values(), default=1) == 1
    assert sum(map(len, seen.values())) == 96
    judged = set(stream.held_out[0].x[:, 0].int().tolist())
    assert not judged & {row for rows in seen.values() for row in rows}


def test_changes_are_the_starts_of_phases_and_the_test_part_is_balanced(numbered):
    stream = label_shift(numbered([100, 60, 40]), batch=8, phases=5)
    assert len(stream.changes) == 4 and len(stream.checkpoints) == 5
    assert [len(y) for y in phases_of(stream)] == [32] * 5
    assert stream.held_out[0].y.bincount().tolist() == [8, 8, 8]
    assert 0 < stream.deployed < stream.changes[0]
    assert label_shift(numbered([100, 60, 40]), phases=1).changes == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "slow"}, "kind must be one of sudden, gradual, recurring, got 'slow'"),
        ({"phases": 0}, "phases must be an int >= 1"),
        ({"phases": 5000}, "5000 phases need as many rows, and digits has"),
        ({"concentration": 0.0}, "concentration must be a number >= 1e-06"),
        ({"batch": 0}, "batch must be an int >= 1"),
        ({"deployed": -0.1}, "deployed must be a number between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused(digits, options, words):
    with pytest.raises(ArgumentError, match=f"label_shift: {words}"):
        label_shift(digits, **options)
