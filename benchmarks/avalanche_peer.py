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
import random
import warnings
from collections.abc import Callable
from itertools import chain
from time import process_time
from types import SimpleNamespace
from typing import Any

import dill
import torch
import torchvision_shim  # noqa: F401
from avalanche.benchmarks import benchmark_from_datasets, tensors_benchmark
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.models import SCRModel
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GDumbPlugin,
    LwFPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import DER, ER_ACE, SCR, ICaRL, Naive
from digits import ALPHA, BETA, Outcome, Problem, clocked, timed
from own import weights
from torch import Tensor, nn

LEAN, LABELLED, BATCHES = "lean", "labelled", "batches"
Make = Callable[[dict[str, Any]], Any]  # common arguments -> a strategy


def naive(given: Problem, way: str = LEAN) -> Outcome:
    """Fine-tuning."""
    return _run(given, way, lambda common: Naive(**common), shuffle=False)


def replay(given: Problem, way: str = LEAN, by_step: bool = False) -> Outcome:
    """Experience replay; the memory is balanced over experiences, its default, or a reservoir where experiences are batches."""
    rows, own = given.settings.capacity, {"batch_size": given.settings.batch, "batch_size_mem": given.settings.replay_batch}
    policy = ReservoirSamplingBuffer(rows) if way == BATCHES else None
    plugin = ReplayPlugin(rows, storage_policy=policy, **own)
    return _run(given, way, with_plugin(plugin), shuffle=True, store=lambda _: plugin.storage_policy, by_step=by_step)


def der(given: Problem, way: str = LEAN, beta: float = BETA, by_step: bool = False) -> Outcome:
    """DER, with beta > 0 DER++; the memory is balanced over classes, its default."""
    own = {"mem_size": given.settings.capacity, "batch_size_mem": given.settings.replay_batch, "alpha": ALPHA, "beta": beta}
    return _run(given, way, lambda common: DER(**own, **common), shuffle=False, store=stored, by_step=by_step)


def si(given: Problem, strength: float, damping: float) -> Outcome:
    """Synaptic intelligence; its penalty is half of strength times importance, importances above 0.001 are cut to it."""
    plugin = SynapticIntelligencePlugin(si_lambda=strength, eps=damping)
    return _run(given, LEAN, with_plugin(plugin), False, lambda _: (plugin.ewc_data, plugin.syn_data), by_step=True)


def ewc(given: Problem, strength: float, decay: float) -> Outcome:
    """Online elastic weight consolidation; its penalty is strength times importance, and importances are squared gradients of a
    batch's mean loss, taken over the batches of the whole experience."""
    plugin = EWCPlugin(ewc_lambda=strength, mode="online", decay_factor=decay)
    return _run(given, LEAN, with_plugin(plugin), False, lambda _: (plugin.importances, plugin.saved_params), by_step=True)


def icarl(given: Problem) -> Outcome:
    """iCaRL; at the end of each experience exemplars are herded among all of its rows, and from then on they stand among the rows
    of every experience: none are drawn beside a batch, so a batch of its steps is as large as that of others with their draw."""
    network = given.network()
    extractor, classifier = nn.Sequential(*list(network.children())[:-1]), list(network.children())[-1]
    own = {"feature_extractor": extractor, "classifier": classifier, "memory_size": given.settings.capacity}
    batch = given.settings.batch + given.settings.replay_batch

    def make(common: dict[str, Any]) -> ICaRL:
        common = {key: value for key, value in common.items() if key not in ("model", "criterion")}
        common |= {"train_mb_size": batch, "eval_mb_size": 256}
        return ICaRL(**own, **common, buffer_transform=None, fixed_memory=True)

    model = nn.Sequential(extractor, classifier)
    fresh = [[label for label in y.unique().tolist() if label not in before] for y, before in _labels(given)]
    told = SimpleNamespace(n_classes_per_exp=[len(labels) for labels in fresh], classes_order=[*chain(*fresh)])
    rate = float(classifier.out_features)  # its loss is the mean over classes, where the published one is the sum

    def exemplars(strategy: ICaRL) -> list[Tensor]:
        return strategy.plugins[0].x_memory

    return _run(given, LEAN, make, True, exemplars, by_step=True, model=model, rate=rate, told=told)


def _labels(given: Problem) -> list[tuple[Tensor, set[int]]]:
    """(labels of an experience, the set of those before it) of each."""
    ys = [y for _, y in given.experiences()]
    return [(y, {label for other in ys[:number] for label in other.tolist()}) for number, y in enumerate(ys)]


def lwf(given: Problem, strength: float, temperature: float) -> Outcome:
    """Learning without forgetting, over the classes that have come."""
    plugin = LwFPlugin(alpha=strength, temperature=temperature)
    return _run(given, LEAN, with_plugin(plugin), False, lambda _: plugin.lwf.prev_model.state_dict(), by_step=True)


