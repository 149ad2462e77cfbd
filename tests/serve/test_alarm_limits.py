"""The limits of alarms as one value: call strings, defaults, what is refused."""

import pytest

from everlearn.core.errors import ArgumentError, SpecError
from everlearn.core.spec import build, parse
from everlearn.serve.alarm_limits import ADOPTED, KINDS, OBSERVED, Alarms
from everlearn.serve.records import Alarm


def test_a_call_string_makes_them_and_they_write_themselves():
    made = build(parse("alarms(psi=0.4, lag=None, freeze=('performance', 'not_finite'))"), {"alarms": Alarms})
    assert (made.psi, made.lag, made.freeze) == (0.4, None, ("performance", "not_finite"))
    assert repr(made) == "alarms(psi=0.4, lag=None, freeze=('performance', 'not_finite'))"
    assert build(parse(repr(made)), {"alarms": Alarms}) == made
    assert build(parse("alarms(freeze=['lag'])"), {"alarms": Alarms}).freeze == ("lag",)
    assert repr(Alarms()) == "alarms()"


def test_an_unknown_limit_is_refused_with_the_nearest_name():
    with pytest.raises(SpecError, match="unknown argument 'delays'; did you mean 'delay'"):
        build(parse("alarms(delays=2.0)"), {"alarms": Alarms})


def test_only_named_kinds_stop_learning():
    chosen = Alarms(freeze=("performance",))
    assert [kind for kind in KINDS if chosen.stops(Alarm(kind, 1.0, 0.0, ""))] == ["performance"]
    assert not any(Alarms().stops(Alarm(kind, 1.0, 0.0, "")) for kind in KINDS)


def test_kinds_are_named_once_and_those_with_a_reference_are_among_those_observed():
    assert len(set(KINDS)) == len(KINDS) == 12
    assert set(ADOPTED) < set(OBSERVED) < set(KINDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"psi": -0.1}, "psi must be a number >= 0, got -0.1. None switches it off."),
        ({"mmd": float("nan")}, "mmd must be a number between 0 and 2, got nan"),
        ({"ks": 1.5}, "ks must be a number between 0 and 1"),
        ({"delay": 0.5}, "delay must be a number >= 1, got 0.5"),
        ({"update": "much"}, "update must be a number >= 1, got 'much'"),
        ({"performance": 0.0}, "performance must be a number between"),
        ({"queue": 80}, "queue must be a number between 0 and 1, got 80"),
        ({"window": 10}, "window must be an int >= 20, got 10"),
        ({"reference": 100}, "reference must be an int >= 250, got 100. It may not be shorter than the window."),
        ({"adopt": 0}, "adopt must be an int >= 1, got 0"),
        ({"level": 0.0}, "level must be a number between"),
        ({"not_finite": 3}, "not_finite must be True or None, got 3"),
        ({"features": "both"}, "features must be one of network, input, got 'both'"),
        ({"freeze": "lag"}, r"freeze must be kinds such as \('performance',\), got 'lag'"),
        ({"freeze": ("preformance",)}, "unknown kind 'preformance'; did you mean 'performance'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        Alarms(**arguments)
