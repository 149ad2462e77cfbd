"""A learner right in all it does, softmax regression by hand, on which the tests of the contract checks plant their faults."""

import torch
from torch import nn
from torch.nn.functional import one_hot, softmax

from everlearn import Learner
from everlearn.core.guard import Guard

CLASSES = 4


class Softmax(Learner):
    """What all learners here share: softmax regression by hand. Abstract, so that each of them is a final class of its own."""

    parts = ("model", "guard")
    rate = 0.1

    def __init__(self, seed=0):
        self.seed = seed
        self.model = nn.Linear(8, CLASSES, bias=False)
        nn.init.zeros_(self.model.weight)
        self.guard = Guard(self.name, CLASSES, model=self.model)
        self.begin()

    def begin(self):
        """Attributes of its own."""

    def predict(self, x):
        self.guard.inputs(x)
        return self.score(x)

    def score(self, x):
        with torch.no_grad():
            return self.model(x)

    def update(self, batch):
        self.guard.batch(batch)
        if batch.y is not None:
            self.learn(batch.x, batch.y)
        return {}

    def learn(self, x, y):
        self.descend(x, y, self.rate)

    def descend(self, x, y, rate):
        error = softmax(self.score(x), dim=1) - one_hot(y, CLASSES)
        with torch.no_grad():
            self.model.weight -= rate * error.T @ x / len(x)


def learner(**members):
    """A final learner class with these members on top of softmax regression."""
    members.setdefault("boundary", lambda self, boundary: None)
    return type("Planted", (Softmax,), {"name": "planted", **members})
