"""A forecaster beside the formulas it stands for: normalisers, when it is fitted and on which rows, each switch, and kills."""

import math

import pytest
import torch

from everlearn import Batch
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.state import capture, same
from everlearn.learners.forecaster import Forecaster
from everlearn.nn.series import LTC, NCP, CfC, Dense
from everlearn.optim.optimizers import SGD, Adam
from everlearn.optim.refit import Every, Never, OnDrift

WINDOW = 6


class Past:
    """Alarms where an error is above a limit."""

    name = "past"
    parts = ()

    def __init__(self, limit=5.0):
        self.limit = limit

    def update(self, error):
        return error > self.limit

    def __repr__(self):
        return f"past({self.limit})"


def waves(rows, targets=1, level=10.0, seed=0):
    """Batches of one row: a window of each wave and its next value."""
    noise = 0.1 * torch.randn(rows + WINDOW, targets, generator=torch.Generator().manual_seed(seed))
    steps = torch.arange(rows + WINDOW)[:, None]
    series = level + torch.sin(0.5 * steps + torch.arange(targets)) + noise
    return [Batch(series[None, k : k + WINDOW], series[None, k + WINDOW]) for k in range(rows)]


def fed(batches, **options):
    learner = Forecaster(**{"window": WINDOW, "first": 40, "epochs": 3, "refit_epochs": 2} | options)
    for batch in batches:
        learner.update(batch)
    return learner


def probe(targets=1):
    return torch.cat([batch.x for batch in waves(8, targets, seed=5)])


# ---- what is forecast --------------------------------------------------------------------------------------------------------


def test_before_the_first_fit_the_newest_value_is_given():
    learner = fed(waves(39))
    assert learner.fits == 0 and torch.equal(learner.predict(probe()), probe()[:, -1])
    learner.update(waves(40)[-1])
    assert learner.fits == 1 and not torch.equal(learner.predict(probe()), probe()[:, -1])


@pytest.mark.parametrize("normalizer", ["window", "global", "none"])
def test_forecasts_are_those_of_the_formula(normalizer):
    """One window at a time, with the network applied by hand."""
    batches = waves(50, targets=2)
    learner, x = fed(batches, normalizer=normalizer), probe(2)
    model = learner.descent.model.eval()
    rows = torch.cat([batch.x for batch in batches[:40]]).double()
    for row in range(len(x)):
        for target in range(2):
            w = x[row, :, target].double()
            center, scale, offset = {
                "window": (w.mean(), w.std(correction=0) + 0.02 * w.mean().abs() + 1e-6, w[-1]),
                "global": (rows[:, :, target].mean(), rows[:, :, target].std(correction=0), rows[:, :, target].mean()),
                "none": (0.0, 1.0, 0.0),
            }[normalizer]
            with torch.no_grad():
                out = float(model(((w - center) / scale).float().view(1, WINDOW, 1)))
            assert float(learner.predict(x)[row, target]) == pytest.approx(float(offset + scale * out), rel=1e-5)


