"""Names of scikit-learn and River in call strings, texts of their objects, and scores from probabilities."""

import math

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError, SpecError
from everlearn.core.spec import build, parse
from everlearn.learners.estimator import EPSILON, estimator, scores, table, written
from everlearn.learners.river_model import RIVER, river_names
from everlearn.learners.sklearn_estimator import SKLEARN, sklearn_names


class Own:
    """A classifier of the user's, found as module:Own where the module can be imported."""

    def __init__(self, depth=3):
        self.depth = depth

    def fit(self, x, y):
        return self

    def predict(self, x):
        return numpy.zeros(len(x), dtype=int)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("RandomForestClassifier", "sklearn.ensemble"),
        ("ensemble.HistGradientBoostingClassifier", "sklearn.ensemble"),
        ("sklearn.naive_bayes.GaussianNB", "sklearn.naive_bayes"),
        ("make_pipeline", "sklearn.pipeline"),
        ("CalibratedClassifierCV", "sklearn.calibration"),
        ("DummyClassifier", "sklearn.dummy"),
        ("gaussian_process.kernels.RBF", "sklearn.gaussian_process.kernels"),
        ("feature_extraction.text.TfidfVectorizer", "sklearn.feature_extraction.text"),
    ],
)
def test_names_of_scikit_learn(name, module):
    found = sklearn_names(name)
    assert found.__name__ == name.split(".")[-1]
    assert found.__module__.startswith(module)


@pytest.mark.parametrize(
    "name",
    ["tree.HoeffdingTreeClassifier", "HoeffdingTreeClassifier", "river.tree.HoeffdingTreeClassifier", "optim.losses.Hinge"],
)
def test_names_of_river(name):
    found = river_names(name)
    assert found.__name__ == name.split(".")[-1]
    assert found.__module__.startswith("river.")


@pytest.mark.parametrize(
    ("find", "name", "near"),
    [
        (sklearn_names, "RandomForrestClassifier", "RandomForestClassifier"),
        (sklearn_names, "ensemble.RandomForest", "ensemble.RandomForestClassifier"),
        (sklearn_names, "ensembel.RandomForestClassifier", "ensemble.RandomForestClassifier"),
        (river_names, "HoeffdingTreeClasifier", "HoeffdingTreeClassifier"),
        (river_names, "tree.HoeffdingTreeClasifier", "tree.HoeffdingTreeClassifier"),
    ],
)
def test_unknown_names_get_the_closest(find, name, near):
    with pytest.raises(SpecError, match=f"unknown .* estimator '{name}'; did you mean '{near}'"):
        find(name)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "linear_model.numpy.load",
        "utils.os",
        "linear_model._base.LinearModel",
        "datasets.fetch_openml",
        "metrics.accuracy_score",
        "linear_model.np.memmap",
        "pipeline.__builtins__",
        "clone",
    ],
)
def test_only_public_classes_of_the_library_are_found(name):
    with pytest.raises(SpecError, match="unknown"):
        sklearn_names(name)


TEXTS = [
    (SKLEARN, "RandomForestClassifier(n_estimators=50)"),
    (SKLEARN, "HistGradientBoostingClassifier()"),
    (SKLEARN, "Pipeline([('scale', StandardScaler(with_mean=False)), ('last', SGDClassifier(loss='log_loss'))])"),
    (SKLEARN, "VotingClassifier([('a', GaussianNB()), ('b', LogisticRegression(C=0.5))], voting='soft')"),
    (SKLEARN, "GaussianProcessClassifier(kernel=gaussian_process.kernels.RBF(length_scale=2.0))"),
    (SKLEARN, "MLPClassifier(hidden_layer_sizes=(8,))"),
    (SKLEARN, "LogisticRegression(class_weight={0: 1.0, 1: 3.0})"),
    (RIVER, "tree.HoeffdingTreeClassifier(grace_period=10)"),
    (RIVER, "tree.HoeffdingTreeClassifier()"),
    (RIVER, "forest.ARFClassifier(n_models=3)"),
    (RIVER, "compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(l2=0.1))"),
    (
        RIVER,
        "multiclass.OneVsRestClassifier(linear_model.LogisticRegression(optimizer=optim.SGD(lr=optim.schedulers.Constant(0.5))))",
    ),
    (RIVER, "ensemble.VotingClassifier([tree.HoeffdingTreeClassifier(), naive_bayes.GaussianNB()])"),
]


@pytest.mark.parametrize(("library", "text"), TEXTS)
def test_what_is_read_can_be_typed(library, text):
    found = build(parse(text), {}, "estimator", library.find)
    assert written(found, library) == text
    again = build(parse(written(found, library)), {}, "estimator", library.find)
    assert written(again, library) == text


def test_make_pipeline_is_written_as_the_pipeline_it_makes():
    found = build(parse("make_pipeline(StandardScaler(), SGDClassifier())"), {}, "estimator", sklearn_names)
    text = "Pipeline([('standardscaler', StandardScaler()), ('sgdclassifier', SGDClassifier())])"
    assert written(found, SKLEARN) == text


def test_a_class_from_elsewhere_is_written_with_its_module():
    assert written(Own(depth=5), SKLEARN) == f"{Own.__module__}:Own(depth=5)"


def test_numbers_of_numpy_are_written_as_numbers():
    from sklearn.linear_model import LogisticRegression

    assert written(LogisticRegression(C=numpy.float64(0.25)), SKLEARN) == "LogisticRegression(C=0.25)"


def test_an_estimator_may_be_an_object_a_class_or_a_text():
    from sklearn.naive_bayes import GaussianNB

    def good(value):
        return hasattr(value, "fit")

    object_ = GaussianNB()
    assert estimator(object_, SKLEARN, good) is object_
    assert type(estimator(GaussianNB, SKLEARN, good)) is GaussianNB
    assert estimator("GaussianNB(var_smoothing=0.1)", SKLEARN, good).var_smoothing == 0.1
    assert type(estimator("sklearn.naive_bayes:GaussianNB", SKLEARN, good)) is GaussianNB
    with pytest.raises(ArgumentError, match="scikit-learn classifier is expected, got int"):
        estimator(3, SKLEARN, good)
    with pytest.raises(SpecError, match="did you mean 'var_smoothing'"):
        estimator("GaussianNB(var_smooth=0.1)", SKLEARN, good)


def test_a_table_is_flat_and_bytes_are_scaled():
    images = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    assert table(images, "x").tolist() == [pytest.approx([0.0, 1.0, 0.2, 0.4])]
    assert table(torch.tensor([1, 2]), "x").tolist() == [[1], [2]]
    assert table(torch.ones(2, 3, dtype=torch.float64), "x").dtype == torch.float64
    assert table(torch.ones(2, 3, dtype=torch.bfloat16), "x").dtype == torch.float32


@pytest.mark.parametrize("x", [{"a": torch.ones(2, 1)}, torch.ones(2, 0), torch.ones(2, 1, dtype=torch.complex64)])
def test_what_is_no_table_is_refused(x):
    with pytest.raises(InputError):
        table(x, "x")


def test_scores_are_log_probabilities():
    given = numpy.array([[0.2, 0.6, 0.2], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [math.nan, 1.0, 3.0], [math.inf, -1.0, 2.0]])
    found = scores(given, torch.device("cpu"))
    expected = [[0.2, 0.6, 0.2], [1.0, EPSILON, EPSILON], [1 / 3] * 3, [EPSILON, 0.25, 0.75], [EPSILON, EPSILON, 1.0]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64).log(), atol=1e-12)
    assert found.dtype == torch.float64
