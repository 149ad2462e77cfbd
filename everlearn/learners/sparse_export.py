"""What a sparse learner has learned in few bytes: all its tasks in one file, or one task as a model of its own.

    all tasks   each weight that some task reads once, one bit per weight and task, and what each task keeps for itself
    one task    its weights as rows in compressed form (CSR): the numbers, their columns, and where each row begins

Files are safetensors. What is loaded answers to the bit as the learner did; it does not learn on (a run's snapshots do).
References: Yildirim et al. (2024), arXiv 2308.14831 (one bit per weight and task); Tinney & Walker (1967), Direct solutions of sparse
network equations by optimally ordered triangular factorization (compressed rows).
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from everlearn.core.errors import InputError, StateError
from everlearn.core.events import X
from everlearn.core.state import write_atomic
from everlearn.learners.sparse import Sparse
from everlearn.learners.sparse_layout import among
from everlearn.nn.masks import Masks

KIND = "everlearn.sparse"
SHORT = 2**15  # columns that 16 bits can tell apart


def compact(learner: Sparse) -> dict[str, Tensor]:
    """The tensors of a file of all tasks: weights (used,), masks (tasks, bytes), classes.N, task.N.NAME and shared.NAME."""
    masks = Masks(learner.layout.size)
    for task in learner.tasks:
        masks.append(learner.mask_of(task).cpu())
    found = {"weights": learner.values().cpu()[masks.used()], "masks": masks.packed}
    first = _first_names(learner.model)
    for place, task in enumerate(learner.tasks):
        found[f"classes.{place}"] = torch.tensor(learner.classes_of(task))
        found |= {f"task.{place}.{first[name]}": value.cpu() for name, value in learner.private_of(task).items()}
    layout = learner.layout
    covered = {first[name] for name in (*layout.own, *layout.layers, *(() if learner.answers == "all" else layout.head))}
    rest = {name: value for name, value in learner.model.state_dict().items() if name == first[name] not in covered}
    return found | {f"shared.{name}": value.detach().cpu() for name, value in rest.items()}


def byte_report(learner: Sparse) -> dict[str, Any]:
    """Bytes of a file of all tasks by kind, and their share of as many dense models.

    Keys: weights, masks, heads, own (normalisation, biases and whatever else each task keeps), shared, total, dense, share.
    """
    found, head = compact(learner), set(learner.layout.head)
    kinds = dict.fromkeys(("weights", "masks", "heads", "own", "shared"), 0)
    for name, tensor in found.items():
        kind, *rest = name.split(".", 2)
        if kind in ("classes", "task"):
            kind = "heads" if kind == "classes" or rest[-1] in head else "own"
        kinds[kind] += tensor.numel() * tensor.element_size()
    total, stands = sum(kinds.values()), learner.model.state_dict()
    once = [stands[name] for name in set(_first_names(learner.model).values())]
    dense = len(learner.tasks) * sum(value.numel() * value.element_size() for value in once)
    return kinds | {"total": total, "dense": dense, "share": total / dense if dense else math.nan}


def save_tasks(learner: Sparse, path: str | Path) -> None:
    """Write all tasks to one file, wholly or not at all. Raises StateError where it cannot be written."""
    _write(path, learner, compact(learner), tasks=list(learner.tasks))


class SparseTasks:
    """The tasks of a file, to be asked. See `load_tasks`."""

    def __init__(self, model: nn.Module, about: dict[str, Any], tensors: dict[str, Tensor]):
        self.model = model.eval()
        self.about = about
        self.tensors = tensors
        self.masks = Masks(sum(math.prod(shape) for shape in about["layers"].values()))
        self.masks.packed = tensors["masks"]
        self.values = tensors["weights"].new_zeros(self.masks.weights)
        self.values[self.masks.used()] = tensors["weights"]
        self._filled: int | None = None  # the task whose weights the model has

    @property
    def tasks(self) -> tuple[int, ...]:
        """The numbers of the tasks."""
        return tuple(self.about["tasks"])

    def classes_of(self, task: int) -> tuple[int, ...]:
        """The classes that a task tells apart."""
        return tuple(self.tensors[f"classes.{self._known(task)}"].tolist())

    def weights_of(self, task: int) -> dict[str, Tensor]:
        """Every parameter and buffer with which a task is answered, by its name in the model; 0 in rows of other tasks' classes."""
        place = self._known(task)
        layers = self.about["layers"]
        cuts = (self.values * self.masks[place]).split([math.prod(shape) for shape in layers.values()])
        found = {name: values.reshape(layers[name]) for name, values in zip(layers, cuts, strict=True)}
        for start in ("shared.", f"task.{place}."):
            for key, value in self.tensors.items():
                if key.startswith(start):
                    name = key.removeprefix(start)
                    found[name] = _whole(name, value, self.tensors[f"classes.{place}"], self.about, found)
        return _spread(found, self.model)

    def predict_in(self, x: X, task: int) -> Tensor:
        """Scores (batch, classes) among the classes of one task. Raises InputError for an unknown one."""
        rows = self.tensors[f"classes.{self._known(task)}"]
        if self._filled != task:
            self.model.load_state_dict(self.weights_of(task))
            self._filled = task
        with torch.no_grad():
            scores = self.model(x)
        return scores if self.about["answers"] == "all" else among(scores, rows.to(scores.device))

    def _known(self, task: int) -> int:
        if task not in self.tasks:
            raise InputError(f"the file holds no task {task!r}; it holds {', '.join(map(str, self.tasks)) or 'none'}.")
        return self.tasks.index(task)


