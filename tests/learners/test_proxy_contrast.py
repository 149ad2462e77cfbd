"""The step of PCR and HPCR against a slow twin, its switches one by one, and its limits."""

import math

import pytest
import torch
from torch import nn

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator, isolated
from everlearn.core.state import same
from everlearn.data.memory import Memory
from everlearn.data.views import Views
from everlearn.learners.hpcr import HPCR
from everlearn.learners.pcr import PCR
from everlearn.optim.optimizers import SGD

CLASSES, D, T = 4, 6, 0.09
OFF = {"contrast": "proxy", "gradient_temperature": (0.09, 0.09), "pcd": 0.0, "scd": 0.0}


def network(seed=0, norm=True):
    """A small convolutional network with batch norm, for images of 1x8x8."""
    with isolated(seed, "network"):
        layers = [
            nn.Conv2d(1, D, 3),
            *([nn.BatchNorm2d(D)] if norm else []),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        return nn.Sequential(*layers, nn.Linear(D, CLASSES))


def tasks(batches=4, rows=5, seed=0):
    """Two announced tasks of two classes each."""
    random = generator(seed, "rows")
    events = []
    for task in range(2):
        events.append(Boundary(task, classes=(2 * task, 2 * task + 1)))
        for _ in range(batches):
            y = torch.randint(2, (rows,), generator=random) + 2 * task
            events.append(Batch(torch.rand(rows, 1, 8, 8, generator=random) + y[:, None, None, None] / 4, y))
    return events


def fold(learner, events):
    for event in events:
        learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
    return learner


def weights(learner):
    model = learner.contrast_step.descent.model
    return torch.cat([value.flatten() for value in model.state_dict().values() if value.is_floating_point()]).clone()


def unit(vectors):
    return vectors / (vectors.norm(dim=1, keepdim=True) + 1e-6)


def slow_twin(model, events, capacity, draw, lr, period, low, high, pcd, scd, pairs):
    """The published step, pair by pair: two forward passes, plain gradient descent, rows and their answers in a memory."""
    body, head = model[:-1], nn.Parameter(model[-1].weight.detach().clone())
    memory, random = Memory(capacity, seed=0), generator(0, "views")
    views = Views()
    task, index = -1, 0
    parameters = [*body.parameters(), head]
    model.train()
    for event in events:
        if isinstance(event, Boundary):
            task, index = task + 1, 0
            continue
        x, y, count = event.x, event.y, len(event)
        drawn = memory.draw(draw)
        both = views(x if drawn is None else torch.cat([x, drawn["x"]]), random)
        z = body(torch.cat([x, both[:count]]))
        s = unit(z) @ unit(head).T
        kept = (s[:count] / T).detach(), z[:count].detach()
        if drawn is not None:
            z_old = body(torch.cat([drawn["x"], both[count:]]))
            s_old = unit(z_old) @ unit(head).T
            labels = torch.cat([drawn["y"], drawn["y"], y, y])
            scores, rows = torch.cat([s_old, s]), unit(torch.cat([z_old, z]))
            losses = []
            for i in range(len(labels)):
                terms = [scores[i, labels[j]] / T for j in range(len(labels))]
                own = [labels[j] == labels[i] for j in range(len(labels))]
                if pairs:
                    terms += [rows[i] @ rows[j] / T for j in range(len(labels)) if j != i]
                    own += [labels[j] == labels[i] for j in range(len(labels)) if j != i]
                logs = torch.stack(terms).log_softmax(0)
                losses.append(-logs[torch.tensor(own)].mean())
            lam_low, lam_high = T / high, T / low
            factor = (lam_high - lam_low) * 0.5 * (1 - math.cos(2 * math.pi * index / period)) + lam_low
            loss = factor * torch.stack(losses).mean()
            if task > 0:
                old, z_was = drawn["logits"].repeat(2, 1), unit(drawn["features"].repeat(2, 1))
                chosen = torch.stack([(s_old[:, k] / T - old[:, k]) ** 2 for k in labels])
                loss = loss + pcd * chosen.mean()
                f = unit(z_old)
                relation = 0.0
                for i in range(len(f)):
                    others = [j for j in range(len(f)) if j != i]
                    was = (z_was[others] @ z_was[i] / T).softmax(0)
                    relation = relation - (was * (f[others] @ f[i] / T).log_softmax(0)).sum() / len(f)
                loss = loss + scd * relation
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= lr * gradient
        memory.insert(x=x, y=y, logits=kept[0], features=kept[1])
        index += 1
    return torch.cat([head.detach().flatten(), *[value.detach().flatten() for value in body.parameters()]]), memory


@pytest.mark.parametrize("pairs", [False, True])
def test_the_step_is_that_of_the_slow_twin(pairs):
    events = tasks()
    learner = HPCR(
        network(),
        capacity=8,
        replay_batch=6,
        contrast="proxy+sample" if pairs else "auto",
        period=7,
        optimizer=SGD(lr=0.02),
    )
    fold(learner, events)
    expected, memory = slow_twin(network(), events, 8, 6, 0.02, 7, 0.05, 0.16, 0.1, 0.5, pairs)
    model = learner.contrast_step.descent.model
    found = torch.cat([model.head.weight.detach().flatten(), *[v.detach().flatten() for v in model.body.parameters()]])
    assert torch.allclose(found, expected, atol=2e-5)
    for field in ("x", "y", "logits", "features"):
        assert torch.allclose(learner.memory.rows()[field].float(), memory.rows()[field].float(), atol=1e-4)


def test_without_its_parts_hpcr_is_pcr_step_for_step():
    first, second = PCR(network(), capacity=8, replay_batch=6), HPCR(network(), capacity=8, replay_batch=6, **OFF)
    for event in tasks():
        for learner in (first, second):
            learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
        assert torch.equal(weights(first), weights(second))


SWITCHES = {
    "sample contrast": {"contrast": "proxy+sample"},
    "proxies as anchors": {"contrast": "all"},
    "temperature": {"gradient_temperature": (0.05, 0.16)},
    "static temperature": {"gradient_temperature": (0.05, 0.05)},
    "period": {"gradient_temperature": (0.05, 0.16), "period": 3},
    "score distillation": {"pcd": 0.1},
    "relation distillation": {"scd": 0.5},
    "views": {"views": Views(scale=(0.9, 0.9))},
    "merged": {"merged": True},
    "passes": {"passes": 2},
    "temperature of the softmax": {"temperature": 0.2, "gradient_temperature": (0.2, 0.2)},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_the_outcome(switch):
    plain = weights(fold(HPCR(network(), capacity=8, replay_batch=6, **OFF), tasks()))
    changed = weights(fold(HPCR(network(), capacity=8, replay_batch=6, **{**OFF, **SWITCHES[switch]}), tasks()))
    assert (plain - changed).abs().max() > 1e-4


def test_distillation_begins_with_the_second_task_and_without_tasks_when_the_memory_was_full():
    events = tasks()
    learner, plain = (HPCR(network(), capacity=8, replay_batch=6, **{**OFF, "pcd": pcd}) for pcd in (0.1, 0.0))
    for number, event in enumerate(events):
        found = [item.boundary(event) if isinstance(event, Boundary) else item.update(event) for item in (learner, plain)]
        if number <= 4:
            assert torch.equal(weights(learner), weights(plain))
        elif found[0] is not None:
            assert "pcd" in found[0] and "pcd" not in found[1]
    free = HPCR(network(), capacity=12, replay_batch=6, **{**OFF, "scd": 0.5})
    had = ["scd" in free.update(event) for event in events if isinstance(event, Batch)]
    assert had == [False, False, False, True, True, True, True, True]  # full after three batches of five


def test_a_batch_of_32_rows_contrasts_rows_with_rows():
    def after(rows, **options):
        events = tasks(batches=3, rows=rows)
        return weights(fold(HPCR(network(), capacity=40, replay_batch=8, **{**OFF, **options}), events))

    assert torch.equal(after(32, contrast="auto"), after(32, contrast="proxy+sample"))
    assert torch.equal(after(31, contrast="auto"), after(31, contrast="proxy"))
    assert torch.equal(after(31, contrast="auto", contrast_min_batch=31), after(31, contrast="proxy+sample"))


def test_the_factor_starts_anew_with_each_task():
    learner = HPCR(network(), capacity=8, replay_batch=6)
    seen = []
    for event in tasks():
        learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
        seen.append(learner.contrast_step.index)
    assert seen == [0, 1, 2, 3, 4] * 2


def test_nothing_is_learned_before_the_memory_holds_a_row():
    learner = HPCR(network(norm=False), capacity=8, replay_batch=5)
    before = weights(learner)
    found = learner.update(tasks()[1])
    assert found["loss"] == 0.0 and learner.memory.stored == 5
    assert torch.equal(before, weights(learner))
    assert learner.update(tasks()[2])["loss"] > 0.0 and not torch.equal(before, weights(learner))


@pytest.mark.parametrize("cls", [PCR, HPCR])
def test_a_budget_of_no_replay_leaves_the_weights_as_they_are(cls):
    learner = cls(network(norm=False), capacity=8, replay_batch=5)
    Budget(replay=0).limit(learner)
    before = weights(learner)
    fold(learner, tasks())
    assert torch.equal(before, weights(learner)) and learner.memory.stored == 0


def test_absent_classes_do_not_move_and_all_of_them_do_where_all_compete():
    moved = {}
    for competing in ("present", "all"):
        learner = PCR(network(), capacity=8, replay_batch=6, competing=competing)
        before = learner.contrast_step.head.weight.detach().clone()
        fold(learner, tasks()[:5])
        moved[competing] = (learner.contrast_step.head.weight - before).abs().sum(1)
    assert moved["present"][2:].max() == 0 and moved["present"][:2].min() > 0
    assert moved["all"].min() > 0


def test_classes_that_have_not_come_are_not_answered():
    events = tasks()
    masked, free = (PCR(network(), capacity=8, replay_batch=6, mask_unseen=mask) for mask in (True, False))
    assert torch.equal(masked.predict(events[1].x), free.predict(events[1].x))  # nothing has come: all may be answered
    for learner in (masked, free):
        fold(learner, events[:3])
    scores = masked.predict(events[6].x)
    assert torch.equal(scores[:, :2], free.predict(events[6].x)[:, :2]) and scores[:, 2:].max() == -1e9
    masked.boundary(events[5])
    assert torch.equal(masked.predict(events[6].x), free.predict(events[6].x))


def test_features_and_scores_stay_with_their_rows_where_a_batch_meets_the_end_of_the_memory():
    learner = HPCR(network(norm=False), capacity=7, replay_batch=4, optimizer=SGD(lr=0.0))
    fold(learner, [event for event in tasks() if isinstance(event, Batch)])
    held = learner.memory.rows()
    model = learner.contrast_step.descent.model
    with torch.no_grad():
        assert torch.allclose(held["features"], model.features(held["x"]), atol=1e-6)
        assert torch.allclose(held["logits"], model(held["x"]), atol=1e-4)


def test_the_memory_holds_no_more_than_it_says():
    learner = HPCR(network(), capacity=8, replay_batch=6)
    batch = Batch((torch.rand(20, 1, 8, 8) * 255).to(torch.uint8), torch.arange(20) % CLASSES)
    model = HPCR(nn.Sequential(_Bytes(), *network()), capacity=8, replay_batch=6)
    for item, event in ((learner, tasks()[1]), (model, batch)):
        item.update(event)
        pixel = event.x.element_size()
        assert item.memory.nbytes == 8 * (64 * pixel + 8 + 4 * CLASSES + 4 * D)


class _Bytes(nn.Module):
    def forward(self, x):
        return x.float() / 255


def test_state_goes_on_to_the_same_bits_in_the_middle_of_a_task():
    events = tasks()
    whole = fold(HPCR(network(), capacity=8, replay_batch=6), events).state_dict()
    first = fold(HPCR(network(), capacity=8, replay_batch=6), events[:8])
    second = fold(HPCR(network(), capacity=8, replay_batch=6), events[:3])
    second.load_state_dict(first.state_dict())
    assert same(whole, fold(second, events[8:]).state_dict())


def test_one_seed_seeds_views_and_memory():
    first, other = (fold(HPCR(network(), capacity=8, replay_batch=6, seed=seed), tasks()) for seed in (0, 1))
    assert not torch.equal(weights(first), weights(other))


def test_a_batch_of_one_row_is_learned_from():
    learner = HPCR(network(), capacity=8, replay_batch=1)
    for event in tasks(batches=3, rows=1):
        learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
    assert torch.isfinite(weights(learner)).all() and learner.memory.stored == 6


@pytest.mark.filterwarnings("ignore:.*second view")
def test_a_loss_that_is_not_finite_is_refused_by_its_part():
    learner = HPCR(network(norm=False), capacity=8, replay_batch=5, pcd=0.1, scd=0.0)
    events = tasks()
    fold(learner, events[:6])
    learner.memory.tensors["logits"].fill_(1e30)
    before = learner.state_dict()
    with pytest.raises(InputError, match="not finite, because of: pcd"):
        learner.update(events[6])
    assert torch.equal(
        weights(learner), torch.cat([v.flatten() for v in before["contrast_step"]["descent"]["model"].values()])
    )


def test_what_makes_no_sense_is_refused():
    wrong = [
        ({"capacity": 0}, "capacity must be an int >= 1"),
        ({"capacity": 4, "replay_batch": 5}, "cannot be drawn from a memory of capacity=4"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"contrast": "samples"}, "contrast"),
        ({"gradient_temperature": (0.16, 0.05)}, "0 < low <= high"),
        ({"gradient_temperature": 0.1}, "0 < low <= high"),
        ({"period": 0}, "period"),
        ({"pcd": -0.1}, "pcd"),
        ({"scd": -0.1}, "scd"),
        ({"views": "crop"}, "views must be"),
    ]
    for options, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            HPCR(network(), **options)
    with pytest.raises(ArgumentError, match="competing"):
        PCR(network(), competing="some")
    with pytest.raises(ArgumentError, match="last linear layer"):
        PCR(nn.ReLU())
    learner = HPCR(network(), capacity=8, replay_batch=6)
    for batch in (
        Batch(torch.rand(2, 1, 8, 8), torch.tensor([0, CLASSES])),
        Batch(torch.rand(2, 1, 8, 8), torch.tensor([0, -1])),
        Batch(torch.full((2, 1, 8, 8), torch.nan), torch.tensor([0, 1])),
        Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])),
    ):
        with pytest.raises(InputError):
            learner.update(batch)
    assert learner.memory.stored == 0


def test_without_views_the_row_is_seen_twice_with_a_warning():
    learner = PCR(network(), capacity=8, replay_batch=6, views=None)
    with pytest.warns(UserWarning, match="views=None"):
        fold(learner, tasks())
