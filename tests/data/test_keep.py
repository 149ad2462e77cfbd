"""The rules: each against its published definition, a slow twin, or the law it must follow."""

import itertools

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from everlearn.core.errors import InputError
from everlearn.data.keep import RULES, herd
from everlearn.data.memory import Balanced, Herding, Memory, Reservoir, Ring


def offer(memory, numbers, labels, size=1):
    for start in range(0, len(numbers), size):
        part = slice(start, start + size)
        memory.insert(x=torch.tensor(numbers[part], dtype=torch.float32)[:, None], y=torch.tensor(labels[part]))


def kept(memory):
    return [int(number) for number in memory.rows()["x"][:, 0]]


def inclusion(keep, size, repeats=3000, rows=30, capacity=6):
    """How often each of 30 rows is among the 6 kept."""
    counts = numpy.zeros(rows)
    for seed in range(repeats):
        memory = Memory(capacity, keep=keep, seed=seed)
        offer(memory, list(range(rows)), [0] * rows, size)
        counts[kept(memory)] += 1
    return counts


def uniformity(counts, repeats=3000, rows=30, capacity=6):
    """Chi-squared of inclusion counts; each has variance n p (1 - p), and their sum is fixed, so rows - 1 degrees of freedom
    after scaling by (rows - 1) / rows (sampling without replacement)."""
    p = capacity / rows
    return ((counts - repeats * p) ** 2).sum() / (repeats * p * (1 - p)) * (rows - 1) / rows


@pytest.mark.parametrize("keep", [Reservoir(), Balanced()], ids=repr)
@pytest.mark.parametrize("size", [1, 7, 30])
def test_every_row_seen_stays_with_equal_probability(keep, size):
    """Balanced with a single class is a reservoir too."""
    repeats = 800
    assert uniformity(inclusion(keep, size, repeats), repeats) < chi2.ppf(0.999, 29)


def test_the_test_of_uniformity_can_fail():
    assert uniformity(inclusion(Ring(), 7, 50), 50) > chi2.ppf(0.999, 29)

    counts = numpy.zeros(30)
    for seed in range(800):  # each row replaces a random one with a fixed probability: late rows stay too often
        random = numpy.random.default_rng(seed)
        slots = list(range(6))
        for row in range(6, 30):
            if random.random() < 6 / 18:
                slots[random.integers(6)] = row
        counts[slots] += 1
    assert uniformity(counts, 800) > chi2.ppf(0.999, 29)


def test_a_batch_is_its_rows_one_by_one():
    """The same uniform numbers give the same rows, whether 40 rows come singly or together."""
    for keep in (Reservoir(), Ring(), Balanced()):
        one, many = (Memory(9, keep=keep, seed=4) for _ in range(2))
        labels = [(number * number) % 5 for number in range(60)]
        for memory in (one, many):
            offer(memory, list(range(20)), labels[:20], 20)
        offer(one, list(range(20, 60)), labels[20:], 1)
        offer(many, list(range(20, 60)), labels[20:], 40)
        assert kept(one) == kept(many), keep


@given(sizes=st.lists(st.integers(1, 13), min_size=1, max_size=12), capacity=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_ring_holds_the_newest(sizes, capacity):
    memory, seen = Memory(capacity, keep=Ring()), 0
    for size in sizes:
        offer(memory, list(range(seen, seen + size)), [0] * size, size)
        seen += size
        assert sorted(kept(memory)) == list(range(max(0, seen - capacity), seen))


def test_balanced_fills_equally_whatever_the_stream():
    """1,000 rows of class 0, then 100 of class 1, then 20 of class 2: a reservoir keeps them in proportion, this one equal."""
    labels = [0] * 1000 + [1] * 100 + [2] * 20
    counts = {}
    for keep in (Reservoir(), Balanced()):
        memory = Memory(30, keep=keep)
        offer(memory, list(range(len(labels))), labels, 10)
        counts[keep.name] = memory.per_class
    assert counts["balanced"] == {0: 10, 1: 10, 2: 10}
    assert counts["reservoir"][0] > 20


def test_balanced_keeps_all_of_a_rare_class():
    labels = [0] * 200 + [1] * 3 + [0] * 200
    memory = Memory(20, keep=Balanced())
    offer(memory, list(range(403)), labels, 8)
    assert memory.per_class == {0: 17, 1: 3}
    assert {200, 201, 202} <= set(kept(memory))


def test_balanced_is_uniform_inside_a_class():
    """Class 1 comes late, in 24 rows, and grows to its half of 8 places: each row stays equally often, 1 in 6."""
    repeats, counts = 800, numpy.zeros(24)
    for seed in range(repeats):
        memory = Memory(8, keep=Balanced(), seed=seed)
        offer(memory, list(range(64)), [0] * 40 + [1] * 24, 5)
        assert memory.per_class == {0: 4, 1: 4}
        mine = [number - 40 for number in kept(memory) if number >= 40]
        counts[mine] += 1
    assert uniformity(counts, repeats, 24, 4) < chi2.ppf(0.999, 23)


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=120), capacity=st.integers(1, 12), size=st.integers(1, 20))
@settings(max_examples=80, deadline=None)
def test_balanced_invariants(labels, capacity, size):
    """Lists of slots agree with the labels held; a class below the largest by more than one has lost no row."""
    memory = Memory(capacity, keep=Balanced())
    offer(memory, list(range(len(labels))), labels, size)
    held = memory.rows()["y"].tolist()
    slots = {slot: label for label, own in memory.keeper.members.items() for slot in own}
    assert slots == dict(enumerate(held))
    assert len(held) == min(capacity, len(labels))
    classes = set(labels)
    if len(classes) <= capacity:
        most = max(memory.per_class.values())
        for label in classes:
            mine = memory.per_class.get(label, 0)
            assert mine >= min(labels.count(label), most - 1)


