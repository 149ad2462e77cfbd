"""Training that runs away is told from training that jumps and comes down again."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch
from everlearn.core.monitor import Step
from everlearn.core.state import capture, restore
from everlearn.measure.instability import Instability


def fed(losses, **options):
    watch = Instability(**options)
    for loss in losses:
        watch.add(loss)
    return watch.figures()


def test_the_mean_of_the_newest_losses_is_held_against_the_first():
    assert fed([1.0, 0.5, 2.0, 1.4], steps=2) == {
        "unstable": True, "since": 3, "highest": 1.7, "initial": 1.0, "last": 1.4,
    }  # fmt: skip
    assert not fed([1.0, 0.5, 1.5, 0.5, 1.5], steps=2)["unstable"]  # means of 0.75 and 1: never above


def test_fifty_losses_above_are_needed_and_forty_nine_are_not_enough():
    assert fed([2.0] * 2 + [2.1] * 48)["since"] == 50  # the mean is above with the first full window, never before
    assert fed([2.0] + [2.1] * 48) == {"unstable": False, "since": None, "highest": None, "initial": 2.0, "last": 2.1}


def test_a_jump_that_comes_down_is_no_instability():
    jump = [5.0, 3.0, 1.5] + [0.5] * 97
    assert not fed([2.3] + [0.5] * 60 + jump * 3)["unstable"]


def test_a_loss_that_is_not_finite_counts_as_infinite():
    assert fed([1.0] + [0.1] * 60 + [math.nan])["since"] == 62


def test_losses_come_from_what_updates_report_and_the_state_goes_on():
    whole, half = Instability(steps=4), Instability(steps=4)
    losses = [1.0, 0.2, 0.3, 2.0, 2.0, 2.0]
    batch = Batch(torch.zeros(1, 1))
    for number, loss in enumerate(losses):
        step = Step(number, batch, None, {"loss": torch.tensor(loss)}, 0.0, 0.0)
        whole.observe(step, None)
        if number == 3:
            other = Instability(steps=4)
            restore(other, capture(half))
            half = other
        half.observe(step, None)
    half.observe(Step(9, batch, None, None, 0.0, 0.0), None)
    assert whole.figures() == half.figures() and whole.figures()["since"] == 5


def test_steps_must_be_a_count():
    with pytest.raises(ArgumentError, match="steps must be an int >= 1, got 0"):
        Instability(steps=0)
