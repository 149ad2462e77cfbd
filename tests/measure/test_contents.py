"""Bytes and networks of learners, counted by hand."""

import torch

from everlearn import Batch, FineTune
from everlearn.measure.contents import device_of, model_bytes, networks, state_bytes, storage_bytes
from everlearn.optim.optimizers import Adam


def test_bytes_by_hand():
    learner = FineTune(torch.nn.Linear(10, 3), optimizer=Adam())
    weights = 4 * 33
    assert (model_bytes(learner), state_bytes(learner)) == (weights, weights)
    learner.update(Batch(torch.randn(4, 10), torch.tensor([0, 1, 2, 0])))
    # gradients, two moments, and the step counter of Adam (one float for each of two tensors)
    assert state_bytes(learner) == 4 * weights + 2 * 4
    assert model_bytes(learner) == weights
    assert device_of(learner).type == "cpu"


def test_shared_weights_count_once():
    shared = torch.nn.Linear(6, 6)
    learner = FineTune(torch.nn.Sequential(shared, torch.nn.ReLU(), shared))
    assert model_bytes(learner) == 4 * 42
    assert networks([learner, learner]) == [learner.descent.model]
    assert networks({"a": [learner]}) == [learner.descent.model]
    assert networks(3) == [] and model_bytes("text") == 0


def test_memories_count_with_what_they_hold():
    from everlearn.learners.replay import Replay

    learner = Replay(torch.nn.Linear(10, 3), capacity=5)
    before = state_bytes(learner)
    learner.update(Batch(torch.randn(4, 10), torch.tensor([0, 1, 2, 0])))
    held = learner.memory.nbytes
    assert held > 0
    assert state_bytes(learner) == before + held  # plain descent keeps no gradient between steps


def test_a_storage_counts_once_and_whole():
    """By hand: 12 float64 looked at three times, and 5 bytes of their own."""
    whole = torch.zeros(3, 4, dtype=torch.float64)
    assert storage_bytes([whole, whole[:1], whole.T, torch.zeros(5, dtype=torch.uint8)]) == 12 * 8 + 5
    assert storage_bytes([whole[:1]]) == 12 * 8  # what is held is the storage, not the part that is looked at
    assert storage_bytes([]) == 0
