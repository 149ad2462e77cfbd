"""A table of series as a stream of forecasts: windows by hand, times that are not there, and what is refused with its line."""

import numpy
import pytest
import torch

from everlearn import Forecaster, run
from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch
from everlearn.core.spec import build, parse
from everlearn.data.forecast import forecast
from everlearn.data.scenarios import SCENARIOS
from everlearn.measure.forecast_error import ForecastError
from everlearn.nn.series import CfC

ROWS = [(10 * k, k * k, -k, "x") for k in range(1, 9)]


def written(folder, rows=ROWS, name="load.csv", head="hour,load,price,note"):
    path = folder / name
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def flat(batch):
    return batch.x.flatten().tolist(), None if batch.y is None else batch.y.flatten().tolist()


def test_windows_and_answers_by_hand(tmp_path):
    stream = forecast(written(tmp_path), target="load", time="hour", window=3)
    assert len(stream) == 8 - 3 and stream.schema.targets == stream.schema.features == ("load",)
    assert stream.schema.shape == (3, 1) and stream.schema.answers == "values" and stream.headline == "prequential"
    assert flat(stream[0]) == ([1.0, 4.0, 9.0], [16.0]) and stream[0].time.tolist() == [30.0]
    assert flat(stream[4]) == ([25.0, 36.0, 49.0], [64.0]) and stream[0].id is None
    assert stream.deployed == 2


def test_answers_further_ahead_come_when_they_are_known(tmp_path):
    stream = forecast(written(tmp_path), target="load", time="hour", window=2, horizon=3)
    told = [(batch.id[0], batch.y is not None) for batch in stream]
    # window ends 1..4 have answers at 4..7: that of window 1 is known when the window that ends at 4 comes
    assert told == [
        ("1", False),
        ("2", False),
        ("3", False),
        ("1", True),
        ("4", False),
        ("2", True),
        ("3", True),
        ("4", True),
    ]
    assert flat(stream[3]) == ([1.0, 4.0], [25.0])


def test_several_targets_and_other_columns(tmp_path):
    stream = forecast(written(tmp_path), target=("price", "load"), window=2, columns=("hour",), batch=3)
    assert stream.schema.targets == ("price", "load") and stream.schema.features == ("price", "load", "hour")
    assert stream[0].x[0].tolist() == [[-1.0, 1.0, 10.0], [-2.0, 4.0, 20.0]] and stream[0].y[0].tolist() == [-3.0, 9.0]
    assert stream[0].x.shape == (3, 2, 3) and stream[0].time.tolist() == [1.0, 2.0, 3.0]  # rows are one apart


def test_samples_that_are_not_there_are_told_by_the_time_between_them(tmp_path):
    lost = [row for row in ROWS if row[0] not in (30, 40)]
    stream = forecast(written(tmp_path, lost), target="load", time="hour", window=2)
    # 10 20 50 60 70 80: windows that end at 50, 60, 70 have their answers; 20's answer at 30 is lost, and 10-20 has no window after it
    assert [batch.x["values"].flatten().tolist() for batch in stream] == [[4.0, 25.0], [25.0, 36.0], [36.0, 49.0]]
    assert [batch.x["dt"].flatten().tolist() for batch in stream] == [[1.0, 3.0], [3.0, 1.0], [1.0, 1.0]]
    assert [batch.y.item() for batch in stream] == [36.0, 49.0, 64.0]
    holes = [(a, "" if a in (30, 40) else b, c, d) for a, b, c, d in ROWS]
    again = forecast(written(tmp_path, holes, "holes.csv"), target="load", time="hour", window=2, missing="gap")
    assert len(again) == len(stream)
    for first, second in zip(stream, again, strict=True):
        assert torch.equal(first.x["values"], second.x["values"]) and torch.equal(first.x["dt"], second.x["dt"])


@pytest.mark.slow
def test_a_fifth_of_the_samples_lost_costs_less_than_half_as_much_error_again(tmp_path):
    """The acceptance line of the method; a forecaster that is as wrong as persistence without gaps would not tell anything."""
    random = numpy.random.default_rng(1)
    hours = numpy.arange(500)
    load = (300 + 120 * numpy.sin(2 * numpy.pi * hours / 24)) * (1 + 0.03 * random.standard_normal(500))
    found = []
    for kept in (hours, hours[(random.random(500) > 0.2) | (hours == 0)]):
        rows = [(hour, f"{load[hour]:.2f}") for hour in kept]
        stream = forecast(written(tmp_path, rows, f"{len(rows)}.csv", "hour,load"), target="load", time="hour")
        monitor = ForecastError()
        run(Forecaster(CfC(), updates=stream.deployed), stream, monitors=[monitor])
        found.append(monitor.figures())
    assert found[0]["skill"] > 0.3 and found[1]["rmse"] < 1.5 * found[0]["rmse"]
    assert found[1]["scored"] < 0.75 * found[0]["scored"]


