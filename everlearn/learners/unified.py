"""Any objective of a task loss, output terms and weight terms, learned from a stream: methods as settings that combine.

    loss = task loss + sum_k weight_k D_k(h_k(x'), z_k) + sum_j weight_j D_j(w, anchor_j)

Reference: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, join, rows
from everlearn.core.flat import cut
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.learners.importance import Springs, importance_of_rows, rows_of_task
from everlearn.learners.lwf import Former
from everlearn.learners.objective import Objective, OutputTerm
from everlearn.learners.output_penalty import binary_task_loss, output_penalty
from everlearn.learners.presets import derpp
from everlearn.learners.variational import Posterior
from everlearn.nn.bregman import LogNorm
from everlearn.nn.features import features, scores_and_features
from everlearn.nn.mean_field import MeanField
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer

LOG = logging.getLogger("everlearn.learners.unified")
CAPACITY = 500
Gradients = Sequence[Tensor | None]


@dataclass
class Step:
    """What one step looks at: all rows through one forward pass, and which of them each term is about."""

    x: X  # the batch, a draw that terms of source "both" share, and a draw for each term of source "memory"
    sizes: list[int]  # rows of these parts
    task: slice
    labels: Tensor  # of the task's rows
    terms: list[tuple[int, OutputTerm, slice, Tensor | None, Tensor | None]]  # number, rows, what they are held to, classes
    allowed: Tensor | None = None  # (classes,) 1 for those in a binary task loss


class Unified(Learner):
    """Learns by any objective: write down, mix and compare methods as data.

    model: maps x to (batch, classes) scores; objective: `objective(...)` or `preset("ewc", strength=20)`, by default that of
    `derpp`; capacity: rows kept in all for replay and for importances, None for 500 where a term remembers rows; replay_batch:
    rows in each draw, 32 as in `replay`; keep: which rows stay; fisher_samples: rows of the present task kept, by reservoir, for
    importances taken at its end; optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per batch, each with draws of its
    own. Terms of weight 0 are left out altogether. Under sgd the springs of a term are capped at 1 / lr, shared among the terms,
    except under a natural step. Terms about the old model or the last task are 0 until a change is announced.

    >>> import torch
    >>> from everlearn import Batch, Boundary, Unified, preset
    >>> learner = Unified(torch.nn.Linear(4, 3), preset("lwf"))
    >>> batch = Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
    >>> sorted(learner.update(batch)), learner.boundary(Boundary(task=1)), sorted(learner.update(batch))
    (['loss'], None, ['loss', 'output_1', 'task'])

    Reference: Wang et al. (2024), arXiv 2403.13249.
    Differs from the paper in: an objective is a list of terms, each with the order of its divergence; how predictions are made
    (nearest means of exemplars, say) stands outside it, the network's scores answer.
    """

    name = "unified"
    parts = ("descent", "guard", "memory", "sample", "former", "springs", "posterior", "tasks", "learned")

    def __init__(
        self,
        model: nn.Module,
        objective: Objective = derpp(),
        *,
        capacity: int | None = None,
        replay_batch: int = 32,
        keep: Rule = Reservoir(),
        fisher_samples: int = 200,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        if not isinstance(objective, Objective):
            raise ArgumentError(
                f"{self.name}: objective must be an objective such as preset('ewc', strength=20), got {objective!r}."
            )
        if capacity is not None:
            check_count(self.name, "capacity", capacity, low=0)
        check_count(self.name, "replay_batch", replay_batch)
        check_count(self.name, "fisher_samples", fisher_samples)
        check_count(self.name, "passes", passes)
        self.objective = objective
        self.capacity = capacity
        self.replay_batch = replay_batch
        self.keep = keep
        self.fisher_samples = fisher_samples
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.outputs = [(number, term) for number, term in enumerate(objective.output, 1) if term.weight > 0]
        held = [(number, term) for number, term in enumerate(objective.weight, 1) if term.weight > 0]
        drawn = [(number, term) for number, term in held if isinstance(term.potential, LogNorm)]
        sprung = [(number, term) for number, term in held if not isinstance(term.potential, LogNorm)]
        self.network = model
        self.descent = Descent(MeanField(model) if drawn else model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.posterior = Posterior(self.descent.model, drawn[0][1].weight) if drawn else None
        self.variational = drawn[0][0] if drawn else None  # the number of its term
        natural = objective.natural
        limited = isinstance(optimizer, SGD) and optimizer.lr > 0 and natural is None
        steepest = 1.0 / (optimizer.lr * len(sprung)) if limited and sprung else float("inf")
        extra = natural / len(sprung) if natural and sprung else 0.0
        self.springs = [Springs(term, weights, steepest, extra, number) for number, term in sprung]
        self.tasks = 0  # changes at which something had been learned
        self.learned = 0  # steps taken by the last of them
        self.shared = objective.source == "both" or any(term.source == "both" for _, term in self.outputs)
        self.draws = self.shared + sum(term.source == "memory" for _, term in self.outputs)
        self.sampling = any(spring.kind for spring in self.springs)
        self.sample = rows_of_task(fisher_samples, seed, 0) if self.sampling else None
        self.memory = self._remember() if self.draws else None
        self.stores_scores = any(term.target == "stored_logits" for _, term in self.outputs)
        self.distils = any(term.target == "old_model" for _, term in self.outputs)
        counted = self.distils or objective.task_classes != "all" or any(term.classes != "all" for _, term in self.outputs)
        self.former = Former(model) if counted else None
        ends = any(spring.term.reference != "start" for spring in self.springs) or drawn
        past = self.distils or objective.task_classes == "new" or any(term.classes == "old" for _, term in self.outputs)
        self.needs_boundaries = bool(ends or past)
        if self.distils:
            LOG.info("%s: terms about the old model are 0 until a change is announced.", self.name)

    def _remember(self) -> Memory:
        """The replay memory: what the sample for importances leaves of the capacity."""
        total = CAPACITY if self.capacity is None else self.capacity
        own = total - (self.fisher_samples if self.sampling else 0)
        remembering = [term for _, term in self.outputs if term.source != "current"]
        if own < 1:
            blamed = repr(remembering[0]) if remembering else "the task loss of source='both'"
            taken = f" and {self.fisher_samples} rows go to fisher_samples" if self.sampling else ""
            raise ArgumentError(
                f"{self.name}: {blamed} looks at rows remembered, but capacity={total}{taken}. Use a larger capacity."
            )
        return Memory(own, keep=self.keep, seed=self.seed)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        x, y = batch.x, batch.y
        if self.former is not None:
            self.former.hear(y)
        for _ in range(self.passes):
            values, logits = self._step(x, y)
        if self.memory is not None:
            self.memory.insert(x=x, y=y, **({"logits": logits} if self.stores_scores else {}))
        if self.sample is not None:
            self.sample.insert(x=x, y=y)
        return values

    def _step(self, x: X, y: Tensor) -> tuple[Metrics, Tensor]:
        """One gradient step: (the value of each part of the loss, the scores of the batch before the step)."""
        step, descent = self._plan(x, y), self.descent
        pulling = [spring for spring in self.springs if spring.pulling]
        paths = [spring for spring in self.springs if spring.path is not None]
        inside = (
            pulling if descent.ascent is not None else []
        )  # springs that an ascent must see; else their pull is added below
        alone = bool(
            paths and (step.terms or inside or self.posterior is not None)
        )  # take the task's own gradient for its path
        kept: dict[str, Tensor] = {}
        slopes: Gradients = ()

        def loss() -> Tensor:
            nonlocal slopes
            value = self._data_loss(step, kept)
            if alone:
                slopes = torch.autograd.grad(kept["task"], descent.parameters, retain_graph=True, allow_unused=True)
            for spring in inside:
                kept[f"weight_{spring.number}"] = penalty = spring.penalty()
                value = value + penalty
            if self.posterior is not None:
                kept[f"weight_{self.variational}"] = penalty = self.posterior.penalty()
                value = value + penalty
            return value

        if self.posterior is not None:
            descent.model.draw(generator(self.seed, "weights", descent.steps))
        value, gradients = descent.gradients(loss)
        slopes = slopes if alone else gradients
        for spring in pulling[len(inside) :]:
            kept[f"weight_{spring.number}"], gradients = spring.added(gradients)
            value = value + kept[f"weight_{spring.number}"]
        if self.objective.natural is not None and pulling:
            gradients = self._natural(gradients, pulling)
        self._follow(gradients, slopes, paths)
        if self.posterior is not None:
            descent.model.still()
        own = kept.pop("own").detach()
        parts = {key: part.detach() for key, part in kept.items()} if len(kept) > 1 else {}
        return {"loss": value, **parts}, own

    def _plan(self, x: X, y: Tensor) -> Step:
        """Draw what the terms need, lay all rows side by side, and ask the old model about those that it is held to."""
        drawn = self.memory.draw(self.replay_batch, self.draws) if self.draws else None
        count = len(y)
        size = 0 if drawn is None else len(drawn["y"]) // self.draws
        step = Step(x if drawn is None else join(x, drawn["x"]), [count], slice(0, count), y, [])
        labels = y
        if drawn is not None:
            step.sizes += [size] * self.draws
            labels = torch.cat([y, drawn["y"]])
        shared = slice(0, count + size) if self.shared else step.task
        if self.objective.source == "both":
            step.task, step.labels = shared, labels[shared]
        start = count + (size if self.shared else 0)
        answers: dict[tuple[int, bool], Tensor] = {}
        for number, term in self.outputs:
            part = slice(0, count) if term.source == "current" else shared
            if term.source == "memory":
                part, start = slice(start, start + size), start + size
            columns = self._columns(term)
            if part.start == part.stop or (columns is not None and not len(columns)):
                continue
            if term.target == "old_model":
                if not self.former.ready:
                    continue
                held = self._former_answers(step.x, part, term.view == "features", answers)
            elif term.target == "stored_logits":
                held = drawn["logits"][part.start - count : part.stop - count]
            else:
                held = labels[part] if term.target == "label" else None
            step.terms.append((number, term, part, held, columns))
        step.allowed = self._allowed(y) if self.objective.task_classes != "all" else None
        return step

    def _former_answers(self, x: X, part: slice, inner: bool, answers: dict) -> Tensor:
        """The old model's scores or features of some rows; of rows asked about twice only once."""
        key = (part.start, part.stop, inner)
        if key not in answers:
            some = rows(x, part)
            answers[key] = features(self.former.model, some) if inner else self.former(some)
        return answers[key]

    def _columns(self, term: OutputTerm) -> Tensor | None:
        """(count,) int64: the classes of a term, None for all of them."""
        if term.classes == "all":
            return None
        return self.former.columns if term.classes == "old" else self.former.seen.nonzero().flatten()

    def _allowed(self, y: Tensor) -> Tensor:
        """(classes,) 1 for those that a binary task loss sums over."""
        former = self.former
        allowed = former.seen.clone()
        if self.objective.task_classes == "new":
            allowed[: len(former.known)] *= 1.0 - former.known
        return pad(allowed, (0, (self.guard.classes or len(allowed)) - len(allowed))).to(y.device)

    def _data_loss(self, step: Step, kept: dict[str, Tensor]) -> Tensor:
        """Task loss and output terms; the value of each, and the batch's own scores, go into `kept`."""
        inner = None
        if any(term.view == "features" for _, term, *_ in step.terms):
            scores, inner = scores_and_features(self.descent.model, step.x)
        else:
            scores = self.descent.model(step.x)
        pieces, start = {}, 0
        for size, piece in zip(step.sizes, scores.split(step.sizes), strict=True):
            pieces[start, start + size] = piece
            start += size

        def of(part: slice) -> Tensor:
            if (part.start, part.stop) == (0, start):
                return scores
            found = pieces.get((part.start, part.stop))
            return scores[part] if found is None else found

        if self.objective.task_loss == "cross_entropy":
            value = cross_entropy(of(step.task), step.labels)
        else:
            value = binary_task_loss(of(step.task), step.labels, step.allowed)
        kept["task"] = value
        for number, term, part, held, columns in step.terms:
            penalty = output_penalty(term, inner[part] if term.view == "features" else of(part), held, columns)
            kept[f"output_{number}"] = penalty
            value = torch.add(value, penalty, alpha=term.weight)
        kept["own"] = of(slice(0, step.sizes[0]))
        return value

    def _natural(self, gradients: Gradients, pulling: list[Springs]) -> Gradients:
        """The gradient times the inverse of the springs' precision, which has the damping in it."""
        precision = cut(sum(spring.stiffness for spring in pulling), pulling[0].weights)
        return [
            gradient if gradient is None else gradient / stiff for gradient, stiff in zip(gradients, precision, strict=True)
        ]

    def _follow(self, gradients: Gradients, slopes: Gradients, paths: list[Springs]) -> None:
        """Take the step, and tell the path integrals what it did for the task loss."""
        descent = self.descent
        if not paths:
            descent.follow(gradients)
            return
        weights = paths[0].weights
        moved = [
            torch.zeros_like(weight) if slope is None else slope for slope, weight in zip(slopes, weights, strict=False)
        ]
        moves, scale = gradients[: len(weights)], 1.0
        if descent.rate is not None and self.optimizer.clip is None and all(move is not None for move in moves):
            descent.follow(gradients)
            scale = descent.rate * descent.factor  # the move is -rate * gradient
        else:
            before = torch._foreach_mul(weights, 1.0)  # a copy
            descent.follow(gradients)
            moves = torch._foreach_sub(before, weights)
        with torch.no_grad():
            for spring in paths:
                spring.travel(moved, moves, scale)

    def boundary(self, boundary: Boundary) -> None:
        """A task ends: importances are taken, anchors and the old model set. A change before anything was learned ends none."""
        if self.descent.steps == self.learned:
            return
        fresh: dict[str, Tensor] = {}
        kept = self.sample.rows() if self.sample is not None else {}
        weights = self.springs[0].weights if self.springs else []
        for spring in self.springs:
            if spring.kind and kept and spring.kind not in fresh:
                fresh[spring.kind] = importance_of_rows(spring.kind, self.network, weights, kept, self.seed, self.tasks)
        for spring in self.springs:
            if spring.kind is None or spring.kind in fresh:
                spring.consolidate(fresh.get(spring.kind))
        if self.posterior is not None:
            self.posterior.consolidate()
        if self.former is not None:
            self.former.keep(self.network, self.descent.steps)
        self.tasks += 1
        self.learned = self.descent.steps
        if self.sample is not None:
            self.sample = rows_of_task(self.fisher_samples, self.seed, self.tasks, self.sample)
