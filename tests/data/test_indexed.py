"""What holds for every scenario: rows are conserved, test rows never learned from, access by number equals iteration."""

import time
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.events import Batch, Boundary
from everlearn.core.state import capture, same
from everlearn.data.dataset import Data
from everlearn.data.indexed import Indexed, Session, permutation
from everlearn.data.scenarios import blurry, delayed, iid, label_shift, permuted, prefix, prequential, rotated, split, tasks

MADE = {
    "split": lambda data, **kw: split(data, **kw),
    "split without boundaries": lambda data, **kw: split(data, boundaries=False, **kw),
    "tasks": lambda data, **kw: tasks(data, **kw),
    "blurry": lambda data, **kw: blurry(data, overlap=0.3, **kw),
    "permuted": lambda data, **kw: permuted(data, experiences=3, **kw),
    "rotated": lambda data, **kw: rotated(data, degrees=(0, 30), **kw),
    "prequential": lambda data, **kw: prequential(data, **kw),
    "prequential with a test part": lambda data, **kw: prequential(data, test=0.2, **kw),
    "label_shift": lambda data, **kw: label_shift(data, **kw),
    "iid": lambda data, **kw: iid(data, **kw),
    "delayed": lambda data, **kw: delayed(split(data, **kw), delay=3, jitter=2, missing=0.2, **kw),
    "prefix": lambda data, **kw: prefix(split(data, **kw), 40),
}


def content(event):
    if isinstance(event, Batch):
        return [capture([event.x, event.y, event.time]), event.task, list(event.id or ())]
    return [event.task, list(event.classes), capture([event.data.x, event.data.y])]


def learned(stream):
    """How often each row (named by its time) is learned from."""
    return Counter(int(moment) for event in stream if isinstance(event, Batch) for moment in event.time)


def as_images(data):
    """Rows of two columns as images of 2 x 2, so that they can be turned."""
    return Data(data.name, data.x.repeat(1, 2), data.y, data.classes, time=data.time)


@pytest.mark.parametrize("name", MADE)
def test_access_by_number_equals_iteration(name, digits):
    stream = MADE[name](digits)
    events = list(stream)
    assert len(events) == len(stream)
    for index in [*range(0, len(stream), 17), len(stream) - 1]:
        assert same(content(stream[index]), content(events[index]))
        assert same(content(stream[index - len(stream)]), content(events[index]))
    for outside in (len(stream), -len(stream) - 1):
        with pytest.raises(IndexError):
            stream[outside]


@pytest.mark.parametrize("name", MADE)
def test_a_seed_gives_the_same_stream_again_and_another_seed_another(name, digits):
    one, again, other = (MADE[name](digits, seed=seed) for seed in (3, 3, 4))
    assert len(one) == len(again)
    assert all(same(content(left), content(right)) for left, right in zip(one, again, strict=True))
    if name != "prequential":  # the order of time is no draw
        assert not all(same(content(left), content(right)) for left, right in zip(one, other, strict=False))
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    MADE[name](digits)[5]
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", MADE)
def test_attributes_keep_their_promises(name, digits):
    stream = MADE[name](digits)
    total = len(stream)
    assert stream.schema == digits.schema
    assert list(stream.checkpoints) == sorted(set(stream.checkpoints))
    assert all(1 <= event <= total for event in stream.checkpoints)
    assert list(stream.changes) == sorted(set(stream.changes))
    assert all(0 < event < total for event in stream.changes)
    assert 0 < stream.deployed < total
    assert stream.boundaries == any(isinstance(event, Boundary) for event in stream)
    assert stream.headline == ("prequential" if name.startswith(("prequential", "label_shift")) else "held_out")
    assert bool(stream.checkpoints) == bool(len(stream.held_out))
    for index in range(len(stream.held_out)):
        held_out = stream.held_out[index]
        assert len(held_out.x) == len(held_out.y) > 0
    assert len({stream.held_out[index].name for index in range(len(stream.held_out))}) == len(stream.held_out)


@pytest.mark.parametrize("name", [name for name in MADE if name not in ("label_shift", "delayed", "prefix")])
@given(
    counts=st.lists(st.integers(5, 23), min_size=5, max_size=7),
    batch=st.integers(1, 60),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=12, deadline=None)
