"""The replay memory: its counters, its limits, uniform draws, its state, and what it refuses."""

import time
from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, BudgetError, InputError
from everlearn.core.state import capture, digest, pack, restore, same, unpack
from everlearn.data.memory import FIRST, Balanced, Herding, Memory, Reservoir, Ring

RULES = [Reservoir(), Balanced(), Ring(), Herding()]


def batch(count, start=0, classes=4):
    number = torch.arange(start, start + count)
    return {"x": torch.stack([number, number**2 % 11], 1).float(), "y": number % classes}


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_counters_and_capacity(keep):
    memory = Memory(20, keep=keep)
    for start in range(0, 100, 7):
        memory.insert(**batch(7, start))
        assert memory.stored <= 20
    assert memory.seen == 105
    assert memory.stored == 20
    assert sum(memory.per_class.values()) == 20
    memory.draw(6)
    memory.draw(50)
    assert memory.replayed == 6 + 20


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_fields_of_a_row_stay_together(keep):
    memory = Memory(10, keep=keep, seed=1)
    for start in range(0, 90, 9):
        rows = batch(9, start)
        memory.insert(x=rows["x"], y=rows["y"], logits=rows["x"].double() * 3)
    for rows in (memory.rows(), memory.draw(5)):
        number = rows["x"][:, 0]
        assert torch.equal(rows["x"][:, 1], number**2 % 11)
        assert torch.equal(rows["y"], number.long() % 4)
        assert torch.equal(rows["logits"], rows["x"].double() * 3)
        assert len(set(number.tolist())) == len(number)


def test_dtypes_stay_as_given():
    memory = Memory(4)
    memory.insert(
        x=torch.full((2, 3, 4, 4), 200, dtype=torch.uint8), y=torch.tensor([0, 1]), half=torch.ones(2, dtype=torch.bfloat16)
    )
    rows = memory.draw(2)
    assert [rows[name].dtype for name in ("x", "y", "half")] == [torch.uint8, torch.int64, torch.bfloat16]
    assert rows["x"].shape == (2, 3, 4, 4) and int(rows["x"].min()) == 200


def test_a_dict_of_inputs_comes_back_as_a_dict():
    memory = Memory(4)
    memory.insert(x={"ids": torch.arange(6).reshape(3, 2), "mask.a": torch.ones(3, 2, dtype=torch.bool)}, y=torch.arange(3))
    rows = memory.draw(3)
    assert set(rows) == {"x", "y"} and set(rows["x"]) == {"ids", "mask.a"}
    assert torch.equal(rows["x"]["ids"], torch.stack([2 * rows["y"], 2 * rows["y"] + 1], 1))


def test_rows_are_copies_without_gradients():
    memory = Memory(4)
    x = torch.zeros(2, 3, requires_grad=True)
    memory.insert(x=x * 2)
    drawn = memory.draw(2)["x"]
    drawn += 1
    assert not memory.rows()["x"].requires_grad
    assert float(memory.rows()["x"].sum()) == 0.0


def test_without_a_capacity_every_row_is_kept_in_order():
    for keep in RULES:
        memory = Memory(None, keep=keep)
        for start in range(0, 3000, 60):
            memory.insert(**batch(60, start))
        assert memory.stored == memory.seen == 3000
        assert torch.equal(memory.rows()["x"][:, 0], torch.arange(3000.0))
        assert memory.nbytes <= 2 * 3000 * 16


