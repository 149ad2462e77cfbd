"""What a learner asks of a scikit-learn classifier, whichever it is: a clone with its seeds set, one step of partial_fit through a
pipeline, more members for an ensemble that goes on, and probabilities from the best answer that it gives.
"""

from typing import Any

import numpy
import torch

from everlearn.core.random import derive


def default_model() -> Any:
    """Scaled features, or stochastic gradient descent goes astray where columns differ in size."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss"))


def is_a_classifier(value: Any) -> bool:
    """Whether scikit-learn calls it a classifier; a class of the user's own needs fit and predict."""
    from sklearn.base import BaseEstimator, is_classifier

    if isinstance(value, BaseEstimator):
        return is_classifier(value)
    return all(callable(getattr(value, method, None)) for method in ("fit", "predict"))


def unfitted(value: Any) -> Any:
    """A clone that has learned nothing; a copy of what has no get_params."""
    from sklearn.base import clone

    return clone(value, safe=False)


def parameters(value: Any, deep: bool = False) -> dict[str, Any]:
    """get_params, {} where there is none; deep: also those of the estimators inside."""
    return value.get_params(deep=deep) if hasattr(value, "get_params") else {}


def seeded(given: Any, seed: int, warm: bool) -> Any:
    """A clone with every random_state that is None made from the seed."""
    fresh = unfitted(given)
    unset = [key for key, value in parameters(given, deep=True).items() if value is None and key.endswith("random_state")]
    settings: dict[str, Any] = {key: derive(seed, "sklearn", key) % 2**32 for key in unset}
    if warm:
        settings["warm_start"] = True
    if settings:
        fresh.set_params(**settings)
    return fresh


def _steps(model: Any) -> list[Any]:
    """The steps of a pipeline that do something, else the model alone."""
    from sklearn.pipeline import Pipeline

    if isinstance(model, Pipeline):
        return [step for _, step in model.steps if step not in (None, "passthrough")]
    return [model]


def has_partial_fit(model: Any) -> bool:
    """Whether it can learn batch by batch: itself, or each step of a pipeline."""
    return all(hasattr(step, "partial_fit") for step in _steps(model))


def partial_fit(model: Any, x: numpy.ndarray, y: numpy.ndarray, classes: numpy.ndarray) -> None:
    """One batch, x (rows, features), y (rows,): each step of a pipeline learns from what the steps before it make of the batch."""
    *before, last = _steps(model)
    for step in before:
        step.partial_fit(x, y)
        x = step.transform(x)
    last.partial_fit(x, y, classes=classes)


def grown(model: Any, template: Any) -> Any:
    """A fitted model ready to go on: an ensemble gets as many members again, since it would otherwise not change at all."""
    own = parameters(template)
    for key in ("n_estimators", "max_iter"):
        if key in own and (key == "n_estimators" or "max_leaf_nodes" in own):  # trees are grown one per iteration
            return model.set_params(**{key: parameters(model)[key] + own[key]})
    return model


def probabilities_of(model: Any, x: numpy.ndarray, columns: numpy.ndarray) -> numpy.ndarray:
    """(rows, known classes) from the best answer that the estimator can give."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(x)
    if hasattr(model, "decision_function"):
        margins = numpy.asarray(model.decision_function(x), dtype=numpy.float64)
        if margins.ndim == 1:
            margins = numpy.stack([numpy.zeros_like(margins), margins], axis=1)
        if margins.shape[1] == len(columns):
            return _with_answers(torch.softmax(torch.from_numpy(margins), dim=1).numpy(), model.predict(x), columns)
    return (numpy.asarray(model.predict(x))[:, None] == columns[None, :]).astype(numpy.float64)


def _with_answers(probabilities: numpy.ndarray, answers: numpy.ndarray, columns: numpy.ndarray) -> numpy.ndarray:
    """Exchange two entries where the likeliest class is not the estimator's answer (a vote among pairs of classes, say)."""
    rows, best, told = numpy.arange(len(answers)), probabilities.argmax(axis=1), numpy.searchsorted(columns, answers)
    probabilities[rows, best], probabilities[rows, told] = probabilities[rows, told], probabilities[rows, best]
    return probabilities
