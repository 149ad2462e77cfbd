"""How a few-shot learner answers once the base session is over: what it keeps of each class, and the scores it makes of
that.

means      scale * cosine with the mean features of a class, one mean per pseudo-class
assigned   scale * cosine with the fixed prototype that was matched to the class
lda        linear discriminant analysis on the features
linear     the trained softmax layer, among the classes known
"""

from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import InputError
from everlearn.core.events import Batch, X, rows, size
from everlearn.learners.few_shot_network import Recognizer
from everlearn.learners.streaming_lda import StreamingLDA
from everlearn.nn.prototypes import PrototypeClassifier, assign_prototypes, calibrated, directions
from everlearn.nn.pseudo_classes import PseudoClasses

UNSEEN = -1e9  # the score of a class that is not known


class Answers:
    """The classes that a learner knows, by number, and the scores of rows among them.

    network: gives the features; pseudo: the pseudo-classes, each with a prototype of its own under the number y * M + k;
    outputs: columns of the scores; head: "means", "lda" or "linear"; predict_with: "means" or "assigned"; calibrate: the
    share that is left of a later class's prototype when it is drawn to those of the base classes, None for all of it.
    """

    parts = ("classifier", "discriminant", "places", "known", "base", "outputs")

    def __init__(
        self,
        network: Recognizer,
        pseudo: PseudoClasses,
        outputs: int,
        *,
        scale: float,
        average: str,
        head: str,
        predict_with: str,
        calibrate: float | None,
        aggregate: bool,
    ):
        self.network = network
        self.pseudo = pseudo
        self.outputs = outputs
        self.head = head
        self.assigned = predict_with == "assigned"
        self.calibrate = calibrate
        self.aggregate = aggregate
        self.classifier = PrototypeClassifier(scale, average)
        self.discriminant = StreamingLDA(None, classes=outputs, features="input") if head == "lda" else None
        self.places = torch.full((outputs * len(pseudo),), -1)  # the fixed prototype of each fine class, -1 for none
        self.known: list[int] = []  # classes that can be the answer, in the order in which they came
        self.base: list[int] = []  # those of the base session
        self._vectors: tuple[list[int], Tensor] | None = None

    def restored(self) -> None:
        """What was worked out belongs to the state before, and so does the number of classes."""
        self._vectors = None
        self._widen()

    def copied(self) -> "Answers":
        """Other answers of the same kind that know no class yet, with the same matching of prototypes."""
        settings: dict[str, Any] = {"scale": self.classifier.scale, "average": self.classifier.average, "head": self.head}
        settings |= {"predict_with": "assigned" if self.assigned else "means", "calibrate": self.calibrate}
        fresh = Answers(self.network, self.pseudo, self.outputs, aggregate=self.aggregate, **settings)
        fresh.places = self.places.clone()
        return fresh

    def fine(self, label: int) -> list[int]:
        """The numbers of a class's pseudo-classes, that of the class itself first."""
        return list(range(label * len(self.pseudo), (label + 1) * len(self.pseudo)))

    def embed(self, x: X, y: Tensor) -> tuple[Tensor, Tensor]:
        """(features, fine labels) of all pseudo-classes of some rows."""
        return self.network.embed(self.pseudo(x)), self.pseudo.labels(y)

    def means(self, x: X, y: Tensor, labels: list[int]) -> Tensor:
        """(classes * M, d): the mean features of the pseudo-classes of some classes, among rows x of classes y."""
        classifier = PrototypeClassifier(average=self.classifier.average)
        for label in labels:
            h, fine = self.embed(rows(x, y == label), y[y == label])
            for number in self.fine(label):
                classifier.set(number, h[fine == number])
        return classifier.means

    def take(self, h: Tensor, fine: Tensor, renew: bool = False) -> None:
        """Let the prototypes of the classes follow these features (rows, d); renew: forget what stood for them."""
        self._vectors = None
        for number in sorted(set(fine.tolist())):
            (self.classifier.set if renew else self.classifier.add)(number, h[fine == number])
            label = number // len(self.pseudo)
            if label not in self.known:
                self.known.append(label)
        if self.discriminant is not None:
            plain = fine % len(self.pseudo) == 0
            self.discriminant.update(Batch(h[plain], fine[plain] // len(self.pseudo)))

    def hold(self, label: int) -> None:
        """Know a class of which no row is at hand: the classifier's own vectors stand for it."""
        self._vectors = None
        for number in self.fine(label):
            place = int(self.places[number]) if self.network.kind == "fixed" else number
            self.classifier.set(number, self.network.vectors[place].detach()[None])
        if label not in self.known:
            self.known.append(label)

    def match(self, labels: list[int], means: Tensor | None) -> None:
        """Give classes fixed prototypes that none has yet: the best match to their means (classes * M, d), else in order.

        Raises InputError where fewer are left.
        """
        self._vectors = None
        wanted = torch.tensor([number for label in labels for number in self.fine(label)])
        taken = set(self.places.tolist())
        free = torch.tensor([place for place in range(len(self.network.fixed)) if place not in taken], dtype=torch.int64)
        if len(wanted) > len(free):
            raise InputError(
                f"few_shot: prototypes: {len(wanted)} are needed for {len(labels)} classes, and {len(free)} of the "
                f"{len(self.network.fixed)} reserved are left. Use a network with more outputs, or prototypes='learned'."
            )
        if means is None:
            in_order = bool(torch.isin(wanted, free).all())  # its own number, where that is free
            self.places[wanted] = wanted if in_order else free[: len(wanted)]
        else:
            self.places[wanted] = free[assign_prototypes(means, self.network.fixed[free.to(means.device)]).cpu()]

    def targets(self, labels: list[int]) -> Tensor:
        """(classes * M, d): the fixed prototypes that were matched to some classes."""
        numbers = [number for label in labels for number in self.fine(label)]
        return self.network.fixed[self.places[numbers].to(self.network.fixed.device)]

    def forget(self, label: int) -> None:
        """Know a class no longer."""
        self._vectors = None
        for number in self.fine(label):
            if number in self.classifier:
                self.classifier.remove(number)
            self.places[number] = -1
        self.known.remove(label)
        self.base = [other for other in self.base if other != label]
        if self.discriminant is not None:
            self.discriminant.counts[label] = 0.0
            self.discriminant.restored()

    def grow_to(self, outputs: int) -> None:
        """Make room for more classes. Raises InputError where a trained layer is as wide as it is."""
        if self.head == "linear":
            raise InputError(
                f"few_shot: head='linear' has {self.outputs} outputs, and class {outputs - 1} is beyond them. "
                "Use head='means', or a network with more outputs."
            )
        more = outputs - self.outputs
        self.outputs = outputs
        self.places = torch.cat([self.places, torch.full((more * len(self.pseudo),), -1)])
        if self.discriminant is not None:
            pad = torch.nn.functional.pad
            self.discriminant.counts = pad(self.discriminant.counts, (0, more))
            if self.discriminant.means is not None:
                self.discriminant.means = pad(self.discriminant.means, (0, 0, 0, more))
            self.discriminant.restored()
        self._widen()

    def _widen(self) -> None:
        if self.discriminant is not None:
            self.discriminant.classes = self.outputs
            self.discriminant.guard.classes = self.outputs

    @property
    def vectors(self) -> tuple[list[int], Tensor]:
        """(fine classes, (n, d) directions): what features are compared with."""
        if self._vectors is None:
            numbers = list(self.classifier.labels)
            if self.assigned:
                found = self.network.fixed[self.places[numbers].to(self.network.fixed.device)]
            else:
                found = self._calibrated(numbers, directions(self.classifier.means))
            self._vectors = numbers, directions(found)
        return self._vectors

    def _calibrated(self, numbers: list[int], found: Tensor) -> Tensor:
        """Prototypes of later classes drawn to the base ones that they resemble, each kind of pseudo-class among itself."""
        count, base = len(self.pseudo), set(self.base)
        if self.calibrate is None or not base:
            return found
        found = found.clone()
        for kind in range(count):
            old = [place for place, number in enumerate(numbers) if number % count == kind and number // count in base]
            new = [place for place, number in enumerate(numbers) if number % count == kind and number // count not in base]
            if new:
                found[new] = calibrated(found[new], found[old], self.calibrate, self.classifier.scale)
        return found

    def scores(self, x: X) -> Tensor:
        """(rows, outputs) among the classes known; the others score -1e9."""
        if not self.known:
            return self._among(self.network.embed(x).new_zeros(size(x), self.outputs))
        if self.head == "lda":
            found = self.discriminant.predict(self.network.embed(x)).float()
            return self._among(found.clamp(min=UNSEEN))
        if self.head == "linear":
            with torch.no_grad():
                return self._among(self.network.scores(self.network.embed(x)))
        several = self.aggregate and len(self.pseudo) > 1
        h = self.network.embed(self.pseudo(x) if several else x)
        numbers, vectors = self.vectors
        scores = self.classifier.scale * directions(h) @ vectors.T
        wide = scores.new_full((len(h), self.outputs * len(self.pseudo)), UNSEEN)
        wide[:, numbers] = scores
        return self.pseudo.aggregate(wide) if several else wide[:, :: len(self.pseudo)].contiguous()

    def _among(self, scores: Tensor) -> Tensor:
        barred = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
        barred[self.known] = False
        return scores.masked_fill(barred, UNSEEN)