def load_tasks(path: str | Path, model: nn.Module) -> SparseTasks:
    """The tasks that `save_tasks` wrote. model: of the same architecture, and not in use: it is filled with the task asked about.

    Raises StateError where the file cannot be read, is none of these, is damaged or does not fit the model.
    """
    about, tensors = _read(path, "tasks", model)
    masks = Masks(sum(math.prod(shape) for shape in about["layers"].values()))
    count = len(about["tasks"])
    _check_has(path, tensors, {"weights", "masks", *(f"classes.{place}" for place in range(count))})
    if tensors["masks"].shape != (count, masks.packed.shape[1]):
        raise StateError(f"{path} is damaged: its masks are not those of {count} tasks over {masks.weights} weights.")
    masks.packed = tensors["masks"]
    if len(tensors["weights"]) != int(masks.used().sum()):
        raise StateError(f"{path} is damaged: it has {len(tensors['weights'])} weights, its masks read another number.")
    shared = {key.removeprefix("shared."): value for key, value in tensors.items() if key.startswith("shared.")}
    for place in range(count):
        start = f"task.{place}."
        private = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        _check_whole(path, about, shared, ())
        _check_whole(path, about, private, tensors[f"classes.{place}"])
        _check_has(path, {**shared, **private}, set(about["stands"]) - set(about["layers"]))
    return SparseTasks(model, about, tensors)


def export_task(learner: Sparse, task: int, path: str | Path) -> None:
    """Write one task as a compact model, the masked weights in CSR form. Raises InputError for an unknown task, StateError."""
    weights, first = learner.weights_of(task), _first_names(learner.model)
    classes = torch.tensor(learner.classes_of(task))
    tensors = {"classes": classes}
    masked = {first[name]: name for name in learner.layout.layers}
    for name in dict.fromkeys(first.values()):
        value = weights[name].detach().cpu()
        if name in masked:
            tensors |= {f"{part}.{name}": rows for part, rows in _rows(value).items()}
        elif name in learner.layout.head and learner.answers != "all":
            tensors[f"own.{name}"] = value[classes]
        else:
            tensors[f"own.{name}"] = value
    _write(path, learner, tensors, task=task)


