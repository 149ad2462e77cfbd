"""The beginning of a stream."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.events import Boundary
from everlearn.data.delayed import delayed
from everlearn.data.few_shot import few_shot
from everlearn.data.prefix import prefix
from everlearn.data.prequential import prequential
from everlearn.data.split import split


def test_the_first_events_are_those_of_the_stream(digits):
    whole = split(digits, batch=16)
    part = prefix(whole, 30)
    assert len(part) == 30 and part.name == "prefix(split(digits, batch=16), events=30)"
    assert torch.equal(part[29].x, whole[29].x) and torch.equal(part[-1].x, whole[29].x)
    assert part.held_out is whole.held_out and part.boundaries
    with pytest.raises(IndexError):
        part[30]


def test_what_lies_behind_the_end_is_cut_and_the_end_is_judged(digits):
    whole = split(digits, batch=16)
    end = whole.changes[1] + 3
    part = prefix(whole, end)
    assert part.changes == whole.changes[:2]
    assert part.checkpoints == (*whole.checkpoints[:2], end)
    assert prefix(whole, whole.changes[0]).checkpoints == (whole.changes[0],)
    assert prefix(whole, 2).deployed == 2
    assert prefix(prequential(digits), 5).checkpoints == ()


def test_a_prefix_longer_than_the_stream_is_the_stream(digits):
    whole = split(digits, batch=16)
    part = prefix(whole, 10**6)
    assert len(part) == len(whole)
    assert (part.checkpoints, part.changes, part.deployed) == (whole.checkpoints, whole.changes, whole.deployed)


def test_a_prefix_can_be_delayed_and_the_other_way_round(digits):
    source = split(digits, batch=16)
    part = prefix(delayed(source, delay=2), 50)
    assert len(part) == 50 and part[49].y is None
    late = delayed(prefix(source, 50), delay=2)
    asked = 50 - source.deployed - sum(isinstance(source[event], Boundary) for event in range(source.deployed, 50))
    assert len(late) == 50 + asked


@pytest.mark.parametrize("events", [0, -3, 2.0])
def test_wrong_arguments_are_refused(digits, events):
    with pytest.raises(ArgumentError, match="prefix: events must be an int >= 1"):
        prefix(split(digits), events)
    with pytest.raises(ArgumentError, match="must be a stream, got digits"):
        prefix(digits, 5)


def test_few_shot_sessions_stay_such(digits):
    whole = few_shot(digits, base_classes=6, way=2, sessions=2)
    assert prefix(whole, 10).base_classes == delayed(whole, delay=3).base_classes == whole.classes_of(0)
    assert prefix(split(digits), 10).base_classes == ()
