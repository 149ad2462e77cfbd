"""The share of old scores that stand to the bit."""

import torch

from everlearn.core.stream import HeldOut
from everlearn.measure.unchanged import Unchanged

ROWS = HeldOut("rows", torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))


def test_rows_count_whose_every_score_is_the_same():
    watch = Unchanged()
    assert watch.figures() == {"unchanged": None, "by_set": []}
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    watch.judge(0, 0, ROWS, first)
    watch.judge(0, 1, ROWS, second)  # before its own checkpoint: nothing to hold it to
    watch.judge(1, 0, ROWS, first)
    watch.judge(1, 1, ROWS, second)
    assert watch.figures() == {"unchanged": 1.0, "by_set": [1.0]}
    changed = first.clone()
    changed[2, 1] = torch.nextafter(changed[2, 1], torch.tensor(9.0))
    watch.judge(2, 0, ROWS, changed)
    watch.judge(2, 1, ROWS, second)
    assert watch.figures() == {"unchanged": 0.875, "by_set": [0.75, 1.0]}


def test_scores_of_another_shape_are_none_that_stayed():
    watch = Unchanged(rows=2)
    watch.judge(0, 0, ROWS, torch.zeros(4, 3))
    watch.judge(1, 0, ROWS, torch.zeros(4, 5))
    assert watch.figures()["unchanged"] == 0.0


def test_only_the_first_rows_are_compared():
    watch = Unchanged(rows=2)
    watch.judge(0, 0, ROWS, torch.zeros(4, 3))
    watch.judge(1, 0, ROWS, torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None].expand(4, 3))
    assert watch.figures()["unchanged"] == 1.0
