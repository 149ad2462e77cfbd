"""few_shot: which rows come in which session, what is out of reach, and what is refused."""

import gc
from dataclasses import replace

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.data.few_shot import few_shot
from everlearn.data.scenarios import SCENARIOS

SMALL = {"base_classes": 4, "way": 2, "shot": 3, "sessions": 3, "batch": 16}


def events_of(stream):
    """[(boundary, batches)] of each session."""
    found = []
    for event in stream:
        if isinstance(event, Boundary):
            found.append((event, []))
        else:
            found[-1][1].append(event)
    return found


def numbers(x):
    return x[:, 0].long().tolist()


@pytest.fixture
def data(numbered):
    """Eleven classes of 20 rows: row i has x[0] = i."""
    return numbered([20] * 11)


def test_each_session_brings_its_classes_and_shots(data):
    stream = few_shot(data, **SMALL, epochs=2, seed=1)
    sessions = events_of(stream)
    assert [boundary.task for boundary, _ in sessions] == [0, 1, 2, 3]
    assert [len(boundary.classes) for boundary, _ in sessions] == [4, 2, 2, 2]
    assert len({label for boundary, _ in sessions for label in boundary.classes}) == 10
    assert [len(boundary.data) for boundary, _ in sessions] == [64, 6, 6, 6]  # 4 of 20 rows of a class are held out
    for number, (boundary, batches) in enumerate(sessions):
        counts = boundary.data.y.bincount(minlength=11)
        assert counts.nonzero().flatten().tolist() == sorted(boundary.classes)
        assert set(counts[list(boundary.classes)].tolist()) == {3 if number else 16}
        came = [row for batch in batches for row in numbers(batch.x)]
        assert sorted(came) == sorted(numbers(boundary.data.x) * (1 if number else 2))
        assert all(batch.task is None for batch in batches)
    first, second = (numbers(torch.cat([batch.x for batch in sessions[0][1][half]])) for half in (slice(4), slice(4, 8)))
    assert sorted(first) == sorted(second) and first != second
    assert stream.boundaries and stream.deployed == 9 and stream.checkpoints == (9, 11, 13, 15) and len(stream) == 15
    assert stream.changes == (9, 11, 13)


def test_no_row_comes_in_two_sessions_or_is_both_learned_and_judged(data):
    for extra in (False, True):
        stream = few_shot(data, **SMALL, extra_test=extra)
        learned = [numbers(boundary.data.x) for boundary, _ in events_of(stream)]
        judged = [numbers(item.x) for item in stream.held_out]
        flat = [row for rows in learned + judged for row in rows]
        assert len(flat) == len(set(flat)) == (200 if extra else 64 + 18 + 40)
        assert [len(rows) for rows in judged] == [16, *[34 if extra else 8] * 3]  # all that is left of a new class: 20 - 3
        for number, item in enumerate(stream.held_out):
            assert item.task is None
            assert sorted(item.y.unique().tolist()) == sorted(stream.classes_of(number))


def test_the_stream_is_indexable_and_a_function_of_its_seed(data):
    stream, again, other = few_shot(data, **SMALL), few_shot(data, **SMALL), few_shot(data, **SMALL, seed=1)
    for index in (8, 3, 0, len(stream) - 1, -1):
        first, second = stream[index], again[index]
        if isinstance(first, Batch):
            assert torch.equal(first.x, second.x) and torch.equal(first.y, second.y)
        else:
            assert first.classes == second.classes and torch.equal(first.data.x, second.data.x)
    with pytest.raises(IndexError):
        stream[len(stream)]
    assert stream.classes_of(0) != other.classes_of(0)
    given = [few_shot(data, **SMALL, order="given", seed=seed) for seed in (0, 1)]
    assert [given[0].classes_of(number) for number in range(4)] == [(0, 1, 2, 3), (4, 5), (6, 7), (8, 9)]
    shots = [set(numbers(each.session(1).train.x)) for each in given]
    assert shots[0] != shots[1], "the draw of shots follows the seed"


