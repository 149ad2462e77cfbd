"""The study of link loads under failures: a frozen liquid network that adapts through its state, and networks fitted again and again.

    score[f] = mean over (failure, link) of  ln (RMSE of persistence / RMSE of f)        0: as good as persistence

    drastic     RMSE[CfC] <= 0.9 RMSE[re-fitted every n]                            (quick scale 0.85; n = 12, 36, 144)
    moderate    0.7 <= RMSE[CfC] / RMSE[re-fitted every n] <= 1.15;  RMSE[re-fitted every 36] <= RMSE[CfC], as the paper has it
    both        RMSE[hybrid] <= 1.05 RMSE[CfC], 1.05 RMSE[re-fitted every 36]

Real traffic of Abilene, one link at a time: a week to train on, half a day more, then a failure and the day after it. What a failure
does to a link is told by its load beside what it would have been. A CfC in the units of the whole training data must not lead on
drastic changes (the negative control). The re-fitted network is also tuned, in units of its windows.

Reference: Ayoub et al. (2024), arXiv 2404.05304.
"""

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from everlearn.core.budget import Budget
from everlearn.core.events import Batch
from everlearn.core.learner import Learner
from everlearn.core.run import Fold
from everlearn.data.demands import Traffic
from everlearn.data.link_forecast import link_forecast
from everlearn.data.link_loads import LinkDown
from everlearn.data.window_stream import WindowStream
from everlearn.learners.boosted import Boosted
from everlearn.learners.forecaster import Forecaster
from everlearn.learners.hybrid import Hybrid
from everlearn.learners.persistence import Persistence
from everlearn.measure.drift import ADWIN, PageHinkley
from everlearn.measure.forecast_error import ForecastError
from everlearn.nn.series import LTC, NCP, CfC, Dense
from everlearn.optim.refit import Every, OnDrift
from everlearn.studies.failures import CLASSES, DAY, FAILS, TRAINED, WINDOW, cases, euro_cases, traffic
from everlearn.studies.study import TUNING_SEEDS, Arm, Claim, Measured, Study

QUARTER = 4  # costly arms see every fourth failure

PERSISTENCE, SYSTEM, GLOBAL, HYBRID, FROZEN = "persistence", "CfC", "CfC, global units", "hybrid", "dense, frozen"
TUNED = "re-fitted, tuned"
SETTINGS = (
    {"units": "window", "every": 36, "passes": 10},
    {"units": "window", "every": 144, "passes": 10},
    {"units": "global", "every": 36, "passes": 200},
)


@dataclass(frozen=True)
class Setup:
    """An arm: the learner it makes, role, horizons, whether it sees all failures, what part of the samples is lost, whether Euro28."""

    make: Callable[..., Learner]
    role: str = "baseline"
    horizons: tuple[int, ...] = (1,)
    whole: bool = True
    missing: float = 0.0
    euro: bool = False
    settings: tuple[Mapping[str, Any], ...] = ({},)


def refitted(every: int) -> str:
    """What the arm of a network that is fitted again is called."""
    return f"re-fitted every {every}"


def _refitted(every: int, **options: Any) -> Callable[[int], Learner]:
    return lambda seed: Forecaster(Dense(), refit=Every(every), normalizer="global", first=1, seed=seed, **options)


def _tuned(seed: int, units: str, every: int, passes: int) -> Learner:
    return Forecaster(Dense(), refit=Every(every), normalizer=units, refit_epochs=passes, first=1, seed=seed)


def _hybrid(seed: int) -> Learner:
    return Hybrid(Forecaster(CfC(), first=1, seed=seed), _refitted(36)(seed), detector=PageHinkley(threshold=1.0), seed=seed)


def _alarmed(detector: Callable[[], Any]) -> Callable[[int], Learner]:
    return lambda seed: Forecaster(Dense(), refit=OnDrift(detector(), first=1), normalizer="global", first=1, seed=seed)


BOTH = (1, 12)
ARMS = {
    PERSISTENCE: Setup(lambda seed: Persistence(seed=seed), horizons=BOTH, euro=True),
    SYSTEM: Setup(lambda seed: Forecaster(CfC(), first=1, seed=seed), "system", BOTH, euro=True),
    refitted(12): Setup(_refitted(12), horizons=BOTH),
    refitted(36): Setup(_refitted(36), horizons=BOTH, euro=True),
    refitted(144): Setup(_refitted(144)),
    GLOBAL: Setup(lambda seed: Forecaster(CfC(), normalizer="global", first=1, seed=seed), "control"),
    HYBRID: Setup(_hybrid, "system"),
    FROZEN: Setup(lambda seed: Forecaster(Dense(), first=1, seed=seed), "part"),
    TUNED: Setup(_tuned, settings=SETTINGS),
    "NCP": Setup(lambda seed: Forecaster(NCP(), first=1, seed=seed), "system", whole=False),
    "LTC": Setup(lambda seed: Forecaster(LTC(), first=1, seed=seed), "system", whole=False),
    "CfC, a fifth of the samples lost": Setup(
        lambda seed: Forecaster(CfC(), first=1, seed=seed), "part", whole=False, missing=0.2
    ),
    "re-fitted at alarms (ADWIN)": Setup(_alarmed(ADWIN)),
    "re-fitted at alarms (Page-Hinkley)": Setup(_alarmed(lambda: PageHinkley(threshold=1.0))),
    "boosted trees every 144": Setup(lambda seed: Boosted(refit=Every(144), first=1, seed=seed), whole=False),
    "dense, frozen, global units": Setup(lambda seed: Forecaster(Dense(), normalizer="global", first=1, seed=seed), "part"),
}
DRAWN = (SYSTEM, HYBRID, *map(refitted, (12, 36, 144)), TUNED, FROZEN)
FEW = (PERSISTENCE, SYSTEM, refitted(12), refitted(36), GLOBAL)  # at quick scale


