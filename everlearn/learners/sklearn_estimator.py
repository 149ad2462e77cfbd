"""A scikit-learn classifier as a learner: updated by `partial_fit`, or fitted anew on a schedule.

    estimator = partial_fit(estimator, batch)                        where it has partial_fit and no schedule is given
    estimator = fit(clone, the last `capacity` rows)                 whenever `refit` says so

Its state is not tensors: it is saved as the log of rows learned from and folded anew when it is put back, never pickled.
Reference: Pedregosa et al. (2011), Scikit-learn: Machine learning in Python, JMLR 12.
"""

from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.core.state import capture, restore
from everlearn.data.log import Log, Window
from everlearn.learners.estimator import Library, estimator, refuse_mappings, scores, table, written
from everlearn.learners.sklearn_models import (
    default_model,
    grown,
    has_partial_fit,
    is_a_classifier,
    parameters,
    partial_fit,
    probabilities_of,
    seeded,
    unfitted,
)
from everlearn.optim.refit import Grown, Never, Refit

SKLEARN = Library(
    package="sklearn",
    modules=(
        *(
            "linear_model",
            "ensemble",
            "pipeline",
            "preprocessing",
            "tree",
            "naive_bayes",
            "neighbors",
            "svm",
            "neural_network",
        ),
        *(
            "discriminant_analysis",
            "dummy",
            "compose",
            "impute",
            "calibration",
            "model_selection",
            "multiclass",
            "semi_supervised",
        ),
        *("decomposition", "feature_selection", "kernel_approximation", "random_projection", "gaussian_process", "cluster"),
        *("feature_extraction", "frozen", "isotonic", "kernel_ridge", "manifold", "mixture", "multioutput", "covariance"),
        "cross_decomposition",
    ),
    word="scikit-learn",
    example="ensemble.RandomForestClassifier",
    dotted=False,
)
GROWTH = 1.5  # the schedule of an estimator that has no partial_fit and was given none


