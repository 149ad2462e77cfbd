"""Sparse sub-networks of one network, one for each task, found while training: dynamic sparse training.

    step      w <- w - rate * g   where the task's mask has w and no earlier task reads it;   w = 0 outside the mask
    update    every so many steps: drop the smallest weights of each layer, grow as many elsewhere
    task ends its new weights join the store and are frozen; later tasks may read them
    answer    store * mask of the task, with the task's own normalisation, biases and rows of the head

What a task has learned stays to the bit; the price is capacity. No rows are kept.
Reference: Yildirim et al. (2024), Continual learning with dynamic sparse training, CPAL, arXiv 2308.14831.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.flat import flat
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import TaskLearner
from everlearn.core.random import generator
from everlearn.learners.sparse_layout import Layout, among
from everlearn.learners.sparse_scores import Scores
from everlearn.learners.sparse_steps import BestPass, Steps
from everlearn.learners.sparse_topology import Topology, densities
from everlearn.nn.growth import moment_of
from everlearn.nn.masks import Masks, highest
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Adam, Optimizer

CHOICES = {
    "method": ("dst", "packnet", "wsn"),
    "free_weights": ("fresh", "zero"),
    "regrown": ("restore", "zero"),
    "normalisation": ("per_task", "shared"),
    "head": ("own", "shared"),
    "answers": ("task", "all"),
    "infer_task": (None, "max_output"),
    "keep": ("last", "best_train"),
}
DECAYED = 0.1  # of the rate is left at each point of `decay`
OPEN = ("mask", "fired", "at", "step", "chosen", "scores", "best")  # state of the open task


class Sparse(TaskLearner):
    """One network, a mask per task: weights of earlier tasks are frozen, and read where the mask has them. Needs boundaries.

    model: maps x to (batch, classes) scores; convolutions and linear layers of any kind are masked, the last linear layer is the head.
    density: part of the weights that a task reads. init: "erk" (Erdos-Renyi: small layers dense), "uniform" or "auto".
    growth: "random", "unfired", "gradient", "momentum", "none" (a static mask) or "auto"; removal: "magnitude", "sign", "taylor".
    rate: part of each layer's active weights removed at the first and last update, along a half cosine (schedule="cosine",
    "linear" or "constant") over `task_steps` steps; update_every: steps between updates. The published runs take 400, with
    7,900 steps a task; short tasks do best with growth="none".
    isolate: freeze what earlier tasks read; share: let a task read it. exact: meet the density exactly, not on average.
    free_weights: unused weights begin a task from their initial draw ("fresh") or from 0 ("zero"); regrown: a frozen weight that
    grows is there at once ("restore") or only when the task is asked about ("zero"); normalisation: "per_task" or "shared";
    head: rows of the task's "own", dense, or masked and frozen with the other weights ("shared"); answers: among the classes of
    the "task" or "all". Released code has zero, zero, shared, shared, all; the study `dst` says what each costs or gains.
    infer_task: "max_output" takes the task whose network has the largest mean maximum score on the rows asked about.
    method: "packnet" trains all free weights for half of `task_steps`, keeps the largest, and trains those on; "wsn" learns a score for
    every weight, used ones too, and takes the highest at each step. With either, growth and removal do nothing.
    decay: shares of `task_steps` after which the rate falls tenfold, (0.5, 0.75) in released code; keep: "last", or "best_train", the
    weights and mask after the pass with the most right answers (released code; needs boundaries with the rows). floor: of
    init="auto"; optimizer, seed: as everywhere, the optimiser begins anew with each task.

    >>> import torch
    >>> from everlearn import Batch, Boundary, Sparse
    >>> learner = Sparse(torch.nn.Sequential(torch.nn.Linear(4, 20), torch.nn.ReLU(), torch.nn.Linear(20, 4)), density=0.1)
    >>> for task in range(2):
    ...     learner.boundary(Boundary(task, classes=(2 * task, 2 * task + 1)))
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.full((8,), 2 * task)))
    >>> learner.predict_in(torch.ones(1, 4), 0).argmax().item(), int(learner.mask_of(0).sum()), len(learner.layers)
    (0, 8, 1)

    Reference: Yildirim et al. (2024), arXiv 2308.14831; Mallya & Lazebnik (2018), PackNet, arXiv 1711.05769; Kang et al. (2022),
    Winning subnetworks, ICML.
    Differs from the paper in: the switches above; growth and removal keep their numbers exactly, whatever the ties; a task that is
    announced again goes on in its own mask, with the weights that no other task reads. A batch that tells another task than the
    open one announces it, with all classes.
    """

    name = "sparse"
    parts = ("descent", "guard", "masks", "order", "columns", "kept", "stored", *OPEN)
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        density: float = 0.2,
        init: str = "erk",
        growth: str = "random",
        removal: str = "magnitude",
        rate: tuple[float, float] = (0.5, 0.005),
        schedule: str = "cosine",
        update_every: int = 400,
        task_steps: int = 1000,
        isolate: bool = True,
        share: bool = True,
        exact: bool = True,
        free_weights: str = "fresh",
        regrown: str = "restore",
        normalisation: str = "per_task",
        head: str = "own",
        answers: str = "task",
        infer_task: str | None = None,
        method: str = "dst",
        floor: float = 0.2,
        decay: tuple[float, ...] = (),
        keep: str = "last",
        optimizer: Optimizer = Adam(),
        seed: int = 0,
    ):
        given = {"method": method, "free_weights": free_weights, "regrown": regrown, "normalisation": normalisation}
        given |= {"head": head, "answers": answers, "infer_task": infer_task, "keep": keep}
        for argument, value in given.items():
            if value not in CHOICES[argument]:
                known = ", ".join(map(repr, CHOICES[argument]))
                raise ArgumentError(f"sparse: {argument} must be one of {known}, got {value!r}.")
        if growth in ("momentum", "auto") and isinstance(optimizer, SGD) and not optimizer.momentum:
            raise ArgumentError(
                f"sparse: growth={growth!r} grows by momentum, and this optimiser keeps none. Use adam() or sgd(momentum=0.9)."
            )
        self.density, self.init, self.growth, self.removal = density, init, growth, removal
        self.rate, self.schedule, self.update_every, self.task_steps = rate, schedule, update_every, task_steps
        self.isolate, self.share, self.exact, self.floor = bool(isolate), bool(share), bool(exact), floor
        self.free_weights, self.regrown, self.normalisation = free_weights, regrown, normalisation
        self.head, self.answers, self.infer_task, self.method = head, answers, infer_task, method
        if not isinstance(decay, (tuple, list)):
            raise ArgumentError(f"sparse: decay must be shares of a task, got {decay!r}. Use decay=(0.5, 0.75), or ().")
        for share in decay:
            check_range(self.name, "decay", share, 0.0, 1.0)
        self.decay, self.keep = decay, keep
        self.optimizer = optimizer
        self.seed = seed
        self.infers_task = infer_task is not None
        self.topology = Topology(
            density, init, growth, removal, rate, schedule, update_every, task_steps, exact, share, isolate, floor
        )
        self.descent = Descent(model, optimizer, seed)
        self.layout = Layout(self.name, model, head == "own", normalisation == "per_task")
        self.topology.check(self.name, self.layout.shapes)
        outputs = count_outputs(model)
        if outputs is None:
            raise ArgumentError("sparse: the network needs a last linear layer, whose rows are the classes.")
        self.outputs = outputs
        self.guard = Guard(self.name, outputs, model=model)
        self.masks = Masks(self.layout.size)  # of the tasks that have ended, in the order in which they did so first
        self.order: list[int] = []  # the numbers of all tasks, in the order of their announcement
        self.columns: list[list[int]] = []  # the classes of each
        self.kept: list[dict[str, Tensor]] = []  # what each ended task keeps for itself
        self.stored = self.layout.row()  # (weights,) what ended tasks learned; the initial draw where none reads it
        self.mask: Tensor | None = None  # (weights,) bool, of the open task
        self.fired: Tensor | None = None  # (weights,) bool: active at any time in the open task
        self.at = -1  # the open task's place in `order`; -1 where none is open
        self.step = 0  # of the open task
        self.chosen: list[dict[str, str]] = []  # how each task's mask was drawn, and how each layer grows last
        self.scores: Scores | None = None
        if method == "wsn":
            shares = densities("uniform" if init == "uniform" else "erk", self.layout.shapes, density)
            self.scores = Scores(self.layout.shapes, shares, optimizer.lr)
        self.best = BestPass() if keep == "best_train" else None
        self._steps = Steps(self.descent, self.layout, masks_momentum=growth not in ("momentum", "auto"))
        self.restored()

    def restored(self) -> None:
        """Derive what steps need from the state."""
        device = self.stored.device
        others = [self.masks[place] for place in range(len(self.masks)) if place != self.at]
        held = torch.zeros(self.layout.size, dtype=torch.bool)
        for mask in others:
            held |= mask
        self._held = held.to(device)  # (weights,) bool: what tasks other than the open one read
        self._frozen = self._held if self.isolate and bool(held.any()) else None
        self._evolves = self.at == len(self.kept)  # a task that was announced again keeps its mask
        columns = self.columns[self.at] if self.at >= 0 else []
        self._columns = torch.tensor(columns, dtype=torch.int64, device=device)
        self._position = torch.full((self.outputs,), -1, dtype=torch.int64, device=device)
        self._position[self._columns] = torch.arange(len(columns), device=device)
        self._activate()

    def _activate(self) -> None:
        """Derive what steps need from the open task's mask."""
        fixed = self.method == "dst" and (self.growth == "none" or not self._evolves)
        still = torch.zeros_like(self._held) if self._frozen is None else self._frozen
        if self.mask is not None and fixed:
            still = still | ~self.mask  # what never moves need not be set to 0 after each step
        self._steps.allow(still, None if fixed else self.mask, self._frozen, self._columns)
        self._asked: dict[int, dict[str, Tensor]] = {}  # the weights of the task asked about last

    @property
    def model(self) -> nn.Module:
        """The network, with the weights of the task announced last."""
        return self.descent.model

    @property
    def layers(self) -> dict[str, slice]:
        """The masked layers by name, and their places in the row of weights."""
        return self.layout.layers

    @property
    def tasks(self) -> tuple[int, ...]:
        return tuple(self.order)

    def mask_of(self, task: int) -> Tensor:
        """(weights,) bool: what a task reads, the one being learned as it stands."""
        place = self._known(task)
        return self.mask.clone() if place == self.at else self.masks[place].to(self.stored.device)

    def _known(self, task: int) -> int:
        """The place of a task. Raises InputError where it was never announced."""
        if task not in self.order:
            known = ", ".join(map(str, self.order)) or "none"
            raise InputError(f"{self.name}: task {task!r} was never announced; known: {known}.")
        return self.order.index(task)

    def used(self) -> Tensor:
        """(weights,) bool: what any task reads, the one being learned included."""
        return self._held if self.mask is None else self._held | self.mask

    def classes_of(self, task: int) -> tuple[int, ...]:
        """The classes that a task tells apart."""
        return tuple(self.columns[self._known(task)])

    def values(self) -> Tensor:
        """(weights,) what every task learned, the open one included, each weight once; the initial draw where none reads it."""
        if self.mask is None:
            return self.stored
        # a frozen weight has its stored value, also where it was trained with 0 in its place
        mine = self.mask if self._frozen is None else self.mask & ~self._frozen
        return torch.where(mine, self.layout.row(), self.stored)

    def private_of(self, task: int) -> dict[str, Tensor]:
        """What a task keeps for itself: biases, normalisation and such by their names in the model, and its own rows of the head."""
        place = self._known(task)
        return self.layout.private(self._rows(place)) if place == self.at else dict(self.kept[place])

    def weights_of(self, task: int) -> dict[str, Tensor]:
        """Every parameter and buffer with which a task is answered, by its name in the model: weights outside the mask are 0."""
        place = self._known(task)
        tensors = {name: tensor.detach() for name, tensor in self.layout.tensors().items()}
        for name, values in zip(self.layers, self.layout.cut(self.values() * self.mask_of(task)), strict=True):
            copy = torch.empty_like(tensors[name]).copy_(values)
            tensors |= dict.fromkeys(self.layout.names[name], copy)
        if place != self.at:
            self.layout.put(tensors, self.kept[place], self._rows(place))
        return {name: tensors[first] for name, first in self.layout.first.items()}

    def _rows(self, place: int) -> Tensor:
        return torch.tensor(self.columns[place], device=self.stored.device)

    def predict(self, x: X) -> Tensor:
        """The scores of the only task, or of the task that is inferred. Raises InputError where there are several to choose from."""
        self.guard.inputs(x)
        if not self.order:
            return self.descent.predict(x)
        if len(self.order) == 1:
            return self.predict_in(x, self.order[0])
        if not self.infers_task:
            raise InputError(
                f"{self.name}: {len(self.order)} tasks are known, and it was not told which is asked about. "
                "Use predict_in(x, task), or infer_task='max_output'."
            )
        answers = [self.predict_in(x, task) for task in self.order]
        return max(answers, key=lambda scores: float(scores.amax(1).mean()))

    def predict_in(self, x: X, task: int) -> Tensor:
        self.guard.inputs(x)
        place = self._known(task)
        if task not in self._asked:
            self._asked = {task: self.weights_of(task)}
        if self.model.training:
            self.model.eval()
        with torch.no_grad():
            scores = functional_call(self.model, self._asked[task], (x,), tie_weights=False)  # all are given
        return scores if self.answers == "all" else among(scores, self._rows(place))

    def update(self, batch: Batch) -> Metrics:
        self._check(batch)
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        if self._opens(batch):
            self._end()
            self._begin(len(self.order) if batch.task is None else batch.task, ())
        self._asked = {}
        columns = self.columns[self.at]
        y = self._position[batch.y]
        scores = y

        def loss() -> Tensor:
            nonlocal scores
            scores = self.model(batch.x)
            return cross_entropy(scores if len(columns) == scores.shape[1] else scores[:, self._columns], y)

        value, gradients = self.descent.gradients(loss)
        self._follow(gradients)
        if self.best is not None:
            right = scores.detach()[:, self._columns].argmax(1) == y
            if self.best.count(int(right.sum()), len(y)):
                self.best.put(self.layout.row(), self.mask, self.layout.private(self._columns))
        return {"loss": value}

    def _opens(self, batch: Batch) -> bool:
        """Whether a batch begins a task by telling another number than the open one's."""
        return self.mask is None or (batch.task is not None and batch.task != self.order[self.at])

    def _check(self, batch: Batch) -> None:
        """Refuse labels that the open task does not have."""
        y = batch.y if isinstance(batch, Batch) else None
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.ndim != 1 or self._opens(batch):
            return
        foreign = y[self._position[y.clamp(0, self.outputs - 1)] < 0]  # what is out of range the guard refuses
        if len(foreign):
            raise InputError(
                f"{self.name}: label {int(foreign[0])} is not among the classes of task {self.order[self.at]}. "
                "Announce a task with Boundary(task, classes=...)."
            )

    def _follow(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of the weights that may move, and where it is due one of the topology."""
        self.step += 1
        if self.decay:
            self.descent.scale(DECAYED ** sum(self.step > share * self.task_steps for share in self.decay))
        due = self._evolves and self.topology.due(self.step) and self.method == "dst"
        scored = self._evolves and self.scores is not None
        dense = self._steps.take(gradients, wanted=due or scored)
        with torch.no_grad():
            if due:
                self._rewire(dense)
            elif scored:
                self._change(self.scores.step(flat(dense), self.layout.row(), self.mask), self.scores.latent)
            elif self.method == "packnet" and self._evolves and self.step == max(1, self.task_steps // 2):
                self._prune()

    def _rewire(self, gradients: Sequence[Tensor]) -> None:
        """Removal and growth in every layer."""
        random = generator(self.seed, "growth", len(self.order), self.step)
        cut, weights = self.layout.cut, self.layout.weights
        current = [mask.clone() for mask in cut(self.mask)]
        choices = {}
        for layer, mask, used, fired, weight, gradient in zip(
            self.layers, current, cut(self._held), cut(self.fired), weights, gradients, strict=True
        ):
            choices[layer] = self.topology.chosen_growth(used)
            moment = moment_of(self.descent.optimizer, weight) if choices[layer] == "momentum" else None
            mask.copy_(
                self.topology.evolve(
                    self.step, mask, weight, used=used, gradient=gradient, moment=moment, fired=fired, random=random
                )
            )
        self.chosen[self.at] |= choices
        self._change(flat(current))

    def _prune(self) -> None:
        """PackNet's: of the free weights of each layer, keep the largest, as many as the density allows."""
        kept = [mask.clone() for mask in self.layout.cut(self.mask)]
        for mask, used, weight in zip(kept, self.layout.cut(self._held), self.layout.weights, strict=True):
            free = mask & ~used
            many = min(int(free.sum()), round(self.density * mask.numel()))
            mask.copy_((mask & used) | highest(weight.abs().masked_fill(~free, -1.0), many))
        self._change(flat(kept))

    def _change(self, mask: Tensor, values: Tensor | None = None) -> None:
        """Another mask for the open task: what is no longer in it becomes 0, what is new 0, its value or the frozen value."""
        new, lost = mask & ~self.mask, self.mask & ~mask
        row = self.layout.row().masked_fill(lost, 0.0)
        if values is not None:
            row = torch.where(new, values, row)
        if self._frozen is not None and self.regrown == "restore":
            row = torch.where(new & self._frozen, self.stored, row)
        self.layout.write(row)
        self.mask = mask
        self.fired = self.fired | mask
        self._activate()

    def boundary(self, boundary: Boundary) -> None:
        """A task ends and another begins. Raises InputError for classes that the network does not have."""
        wrong = [label for label in boundary.classes if not 0 <= label < self.outputs]
        if wrong:
            raise InputError(
                f"{self.name}: the boundary names class {wrong[0]}; the network has classes 0..{self.outputs - 1}."
            )
        best = None
        if self.best is not None:
            best = BestPass()
            best.hear(self.name, boundary)
        self._end()
        self.best = best
        self._begin(len(self.order) if boundary.task is None else boundary.task, boundary.classes)

    def _begin(self, task: int, classes: Sequence[int]) -> None:
        """Open a task: its mask, and the weights that it starts from."""
        device = self.stored.device
        if task in self.order:
            self.at = self.order.index(task)
            self.mask = self.masks[self.at].to(device)
            self._resume(self.at)
        else:
            self.at = len(self.order)
            self.order.append(task)
            self.columns.append(sorted(set(classes)) if classes else list(range(self.outputs)))
            if self.method == "packnet":
                self.mask, init = torch.ones(self.layout.size, dtype=torch.bool, device=device), "dense"
            elif self.scores is not None:
                self.scores.begin(self.stored, generator(self.seed, "scores", self.at))
                self.mask, init = self.scores.mask(), "scores"
            else:
                used = self.layout.cut(self._held.cpu())
                init = self.topology.chosen_init(self.layout.shapes, used)
                drawn = self.topology.draw(self.layout.shapes, used, generator(self.seed, "mask", self.at))
                self.mask = flat(drawn).to(device)
            self.chosen.append({"init": init})
        self.fired = self.mask.clone()
        self.step = 0
        self.layout.write(self.stored * self.mask)
        self.descent.restart()
        self.restored()

    def _resume(self, place: int) -> None:
        """Give the network back what a task keeps for itself."""
        tensors = self.layout.tensors()
        values: dict[str, Tensor] = dict(tensors)
        self.layout.put(values, self.kept[place], self._rows(place))
        with torch.no_grad():
            for name in (*self.layout.own, *self.layout.head):
                tensors[name].copy_(values[name])

    def _end(self) -> None:
        """Close the open task: what it learned joins the store."""
        if self.mask is None:
            return
        row, mask, private = self.layout.row(), self.mask, self.layout.private(self._columns)
        if self.best is not None and self.best.row is not None:
            row, mask, private = self.best.row, self.best.mask, self.best.private
        self.best = None if self.best is None else BestPass()
        mine = mask if self._frozen is None else mask & ~self._frozen
        self.stored = torch.where(mine, row, self.stored)
        if self._evolves:
            self.masks.append(mask.cpu())
            self.kept.append(private)
        else:
            self.kept[self.at] = private
        if self.free_weights == "zero":
            self.stored = self.stored * self.masks.used().to(self.stored.device)
        self.mask, self.at = None, -1
        self.restored()