class OneTask(nn.Module):
    """A model that answers among the classes of one task. See `load_task`."""

    def __init__(self, model: nn.Module, classes: Tensor, answers: str):
        super().__init__()
        self.model = model
        self.answers = answers
        self.register_buffer("classes", classes)

    def forward(self, x: X) -> Tensor:
        """(batch, classes): the scores; -1e9 for classes of other tasks."""
        scores = self.model(x)
        return scores if self.answers == "all" else among(scores, self.classes)


class CSRLinear(nn.Module):
    """A linear layer whose weight lies in CSR form: time and memory go with the weights that are not 0.

    torch's own linear layer takes such a weight too, in half the time for single rows and twice the time for batches of 16 and more.

    Measured on one core beside the dense layers, Erdos-Renyi draws: 784-4096-4096-10 is at density 0.05 1.7 times as fast for single
    rows, 6 times for batches of 16, 3 times for 256; at 0.1 even for single rows (0.85), 3.5 and 1.4 times; at 0.2 it takes longer for
    single rows and for 256. 784-300-100-10 gains from batches of 16 on (1.3 to 1.9 times at 0.05, 1.1 to 1.6 at 0.1, nothing at 0.2);
    its single rows take 1.6 times as long. Convolutions are left dense.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        with warnings.catch_warnings():  # torch calls the form new; what is used of it here has been there since 1.13
            warnings.simplefilter("ignore", UserWarning)
            self.register_buffer("weight", weight.detach().to_sparse_csr())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) from (..., in)."""
        scores = (self.weight @ x.reshape(-1, x.shape[-1]).T).T
        scores = scores if self.bias is None else scores + self.bias
        return scores.reshape(*x.shape[:-1], -1)


def load_task(path: str | Path, model: nn.Module, csr: bool = False) -> OneTask:
    """The task that `export_task` wrote, as a module. model: of the same architecture; it is filled, and is part of what is returned.

    csr: keep the masked linear layers in CSR form. Predictions are then equal to rounding; else to the bit.
    Raises StateError as `load_tasks` does.
    """
    about, tensors = _read(path, "task", model)
    layers = about["layers"]
    _check_has(path, tensors, {"classes", *(f"{part}.{name}" for part in PARTS for name in layers)})
    own = {key.removeprefix("own."): value for key, value in tensors.items() if key.startswith("own.")}
    _check_whole(path, about, own, tensors["classes"])
    _check_has(path, own, set(about["stands"]) - set(layers))
    found = {name: _dense(path, [tensors[f"{part}.{name}"] for part in PARTS], shape) for name, shape in layers.items()}
    found |= {name: _whole(name, value, tensors["classes"], about, {}) for name, value in own.items()}
    model.load_state_dict(_spread(found, model))
    if csr:
        masked = {name for name, first in _first_names(model).items() if first in layers}
        for name, module in list(model.named_modules()):
            for key, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and f"{name}.{key}.weight".lstrip(".") in masked:
                    setattr(module, key, CSRLinear(child.weight, child.bias))
    device = next(model.parameters()).device
    return OneTask(model, tensors["classes"].to(device), about["answers"]).eval()


PARTS = ("start", "column", "value")


