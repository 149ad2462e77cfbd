"""Rows and answers as clients send them: taken, or refused with a sentence that names the place."""

import base64

import numpy
import pytest
import torch

from everlearn.agents.uniform import Uniform
from everlearn.core.agent import Decision
from everlearn.core.errors import ServeError
from everlearn.core.stream import Schema
from everlearn.learners.fine_tune import FineTune
from everlearn.serve.input_spec import InputSpec

TABLE = InputSpec("classes", (3,), "float32", classes=("cat", "dog", "2"), features=("age", "weight", "fur"))
IMAGE = InputSpec("classes", (1, 2, 2), "uint8", classes=("a", "b"))
VALUES = InputSpec("values", (2,), "float32", targets=("load", "price"))
ACTIONS = InputSpec("actions", (2,), "float32")


def told(call, *given):
    with pytest.raises(ServeError) as caught:
        call(*given)
    assert caught.value.status == 422
    return f"{caught.value.code}: {caught.value}"


@pytest.mark.parametrize(
    "x",
    [[1, 2.5, -3], numpy.array([1, 2.5, -3]), {"fur": -3, "age": 1, "weight": 2.5},
     base64.b64encode(numpy.array([1, 2.5, -3], "float32").tobytes()).decode()],
    ids=["list", "array", "names", "base64"],
)  # fmt: skip
def test_one_row_travels_in_several_ways(x):
    assert TABLE.tensor([TABLE.row(x)]).tolist() == [[1.0, 2.5, -3.0]]


def test_an_image_may_be_flat():
    nested, flat = IMAGE.row([[[0, 255], [7, 1]]]), IMAGE.row([0, 255, 7, 1])
    assert nested == flat == bytes([0, 255, 7, 1])
    assert IMAGE.tensor([flat]).dtype == torch.uint8 and IMAGE.tensor([flat]).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("spec", "x", "sentence"),
    [
        (TABLE, [1, 2], "invalid_request: x holds 2 numbers; this model takes 3."),
        (TABLE, [[1, 2, 3]], "invalid_request: x has shape [1, 3]; this model takes [3]."),
        (TABLE, [1, float("nan"), 3], "not_finite: x[1] is not a finite float32"),
        (TABLE, [1, 2, 1e39], "not_finite: x[2]"),
        (TABLE, [1, "2", 3], "invalid_request: x must hold numbers"),
        (TABLE, [1, None, 3], "invalid_request: x must hold numbers"),
        (TABLE, [[1], [2, 3]], "invalid_request: x must hold numbers"),
        (TABLE, None, "invalid_request: x must hold numbers"),
        (TABLE, [10**400, 2, 3], "invalid_request: x must hold numbers"),
        (TABLE, {"age": 1, "weight": 2}, "invalid_request: x: column 'fur' is missing (1 of 3 in all)."),
        (TABLE, {"age": 1, "weight": 2, "fru": 3}, "did you mean 'fur'"),
        (TABLE, "nonsense!", "invalid_request: x is text, but no base64"),
        (TABLE, "AAAA", "invalid_request: x holds 3 bytes; float32 of shape [3] has 12."),
        (IMAGE, [[[0, 256], [7, 1]]], "invalid_request: x[0, 0, 1] must be a whole number in 0..255, got 256"),
        (IMAGE, [0, 1.5, 7, 1], "must be a whole number in 0..255, got 1.5"),
        (IMAGE, [0, -1, 7, 1], "must be a whole number in 0..255, got -1"),
        (IMAGE, {"a": 1}, "columns have no names"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(spec, x, sentence):
    assert sentence in told(spec.row, x)


def test_numbers_beyond_the_machines_are_taken_where_they_fit_and_refused_where_not():
    whole = InputSpec("actions", (1,), "int64")
    assert ACTIONS.tensor([ACTIONS.row([10**25, 1])]).tolist() == [[pytest.approx(1e25), 1.0]]
    assert whole.tensor([whole.row([2**62])]).tolist() == [[2**62]]
    assert "whole number" in told(whole.row, [2.0**63])
    assert "not_finite: reward must not be beyond" in told(ACTIONS.answer, 10**400)
    assert "not_finite: y must not be beyond" in told(VALUES.answer, [1e39, 0])


def test_labels_are_the_users_own():
    assert [TABLE.answer(y) for y in ("cat", "2", 2)] == [0, 2, 2]
    assert "did you mean 'cat'" in told(TABLE.answer, "cta")
    for wrong in (None, True, 1.0, ["cat"], {}):
        assert "one of the 3 labels" in told(TABLE.answer, wrong)


def test_values_and_rewards_are_finite_numbers():
    assert (VALUES.answer([1, 2.5]), ACTIONS.answer(3)) == ([1.0, 2.5], 3.0)
    for spec, wrong in (
        (VALUES, [1.0]),
        (VALUES, 1.0),
        (VALUES, [1.0, float("inf")]),
        (ACTIONS, "1"),
        (ACTIONS, float("nan")),
    ):
        assert "finite number" in told(spec.answer, wrong)


def test_outputs_name_the_label_and_the_probabilities():
    (output,) = TABLE.outputs(torch.tensor([[0.0, torch.log(torch.tensor(3.0)), float("-inf")]]))
    assert output == {"answer": "dog", "probabilities": [0.25, 0.75, 0.0]}
    assert VALUES.outputs(torch.tensor([[1.5, -2.0]])) == [{"answer": [1.5, -2.0]}]
    assert ACTIONS.decided(Decision(2, 0.25)) == {"answer": 2, "propensity": 0.25}


def test_the_kind_is_read_off_learner_and_schema():
    schema = Schema((2,), torch.float32, ("a", "b"))
    assert InputSpec.of(FineTune(torch.nn.Linear(2, 2)), schema).kind == "classes"
    assert InputSpec.of(Uniform(actions=2), schema).kind == "actions"
    values = InputSpec.of(FineTune(torch.nn.Linear(2, 1)), Schema((2,), torch.float32, ()))
    assert (values.kind, values.targets) == ("values", ("value",))


@pytest.mark.parametrize("spec", [TABLE, IMAGE, VALUES, ACTIONS], ids=lambda spec: spec.kind + spec.dtype)
def test_json_gives_the_spec_back(spec):
    assert InputSpec.from_json(spec.to_json()) == spec
