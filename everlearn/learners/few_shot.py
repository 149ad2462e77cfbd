"""Few-shot class-incremental learning: train well once on many rows, then add classes from a handful.

    base      L = CE(scale * cosine) + supcon * L_sup + rotation * CE(quarter turns),   then p_c = mean features of class c
    session   (tune the encoder, or a small part of it) -> p_c = mean features of the new rows;   the nearest p_c answers

No row is kept after the session that brought it: a class is one vector.
Reference: Roy et al. (2024), A bag of tricks for few-shot class-incremental learning, arXiv 2403.14392.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from everlearn.core.errors import InputError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, rows, size
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.data.views import Viewer, Views
from everlearn.learners.few_shot_answers import Answers
from everlearn.learners.few_shot_base import BaseSession
from everlearn.learners.few_shot_loss import BaseLoss
from everlearn.learners.few_shot_network import Recognizer
from everlearn.learners.few_shot_session import teach, tunable
from everlearn.learners.few_shot_tricks import OFF, TRICKS, Finetune, checked
from everlearn.nn.features import last_linear
from everlearn.nn.masks import magnitude_mask
from everlearn.nn.prototypes import Label, shown, simplex_etf, spread_prototypes
from everlearn.nn.pseudo_classes import PseudoClasses
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class FewShot(Learner):
    """Learns the base classes by gradient steps, and each later class by the mean of its rows' features.

    The eight tricks, all off by default: the frozen baseline. `tricks`, "all", "stability", "adaptability", "training" or
    names joined by + ("supcon+rotation"), gives those that stand at their default the usual value in brackets:

    1 supcon: weight of the supervised contrast of two views of each row, at `temperature` (1.0);
    2 prototypes: "learned", or fixed before training: "etf" (needs features as wide as there are classes, less one) or
      "spread"; matched to the class means where `pretrain` made them tell something, else taken in order ("spread");
    3 pseudo_classes: transforms of rows learned as classes of their own: "rotation2", "rotation4", "colour3", ...
      ("rotation2"); aggregate: whether all transforms are asked in prediction; wrong for images whose meaning hangs on
      which way is up;
    4 finetune: `finetune(lr=0.001, steps=20)` tunes the encoder on the rows of each later session (that);
    5 subnet: the part of the encoder's weights, the smallest ones, that sessions may tune; 0 none, 1 all (0.1);
    6 a larger encoder: the network itself;
    7 pretrain: epochs of contrast without labels over the base rows, ahead of all else, at `pretrain_temperature` (6);
    8 rotation: weight of telling by how many quarters a row was turned (0.5).

    model: its last linear layer is cut off, the rest is the encoder; scale: of cosines, 16; classification: weight of the
    cross-entropy, 0 to learn by contrast alone; augment: learn the base classes from random views; views: those;
    predict_with: "means" or the "assigned" fixed prototypes, which later rows come near only where `finetune` pulls them;
    prototype_loss: "cross_entropy", or "dot_regression" (weight 10) for fixed ones; calibrate: 0.5 draws later prototypes
    towards base ones they resemble (TEEN); average: "raw" or "normalised" features; refine: whether later rows of known
    classes move their prototypes; head: "means", or for comparison on the same encoder "lda" (linear discriminants) or
    "linear" (a softmax layer, which each session tunes further by `finetune`, without the encoder where that is None).

    The base session ends with the second boundary, with a row of a class that the first did not bring, or with `add_class`.
    Its rows are held in a memory until then, and released (a replay budget cuts it; a class without rows is its
    classifier's vector). At the end of each pass over rows that a boundary brought the class means answer, within a pass
    the classifier in training. Later boundaries that bring rows teach them at once, and the batches that repeat them are
    passed over; where none does, rows of new classes teach as they come, without tuning. No later session sees a row of an
    earlier one, and old prototypes stay where they are.

    >>> import torch
    >>> from everlearn import FewShot
    >>> _ = torch.manual_seed(0)
    >>> learner = FewShot(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)))
    >>> x = torch.eye(4).repeat(8, 1)
    >>> learner.fit_base(x, torch.arange(32) % 4 // 2, epochs=2)
    >>> learner.add_class(torch.full((5, 4), -1.0), "negative")
    2
    >>> learner.predict(torch.full((1, 4), -2.0)).argmax().item(), learner.names
    (2, {'negative': 2})

    Reference: Roy et al. (2024), arXiv 2403.14392.
    Differs from the paper in: its own settings are not published; these are those of the recipes it builds on (SAVC, arXiv
    2304.00426; NC-FSCIL, arXiv 2302.03004; SoftNet, arXiv 2209.07529). Contrast within the batch, without a queue and a
    momentum encoder; two full-size views; the subnet is chosen by magnitude, not learned; one cross-entropy over all
    reserved prototypes where they are fixed.
    """

    name = "few_shot"
    parts = ("descent", "guard", "viewer", "answers", "base", "session", "over", "closed", "taught", "mask", "names")

    def __init__(
        self,
        model: nn.Module,
        *,
        scale: float = 16.0,
        tricks: str = "",
        supcon: float = 0.0,
        temperature: float = 0.1,
        prototypes: str = "learned",
        pseudo_classes: str | None = None,
        finetune: Finetune | None = None,
        subnet: float | None = None,
        pretrain: int = 0,
        rotation: float = 0.0,
        predict_with: str = "means",
        aggregate: bool = True,
        calibrate: float | None = None,
        average: str = "raw",
        head: str = "means",
        classification: float = 1.0,
        prototype_loss: str = "cross_entropy",
        pretrain_temperature: float = 0.2,
        pretrain_batch: int = 64,
        projection: int = 128,
        augment: bool = False,
        refine: bool = False,
        views: Views | None = Views(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        arguments = {key: value for key, value in locals().items() if key not in ("self", "model")}
        self._on = on = checked(self.name, **arguments)
        self.scale = scale
        self.tricks = tricks
        self.supcon = supcon
        self.temperature = temperature
        self.prototypes = prototypes
        self.pseudo_classes = pseudo_classes
        self.finetune = finetune
        self.subnet = subnet
        self.pretrain = pretrain
        self.rotation = rotation
        self.predict_with = predict_with
        self.aggregate = aggregate
        self.calibrate = calibrate
        self.average = average
        self.head = head
        self.classification = classification
        self.prototype_loss = prototype_loss
        self.pretrain_temperature = pretrain_temperature
        self.pretrain_batch = pretrain_batch
        self.projection = projection
        self.augment = augment
        self.refine = refine
        self.views = views
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        layer = last_linear(model) if isinstance(model, nn.Module) else None
        self._pseudo = PseudoClasses(on["pseudo_classes"])
        fixed = on["prototypes"] != "learned"
        outputs = layer.out_features if layer is not None else 0
        contrasted = on["supcon"] > 0 or on["pretrain"] > 0
        self.network = Recognizer(
            self.name,
            model,
            outputs * len(self._pseudo),
            scale=scale,
            kind="fixed" if fixed else "linear" if head == "linear" else "cosine",
            projection=projection if contrasted else 0,
            rotation=on["rotation"] > 0,
            seed=seed,
        )
        if fixed:
            place = simplex_etf if on["prototypes"] == "etf" else spread_prototypes
            self.network.fix(place(outputs * len(self._pseudo), self.network.d, seed))
        self.descent = Descent(self.network, optimizer, seed)
        self.guard = Guard(self.name, outputs, model=self.network)
        self.viewer = Viewer(self.name, views, generator(seed, "views"))
        self.answers = Answers(
            *(self.network, self._pseudo, outputs),
            scale=scale,
            average=average,
            head=head,
            predict_with=predict_with,
            calibrate=calibrate,
            aggregate=aggregate,
        )
        self._loss = BaseLoss(
            *(self.network, self._pseudo, self.viewer),
            supcon=on["supcon"],
            rotation=on["rotation"],
            classification=classification,
            temperature=temperature,
            regression=prototype_loss == "dot_regression",
            augment=augment,
        )
        self.base = BaseSession(self.descent, self.answers, self._loss, seed)
        self.session = -1  # -1 before anything came, 0 in the base session, then the number of those after it
        self.over = False  # whether the base session is
        self.closed: list[int] = []  # classes whose rows have come in full: later ones move them only with refine
        self.taught = False  # whether the boundary of the present later session brought its rows
        self.mask = torch.zeros(0, dtype=torch.bool)  # over the encoder's weights: those that sessions may tune
        self.names: dict[str, int] = {}  # names of classes that were added by name
        self._pass: Answers | None = None  # as if the base session ended here

    # ---- the contract -----------------------------------------------------------------------------------------------------

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        if self.over:
            return self.answers.scores(x)
        if not self.base.whole:
            return self.base.scores(x)
        if self._pass is None:
            self._pass = self.answers.copied()
            self.base.close(self._pass)
        return self._pass.scores(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        self._loss.check(batch.x)
        self._pass = None
        self.session = max(self.session, 0)
        labels = batch.y.unique().tolist()
        if not self.over and self.base.excludes(labels):
            self.end_base()
        if not self.over:
            return self.base.step(batch.x, batch.y, self.passes)
        if not self.taught:
            known = set() if self.refine else set(self.closed)
            self._teach(batch.x, batch.y, [label for label in labels if label not in known], tuned=False)
        return {}

    def boundary(self, boundary: Boundary) -> None:
        """The first opens the base session, and pre-trains on its rows; later ones end it, and teach the rows that they
        bring.

        Raises InputError where a class is announced of which the rows that come with it hold none.
        """
        data = boundary.data
        labelled = data is not None and data.y is not None
        if data is not None:
            self.guard.batch(data)
            self._loss.check(data.x)
        if labelled:
            missing = sorted(set(boundary.classes) - set(data.y.unique().tolist()))
            if missing:
                raise InputError(f"{self.name}: classes {shown(missing)} are announced, and data holds no row of them.")
        self._pass = None
        if self.session < 0 and not self.over:
            self.session = 0
            self.base.begin(boundary, self._on["pretrain"], self.pretrain_batch, self.pretrain_temperature)
            return
        self.end_base()
        self.session += 1
        self.closed = list(self.answers.known)
        self.taught = labelled
        if labelled:
            labels = data.y.unique().tolist()
            self._teach(data.x, data.y, labels if self.refine else [label for label in labels if label not in self.closed])
            self.closed = list(self.answers.known)

    def restored(self) -> None:
        """What was worked out belongs to the state before."""
        self._pass = None
        self.guard.classes = self.answers.outputs

    # ---- sessions ---------------------------------------------------------------------------------------------------------

    def end_base(self) -> None:
        """End the base session: class means are taken with the encoder as it is now, and its rows are released."""
        if self.over:
            return
        self._pass = None
        self.session = max(self.session, 0)
        self.base.close(self.answers)
        self.base.memory.release()
        self.over, self.closed = True, list(self.answers.known)
        if self._on["subnet"] is not None:
            self.mask = magnitude_mask(tunable(self.network.body), self._on["subnet"])

    def _teach(self, x: X, y: Tensor, labels: list[int], tuned: bool = True) -> None:
        """Learn some classes among the rows; tuned: after tuning on them, where that is on."""
        if labels:
            given = self._on["finetune"] if self._on["subnet"] is None else self._on["finetune"] or Finetune()
            mask = None if self._on["subnet"] is None else self.mask
            teach(self.answers, x, y, labels, given=given if tuned else None, mask=mask, viewer=self.viewer)

    def adapt(self, x: X, y: Tensor, update: bool = False) -> None:
        """One session: learn the classes of a handful of rows, x (rows, ...), y (rows,) int64.

        Raises InputError where a class is known already, unless update=True, which lets its prototype follow the new rows
        too.
        """
        batch = Batch(x, y)
        self.guard.batch(batch)
        self._loss.check(x)
        labels = y.unique().tolist()
        self.end_base()
        reused = [label for label in labels if label in self.answers.known]
        if reused and not update:
            raise InputError(
                f"few_shot: y names classes that are known already ({shown(reused)}). Use update=True to refine them."
            )
        self.session += 1
        self._teach(x, y, labels)
        self.closed = list(self.answers.known)

    # ---- one class --------------------------------------------------------------------------------------------------------

    def number(self, label: Label) -> int:
        """The number of a class, the column of its scores. Raises InputError where there is no class of this name or number."""
        found = self.names.get(label) if isinstance(label, str) else label
        if found is None or found not in self.answers.known:
            raise InputError(f"few_shot: there is no class {label!r}; there are {shown(self.classes)}.")
        return found

    @property
    def classes(self) -> list[Label]:
        """The classes that can be the answer, by name where they have one."""
        called = {number: name for name, number in self.names.items()}
        return [called.get(number, number) for number in self.answers.known]

    def call(self, names: Sequence[str]) -> None:
        """Name the classes 0, 1, ... as the data set has them."""
        self.names |= {name: number for number, name in enumerate(names)}

    def add_class(self, x: X, label: Label | None = None) -> int:
        """Add a class from its rows x (rows, ...), under a name, a number, or the next number that is free. Returns its
        number.

        It ends the base session. The scores get a column more where they have none for it. Raises InputError where the
        class is known.
        """
        self.guard.inputs(x)
        self._loss.check(x)
        if not size(x):
            raise InputError("few_shot: x must hold at least one row of the class, got none.")
        if (label is not None and not isinstance(label, (int, str))) or (isinstance(label, int) and label < 0):
            raise InputError(f"few_shot: label must be a name or a number >= 0, got {label!r}.")
        self.end_base()
        number = self.names.get(label) if isinstance(label, str) else label
        if number is None:
            taken = {*self.answers.known, *self.names.values()}
            number = next(place for place in range(len(taken) + 1) if place not in taken)
        if number in self.answers.known:
            raise InputError(f"few_shot: class {label!r} is known already. Use refresh_class to make it anew.")
        if number >= self.answers.outputs:
            self.answers.grow_to(number + 1)
            self.guard.classes = number + 1
        self.session += 1
        self._teach(x, torch.full((size(x),), number), [number])
        if isinstance(label, str):
            self.names[label] = number
        self.closed = list(self.answers.known)
        return number

    def refresh_class(self, x: X, label: Label) -> None:
        """Make the prototype of a known class anew from these rows alone; the encoder stays as it is. Raises InputError."""
        self.guard.inputs(x)
        number = self.number(label)
        if self.head != "means":
            raise InputError(f"few_shot: head={self.head!r} cannot forget a class's rows to begin anew. Use head='means'.")
        self.answers.take(*self.answers.embed(x, torch.full((size(x),), number)), renew=True)

    def remove_class(self, label: Label) -> None:
        """Never answer with a class again, until it is added anew. Raises InputError where it is not known."""
        self.end_base()
        number = self.number(label)
        self.answers.forget(number)
        self.closed = [other for other in self.closed if other != number]
        self.names = {name: other for name, other in self.names.items() if other != number}

    @property
    def bytes_per_class(self) -> int:
        """Bytes that is kept of a class: one float64 vector for each of its pseudo-classes."""
        return self.answers.classifier.bytes_per_class * len(self._pseudo)

    @property
    def encoder(self) -> nn.Module:
        """The encoder: x -> features, in the mode it is in. `nearest_class_mean` and `streaming_lda` can be put on it."""
        return self.network.body

    def fit_base(self, x: X, y: Tensor, epochs: int, batch: int = 64) -> None:
        """Train on the base classes: `epochs` shuffled passes in batches, then class means. Raises InputError, ArgumentError."""
        check_count(self.name, "epochs", epochs)
        check_count(self.name, "batch", batch)
        if self.session >= 0 or self.over:
            raise InputError("few_shot: the base session has begun already; fit_base takes a new learner.")
        self.boundary(Boundary(0, (), Batch(x, y)))
        for epoch in range(epochs):
            order = torch.randperm(len(y), generator=generator(self.seed, "base", epoch)).to(y.device)
            for start in range(0, len(y), batch):
                some = order[start : start + batch]
                self.update(Batch(rows(x, some), y[some]))
        self.end_base()

    def trick_table(self) -> list[dict]:
        """The eight tricks: number, group, trick, argument, value, and whether it is on (None for the encoder: no switch)."""
        table = []
        for name, trick in TRICKS.items():
            value = self._on.get(name)
            row = {"number": trick.number, "group": trick.group, "trick": trick.title, "argument": trick.argument}
            on = None if name == "encoder" else value != OFF[name]
            table.append({**row, "value": value, "on": on})
        return table
