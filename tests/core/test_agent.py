"""The contracts of learners and agents: abstract, described by their call, saved and loaded by their parts."""

import pytest
import torch

from everlearn import Agent, Decision, Learner
from everlearn.agents.uniform import Uniform
from everlearn.core.errors import StateError
from everlearn.core.state import same


def test_contracts_cannot_be_made():
    with pytest.raises(TypeError, match=r"abstract.*act.*update"):
        Agent()
    with pytest.raises(TypeError, match=r"abstract.*boundary.*predict.*update"):
        Learner()


def test_learners_and_agents_are_described_by_their_calls(fine_tune):
    assert repr(Uniform(actions=5, seed=3)) == "uniform(actions=5)"
    assert repr(fine_tune()) == "fine_tune(optimizer=sgd(momentum=0.9))"
    assert Decision(3) == Decision(3, None)


def test_a_state_goes_from_one_to_another(fine_tune, replay, clouds):
    first, second = fine_tune(0), fine_tune(1)
    first.update(clouds(1)[0])
    second.load_state_dict(first.state_dict())
    assert same(first.state_dict(), second.state_dict())
    before = second.state_dict()
    with pytest.raises(StateError, match=r"does not fit FineTune: parts \['memory'\] are on one side only"):
        second.load_state_dict(replay().state_dict())
    assert same(second.state_dict(), before)


def test_an_agents_state_does_too():
    first, second = Uniform(actions=3), Uniform(actions=3)
    first.pulls += torch.tensor([1, 2, 3])
    second.load_state_dict(first.state_dict())
    assert second.pulls.tolist() == [1, 2, 3] and second.pulls is not first.pulls
