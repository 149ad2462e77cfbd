"""Sparse sub-networks: nothing old changes by a bit, only free weights move, and every switch changes the outcome."""

import pytest
import torch
from torch import nn

from everlearn import Batch, Boundary, FineTune, Sparse, run
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import isolated
from everlearn.core.state import same
from everlearn.data.load import load
from everlearn.data.split import tasks
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.optim.optimizers import SGD, Adam

from .lessons import PROBE, SHORT, TEN, network, rows, taught, teach


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"growth": "momentum"},
        {"growth": "auto", "init": "auto"},
        {"growth": "gradient", "removal": "taylor"},
        {"optimizer": Adam(weight_decay=0.5)},
        {"optimizer": SGD(lr=0.05, momentum=0.9, weight_decay=0.1), "growth": "unfired"},
        {"regrown": "zero", "free_weights": "zero"},
        {"head": "shared"},
        {"share": False, "density": 0.08},
        {"method": "packnet", "density": 0.08},
        {"method": "wsn"},
    ],
    ids=str,
)
def test_ten_tasks_leave_every_old_score_as_it_was_to_the_bit(switches):
    learner = Sparse(network(), **{**SHORT, **switches})
    seen = []
    for task in range(10):
        learner.boundary(Boundary(task, TEN[task]))  # closes the task before
        if task:
            seen.append(learner.predict_in(PROBE, task - 1))
        for step in range(6):
            learner.update(rows(task, step))
        for earlier, scores in enumerate(seen):
            assert torch.equal(learner.predict_in(PROBE, earlier), scores), (task, earlier)
    assert all(set(scores.argmax(1).tolist()) <= set(TEN[task]) for task, scores in enumerate(seen))
    assert len({tuple(learner.mask_of(task).tolist()) for task in range(10)}) == 10


def test_what_was_learned_answers_the_same_before_and_after_the_task_ends():
    learner = taught(Sparse(network(), **SHORT), 3)
    before = learner.predict_in(PROBE, 2)
    learner.boundary(Boundary(3, TEN[3]))
    assert torch.equal(learner.predict_in(PROBE, 2), before)


@pytest.mark.parametrize("switches", [{"normalisation": "shared"}, {"isolate": False}])
def test_without_isolation_or_with_shared_statistics_old_scores_change(switches):
    learner = taught(Sparse(network(), **SHORT, **switches), 1)
    learner.boundary(Boundary(1, TEN[1]))
    before, mask = learner.predict_in(PROBE, 0), learner.mask_of(0)
    teach(learner, 1)
    assert torch.equal(learner.mask_of(0), mask)
    assert not torch.equal(learner.predict_in(PROBE, 0), before)


def test_without_masks_it_is_fine_tuning_to_the_bit():
    for optimizer in (SGD(lr=0.1), SGD(lr=0.1, momentum=0.9, weight_decay=0.01), Adam(weight_decay=0.1)):
        sparse = Sparse(network(), density=1.0, isolate=False, growth="none", optimizer=optimizer)
        plain = FineTune(network(), optimizer=optimizer)
        sparse.boundary(Boundary(0))
        for step in range(10):
            given = Batch(rows(0, step).x, torch.arange(16) % 20)
            assert torch.equal(sparse.update(given)["loss"], plain.update(given)["loss"])
        assert torch.equal(sparse.predict(PROBE), plain.predict(PROBE))


def test_a_full_network_cannot_change_any_masked_weight():
    learner = taught(Sparse(network(), density=1.0, growth="none"), 1)
    learner.boundary(Boundary(1, TEN[1]))
    weights = {name: learner.weights_of(0)[name].clone() for name in learner.layers}
    head = learner.model[-1].weight.detach().clone()
    teach(learner, 1)
    assert all(torch.equal(learner.weights_of(1)[name], before) for name, before in weights.items())
    assert not torch.equal(learner.model[-1].weight[list(TEN[1])], head[list(TEN[1])])  # its own rows still learn


def test_gradients_never_grow_into_held_weights_and_random_draws_do():
    def reused(growth):
        learner = taught(Sparse(network(), density=0.3, init="uniform", growth=growth, **SHORT), 1)
        held = learner.mask_of(0)
        learner.boundary(Boundary(1, TEN[1]))
        drawn = learner.mask_of(1)
        for step in range(12):
            learner.update(rows(1, step))
        return int((learner.mask_of(1) & ~drawn & held).sum())

    assert reused("gradient") == reused("momentum") == 0
    assert reused("random") > 0 and reused("unfired") > 0


