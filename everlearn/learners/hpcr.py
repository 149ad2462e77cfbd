"""Holistic proxy-based contrastive replay: PCR with contrast between rows, a cycling gradient temperature, and distillation.

    loss = factor(i) * contrast + [t > 0] ( pcd * L_pcd + scd * L_scd )
    factor(i) = T / gradient temperature, along a cosine of `period` batches that starts anew with each task

The temperature in the softmax stays: the factor changes how large gradients are, not what the probabilities are.
Reference: Lin et al. (2023), HPCR: holistic proxy-based contrastive replay for online continual learning, arXiv 2309.15038.
"""

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.data.views import Views
from everlearn.learners.proxy_contrast import Extras, ProxyContrast
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.schedules import CosineCycle


class HPCR(Learner):
    """PCR with three parts more, each of which can be switched off; with all of them off it is `pcr` step for step.

    contrast: "auto" also contrasts rows with rows where batches have contrast_min_batch=32 rows and more (the house's choice: the
    published commands use batches of 10 and "proxy"); "proxy", "proxy+sample" or "all" (proxies are anchors too) fix it.
    gradient_temperature: (low, high) between which the temperature of gradients cycles, (0.05, 0.16); (0.09, 0.09) switches the
    part off, two other equal numbers hold it still; period: batches of a cycle, 500, the batches of one task in the source.
    pcd: weight of the distillation of scores, 0.1 for CIFAR-100 and Mini-ImageNet (0.01 for CIFAR-10); scd: of the
    relations among remembered rows, 0.5; 0 switches each off. Both act from the second task on, on streams without tasks
    once the memory has been full. The other arguments are those of `pcr`.

    >>> import torch
    >>> from everlearn import Batch, HPCR
    >>> learner = HPCR(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.rand(8, 1, 8, 8), torch.arange(8) % 3))
    >>> sorted(metrics), sorted(learner.memory.rows())
    (['contrast', 'loss', 'pcd', 'scd'], ['features', 'logits', 'x', 'y'])

    Reference: Lin et al. (2023), arXiv 2309.15038.
    Differs from the paper in: see `Views`; the last batch of a task is learned from even where it is smaller; features are
    stored in the slots of their rows (the official memory misplaces them where a batch meets its end).
    """

    name = "hpcr"
    parts = ("contrast_step",)

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 1000,
        replay_batch: int = 10,
        keep: Rule = Reservoir(),
        temperature: float = 0.09,
        contrast: str = "auto",
        contrast_min_batch: int = 32,
        gradient_temperature: tuple[float, float] = (0.05, 0.16),
        period: int = 500,
        pcd: float = 0.1,
        scd: float = 0.5,
        views: Views | None = Views(),
        merged: bool = False,
        mask_unseen: bool = True,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "period", period)
        self.capacity = capacity
        self.replay_batch = replay_batch
        self.keep = keep
        self.temperature = temperature
        self.contrast = contrast
        self.contrast_min_batch = contrast_min_batch
        self.gradient_temperature = gradient_temperature
        self.period = period
        self.pcd = pcd
        self.scd = scd
        self.views = views
        self.merged = merged
        self.mask_unseen = mask_unseen
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.contrast_step = ProxyContrast(
            self.name,
            model,
            capacity=capacity,
            replay_batch=replay_batch,
            keep=keep,
            temperature=temperature,
            views=views,
            merged=merged,
            mask_unseen=mask_unseen,
            optimizer=optimizer,
            passes=passes,
            seed=seed,
            extras=Extras(
                contrast=contrast,
                contrast_min_batch=contrast_min_batch,
                factor=_factor(temperature, gradient_temperature, period),
                pcd=pcd,
                scd=scd,
            ),
        )

    @property
    def memory(self) -> Memory:
        """The rows remembered, with the scores and features that they had when they came."""
        return self.contrast_step.memory

    def predict(self, x: X) -> Tensor:
        return self.contrast_step.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.contrast_step.update(batch)

    def boundary(self, boundary: Boundary) -> None:
        """A task begins: its classes may be answered, the cycle starts anew, and what came before is distilled from now on."""
        self.contrast_step.boundary(boundary)


def _factor(temperature: float, span: tuple[float, float], period: int) -> CosineCycle | None:
    """temperature / gradient temperature along its cycle; None where it is 1 throughout."""
    if not isinstance(span, (tuple, list)) or len(span) != 2 or not 0 < span[0] <= span[1]:
        raise ArgumentError(
            f"hpcr: gradient_temperature must be (low, high) with 0 < low <= high, got {span!r}. Published: (0.05, 0.16)."
        )
    if span[0] == span[1] == temperature:
        return None
    return CosineCycle(temperature / span[1], temperature / span[0], period)
