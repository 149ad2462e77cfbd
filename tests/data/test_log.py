"""The log of rows behind an estimator, and the window of it that a budget limits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, BudgetError
from everlearn.core.state import capture, restore, same
from everlearn.core.store import stores
from everlearn.data.log import Log, Window

ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 400)),
    st.tuples(st.just("drop"), st.integers(0, 300)),
    st.tuples(st.just("take_back"), st.integers(0, 50)),
    st.tuples(st.just("move"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=15))
def test_a_log_is_a_list_of_rows(actions):
    """Against a slow twin: a Python list, with the number of rows dropped from its front."""
    log, rows, first, number = Log(), [], 0, 0
    for action, count in actions:
        if action == "append":
            new = list(range(number, number + count))
            number += count
            log.append(torch.tensor(new)[:, None].float(), torch.tensor(new))
            rows += new
        elif action == "drop":
            count = min(count, len(rows))
            log.drop(first + count)
            rows, first = rows[count:], first + count
        elif action == "take_back":
            count = min(count, len(rows))
            if count:
                log.take_back(count)
                rows = rows[: len(rows) - count]
        else:
            other = Log()
            other.append(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
            restore(other, capture(log))
            assert same(capture(other), capture(log))
            log = other
        assert (log.first, log.end) == (first, first + len(rows))
        if rows:
            assert log.y.tolist() == rows
            assert log.x[:, 0].tolist() == rows
            x, y = log.rows(first + len(rows) // 2, first + len(rows))
            assert y.tolist() == rows[len(rows) // 2 :] == x[:, 0].tolist()


def test_rows_are_copies_in_the_dtype_given():
    log, x, y = Log(), torch.full((2, 3, 4, 4), 200, dtype=torch.uint8), torch.tensor([1, 0])
    log.append(x, y)
    x.zero_()
    y.zero_()
    assert log.x.dtype == torch.uint8
    assert int(log.x.min()) == 200
    assert log.y.tolist() == [1, 0]


def test_views_stay_as_they_are_when_rows_follow():
    log = Log()
    log.append(torch.ones(250, 1), torch.ones(250, dtype=torch.int64))
    view = log.rows(100, 250)[0]
    for _ in range(20):
        log.append(torch.zeros(100, 1), torch.zeros(100, dtype=torch.int64))
        log.drop(log.end - 50)
    assert bool((view == 1).all())


def test_space_follows_what_is_held():
    log = Log()
    for _ in range(1000):
        log.append(torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64))
        log.drop(log.end - 500)
    assert log.end == 10_000
    assert log.nbytes <= 2 * (500 + 10) * (2 * 4 + 8)


def test_appending_is_linear():
    """Rows are moved only when the space doubles: 100,000 rows in batches of one need 9 moves after the first 256."""
    log, moves = Log(), set()
    x, y = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
    for _ in range(100_000):
        log.append(x, y)
        moves.add(log._x.data_ptr())
    assert len(moves) <= 11


def test_a_window_counts_its_rows():
    window = Window(100)
    for count in (30, 60, 30):
        window.add(count, bytes=12)
    assert (window.seen, window.stored, window.start, window.nbytes) == (120, 100, 20, 1200)
    assert repr(window) == "window(capacity=100)"


def test_a_window_without_capacity_is_everything():
    window = Window()
    window.add(5000, bytes=3)
    assert (window.stored, window.start, window.nbytes) == (5000, 0, 15_000)


class Holder:
    """A learner, as far as a budget is concerned."""

    parts = ("window",)
    reference = False

    def __init__(self, window):
        self.window = window


@pytest.mark.parametrize(
    ("budget", "stored", "nbytes"),
    [
        (Budget(replay=10), 10, 200),
        (Budget(replay_bytes=110), 5, 100),
        (Budget(replay=3, replay_bytes=110), 3, 60),
        (Budget(replay=0), 0, 0),
    ],
)
def test_a_budget_limits_it(budget, stored, nbytes):
    holder = Holder(Window(50))
    assert stores(holder) == [holder.window]
    budget.limit(holder)
    holder.window.add(40, bytes=20)
    assert (holder.window.stored, holder.window.nbytes) == (stored, nbytes)


def test_a_limit_comes_before_the_rows():
    window = Window()
    window.add(1, bytes=4)
    with pytest.raises(BudgetError, match="before rows"):
        window.limit(5, None)


def test_a_capacity_below_one_is_refused():
    with pytest.raises(ArgumentError, match=">= 1"):
        Window(0)
