"""Your own table and your own network beside your own scikit-learn estimator: is it worth it to keep learning?

Run it with `python examples/own_csv.py`. It writes a table of real measurements whose world drifts (tumours, ordered by size, so
that later rows differ from earlier ones), compares, and leaves a report.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from torch import nn

from everlearn import compare


def build(schema):
    """Your own network: any torch.nn.Module that maps rows to (rows, classes) scores."""
    return nn.Sequential(nn.Linear(schema.shape[0], 32), nn.Tanh(), nn.Linear(32, schema.outputs))


def write_table(path: Path) -> None:
    """569 real tumours, the small ones first."""
    data = load_breast_cancer()
    order = data.data[:, 0].argsort(kind="stable")
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["day", *data.feature_names, "diagnosis"])
        for day, row in enumerate(order):
            table.writerow([day, *data.data[row], data.target_names[data.target[row]]])


def main(folder: Path = Path("everlearn-runs/own-csv")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "tumours.csv")
    result = compare(
        ["replay(capacity=100)", "sklearn(RandomForestClassifier(n_estimators=30), refit=every(100))"],
        str(folder / "tumours.csv"),
        target="diagnosis",
        time="day",
        model="own_csv:build",
        seeds=3,
        folder=folder,
    )
    print(result.verdict["code"], "->", result.verdict["learner"])
    print("report:", folder / "report.html")


if __name__ == "__main__":
    main()
