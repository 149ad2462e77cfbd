"""The watch: quiet on streams that stay as they are, each kind on its own fault and only there, the same alarms after a restart."""

import copy
import json
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from everlearn import FineTune, Replay, Uniform, load
from everlearn.core.errors import ArgumentError
from everlearn.learners.frozen import Frozen
from everlearn.optim.optimizers import SGD, Adam
from everlearn.serve.alarms import KINDS, Alarms, Watch
from everlearn.serve.input_spec import InputSpec

from .alarm_faults import (
    CLASSES,
    FAULT,
    FAULTS,
    SMALL,
    late_and_missing,
    learner,
    network,
    one_answer,
    quiet_values,
    server,
    shifted,
)
from .toy_server import BATCH, ToyServer, blobs

# ---- each kind on its own fault ----------------------------------------------------------------------------------------------


def unsure(row, number):
    label = int(row[0] > 0)
    top = 0.97 if number < FAULT else 0.28
    return {"answer": "abcd"[label], "probabilities": [top if place == label else (1.0 - top) / 3 for place in range(4)]}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_kind_is_told_once_in_time_and_not_where_it_is_switched_off(kind):
    make, act, within, off = FAULTS[kind]
    toy = make()
    told = toy.run(Watch(SMALL, toy.spec), FAULT + within + BATCH, act)
    of_kind = [(row, alarm) for row, alarm in told if alarm.kind == kind]
    assert [alarm for row, alarm in told if row <= FAULT] == []
    assert len(of_kind) == 1
    row, alarm = of_kind[0]
    assert FAULT < row <= FAULT + within + BATCH
    assert alarm.message.endswith(".")
    assert len(alarm.message) < 330
    assert (alarm.seq, alarm.time) != (0, 0.0)
    assert json.loads(json.dumps([alarm.value, alarm.limit])) == [alarm.value, alarm.limit]
    toy = make()
    quiet = toy.run(Watch(replace(SMALL, **off), toy.spec), FAULT + within + BATCH, act)
    assert kind not in {alarm.kind for _, alarm in quiet}


def test_every_observed_kind_has_a_fault_here():
    looked = {"lag", "queue", "early"}
    assert set(FAULTS) | looked == set(KINDS)


def test_less_sure_answers_are_output_drift_too():
    toy = server(respond=unsure)
    ((row, alarm),) = toy.run(Watch(replace(SMALL, output=None, performance=None), CLASSES), FAULT + 300)
    assert (alarm.kind, row <= FAULT + 230) == ("output_drift", True)
    assert "less sure" in alarm.message
    toy = server(respond=unsure)
    assert toy.run(Watch(replace(SMALL, entropy=None, performance=None), CLASSES), FAULT + 300) == []


@pytest.mark.parametrize(("limits", "name"), [({"psi": None, "ks": 0.2}, "Kolmogorov"), ({"psi": 0.25}, "PSI")])
def test_the_column_that_shifted_is_named(limits, name):
    spec = replace(CLASSES, features=("age", "sex", "dose", "weight", "height", "pulse", "site", "day"))
    toy = ToyServer(learner(), spec, shifted)
    told = toy.run(Watch(replace(SMALL, **limits), spec), FAULT + 250)
    (alarm,) = [alarm for _, alarm in told if alarm.kind == "input_drift"]
    assert "weight" in alarm.message
    assert name in alarm.message


@pytest.mark.parametrize(
    ("metrics", "told"),
    [({"loss": float("nan")}, True), ({"loss": torch.tensor(float("inf"))}, True), ({"loss": 1e30}, False)],
)
def test_a_loss_that_is_not_finite_is_told(metrics, told):
    toy, watch = server(), Watch(SMALL, CLASSES)
    assert [alarm.kind for alarm in watch.observe(toy.step(), toy.learner, metrics)] == ["not_finite"] * told


def test_a_value_that_is_not_finite_is_told():
    spec = InputSpec("values", (8,), "float32", targets=("y",))
    toy = ToyServer(
        Frozen(nn.Linear(8, 1)), spec, lambda number: (torch.zeros(8), [0.0]),
        respond=lambda row, number: {"answer": [float("inf") if number == 70 else 1.0]},
    )  # fmt: skip
    toy.learn = lambda moment: {}
    assert [(row, alarm.kind) for row, alarm in toy.run(Watch(SMALL, spec), 320)] == [(96, "not_finite")]


# ---- values, actions, images -------------------------------------------------------------------------------------------------