def test_bytes_follow_what_is_held():
    memory = Memory(100_000)
    memory.insert(**batch(10))
    assert memory.nbytes == FIRST * (8 + 8)
    memory.insert(**batch(FIRST))
    assert memory.nbytes == 2 * FIRST * 16
    small = Memory(7)
    small.insert(**batch(1))
    assert small.nbytes == 7 * 16


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_bytes_are_a_limit_of_their_own(keep):
    memory = Memory(None, bytes=999, keep=keep)
    for start in range(0, 400, 20):
        memory.insert(**batch(20, start))
        assert memory.nbytes <= 999
    statistics = 4 * 2 * 8 if keep.name == "herding" else 0  # a float64 mean of two features per class
    assert memory.stored == ((999 - statistics) // 16 // 4 * 4 if statistics else 999 // 16)


def test_bytes_and_capacity_hold_together():
    memory = Memory(5, bytes=10_000)
    memory.insert(**batch(50))
    assert memory.stored == 5
    tight = Memory(500, bytes=3)
    tight.insert(**batch(50))
    assert (tight.stored, tight.nbytes, tight.draw(3)) == (0, 0, None)


def test_limits_shrink_and_never_widen():
    memory = Memory(50)
    memory.limit(80, None)
    assert memory.capacity == 50
    memory.limit(8, 16 * 6)
    memory.insert(**batch(50))
    assert memory.stored == memory.capacity == 6
    with pytest.raises(BudgetError, match="before rows are stored"):
        memory.limit(3, None)


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_a_limit_of_nothing_stores_and_draws_nothing(keep):
    memory = Memory(50, keep=keep)
    memory.limit(0, None)
    memory.insert(**batch(9))
    assert (memory.seen, memory.stored, memory.replayed, memory.nbytes, memory.rows()) == (9, 0, 0, 0, {})
    assert memory.draw(4) is None


def test_a_budget_shares_its_samples_among_memories():
    class Two:
        parts = ("first", "second")
        reference = False

        def __init__(self):
            self.first, self.second = Memory(100), Memory(3)

    learner = Two()
    Budget(replay=20).limit(learner)
    assert (learner.first.capacity, learner.second.capacity) == (10, 3)


def test_an_empty_memory_draws_none():
    memory = Memory(5)
    assert memory.draw(3) is None
    assert memory.replayed == 0


@pytest.mark.parametrize(("count", "held"), [(3, 30), (20, 30), (30, 30), (31, 30)])
def test_a_draw_has_no_repeats(count, held):
    memory = Memory(held)
    memory.insert(**batch(held))
    for _ in range(200):
        numbers = memory.draw(count)["x"][:, 0].tolist()
        assert len(numbers) == len(set(numbers)) == min(count, held)


@pytest.mark.parametrize("count", [2, 4])
def test_every_pair_is_drawn_equally_often(count):
    """Chi-squared over pairs of 6 rows, at the 99.9 % point; the control is a draw that takes neighbours."""
    memory = Memory(6, seed=3)
    memory.insert(**batch(6))
    draws = 6000

    def statistic(samples):
        seen = Counter(tuple(sorted(sample)[:2]) for sample in samples)
        if count == 2:
            expected = dict.fromkeys(((a, b) for a in range(6) for b in range(a + 1, 6)), 1 / 15)
        else:  # the two least of 4 out of 6: C(numbers above b, 2) of C(6, 4) sets
            expected = {(a, b): (5 - b) * (4 - b) / 2 / 15 for a in range(6) for b in range(a + 1, 4)}
        assert set(seen) <= set(expected)
        return sum((seen[pair] - draws * p) ** 2 / (draws * p) for pair, p in expected.items()), len(expected) - 1

    value, freedom = statistic([[int(row) for row in memory.draw(count)["x"][:, 0]] for _ in range(draws)])
    assert value < chi2.ppf(0.999, freedom)
    control, freedom = statistic([[start % (7 - count) + step for step in range(count)] for start in range(draws)])
    assert control > chi2.ppf(0.999, freedom)


@pytest.mark.parametrize("keep", RULES, ids=repr)
@pytest.mark.parametrize("at", [0, 2, 40])
def test_state_continues_to_the_same_bits(keep, at):
    """Saved after `at` batches, packed and unpacked as on disk, put into a memory that never held anything."""

    def step(memory, number):
        memory.insert(**batch(5, 5 * number, classes=7))
        return memory.draw(4)

    whole = Memory(16, keep=keep, seed=2)
    for number in range(at):
        step(whole, number)
    data, tree = pack(capture(whole))
    again = Memory(16, keep=keep, seed=9)
    restore(again, unpack(data, tree))
    for number in range(at, at + 30):
        assert same(capture(step(whole, number)), capture(step(again, number)))
    assert digest(capture(whole)) == digest(capture(again))


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_the_seed_decides_alone(keep):
    def fold(seed):
        memory = Memory(10, keep=keep, seed=seed)
        for number in range(20):
            memory.insert(**batch(5, 5 * number))
        return digest(capture([memory, memory.draw(3)]))

    torch.manual_seed(0)
    first = fold(0)
    torch.manual_seed(1)
    assert fold(0) == first
    assert fold(1) != first


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"x": torch.zeros(3, 2), "y": torch.zeros(2)}, "same number of rows"),
        ({"x": torch.zeros(0, 2), "y": torch.zeros(0, dtype=torch.int64)}, "at least one"),
        ({"x": torch.zeros(3, 2), "y": None}, "must be a tensor"),
        ({"x": torch.zeros(3, 2)}, r"fields are \['x', 'y'\], got \['x'\]"),
        ({"x": torch.zeros(3, 5), "y": torch.zeros(3, dtype=torch.int64)}, r"shape \(2,\)"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3)}, "torch.int64, got"),
    ],
)
def test_wrong_rows_are_refused_with_nothing_changed(fields, words):
    memory = Memory(5)
    memory.insert(**batch(9))
    before = digest(capture(memory))
    with pytest.raises(InputError, match=words):
        memory.insert(**fields)
    assert digest(capture(memory)) == before


