"""The figure of a study on paper: every arm's seeds, mean and 95 % interval, with the verdicts under it."""

from pathlib import Path
from typing import Any

COLOURS = {
    "system": "#0072B2",
    "baseline": "#E69F00",
    "control": "#7f7f7f",
}  # Okabe & Ito (2008), safe for colour-blind readers


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the figure of a study's record as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    arms = record["arms"]
    figure, axes = pyplot.subplots(figsize=(8, 1.6 + 0.45 * len(arms)), layout="constrained")
    for row, arm in enumerate(reversed(arms)):
        colour = COLOURS.get(arm["role"], "#7f7f7f")
        axes.scatter(arm["values"], [row] * len(arm["values"]), color=colour, alpha=0.35, s=18, linewidths=0)
        if arm["low"] is not None:
            axes.plot([arm["low"], arm["high"]], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.scatter([arm["mean"]], [row], color=colour, s=55, zorder=3)
        axes.annotate(
            f"{arm['mean']:.3f}", (arm["mean"], row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_yticks(range(len(arms)), [arm["label"] for arm in reversed(arms)])
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.set_xlabel(f"{record['measure']}: seeds, mean and 95 % interval")
    figure.suptitle(f"{record['title']}\n{record['verdict']} at {record['scale']} scale", x=0.01, ha="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
