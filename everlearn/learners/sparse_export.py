"""What a sparse learner has learned in few bytes: all its tasks in one file, or one task as a model of its own.

    all tasks   each weight that some task reads once, one bit per weight and task, and what each task keeps for itself
    one task    its weights as rows in compressed form (CSR): the numbers, their columns, and where each row begins

Files are safetensors. What is loaded answers to the bit as the learner did; it does not learn on (a run's snapshots do).
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.func import functional_call

from everlearn.core.errors import InputError, StateError
from everlearn.core.events import X
from everlearn.core.flat import cut
from everlearn.core.state import write_atomic
from everlearn.learners.sparse import FLOOR, Sparse
from everlearn.nn.masks import Masks

KIND = "everlearn.sparse"


def compact(learner: Sparse) -> dict[str, Tensor]:
    """The tensors of a file of all tasks: weights (used,), masks (tasks, bytes), classes.N, task.N.NAME and shared.NAME."""
    masks = Masks(learner.layout.size)
    for task in learner.tasks:
        masks.append(learner.mask_of(task).cpu())
    used = masks.used()
    found = {"weights": learner.values().cpu()[used], "masks": masks.packed}
    for place, task in enumerate(learner.tasks):
        found[f"classes.{place}"] = torch.tensor(learner.classes_of(task))
        found |= {f"task.{place}.{name}": value.cpu() for name, value in learner.private_of(task).items()}
    layout = learner.layout
    covered = {*layout.own, *(name for names in layout.names.values() for name in names)}
    covered |= set() if learner.answers == "all" else set(layout.head)
    rest = {name: value for name, value in learner.model.state_dict().items() if name not in covered}
    return found | {f"shared.{name}": value.detach().cpu() for name, value in rest.items()}


def byte_report(learner: Sparse) -> dict[str, Any]:
    """Bytes of a file of all tasks by kind, and their share of as many dense models.

    Keys: weights, masks, heads, own (normalisation, biases and whatever else each task keeps), shared, total, dense, share.
    """
    found, head = compact(learner), set(learner.layout.head)
    kinds = dict.fromkeys(("weights", "masks", "heads", "own", "shared"), 0)
    for name, tensor in found.items():
        first, *rest = name.split(".", 2)
        kind = {"weights": "weights", "masks": "masks", "shared": "shared", "classes": "heads"}.get(first)
        kind = kind or ("heads" if rest[-1] in head else "own")
        kinds[kind] += tensor.numel() * tensor.element_size()
    total = sum(kinds.values())
    dense = len(learner.tasks) * sum(value.numel() * value.element_size() for value in learner.model.state_dict().values())
    return kinds | {"total": total, "dense": dense, "share": total / dense if dense else math.nan}


def save_tasks(learner: Sparse, path: str | Path) -> None:
    """Write all tasks to one file, wholly or not at all. Raises StateError where it cannot be written."""
    layout = learner.layout
    about = {
        "kind": KIND,
        "tasks": list(learner.tasks),
        "layers": {name: list(shape) for name, shape in layout.shapes.items()},
        "names": layout.names,
        "head": list(layout.head),
        "answers": learner.answers,
    }
    tensors = {name: tensor.contiguous() for name, tensor in compact(learner).items()}
    write_atomic(Path(path), save_tensors(tensors, {"everlearn": json.dumps(about)}))


class SparseTasks:
    """The tasks of a file, to be asked. See `load_tasks`."""

    def __init__(self, model: nn.Module, about: dict[str, Any], tensors: dict[str, Tensor]):
        self.model = model.eval()
        self.about = about
        self.tensors = tensors
        self.masks = Masks(sum(math.prod(shape) for shape in about["layers"].values()))
        self.masks.packed = tensors["masks"]
        self.values = torch.zeros(self.masks.weights)
        self.values[self.masks.used()] = tensors["weights"]

    @property
    def tasks(self) -> tuple[int, ...]:
        """The numbers of the tasks."""
        return tuple(self.about["tasks"])

    def classes_of(self, task: int) -> tuple[int, ...]:
        """The classes that a task tells apart."""
        return tuple(self.tensors[f"classes.{self._known(task)}"].tolist())

    def weights_of(self, task: int) -> dict[str, Tensor]:
        """Every parameter and buffer with which a task is answered, by its name in the model."""
        place = self._known(task)
        found = dict(self.model.state_dict())
        found |= {name.removeprefix("shared."): value for name, value in self.tensors.items() if name.startswith("shared.")}
        likes = [found[name] for name in self.about["layers"]]
        for name, values in zip(self.about["layers"], cut(self.values * self.masks[place], likes), strict=True):
            copy = torch.empty_like(found[name]).copy_(values)
            found |= dict.fromkeys(self.about["names"][name], copy)
        rows = self.tensors[f"classes.{place}"]
        start = f"task.{place}."
        for key, value in self.tensors.items():
            name = key.removeprefix(start)
            if key.startswith(start):
                found[name] = found[name].index_copy(0, rows, value) if name in self.about["head"] else value
        return found

    def predict_in(self, x: X, task: int) -> Tensor:
        """Scores (batch, classes) among the classes of one task. Raises InputError for an unknown one."""
        with torch.no_grad():
            scores = functional_call(self.model, self.weights_of(task), (x,))
        rows = self.tensors[f"classes.{self._known(task)}"]
        if self.about["answers"] == "all" or len(rows) == scores.shape[1]:
            return scores
        return torch.full_like(scores, FLOOR).index_copy(1, rows, scores[:, rows])

    def _known(self, task: int) -> int:
        if task not in self.tasks:
            raise InputError(f"the file holds no task {task!r}; it holds {', '.join(map(str, self.tasks)) or 'none'}.")
        return self.tasks.index(task)


def load_tasks(path: str | Path, model: nn.Module) -> SparseTasks:
    """The tasks that `save_tasks` wrote, for a model of the same architecture, whose own weights do not matter.

    Raises StateError where the file cannot be read, is none of these, or does not fit the model.
    """
    about, tensors = _read(path, "tasks")
    stands = model.state_dict()
    for name, shape in about["layers"].items():
        if name not in stands or list(stands[name].shape) != shape:
            has = list(stands[name].shape) if name in stands else "none"
            raise StateError(f"{path} does not fit the model: its layer {name!r} is {shape}, that of the model {has}.")
    return SparseTasks(model, about, tensors)


def export_task(learner: Sparse, task: int, path: str | Path) -> None:
    """Write one task as a compact model, the masked weights in CSR form. Raises InputError for an unknown task, StateError."""
    weights = learner.weights_of(task)
    tensors: dict[str, Tensor] = {"classes": torch.tensor(learner.classes_of(task))}
    masked = learner.layout.names
    again = {other for names in masked.values() for other in names}
    for name in learner.model.state_dict():
        if name in masked:
            tensors |= {f"{name}:{part}": value for part, value in _rows(weights[name].detach().cpu()).items()}
        elif name not in again:
            tensors[name] = weights[name].detach().cpu()
    shapes = {name: list(shape) for name, shape in learner.layout.shapes.items()}
    about = {"kind": KIND, "task": task, "layers": shapes, "names": masked, "answers": learner.answers}
    write_atomic(
        Path(path), save_tensors({name: t.contiguous() for name, t in tensors.items()}, {"everlearn": json.dumps(about)})
    )


class OneTask(nn.Module):
    """A model that answers among the classes of one task. See `load_task`."""

    def __init__(self, model: nn.Module, classes: Tensor, among_all: bool):
        super().__init__()
        self.model = model
        self.among_all = among_all
        self.register_buffer("classes", classes)

    def forward(self, x: X) -> Tensor:
        """(batch, classes): the scores; -1e9 for classes of other tasks."""
        scores = self.model(x)
        if self.among_all:
            return scores
        return torch.full_like(scores, FLOOR).index_copy(1, self.classes, scores[:, self.classes])


class CSRLinear(nn.Module):
    """A linear layer whose weight lies in CSR form: time and memory go with the weights that are not 0.

    Measured on one core beside the dense layer: at 1024 x 1024 and above, 1.5 to 10 times as fast at density 0.05, about even at 0.1
    to 0.2 for single rows and for batches of 256; at 784 x 300 it pays from batches of 64 and densities of 0.05 down, and single
    rows take half as long again. Convolutions are left dense.
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
    about, tensors = _read(path, "task")
    stands = model.state_dict()
    filled = {name: value for name, value in tensors.items() if ":" not in name and name != "classes"}
    for name, shape in about["layers"].items():
        dense = _dense(str(path), {part: tensors[f"{name}:{part}"] for part in PARTS}, shape)
        filled |= dict.fromkeys(about["names"][name], dense)
    wrong = [name for name in stands if name not in filled or filled[name].shape != stands[name].shape]
    if wrong or set(filled) - set(stands):
        raise StateError(f"{path} does not fit the model: {(wrong or sorted(set(filled) - set(stands)))[0]!r} differs.")
    model.load_state_dict(filled)
    if csr:
        masked = {name for names in about["names"].values() for name in names}
        for name, module in list(model.named_modules()):
            for key, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and f"{name}.{key}.weight".lstrip(".") in masked:
                    setattr(module, key, CSRLinear(child.weight, child.bias))
    return OneTask(model, tensors["classes"], about["answers"] == "all").eval()


