"""Frequency replay: what is counted, chosen and mixed in, its limits, and what each option changes."""

import pytest
import torch

from everlearn.core.budget import Budget
from everlearn.core.check import check_learner
from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch, Boundary
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.frequency_replay import FrequencyReplay
from everlearn.nn.criteria import Masked

RARE = 2


def tasks(count=60, rows=12, told=True, every=15):
    """Tasks of class 0 and 1, now and then of the rare class 2 and class 0; two batches each."""
    random = torch.Generator().manual_seed(3)
    events = []
    for task in range(count):
        classes = (0, RARE) if task % every == 3 else (0, 1)
        y = torch.tensor(classes).repeat(rows // 2)
        x = torch.randn(rows, 5, generator=random) + y[:, None]
        data = Batch(x, y)
        events.append(Boundary(task, classes, data if told else None))
        events += [Batch(x[: rows // 2], y[: rows // 2]), Batch(x[rows // 2 :], y[rows // 2 :])]
    return events


def test_the_rare_class_is_replayed_once_it_has_come_three_times(network, fold):
    learner = FrequencyReplay(network(), per_class=6, loss=Masked())
    events = tasks()
    third = next(place for place, event in enumerate(events) if isinstance(event, Boundary) and event.task == 34)
    fold(learner, events[:third])
    assert learner.memory.replayed == 0 and learner.frequencies.occurrences[RARE] == 2  # task 33 is not over yet
    fold(learner, events[third : third + 3])  # task 34: 3 of 34 tasks is 0.088
    assert learner.queue and set(learner.memory.rows()["y"][learner.queue].tolist()) == {RARE}
    assert learner.memory.replayed == 6 and learner.learned == [0, 1, RARE]
    fold(learner, events[third + 3 : third + 4])
    assert learner.frequencies.counts[RARE] == 4.0  # the replay counted


def test_frequency_rises_until_the_band_is_left(network, fold):
    learner = fold(FrequencyReplay(network(), per_class=6), tasks(120))
    share = learner.frequencies.counts[RARE] / learner.frequencies.tasks
    assert 0.09 < share < 0.12  # replay goes on while the frequency is at most 0.1
    wider = fold(FrequencyReplay(network(), per_class=6, high=0.3), tasks(120))
    assert wider.memory.replayed > learner.memory.replayed
    none = fold(FrequencyReplay(network(), per_class=6, high=0.05), tasks(120))
    late = fold(FrequencyReplay(network(), per_class=6, min_occurrences=9), tasks(120))
    assert none.memory.replayed == late.memory.replayed == 0


def test_replay_costs_no_more_than_twice_the_rows(network, fold):
    learner = fold(FrequencyReplay(network(), per_class=6, high=1.0), tasks(120))
    rows = 120 * 12
    assert 0.25 * rows < learner.memory.replayed <= rows


def test_without_a_memory_it_is_fine_tuning_to_the_bit(network, fold, weights):
    for loss in ({}, {"loss": Masked()}):
        learner, plain = FrequencyReplay(network(), **loss), FineTune(network(), **loss)
        Budget(replay=0).limit(learner)
        assert torch.equal(weights(fold(learner, tasks())), weights(fold(plain, tasks())))
        assert not torch.equal(weights(fold(FrequencyReplay(network(), **loss), tasks())), weights(plain))


def test_a_step_with_replay_is_the_step_on_the_mixed_rows(network, fold):
    """Every mixed row is learned from once, in steps no larger than the batch."""
    learner = FrequencyReplay(network(), per_class=6, high=1.0)
    fold(learner, tasks(50))
    seen = []
    learner.descent.model.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    learner.boundary(Boundary(50, (0, 1), Batch(torch.zeros(12, 5), torch.tensor([0, 1]).repeat(6))))
    queue = learner.memory.rows()["x"][learner.queue].clone()
    batch = Batch(torch.full((12, 5), 7.0), torch.tensor([0, 1]).repeat(6))
    learner.update(batch)
    mixed = torch.cat(seen)
    assert max(map(len, seen)) <= 12 and len(mixed) == 12 + len(queue)
    assert torch.equal(mixed[(mixed != 7).all(1)].sort(0).values, queue.sort(0).values)


def test_where_the_rows_of_a_task_are_not_told_batches_draw_as_many(network, fold):
    learner = FrequencyReplay(network(), per_class=6, high=1.0)
    fold(learner, tasks(50, told=False))
    before = learner.memory.replayed
    fold(learner, [Boundary(50, (0, 1)), Batch(torch.zeros(2, 5), torch.tensor([0, 1]))])
    assert learner.memory.replayed == before + 2


def test_where_classes_are_not_told_nothing_is_replayed_and_rows_tell_them_too(network, fold):
    learner = fold(FrequencyReplay(network(), per_class=6, high=1.0), tasks(50))
    learner.boundary(Boundary(50))
    assert learner.queue == []
    learner.boundary(Boundary(51, (), Batch(torch.zeros(4, 5), torch.tensor([0, 1, 0, 1]))))
    assert learner.queue


def test_accuracy_makes_badly_learned_classes_look_rarer(network, fold):
    counted = fold(FrequencyReplay(network(), per_class=6), tasks())
    judged = fold(FrequencyReplay(network(), per_class=6, weight="accuracy", validation=0.34), tasks())
    assert judged.frequencies.counts[0] < counted.frequencies.counts[0]
    assert judged.frequencies.occurrences[0] == counted.frequencies.occurrences[0]
    rows = len([event for event in tasks() if isinstance(event, Batch)])
    assert counted.memory.seen == 6 * rows and judged.memory.seen == 4 * rows  # two of six rows are set aside
    assert judged.aside.seen == 2 * rows and counted.aside is None


def test_a_task_counts_by_the_accuracy_at_its_end_of_rows_never_learned_from(network):
    """The slow twin: what each class's last rows of every batch, and those set aside of the replayed class, are answered."""
    learner = FrequencyReplay(network(), per_class=30, weight="accuracy", validation=0.34, high=1.0)
    expected, aside, learned = {}, [], []
    learner.descent.model.register_forward_pre_hook(
        lambda module, given: learned.extend(map(tuple, given[0].tolist())) if module.training else None
    )
    replayed = 0
    for event in tasks(60):
        if isinstance(event, Batch):
            learner.update(event)
            aside += list(zip(event.x[-2:], event.y[-2:].tolist(), strict=True))
            continue
        held = learner.memory.rows()
        replayed += len(learner.judged)
        aside += [(held["x"][slot], int(held["y"][slot])) for slot in learner.judged]
        assert not {tuple(x.tolist()) for x, _ in aside} & set(learned)
        for label in learner.learned:
            rows = torch.stack([x for x, y in aside if y == label]) if label in [y for _, y in aside] else None
            share = 1.0 if rows is None else (learner.predict(rows).argmax(1) == label).float().mean().item()
            expected[label] = expected.get(label, 0.0) + share
        learner.boundary(event)
        aside, learned = [], []
        assert learner.frequencies.counts == pytest.approx(expected)
    assert replayed > 20 and expected[RARE] < learner.frequencies.occurrences[RARE]


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_fixed_part_is_set_aside_however_small_the_batches(network, size):
    learner = FrequencyReplay(network(), weight="accuracy")
    learner.boundary(Boundary(0, (0, 1)))
    for _ in range(60 // size):
        learner.update(Batch(torch.zeros(size, 5), torch.zeros(size, dtype=torch.int64)))
    assert learner.aside.seen == 6 and learner.memory.seen == 54


def test_each_pass_learns_from_the_rows_to_replay(network, fold):
    learner = FrequencyReplay(network(), per_class=6, high=1.0, passes=3)
    fold(learner, tasks(50))
    learner.boundary(Boundary(50, (0, 1), Batch(torch.zeros(12, 5), torch.tensor([0, 1]).repeat(6))))
    before, queue = learner.memory.replayed, len(learner.queue)
    learner.update(Batch(torch.zeros(12, 5), torch.tensor([0, 1]).repeat(6)))
    assert queue and learner.memory.replayed == before + 3 * queue


def test_the_random_baseline_chooses_by_its_budget(network, fold):
    none, some, all_ = (
        fold(FrequencyReplay(network(), per_class=6, select="random", replay_budget=share), tasks(120)).memory.replayed
        for share in (0.0, 0.3, 1.0)
    )
    assert none == 0 and 0.15 * all_ < some < 0.45 * all_


def test_snapshots_go_on_to_the_same_bits(network, continues):
    for options in ({}, {"weight": "accuracy", "validation": 0.34}, {"select": "random", "replay_budget": 0.5}):
        assert continues(lambda options=options: FrequencyReplay(network(), per_class=6, **options), tasks())


def test_what_makes_no_sense_is_refused(network):
    assert FrequencyReplay(network()).needs_boundaries
    for wrong in (
        {"per_class": 0},
        {"low": 0.2, "high": 0.1},
        {"weight": "counts"},
        {"select": "some"},
        {"min_occurrences": 0},
        {"validation": 1.5},
        {"weight": "accuracy", "validation": 0.0},
        {"weight": "accuracy", "validation": 1.0},
        {"replay_budget": -0.1},
    ):
        with pytest.raises(ArgumentError):
            FrequencyReplay(network(), **wrong)


def test_with_accuracy_it_keeps_the_contract_too(network):
    def make(seed):
        return FrequencyReplay(network(seed, inputs=8), per_class=4, weight="accuracy", validation=0.3, seed=seed)

    assert len(check_learner(make, classes=3)) == 12
