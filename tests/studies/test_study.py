"""Verdicts from figures, and what the house's studies must contain."""

import pytest

from everlearn.core.errors import SpecError
from everlearn.studies.study import FAILS, HOLDS, TUNING_SEEDS, UNCLEAR, Claim, overall, studies, study_named

CLAIM = Claim("system beats baseline by 0.1", "system", "baseline", 0.1)
CONTROL = Claim("it also does where it must not", "system", "baseline", 0.1, control=True)


@pytest.mark.parametrize(
    ("system", "baseline", "verdict"),
    [
        ([0.90, 0.91, 0.92], [0.50, 0.51, 0.52], HOLDS),
        ([0.50, 0.51, 0.52], [0.50, 0.51, 0.52], FAILS),
        ([0.60, 0.61, 0.62], [0.50, 0.51, 0.52], UNCLEAR),
        ([0.90, 0.40, 0.95], [0.50, 0.51, 0.30], UNCLEAR),
        ([0.9], [0.1], UNCLEAR),
    ],
)
def test_a_claim_is_judged_by_its_interval(system, baseline, verdict):
    assert CLAIM.judge({"system": system, "baseline": baseline})["verdict"] == verdict


def test_the_difference_is_shown_without_the_margin():
    judged = CLAIM.judge({"system": [0.90, 0.92, 0.94], "baseline": [0.50, 0.51, 0.55]})
    assert judged["difference"] == pytest.approx(0.40)
    assert judged["low"] < 0.40 < judged["high"]


def test_a_claim_may_stand_against_a_number():
    scores = {"arm": [0.70, 0.71, 0.72]}
    assert Claim("at least", "arm", "", 0.65).judge(scores)["verdict"] == HOLDS
    assert Claim("at least", "arm", "", 0.75).judge(scores)["verdict"] == FAILS
    most = Claim("at most", "", "arm", -0.75).judge(scores)
    assert most["verdict"] == HOLDS and most["met"] and most["difference"] == pytest.approx(-0.71)
    wide = Claim("at least", "arm", "", 0.70).judge({"arm": [0.60, 0.71, 0.82]})
    assert wide["verdict"] == UNCLEAR and wide["met"]


@pytest.mark.parametrize(
    ("verdicts", "control", "whole"),
    [
        ([HOLDS, HOLDS], FAILS, HOLDS),
        ([HOLDS, FAILS], FAILS, FAILS),
        ([HOLDS, UNCLEAR], FAILS, UNCLEAR),
        ([HOLDS, HOLDS], HOLDS, UNCLEAR),
        ([HOLDS, HOLDS], UNCLEAR, UNCLEAR),
        ([HOLDS, FAILS], HOLDS, FAILS),
    ],
)
def test_the_whole_follows_from_the_claims_and_the_control(verdicts, control, whole):
    judged = [{"control": False, "verdict": verdict} for verdict in verdicts]
    assert overall([*judged, {"control": True, "verdict": control}]) == whole


def test_an_unknown_study_is_answered_with_the_closest():
    with pytest.raises(SpecError, match="did you mean 'replay'"):
        study_named("repaly")


@pytest.mark.parametrize("name", sorted(studies()))
@pytest.mark.parametrize("scale", ["quick", "full"])
def test_every_study_has_a_system_baselines_a_control_and_fair_tuning(name, scale):
    study = study_named(name)
    arms = {arm.label: arm for arm in study.arms(scale)}
    claims = study.claims(scale)
    assert {"system", "baseline"} <= {arm.role for arm in arms.values()}
    assert any(claim.control for claim in claims)
    assert {side for claim in claims for side in (claim.left, claim.right)} <= {"", *arms}
    assert {claim.measure for claim in claims} <= {"", *study.measures}
    assert not set(study.seeds(scale)) & set(TUNING_SEEDS)
    assert len(study.seeds(scale)) >= 3
    tried = {role: max(len(arm.settings) for arm in arms.values() if arm.role == role) for role in ("system", "baseline")}
    assert tried["baseline"] >= tried["system"], "the baselines are tuned less than the system"
