"""Proxy-based contrastive replay: a softmax over the classes at hand only, so that absent classes are not pushed down.

    l_i = -s_{i,y_i}/T + log sum_{c present} n_c exp(s_{i,c}/T),   s_ic = cosine of feature i and proxy c

n_c counts rows of class c in the working set: the draw, the batch, and a random view of each.
Reference: Lin et al. (2023), PCR: proxy-based contrastive replay for online class-incremental continual learning, arXiv
2304.04408.
"""

from torch import Tensor, nn

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.data.views import Views
from everlearn.learners.proxy_contrast import Extras, ProxyContrast
from everlearn.optim.optimizers import SGD, Optimizer


class PCR(Learner):
    """Learns from each batch and a draw by contrasting rows with the proxies of the classes among them.

    model: its last linear layer becomes a cosine head whose rows are the proxies; capacity: rows kept in all, 1,000 as for split
    CIFAR-100 (200 for CIFAR-10); replay_batch: rows drawn per step, 10 beside batches of 10; temperature: 0.09; competing:
    "present", or "all" to let every class compete, as in replay with a cosine head; views: random views of images (None: the row
    itself, with a warning); merged=True sends batch and draw through the network together, as one batch-norm batch;
    mask_unseen: whether classes that have not come are left out of the answers; keep: which rows stay, `reservoir()` as
    published; optimizer: `sgd(lr=0.1)` as published; passes: steps per batch. The values are the official code's. Nothing is
    learned while the memory is empty: from the first batch, or under a budget of no replay.

    >>> import torch
    >>> from everlearn import Batch, PCR
    >>> learner = PCR(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.rand(8, 1, 8, 8), torch.arange(8) % 3))
    >>> learner.memory.seen, learner.memory.stored, learner.memory.replayed
    (24, 10, 18)

    Reference: Lin et al. (2023), arXiv 2304.04408.
    Differs from the paper in: see `Views`; the last batch of a task is learned from even where it is smaller.
    """

    name = "pcr"
    parts = ("contrast_step",)

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 1000,
        replay_batch: int = 10,
        keep: Rule = Reservoir(),
        temperature: float = 0.09,
        competing: str = "present",
        views: Views | None = Views(),
        merged: bool = False,
        mask_unseen: bool = True,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        self.capacity = capacity
        self.replay_batch = replay_batch
        self.keep = keep
        self.temperature = temperature
        self.competing = competing
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
            extras=Extras(competing=competing),
        )

    @property
    def memory(self) -> Memory:
        """The rows remembered."""
        return self.contrast_step.memory

    def predict(self, x: X) -> Tensor:
        return self.contrast_step.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.contrast_step.update(batch)

    def boundary(self, boundary: Boundary) -> None:
        """The classes announced may be answered from now on."""
        self.contrast_step.boundary(boundary)
