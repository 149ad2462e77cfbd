"""Late and missing answers: each input is answered at most once, with the same rows, when it was said it would be."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch, Boundary
from everlearn.core.stream import Stream
from everlearn.data.delayed import delayed
from everlearn.data.prefix import prefix
from everlearn.data.prequential import prequential
from everlearn.data.split import split


def parts(stream):
    """(inputs, answers): {id: (event number, row of x)} and the same with y, of late batches."""
    inputs, answers = {}, {}
    for number, event in enumerate(stream):
        if isinstance(event, Batch) and event.id is not None:
            for row, name in enumerate(event.id):
                side = inputs if event.y is None else answers
                assert name not in side
                side[name] = (number, event.x[row], None if event.y is None else int(event.y[row]))
    return inputs, answers


@given(
    delay=st.integers(0, 12), jitter=st.integers(0, 6), missing=st.sampled_from([0.0, 0.3, 0.95]), batch=st.integers(1, 30)
)
@settings(max_examples=30, deadline=None)
def test_answers_join_their_inputs(numbered, delay, jitter, missing, batch):
    source = prequential(numbered([30, 40]), batch=batch)
    stream = delayed(source, delay=delay, jitter=jitter, missing=missing)
    inputs, answers = parts(stream)
    assert set(answers) <= set(inputs)
    assert len(inputs) == 70 - sum(len(source[event]) for event in range(source.deployed))
    for name, (number, x, y) in answers.items():
        asked, shown, _ = inputs[name]
        assert asked < number and torch.equal(shown, x) and y == int(x[1])
    if missing == 0.0:
        assert set(answers) == set(inputs)
    assert stream.sizes() == [len(event) if isinstance(event, Batch) else 0 for event in stream]


@pytest.mark.parametrize("delay", [0, 1, 4, 500])
def test_the_delay_counts_source_events(numbered, delay):
    """Between an input and its answer stand `delay` later source events, fewer only where the source ends before."""
    source = prequential(numbered([50, 50]), batch=5)
    waiting: dict[str, int] = {}
    come = 0
    for event in delayed(source, delay=delay):
        if event.id is None:
            come += 1
        elif event.y is None:
            come += 1
            waiting[event.id[0]] = come
        else:
            assert come - waiting.pop(event.id[0]) == min(delay, 20 - waiting_start(event, source))
    assert not waiting and come == 20


def waiting_start(event, source):
    """How many source events had come, itself included, when this batch was asked for."""
    return next(number for number in range(len(source)) if torch.equal(source[number].x[0], event.x[0])) + 1


def test_by_hand(numbered):
    """Six batches of one row, deployed after none, delay 2: 0 1 2 a0 3 a1 4 a2 5 a3 | a4 a5."""
    stream = delayed(prequential(numbered([3, 3]), batch=1, deployed=0.0), delay=2)
    told = [("" if event.y is None else "a") + str(int(event.time)) for event in stream]
    assert " ".join(told) == "0 1 2 a0 3 a1 4 a2 5 a3 a4 a5"


def test_the_first_training_has_its_answers_at_once(digits):
    source = split(digits, batch=16)
    stream = delayed(source, delay=3)
    assert stream.deployed == source.deployed
    for event in range(source.deployed):
        if isinstance(source[event], Batch):
            assert torch.equal(stream[event].y, source[event].y) and stream[event].id is None
    assert stream[source.deployed + 1].y is None


def test_boundaries_changes_and_checkpoints_keep_their_place(digits):
    source = split(digits, batch=16)
    stream = delayed(source, delay=3)
    assert stream.boundaries and len(stream) > len(source)
    for old, new in zip(source.changes, stream.changes, strict=True):
        assert isinstance(stream[new], Boundary) and stream[new].classes == source[old].classes
    assert stream.checkpoints == (*stream.changes, len(stream))
    assert stream.held_out is source.held_out and stream.headline == "held_out"
    late = delayed(prequential(digits, test=0.2), delay=2)
    for old, new in zip(prequential(digits, test=0.2).checkpoints, late.checkpoints, strict=True):
        asked = sum(event.y is None or event.id is None for event in list(late)[:new])
        assert asked == old


@pytest.mark.parametrize("missing", [0.0, 0.25, 0.9, 1.0])
def test_a_fraction_is_never_answered(digits, missing):
    """Binomial: four deviations; the control is the same count held against another fraction."""
    inputs, answers = parts(delayed(prequential(digits, batch=8), delay=2, missing=missing))
    share = 1 - len(answers) / len(inputs)
    deviation = (missing * (1 - missing) / len(inputs)) ** 0.5
    assert abs(share - missing) <= 4 * deviation
    assert abs(share - (missing + 0.1)) > 4 * deviation


def test_no_answer_is_empty(digits):
    stream = delayed(prequential(digits, batch=2), delay=1, missing=0.8)
    assert all(len(event) >= 1 for event in stream)
    whole = delayed(prequential(digits, batch=2), delay=1, missing=1.0)
    assert len(whole) == len(prequential(digits, batch=2))


def test_jitter_draws_a_delay_for_each_batch(numbered):
    """Delays 3 to 6, each about a quarter of 950 batches (four deviations); without jitter all are 3."""
    source = prequential(numbered([500, 500]), batch=1, deployed=0.0)

    def delays(jitter):
        asked, come, found = {}, 0, Counter()
        for event in delayed(source, delay=3, jitter=jitter):
            if event.y is None:
                come += 1
                asked[event.id] = come
            elif come < 950:
                found[come - asked[event.id]] += 1
        return found

    assert set(delays(0)) == {3}
    found = delays(3)
    total = sum(found.values())
    assert set(found) == {3, 4, 5, 6}
    assert all(abs(count / total - 0.25) < 4 * (0.1875 / total) ** 0.5 for count in found.values())


def test_ids_of_the_source_are_kept(digits):
    class Own(Stream):
        name, schema, held_out, checkpoints, deployed = "own", digits.schema, (), (), 0

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return Batch(digits.x[index : index + 1], digits.y[index : index + 1], id=(f"order-{index}",))

    stream = delayed(Own(), delay=1)
    assert [event.id for event in stream] == [
        ("order-0",),
        ("order-1",),
        ("order-0",),
        ("order-2",),
        ("order-1",),
        ("order-2",),
    ]
    assert stream.name == "delayed(own, delay=1)"


def test_a_source_without_answers_is_refused(digits):
    class Unlabelled(Stream):
        name, schema = "unlabelled", digits.schema

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Batch(digits.x[:2])

    with pytest.raises(DataError, match="event 0 of unlabelled has no answers"):
        delayed(Unlabelled())[0]


def test_wrong_arguments_are_refused(digits):
    stream = split(digits)
    for options, words in [
        ({"delay": -1}, "delay must be an int >= 0"),
        ({"jitter": 0.5}, "jitter must be an int >= 0"),
        ({"missing": 1.1}, "missing must be a number between 0 and 1, got 1.1"),
        ({"missing": float("nan")}, "missing must be a number"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            delayed(stream, **options)
    with pytest.raises(ArgumentError, match=r"Wrap a data set first: delayed\(split\(digits\)\)"):
        delayed(digits)
    for late in (delayed(stream), prefix(delayed(stream), 10)):
        with pytest.raises(ArgumentError, match="has late answers already"):
            delayed(late)
