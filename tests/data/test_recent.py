"""The newest rows, in order, beside a list; limits; state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, restore, same
from everlearn.data.recent import Recent


def rows(start, count):
    values = torch.arange(start, start + count, dtype=torch.float32)
    return {"x": {"loads": values[:, None].repeat(1, 3), "dt": values[:, None]}, "y": -values[:, None]}


def numbers(found):
    return [] if not found else found["y"].neg().flatten().tolist()


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(0, 90),
    counts=st.lists(st.integers(1, 130), min_size=1, max_size=8),
    asked=st.integers(0, 100),
    shrunk=st.none() | st.integers(0, 60),
)
def test_it_is_a_list_that_forgets_its_head(capacity, counts, asked, shrunk):
    recent, kept, start = Recent(capacity), [], 0
    for place, count in enumerate(counts):
        if place == len(counts) // 2 and shrunk is not None and shrunk <= capacity:
            recent.shrink(shrunk)
            capacity, kept = shrunk, kept[len(kept) - min(shrunk, len(kept)) :]
        recent.insert(**rows(start, count))
        kept = [*kept, *range(start, start + count)]
        kept = kept[max(0, len(kept) - capacity) :] if capacity else []
        start += count
        assert recent.stored == len(kept) <= capacity and recent.seen == start
        copy = Recent(capacity)
        restore(copy, capture(recent))
        found = copy.newest(asked)
        assert numbers(found) == kept[len(kept) - min(asked, len(kept)) :]
        if found:
            assert torch.equal(found["x"]["dt"], -found["y"]) and torch.equal(found["x"]["loads"][:, 2:], -found["y"])
    assert same(capture(recent), capture(recent))


def test_plain_rows_and_their_counters():
    recent = Recent(4)
    recent.insert(x=torch.arange(3.0)[:, None], y=torch.zeros(3, 1))
    assert recent.nbytes == 4 * (4 + 4) and recent.newest(2)["x"].flatten().tolist() == [1.0, 2.0]
    assert (recent.seen, recent.stored, recent.replayed) == (3, 3, 2)


def test_limits_lower_the_capacity():
    recent = Recent(50)
    recent.limit(10, None)
    recent.insert(x=torch.zeros(30, 2), y=torch.zeros(30, 1))
    assert recent.stored == 10
    small = Recent(50)
    small.limit(None, 40)
    small.insert(x=torch.zeros(30, 2), y=torch.zeros(30, 1))  # 12 bytes a row
    assert small.stored == 3 and small.nbytes <= 40
    none = Recent(50)
    none.limit(0, None)
    none.insert(x=torch.zeros(30, 2), y=torch.zeros(30, 1))
    assert none.stored == none.nbytes == 0 and none.newest(5) == {}
    with pytest.raises(ArgumentError, match="recent: capacity must be an int >= 0, got -1"):
        Recent(-1)
