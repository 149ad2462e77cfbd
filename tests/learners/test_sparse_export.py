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
    for task in (0, 1, 2, 0, 0):
        assert torch.equal(found.predict_in(PROBE, task), learner.predict_in(PROBE, task))
    for name, value in learner.weights_of(1).items():
        got, rows = found.weights_of(1)[name], [2, 3] if name in learner.layout.head else ...
        assert torch.equal(got[rows], value[rows])


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


def layers(width=32, out=20, norm=True, more=()):
    middle = [nn.BatchNorm1d(width)] if norm else [nn.Identity()]
    return nn.Sequential(nn.Linear(8, width), *middle, nn.ReLU(), nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, out), *more)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (layers(width=30), r"'0.weight' is \[32, 8\] in the file, \[30, 8\] in the model"),
        (layers(out=21), r"'5.weight' is \[20, 24\] in the file, \[21, 24\] in the model"),
        (layers(norm=False), r"'1.weight' is \[32\] in the file, not there in the model"),
        (layers(more=[nn.Linear(20, 20)]), r"'6.weight' is not there in the file, \[20, 20\] in the model"),
    ],
    ids=("width", "classes", "normalisation", "depth"),
)
def test_a_model_of_another_architecture_is_refused_and_left_alone(tmp_path, other, message):
    learner = taught(mlp(), tasks=1)
    save_tasks(learner, tmp_path / "all")
    export_task(learner, 0, tmp_path / "one")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for name, load in (("all", load_tasks), ("one", load_task)):
        with pytest.raises(StateError, match=message):
            load(tmp_path / name, other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_what_is_no_such_file_and_unknown_tasks_are_refused(tmp_path):
    learner = taught(mlp(), tasks=1)
    save_tasks(learner, tmp_path / "all")
    export_task(learner, 0, tmp_path / "one")
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


def opened(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("kind", ["all", "one"])
def test_a_file_that_lacks_anything_is_refused(tmp_path, kind):
    learner = taught(mlp(), tasks=2)
    write, load = {
        "all": (save_tasks, load_tasks),
        "one": (lambda learner, path: export_task(learner, 0, path), load_task),
    }[kind]
    write(learner, tmp_path / "good")
    told, good = opened(tmp_path / "good")
    for name in good:
        save_file({other: value for other, value in good.items() if other != name}, tmp_path / "bad", told)
        with pytest.raises(StateError, match="is damaged: it lacks"):
            load(tmp_path / "bad", mlp())


def test_tensors_that_contradict_one_another_are_refused(tmp_path):
    learner = taught(mlp(), tasks=2)
    save_tasks(learner, tmp_path / "all")
    export_task(learner, 0, tmp_path / "one")
    changes = {
        "all": [
            ("weights", lambda value: value[:-1], "weights, its masks read another number"),
            ("masks", lambda value: value[:, :-1], "masks are not those of 2 tasks over 1024 weights"),
            ("masks", lambda value: value[:1], "masks are not those of 2 tasks"),
            ("task.1.0.bias", lambda value: value[:-1], r"'0.bias' has the shape \[31\], not \[32\]"),
            ("task.1.5.weight", lambda value: value[:1], r"'5.weight' has the shape \[1, 24\], not \[2, 24\]"),
            ("classes.1", lambda value: value + 18, r"classes outside 0\.\.19"),
        ],
        "one": [
            ("column.0.weight", lambda value: value + 90, r"the rows of a weight of shape \[32, 8\]"),
            ("start.0.weight", lambda value: -value, r"the rows of a weight of shape \[32, 8\]"),
            ("own.5.bias", lambda value: value[:1], r"'5.bias' has the shape \[1\], not \[2\]"),
        ],
    }
    for kind, load in (("all", load_tasks), ("one", load_task)):
        told, good = opened(tmp_path / kind)
        for name, change, message in changes[kind]:
            save_file(good | {name: change(good[name]).clone()}, tmp_path / "bad", told)
            with pytest.raises(StateError, match=message):
                load(tmp_path / "bad", mlp())


def test_numbers_keep_their_precision(tmp_path):
    learner = Sparse(mlp().double(), density=0.5)
    learner.boundary(Boundary(0, (0, 1)))
    learner.update(Batch(PROBE.double(), torch.arange(6) % 2))
    save_tasks(learner, tmp_path / "all")
    export_task(learner, 0, tmp_path / "one")
    asked = learner.predict_in(PROBE.double(), 0)
    assert asked.dtype == torch.float64
    assert torch.equal(load_tasks(tmp_path / "all", mlp(seed=9).double()).predict_in(PROBE.double(), 0), asked)
    assert torch.equal(load_task(tmp_path / "one", mlp(seed=9).double())(PROBE.double()), asked)


class Shared(nn.Module):
    """Two layers with one weight, and two names of one buffer."""

    def __init__(self):
        super().__init__()
        self.inner, self.again = nn.Linear(8, 8), nn.Linear(8, 8)
        self.again.weight = self.inner.weight
        self.register_buffer("scale", torch.full((8,), 2.0))
        self.register_buffer("rows", self.scale.view(2, 4))
        self.last = nn.Linear(8, 20)

    def forward(self, x):
        return self.last(self.again(self.inner(x).relu()) * self.scale)


def test_a_weight_under_two_names_is_written_once(tmp_path):
    learner = taught(Shared(), density=0.5)
    save_tasks(learner, tmp_path / "all")
    assert len(compact(learner)["weights"]) == int(learner.used().sum()) <= 64
    for task in learner.tasks:
        export_task(learner, task, tmp_path / "one")
        assert not [name for name in opened(tmp_path / "one")[1] if name.endswith("again.weight")]
        asked = learner.predict_in(PROBE, task)
        assert torch.equal(load_task(tmp_path / "one", Shared())(PROBE), asked)
        assert torch.allclose(load_task(tmp_path / "one", Shared(), csr=True)(PROBE), asked, atol=1e-5)
        assert torch.equal(load_tasks(tmp_path / "all", Shared()).predict_in(PROBE, task), asked)


def test_one_task_takes_six_bytes_a_weight_and_its_own_rows_of_the_head(tmp_path):
    learner = taught(mlp())
    export_task(learner, 1, tmp_path / "one")
    found = opened(tmp_path / "one")[1]
    assert found["column.0.weight"].dtype == torch.int16 and found["value.0.weight"].dtype == torch.float32
    assert found["own.5.weight"].shape == (2, 24) and found["classes"].tolist() == [2, 3]
    wide = nn.Sequential(nn.Linear(2**15 + 1, 4), nn.ReLU(), nn.Linear(4, 20))
    learner = taught(wide, tasks=1, shape=(2**15 + 1,), steps=1, density=0.01)
    export_task(learner, 0, tmp_path / "one")
    assert opened(tmp_path / "one")[1]["column.0.weight"].dtype == torch.int32
    probe = torch.randn(2, 2**15 + 1)
    assert torch.equal(load_task(tmp_path / "one", wide)(probe), learner.predict_in(probe, 0))


def test_a_layer_in_csr_form_takes_rows_of_any_leading_shape():
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight[layer.weight.abs() < 0.2] = 0.0
    x = torch.randn(2, 5, 6)
    for bias in (layer.bias, None):
        plain = nn.functional.linear(x, layer.weight, bias)
        assert torch.allclose(CSRLinear(layer.weight, bias)(x), plain, atol=1e-6)
