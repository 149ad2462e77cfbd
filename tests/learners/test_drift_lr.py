"""The learner that learns faster for a while after an alarm: fine-tuning at two rates."""

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.core.state import same
from everlearn.learners.drift_lr import DriftRate
from everlearn.learners.fine_tune import FineTune
from everlearn.measure.drift import ADWIN, Every
from everlearn.optim.optimizers import SGD


def test_without_alarms_or_with_a_factor_of_one_it_is_fine_tuning_to_the_bit(network, batches, fold, weights):
    plain = FineTune(network(), optimizer=SGD(lr=0.0058))
    fold(plain, batches(12))
    for options in ({}, {"detector": Every(5), "factor": 1.0}):
        learner = DriftRate(network(), **options)
        fold(learner, batches(12))
        assert same(weights(learner), weights(plain))
    other = DriftRate(network(), detector=Every(5))
    fold(other, batches(12))
    assert not same(weights(other), weights(plain))


def test_it_learns_faster_for_the_span_after_an_alarm(network, batches):
    """Batches of 4, 1, 6, 4, ... rows; an alarm at every 20th row, so at the sixth batch; the span of 8 rows ends after the eighth."""
    learner = DriftRate(network(), detector=Every(20), span=8)
    rates = [round(learner.update(batch)["lr"] / 0.0058) for batch in batches(8)]
    assert rates == [1, 1, 1, 1, 1, 10, 10, 10]


def test_each_learner_has_a_detector_of_its_own(network, batches, fold):
    detector = ADWIN()
    fold(DriftRate(network(), detector=detector), batches(12))
    assert detector.width == 0


def test_wrong_arguments_are_refused(network):
    for options in ({"detector": 3}, {"factor": 0.1}, {"span": 0}):
        with pytest.raises(ArgumentError, match="drift_lr: "):
            DriftRate(network(), **options)
