"""Objectives as values: what they print, what they refuse, and how they are read back."""

import json

import pytest

from everlearn.comparison.catalog import values
from everlearn.core.errors import ArgumentError, SpecError
from everlearn.core.spec import build, parse
from everlearn.learners.objective import Objective, OutputTerm, WeightTerm
from everlearn.learners.presets import PRESETS, preset
from everlearn.nn.bregman import BinaryNegEntropy, LogNorm, NegEntropy, Quadratic, Squared

MIXED = Objective(
    output=(
        OutputTerm(0.2, Squared(), source="memory", target="stored_logits", reduce="mean"),
        OutputTerm(1.0, Quadratic((1.0, 2.0)), source="memory", target="stored_logits"),
        OutputTerm(0.5, LogNorm("categorical"), "logits", "both", "old_model", "model_first"),
    ),
    weight=(WeightTerm(2.0, Quadratic(), "last_task", "path_integral", 0.5, 0.2), WeightTerm(0.1, Squared(), "start")),
)


@pytest.mark.parametrize("objective", [*map(preset, PRESETS), MIXED], ids=[*PRESETS, "mixed"])
def test_what_is_printed_can_be_typed_and_stored(objective):
    assert build(parse(repr(objective)), values()) == objective
    assert Objective.from_dict(json.loads(json.dumps(objective.to_dict()))) == objective


def test_a_list_in_a_call_string_is_a_tuple_of_terms():
    text = "objective(output=[output(0.2, squared(), source='memory', target='stored_logits')], weight=[weight(3.0)])"
    made = build(parse(text), values())
    assert made.output == (OutputTerm(0.2, source="memory", target="stored_logits"),) and made.weight == (WeightTerm(3.0),)
    assert build(parse("objective(weight=weight(3.0))"), values()).weight == made.weight


def test_the_table():
    assert MIXED.table().splitlines() == [
        "term      weight  divergence                     h        z              rows     reference",
        "task      1       -                              probs    label          current  -",
        "output 1  0.2     squared()                      logits   stored_logits  memory   D(z, h), mean over coordinates",
        "output 2  1       quadratic(matrix=(1.0, 2.0))   logits   stored_logits  memory   D(z, h)",
        "output 3  0.5     lognorm(family='categorical')  logits   old_model      both     D(h, z)",
        "weight 1  2       quadratic()                    weights  path_integral  -        last_task, decay 0.5",
        "weight 2  0.1     squared()                      weights  -              -        start",
    ]
    lines = preset("ncl").table(markdown=True).splitlines()
    assert lines[1] == "|" + " --- |" * 7
    assert lines[2].endswith("| natural step |") and lines[3].startswith(
        "| weight 1 | 20 | quadratic() | weights | fisher_sampled |"
    )


REFUSED_OUTPUTS = {
    "negative": ({"weight": -1.0}, "output: weight must be a number >= 0, got -1.0"),
    "cold": ({"temperature": 0.0, "view": "probs"}, "temperature must be above 0"),
    "temperature of scores": ({"temperature": 2.0}, "temperature has no meaning for view='logits'"),
    "infinite": (
        {"potential": NegEntropy(), "view": "probs", "target": "label", "order": "model_first"},
        r"output\(potential=negentropy\(\).*one-hot\) is infinite. Use order='target_first'",
    ),
    "infinite coins": (
        {"potential": BinaryNegEntropy(), "view": "sigmoid", "target": "label", "order": "model_first"},
        "is infinite",
    ),
    "entropy of scores": ({"potential": NegEntropy()}, "compares view='probs', got 'logits'"),
    "coins of probabilities": ({"potential": BinaryNegEntropy(), "view": "probs"}, "compares view='sigmoid'"),
    "gaussian outputs": ({"potential": LogNorm()}, r"only lognorm\('categorical'\)"),
    "nothing to measure with": ({"potential": Quadratic()}, "needs its matrix"),
    "scores not stored": ({"target": "stored_logits"}, "only rows remembered have stored scores, got source='current'"),
    "uniform scores": ({"target": "uniform"}, "no logits are uniform"),
    "labels as scores": ({"target": "label"}, "labels cannot be compared with logits"),
    "labels of old classes": (
        {"potential": NegEntropy(), "view": "probs", "target": "label", "classes": "old"},
        "labels may be of other",
    ),
    "stored features": (
        {"view": "features", "target": "stored_logits", "source": "memory"},
        "features have no stored_logits",
    ),
    "features of classes": ({"view": "features", "classes": "old"}, "features do not belong to classes"),
    "unknown view": ({"view": "prob"}, "did you mean 'probs'"),
    "unknown source": ({"source": "memry"}, "did you mean 'memory'"),
    "no potential": ({"potential": "squared"}, "potential must be one of squared, quadratic"),
}