@pytest.mark.parametrize("growth", ["random", "unfired", "gradient", "momentum", "auto"])
def test_every_layer_keeps_its_number_of_active_weights(growth):
    learner = Sparse(network(), growth=growth, **SHORT)
    for task in range(3):
        learner.boundary(Boundary(task, TEN[task]))
        drawn = learner.mask_of(task)
        for step in range(12):
            learner.update(rows(task, step))
        mask = learner.mask_of(task)
        assert not torch.equal(mask, drawn)
        for place in learner.layers.values():
            assert int(mask[place].sum()) == int(drawn[place].sum())


def test_weights_outside_the_mask_are_zero_after_every_step():
    learner = Sparse(network(), growth="momentum", **SHORT)
    for task in range(2):
        learner.boundary(Boundary(task, TEN[task]))
        for step in range(5):
            learner.update(rows(task, step))
            row = torch.cat([learner.model.get_parameter(name).detach().flatten() for name in learner.layers])
            assert not row[~learner.mask_of(task)].any()


def test_what_has_been_active_in_a_task_is_remembered():
    learner = Sparse(network(), growth="unfired", **SHORT)
    learner.boundary(Boundary(0, TEN[0]))
    union = learner.mask_of(0)
    for step in range(12):
        learner.update(rows(0, step))
        union = union | learner.mask_of(0)
        assert torch.equal(learner.fired, union)
    assert int(union.sum()) > int(learner.mask_of(0).sum())
    learner.boundary(Boundary(1, TEN[1]))
    assert torch.equal(learner.fired, learner.mask_of(1))


def test_classes_are_told_in_any_order():
    learner = Sparse(network())
    learner.boundary(Boundary(4, (9, 3, 9, 5)))
    learner.update(Batch(PROBE, torch.tensor([9, 3, 5, 3]).repeat(4)))
    assert learner.classes_of(4) == (3, 5, 9)
    assert set(learner.predict_in(PROBE, 4).argmax(1).tolist()) <= {3, 5, 9}


def test_a_static_mask_stays():
    learner = Sparse(network(), growth="none", **SHORT)
    learner.boundary(Boundary(0, TEN[0]))
    drawn = learner.mask_of(0)
    teach(learner, 1)
    assert torch.equal(learner.mask_of(0), drawn)


def test_free_weights_begin_afresh_or_at_zero():
    initial = network()[0].weight.detach().flatten()
    for free, expected in (("fresh", initial), ("zero", torch.zeros(256))):
        learner = taught(Sparse(network(), density=0.3, growth="none", free_weights=free), 1)
        held = learner.mask_of(0)[:256]
        learner.boundary(Boundary(1, TEN[1]))
        new = learner.mask_of(1)[:256] & ~held
        begun = learner.model[0].weight.detach().flatten()
        assert new.any() and torch.equal(begun[new], expected[new])


def test_a_regrown_weight_is_there_at_once_or_only_when_asked():
    for regrown in ("restore", "zero"):
        learner = taught(Sparse(network(), density=0.3, init="uniform", regrown=regrown, **SHORT), 1)
        learner.boundary(Boundary(1, TEN[1]))
        held, drawn, stored = learner.mask_of(0), learner.mask_of(1), learner.stored.clone()
        for step in range(12):
            learner.update(rows(1, step))
        back = learner.mask_of(1) & held & ~drawn
        trained = torch.cat([learner.model.get_parameter(name).detach().flatten() for name in learner.layers])
        asked = torch.cat([learner.weights_of(1)[name].flatten() for name in learner.layers])
        assert back.any() and torch.equal(asked[back], stored[back])
        assert torch.equal(trained[back], stored[back] if regrown == "restore" else torch.zeros(int(back.sum())))


