"""The engine of dicts keeps the rules of the contract that need neither learning nor a restart."""

import pytest

from . import engine_contract as contract
from .engine_bench import MODELS, Bench
from .fake_engine import FakeEngine

RULES = [
    contract.the_same_id_with_another_row_is_refused_and_nothing_of_the_request_stays,
    contract.rows_asked_together_are_answered_in_order,
    contract.an_answer_is_taken_once_and_corrected_by_a_higher_revision,
    contract.answers_told_together_are_taken_all_or_none,
    contract.an_answer_after_the_horizon_is_refused,
    contract.a_closed_engine_takes_nothing,
]


class Patient(FakeEngine):
    """Tells its options as the rules want them."""

    def __init__(self, spec, options):
        FakeEngine.__init__(self, spec, horizon=options.horizon)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_the_contract(rule, tmp_path):
    assert rule in contract.CONTRACT
    with Bench(lambda model, folder, options: Patient(MODELS[model].spec, options), tmp_path) as bench:
        rule(bench)