PARTS = ("start", "column", "value")


def _rows(weight: Tensor) -> dict[str, Tensor]:
    """A weight in CSR form: where each row begins, the columns of what is not 0, and the numbers."""
    flat = weight.flatten(1)
    row, column = flat.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(flat))
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return {"start": start.int(), "column": column.int(), "value": flat[row, column]}


def _dense(path: str, parts: dict[str, Tensor], shape: list[int]) -> Tensor:
    """The weight of this shape that `_rows` took apart. Raises StateError where the parts contradict it."""
    flat = torch.zeros(shape[0], math.prod(shape[1:]))
    start, column, value = (parts[part] for part in PARTS)
    counts = start.diff()
    good = len(start) == len(flat) + 1 and bool((counts >= 0).all()) and int(counts.sum()) == len(column) == len(value)
    if not good or (len(column) and not 0 <= int(column.min()) <= int(column.max()) < flat.shape[1]):
        raise StateError(f"{path} is damaged: the rows of a weight of shape {shape} do not fit it.")
    flat[torch.arange(len(flat)).repeat_interleave(counts), column.long()] = value
    return flat.reshape(shape)


def _read(path: str | Path, key: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what is told of it, tensors) of a file with this key."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("everlearn", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from error
    if about.get("kind") != KIND or key not in about:
        kind = "of all tasks (save_tasks)" if key == "tasks" else "of one task (export_task)"
        raise StateError(f"{path} is no file {kind} of a sparse learner.")
    return about, tensors
