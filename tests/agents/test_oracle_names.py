"""Oracles are named by call strings."""

from everlearn.agents.oracle_names import ORACLES
from everlearn.core.spec import build, parse


def test_names_are_read_back():
    for text in ("ridge(strength=2.0)", "logistic(C=1.0)", "boosted(rounds=5)", "network(hidden=(8, 8))"):
        assert repr(build(parse(text), ORACLES)) == text
    assert repr(build(parse("linear()"), ORACLES)) == "ridge()"
