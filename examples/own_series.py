"""Your own series: is it worth it to fit a forecaster again, how soon is it back after a change, and what does that cost?

Run it with `python examples/own_series.py`. It writes six weeks of a factory's load by the hour, whose rhythm is another from the 29th of
May on, compares forecasters beside persistence (all stays as it is), and leaves a report.
"""

import csv
from datetime import datetime, timedelta
from pathlib import Path

import numpy

from everlearn import compare


def write_series(path: Path) -> None:
    """One long day for four weeks, then shifts of four hours."""
    random = numpy.random.default_rng(0)
    hours = numpy.arange(24 * 42)
    day, shifts = numpy.sin(2 * numpy.pi * hours / 24), numpy.where(hours % 8 < 4, 1.0, -1.0)
    load = numpy.where(hours < 24 * 28, 300 + 120 * day, 300 + 140 * shifts) * (
        1 + 0.03 * random.standard_normal(len(hours))
    )
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["hour", "load"])
        for hour, value in zip(hours.tolist(), load.tolist(), strict=True):
            table.writerow([(datetime(2024, 5, 1) + timedelta(hours=hour)).isoformat(), round(value, 1)])


def main(folder: Path = Path("everlearn-runs/own-series")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_series(folder / "load.csv")
    result = compare(
        ["boosted", "boosted(refit=every(24))"],
        f"forecast('{(folder / 'load.csv').as_posix()}', target='load', time='hour', changes=('2024-05-29',))",
        seeds=2,
        folder=folder,
    )
    for learner in result.record["learners"]:
        found = learner["runs"][0]["figures"]["forecast"]
        hours = found["segments"][-1]["recovered"]
        told = "never recovered" if hours is None else f"recovered after {hours} hours"
        print(f"{learner['label']}: RMSE {found['rmse']:.0f}, {found['refits']} fits, {told}")
    print(result.verdict["code"], "->", result.verdict["learner"])
    print("report:", folder / "report.html")


if __name__ == "__main__":
    main()
