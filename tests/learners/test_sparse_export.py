"""Files of sparse tasks: the same answers to the bit, few bytes, and refusals."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from everlearn import Batch, Boundary, Sparse
from everlearn.core.errors import InputError, StateError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.learners.sparse_export import CSRLinear, byte_report, compact, export_task, load_task, load_tasks, save_tasks
from everlearn.nn.networks import conv_stack, resnet18

SCHEMA = Schema((3, 16, 16), torch.float32, tuple(map(str, range(20))))


def mlp(seed=0):
    with isolated(seed, "network"):
        return nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 20)
        )


def taught(model, tasks=3, shape=(8,), steps=4, **switches):
    learner = Sparse(model, update_every=2, task_steps=steps, **switches)
    source = torch.Generator().manual_seed(1)
    for task in range(tasks):
        y = torch.arange(8) % 2 + 2 * task
        learner.boundary(Boundary(task, (2 * task, 2 * task + 1)))
        for _ in range(steps):
            learner.update(Batch(torch.randn(8, *shape, generator=source), y))
    return learner


PROBE = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
KINDS = [{}, {"head": "shared"}, {"normalisation": "shared"}, {"answers": "all"}, {"regrown": "zero"}, {"isolate": False}]


@pytest.mark.parametrize("switches", KINDS, ids=str)
def test_a_file_of_all_tasks_answers_as_the_learner_does(tmp_path, switches):
    learner = taught(mlp(), **switches)
    save_tasks(learner, tmp_path / "tasks.safetensors")
    found = load_tasks(tmp_path / "tasks.safetensors", mlp(seed=9))
    assert found.tasks == (0, 1, 2) and found.classes_of(1) == (2, 3)
    for task in learner.tasks:
        assert torch.equal(found.predict_in(PROBE, task), learner.predict_in(PROBE, task))


@pytest.mark.parametrize("switches", KINDS, ids=str)
def test_a_file_of_one_task_answers_as_the_learner_does(tmp_path, switches):
    learner = taught(mlp(), **switches)
    for task in learner.tasks:
        export_task(learner, task, tmp_path / "task.safetensors")
        one = load_task(tmp_path / "task.safetensors", mlp(seed=9))
        assert torch.equal(one(PROBE), learner.predict_in(PROBE, task))
        sparse = load_task(tmp_path / "task.safetensors", mlp(seed=9), csr=True)
        assert sum(isinstance(module, CSRLinear) for module in sparse.modules()) == (3 if "head" in switches else 2)
        assert torch.allclose(sparse(PROBE), one(PROBE), atol=1e-5)


def test_exporting_changes_nothing_and_leaves_out_what_no_task_reads():
    learner = taught(mlp())
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    found = compact(learner)
    assert len(found["weights"]) == int(learner.used().sum()) < learner.layout.size
    assert found["masks"].shape == (3, 128)  # 1,024 weights
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())


def test_ten_sparse_tasks_take_a_quarter_of_ten_dense_models(tmp_path):
    with isolated(0, "network"):
        model = conv_stack(SCHEMA, widths=(24, 48, 96, 96))
    learner = taught(model, tasks=10, shape=(3, 16, 16), steps=1, density=0.05, init="uniform")
    report = byte_report(learner)
    assert report["masks"] == 10 * 16_929 and report["weights"] == 4 * int(learner.used().sum())
    assert report["total"] == sum(report[kind] for kind in ("weights", "masks", "heads", "own", "shared"))
    assert report["share"] < 0.25
    save_tasks(learner, tmp_path / "tasks.safetensors")
    size = (tmp_path / "tasks.safetensors").stat().st_size
    assert report["total"] < size < 1.1 * report["total"]


def test_a_model_of_which_a_tenth_is_read_takes_a_quarter_of_the_dense_one(tmp_path):
    with isolated(0, "network"):
        model = resnet18(SCHEMA, width=16)
    learner = taught(model, tasks=1, shape=(3, 16, 16), steps=1, density=0.1)
    dense = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert byte_report(learner)["total"] < 0.25 * dense
    export_task(learner, 0, tmp_path / "task.safetensors")
    assert (tmp_path / "task.safetensors").stat().st_size < 0.25 * dense


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    learner = taught(mlp(), tasks=1)
    save_tasks(learner, tmp_path / "all")
    export_task(learner, 0, tmp_path / "one")
    other = nn.Sequential(nn.Linear(8, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 20))
    with pytest.raises(StateError, match=r"its layer '0.weight' is \[32, 8\], that of the model \[30, 8\]"):
        load_tasks(tmp_path / "all", other)
    with pytest.raises(StateError, match=r"does not fit the model: '0\.weight' differs"):
        load_task(tmp_path / "one", other)
    with pytest.raises(StateError, match="no file of one task"):
        load_task(tmp_path / "all", mlp())
    with pytest.raises(StateError, match="no file of all tasks"):
        load_tasks(tmp_path / "one", mlp())
    (tmp_path / "cut").write_bytes((tmp_path / "all").read_bytes()[:100])
    with pytest.raises(StateError, match="cannot be read"):
        load_tasks(tmp_path / "cut", mlp())
    with pytest.raises(InputError, match="holds no task 4; it holds 0"):
        load_tasks(tmp_path / "all", mlp()).predict_in(PROBE, 4)
    with pytest.raises(InputError, match="task 4 was never announced"):
        export_task(learner, 4, tmp_path / "none")


def test_rows_that_contradict_their_weight_are_refused(tmp_path):
    learner = taught(mlp(), tasks=1)
    export_task(learner, 0, tmp_path / "one")
    with safe_open(tmp_path / "one", "pt") as file:
        told, good = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for part, wrong in (("column", 99), ("start", -5)):
        bad = good[f"0.weight:{part}"].clone()
        bad[1] = wrong
        save_file(good | {f"0.weight:{part}": bad}, tmp_path / "bad", told)
        with pytest.raises(StateError, match=r"is damaged: the rows of a weight of shape \[32, 8\]"):
            load_task(tmp_path / "bad", mlp())


def test_a_layer_in_csr_form_takes_rows_of_any_leading_shape():
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight[layer.weight.abs() < 0.2] = 0.0
    x = torch.randn(2, 5, 6)
    for bias in (layer.bias, None):
        plain = nn.functional.linear(x, layer.weight, bias)
        assert torch.allclose(CSRLinear(layer.weight, bias)(x), plain, atol=1e-6)
