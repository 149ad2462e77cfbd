"""Query rules by their call names: `sgbs(beta=0.1)`, `rage(delta=0.01)`."""

from everlearn.agents.arm_rules import Lucb, SequentialHalving, Thompson, TopTwo, Ucb
from everlearn.agents.query_rules import Bald, GeneralizedBinarySearch, Random, Rule, Static, Uncertainty
from everlearn.agents.rage import Rage
from everlearn.core.errors import SpecError
from everlearn.core.spec import build, parse

_ALL: tuple[type[Rule], ...] = (
    Random,
    Uncertainty,
    Bald,
    GeneralizedBinarySearch,
    Static,
    Ucb,
    Thompson,
    TopTwo,
    Lucb,
    SequentialHalving,
    Rage,
)
RULES: dict[str, type[Rule]] = {rule.name: rule for rule in _ALL}


def query_rule(text: str) -> Rule:
    """The rule of a call string. Raises SpecError with the closest name.

    >>> query_rule("sgbs(beta=0.1)")
    sgbs(beta=0.1)
    """
    made = build(parse(text), RULES, "query rule")
    if not isinstance(made, Rule):
        raise SpecError(f"{text} gives {type(made).__name__}, not a query rule.")
    return made
