"""Print medians over failures from the record of the study `liquid`: python scripts/liquid_ratios.py docs/studies/liquid.json"""

import json
import sys
from pathlib import Path
from statistics import median

REFITTED = ("re-fitted every 12", "re-fitted every 36", "re-fitted every 144")


def main(path: str) -> None:
    """RMSE beside persistence's, and that of the CfC and the hybrid beside the best of the re-fitted networks, case by case."""
    record = json.loads(Path(path).read_text())
    curves = {arm["label"]: arm["curves"] for arm in record["arms"] if arm["curves"]}
    kinds = list(curves["CfC"])
    print("| median over the failures of | " + " | ".join(name.split(", ", 1)[1] for name in kinds) + " |")
    print("|---|" + "---:|" * len(kinds))
    for label, found in curves.items():
        _row(f"{label} / persistence", [_values(found, name) for name in kinds])
    for label in ("CfC", "hybrid"):
        if label in curves:
            _row(f"{label} / the best re-fitted of each failure", [_beside(curves, label, name) for name in kinds])
    if "hybrid" in curves:
        pairs = [_beside(curves, "hybrid", name, ("CfC", "re-fitted every 36")) for name in kinds]
        _row("hybrid / the better of CfC and re-fitted every 36", pairs)


def _values(found: dict, name: str) -> list[float] | None:
    return [point[1] for point in found[name]] if name in found else None


def _beside(curves: dict, label: str, name: str, others: tuple[str, ...] = REFITTED) -> list[float] | None:
    """The errors of an arm divided by the least of the others, failure by failure (means over seeds)."""
    own = _values(curves[label], name)
    best = [values for other in others if (values := _values(curves[other], name)) is not None]
    return None if own is None else [value / min(row) for value, row in zip(own, zip(*best, strict=True), strict=True)]


def _row(label: str, columns: list[list[float] | None]) -> None:
    print(f"| {label} | " + " | ".join("" if values is None else f"{median(values):.2f}" for values in columns) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
