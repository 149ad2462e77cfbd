"""What a known change does to the optimiser of a learner: begin anew, or anneal the rate within each task.

    rate at a batch = rate * (1 + cos(pi * rows of the task so far / rows of the task)) / 2

Momentum and Adam's averages carry gradients of past tasks into the present one; beginning anew drops them.
Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from everlearn.core.errors import InputError
from everlearn.core.events import Boundary
from everlearn.optim.descent import Descent
from everlearn.optim.shapes import cosine_decay


class TaskPace:
    """Restarts and anneals a Descent by tasks; does nothing where neither is asked for.

    restart: make the optimiser anew at each boundary; anneal: let the rate fall along half a cosine over each pass of the task's
    rows, which also makes it anew. Both need boundaries, and annealing needs boundaries that bring the task's rows.
    """

    parts = ("rows", "came")

    def __init__(self, owner: str, restart: bool, anneal: bool):
        self.owner = owner
        self.restart = bool(restart) or bool(anneal)
        self.anneal = bool(anneal)
        self.rows = 0  # of the present task
        self.came = 0  # rows of it so far

    @property
    def needs_boundaries(self) -> bool:
        """Whether it can only be used where tasks are announced."""
        return self.restart

    def hear(self, boundary: Boundary, descent: Descent) -> None:
        """A task begins. Raises InputError where its length must be known and is not."""
        if self.anneal:
            if boundary.data is None:
                raise InputError(
                    f"{self.owner}: anneal=True needs boundaries that bring the rows of their task, and this one has none. "
                    "Use restart=True."
                )
            self.rows, self.came = len(boundary.data), 0
        if self.restart:
            descent.restart()

    def step(self, count: int, descent: Descent) -> None:
        """`count` rows come: set the rate for their step."""
        if not self.anneal or not self.rows:
            return
        descent.scale(cosine_decay(self.came % self.rows / self.rows))
        self.came += count
