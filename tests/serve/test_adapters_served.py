"""A test-time adapter in service: it learns from what it is asked alone, its log folds to the same weights, and each request is answered
by the statistics of its own rows."""

import torch
from torch import nn

from everlearn import Tent
from everlearn.core.events import Batch
from everlearn.core.random import isolated
from everlearn.core.run import run
from everlearn.core.stream import Schema
from everlearn.data.served import served
from everlearn.serve.export import export
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.predicting import outputs_by_request
from everlearn.serve.records import Ask, Told

from .test_export import learned, until

SCHEMA = Schema((4,), torch.float32, ("a", "b", "c"), ("p", "q", "r", "s"))


def rows(count, seed, shift=0.0):
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=random)
    return torch.randn(count, 4, generator=random) + 2 * torch.eye(3, 4)[y] + shift, y


def tent():
    """Trained with labels before it is served."""
    with isolated(0, "network"):
        network = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    learner = Tent(network, lr=0.01)
    for seed in range(20):
        learner.update(Batch(*rows(32, seed)))
    return learner


def asked(spec, x, name):
    return [Ask(f"{name}.{place}", spec.row(row.numpy())) for place, row in enumerate(x)]


def test_it_learns_from_what_it_is_asked_and_its_log_gives_the_same_weights(tmp_path):
    learner = tent()
    spec, options = InputSpec.of(learner, SCHEMA), Options(batch=16, every=2, wait=0.01, guard=False)
    before = learner.state_dict()["adaptation"]["source"]["model"]
    with LocalEngine(learner, spec, tmp_path / "log", options) as engine:
        until(lambda: engine.status()["ready"])
        for number in range(8):
            x, y = rows(16, 100 + number, shift=1.5)
            engine.predict(asked(spec, x, number)).result()
            engine.feedback([Told(f"{number}.{place}", int(label)) for place, label in enumerate(y)]).result()
        until(lambda: learned(engine))
    with LocalEngine(tent(), spec, tmp_path / "log", options) as engine:
        last = engine.versions()[0]
        path = tmp_path / "deployed.parquet"
        export(engine.history.lineage(last["version"]), path, spec, model="tent()", seed=0)
        state = engine.history.learner_state(last["version"])["adaptation"]
    assert state["deployed"] and state["steps"] >= 8
    after = state["source"]["model"]
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"1.weight", "1.bias"}  # of the norm layer, and never by an answer that was told
    assert run(tent(), served(path)).sha256 == last["sha256"]


def test_a_request_is_answered_by_its_own_rows_alone():
    learner = tent()
    spec = InputSpec.of(learner, SCHEMA)
    learner.update(Batch(rows(32, 50, shift=1.5)[0]))
    first, second = asked(spec, rows(8, 60, 3.0)[0], "a"), asked(spec, rows(8, 61, -3.0)[0], "b")
    together = outputs_by_request(learner, spec, [first, second])
    assert together == [outputs_by_request(learner, spec, [part])[0] for part in (first, second)]
    mixed = outputs_by_request(learner, spec, [first + second])[0]
    assert mixed[:8] != together[0]  # what it would have been with the other client's rows beside