class LiquidStudy(Study):
    """Forecasters of one link at a time beside persistence, through failures of every link."""

    name: ClassVar[str] = "liquid"
    title: ClassVar[str] = (
        "Link loads through failures: liquid networks that stay frozen, and networks that are fitted again"
    )
    reference: ClassVar[str] = "Ayoub et al. (2024), arXiv 2404.05304"
    measures: ClassVar[Mapping[str, str]] = {
        "drastic": "ln (RMSE of persistence / RMSE), mean over drastic changes, 5 minutes ahead, the day after the failure",
        "moderate": "the same over moderate changes",
        "first hours": "the same over drastic changes, the first three hours alone",
        "recovered": "minus the samples until the error is below 15 % for an hour, 288 for never, mean over drastic changes",
        "MAPE": "mean absolute percentage error, a share, over drastic changes",
        "drastic, hour": "as drastic, an hour ahead, at every second failure",
        "moderate, hour": "as moderate, an hour ahead, at every second failure",
        "drastic, quarter": "as drastic, at every fourth failure",
        "moderate, quarter": "as moderate, at every fourth failure",
        "Euro28": "as drastic, over six failures of Euro28 with generated demands, each seed its own",
        "re-fits": "fits in the day after the failure, mean",
        "seconds": "seconds for one link: first training, half a day and the day after the failure",
    }
    axes: ClassVar[Mapping[str, str]] = {
        f"RMSE beside persistence's, {told}": f"{told} changes, the largest first"
        for told in ("drastic", "moderate", "drastic, hour", "moderate, hour")
    }

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Draws of networks and orders of training; the failures are the same."""
        return tuple(range(5 if scale == "quick" else 3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """All at full scale, those of the claims at quick scale."""
        return tuple(
            Arm(label, setup.role, setup.settings) for label, setup in ARMS.items() if scale == "full" or label in FEW
        )

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """Where the liquid network leads, where it need not, what the hybrid keeps, what units cost, and the control."""
        share = 0.85 if scale == "quick" else 0.9
        periods = (12, 36) if scale == "quick" else (12, 36, 144)
        asked = math.log(1 / share)
        rows = [
            Claim(f"drastic: at most {share} of the error of re-fitting every {n}", SYSTEM, refitted(n), asked)
            for n in periods
        ]
        if scale == "quick":
            rows += [
                Claim(f"the first hours: the same ({n})", SYSTEM, refitted(n), asked, measure="first hours") for n in periods
            ]
        rows += [
            Claim(f"recovered no later than re-fitting every {n}", SYSTEM, refitted(n), 0.0, measure="recovered")
            for n in periods
        ]
        rows.append(Claim("drastic: global units cost at least a factor 3", SYSTEM, GLOBAL, math.log(3)))
        if scale == "full":
            mild = "moderate"
            rows.append(Claim("drastic: at most 0.9 of the tuned re-fitted network", SYSTEM, TUNED, asked))
            for n in periods:
                other = refitted(n)
                rows += [
                    Claim(f"moderate: at most 1.15 of re-fitting every {n}", SYSTEM, other, -math.log(1.15), measure=mild),
                    Claim(f"moderate: at least 0.7 of re-fitting every {n}", other, SYSTEM, math.log(0.7), measure=mild),
                ]
            rows.append(
                Claim("moderate: re-fitting every 36 is the better one (the paper)", refitted(36), SYSTEM, measure=mild)
            )
            for kind in CLASSES:
                rows += [
                    Claim(f"{kind}: the hybrid at most 1.05 of {other}", HYBRID, other, -math.log(1.05), measure=kind)
                    for other in (SYSTEM, refitted(36))
                ]
        rows.append(
            Claim("drastic: in global units at most 0.9 of re-fitting every 36", GLOBAL, refitted(36), asked, control=True)
        )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """Every case: trained once for each link, then once through each failure."""
        setup, given = ARMS[arm], tuple(setting.items())
        tuning = seed in TUNING_SEEDS
        found: dict[str, list[dict[str, float]]] = {}
        for horizon in setup.horizons if scale == "full" and not tuning else (1,):
            rows = cases(scale)
            failures = sorted({case.failure for case in rows})
            quarter = failures[::QUARTER]
            for case in rows:
                if case.failure not in failures[:: QUARTER if not setup.whole else 1 if horizon == 1 else 2]:
                    continue
                name = case.kind if horizon == 1 else f"{case.kind}, hour"
                row = _through(arm, given, seed, "abilene", horizon, case.failure, case.link)
                if setup.whole:
                    found.setdefault(name, []).append(row)
                if horizon == 1 and scale == "full" and case.failure in quarter:
                    found.setdefault(f"{name}, quarter", []).append(row)
        if setup.euro and scale == "full" and not tuning:
            found["Euro28"] = [_through(arm, given, seed, "euro28", 1, case.failure, case.link) for case in euro_cases(seed)]
        _trained.cache_clear()
        scores = {name: _mean([-math.log(row["beside"]) for row in rows]) for name, rows in found.items()}
        drastic = found["drastic" if setup.whole else "drastic, quarter"]
        if setup.whole:
            scores["first hours"] = _mean([-math.log(row["early"]) for row in drastic])
            scores["recovered"] = _mean([row["recovered"] for row in drastic])
            scores["MAPE"] = _mean([row["mape"] for row in drastic])
        scores["re-fits"] = _mean([row["fits"] for row in drastic])
        scores["seconds"] = _mean([row["seconds"] for row in drastic])
        curves = {
            f"RMSE beside persistence's, {name}": [[float(place), row["beside"]] for place, row in enumerate(rows, start=1)]
            for name, rows in found.items()
            if arm in DRAWN and "quarter" not in name and name != "Euro28" and scale == "full"
        }
        return Measured({name: scores[name] for name in self.measures if name in scores}, curves)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _stream(name: str, horizon: int, link: tuple[int, int], missing: float, failure: tuple[int, int] | None) -> WindowStream:
    changes = () if failure is None else (LinkDown(FAILS, failure),)
    return link_forecast(
        traffic(name), changes=changes, window=WINDOW, horizon=horizon, links=(link,), missing=missing, test=None
    )


@cache
def _trained(arm: str, setting: tuple, seed: int, name: str, horizon: int, link: tuple[int, int]) -> tuple[Learner, float]:
    """A learner that was trained on the first week and has seen half a day more, up to the last answer before any failure."""
    setup, whole = ARMS[arm], traffic(name)
    week = Traffic(whole.name, whole.network, whole.demands[:TRAINED], whole.step_minutes)
    learner = setup.make(seed, **dict(setting))
    began = time.perf_counter()
    offline = link_forecast(
        week, window=WINDOW, horizon=horizon, links=(link,), batch=TRAINED, missing=setup.missing, test=None
    )
    learner.update(offline[0])
    stream = _stream(name, horizon, link, setup.missing, None)
    fold = Fold(learner, stream, Budget(), [])
    for number in range(stream.event_at(TRAINED - horizon), stream.event_at(FAILS - horizon)):
        _step(fold, stream, number, horizon)
    return learner, time.perf_counter() - began


def _step(fold: Fold, stream: WindowStream, number: int, horizon: int) -> None:
    """Fold an event; late answers to windows of the training week, which were learned from already, are left out."""
    event = stream[number]
    if isinstance(event, Batch) and float(event.time[0]) >= (TRAINED - horizon) * 5.0:
        fold.step(event)


def _through(
    arm: str, setting: tuple, seed: int, name: str, horizon: int, failure: tuple[int, int], link: tuple[int, int]
) -> dict[str, float]:
    """A failure and the day after it: errors beside those of persistence, recovery, fits."""
    learner, seconds = _trained(arm, setting, seed, name, horizon, link)
    learner = deepcopy(learner)
    before = _fits(learner)
    stream = _stream(name, horizon, link, ARMS[arm].missing, failure)
    start = stream.event_at(FAILS - horizon)
    begins = stream.event_at(FAILS - (horizon == 1))  # forecasts made before the failure count 5 minutes ahead only
    stream.changes, stream.deployed = (begins,), start
    monitor = ForecastError()
    monitor.start(learner, stream)
    fold = Fold(learner, stream, Budget(), [monitor])
    fold.position = start
    began = time.perf_counter()
    for number in range(start, len(stream)):
        fold.position = number
        _step(fold, stream, number, horizon)
    seconds += time.perf_counter() - began
    found = monitor.figures()["segments"][-1]
    return {
        "beside": 1 - found["skill"],
        "early": 1 - found["early"]["skill"],
        "mape": found["mape"],
        "recovered": -float(DAY if found["recovered"] is None else found["recovered"]),
        "fits": float(_fits(learner) - before),
        "seconds": seconds,
        "rmse": found["rmse"],
    }


def _fits(learner: Learner) -> int:
    return learner.refitted.fits if isinstance(learner, Hybrid) else getattr(learner, "fits", 0)


STUDY = LiquidStudy()