@pytest.mark.parametrize("keep", [Balanced(), Herding()], ids=repr)
def test_rules_by_class_need_labels(keep):
    memory = Memory(6, keep=keep)
    with pytest.raises(InputError, match="needs a field y"):
        memory.insert(x=torch.zeros(3, 2))
    with pytest.raises(InputError, match="needs a field y"):
        memory.insert(x=torch.zeros(3, 2), y=torch.zeros(3))
    assert memory.seen == 0


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_a_wrong_capacity_names_the_learner_without_replay(wrong):
    with pytest.raises(ArgumentError, match="fine_tune"):
        Memory(wrong)
    with pytest.raises(ArgumentError, match="bytes must be an int >= 1"):
        Memory(5, bytes=wrong)


def test_repr_is_the_call():
    assert repr(Memory(7, keep=Ring())) == "memory(capacity=7, keep=ring())"


def test_insertion_and_draw_cost_far_less_than_a_gradient_step():
    """Some 50 microseconds on one core of 2024; the bound leaves room for a busy machine."""
    memory = Memory(5000)
    rows = {"x": torch.rand(32, 64), "y": torch.arange(32)}
    memory.insert(x=torch.rand(8000, 64), y=torch.arange(8000))
    costs = []
    for _ in range(500):
        start = time.perf_counter()
        memory.insert(**rows)
        memory.draw(32)
        costs.append(time.perf_counter() - start)
    assert sorted(costs)[100] < 300e-6


def test_rows_of_given_slots_are_copies_that_count_as_replayed():
    memory = Memory(8)
    memory.insert(x=torch.arange(6.0)[:, None], y=torch.arange(6))
    found = memory.pick([4, 1])
    found["x"].zero_()
    assert found["y"].tolist() == [4, 1] and memory.replayed == 2
    assert memory.rows()["x"].flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_limit_below_what_herding_must_know_of_classes_keeps_nothing():
    """Two class sums of 8 float64 are 128 bytes: with 127 the memory gives up, with 200 it holds a row of 40 bytes."""
    for limit, stored in ((127, 0), (200, 1)):
        memory = Memory(100, bytes=limit, keep=Herding())
        for _ in range(3):
            memory.insert(x=torch.randn(4, 8), y=torch.tensor([0, 1, 0, 1]))
            assert memory.nbytes <= limit
        assert memory.stored == stored and memory.seen == 12
        assert (memory.draw(2) is None) == (stored == 0)


@pytest.mark.parametrize("keep", [Reservoir(), Balanced(), Herding()], ids=repr)
def test_a_released_memory_holds_nothing_and_begins_anew_within_its_limits(keep):
    memory = Memory(6, keep=keep)
    memory.insert(x=torch.randn(9, 2), y=torch.arange(9) % 3)
    memory.release()
    assert (memory.stored, memory.nbytes, memory.seen, memory.capacity, memory.draw(2)) == (0, 0, 9, 6, None)
    memory.insert(x=torch.randn(9, 4), y=torch.arange(9) % 3)  # rows of another shape, too
    assert memory.stored == 6
