"""The user's own code in a comparison: a fault in it is one sentence with its place, refused early where it can be."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from everlearn import FineTune, compare
from everlearn.comparison.building import build_learner, build_model, build_stream
from everlearn.comparison.engines import sendable
from everlearn.comparison.job import Job
from everlearn.comparison.stream_text import stream_text
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, ContractError, InputError, SpecError
from everlearn.core.spec import parse

STREAM = "split(digits, experiences=5)"

FAULTS = """
import torch
from torch import nn

def typo(schema):
    return nn.Linear(schema.shap[0], schema.outputs)

def weightless(schema):
    return nn.Flatten()

class Nothing(nn.Module):
    def __init__(self, schema):
        super().__init__()
        self.outputs = schema.outputs
    def forward(self, x):
        return torch.zeros(len(x), self.outputs)

class Broken(nn.Module):
    def __init__(self, schema):
        super().__init__()
        self.layer = nn.Linear(schema.shape[0], schema.outputs)
    def forward(self, x):
        return self.layer(x) * float("nan")
"""


@pytest.fixture
def stream(tmp_path, monkeypatch):
    (tmp_path / "faulty_networks.py").write_text(FAULTS)
    monkeypatch.syspath_prepend(tmp_path)
    return build_stream(STREAM, 0)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("typo", SpecError, r"AttributeError.*shap.*\(faulty_networks.py, line 6\)"),
        ("weightless", InputError, "gives .*64.* this stream needs"),
        ("Nothing", SpecError, "no weights to learn"),
        ("Broken", InputError, "NaN or infinite scores"),
    ],
)
def test_a_network_that_cannot_work_is_refused_in_one_sentence(stream, name, error, words):
    with pytest.raises(error, match=words) as refused:
        build_model(f"faulty_networks:{name}", stream, 0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"learners": "replay(capacity=-1)"}, ArgumentError, "capacity must be an int >= 1, got -1"),
        ({"learners": "fine_tune(optimizer=sgd(lr=-1.0))"}, ArgumentError, "lr"),
        ({"learners": "fine_tune", "model": "mlp(hidden=(0,))"}, ArgumentError, "hidden"),
        ({"learners": "replay(capacity=9, keep=balanced())"}, ArgumentError, "capacity=9 is less than the 10 classes"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_runs(arguments, error, words, tmp_path):
    with pytest.raises(error, match=words):
        compare(stream=STREAM, engine="inline", folder=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()


def test_a_memory_of_as_many_rows_as_classes_is_taken_and_a_reservoir_may_be_smaller():
    stream = build_stream(STREAM, 0)
    assert build_learner("replay(capacity=10, keep=balanced())", stream, "linear", 0).memory.capacity == 10
    assert build_learner("replay(capacity=3)", stream, "linear", 0).memory.capacity == 3


class Dies(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls > 5:
            raise KeyError("the sixth step")
        return self.layer(x)


def test_a_fault_on_the_way_is_that_learners_and_its_traceback_is_kept(tmp_path):
    learners = {"mine": lambda schema, seed: FineTune(Dies(), seed=seed)}
    result = compare(learners, STREAM, seeds=1, engine="inline", folder=tmp_path)
    by_label = {entry["label"]: entry for entry in result.record["learners"]}
    assert by_label["mine"]["error"].startswith("KeyError: 'the sixth step' (test_own_code.py, line ")
    assert by_label["fine_tune"]["error"] is None
    (kept,) = tmp_path.rglob("traceback.txt")
    assert "the sixth step" in kept.read_text()


def test_a_comparison_in_which_nobody_finishes_is_an_error_and_leaves_no_result(tmp_path):
    learners = {"mine": lambda schema, seed: FineTune(Dies(), seed=seed)}
    with pytest.raises(ContractError, match=r"no learner finished\. mine: KeyError"):
        compare(learners, STREAM, seeds=1, engine="inline", folder=tmp_path, baselines=False)
    assert not (tmp_path / "result.json").exists()
    assert all(json.loads(path.read_text())["error"] for path in tmp_path.rglob("record.json"))


def test_a_lambda_is_refused_by_the_pool_of_processes_and_a_function_of_a_module_is_not():
    job = partial(Job, 0, "a", stream=STREAM, model="auto", seed=0, budget=Budget(), folder=None)
    with pytest.raises(ArgumentError, match="top of a module, or use engine='inline'"):
        sendable([job(lambda schema, seed: None)])
    sendable([job(torch.nn.Linear)])


def test_a_folder_is_a_set_of_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "digits").mkdir()
    assert stream_text("pets") == "split(images('pets'), experiences=5, epochs=3)"
    assert str(parse(stream_text("digits"))) == "split(digits, experiences=5, epochs=3)"
