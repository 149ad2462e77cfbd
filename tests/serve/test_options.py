"""Every knob of a server is checked where it is set, and survives JSON."""

import json

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.serve.options import Options


@pytest.mark.parametrize(
    "given",
    [
        {"durability": "fast"}, {"after": "forget"}, {"batch": 0}, {"every": 0}, {"window": 1.5}, {"least": 0}, {"queue": 0}, {"keep": 0},
        {"threads": 0}, {"wait": -1.0}, {"horizon": -1.0}, {"keep_days": -1.0}, {"early": -1.0}, {"margin": -0.1}, {"confidence": 0.4},
        {"confidence": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_its_name(given):
    with pytest.raises(ArgumentError, match=next(iter(given))):
        Options(**given)


def test_options_are_printed_as_they_are_typed():
    assert repr(Options(batch=16, wait=None)) == "options(batch=16, wait=None)"


def test_json_gives_the_options_back_and_leaves_out_what_it_does_not_know():
    options = Options(batch=3, horizon=60.0, default="cat", after="skip")
    record = json.loads(json.dumps(options.to_json())) | {"of_another_release": 1}
    assert Options.from_json(record) == options