def test_balanced_with_fewer_places_than_classes():
    """The newest class always has a row; no class has two."""
    memory = Memory(3, keep=Balanced())
    for label in itertools.chain(range(8), range(8)):
        offer(memory, [label], [label])
        assert label in memory.per_class
        assert set(memory.per_class.values()) == {1}
    assert memory.stored == 3


def herd_slowly(features, mean, count):
    """iCaRL, algorithm 4, as it is printed."""
    chosen = []
    for k in range(1, count + 1):
        rest = [index for index in range(len(features)) if index not in chosen]
        so_far = sum((features[index] for index in chosen), numpy.zeros_like(mean))
        chosen.append(min(rest, key=lambda index: numpy.linalg.norm(mean - (features[index] + so_far) / k)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_published_algorithm(seed):
    features = numpy.random.default_rng(seed).normal(size=(25, 4))
    assert herd(features, features.mean(0), 10) == herd_slowly(features, features.mean(0), 10)


def test_herding_by_hand():
    """Mean of 0, 1, 2, 9 is 3: nearest 2; then (2 + x) / 2 nearest to 3 is x = 1 (1.5) or 9 (5.5): 1; then (3 + 9) / 3 = 4
    against (3 + 0) / 3 = 1: 9."""
    features = numpy.array([[0.0], [1.0], [2.0], [9.0]])
    assert herd(features, numpy.array([3.0]), 3) == [2, 1, 3]
    assert herd(features, numpy.array([3.0]), 9) == [2, 1, 3, 0]


def test_herding_of_whole_classes_and_their_reduction():
    """Each class comes at once, as in iCaRL: the quota shrinks, and what stays is the beginning of the published order."""
    random = numpy.random.default_rng(0)
    whole = {label: random.normal(size=(20, 3)).astype(numpy.float32) for label in range(4)}
    memory = Memory(24, keep=Herding())
    for label, rows in whole.items():
        memory.insert(x=torch.from_numpy(rows), y=torch.full((20,), label))
        quota = 24 // (label + 1)
        assert memory.per_class == dict.fromkeys(range(label + 1), min(20, quota))
        held = memory.rows()
        for past in range(label + 1):
            features = whole[past].astype(numpy.float64)
            wanted = whole[past][herd_slowly(features, features.mean(0), min(20, quota))]
            mine = held["x"][held["y"] == past].numpy()
            assert sorted(map(tuple, mine)) == sorted(map(tuple, wanted))


def test_herding_uses_the_feature_where_it_is_given():
    """x says row 0 is the mean, the feature says row 3 is."""
    x = torch.tensor([[0.0], [5.0], [-5.0], [9.0], [-9.0]])
    feature = torch.tensor([[9.0], [5.0], [-5.0], [0.0], [-9.0]])
    y = torch.zeros(5, dtype=torch.int64)
    plain, given_feature = Memory(1, keep=Herding()), Memory(1, keep=Herding())
    plain.insert(x=x, y=y)
    given_feature.insert(x=x, y=y, feature=feature)
    assert float(plain.rows()["x"]) == 0.0
    assert float(given_feature.rows()["x"]) == 9.0


def test_herding_in_pieces_comes_nearer_to_the_mean_than_a_reservoir():
    """Mean distance over 20 seeds between the mean of the rows kept and that of all rows."""
    distance = {}
    for keep in (Herding(), Reservoir()):
        values = []
        for seed in range(20):
            rows = torch.randn(200, 5, generator=torch.Generator().manual_seed(seed))
            memory = Memory(10, keep=keep, seed=seed)
            for part in rows.split(20):
                memory.insert(x=part, y=torch.zeros(20, dtype=torch.int64))
            values.append(float((memory.rows()["x"].mean(0) - rows.mean(0)).norm()))
        distance[keep.name] = sum(values) / len(values)
    assert distance["herding"] < 0.5 * distance["reservoir"]


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=80), capacity=st.integers(1, 15), size=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_herding_invariants(labels, capacity, size):
    """The quota is kept for every class, slots agree with labels, no row is held twice."""
    memory = Memory(capacity, keep=Herding())
    offer(memory, [number * number % 101 + number / 1000 for number in range(len(labels))], labels, size)
    held = memory.rows()["y"].tolist()
    slots = {slot: label for label, own in memory.keeper.members.items() for slot in own}
    assert slots == dict(enumerate(held))
    quota = max(1, capacity // len(set(labels)))
    assert all(count <= quota for count in memory.per_class.values())
    assert memory.stored <= capacity
    rows = memory.rows()["x"][:, 0].tolist()
    assert len(set(rows)) == len(rows)


def test_herding_with_fewer_places_than_classes():
    """The classes that came first hold one row each."""
    memory = Memory(3, keep=Herding())
    offer(memory, list(range(16)), [*range(8), *range(8)], 2)
    assert memory.per_class == {0: 1, 1: 1, 2: 1}


def test_herding_of_a_dict_asks_for_a_feature():
    memory = Memory(3, keep=Herding())
    with pytest.raises(InputError, match="insert a field `feature`"):
        memory.insert(x={"ids": torch.zeros(2, 3)}, y=torch.tensor([0, 1]))
    memory.insert(x={"ids": torch.zeros(2, 3)}, y=torch.tensor([0, 1]), feature=torch.zeros(2, 4))
    assert memory.stored == 2


def test_rules_are_values_named_by_their_call():
    assert {name: repr(rule()) for name, rule in RULES.items()} == {name: f"{name}()" for name in RULES}
    assert Reservoir() == Reservoir() and Reservoir() != Ring()
