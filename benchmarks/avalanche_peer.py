"""Avalanche's strategies on the same batches, in the three ways in which it can be fed.

`lean`: an experience is a large data set that is trained on for several passes, the memory changes between experiences only; built
without task labels, the fastest way that was found. `labelled`: the same from `tensors_benchmark`, whose experiences carry task
labels as those of Avalanche's classic benchmarks do. `batches`: each batch is an experience, so that the memory takes in rows as they
come, which is the setting of Everlearn and of a deployed model.

All that would only slow the peer is off: no metrics, no loggers, no periodic evaluation, no worker processes. Rows come in the order
of the problem (`shuffle=False`), except for Replay, where the same switch would also stop the memory's rows from being shuffled, so
that most would never be replayed; it shuffles the rows inside each experience anew in every pass.
Reference: Carta et al. (2023), Avalanche: a PyTorch library for deep continual learning, JMLR 24.
"""

import contextlib
import io
import warnings

import dill
import torch
import torchvision_shim  # noqa: F401
from avalanche.benchmarks import benchmark_from_datasets, tensors_benchmark
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import DER, Naive
from digits import ALPHA, BATCH, BETA, CAPACITY, LR, PASSES, REPLAY_BATCH, Outcome, Problem, timed
from own import weights
from torch import nn

LEAN, LABELLED, BATCHES = "lean", "labelled", "batches"


def naive(given: Problem, way: str = LEAN) -> Outcome:
    """Fine-tuning."""
    return _run(given, way, lambda common: Naive(**common), shuffle=False)


def replay(given: Problem, way: str = LEAN) -> Outcome:
    """Experience replay; the memory is balanced over experiences, its default, or a reservoir where experiences are batches."""
    policy = ReservoirSamplingBuffer(CAPACITY) if way == BATCHES else None
    plugin = ReplayPlugin(CAPACITY, batch_size=BATCH, batch_size_mem=REPLAY_BATCH, storage_policy=policy)
    return _run(given, way, lambda common: Naive(**common, plugins=[plugin]), shuffle=True, memory=plugin)


def der(given: Problem, way: str = LEAN) -> Outcome:
    """DER with beta > 0, which is DER++; the memory is balanced over classes, its default."""
    own = {"mem_size": CAPACITY, "batch_size_mem": REPLAY_BATCH, "alpha": ALPHA, "beta": BETA}
    return _run(given, way, lambda common: DER(**own, **common), shuffle=False)


def _stream(given: Problem, way: str):
    """The experiences, and how often each is passed over."""
    if way == LABELLED:
        pairs = given.experiences()
        return tensors_benchmark(
            train_tensors=pairs, test_tensors=pairs[:1], task_labels=[0] * len(pairs)
        ).train_stream, PASSES
    pairs, passes = (given.batches(), 1) if way == BATCHES else (given.experiences(), PASSES)
    sets = [_make_taskaware_tensor_classification_dataset(x, y, task_labels=0) for x, y in pairs]
    return benchmark_from_datasets(train=sets).train_stream, passes


def _run(given: Problem, way: str, make, shuffle: bool, memory: ReplayPlugin | None = None) -> Outcome:
    torch.manual_seed(given.seed)  # the peer draws from the global generator
    model = given.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=True)
    stream, passes = _stream(given, way)
    common = {"model": model, "optimizer": optimizer, "criterion": nn.CrossEntropyLoss(), "train_mb_size": BATCH}
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # of its own deprecated calls, at every experience
        strategy = make({**common, "train_epochs": passes, "evaluator": None})

        def train() -> None:
            for experience in stream:
                strategy.train(experience, shuffle=shuffle, num_workers=0)

        figures = timed(train, model, given)
    store = getattr(memory or strategy, "storage_policy", None)
    return Outcome(model, *figures, state=weights(model) + (0 if store is None else len(dill.dumps(store))))
