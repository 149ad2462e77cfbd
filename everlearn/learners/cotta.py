"""CoTTA: a student learns from the averaged answers of its own moving mean, and a few weights go back to the source each step.

    q = softmax(teacher scores),   averaged over `views` random views where the source's mean confidence is below `confidence`
    L = mean_i - sum_c q_ic log p_ic
    teacher <- decay teacher + (1 - decay) student;     each weight of the student <- source, with probability `restore`

The teacher answers. Reference: Wang et al. (2022), Continual test-time domain adaptation, arXiv 2203.13591.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Adapter
from everlearn.core.random import generator
from everlearn.data.gentle_views import GentleViews
from everlearn.data.views import is_image
from everlearn.learners.adaptation import Adaptation, by_statistics, rows_of_scores
from everlearn.optim.optimizers import SGD, Optimizer


class CoTTA(Adapter):
    """Trains on labelled rows, then adapts every weight by the answers of a slow teacher, and never forgets the source whole.

    model: any network; with batch norm, batches are normalised by their own statistics; lr, method: of the steps, "adam" with 0.001
    for small images, "sgd" with 0.01 for large ones; decay: of the teacher, 0.999; augmentations: views over which the teacher's
    scores are averaged, 32, 0 never; confidence: they are where the source's mean confidence is below this, 0.92 for ten classes,
    0.72 for a hundred, 0.1 for a thousand; restore: probability with which a weight goes back to the source at each step, 0.01, on
    ImageNet 0.001; symmetric: also let the teacher be fitted by the student's answers in the loss, as on ImageNet; views: the
    family of views; reset_at_boundaries, optimizer: as in `tent`.

    Keeps three networks, and asks the teacher 33 times where the source is unsure. Where rows are no images there are no views.
    Scores may be maps; views then leave pixels in place. Metrics: `loss`, `averaged` (whether views were), `confidence` (the source's).

    >>> from everlearn import Batch, CoTTA
    >>> learner = CoTTA(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> metrics = learner.update(Batch(x, torch.arange(16) % 3))
    >>> sorted(learner.update(Batch(x)))
    ['averaged', 'confidence', 'learned_from', 'loss']

    Reference: Wang et al. (2022), arXiv 2203.13591.
    Differs from the paper in: dropout is off while it adapts; views are drawn by step, so that asking twice gives the same answer.
    """

    name = "cotta"
    parts = ("adaptation", "teacher", "anchor")
    needs_batch_norm = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.001,
        method: str = "adam",
        decay: float = 0.999,
        augmentations: int = 32,
        confidence: float = 0.92,
        restore: float = 0.01,
        symmetric: bool = False,
        views: GentleViews = GentleViews(),
        reset_at_boundaries: bool = False,
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        for argument, value in (("decay", decay), ("confidence", confidence), ("restore", restore)):
            check_range(self.name, argument, value, 0.0, 1.0)
        check_count(self.name, "augmentations", augmentations, low=0)
        if not isinstance(views, GentleViews):
            raise ArgumentError(f"{self.name}: views must be gentle(...), got {views!r}. Use augmentations=0 for none.")
        self.lr = lr
        self.method = method
        self.decay = decay
        self.augmentations = augmentations
        self.confidence = confidence
        self.restore = restore
        self.symmetric = symmetric
        self.views = views
        self.reset_at_boundaries = reset_at_boundaries
        self.optimizer = optimizer
        self.seed = seed
        weights = [weight for weight in model.parameters() if weight.requires_grad] if isinstance(model, nn.Module) else []
        self.adaptation = Adaptation(
            self.name, model, optimizer, seed, weights, lr, method,
            answer=self._answer, learn=self._learn, begin=self._begin, again=self._forget, reset_at_boundaries=reset_at_boundaries,
        )  # fmt: skip
        self.teacher = deepcopy(model).requires_grad_(False)
        self.anchor = deepcopy(model).requires_grad_(False)

    def predict(self, x: X) -> Tensor:
        return self.adaptation.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.adaptation.update(batch)

    def adapt(self, x: X) -> Tensor:
        """The teacher's scores of before this batch's step."""
        return self.adaptation.adapt(x)

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where adaptation begins anew with it."""
        self.adaptation.boundary(boundary)

    def reset(self) -> None:
        """Back to the source's weights, the teacher too."""
        self.adaptation.reset()

    def _forget(self) -> None:
        self.teacher.load_state_dict(self.anchor.state_dict())

    def _begin(self) -> None:
        """Teacher and anchor begin as what was trained."""
        trained = self.adaptation.model.state_dict()
        self.teacher.load_state_dict(trained)
        self.anchor.load_state_dict(trained)

    def _answer(self, x: X) -> Tensor:
        return self._taught(x)[0]

    def _taught(self, x: X) -> tuple[Tensor, Metrics]:
        """The teacher's scores, averaged over views where the source is unsure."""
        sure = rows_of_scores(by_statistics(self.anchor, x)).softmax(1).amax(1).mean()
        averaged = self.augmentations > 0 and is_image(x) and bool(sure < self.confidence)
        metrics: Metrics = {"confidence": sure, "averaged": int(averaged)}
        if not averaged:
            return by_statistics(self.teacher, x), metrics
        random = generator(self.seed, "views", self.adaptation.steps)
        total: Tensor | None = None
        views = self.views
        for turn in range(self.augmentations):
            scores = by_statistics(self.teacher, views(x, random))
            if turn == 0 and scores.ndim > 2 and views.moved:  # maps must stay where they are
                views = GentleViews(views.degrees, views.flip, views.noise, moved=False)
                scores = by_statistics(self.teacher, views(x, random))
            total = scores if total is None else total + scores
        return total / self.augmentations, metrics

    def _learn(self, x: X) -> tuple[Tensor, Metrics]:
        taught, metrics = self._taught(x)
        adaptation = self.adaptation
        own = rows_of_scores(adaptation.scores(x))
        told = rows_of_scores(taught)
        loss = -(told.softmax(1) * own.log_softmax(1)).sum(1).mean()
        if self.symmetric:
            loss = 0.5 * loss - 0.5 * (own.softmax(1) * told.log_softmax(1)).sum(1).mean()
        if not adaptation.step(loss):
            return taught, {**metrics, "learned_from": 0.0, "not_finite": 1}
        with torch.no_grad():
            followers = dict(self.teacher.named_parameters())
            pairs = [(followers[name], weight) for name, weight in adaptation.model.named_parameters()]
            torch._foreach_lerp_([mean for mean, _ in pairs], [weight for _, weight in pairs], 1.0 - self.decay)
            if self.restore:
                random = generator(self.seed, "restore", adaptation.steps)
                for weight, first in zip(adaptation.weights, adaptation.origin, strict=True):
                    back = torch.rand(weight.shape, generator=random).to(weight.device) < self.restore
                    weight.copy_(torch.where(back, first, weight))
        return taught, {**metrics, "loss": loss.detach(), "learned_from": 1.0}