def _first_names(model: nn.Module) -> dict[str, str]:
    """{name: the first name of the same tensor} of parameters and stored buffers: what a model has under several names is kept once."""
    seen: dict[int, str] = {}
    return {name: seen.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def _spread(found: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors by their first names under all names that the model has for them, of its dtypes and on its devices."""
    stands = model.state_dict()
    moved = {name: value.to(stands[name]) for name, value in found.items()}
    return {name: moved[first] for name, first in _first_names(model).items()}


def _whole(name: str, value: Tensor, rows: Tensor, about: dict[str, Any], found: dict[str, Tensor]) -> Tensor:
    """A tensor as the model has it: of the head only a task's rows may be kept, the others are what is found, or 0."""
    shape = about["stands"][name]
    if name not in about["head"] or list(value.shape) == shape:
        return value
    return found.get(name, value.new_zeros(shape)).index_copy(0, rows, value)


def _rows(weight: Tensor) -> dict[str, Tensor]:
    """A weight in CSR form: where each row begins, the columns of what is not 0, and the numbers."""
    flat = weight.flatten(1)
    row, column = flat.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(flat))
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    narrow = torch.int16 if flat.shape[1] <= SHORT else torch.int32
    return {"start": start.int(), "column": column.to(narrow), "value": flat[row, column]}


def _dense(path: str | Path, parts: Sequence[Tensor], shape: list[int]) -> Tensor:
    """The weight of this shape that `_rows` took apart. Raises StateError where the parts contradict it."""
    start, column, value = parts
    flat = value.new_zeros(shape[0], math.prod(shape[1:]))
    counts = start.diff()
    good = len(start) == len(flat) + 1 and bool((counts >= 0).all()) and int(counts.sum()) == len(column) == len(value)
    if not good or (len(column) and not 0 <= int(column.min()) <= int(column.max()) < flat.shape[1]):
        raise StateError(f"{path} is damaged: the rows of a weight of shape {shape} do not fit it.")
    flat[torch.arange(len(flat)).repeat_interleave(counts), column.long()] = value
    return flat.reshape(shape)


def _write(path: str | Path, learner: Sparse, tensors: dict[str, Tensor], **key: Any) -> None:
    """A file of these tensors, with what a model must have to take them."""
    layout, first, stands = learner.layout, _first_names(learner.model), learner.model.state_dict()
    about = {
        "kind": KIND,
        "layers": {first[name]: list(shape) for name, shape in layout.shapes.items()},
        "stands": {name: list(stands[name].shape) for name in dict.fromkeys(first.values())},
        "head": [first[name] for name in layout.head],
        "answers": learner.answers,
        **key,
    }
    alone = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write_atomic(Path(path), save_tensors(alone, {"everlearn": json.dumps(about)}))


def _read(path: str | Path, key: str, model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what is told of it, tensors) of a file with this key. Raises StateError where it is another, or of another architecture."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("everlearn", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from error
    if about.get("kind") != KIND or key not in about:
        kind = "of all tasks (save_tasks)" if key == "tasks" else "of one task (export_task)"
        raise StateError(f"{path} is no file {kind} of a sparse learner.")
    stands = {name: list(value.shape) for name, value in model.state_dict().items()}
    stands = {name: stands[name] for name in dict.fromkeys(_first_names(model).values())}
    for name in (*about["stands"], *stands):
        told, has = about["stands"].get(name), stands.get(name)
        if told != has:
            raise StateError(
                f"{path} does not fit the model: {name!r} is {told or 'not there'} in the file, {has or 'not there'} in the model."
            )
    return about, tensors


def _check_has(path: str | Path, tensors: Mapping[str, Tensor], names: set[str]) -> None:
    """Refuse a file that lacks some of its tensors."""
    for name in sorted(names - set(tensors)):
        raise StateError(f"{path} is damaged: it lacks {name!r}.")


def _check_whole(
    path: str | Path, about: dict[str, Any], tensors: Mapping[str, Tensor], rows: Sequence[int] | Tensor
) -> None:
    """Refuse tensors of shapes that the model does not have; of the head it may be these rows (class numbers)."""
    for name, value in tensors.items():
        shape = about["stands"].get(name)
        part = [len(rows), *shape[1:]] if name in about["head"] and shape else shape
        if list(value.shape) not in (shape, part):
            raise StateError(f"{path} is damaged: {name!r} has the shape {list(value.shape)}, not {part}.")
        if name in about["head"] and len(rows) and not 0 <= int(min(rows)) <= int(max(rows)) < shape[0]:
            raise StateError(f"{path} is damaged: it names classes outside 0..{shape[0] - 1}.")