def test_the_first_fit_is_gradient_descent_on_the_formula_of_the_loss():
    """One pass over all rows in one step of plain descent, the gradient of mean ((f - y) / scale)^2 taken by torch."""
    batches = waves(40)
    learner = fed(batches, epochs=1, batch=40, optimizer=SGD(lr=0.1))
    start = fed(batches[:1])
    model = start.descent.model
    x, y = torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])
    w = x[:, :, 0]
    mean, last = w.mean(1, keepdim=True), w[:, -1:]
    scale = w.std(1, keepdim=True, correction=0) + 0.02 * mean.abs() + 1e-6
    loss = (((last + scale * model(((w - mean) / scale).unsqueeze(2)) - y) / scale) ** 2).mean()
    loss.backward()
    for own, other in zip(learner.descent.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(own, other - 0.1 * other.grad, atol=1e-6)


def test_with_windows_of_their_own_units_forecasts_scale_with_the_world():
    learner, x = fed(waves(60)), probe()
    for factor in (0.1, 30.0):
        assert torch.allclose(learner.predict(factor * x), factor * learner.predict(x), rtol=1e-4)
    fixed = fed(waves(60), normalizer="global")
    assert not torch.allclose(fixed.predict(30.0 * x), 30.0 * fixed.predict(x), rtol=0.05)


def test_a_wave_is_learned():
    batches = waves(300)
    learner = fed(batches, first=250, epochs=60, network=Dense())
    x, y = (torch.cat([getattr(batch, key) for batch in batches[250:]]) for key in ("x", "y"))
    error, simple = ((learner.predict(x) - y) ** 2).mean().sqrt(), ((x[:, -1] - y) ** 2).mean().sqrt()
    assert error < 0.6 * simple


def test_columns_beside_the_targets_are_left_alone():
    plain = fed(waves(50))
    beside = fed([Batch(torch.cat([torch.full_like(b.x, 7.0), b.x], dim=2), b.y) for b in waves(50)], columns=(1,))
    assert torch.equal(plain.predict(probe()), beside.predict(torch.cat([torch.zeros_like(probe()), probe()], dim=2)))


def test_missing_samples_are_told_to_liquid_networks():
    gaps = [Batch({"loads": b.x, "dt": torch.ones(1, WINDOW)}, b.y) for b in waves(50)]
    learner = fed(gaps, network=CfC())
    x, dt = probe(), torch.ones(8, WINDOW)
    assert torch.allclose(learner.predict({"loads": x, "dt": dt}), fed(waves(50), network=CfC()).predict(x), rtol=1e-4)
    assert not torch.equal(learner.predict({"loads": x, "dt": 3 * dt}), learner.predict({"loads": x, "dt": dt}))


# ---- when, and on which rows -------------------------------------------------------------------------------------------------


def fits(learner, batches):
    """(rows that had come, passes' last loss given) at each fit."""
    found = []
    for number, batch in enumerate(batches):
        metrics = learner.update(batch)
        if metrics:
            found.append(number + 1)
            assert metrics["fits"] == learner.fits == len(found) and math.isfinite(metrics["loss"])
    return found


def make(**options):
    return Forecaster(**{"window": WINDOW, "first": 40, "epochs": 1, "refit_epochs": 1} | options)


def test_when_it_is_fitted():
    batches = waves(100)
    assert fits(make(), batches) == [40]
    assert fits(make(updates=25), batches) == [25]
    assert fits(make(refit=Every(12)), batches) == [40, 52, 64, 76, 88, 100]
    storm = batches[:60] + [Batch(40 * batch.x, 40 * batch.y) for batch in batches[60:]]
    jump = OnDrift(Past(0.5), first=1)
    assert fits(make(refit=jump, least=12), storm)[:2] == [40, 73]  # the alarm is at row 61
    assert fits(make(refit=jump, least=1), storm)[:2] == [40, 62]
    assert fits(make(refit=jump), batches) == [40]


@pytest.mark.parametrize(("refit", "rows"), [(Every(12), range(40, 52)), (OnDrift(Past(-1.0), first=1), range(41, 53))])
def test_a_later_fit_is_on_the_rows_since_the_last_fit_or_the_alarm_from_where_the_weights_stand(refit, rows):
    batches = waves(60)
    learner = make(refit=refit, least=12, optimizer=SGD(lr=0.05), batch=64)
    for batch in batches[: rows[-1]]:
        learner.update(batch)
    before = capture(learner)["descent"]["model"]
    twin = make(optimizer=SGD(lr=0.05), batch=64, first=12)
    twin.descent.model.load_state_dict(before)
    for number in rows:
        twin.update(batches[number])  # its first fit, one pass in one step, as the later one of the other
    learner.update(batches[rows[-1]])
    assert (learner.fits, twin.fits) == (2, 1)
    for own, other in zip(learner.descent.model.parameters(), twin.descent.model.parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)


def test_a_row_is_forecast_before_it_is_learned_from():
    """The error that an alarm is judged by is that of the forecast before the update."""
    told = []

    class Ear(Past):
        def update(self, error):
            told.append(error)
            return False

    ear = OnDrift(Ear(), first=1)
    learner = make(refit=ear)
    learner.refit.detector = Ear()
    batches = waves(50)
    expected = []
    for batch in batches:
        if learner.fits:
            size = torch.cat([b.x for b in batches[:40]]).mean().abs()
            expected.append(float((learner.predict(batch.x) - batch.y).abs().mean() / size))
        learner.update(batch)
    assert told == pytest.approx(expected, rel=1e-5) and len(told) == 10


def test_only_as_many_rows_are_kept_as_a_later_fit_needs():
    assert fed(waves(60)).recent.stored == 0
    assert fed(waves(60), refit=Every(12)).recent.stored == 12
    assert fed(waves(60), refit=Never(), capacity=0).fits == 0  # without a memory there is nothing to fit on
    assert fed(waves(39), capacity=10).recent.stored == 10


# ---- switches, state, refusals -----------------------------------------------------------------------------------------------

ALARMED = OnDrift(Past(0.0), first=1)
SWITCHES = [
    {"network": CfC()}, {"network": CfC(units=8)}, {"network": CfC(mode="no_gate")}, {"network": LTC()}, {"network": NCP()},
    {"network": Dense(hidden=(8,))}, {"network": Dense(lr=0.01)}, {"network": Dense(epochs=2), "epochs": None},
    {"refit": Every(12)}, {"refit": Every(6)}, {"refit": ALARMED}, {"refit": ALARMED, "least": 3},
    {"refit": Every(12), "refit_epochs": 5}, {"normalizer": "global"}, {"normalizer": "none"}, {"epochs": 7},
    {"optimizer": Adam(lr=0.02)}, {"optimizer": SGD()}, {"batch": 7}, {"capacity": 20}, {"first": 30}, {"updates": 33}, {"seed": 1},
]  # fmt: skip


def test_every_switch_changes_the_forecast():
    batches, x = waves(60), probe()
    found = [fed(batches).predict(x), *(fed(batches, **switch).predict(x) for switch in SWITCHES)]
    for first in range(len(found)):
        for second in range(first):
            assert not torch.equal(found[first], found[second]), ({}, *SWITCHES)[first]


@pytest.mark.parametrize("network", [CfC(), LTC(), NCP(), Dense()], ids=repr)
def test_a_learner_that_is_loaded_gives_the_next_forecasts_to_the_bit(network):
    batches = waves(70)
    whole = fed(batches[:50], network=network, refit=Every(12))
    other = fed([], network=network, refit=Every(12), seed=0)
    other.load_state_dict(whole.state_dict())
    for batch in batches[50:]:
        assert torch.equal(whole.predict(batch.x), other.predict(batch.x))
        whole.update(batch), other.update(batch)
    assert same(whole.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalizer": "batch"}, "normalizer must be one of window, global, none, got 'batch'"),
        ({"refit_epochs": 0}, "refit_epochs"),
        ({"epochs": 0}, "epochs"),
        ({"capacity": -1}, "capacity"),
        ({"window": 0}, "window"),
        ({"least": 0}, "least"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, message):
    with pytest.raises(ArgumentError, match=f"forecaster: {message}"):
        Forecaster(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(1, 5, 1), "windows have 5 steps; this forecaster takes 6. Give window=5"),
        (torch.full((1, WINDOW, 1), torch.nan), "x holds nan"),
        ({"loads": torch.ones(1, WINDOW, 1), "dt": -torch.ones(1, WINDOW)}, "every dt must be above 0 and finite, got -1.0"),
    ],
)
def test_rows_that_cannot_be_are_refused_and_nothing_changes(x, message):
    learner = fed([], network=CfC())
    before = learner.state_dict()
    for call in (lambda: learner.predict(x), lambda: learner.update(Batch(x, torch.ones(1, 1)))):
        with pytest.raises(InputError, match=message):
            call()
    assert same(before, learner.state_dict())