def test_dates_and_a_step_of_ones_own(tmp_path):
    rows = [(f"2024-05-{day:02d}", day) for day in (1, 2, 3, 5, 6)]
    path = written(tmp_path, rows, head="day,sold")
    stream = forecast(path, target="sold", time="day", window=1)
    assert stream[0].time.tolist() == [1714521600.0] and [b.x["dt"].item() for b in stream] == [1.0, 1.0, 2.0]
    assert len(forecast(path, target="sold", time="day", window=1, step=86400.0)) == 3


def test_a_stream_is_called_as_it_is_typed(tmp_path):
    path = written(tmp_path)
    stream = forecast(path, target=("load", "price"), time="hour", window=2, first=0.25)
    assert stream.name == f"forecast({str(path)!r}, target=('load', 'price'), time='hour', window=2, first=0.25)"
    again = build(parse(stream.name), SCENARIOS)
    assert again.name == stream.name and torch.equal(again[1].x, stream[1].x)
    assert all(isinstance(event, Batch) for event in stream) and stream.deployed == round(0.25 * len(stream))


def test_changes_that_the_user_knows_of_are_those_of_the_stream(tmp_path):
    path = written(tmp_path)  # times 10 to 80; windows of two end at 20 to 70, their answers lie at 30 to 80
    options = {"target": "load", "time": "hour", "window": 2}
    assert forecast(path, **options, changes=(50, 71)).changes == (
        2,
        5,
    )  # the first answers at or after 50 and 71: at 50 and 80
    with_batches = forecast(path, **options, changes=(50,), batch=4)
    assert [len(batch) for batch in with_batches] == [3, 3]  # windows that end before 50, and from then on
    dates = written(tmp_path, [(f"2024-05-{day:02d}", day) for day in range(1, 9)], "sold.csv", head="day,sold")
    for told in ("2024-05-05", "2024-05-04T12:00:00", "2024-05-05T02:00:00+02:00"):
        stream = forecast(dates, target="sold", time="day", window=2, changes=(told,))
        assert stream.changes == (2,) and build(parse(stream.name), SCENARIOS).changes == (2,)
    assert forecast(path, target="load", window=2, changes=(4,)).changes == (
        2,
    )  # without a column of times, rows count from 0


def changed(row, column, value):
    rows = [list(cells) for cells in ROWS]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (changed(3, 0, 15), {}, r"column 'hour', line 5 .*: the time '15' comes after '30'\. Times must rise"),
        (changed(3, 0, 30), {}, r"column 'hour', line 5 .*: the time '30' comes a second time"),
        (
            changed(3, 0, 43),  # one row is off the step that the others keep: it is the one that is named
            {},
            r"column 'hour', line 5 .*: the time '43' lies 3\.3 steps of 10 after the first; samples must be whole",
        ),
        (changed(3, 0, 43), {"step": 10.0}, r"lies 3\.3 steps of 10 after the first"),
        (ROWS, {"step": 100.0}, "lies 0.1 steps of 100 after the first"),
        (changed(3, 0, ""), {}, "column 'hour', line 5 .*: the time is missing"),
        (changed(3, 1, ""), {}, r"column 'load', line 5 .*: the value is missing\. Fill it in, or use missing='gap'"),
        (changed(3, 1, "inf"), {}, "column 'load', line 5"),
        (ROWS, {"target": "note"}, "column 'note' holds text such as 'x'; only numbers can be forecast"),
        (ROWS, {"target": "lode"}, "unknown column 'lode'; did you mean 'load'"),
        (ROWS, {"columns": ("prices",)}, "unknown column 'prices'; did you mean 'price'"),
        (ROWS, {"window": 8}, "8 samples are too few; window=8 and horizon=1 need 9"),
        (changed(7, 0, 10**6), {}, r"spans 99999\d? steps? of 10 with 8 rows|spans 100000 steps of 10 with 8 rows"),
    ],
)
def test_tables_that_cannot_be_forecast_are_refused_with_the_place(tmp_path, rows, options, message):
    with pytest.raises(DataError, match=message):
        forecast(written(tmp_path, rows), **{"target": "load", "time": "hour", "window": 2} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 3}, "target must be a name or names"),
        ({"target": ()}, "target must name a column"),
        ({"target": ("load", "load")}, "names a column twice"),
        ({"target": "hour"}, "'hour' is the time, and cannot be forecast"),
        ({"horizon": 0}, "horizon"),
        ({"window": 0}, "window"),
        ({"first": 1.5}, "first"),
        ({"step": 0.0}, "step"),
        ({"changes": 50}, r"changes must be times such as \('2024-05-31',\), got 50"),
        ({"changes": ("May",)}, "the change 'May' cannot be read as a time"),
        ({"changes": (float("nan"),)}, "the change nan cannot be read"),
        ({"changes": (50, 50)}, "the change 50 does not come after the one before"),
        ({"changes": (500,)}, "the change 500 lies outside of the times"),
        ({"changes": (10,)}, "the change 10 lies outside of the times of the table, or at their beginning"),
        ({"missing": "fill"}, "missing must be 'error' or 'gap', got 'fill'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        forecast(written(tmp_path), **{"target": "load", "time": "hour", "window": 2} | options)
