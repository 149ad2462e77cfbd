"""The study of link loads: its failures, its short cut beside the plain fold, what a lost fifth of the samples costs, its claims."""

import pytest
import torch

from everlearn import Learner, run
from everlearn.data.folders import roots
from everlearn.data.link_forecast import link_forecast
from everlearn.data.link_loads import LinkDown
from everlearn.data.windows import newest
from everlearn.learners.forecaster import Forecaster
from everlearn.measure.forecast_error import ForecastError
from everlearn.nn.series import Dense
from everlearn.optim.refit import Every
from everlearn.studies import failures, liquid
from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named

FAILURE, LINK = failures.QUICK[0]


@pytest.fixture(autouse=True)
def _abilene():
    if not any((root / "abilene_tm").is_dir() for root in roots()):
        pytest.skip("EVERLEARN_DATA has no abilene_tm")
    caches = failures.traffic, failures.cases, failures.changes, liquid._trained
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def _short(monkeypatch):
    """Three hours of training, an hour, then a failure and two hours."""
    for name, value in {"TRAINED": 90, "CALM": 12, "FAILS": 102, "DAY": 24}.items():
        monkeypatch.setattr(failures, name, value)
        if name != "CALM":
            monkeypatch.setattr(liquid, name, value)


class Seen(Learner):
    """Persistence that notes the newest load of each row that it is asked about, and of each that it learns."""

    name = "seen"
    gives = ("values",)
    parts = ("asked", "learned")

    def __init__(self, seed=0):
        self.asked, self.learned = [], []

    def predict(self, x):
        self.asked += newest(x, (0,))[:, 0].tolist()
        return newest(x, (0,))

    def update(self, batch):
        if batch.y is not None:
            self.learned += zip(newest(batch.x, (0,))[:, 0].tolist(), batch.y[:, 0].tolist(), strict=True)
        return {}

    def boundary(self, boundary):
        pass


@pytest.mark.parametrize("horizon", [1, 12])
def test_each_row_is_learned_once_and_in_order_and_no_failure_is_known_before(monkeypatch, _short, horizon):
    """Up to `horizon` before the failure; from there on what is learned was asked first."""
    monkeypatch.setitem(liquid.ARMS, "seen", liquid.Setup(Seen))
    learner, _ = liquid._trained("seen", (), 0, "abilene", horizon, LINK)
    loads = link_forecast(failures.traffic("abilene"), links=(LINK,), test=None).network_loads.loads
    series = loads[:, failures.traffic("abilene").network.link(*LINK)].float().tolist()
    ends = range(liquid.WINDOW - 1, liquid.FAILS - 2 * horizon + 1)  # whose answers are known when the scored part begins
    assert learner.learned == [(series[end], series[end + horizon]) for end in ends]
    assert learner.asked == []


@pytest.mark.parametrize("horizon", [1, 12])
def test_the_short_cut_gives_the_figures_of_one_fold_over_the_stream(monkeypatch, _short, horizon):
    """Trained in one batch, then continued through the failure: as row after row from the beginning, to the bit."""

    def make(seed, **options):
        return Forecaster(
            Dense(hidden=(4,)), epochs=1, refit=Every(7), refit_epochs=2, normalizer="global", seed=seed, **options
        )

    monkeypatch.setitem(liquid.ARMS, "small", liquid.Setup(lambda seed: make(seed, first=1)))
    short = liquid._through("small", (), 0, "abilene", horizon, FAILURE, LINK)
    again = liquid._through("small", (), 0, "abilene", horizon, FAILURE, LINK)
    stream = link_forecast(
        failures.traffic("abilene"), changes=(LinkDown(liquid.FAILS, FAILURE),), links=(LINK,), horizon=horizon, test=None
    )
    stream.changes = (stream.event_at(liquid.FAILS - (horizon == 1)),)
    learner = make(0, first=liquid.TRAINED - liquid.WINDOW + 1 - horizon)
    found = run(learner, stream, monitors=[ForecastError()]).figures["forecast"]["segments"][-1]
    for given in (short, again):  # what is trained is not changed by a failure that is run through
        assert given["rmse"] == found["rmse"] and given["mape"] == found["mape"]
        assert given["beside"] == 1 - found["skill"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fifth_of_the_samples_may_be_lost():
    """The error grows by less than half. What is scored are the rows whose answer was seen."""
    for failure, link in failures.QUICK:
        whole, lost = (
            liquid._through(arm, (), 0, "abilene", 1, failure, link)
            for arm in (liquid.SYSTEM, "CfC, a fifth of the samples lost")
        )
        assert whole["rmse"] < lost["rmse"] < 1.5 * whole["rmse"]


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_a_frozen_liquid_network_leads_networks_that_are_fitted_again_after_drastic_failures(tmp_path):
    record = run_study(study_named("liquid"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    assert all(claim["met"] for claim in record["claims"] if not claim["control"])
    assert means["persistence"]["drastic"] == 0.0  # its own yardstick
    assert means["CfC"]["drastic"] < 0.0  # which five minutes ahead the liquid network does not reach
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
    assert torch.isfinite(torch.tensor([arm["seconds"] for arm in means.values()])).all()
