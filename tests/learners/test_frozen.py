"""The deployed model: it learns as fine-tuning does until it is deployed, and never again."""

import pytest

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.frozen import Frozen


@pytest.mark.parametrize("updates", [0, 1, 5])
def test_equals_fine_tuning_on_the_first_batches(network, batches, fold, updates):
    events = batches()
    frozen = fold(Frozen(network(), updates=updates), events)
    plain = fold(FineTune(network()), events[:updates])
    assert same(frozen.state_dict()["descent"], plain.state_dict()["descent"])


def test_batches_without_answers_do_not_count(network, batches, fold):
    first, second, third = batches(3)
    frozen = fold(Frozen(network(), updates=2), [first, Batch(second.x), second, third])
    plain = fold(FineTune(network()), [first, second])
    assert same(frozen.state_dict()["descent"], plain.state_dict()["descent"])


def test_the_first_change_after_learning_deploys_it(network, batches, fold):
    events = batches(6)
    announced = [Boundary(0), *events[:3], Boundary(1), *events[3:]]
    unannounced = [*events[:3], Boundary(1), *events[3:]]
    plain = fold(FineTune(network()), events[:3]).state_dict()["descent"]
    assert same(fold(Frozen(network()), announced).state_dict()["descent"], plain)
    assert same(fold(Frozen(network()), unannounced).state_dict()["descent"], plain)


def test_with_updates_given_a_boundary_does_not_deploy(network, batches, fold):
    events = batches(6)
    frozen = fold(Frozen(network(), updates=6), [*events[:3], Boundary(1), *events[3:]])
    assert same(frozen.state_dict()["descent"], fold(FineTune(network()), events).state_dict()["descent"])


def test_without_updates_or_boundaries_it_is_fine_tuning(network, batches, fold):
    frozen = fold(Frozen(network()), batches())
    assert same(frozen.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])


@pytest.mark.parametrize("updates", [None, 3, 8])
def test_continues_from_a_snapshot(network, batches, continues, updates):
    events = batches()
    assert continues(lambda: Frozen(network(), updates=updates), [*events[:4], Boundary(1), *events[4:]])


def test_a_deployed_model_still_refuses_bad_input(network, batches):
    learner = Frozen(network(), updates=0)
    with pytest.raises(InputError, match=r"frozen: label \d is out of range; allowed: 0\.\.2"):
        learner.update(Batch(batches()[0].x, batches()[0].y + 3))
    with pytest.raises(ArgumentError, match="updates must be an int >= 0, got -1"):
        Frozen(network(), updates=-1)
