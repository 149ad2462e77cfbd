"""A River classifier as a learner: one row at a time, as River does it.

    for row, label in batch: model.learn_one({name: value, ...}, label)

Its state is not tensors: it is saved as the log of rows learned from and folded anew when it is put back, never pickled.
Reference: Montiel et al. (2021), River: machine learning for streaming data in Python, JMLR 22, arXiv 2012.04740.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count, optional
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.core.random import derive
from everlearn.data.log import Log
from everlearn.learners.estimator import Library, estimator, refuse_mappings, scores, table, written

RIVER = Library(
    package="river",
    modules=(
        *(
            "tree",
            "linear_model",
            "preprocessing",
            "compose",
            "multiclass",
            "forest",
            "ensemble",
            "naive_bayes",
            "neighbors",
        ),
        *(
            "optim",
            "drift",
            "rules",
            "dummy",
            "facto",
            "feature_extraction",
            "feature_selection",
            "imblearn",
            "model_selection",
        ),
        *(
            "active",
            "anomaly",
            "bandit",
            "cluster",
            "compat",
            "covariance",
            "metrics",
            "misc",
            "proba",
            "sketch",
            "stats",
            "utils",
        ),
    ),
    word="River",
    example="tree.HoeffdingTreeClassifier",
    dotted=True,
)


class RiverModel(Learner):
    """Any River classifier, taught row by row.

    model: the classifier, its class or its call string; it is cloned, so what it has learned already does not count, and it is
    never changed. None takes Pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())). features: names of the
    columns, None for x0, x1, ...; classes: how many there are, None finds out from the labels.

    Every `seed` that is None follows from seed, also inside pipelines. A model that tells two classes apart only is refused where
    there are more. Image bytes are flattened and scaled to 0..1. All rows learned from are kept, for snapshots only: the model
    never learns from them twice, and no budget counts them.

    >>> import torch
    >>> from everlearn import Batch
    >>> learner = RiverModel("naive_bayes.GaussianNB()", classes=2)
    >>> metrics = learner.update(Batch(torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])))
    >>> learner.predict(torch.tensor([[0.5], [4.5]])).argmax(dim=1).tolist()
    [0, 1]
    """

    name = "river"
    parts = ("guard", "log", "outputs")
    takes = "estimator"

    def __init__(
        self, model: Any = None, *, features: Sequence[str] | None = None, classes: int | None = None, seed: int = 0
    ):
        optional("river", "river", "the learner river")
        if classes is not None:
            check_count(self.name, "classes", classes)
        given = _default() if model is None else estimator(model, RIVER, _is_classifier)
        self.written = "" if model is None else written(given, RIVER)
        self.features = None if features is None else tuple(features)
        self._names = self.features or ()  # the same strings for every row: dicts find them by identity
        self._declared = classes  # of the stream, not of the learner's text
        self.seed = seed
        self._multiclass = bool(given._multiclass)
        if not self._multiclass and classes is not None and classes > 2:
            raise ArgumentError(
                f"{self.name}: {type(given).__name__} tells 2 classes apart, and there are {classes}. "
                f"Use multiclass.OneVsRestClassifier({self.written})."
            )
        self._template = given
        self._fresh()
        self.guard = Guard(self.name, classes if self._multiclass else 2)
        self.log = Log()
        self.outputs = classes or 0  # columns of the scores

    def _fresh(self) -> None:
        self._model = _seeded(self._template, self.seed, "river")

    def predict(self, x: X) -> Tensor:
        """(batch, classes) log-probabilities, float64: predict_proba_one where the model has it, else 1 for the answer of
        predict_one. Uniform before the first row, and for rows of which the model says nothing."""
        self.guard.inputs(x)
        values = table(x, self.name)
        columns = range(max(1, self.outputs))
        if self.log.end == 0:
            return scores(numpy.zeros((len(values), len(columns))), x.device)
        rows = self._rows(values)
        try:
            ask = self._model.predict_proba_one
            answers = [ask(row) for row in rows]
        except NotImplementedError:  # River's word for a classifier without probabilities
            ask = self._model.predict_one
            answers = [{ask(row): 1.0} for row in self._rows(values)]
        known = [[answer.get(column, 0.0) for column in columns] for answer in answers]
        return scores(numpy.array(known, dtype=numpy.float64), x.device)

    def update(self, batch: Batch) -> Metrics:
        """Learn from the rows, one after the other. Raises InputError where the model refuses one; all is then as before."""
        refuse_mappings(batch, self.name)
        before = (self.guard.shapes, self.guard.dtypes, self.outputs)
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        self.log.append(batch.x, batch.y)
        try:
            self._learn(batch.x, batch.y)
        except Exception as fault:
            self.guard.shapes, self.guard.dtypes, self.outputs = before
            self.log.take_back(len(batch))
            self.restored()
            if isinstance(fault, InputError):
                raise
            raise InputError(f"{self.name}: {type(self._template).__name__} could not learn these rows: {fault}") from fault
        return {}

    def boundary(self, boundary: Boundary) -> None:
        """A change is no occasion for the model to do anything."""

    def restored(self) -> None:
        """Fold the log anew, after its rows have been put back."""
        self._fresh()
        if self.log.end:
            self._learn(*self.log.rows(0, self.log.end))

    def _learn(self, x: Tensor, y: Tensor) -> None:
        labels = y.tolist()
        if self._declared is None:
            self.outputs = max(2, self.outputs, max(labels) + 1)
        if not self._multiclass:
            labels = [label == 1 for label in labels]  # River's two-class models are written for bool
        learn = self._model.learn_one
        for row, label in zip(self._rows(table(x, self.name)), labels, strict=True):
            learn(row, label)

    def _rows(self, values: Tensor) -> Iterator[dict[str, float]]:
        """Each row as the dict that River takes."""
        width = values.shape[1]
        if len(self._names) != width:
            if self.features is not None:
                raise InputError(
                    f"{self.name}: features names {len(self._names)} columns, and rows of x have {width}. Name each column, or none."
                )
            self._names = tuple(f"x{column}" for column in range(width))
        names = self._names
        return (dict(zip(names, row, strict=False)) for row in values.numpy().tolist())


def _default() -> Any:
    from river import compose, linear_model, multiclass, preprocessing

    return compose.Pipeline(
        preprocessing.StandardScaler(), multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
    )


def _is_classifier(value: Any) -> bool:
    from river import base, compose

    if isinstance(value, compose.Pipeline):
        return bool(value.steps) and _is_classifier(list(value.steps.values())[-1])
    return isinstance(value, base.Classifier)


def _seeded(model: Any, seed: int, path: str) -> Any:
    """A clone, nothing learned, with every `seed` that is None made from the seed; it looks into pipelines and lists of models."""
    return model.clone(_settings(model, seed, path))


def _settings(model: Any, seed: int, path: str) -> dict[str, Any]:
    """The parameters that `clone` must replace."""
    from river import base, compose

    if isinstance(model, (compose.Pipeline, compose.TransformerUnion)):
        steps = model.steps if isinstance(model, compose.Pipeline) else model.transformers
        return {key: _settings(step, seed, f"{path}.{key}") for key, step in steps.items() if isinstance(step, base.Base)}
    new: dict[str, Any] = {}
    for key in model._get_params():
        held = getattr(model, key, None)
        place = f"{path}.{key}"
        if key == "seed" and held is None:
            new[key] = derive(seed, place) % 2**32
        elif isinstance(held, base.Base):
            new[key] = (type(held), _settings(held, seed, place))
        elif isinstance(held, (list, tuple)) and any(isinstance(item, base.Base) for item in held):
            items = [
                _seeded(item, seed, f"{place}[{index}]") if isinstance(item, base.Base) else item
                for index, item in enumerate(held)
            ]
            new[key] = type(held)(items)
    return new


river_names = RIVER.find
estimator_named = river_names  # the catalogue asks every estimator's module for this
