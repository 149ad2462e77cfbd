"""The stream of windows by a slow twin: which rows and answers come, in which order, and never before they are known."""

import numpy
import pytest
import torch

from everlearn.core.events import Batch, Boundary
from everlearn.data.window_stream import Windows, WindowStream


def twin(kept, window, horizon):
    """(end, dt, answer's time) of each window, by walking."""
    seen = [t for t in range(len(kept)) if kept[t]]
    found = []
    for k in range(window - 1, len(seen)):
        end = seen[k]
        if end + horizon < len(kept) and kept[end + horizon]:
            shown = seen[k - window + 1 : k + 1]
            before = [seen[i - 1] if i else -1 for i in range(k - window + 1, k + 1)]
            found.append((end, shown, [a - b for a, b in zip(shown, before, strict=True)]))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("horizon", "batch"), [(1, 1), (1, 4), (5, 1), (3, 2)])
def test_windows_are_those_of_a_walk_and_answers_come_when_they_are_known(seed, horizon, batch):
    draw = numpy.random.default_rng(seed)
    kept = draw.random(60) > 0.2
    values = torch.from_numpy(draw.random((60, 3)))
    layout = Windows((0, 2), (2,), 4, horizon, gaps=True)
    changes = [20, 41]
    stream = WindowStream(
        values,
        kept,
        layout,
        features=("a", "c"),
        targets=("c",),
        batch=batch,
        changes=changes,
        states=(0, 7, 0),
        announced=True,
    )
    rows = twin(kept, 4, horizon)
    seen_inputs, now, told = [], -1, {}
    for event in stream:
        if isinstance(event, Boundary):
            begins = event.task
            continue
        ends = event.time.long().tolist()
        late = event.id is not None and event.y is not None
        if not late:
            seen_inputs += ends
            assert ends[0] >= now  # in the order of time
            now = ends[0]
            state = [s for start, s in ((0, 0), (20, 7), (41, 0)) if ends[0] >= start][-1]
            assert begins == state and all((ends[0] < c) == (e < c) for c in changes for e in ends)
        for row, end in enumerate(ends):
            _, shown, dt = next(item for item in rows if item[0] == end)
            assert torch.equal(event.x["values"][row], values[shown][:, [0, 2]].float())
            assert event.x["dt"][row].tolist() == dt
            if event.y is not None:
                told[end] = event.y[row].item()
    assert seen_inputs == [end for end, _, _ in rows]
    assert told == pytest.approx({end: float(values[end + horizon, 2]) for end, _, _ in rows}, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_no_answer_comes_before_its_time(batch):
    """When answers come, a window that ends at the time of the last of them or later is the next, or there is none."""
    kept = numpy.ones(40, dtype=bool)
    stream = WindowStream(
        torch.rand(40, 1).double(), kept, Windows((0,), (0,), 3, 4, False), features=("a",), targets=("a",), batch=batch
    )
    events = list(stream)
    assert stream.late and all(isinstance(event, Batch) for event in events)
    for place, event in enumerate(events):
        if event.y is not None:
            following = [later.time[0].item() for later in events[place + 1 :] if later.y is None]
            assert not following or following[0] >= event.time[-1].item() + 4


def test_changes_that_nobody_sees_are_left_out():
    """One after the last answer, and one among times that no window shows."""
    kept = numpy.ones(40, dtype=bool)
    layout = Windows((0,), (0,), 3, 1, False)
    names = {"features": ("a",), "targets": ("a",), "batch": 1, "states": (0, 1, 2)}
    stream = WindowStream(torch.rand(40, 1).double(), kept, layout, changes=[20, 40], **names)
    assert stream.changes == (
        20 - 1 - 2,
    )  # the window that ends at 19 is the 18th; its answer is the first of the new world