def test_every_row_of_a_class_is_as_likely_to_be_a_shot(numbered):
    """400 draws of 2 of 8 rows: each row is expected 100 times, standard deviation 8.7."""
    data = numbered([8, 8, 8])
    data = replace(data, test_x=data.x, test_y=data.y)
    times = torch.zeros(24)
    for seed in range(400):
        stream = few_shot(data, base_classes=2, way=1, shot=2, sessions=1, order="given", seed=seed)
        times[numbers(stream.session(1).train.x)] += 1
    drawn = times[times > 0]
    assert len(drawn) == 8 and drawn.min() > 60 and drawn.max() < 140


def test_a_session_is_sealed(data):
    stream = few_shot(data, **SMALL)
    base, session = stream.session(0), stream.session(2)
    assert session.seen_classes == (*stream.classes_of(0), *stream.classes_of(1), *stream.classes_of(2))
    assert session.classes == stream.classes_of(2)
    assert len(session.rows_of(session.classes[0])) == 3
    with pytest.raises(InputError, match="an earlier session had them"):
        session.rows_of(base.classes[0])
    with pytest.raises(InputError, match="none has come yet"):
        session.rows_of(stream.classes_of(3)[0])
    with pytest.raises(AttributeError):
        session.train = base.train
    earlier = {*numbers(base.train.x), *numbers(stream.session(1).train.x)}
    reached, queue = set(), [session]
    while queue:  # whatever hangs on the session, tensors with all their storage
        item = queue.pop()
        if not isinstance(item, torch.Tensor):
            queue += [each for each in gc.get_referents(item) if not isinstance(each, type)]
        elif item.is_floating_point():
            whole = torch.empty(0, dtype=item.dtype).set_(item.untyped_storage())
            reached |= set(numbers(whole.reshape(-1, *item.shape[1:]) if item.ndim == 2 else whole[:, None]))
    assert reached >= set(numbers(session.train.x)) and not reached & earlier


def test_what_a_session_is_tested_on(data):
    stream = few_shot(data, **SMALL)
    session = stream.session(1)
    whole = session.test()
    assert set(whole.y.tolist()) == set(session.seen_classes) and len(whole) == 6 * 4
    part = session.test(session.classes)
    assert set(part.y.tolist()) == set(session.classes) and len(part) == 8
    assert set(numbers(part.x)) == set(numbers(stream.held_out[1].x))
    with pytest.raises(InputError, match="has not come by session 1"):
        session.test(stream.classes_of(2))
    for number in (-1, 4, True, 1.0):
        with pytest.raises(ArgumentError, match="session must be"):
            stream.session(number)


# ---- refusals and names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shot": 0}, "shot must be an int >= 1"),
        ({"way": 0}, "way must be"),
        ({"sessions": 0}, "sessions must be"),
        ({"base_classes": 2.0}, "base_classes must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch": 0}, "batch must be"),
        ({"test": 1}, "test must lie"),
        ({"order": "random"}, "order must be 'seed' or 'given'"),
        ({"extra_test": 1}, "extra_test must be True or False"),
        ({"sessions": 4}, "need 12 classes, and numbered has 11. Use sessions=3"),
        ({"base_classes": 11}, "Use base_classes=5, or a smaller way"),
        ({"shot": 17}, "shot=17 asks for more rows of class 'c.*' than the 16 .* Use shot=16"),
    ],
)
def test_refusals_name_the_argument(data, change, told):
    with pytest.raises(ArgumentError, match=told):
        few_shot(data, **(SMALL | change))


def test_its_name_is_a_call_that_can_be_typed(data):
    stream = few_shot(data, **SMALL, extra_test=True, seed=3)
    assert stream.name == "few_shot(numbered, base_classes=4, way=2, shot=3, sessions=3, batch=16, extra_test=True)"
    assert SCENARIOS["few_shot"] is few_shot