def test_packnet_keeps_the_largest_of_the_free_weights_halfway():
    learner = Sparse(network(), method="packnet", density=0.1, task_steps=12)
    learner.boundary(Boundary(0, TEN[0]))
    for step in range(5):
        learner.update(rows(0, step))
    assert learner.mask_of(0).all()
    learner.update(rows(0, 5))
    mask = learner.mask_of(0)
    assert [int(mask[place].sum()) for place in learner.layers.values()] == [26, 77]  # a tenth of 256 and of 768
    for step in range(6, 12):
        learner.update(rows(0, step))
    assert torch.equal(learner.mask_of(0), mask)
    learner.boundary(Boundary(1, TEN[1]))
    assert learner.mask_of(1).all()
    for step in range(6):
        learner.update(rows(1, step))
    later = learner.mask_of(1)
    assert (later | ~mask).all()  # all that was learned is read
    assert int(later.sum()) == 2 * int(mask.sum())


def test_winning_subnetworks_move_with_every_step_and_read_what_is_frozen():
    learner = taught(Sparse(network(), method="wsn", density=0.3, init="uniform", optimizer=Adam(lr=0.01)), 1)
    held = learner.mask_of(0)
    learner.boundary(Boundary(1, TEN[1]))
    drawn, stored = learner.mask_of(1), learner.stored.clone()
    for step in range(12):
        learner.update(rows(1, step))
    mask = learner.mask_of(1)
    assert [int(mask[place].sum()) for place in learner.layers.values()] == [77, 230]  # three tenths of 256 and of 768
    assert (mask & ~drawn).any() and (mask & held).any()
    row = torch.cat([learner.weights_of(1)[name].flatten() for name in learner.layers])
    assert torch.equal(row[mask & held], stored[mask & held]) and not row[~mask].any()
    assert not torch.equal(row[mask & ~held], stored[mask & ~held])


def test_the_rate_falls_tenfold_at_its_shares_of_a_task():
    def moved(decay):
        learner = Sparse(network(), growth="none", task_steps=4, decay=decay, optimizer=SGD(lr=0.1))
        learner.boundary(Boundary(0, TEN[0]))
        found = []
        for step in range(4):
            learner.update(rows(0, step))
            found.append(learner.descent.factor)
        return found

    assert moved((0.5, 0.75)) == pytest.approx([1.0, 1.0, 0.1, 0.01])
    assert moved(()) == [1.0] * 4


def test_automatic_choices_are_told():
    learner = Sparse(network(), init="auto", growth="auto", density=0.3, floor=0.4, **SHORT)
    taught(learner, 5)
    chosen = [entry["init"] for entry in learner.chosen]
    assert chosen[0] == "erk" and chosen[-1] == "uniform"
    growth = [entry["3.weight"] for entry in learner.chosen]
    assert growth[0] == "momentum" and growth[-1] == "random"


