"""Differences between two learners in words: how large, with which interval, and whether they can be told apart at all."""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say


def with_interval(found: Mapping[str, Any], count: int) -> str:
    """'1.3 points (95 % interval 0.2 to 2.4, 3 seeds)'; where seeds change nothing, no interval is feigned."""
    if found["low"] is not None and found["low"] == found["high"]:
        return f"{say.points(found['difference'])} (the same for all {say.seeds(count)}, so chance in the data is not told)"
    inside = say.interval(found["low"], found["high"])
    told = f"95{say.SPACE}% interval {inside}, {say.seeds(count)}" if inside else f"{say.seeds(count)}, no interval"
    return f"{say.points(found['difference'])} ({told})"


def compared(found: Mapping[str, Any], count: int) -> str:
    """Where a learner stands beside another: 'better by 9.3 points (...)', 'too close to tell from it (...)'."""
    size = turned(found) if found["difference"] < 0 else found
    if not say.known(found["low"]):
        return f"{'behind' if found['difference'] < 0 else 'ahead'} by {with_interval(size, count)}"
    if not found["clear"]:
        return f"too close to tell: the difference is {with_interval(found, count)}"
    return f"{'better' if found['difference'] > 0 else 'worse'} by {with_interval(size, count)}"


def turned(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same difference, seen from the other side."""
    low, high = found["low"], found["high"]
    return {
        "difference": -found["difference"],
        "low": -high if say.known(high) else None,
        "high": -low if say.known(low) else None,
    }