def agem(given: Problem) -> Outcome:
    """A-GEM; the memory is shared evenly among the experiences."""
    share = given.settings.capacity // len(given.sizes)
    plugin = AGEMPlugin(patterns_per_experience=share, sample_size=given.settings.replay_batch)
    return _run(given, LEAN, with_plugin(plugin), False, lambda _: plugin.buffers, by_step=True)


def gdumb(given: Problem, epochs: int) -> Outcome:
    """GDumb; after each experience the network starts anew and learns from the memory alone."""
    plugin = GDumbPlugin(mem_size=given.settings.capacity)
    return _run(given, LEAN, with_plugin(plugin), True, lambda _: plugin.storage_policy, by_step=True, epochs=epochs)


def er_ace(given: Problem) -> Outcome:
    """ER-ACE; the memory is balanced over classes and takes in an experience before it is learned from."""
    own = {"mem_size": given.settings.capacity, "batch_size_mem": given.settings.replay_batch}
    return _run(given, LEAN, lambda common: ER_ACE(**own, **common), shuffle=False, store=stored, by_step=True)


def scr(given: Problem, d: int, view: Callable[[Tensor], Tensor], temperature: float) -> Outcome:
    """Supervised contrastive replay: the network without its last layer (d features), a projection d-d-128, nearest class mean."""
    encoder = nn.Sequential(*list(given.network().children())[:-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        projection = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 128))
    own = {"mem_size": given.settings.capacity, "batch_size_mem": given.settings.replay_batch, "temperature": temperature}

    def make(common: dict[str, Any]) -> SCR:
        common = {key: value for key, value in common.items() if key != "criterion"}
        return SCR(**own, **common, augmentations=view, eval_mb_size=256)

    model = SCRModel(encoder, Projected(projection))
    return _run(given, LEAN, make, True, lambda strategy: strategy.replay_plugin.storage_policy, by_step=True, model=model)


class Projected(nn.Module):
    """A projection whose outputs have length 1, as the loss needs them."""

    def __init__(self, projection: nn.Module):
        super().__init__()
        self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.projection(x), dim=1)


def with_plugin(plugin: Any) -> Make:
    """Naive with one plugin."""
    return lambda common: Naive(**common, plugins=[plugin])


def stored(strategy: Any) -> Any:
    """The memory of a strategy that holds it itself."""
    return strategy.storage_policy


def _stream(given: Problem, way: str):
    """The experiences, and how often each is passed over."""
    passes = given.settings.passes
    if way == LABELLED:
        pairs = given.experiences()
        return tensors_benchmark(
            train_tensors=pairs, test_tensors=pairs[:1], task_labels=[0] * len(pairs)
        ).train_stream, passes
    pairs, passes = (given.batches(), 1) if way == BATCHES else (given.experiences(), passes)
    sets = [_make_taskaware_tensor_classification_dataset(x, y, task_labels=0) for x, y in pairs]
    return benchmark_from_datasets(train=sets).train_stream, passes


def _run(
    given: Problem,
    way: str,
    make: Make,
    shuffle: bool,
    store: Callable[[Any], Any] | None = None,
    by_step: bool = False,
    epochs: int | None = None,
    model: nn.Module | None = None,
    rate: float = 1.0,
    told: Any = None,
) -> Outcome:
    """One run. by_step: the clock is read where a step of the strategy begins, for methods with several forward passes a step. rate: of the
    problem's, this many times; told: what an experience knows of all others, for methods that ask it for its `benchmark`."""
    torch.manual_seed(given.seed)  # the peer draws from the global generator
    random.seed(given.seed)  # and from this one
    model = model or given.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate * given.settings.lr, fused=True)
    stream, passes = _stream(given, way)
    common = {"model": model, "optimizer": optimizer, "criterion": nn.CrossEntropyLoss()}
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # of its own deprecated calls, at every experience
        strategy = make(
            {**common, "train_mb_size": given.settings.batch, "train_epochs": epochs or passes, "evaluator": None}
        )

        def train() -> None:
            for experience in stream:
                if told is not None:
                    experience.benchmark = told
                strategy.train(experience, shuffle=shuffle, num_workers=0)

        figures = clocked(train, _ticks(strategy), given) if by_step else timed(train, model, given)
        state = weights(model) + (0 if store is None else len(dill.dumps(store(strategy))))
    return Outcome(strategy.model, *figures, state=state)


def _ticks(strategy: Any) -> list[float]:
    """A list that a strategy fills with the processor time at which each of its steps begins."""
    stamps: list[float] = []
    begin = strategy._before_training_iteration

    def stamped(**kwargs: Any) -> None:
        stamps.append(process_time())
        begin(**kwargs)

    strategy._before_training_iteration = stamped
    return stamps
