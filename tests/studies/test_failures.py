"""Failures as cases: which are run, what each does to the link that is watched, beside a plain count."""

import pytest

from everlearn.data.folders import roots
from everlearn.data.link_loads import LinkDown, link_loads
from everlearn.studies.failures import CLASSES, EURO_RUNS, FAILS, QUICK, cables, cases, changes, euro_cases, traffic


@pytest.fixture(autouse=True)
def _networks():
    if not any((root / "abilene_tm").is_dir() for root in roots()):
        pytest.skip("EVERLEARN_DATA has no abilene_tm")


def test_every_failure_that_cuts_nothing_is_run():
    found = cases("full")
    assert len(cables("abilene")) == 15
    assert len({case.failure for case in found}) == 14 and (0, 1) not in {case.failure for case in found}
    assert len({(case.failure, case.kind) for case in found}) == len(found)
    assert [(case.failure, case.link) for case in cases("quick")] == list(QUICK)


def test_a_case_is_named_by_the_load_beside_what_it_would_have_been():
    given = traffic("abilene")
    whole = link_loads(given.network, given.demands).loads
    for case in cases("quick"):
        link = given.network.link(*case.link)
        failed = link_loads(given.network, given.demands, [LinkDown(FAILS, case.failure)]).loads
        effect = float(failed[FAILS:, link].sum() / whole[FAILS:, link].sum())
        assert case.effect == pytest.approx(effect) and case.kind == "drastic" and effect > 2
    for case in cases("full"):
        size = max(case.effect, 1 / case.effect)
        assert case.kind == CLASSES[0 if size >= 2 else 1] and size >= 1.1
        assert {*case.link} != {*case.failure}


def test_the_link_that_a_failure_changes_most_is_watched():
    every = changes("abilene", cables("abilene"))
    for case in cases("full"):
        beside = [other for other in every if (other.failure, other.kind) == (case.failure, case.kind)]
        assert max(max(other.effect, 1 / other.effect) for other in beside) == max(case.effect, 1 / case.effect)


@pytest.mark.slow
def test_each_seed_has_failures_of_the_generated_network_for_itself():
    euro = [case for seed in range(3) for case in euro_cases(seed)]
    assert len(euro) == len({case.failure for case in euro}) == 3 * EURO_RUNS
    assert {case.kind for case in euro} == {"drastic"}