BASE = {"density": 0.3, "growth": "random", "init": "erk"}
SWITCHES = {
    "density": 0.4,
    "init": "uniform",
    "growth": "momentum",
    "removal": "sign",
    "rate": (0.3, 0.005),
    "schedule": "linear",
    "update_every": 3,
    "task_steps": 9,
    "isolate": False,
    "share": False,
    "exact": False,
    "free_weights": "zero",
    "regrown": "zero",
    "normalisation": "shared",
    "head": "shared",
    "answers": "all",
    "infer_task": "max_output",
    "method": "packnet",
    "decay": (0.5, 0.75),
    "keep": "best_train",
    "seed": 1,
    "optimizer": Adam(lr=0.01),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_the_outcome(switch):
    def scores(**switches):
        learner = taught(Sparse(network(), **{**BASE, **SHORT, **switches}), 3)
        learner.boundary(Boundary(3, TEN[3], rows(3)))
        try:
            inferred = learner.predict(PROBE)
        except InputError:
            inferred = torch.zeros(0)
        return torch.cat([inferred.flatten(), *(learner.predict_in(PROBE, task).flatten() for task in range(3))])

    plain, switched = scores(), scores(**{switch: SWITCHES[switch]})
    assert plain.shape != switched.shape or not torch.equal(plain, switched)


def test_a_task_announced_again_goes_on_in_its_own_weights():
    learner = taught(Sparse(network(), **SHORT), 2)
    learner.boundary(Boundary(0, TEN[0]))
    first, mask = learner.predict_in(PROBE, 0), learner.mask_of(0)
    other = learner.predict_in(PROBE, 1)
    for step in range(20, 24):
        learner.update(rows(0, step))
    assert torch.equal(learner.mask_of(0), mask) and torch.equal(learner.predict_in(PROBE, 1), other)
    learned = learner.predict_in(PROBE, 0)
    assert not torch.equal(learned, first)
    learner.boundary(Boundary(2, TEN[2]))
    assert torch.equal(learner.predict_in(PROBE, 0), learned) and torch.equal(learner.predict_in(PROBE, 1), other)
    assert learner.tasks == (0, 1, 2) and len(learner.masks) == 2


def test_a_batch_of_another_task_announces_it():
    learner = Sparse(network())
    learner.update(rows(3))
    learner.update(rows(5))
    assert learner.tasks == (3, 5) and learner.classes_of(5) == tuple(range(20))


def test_a_killed_task_goes_on_to_the_same_bits():
    whole = taught(Sparse(network(), growth="momentum", **SHORT), 2)
    half = taught(Sparse(network(), growth="momentum", **SHORT), 1)
    half.boundary(Boundary(1, TEN[1]))
    for step in range(7):
        half.update(rows(1, step))
    resumed = Sparse(network(seed=5), growth="momentum", **SHORT)
    resumed.load_state_dict(half.state_dict())
    for step in range(7, 12):
        resumed.update(rows(1, step))
    assert same(resumed.state_dict(), whole.state_dict())


def test_the_task_is_found_by_the_largest_output():
    learner = taught(Sparse(network(), infer_task="max_output", growth="none", optimizer=Adam(lr=0.02)), 3)
    found = set()
    for seed in range(20):
        probe = rows(seed % 3, seed + 50, count=2).x
        answers = [learner.predict_in(probe, task) for task in range(3)]
        highest = max(range(3), key=lambda task: answers[task].max(1).values.mean().item())
        assert torch.equal(learner.predict(probe), answers[highest])
        found.add(highest)
    assert len(found) > 1


def test_it_learns_tasks_of_digits_and_forgets_nothing():
    stream = tasks(load("digits"), experiences=5, batch=10, epochs=3)
    with isolated(0, "network"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    found = run(Sparse(model, density=0.2, optimizer=Adam(lr=0.003)), stream, monitors=[AccuracyMatrix()]).figures["matrix"]
    assert found["average_accuracy"] > 0.93 and found["backward_transfer"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"density": 1.5}, r"density must be in \(0, 1\]"),
        ({"density": 0.001}, r"layer '0.weight' would have less than one active weight"),
        ({"init": "best"}, "init must be one of 'erk', 'uniform', 'auto', got 'best'"),
        ({"growth": "best"}, "growth must be one of"),
        ({"removal": "best"}, "removal must be one of"),
        ({"schedule": "best"}, "schedule must be one of"),
        ({"rate": (0.5, 2.0)}, "rate must be"),
        ({"rate": 0.5}, r"rate must be \(first, last\)"),
        ({"update_every": 0}, "update_every must be"),
        ({"decay": 0.5}, "decay must be shares of a task"),
        ({"decay": (0.5, 1.5)}, "decay must be"),
        ({"keep": "first"}, "keep must be one of 'last', 'best_train'"),
        ({"head": "none"}, "head must be one of 'own', 'shared', got 'none'"),
        ({"infer_task": "best"}, "infer_task must be one of None, 'max_output'"),
        ({"growth": "momentum", "optimizer": SGD()}, "this optimiser keeps none"),
        ({"growth": "auto", "optimizer": SGD()}, "this optimiser keeps none"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Sparse(network(), init=arguments.pop("init", "uniform"), **arguments)


def test_questions_without_a_task_and_unknown_tasks_are_refused():
    learner = taught(Sparse(network()), 2, steps=1)
    with pytest.raises(InputError, match="2 tasks are known, and it was not told which"):
        learner.predict(PROBE)
    with pytest.raises(InputError, match="task 7 was never announced; known: 0, 1"):
        learner.predict_in(PROBE, 7)
    with pytest.raises(InputError, match="label 9 is not among the classes of task 1"):
        learner.update(Batch(PROBE, torch.full((16,), 9)))
    with pytest.raises(InputError, match="names class 40; the network has classes"):
        learner.boundary(Boundary(3, (40,)))
    assert learner.tasks == (0, 1)
