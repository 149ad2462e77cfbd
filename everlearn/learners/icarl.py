"""iCaRL: exemplars chosen by herding, one sigmoid per class, old answers distilled, and the nearest mean of exemplars answers.

    loss = mean over rows of sum_{c seen} BCE(sigmoid(s_c), t_c),   t_c = sigmoid(s_c of the former model) for classes from
           before the last announced change,   t_c = [c = y] for the others
    answer = argmin_k | f(x) - m_k |,   f the unit features, m_k the unit mean of f over the exemplars of class k

Reference: Rebuffi et al. (2017), iCaRL: incremental classifier and representation learning, arXiv 1611.07725, equations 1 and 2,
algorithms 1 to 5.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, join, rows, size
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.keep import Fields, Keeper, Plan, Rule, herd
from everlearn.data.memory import Memory
from everlearn.learners.lwf import Former
from everlearn.learners.scr import ROWS, UNSEEN, class_scores
from everlearn.nn.features import features
from everlearn.nn.losses import normalised, present
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class ICaRL(Learner):
    """Learns from each batch and a draw of exemplars, keeps old answers, and answers with the class whose exemplars are nearest.

    model: maps x to (batch, classes) scores, its features are what reaches its last linear layer; capacity: exemplars in all,
    2,000 as published; replay_batch: exemplars drawn per step, 32 as in `replay`; optimizer: `sgd(...)` or `adam(...)`; passes:
    gradient steps per batch, each with a draw of its own. Scores are -|f - m_k|^2, and -1e9 for a class without an exemplar.

    Exemplars are shared out equally among classes. While a class comes, its exemplars are a uniform sample of its rows; at the
    next change they are put into herding order, by the features of the network that has learned them, and what later classes
    need is taken from the end of that order.
    A class is distilled from the change on at which it was known, until new rows of it come: then it is learned from its labels
    again. The means of exemplars are computed where they are first asked for after an update: one forward pass over the
    exemplars, with the present features. While there is no exemplar the network's own scores answer, among the classes seen.

    >>> import torch
    >>> from everlearn import Batch, ICaRL
    >>> learner = ICaRL(torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)), capacity=4)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.randn(8, 4), torch.arange(8) % 2))
    >>> learner.memory.per_class, learner.predict(torch.zeros(1, 4))[0, 2].item()
    ({0: 2, 1: 2}, -1000000000.0)

    Reference: Rebuffi et al. (2017), arXiv 1611.07725.
    Differs from the paper in: one pass over a stream, where the paper trains for 70 epochs on a task's rows and all exemplars
    together; so exemplars are herded among the rows that found a place while they came, not among all rows of the class, and
    their order shows when later classes come. The loss is the sum over classes of its equation, the authors' code takes the
    mean and a rate of 2. Classes that come again, which the paper has not, are learned again.
    """

    name = "icarl"
    parts = ("descent", "guard", "memory", "former", "distilled")
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 2000,
        replay_batch: int = 32,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use lwf(model) to distil without exemplars.")
        check_count(self.name, "replay_batch", replay_batch, fix="Use lwf(model) to distil without exemplars.")
        check_count(self.name, "passes", passes)
        self.capacity = capacity
        self.replay_batch = replay_batch
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, keep=Exemplars(), seed=seed)
        self.former = Former(model)
        self.distilled = torch.zeros(0)  # (classes,) 1 for those whose answers are the former model's to give
        self._means: Tensor | None = None  # (classes, d) of the present features and exemplars; zeros for classes without
        self._held: Tensor | None = None  # (classes,) whether there is an exemplar

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        if not self.memory.stored:
            scores = self.descent.predict(x)
            seen = _widened(self.former.seen, scores.shape[1]).to(scores.device)
            return scores.masked_fill(seen == 0, UNSEEN) if len(self.former.seen) else scores
        if self._means is None:
            self._remember()
        return class_scores(self._embed(x), self._means, self._held)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        self.former.hear(batch.y)
        came = present(batch.y, len(self.distilled))[: len(self.distilled)]
        self.distilled = self.distilled.to(came.device) * (1.0 - came)
        for _ in range(self.passes):
            loss = self._step(batch.x, batch.y)
        self.memory.insert(x=batch.x, y=batch.y)
        self._means = None
        return {"loss": loss}

    def _step(self, x: X, y: Tensor) -> Tensor:
        drawn = self.memory.draw(self.replay_batch)
        if drawn is not None:
            x, y = join(x, drawn["x"]), torch.cat([y, drawn["y"]])
        old = self.former(x) if self.former.ready and bool(self.distilled.any()) else None
        return self.descent(lambda: sigmoid_loss(self.descent.model(x), y, self.former.seen, old, self.distilled))

    def boundary(self, boundary: Boundary) -> None:
        """A task ends: its exemplars are ordered, and the model as it is now is the teacher of the classes that have come."""
        self.former.keep(self.descent.model, self.descent.steps)
        self.distilled = self.former.known.clone()
        for label, slots in self.memory.keeper.unordered():
            held = self.memory.rows()["x"]
            embedded = self._embed(rows(held, torch.tensor(slots, device=self.memory.device))).double().cpu().numpy()
            order = herd(embedded, embedded.mean(0), len(slots))
            self.memory.keeper.order(label, [slots[place] for place in order])

    def restored(self) -> None:
        """Forget the means of what stood before."""
        self._means = None

    def _embed(self, x: X) -> Tensor:
        """(rows, d): unit features, a part of the rows at a time."""
        parts = [slice(start, start + ROWS) for start in range(0, size(x), ROWS)]
        return normalised(torch.cat([features(self.descent.model, rows(x, part)) for part in parts]))

    def _remember(self) -> None:
        """Take the means of the exemplars with the present features."""
        held = self.memory.rows()
        embedded = self._embed(held["x"])
        sums = embedded.new_zeros(self.guard.classes or embedded.shape[1], embedded.shape[1])
        sums.index_add_(0, held["y"], embedded)
        self._held = torch.bincount(held["y"], minlength=len(sums)) > 0
        self._means = normalised(sums)  # of unit length, so sums serve as well as means


class ExemplarKeeper(Keeper):
    """Equal shares for all classes: a uniform sample of a class that comes, the best by herding of one that has been ordered."""

    parts = ("members", "offered", "ordered")
    labelled = True

    def __init__(self) -> None:
        self.members: dict[int, list[int]] = {}  # class -> slots, the best first where the class is ordered
        self.offered: dict[int, int] = {}  # class -> rows seen
        self.ordered: list[int] = []

    def restored(self) -> None:
        """Turn the keys of snapshots back into class numbers."""
        self.members = {int(label): slots for label, slots in self.members.items()}
        self.offered = {int(label): count for label, count in self.offered.items()}

    def observe(self, labels: list[int], values: Fields) -> None:
        """Counted row by row in `plan`."""

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """Rows of a class that has less than its share take places of the largest class; others take turns within their class."""
        append = min(count, room - stored)
        for row, label in enumerate(labels[:append]):
            self._come(label).append(stored + row)
        chosen: dict[int, int] = {}  # slot -> row; of two rows that choose one slot the later stays
        draws = torch.rand(count - append, 2, generator=random, dtype=torch.float64).tolist()
        giver: list[int] = []  # the slots of the largest class, which is looked for again once it gave one away
        for row, (draw, place) in enumerate(draws, start=append):
            own = self._come(labels[row])
            giver = giver or max(self.members.values(), key=len)
            if len(own) + 1 < len(giver):
                chosen[self._given(giver, place, own)] = row
                giver = []
            elif draw * self.offered[labels[row]] < len(own):
                chosen[own[int(place * len(own))]] = row
        return Plan(append, stored + append, list(chosen), list(chosen.values()))

    def _come(self, label: int) -> list[int]:
        """Count a row of a class, whose order it upsets. The slots of the class."""
        self.offered[label] = self.offered.get(label, 0) + 1
        if label in self.ordered:
            self.ordered.remove(label)
        return self.members.setdefault(label, [])

    def _given(self, giver: list[int], place: float, own: list[int]) -> int:
        """The slot that the largest class gives away: the last of its order, or any where it has none."""
        largest = next(name for name, slots in self.members.items() if slots is giver)
        position = len(giver) - 1 if largest in self.ordered else int(place * len(giver))
        slot, giver[position] = giver[position], giver[-1]
        giver.pop()
        own.append(slot)
        return slot

    def unordered(self) -> list[tuple[int, list[int]]]:
        """(class, slots) of those whose rows are in no order."""
        return [(label, slots) for label, slots in self.members.items() if slots and label not in self.ordered]

    def order(self, label: int, slots: list[int]) -> None:
        """Put the slots of a class into this order, the best first."""
        self.members[label] = slots
        self.ordered.append(label)


class Exemplars(Rule):
    """Equal shares for all classes, of which the end of an order is given away first. Rebuffi et al. (2017), algorithms 2 to 5.

    Shares differ by one row at most. Where there are more classes than places, the classes that came first hold one row each.
    """

    name: ClassVar[str] = "exemplars"

    def make(self) -> Keeper:
        return ExemplarKeeper()


def sigmoid_loss(scores: Tensor, labels: Tensor, seen: Tensor, old: Tensor | None, distilled: Tensor) -> Tensor:
    """The mean over rows of the binary cross-entropies of all classes seen, with old answers as targets for distilled classes.

        mean_i sum_{c seen} -t_ic log g_ic - (1 - t_ic) log(1 - g_ic),   g = sigmoid(scores),
        t_ic = sigmoid(old_ic) where c is distilled, [c = y_i] elsewhere

    scores: (rows, classes); labels: (rows,); seen, distilled: (at most classes,) 1 or 0; old: (rows, classes) scores of the
    former model, None where nothing is distilled.

    >>> scores, seen = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([1.0, 1.0, 0.0])
    >>> round(sigmoid_loss(scores, torch.tensor([1]), seen, None, torch.zeros(0)).item(), 6)  # 2 ln 2
    1.386294

    Reference: Rebuffi et al. (2017), arXiv 1611.07725, algorithm 3.
    """
    classes = scores.shape[1]
    targets = torch.zeros_like(scores).scatter_(1, labels[:, None], 1.0)  # one 1 a row
    if old is not None:
        targets = torch.where(_widened(distilled, classes).to(scores.device) > 0, old.sigmoid(), targets)
    weight = _widened(seen, classes).to(scores)
    return binary_cross_entropy_with_logits(scores, targets, weight=weight, reduction="sum") / len(labels)


def _widened(marks: Tensor, classes: int) -> Tensor:
    """(classes,): marks with zeros for the classes that they do not reach."""
    return marks if len(marks) == classes else torch.nn.functional.pad(marks, (0, classes - len(marks)))