def test_values_that_become_worse_are_told_in_their_unit():
    spec = InputSpec("values", (8,), "float32", targets=("y",))

    def rows(number):
        x = blobs()(number)[0]
        source = random.Random(number)
        return x, [1000.0 * float(x.sum()) + source.gauss(0.0, 100.0 if number < FAULT else 500.0)]

    toy = ToyServer(Frozen(nn.Linear(8, 1)), spec, rows, respond=lambda row, number: {"answer": [1000.0 * float(row.sum())]})
    toy.learn = lambda moment: {}
    ((row, alarm),) = toy.run(Watch(SMALL, spec), FAULT + 500)
    assert (alarm.kind, row <= FAULT + 300) == ("performance", True)
    assert alarm.limit == pytest.approx(80.0, rel=0.15)  # mean of |N(0, 100)|
    assert alarm.value == pytest.approx(400.0, rel=0.3)


def test_answers_that_are_values_may_shift():
    spec = InputSpec("values", (8,), "float32", targets=("low", "high"))

    def respond(row, number):
        return {"answer": [float(row[0]), float(row[1]) * (1.0 if number < FAULT else 5.0)]}

    toy = ToyServer(
        Frozen(nn.Linear(8, 2)), spec, lambda number: (blobs()(number)[0], [0.0, 0.0]), delay=lambda _: None, respond=respond
    )
    toy.learn = lambda moment: {}
    ((row, alarm),) = toy.run(Watch(SMALL, spec), FAULT + 300)
    assert (alarm.kind, row <= FAULT + 230) == ("output_drift", True)


def test_rewards_that_fall_are_told_and_default_rewards_count():
    spec = InputSpec("actions", (8,), "float32")

    def rows(number):
        return blobs()(number)[0], 1.0 if number < FAULT else 0.2

    toy = ToyServer(Uniform(actions=3), spec, rows)
    made = toy.step
    toy.step = lambda: (lambda moment: replace(moment, answers=tuple(replace(a, default=True) for a in moment.answers)))(
        made()
    )
    told = toy.run(Watch(replace(SMALL, missing=None), spec), FAULT + 300)
    assert [(alarm.kind, alarm.limit, alarm.value) for _, alarm in told] == [("performance", 1.0, pytest.approx(0.2))]


class Turn:
    """Digits, upright until the fault and then turned by a quarter: a stream that begins anew as often as need be."""

    def __init__(self, images, from_row=FAULT):
        data = load("digits")
        order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(0))
        self.x, self.y, self.images, self.from_row = data.x[order].reshape(-1, 1, 8, 8), data.y[order], images, from_row

    def __call__(self, number):
        x = self.x[number % len(self.x)]
        x = x if number < self.from_row else x.rot90(1, (1, 2))
        x = (255.0 * x).to(torch.uint8) if self.images else x.reshape(64)
        return x, int(self.y[number % len(self.y)])


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), network(0, 64, 10))

    def forward(self, x):
        return self.network(x.float() / 255.0)


@pytest.mark.parametrize(
    "features", ["network", *[pytest.param(name, marks=pytest.mark.slow) for name in ("columns", "input")]]
)
def test_digits_that_are_turned_are_told_as_inputs_and_as_performance(features):
    images = features != "columns"
    spec = InputSpec(
        "classes", (1, 8, 8) if images else (64,), "uint8" if images else "float32", classes=tuple("0123456789")
    )
    limits = Alarms(reference=500, features="input" if features == "input" else "network", adopt=None)
    model = Pixels() if images else network(0, 64, 10)
    toy = ToyServer(Replay(model, capacity=200, optimizer=SGD(lr=0.1)), spec, Turn(images, 3000))
    told = toy.run(Watch(limits, spec), 4000)
    first = {alarm.kind: row for row, alarm in reversed(told)}
    assert min(first.values()) > 3000
    assert first["input_drift"] <= 3000 + 2 * 250 + BATCH
    assert first["performance"] <= 3000 + 200


def test_what_images_are_compared_by_is_chosen():
    spec = InputSpec("classes", (1, 8, 8), "uint8", classes=tuple("0123456789"))
    told = {}
    for limits in ({}, {"features": "input"}, {"mmd": None}, {"mmd": 1.9}):
        toy = ToyServer(Frozen(Pixels()), spec, Turn(True, 500))
        toy.learn = lambda moment: {}
        alone = replace(SMALL, performance=None, output=None, entropy=None, **limits)
        told[str(limits)] = [(alarm.kind, alarm.value) for _, alarm in toy.run(Watch(alone, spec), 800)]
    network, projected, off, far = told.values()
    assert [kind for kind, _ in network] == [kind for kind, _ in projected] == ["input_drift"]
    assert network[0][1] != projected[0][1]
    assert off == far == []


def test_the_answers_of_a_young_model_are_not_judged():
    kinds = {}
    for warm in (800, 5000):
        toy = server(respond=one_answer)
        told = toy.run(Watch(replace(SMALL, warm=warm, performance=None), CLASSES), FAULT + 300)
        kinds[warm] = [alarm.kind for _, alarm in told]
    assert kinds == {800: ["output_drift"], 5000: []}


