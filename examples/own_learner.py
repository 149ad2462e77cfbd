"""Your own learner in one file, held to the contract and compared: it takes a larger step the more surprised it is.

Run it with `python examples/own_learner.py`; `everlearn check own_learner:Surprise` and
`everlearn compare digits --learners own_learner:Surprise` work as well from this folder.
"""

import torch
from torch.nn.functional import cross_entropy

from everlearn import Learner, Schema, check_learner, compare
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.random import isolated
from everlearn.nn.networks import mlp
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD


class Surprise(Learner):
    """Fine-tuning whose loss is weighted by how much worse it is than the running mean of losses."""

    name = "surprise"
    parts = ("descent", "guard", "usual")

    def __init__(self, model, *, rate=0.05, seed=0):
        self.rate = rate
        self.descent = Descent(model, SGD(lr=rate), seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.usual = 1.0  # the running mean of losses: state, so it stands in `parts`

    def predict(self, x):
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch):
        self.guard.batch(batch)
        if batch.y is None:
            return {}

        def weighted():
            loss = cross_entropy(self.descent.model(batch.x), batch.y)
            return loss * (loss.detach() / self.usual).clamp(0.5, 2.0)

        loss = self.descent(weighted)
        self.usual = 0.95 * self.usual + 0.05 * max(float(loss), 0.05)
        return {"loss": loss}

    def boundary(self, boundary):
        """Nothing to do at a change."""


def make(schema, seed):
    """What `compare` calls for each seed."""
    with isolated(seed, "network"):
        return Surprise(mlp(schema), seed=seed)


def main() -> None:
    schema = Schema(shape=(8,), dtype=torch.float32, classes=("a", "b", "c", "d"))
    for passed in check_learner(lambda seed: make(schema, seed)):
        print("ok ", passed)
    result = compare({"surprise": make}, "iid(digits)", seeds=2, engine="inline")
    print({label: round(result.score(label)["mean"], 3) for label in ("surprise", "fine_tune")})


if __name__ == "__main__":
    main()