@pytest.mark.parametrize("name", REFUSED_OUTPUTS)
def test_output_terms_that_do_not_go_together(name):
    given, words = REFUSED_OUTPUTS[name]
    with pytest.raises(ArgumentError, match=words):
        OutputTerm(**given)


REFUSED_WEIGHTS = {
    "negative": ({"weight": float("nan")}, "weight: weight must be a number >= 0"),
    "entropy of weights": ({"potential": NegEntropy()}, r"weight\(potential=negentropy\(\)\): weights are compared by"),
    "no importance": ({"potential": Quadratic()}, "needs an importance, one of fisher_exact"),
    "two importances": ({"importance": "fisher_exact"}, "only quadratic\\(\\) without a matrix"),
    "importance at the start": (
        {"potential": Quadratic(), "importance": "fisher_exact", "reference": "start"},
        "taken at the end of a task",
    ),
    "decay of nothing": ({"decay": 0.5}, "only a running importance decays"),
    "a posterior of the start": ({"potential": LogNorm(), "reference": "start"}, "holds to the last task"),
    "path of each task": (
        {"potential": Quadratic(), "importance": "path_integral", "reference": "each_task"},
        "path integrals run from task to task",
    ),
    "division by nothing": (
        {"potential": Quadratic(), "importance": "path_integral", "damping": 0.0},
        "divided by damping=0",
    ),
    "unknown importance": ({"potential": Quadratic(), "importance": "fisher"}, "unknown weight: importance 'fisher'"),
    "unknown reference": ({"reference": "lasttask"}, "did you mean 'last_task'"),
}


@pytest.mark.parametrize("name", REFUSED_WEIGHTS)
def test_weight_terms_that_do_not_go_together(name):
    given, words = REFUSED_WEIGHTS[name]
    with pytest.raises(ArgumentError, match=words):
        WeightTerm(**given)


def test_objectives_that_do_not_go_together():
    with pytest.raises(ArgumentError, match="output takes terms such as output"):
        Objective(output=(WeightTerm(),))
    with pytest.raises(ArgumentError, match="did you mean 'cross_entropy'"):
        Objective("crossentropy")
    with pytest.raises(ArgumentError, match="runs over all classes, got task_classes='new'"):
        Objective(task_classes="new")
    with pytest.raises(ArgumentError, match="one lognorm"):
        Objective(weight=(WeightTerm(1.0, LogNorm()), WeightTerm(2.0, LogNorm())))
    for wrong in (
        {"natural": 0.0, "weight": (WeightTerm(),)},
        {"natural": 1.0},
        {"natural": 1.0, "weight": (WeightTerm(1.0, LogNorm()),)},
    ):
        with pytest.raises(ArgumentError, match="needs a damping above 0 and weight terms"):
            Objective(**wrong)
    with pytest.raises(SpecError, match="did you mean 'weight'"):
        Objective.from_dict({"output": [{"wieght": 1.0}]})
    with pytest.raises(SpecError, match="did you mean 'squared'"):
        Objective.from_dict({"output": [{"potential": "sqared()"}]})