@pytest.mark.parametrize(("dtype", "kept"), [("float32", torch.float32), ("uint8", torch.float32), ("int64", torch.float64)])
def test_columns_are_kept_in_a_dtype_that_holds_them(dtype, kept):
    watch = Watch(Alarms(), replace(CLASSES, dtype=dtype))
    assert watch.trackers["columns"].rows.dtype == kept


def test_large_images_keep_few_rows():
    spec = InputSpec("classes", (3, 224, 224), "uint8", classes=("a", "b"))
    watch = Watch(Alarms(), spec)
    assert sum(tensor.nbytes for tensor in (watch.trackers["kernel"].kept, watch.trackers["kernel"].rows)) < 9 * 2**20


# ---- quiet where nothing happens ---------------------------------------------------------------------------------------------


def quiet_classes(seed):
    makers = (
        lambda: learner(seed),
        lambda: FineTune(network(seed), optimizer=Adam(lr=0.003)),
        lambda: Replay(network(seed), capacity=200, optimizer=SGD(lr=0.02)),
    )
    return ToyServer(makers[seed % 3](), CLASSES, blobs(seed), delay=late_and_missing)


def quiet_actions(seed):
    def rows(number):
        source = random.Random(f"{seed} {number}")
        return blobs(seed)(number)[0], lambda output: float(source.random() < 0.2 + 0.3 * output["answer"])

    return ToyServer(Uniform(actions=3, seed=seed), InputSpec("actions", (8,), "float32"), rows, delay=late_and_missing)


@pytest.mark.parametrize(
    "make", [quiet_classes, *[pytest.param(make, marks=pytest.mark.slow) for make in (quiet_actions, quiet_values)]]
)
def test_twenty_thousand_rows_that_stay_as_they_are_raise_nothing(make):
    toy = make(1)
    assert toy.run(Watch(Alarms(), toy.spec), 20_000) == []


@pytest.mark.slow
def test_of_thirty_such_streams_one_at_most_raises_an_alarm():
    told = []
    for make in (quiet_classes, quiet_actions, quiet_values):
        for seed in range(10):
            toy = make(seed)
            told += toy.run(Watch(Alarms(), toy.spec), 20_000)
    print(f"{len(told)} false alarms in 600,000 rows")
    assert len(told) <= 1


# ---- one trouble, one alarm --------------------------------------------------------------------------------------------------


def test_what_lasts_is_told_once_and_again_only_after_it_was_over():
    def rows(number):
        x, y = blobs()(number)
        return x + 2.0 * (1600 <= number < 2600 or number >= 3600), y

    toy, watch = server(rows), Watch(replace(SMALL, adopt=None, performance=None, output=None, entropy=None), CLASSES)
    told = toy.run(watch, 3000)
    assert "input_drift" not in watch.raised
    told += toy.run(watch, 1600)
    assert watch.raised == ("input_drift",)
    assert [alarm.kind for _, alarm in told] == ["input_drift"] * 2
    assert told[0][0] < 1900 < 3600 < told[1][0]


def test_what_has_changed_for_good_is_adopted_and_the_next_change_told():
    def rows(number):
        x, y = blobs()(number)
        return x + 2.0 * (number >= 1600) + 2.0 * (number >= 4000), y

    quiet = replace(SMALL, performance=None, output=None, entropy=None)
    counts = {}
    for adopt in (5, None):
        toy, watch = server(rows), Watch(replace(quiet, adopt=adopt), CLASSES)
        toy.run(watch, 3500)
        assert ("input_drift" in watch.raised) == (adopt is None)
        counts[adopt] = len(toy.run(watch, 1000))
    assert counts == {5: 1, None: 0}


def test_performance_recovers_is_over_and_is_told_again():
    def rows(number):
        x, y = blobs()(number)
        return x, (y + (1600 <= number < 2600 or number >= 6000)) % 4

    toy, watch = server(rows), Watch(replace(SMALL, adopt=None), CLASSES)
    toy.learner = Frozen(network())
    good = learner()
    trained = ToyServer(good, CLASSES, blobs(9))
    trained.rows = blobs()
    trained.run(Watch(SMALL, CLASSES), 3200)
    toy.serving, toy.learner = copy.deepcopy(good), Frozen(good.descent.model)
    toy.learn = lambda moment: {}
    told = [(row, alarm.kind) for row, alarm in toy.run(watch, 7000) if alarm.kind == "performance"]
    assert len(told) == 2
    assert 1600 < told[0][0] < 1800
    assert 6000 < told[1][0] < 6200


def test_renewing_takes_what_comes_next_as_usual():
    toy, watch = server(shifted), Watch(replace(SMALL, adopt=None), CLASSES)
    toy.run(watch, FAULT + 250)
    assert "input_drift" in watch.raised
    watch.renew("input_drift")
    assert "input_drift" not in watch.raised
    assert "input_drift" not in [alarm.kind for _, alarm in toy.run(watch, 1000)]
    watch.renew()
    with pytest.raises(ArgumentError, match="unknown kind 'lag'"):
        watch.renew("lag")