def test_every_training_row_comes_once_per_epoch(name, numbered, counts, batch, epochs, seed):
    data = as_images(numbered(counts))
    domains = {"permuted": 3, "rotated": 2}.get(name, 1)
    options = {"batch": batch, "seed": seed} | ({} if name.startswith("prequential") else {"epochs": epochs})
    stream = MADE[name](data, **options)
    counted = learned(stream)
    assert set(counted.values()) == {options.get("epochs", 1) * domains}
    held_out = [stream.held_out[index] for index in range(len(stream.held_out))][: None if domains == 1 else 1]
    judged = [int(number) for part in held_out for number in part.x[:, 0]]
    assert sorted([*counted, *judged]) == list(range(sum(counts)))
    assert all(1 <= len(event) <= batch for event in stream if isinstance(event, Batch))


@pytest.mark.parametrize("name", ["split", "tasks", "permuted", "iid", "blurry"])
def test_each_pass_has_an_order_of_its_own(name, numbered):
    stream = MADE[name](numbered([40] * 5), batch=1000, epochs=2)
    first = [event.time.tolist() for event in stream if isinstance(event, Batch)][:2]
    assert sorted(first[0]) == sorted(first[1]) or name == "blurry"
    assert first[0] != first[1]


@pytest.mark.parametrize("name", MADE)
def test_batches_of_one_row(name, numbered):
    data = as_images(numbered([6] * 5))
    stream = split(data, batch=1) if name in ("delayed", "prefix") else MADE[name](data, batch=1)
    stream = {"delayed": lambda: delayed(stream, delay=2), "prefix": lambda: prefix(stream, 9)}.get(name, lambda: stream)()
    assert {len(event) for event in stream if isinstance(event, Batch)} == {1}


@pytest.mark.parametrize("name", ["split", "label_shift", "prequential", "permuted"])
def test_sizes_are_those_of_the_events(name, digits):
    stream = MADE[name](digits, batch=7)
    assert stream.sizes() == [len(event) if isinstance(event, Batch) else 0 for event in stream]


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4)), min_size=1, max_size=4), st.booleans())
def test_each_session_may_have_passes_of_its_own(shapes, announced):
    """Against a list of all rows: session s comes epochs[s] times over."""
    counts, epochs = zip(*shapes, strict=True)
    starts = [sum(counts[:number]) for number in range(len(counts))]
    data = Data("rows", torch.arange(sum(counts)).float()[:, None], torch.arange(sum(counts)) % 2, ("a", "b"))
    sessions = [Session(start, count) for start, count in zip(starts, counts, strict=True)]
    for seed in (None, 3):
        stream = Indexed(data, sessions, batch=3, epochs=epochs, seed=seed, announced=announced)
        begin = 0
        for end, start, (count, passes) in zip(stream.checkpoints, starts, shapes, strict=True):
            events = [stream[index] for index in range(begin, end)][announced:]
            came = torch.cat([event.x for event in events]).flatten()
            assert came.sort().values.tolist() == [row for row in range(start, start + count) for _ in range(passes)]
            begin = end
        assert begin == len(stream)
        assert stream.sizes() == [len(event) if isinstance(event, Batch) else 0 for event in stream]


@given(count=st.integers(1, 200), seed=st.integers(0, 50))
def test_a_pass_is_a_permutation(count, seed):
    stride, shift = permutation(count, seed, 1, 2)
    assert sorted((stride * place + shift) % count for place in range(count)) == list(range(count))


def test_passes_differ_among_sessions_turns_and_seeds():
    drawn = {permutation(1009, *labels) for labels in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}
    assert len(drawn) == 4


def test_rows_keep_their_dtype_and_are_not_copied_without_need():
    data = Data("images", torch.arange(48, dtype=torch.uint8).reshape(12, 1, 2, 2), torch.arange(12) % 2, ("a", "b"))
    stream = Indexed(data, [Session(0, 12)], batch=5)
    assert stream[1].x.dtype == torch.uint8
    assert stream[1].x.data_ptr() == data.x[5:].data_ptr()


def test_a_thousand_experiences_cost_under_a_second():
    data = Data("many", torch.rand(8000, 4), torch.arange(8000) % 1000, tuple(map(str, range(1000))))
    start = time.perf_counter()
    stream = split(data, experiences=1000, batch=2, test=0.25)
    names = [stream.held_out[index].name for index in range(1000)]
    events = [stream[index] for index in range(0, len(stream), 2)]
    assert time.perf_counter() - start < 1.0
    assert (len(stream), len(events), len(names)) == (4000, 2000, 1000)
    start = time.perf_counter()
    long = permuted(data, experiences=1000)
    for index in range(0, len(long), len(long) // 500):
        long[index]
    assert time.perf_counter() - start < 2.0
