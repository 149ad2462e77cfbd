"""Scenarios without groups: `prequential` (rows in the order of time, test then learn) and `iid` (shuffled, no drift at all).

Reference: Gama, Sebastiao & Rodrigues (2013), On evaluating stream learning algorithms, Machine Learning 90 (prequential).
"""

import torch

from everlearn.core.errors import check_range
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import HeldOutSets, Indexed, Session
from everlearn.data.naming import check_data, check_sizes, evenly, fraction_of, named

CHECKPOINTS = 10


@named
def prequential(data: Data, *, batch: int = 32, deployed: float = 0.1, test: float | None = None, seed: int = 0) -> Stream:
    """Time order: rows as they stand; each batch is predicted first and learned from afterwards.

    batch: rows that arrive together; deployed: the part of the stream that is the model's first training; test: a part of the
    rows to hold out as well (drawn by the seed, or the data set's own test part), None for none. Raises ArgumentError, DataError.
    """
    check_data("prequential", data)
    check_sizes("prequential", batch=batch, test=test)
    check_range("prequential", "deployed", deployed, 0.0, 1.0)
    train, held_out = data, ()
    if test is not None:
        train, judged = data.split(test, derive(seed, "test"))
        held_out = HeldOutSets(judged, [Session(0, len(judged))], ["test"])
    stream = Indexed(train, [Session(0, len(train))], batch=batch, held_out=held_out)
    stream.headline = "prequential"
    stream.checkpoints = evenly(len(stream), CHECKPOINTS) if test is not None else ()
    stream.deployed = fraction_of(len(stream), deployed)
    return stream


@named
def iid(data: Data, *, batch: int = 10, epochs: int = 1, deployed: float = 0.5, test: float = 0.2, seed: int = 0) -> Stream:
    """No drift: rows shuffled, so that what was learned once stays good. The control in which adapting should gain little.

    deployed: the part of the stream that is the model's first training. The other arguments are those of `split`.
    """
    check_data("iid", data)
    check_sizes("iid", batch=batch, epochs=epochs, test=test)
    check_range("iid", "deployed", deployed, 0.0, 1.0)
    train, judged = data.split(test, derive(seed, "test"))
    order = torch.randperm(len(train), generator=generator(seed, "rows"))
    held_out = HeldOutSets(judged, [Session(0, len(judged))], ["test"])
    stream = Indexed(train, [Session(0, len(train))], batch=batch, order=order, epochs=epochs, seed=seed, held_out=held_out)
    stream.checkpoints = evenly(len(stream), CHECKPOINTS)
    stream.deployed = fraction_of(len(stream), deployed)
    return stream
