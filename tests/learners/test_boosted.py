"""Boosted trees: the same as scikit-learn's on the windows' own units, when they are grown, and that a load grows them again."""

import numpy
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from everlearn import Batch
from everlearn.core.errors import ArgumentError
from everlearn.core.random import derive
from everlearn.core.state import same
from everlearn.learners.boosted import Boosted
from everlearn.optim.refit import Every, Never, OnDrift


def waves(rows, targets=2):
    steps = torch.arange(rows + 6.0)[:, None]
    noise = 0.1 * torch.randn(rows + 6, targets, generator=torch.Generator().manual_seed(0))
    series = 10 + torch.sin(0.5 * steps + torch.arange(targets)) + noise
    return [Batch(series[None, k : k + 6], series[None, k + 6]) for k in range(rows)]


def fed(batches, **options):
    learner = Boosted(**{"first": 40, "rounds": 5, "refit": Never()} | options)
    found = [number + 1 for number, batch in enumerate(batches) if learner.update(batch)]
    return learner, found


def test_forecasts_are_those_of_the_library_in_units_of_each_window():
    batches = waves(50)
    learner, _ = fed(batches)
    x = torch.cat([batch.x for batch in batches]).double().numpy()
    y = torch.cat([batch.y for batch in batches]).double().numpy()
    mean = x.mean(1, keepdims=True)
    scale = x.std(1, keepdims=True) + 0.02 * abs(mean) + 1e-6
    z = ((x - mean) / scale).transpose(0, 2, 1)
    wanted = (y - x[:, -1]) / scale[:, 0]
    trees = HistGradientBoostingRegressor(
        max_iter=5, max_depth=4, early_stopping=False, random_state=derive(0, "boosted", 1) % 2**31
    ).fit(z[:40].reshape(-1, 6), wanted[:40].reshape(-1))
    expected = x[40:, -1] + scale[40:, 0] * trees.predict(z[40:].reshape(-1, 6)).reshape(-1, 2)
    found = learner.predict(torch.cat([batch.x for batch in batches[40:]])).double().numpy()
    assert numpy.abs(found - expected).max() < 0.02  # float32 windows fall into other bins here and there
    assert numpy.median(numpy.abs(found - expected)) < 1e-4


def test_when_they_are_grown_and_what_is_given_before():
    batches = waves(100)
    assert fed(batches)[1] == [40]
    assert fed(batches, refit=Every(20))[1] == [40, 60, 80, 100]
    assert fed(batches, updates=25)[1] == [25]
    early, _ = fed(batches[:39])
    assert torch.equal(early.predict(batches[50].x), batches[50].x[:, -1])
    assert fed(batches, capacity=0)[0].fits == 0


def test_a_load_in_the_middle_goes_on_to_the_same_forecasts():
    batches = waves(100)
    whole, _ = fed(batches[:70], refit=Every(20))
    other, _ = fed([], refit=Every(20))
    other.load_state_dict(whole.state_dict())
    for batch in batches[70:]:
        assert torch.equal(whole.predict(batch.x), other.predict(batch.x))
        whole.update(batch), other.update(batch)
    assert same(whole.state_dict(), other.state_dict()) and whole.fits == 4


SWITCHES = [{"rounds": 9}, {"depth": 1}, {"lr": 0.3}, {"capacity": 20}, {"first": 30}, {"updates": 25}, {"refit": Every(15)}]


def test_every_switch_changes_the_forecast():
    batches = waves(60)
    x = torch.cat([batch.x for batch in batches])
    found = [fed(batches, **options)[0].predict(x) for options in ({}, *SWITCHES)]
    for first in range(len(found)):
        for second in range(first):
            assert not torch.equal(found[first], found[second])
    one, _ = fed([Batch(torch.cat([b.x, b.x[:, :, :1]], dim=2), b.y) for b in batches], columns=(0, 1))
    assert torch.equal(one.predict(torch.cat([x, x[:, :, :1]], dim=2)), found[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounds": 0}, "rounds"), ({"depth": 0}, "depth"), ({"lr": 2.0}, "lr"), ({"capacity": -1}, "capacity")],
)
def test_arguments_that_cannot_be_are_refused(options, message):
    with pytest.raises(ArgumentError, match=f"boosted: {message}"):
        Boosted(**options)


def test_the_error_that_alarms_are_judged_by_is_a_share_of_the_answers_kept():
    told, expected = [], []

    class Ear:
        name, parts = "ear", ()

        def update(self, error):
            told.append(error)
            return False

    learner = Boosted(first=40, rounds=3, refit=OnDrift(Ear(), first=1))
    learner.refit.detector = Ear()
    batches = waves(46)
    for number, batch in enumerate(batches):
        if learner.fits:
            size = float(torch.cat([kept.y for kept in batches[:number]]).abs().mean())
            expected.append(float((learner.predict(batch.x) - batch.y).abs().mean()) / size)
        learner.update(batch)
    assert told == pytest.approx(expected, rel=1e-5) and len(told) == 6
