"""The base session of a few-shot learner: pre-training, the matching of fixed prototypes, gradient steps, and the class
means at its end.

pre-training -> matching -> steps on each batch -> p_c = mean over all base rows of class c, with the encoder as it ends
"""

import torch
from torch import Tensor

from everlearn.core.events import Boundary, Metrics, X, rows
from everlearn.data.memory import Memory
from everlearn.learners.few_shot_answers import UNSEEN, Answers
from everlearn.learners.few_shot_loss import BaseLoss
from everlearn.learners.few_shot_session import pretrain
from everlearn.optim.descent import Descent


class BaseSession:
    """Trains the encoder, and holds the rows of the session in a memory until it is over.

    Rows that the boundary brings are held at once, otherwise those that come; a replay budget limits them, and a class
    without any is known by its classifier's own vector.
    """

    parts = ("memory", "seen", "given", "learned")

    def __init__(self, descent: Descent, answers: Answers, loss: BaseLoss, seed: int):
        self.descent = descent
        self.network = answers.network
        self.answers = answers
        self.loss = loss
        self.memory = Memory(None, seed=seed)
        self.seen: list[int] = []  # the classes of the session: those announced, and those that came
        self.given = False  # whether its boundary brought its rows
        self.learned = 0  # rows learned from

    @property
    def whole(self) -> bool:
        """Whether a pass over the announced rows has just ended."""
        return self.given and self.learned > 0 and self.learned % self.memory.seen == 0

    def excludes(self, labels: list[int]) -> bool:
        """Whether there is a class among them that the rows of the session do not hold."""
        return self.given and not set(labels) <= set(self.seen)

    def begin(self, boundary: Boundary, epochs: int, batch: int, temperature: float) -> None:
        """Hear of the session: pre-train on its rows (epochs of batches), match fixed prototypes, and hold the rows."""
        data = boundary.data
        self.given = data is not None and data.y is not None
        self.seen = sorted({*boundary.classes, *(data.y.unique().tolist() if self.given else ())})
        if data is not None and epochs:
            pretrain(self.descent, data.x, epochs, batch, temperature, self.loss.viewer)
            self.network.project_anew()
            self.descent.restart()
        if self.given:
            self.memory.insert(x=data.x, y=data.y)
            self._match(data.x, data.y, matched=epochs > 0)

    def step(self, x: X, y: Tensor, passes: int) -> Metrics:
        """Learn from a batch."""
        self.seen = sorted({*self.seen, *y.unique().tolist()})
        self._match(x, y, matched=False)
        columns = torch.tensor([number for label in self.seen for number in self.answers.fine(label)], device=y.device)
        for _ in range(passes):
            found = self.loss(self.descent, x, y, columns, self.answers.places)
        if not self.given:
            self.memory.insert(x=x, y=y)
        self.learned += len(y)
        return found

    def _match(self, x: X, y: Tensor, matched: bool) -> None:
        """Give fixed prototypes to classes that have none: by the means of their rows, or in order."""
        if self.network.kind != "fixed":
            return
        count = len(self.answers.pseudo)
        labels = [label for label in y.unique().tolist() if self.answers.places[label * count] < 0]
        if labels:
            self.answers.match(labels, self.answers.means(x, y, labels) if matched else None)

    def scores(self, x: X) -> Tensor:
        """(rows, classes): of the classifier in training, among the classes of the session (all, before one is known)."""
        h = self.network.embed(x)
        with torch.no_grad():
            scores = self.network.scores(h)
        if self.network.kind == "fixed":
            places = self.answers.places.to(scores.device)
            scores = scores[:, places.clamp(min=0)].masked_fill(places < 0, UNSEEN)
        scores = scores[:, :: len(self.answers.pseudo)].contiguous()
        barred = torch.full((scores.shape[1],), bool(self.seen), device=scores.device)
        barred[self.seen] = False
        return scores.masked_fill(barred, UNSEEN)

    def close(self, answers: Answers) -> None:
        """Let answers know the classes of the session, by the rows held, with the encoder as it is now."""
        held = self.memory.rows()
        for label in self.seen:
            mine = held["y"] == label if held else torch.zeros(1, dtype=torch.bool)
            if bool(mine.any()):
                answers.take(*answers.embed(rows(held["x"], mine), held["y"][mine]))
            else:
                answers.hold(label)
        answers.base = list(self.seen)