class SklearnEstimator(Learner):
    """Any scikit-learn classifier, updated as batches come or fitted anew on a schedule.

    model: the classifier, its class or its call string; it is cloned, so what it has learned already does not count, and it is
    never changed. None takes make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")). refit: `every(n)`, `grown(factor)` or
    `on_drift(detector)`; None takes partial_fit where the classifier (and each step before it, in a pipeline) has it, else
    grown(1.5). warm: each re-fit goes on from the last one (`warm_start`; ensembles get as many members again), and starts cold
    where the classes differ from those of the last fit. capacity: the newest rows that a re-fit looks at, None for all;
    classes: how many there are; None finds out from the labels (and folds the log anew where partial_fit meets a new one).

    `random_state` follows from seed wherever it is None, also inside pipelines. An estimator that draws from NumPy's global state
    without having that argument breaks the contract; `everlearn check` tells. Image bytes are flattened and scaled to 0..1.
    A budget limits the rows that a re-fit looks at. For snapshots alone, and counted by no budget, the learner also keeps the rows
    of the last fit, or all rows with partial_fit or warm; the estimator never learns from those again.

    >>> import torch
    >>> from everlearn import Batch
    >>> learner = SklearnEstimator("GaussianNB()", classes=2)
    >>> metrics = learner.update(Batch(torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])))
    >>> learner.predict(torch.tensor([[0.5], [4.5]])).argmax(dim=1).tolist()
    [0, 1]
    """

    name = "sklearn"
    parts = ("guard", "log", "window", "basis", "schedule", "marks", "outputs")
    takes = "estimator"

    def __init__(
        self,
        model: Any = None,
        *,
        refit: Refit | None = None,
        warm: bool = False,
        capacity: int | None = None,
        classes: int | None = None,
        seed: int = 0,
    ):
        if classes is not None:
            check_count(self.name, "classes", classes)
        given = default_model() if model is None else estimator(model, SKLEARN, is_a_classifier)
        self.written = "" if model is None else written(given, SKLEARN)
        self.refit = refit
        self.warm = warm
        self.capacity = capacity
        self._declared = classes  # of the stream, not of the learner's text
        self.seed = seed
        self._incremental = refit is None and has_partial_fit(given)
        self._check(given)
        self._template = seeded(given, seed, warm)
        self.schedule = None if self._incremental else (refit or Grown(GROWTH)).fresh()
        self.window = None if self._incremental else Window(capacity)
        self.guard = Guard(self.name, classes)
        self.log = Log()
        self.basis = Log()  # the rows of the last fit, where a capacity lets go of them
        self.outputs = classes or 0  # columns of the scores
        self._marks: list[int] = []
        self._fitted: Any = None

    def _check(self, given: Any) -> None:
        """Refuse arguments that would do nothing."""
        kind = type(given).__name__
        if self.refit is not None and not callable(getattr(self.refit, "due", None)):
            raise ArgumentError(
                f"{self.name}: refit must be every(n), grown(factor) or on_drift(detector), got {self.refit!r}."
            )
        if isinstance(self.refit, Never):
            raise ArgumentError(
                f"{self.name}: refit=never() would never fit {kind}. Use every(500), grown(1.5) or on_drift(adwin())."
            )
        if self._incremental and (self.warm or self.capacity is not None):
            word = "warm" if self.warm else "capacity"
            raise ArgumentError(
                f"{self.name}: {word} is for re-fits, and {kind} is updated by partial_fit. Give refit=every(500) as well, or leave it out."
            )
        if self.warm and "warm_start" not in parameters(given):
            raise ArgumentError(f"{self.name}: {kind} has no warm_start, so warm must be False.")

    @property
    def marks(self) -> Tensor:
        """Numbers of rows at which the estimator was trained: the ends of batches with partial_fit, else the fits."""
        return torch.tensor(self._marks, dtype=torch.int64)

    @marks.setter
    def marks(self, value: Tensor) -> None:
        self._marks = value.tolist()

    def predict(self, x: X) -> Tensor:
        """(batch, classes) log-probabilities, float64: predict_proba where the estimator has it, else a softmax of
        decision_function, arranged so that the answer of predict is the likeliest, else 1 for that answer. Uniform before the
        first fit."""
        self.guard.inputs(x)
        rows = table(x, self.name)
        probabilities = numpy.zeros((len(rows), max(1, self.outputs)))
        if self._fitted is not None:
            columns = numpy.asarray(self._fitted.classes_, dtype=numpy.int64)
            try:
                probabilities[:, columns] = probabilities_of(self._fitted, rows.numpy(), columns)
            except Exception as fault:
                raise self._failed("answer for", fault) from fault
        return scores(probabilities, x.device)

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch. Raises InputError where the estimator cannot be fitted on its rows; all is then as before."""
        refuse_mappings(batch, self.name)
        before = self._checkpoint()
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        error = None
        if self.schedule is not None and self.schedule.needs_error:
            error = float((self.predict(batch.x).argmax(1) != batch.y).double().mean())
        self.log.append(batch.x, batch.y)
        try:
            return self._learn(batch, error)
        except Exception as fault:
            self._undo(len(batch), before)
            if isinstance(fault, InputError):
                raise
            raise self._failed("be fitted on", fault) from fault

    def boundary(self, boundary: Boundary) -> None:
        """A change is no occasion for the estimator to do anything."""

    def restored(self) -> None:
        """Fold the log anew, after its rows and marks have been put back."""
        self._fitted = None
        if self._incremental:
            for start, stop in zip([0, *self._marks], self._marks, strict=False):
                self._advance(start, stop)
        elif self.warm:
            for stop in self._marks:
                self._fit(*self._window(stop))
        elif self._marks and self.window.capacity is None:
            self._fit(*self._window(self._marks[-1]))
        elif self._marks:
            self._fit(self.basis.x, self.basis.y)

    def _learn(self, batch: Batch, error: float | None) -> Metrics:
        outputs = self.outputs if self._declared is not None else max(2, self.outputs, int(batch.y.max()) + 1)
        more, self.outputs = outputs > self.outputs, outputs
        if self._incremental:
            self._marks.append(self.log.end)
            if more and len(self._marks) > 1:
                self.restored()
            else:
                self._advance(self.log.end - len(batch), self.log.end)
            return {"rows_fitted": len(batch)}
        self.window.add(len(batch), bytes=batch.x[0].nbytes + batch.y[0].nbytes)
        due = self.schedule.due(self.window.seen, error) and self.window.stored > 0
        if due:
            self._fit(*self._window(self.window.seen))
            self.window.replayed += self.window.stored
            self._marks = [*(self._marks if self.warm else ()), self.window.seen]
        if not self.warm and self.window.capacity is not None:
            if due:
                self.basis = Log()
                self.basis.append(*self._window(self.window.seen))
            self.log.drop(self.window.start)
        return {"rows_fitted": self.window.stored if due else 0}

    def _window(self, stop: int) -> tuple[Tensor, Tensor]:
        """The rows that a fit before row `stop` looks at."""
        capacity = self.window.capacity
        return self.log.rows(0 if capacity is None else max(0, stop - capacity), stop)

    def _advance(self, start: int, stop: int) -> None:
        """One partial_fit on the rows start..stop-1."""
        if self._fitted is None:
            self._fitted = unfitted(self._template)
        x, y = self.log.rows(start, stop)
        partial_fit(self._fitted, table(x, self.name).numpy(), y.numpy(), numpy.arange(self.outputs))

    def _fit(self, x: Tensor, y: Tensor) -> None:
        """Fit on rows of a window. Where they hold one class only, that class is the answer."""
        from sklearn.dummy import DummyClassifier

        rows, labels = table(x, self.name).numpy(), y.numpy()
        known = numpy.unique(labels)
        last = self._fitted
        if len(known) == 1:
            fresh: Any = DummyClassifier(strategy="prior")
        elif self.warm and type(last) is type(self._template) and numpy.array_equal(known, last.classes_):
            fresh = grown(last, self._template)
        else:
            fresh = unfitted(self._template)
        self._fitted = fresh.fit(rows, labels)

    def _failed(self, what: str, fault: Exception) -> InputError:
        later = (
            ""
            if self._incremental
            else " If it needs more rows, let the first fit come later, with refit=every(500) for one."
        )
        return InputError(f"{self.name}: {type(self._template).__name__} could not {what} these rows: {fault}{later}")

    def _checkpoint(self) -> tuple[Any, ...]:
        """What an update changes beside the log and the estimator."""
        return capture([self.guard, self.schedule, self.window]), self.outputs, len(self._marks)

    def _undo(self, count: int, before: tuple[Any, ...]) -> None:
        """Take back an update that failed; what may be half-learned is folded anew."""
        parts, self.outputs, marks = before
        restore([self.guard], parts[:1])
        if not self._incremental:
            restore([self.schedule, self.window], parts[1:])
        self._marks = self._marks[:marks]
        self.log.take_back(count)
        if self._incremental or self.warm:
            self.restored()


sklearn_names = SKLEARN.find
estimator_named = sklearn_names  # the catalogue asks every estimator's module for this
