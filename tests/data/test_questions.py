"""The call names of query problems."""

from everlearn.comparison.catalog import values
from everlearn.core.spec import build, parse
from everlearn.data.questions import QUESTIONS


def test_every_name_is_its_own_and_can_be_called_from_a_text():
    assert all(function.__name__ == name for name, function in QUESTIONS.items())
    assert QUESTIONS.keys() <= values().keys()
    assert build(parse("best_arm(n=3, horizon=9)"), values(), "problem").horizon == 9
