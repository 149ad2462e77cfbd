"""The estimators and rows on which the wrapper is tested."""

import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from everlearn.learners.sklearn_estimator import SklearnEstimator
from everlearn.measure.drift import Every as EveryN
from everlearn.optim.refit import Every, Grown, OnDrift


def learned(learner, events):
    for batch in events:
        learner.update(batch)
    return learner


def whole(events):
    return torch.cat([batch.x for batch in events]), torch.cat([batch.y for batch in events])


MADE = {
    "default": lambda seed: SklearnEstimator(classes=4, seed=seed),
    "naive bayes": lambda seed: SklearnEstimator(GaussianNB(), classes=4, seed=seed),
    "perceptron": lambda seed: SklearnEstimator(MLPClassifier((6,)), classes=4, seed=seed),
    "forest": lambda seed: SklearnEstimator(RandomForestClassifier(3), refit=Every(20), classes=4, seed=seed),
    "forest, window": lambda seed: SklearnEstimator(
        RandomForestClassifier(3), refit=Every(20), capacity=30, classes=4, seed=seed
    ),
    "boosting": lambda seed: SklearnEstimator(HistGradientBoostingClassifier(max_iter=2), classes=4, seed=seed),
    "tree on drift": lambda seed: SklearnEstimator(
        DecisionTreeClassifier(), refit=OnDrift(EveryN(3), first=16), classes=4, seed=seed
    ),
    "warm": lambda seed: SklearnEstimator(SGDClassifier(), refit=Grown(2.0), warm=True, classes=4, seed=seed),
    "support vectors": lambda seed: SklearnEstimator(
        make_pipeline(StandardScaler(), LinearSVC()), refit=Every(40), capacity=25, classes=4, seed=seed
    ),
}
