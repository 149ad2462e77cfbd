"""Learners keep the contract where their network computes in bfloat16."""

import pytest
import torch

from everlearn.comparison.catalog import learners
from everlearn.core.check import check_learner
from everlearn.core.events import Batch
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.networks import conv_stack

SCHEMA = Schema((3, 6, 6), torch.float32, tuple("0123"))
OTHERS = {"early_stopping", "refresh", "retrain", "sparse"}  # wrappers, what begins anew, and what must be told the task
NAMES = sorted(
    name
    for name, cls in learners().items()
    if getattr(cls, "takes", "network") == "network" and "classes" in cls.gives and name not in OTHERS
)


def network(seed):
    with isolated(seed, "network"):
        return conv_stack(SCHEMA, widths=(6, 8), precision="bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_learners_keep_the_contract_in_bfloat16(name):
    random = torch.Generator().manual_seed(0)
    example = Batch(torch.randn(8, 3, 6, 6, generator=random), torch.arange(8) % 4)
    short = {"gdumb": {"epochs": 2}, "cotta": {"augmentations": 2}}.get(name, {})
    assert len(check_learner(lambda seed: learners()[name](network(seed), seed=seed, **short), example=example)) == 12
