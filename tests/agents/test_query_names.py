"""The call names of query rules."""

import pytest

from everlearn.agents.query_names import RULES, query_rule
from everlearn.agents.rage import Rage
from everlearn.comparison.catalog import values
from everlearn.core.errors import SpecError


def test_every_rule_is_read_back_from_its_text():
    for name, rule in RULES.items():
        assert query_rule(name) == rule() == query_rule(repr(rule()))
    assert query_rule("rage(delta=0.1, phases=0)") == Rage(delta=0.1, phases=0)
    assert RULES.keys() <= values().keys()


def test_other_names_are_answered_with_the_closest():
    with pytest.raises(SpecError, match="did you mean 'bald'"):
        query_rule("blad")
    with pytest.raises(SpecError, match="not a query rule"):
        query_rule("builtins:dict()")
