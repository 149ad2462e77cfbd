"""Signals of collapse by hand, the window, and what is alarming."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.measure.collapse import CollapseWatch


def scores(*rows):
    """Scores whose softmax are the given probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_signals_by_hand():
    watch = CollapseWatch(window=4)
    assert watch.signals() == {} and watch.alarm() is None
    source = scores((0.8, 0.2), (0.6, 0.4), (0.3, 0.7), (0.1, 0.9))
    ours = scores((0.9, 0.1), (0.9, 0.1), (0.8, 0.2), (0.2, 0.8))
    watch.observe(ours, source)
    found = watch.signals()
    lost = -(0.45 * math.log(0.45) + 0.55 * math.log(0.55)) + 0.7 * math.log(0.7) + 0.3 * math.log(0.3)
    assert found["variety_lost"] == pytest.approx(lost / math.log(2))
    assert found["crowding"] == 0.75 - 0.5 and found["agreement"] == 0.75
    assert found["surer"] == pytest.approx((0.9 + 0.9 + 0.8 + 0.8) / 4 - (0.8 + 0.6 + 0.7 + 0.9) / 4)


def test_pixels_are_answers():
    rows, source = torch.randn(2, 24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, maps = CollapseWatch(), CollapseWatch()
    plain.observe(rows, source)
    maps.observe(*(value.view(2, 3, 4, 5).movedim(3, 1) for value in (rows, source)))
    assert maps.signals() == pytest.approx(plain.signals())


def test_the_window_holds_whole_batches_and_says_nothing_before_it_is_full():
    watch = CollapseWatch(window=10)
    even, crowded = torch.eye(4).repeat(2, 1), torch.eye(4)[torch.zeros(8, dtype=torch.int64)]
    watch.observe(9 * crowded, even)
    assert not watch.ready and watch.alarm() is None and watch.signals()["crowding"] == 0.75
    watch.observe(9 * crowded, even)
    assert watch.ready and "100% of the rows, 25% in the source" in watch.alarm()
    for _ in range(2):
        watch.observe(9 * even, even)
    assert len(watch.batches) == 2 and watch.alarm() is None
    watch.clear()
    assert watch.signals() == {}


def test_each_alarm_and_its_limit():
    def alarm(ours, source, **limits):
        watch = CollapseWatch(window=len(ours), **limits)
        watch.observe(ours, source)
        return watch.alarm()

    even = 3.0 * torch.eye(4).repeat(3, 1)
    turned = 6.0 * torch.eye(4).roll(1, 0).repeat(3, 1)  # as varied, surer, and never the source's answer
    assert "0% of the source's answers" in alarm(turned, even)
    assert alarm(turned, even, agreement=0.0) is None
    assert alarm(turned, 2 * turned.roll(1, 0)) is None  # not surer than the source
    one = 9.0 * torch.eye(4)[torch.zeros(12, dtype=torch.int64)]
    assert "most frequent" in alarm(one, even) and "entropy of its mean answer" in alarm(one, even, crowding=1.0)
    assert alarm(one, even, crowding=1.0, variety=1.0, agreement=0.0) is None
    assert alarm(one, one) is None  # rows that are of one class
    assert alarm(one * math.nan, even) == "its answers are not finite"
    assert alarm(torch.zeros(4, 1), torch.zeros(4, 1)) is None
    with pytest.raises(ArgumentError, match="variety must be a number between 0 and 1"):
        CollapseWatch(variety=2.0)
