"""The contract of monitors, and that their state is part of the fold."""

import dataclasses

import pytest
import torch

from everlearn import Batch, Budget, Monitor
from everlearn.core.monitor import Step
from everlearn.core.run import Fold
from everlearn.core.state import capture, restore, same


def test_a_monitor_without_its_methods_cannot_be_made():
    class Half(Monitor):
        name = "half"
        parts = ()

    with pytest.raises(TypeError, match=r"figures.*judge.*observe.*record.*start.*wants_prediction"):
        Half()


def test_a_step_cannot_be_changed():
    step = Step(0, Batch(torch.zeros(1, 1)), None, None, 0.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.position = 1


def test_the_state_of_a_fold_is_all_it_needs_to_go_on(clouds, replay, tally):
    stream = clouds(20, boundaries=True)
    first, second = (Fold(replay(seed), stream, Budget(labels=100), [tally()]) for seed in (0, 0))
    for index in range(8):
        first.step(stream[index])
    first.judge()
    first.record()
    for index in (3, 1):
        second.step(stream[index])
    state = capture(first)
    restore(second, state)
    assert second.position == 8 and second.judged == 1 and second.curve == first.curve
    for fold in (first, second):
        for index in range(fold.position, 20):
            fold.step(stream[index])
        fold.judge()
        fold.record()
        fold.meter.seconds = 0.0  # the clock's, not the fold's
    assert same(capture(first), capture(second)) and first.monitors[0].figures() == second.monitors[0].figures()
    assert not same(capture(first), state)


def test_a_curve_has_no_point_of_a_monitor_that_records_nothing(clouds, fine_tune, tally):
    watch = tally()
    watch.record = lambda learner: {}
    fold = Fold(fine_tune(), clouds(3), Budget(), [watch])
    fold.step(clouds(3)[0])
    assert fold.record() == {"event": 1}
