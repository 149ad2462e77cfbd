"""The loss of the base session of a few-shot learner, and the step down it.

    L = classification * CE(scores, fine class) + supcon * L_sup(views, fine class) + rotation * CE(rotation head(f(turned x)), quarter)

Every row that a step needs (pseudo-classes, views, turned rows) goes through the encoder in one pass.
References: Khosla et al. (2020), arXiv 2004.11362; Gidaris et al. (2018), Unsupervised representation learning by
predicting image rotations, arXiv 1803.07728; Yang et al. (2023), NC-FSCIL, arXiv 2302.03004.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from everlearn.core.errors import InputError
from everlearn.core.events import Metrics, X, join
from everlearn.data.views import Viewer, is_image
from everlearn.learners.few_shot_network import QUARTERS, Recognizer
from everlearn.nn.losses import dot_regression, supervised_contrastive_loss
from everlearn.nn.pseudo_classes import PseudoClasses, turned
from everlearn.optim.descent import Descent

REGRESSION = 10.0  # weight of the dot-regression, as published


class BaseLoss:
    """`loss(descent, x, y, columns, places)` makes one step and returns its metrics.

    supcon, rotation, classification: weights; temperature: of the contrast; regression: dot-regression instead of the
    cross-entropy, for fixed prototypes; augment: rows are learned from random views of them.
    """

    def __init__(
        self,
        network: Recognizer,
        pseudo: PseudoClasses,
        viewer: Viewer,
        *,
        supcon: float,
        rotation: float,
        classification: float,
        temperature: float,
        regression: bool,
        augment: bool,
    ):
        self.network = network
        self.pseudo = pseudo
        self.viewer = viewer
        self.supcon = supcon
        self.rotation = rotation
        self.classification = classification
        self.temperature = temperature
        self.regression = regression
        self.augment = augment

    def check(self, x: X) -> None:
        """Refuse rows that the transforms cannot be made of."""
        self.pseudo.check(x)
        shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else None
        if self.rotation and (not is_image(x) or shape[1] != shape[2]):
            raise InputError(
                f"few_shot: rotation={self.rotation:g} needs square images, got rows of {shape}. Use rotation=0."
            )

    def __call__(self, descent: Descent, x: X, y: Tensor, columns: Tensor, places: Tensor) -> Metrics:
        """One step of `descent` on rows x (rows, ...) of classes y (rows,) int64.

        columns: the fine classes that compete, where the classifier learns; places: the fixed prototype of each fine class.
        """
        network, fine = self.network, self.pseudo.labels(y)
        inputs = self.pseudo(x)
        if self.augment and is_image(inputs):
            seen = self.viewer(inputs)
            inputs = seen.to(inputs.dtype) if inputs.dtype.is_floating_point else seen
        every = join(inputs, self.viewer(self.pseudo(x))) if self.supcon else inputs
        labels = fine.repeat(2) if self.supcon else fine
        if self.rotation:
            quarters = torch.randint(QUARTERS, (len(y),), generator=self.viewer.random).to(y.device)
            every = join(every, turned(x, quarters))
        found: Metrics = {}

        def loss() -> Tensor:
            h = network.features(every)
            rows = h[: len(labels)]
            value = h.new_zeros(())
            if self.classification:
                found["classification"] = self._classified(rows, labels, columns, places)
                value = value + self.classification * found["classification"]
            if self.supcon:
                both = network.projected(rows)
                found["contrast"] = supervised_contrastive_loss(both, labels, self.temperature, over="all")
                value = value + self.supcon * found["contrast"]
            if self.rotation:
                found["rotation"] = cross_entropy(network.rotation(h[len(labels) :]), quarters)
                value = value + self.rotation * found["rotation"]
            return value

        total = descent(loss)
        return {"loss": total, **{key: value.detach() for key, value in found.items()}}

    def _classified(self, h: Tensor, labels: Tensor, columns: Tensor, places: Tensor) -> Tensor:
        network = self.network
        if network.kind == "fixed":
            targets = places.to(labels.device)[labels]
            if self.regression:
                return REGRESSION * dot_regression(h, network.fixed[targets])
            return cross_entropy(network.scores(h), targets)
        barred = h.new_full((len(network.weight),), -torch.inf)
        barred[columns] = 0.0
        return cross_entropy(network.scores(h) + barred, labels)
