"""Errors of forecasts: by hand, beside a slow twin, with late and corrected answers, and the time to recover."""

import math

import pytest
import torch

from everlearn import Batch, Budget, HeldOut, Learner, Schema, Stream, run
from everlearn.core.errors import ArgumentError
from everlearn.core.guard import Guard
from everlearn.core.run import Fold
from everlearn.core.state import capture, restore, same
from everlearn.measure.forecast_error import ForecastError


class Told(Learner):
    """Forecasts what the last columns of the window say."""

    name = "told"
    gives = ("values",)
    parts = ("guard",)

    def __init__(self, targets):
        self.targets = targets
        self.guard = Guard(self.name, targets=targets)

    def predict(self, x):
        return x[:, -1, -self.targets :]

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


class Given(Stream):
    """Windows of one step: the newest value of each target, then the forecast that `Told` gives; one row a batch, or as told."""

    name = "given"
    headline = "prequential"

    def __init__(self, newest, forecasts, y, *, batch=1, late=0, changes=(), deployed=0, features=True, held_out=()):
        self.newest, self.forecasts, self.y = newest, forecasts, y
        self.batch, self.late, self.changes, self.deployed = batch, late, changes, deployed
        names = tuple(f"t{k}" for k in range(y.shape[1]))
        columns = (*names, *(f"f{k}" for k in range(y.shape[1])))
        self.schema = Schema((1, len(columns)), torch.float32, (), columns if features else (), targets=names)
        self.held_out = held_out
        self.checkpoints = (len(self),) if held_out else ()
        self.order = []
        for number in range(len(y) // batch):
            self.order.append((number, not late))
            if late and number >= late:
                self.order.append((number - late, True))

    def __len__(self):
        return len(getattr(self, "order", ())) or len(self.y) // self.batch

    def __getitem__(self, index):
        number, answer = self.order[index]
        span = slice(number * self.batch, (number + 1) * self.batch)
        x = torch.cat([self.newest[span], self.forecasts[span]], dim=1)[:, None]
        names = tuple(f"{number}.{row}" for row in range(self.batch)) if self.late else None
        return Batch(x, self.y[span] if answer else None, id=names)


def figures(stream, monitor=None):
    monitor = monitor or ForecastError()
    run(Told(len(stream.schema.targets)), stream, monitors=[monitor])
    return monitor.figures()


def column(*values):
    return torch.tensor(values)[:, None]


def test_by_hand():
    """Forecasts 3, 8, 0.2 of 2, 10, 0.1, with newest values 2, 6, 0.1."""
    found = figures(Given(column(2.0, 6.0, 0.1), column(3.0, 8.0, 0.2), column(2.0, 10.0, 0.1)))
    assert found["rmse"] == pytest.approx(math.sqrt((1 + 4 + 0.01) / 3), rel=1e-6)
    assert found["mae"] == pytest.approx(3.1 / 3, rel=1e-6)
    assert found["mape"] == pytest.approx((0.5 + 0.2 + 0.1) / 3, rel=1e-6)  # 0.1 of a floor of 1
    assert found["smape"] == pytest.approx((2 / 5 + 4 / 18 + 0.2 / 0.3) / 3, rel=1e-6)
    assert found["skill"] == pytest.approx(1 - math.sqrt(5.01 / 16), rel=1e-6)
    assert found["scored"] == 3 and found["pending"] == 0


def test_percentages_of_next_to_nothing_are_of_the_floor_and_are_counted():
    """Forecasts 0.5, -1, 6, 4 of 0, -0.001, 1, -8: shares 0.5 / 1, 0.999 / 1, 5 / 1 and 12 / 8; the first two are of the floor."""
    y = column(0.0, -0.001, 1.0, -8.0)
    stream = Given(y, column(0.5, -1.0, 6.0, 4.0), y)
    found = figures(stream)
    assert found["mape"] == pytest.approx((0.5 + 0.999 + 5 + 1.5) / 4, rel=1e-6) and found["floored"] == 0.5
    lower = figures(stream, ForecastError(floor=0.001))  # what is as large as the floor is not below it; 0 is
    assert lower["mape"] == pytest.approx((500 + 999 + 5 + 1.5) / 4, rel=1e-5) and lower["floored"] == 0.25
    high = figures(stream, ForecastError(floor=10.0))  # no percentage at all: the mean error in units of the floor
    assert high["floored"] == 1.0 and high["mape"] == pytest.approx(high["mae"] / 10.0, rel=1e-6)
    assert found["mae"] == lower["mae"] == high["mae"] and found["smape"] == lower["smape"]


def test_what_is_nothing_is_forecast_without_error():
    found = figures(Given(column(0.0, 0.0), column(0.0, 0.0), column(0.0, 0.0)))
    assert found["smape"] == found["mape"] == found["rmse"] == 0.0 and found["skill"] is None


def random(rows, targets=2, seed=0):
    source = torch.Generator().manual_seed(seed)
    return (10 * torch.rand(rows, targets, generator=source) for _ in range(3))


def twin(newest, forecasts, y, rows, floor=1.0):
    """The equations over chosen rows, one number at a time."""
    cells = [(float(f), float(p), float(v)) for r in rows for f, p, v in zip(forecasts[r], newest[r], y[r], strict=True)]

    def mean(values):
        return sum(values) / len(values)

    rmse, simple = (math.sqrt(mean([(c[k] - c[2]) ** 2 for c in cells])) for k in (0, 1))
    return {
        "rmse": rmse,
        "mae": mean([abs(f - v) for f, _, v in cells]),
        "mape": mean([abs(f - v) / max(abs(v), floor) for f, _, v in cells]),
        "floored": mean([float(abs(v) < floor) for _, _, v in cells]),
        "smape": mean([2 * abs(f - v) / (abs(f) + abs(v)) for f, _, v in cells]),
        "skill": 1 - rmse / simple,
        "scored": len(rows),
    }


@pytest.mark.parametrize(("batch", "late"), [(1, 0), (3, 0), (1, 5), (3, 2)])
def test_segments_targets_and_all_agree_with_a_slow_twin(batch, late):
    newest, forecasts, y = random(60)
    plain = Given(newest, forecasts, y, batch=batch, late=late)
    inputs = [event for event, (_, answer) in enumerate(plain.order) if not late or not answer]
    deployed, first, second = (inputs[number] for number in (12 // batch, 24 // batch, 45 // batch))
    stream = Given(newest, forecasts, y, batch=batch, late=late, changes=(first, second), deployed=deployed)
    known = 60 - late * batch  # rows whose answers come before the end
    found = figures(stream, ForecastError(floor=4.0, span=6))

    def close(given, rows):
        wanted = twin(newest, forecasts, y, list(rows), floor=4.0)
        return {key: given[key] for key in wanted} == pytest.approx(wanted, rel=1e-6)

    assert close(found, range(12, known)) and close(found["all"], range(known))
    assert [(part["from"], part["change"]) for part in found["segments"]] == [
        (deployed, False),
        (first, True),
        (second, True),
    ]
    for part, rows in zip(found["segments"], (range(12, 24), range(24, 45), range(45, known)), strict=True):
        assert close(part, rows) and close(part["early"], rows[:6])
    one = found["by_target"]["t1"]
    assert one["rmse"] == pytest.approx(float((forecasts[12:known, 1] - y[12:known, 1]).double().pow(2).mean().sqrt()))
    assert found["pending"] == late * batch


def test_without_the_targets_among_the_columns_the_last_answer_stands_for_persistence():
    y = column(1.0, 3.0, 2.0)
    found = figures(Given(y, column(1.0, 1.0, 1.0), y, features=False))
    simple = [1.0 - 0.0, 3.0 - 1.0, 2.0 - 3.0]  # nothing is known before the first
    off = [0.0, 2.0, 1.0]
    assert found["skill"] == pytest.approx(1 - math.sqrt(sum(e * e for e in off) / sum(e * e for e in simple)))


def test_a_corrected_answer_is_counted_again():
    monitor = ForecastError()
    stream = Given(column(1.0, 1.0), column(2.0, 2.0), column(1.0, 1.0), late=1)
    learner = Told(1)
    monitor.start(learner, stream)
    fold = Fold(learner, stream, Budget(), [monitor])
    for event in (stream[0], stream[1], stream[2]):  # input 0, input 1, answer 0
        fold.step(event)
    assert monitor.figures()["mae"] == 1.0
    late = stream[2]
    fold.step(Batch(late.x, torch.tensor([[4.0]]), id=late.id))
    assert (
        monitor.figures()["mae"] == 2.0
        and monitor.figures()["scored"] == 1
        and monitor.figures()["skill"] == pytest.approx(1 - 2 / 3)
    )


# ---- the time to recover -----------------------------------------------------------------------------------------------------


def recovery(errors, change, **options):
    """Rows until recovery, of forecasts that are off by such shares of 10."""
    y = torch.full((len(errors), 1), 10.0)
    forecasts = 10.0 + 10.0 * torch.tensor(errors)[:, None]
    found = figures(Given(y + 1, forecasts, y, changes=(change,)), ForecastError(**options))
    return found["segments"][-1]["recovered"]


def slow_recovery(errors, change, theta, trailing):
    means = [
        sum(errors[max(0, k - trailing + 1) : k + 1]) / len(errors[max(0, k - trailing + 1) : k + 1])
        for k in range(len(errors))
    ]
    for start in range(change, len(errors) - trailing + 1):
        if all(mean <= theta for mean in means[start : start + trailing]):
            return start - change
    return None


def test_recovery_by_hand():
    """Errors of 0, then 8 of 60 %, then 0 again; with a trailing mean of 4 rows and theta 15 %: below it 3 rows behind the last."""
    errors = [0.0] * 10 + [0.6] * 8 + [0.0] * 12
    assert recovery(errors, 10, theta=0.16, trailing=4) == 8 + 2  # at the third 0 one error of four is left: 15 %
    assert recovery([0.0] * 30, 10, trailing=4) == 0
    assert recovery([0.5] * 30, 10, theta=0.5, trailing=4) == 0  # at most theta
    assert recovery([0.0] * 10 + [0.6] * 20, 10, trailing=4) is None
    assert recovery([0.0] * 10 + [0.6] * 8 + [0.0] * 5, 10, theta=0.16, trailing=4) is None  # too short to stay there


@pytest.mark.parametrize("seed", range(8))
def test_recovery_agrees_with_a_slow_twin(seed):
    source = torch.Generator().manual_seed(seed)
    errors = (torch.rand(80, generator=source) * torch.linspace(0.6, 0.02, 80).roll(30)).double().float().tolist()
    for change in (20, 30, 41):
        assert recovery(errors, change, theta=0.15, trailing=6) == slow_recovery(errors, change, 0.15 + 1e-7, 6)


def test_theta_may_be_relative_to_the_error_before():
    errors = [0.2] * 10 + [0.6] * 8 + [0.22] * 14
    assert recovery(errors, 10, theta=0.15, trailing=4) is None
    assert recovery(errors, 10, theta=1.2, relative=True, trailing=4) == 8 + 3  # 24 % is allowed
    assert recovery(errors, 10, theta=1.05, relative=True, trailing=4) is None


@pytest.mark.parametrize(("batch", "late"), [(1, 0), (5, 0), (1, 3)])
def test_recovery_is_also_told_in_events_of_the_stream(batch, late):
    """Rows 10 to 17 are off by 60 %, as above: the tenth row after the change is the first that stays low."""
    y = torch.full((60, 1), 10.0)
    forecasts = 10.0 + 10.0 * torch.tensor([0.0] * 10 + [0.6] * 8 + [0.0] * 42)[:, None]
    plain = Given(y + 1, forecasts, y, batch=batch, late=late)
    event = {number: place for place, (number, answer) in enumerate(plain.order) if not late or not answer}
    change = event[10 // batch]
    found = figures(
        Given(y + 1, forecasts, y, batch=batch, late=late, changes=(change,)), ForecastError(theta=0.16, trailing=4)
    )
    last = found["segments"][-1]
    assert (last["recovered"], last["recovered_events"]) == (10, event[20 // batch] - change)


def test_fits_are_counted_where_the_learner_tells_of_them():
    class Fitted(Told):
        """Tells of a fit with every third answer."""

        parts = ("guard", "seen")
        seen = 0

        def update(self, batch):
            self.seen += 1
            return {"fits": self.seen // 3} if self.seen % 3 == 0 else {}

    newest, forecasts, y = random(30, targets=1)
    stream = Given(newest, forecasts, y, changes=(20,), deployed=10)
    monitor = ForecastError()
    run(Fitted(1), stream, monitors=[monitor])
    found = monitor.figures()  # fits at events 2, 5, 8 | 11, 14, 17 | 20, 23, 26, 29
    assert found["refits"] == 7 and [part["refits"] for part in found["segments"]] == [3, 4]
    assert figures(Given(newest, forecasts, y))["refits"] == 0


# ---- held-out sets, curve, state ---------------------------------------------------------------------------------------------


def test_held_out_sets_are_judged_beside_persistence():
    x = torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]]])
    held = (HeldOut("calm", x, column(2.0, 4.0)), HeldOut("storm", x, column(1.0, 5.0)))
    stream = Given(column(1.0), column(1.0), column(1.0), held_out=held)
    found = figures(stream)["held_out"]
    assert found["calm"] == {"rmse": pytest.approx(math.sqrt(0.5)), "skill": pytest.approx(1 - math.sqrt(0.5 / 1.0))}
    assert found["storm"] == {"rmse": pytest.approx(math.sqrt(0.5)), "skill": None}


def test_the_curve_tells_of_the_rows_since_the_point_before():
    monitor, learner = ForecastError(), Told(3)
    newest, forecasts, y = random(6, targets=3)
    stream = Given(newest, forecasts, y)
    monitor.start(learner, stream)
    fold = Fold(learner, stream, Budget(), [monitor])
    for span in (range(4), range(4, 6)):
        for index in span:
            fold.step(stream[index])
        assert monitor.record(learner) == pytest.approx(
            {key: twin(newest, forecasts, y, span)[key] for key in ("rmse", "mape", "skill")}, rel=1e-6
        )
    assert monitor.record(learner) == {}


def test_state_in_the_middle_goes_on_to_the_same_figures():
    newest, forecasts, y = random(40)
    stream = Given(newest, forecasts, y, late=3, changes=(30, 50), deployed=10)
    whole, half, rest = (ForecastError(trailing=3, theta=5.0) for _ in range(3))
    learner = Told(2)
    for monitor in (whole, half, rest):
        monitor.start(learner, stream)
    both = Fold(learner, stream, Budget(), [whole, half])
    for index in range(37):
        both.step(stream[index])
    restore(rest, capture(half))
    later = Fold(learner, stream, Budget(), [whole, rest])
    later.position = 37
    for index in range(37, len(stream)):
        later.step(stream[index])
    assert same(capture(whole), capture(rest)) and whole.figures() == rest.figures()
    assert whole.figures()["segments"][1]["recovered"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"floor": 0.0}, "floor"), ({"span": 0}, "span"), ({"theta": -1.0}, "theta"), ({"trailing": 0}, "trailing")],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=f"forecast: {message}"):
        ForecastError(**options)
