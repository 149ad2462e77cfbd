"""The figure of a study on paper: each measure with every arm's seeds, mean and 95 % interval, and the curves of the arms."""

from pathlib import Path
from typing import Any

COLOURS = {
    "system": "#0072B2",
    "baseline": "#E69F00",
    "part": "#56B4E9",
    "control": "#7f7f7f",
}  # Okabe & Ito (2008), safe for colour-blind readers
DASHES = ("-", "--", ":", "-.")
COLUMNS = 2  # panels side by side
FEW, MANY = 6, 10  # lines of one panel
CURVES = 4.5  # inches


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the figure of a study's record as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    arms = record["arms"]
    panels = [("measure", name) for name in record["measures"]]
    panels += [("curve", name) for name in dict.fromkeys(name for arm in arms for name in arm["curves"])]
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    tall = [_inches(arms, *panel) for panel in panels]
    heights = [max(tall[columns * line : columns * (line + 1)]) for line in range(lines)]
    figure, grid = pyplot.subplots(
        lines,
        columns,
        figsize=(8 * columns, 0.8 + sum(heights)),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for axes, panel in zip(grid.flat, panels, strict=False):
        (_measure if panel[0] == "measure" else _curve)(axes, record, panel[1])
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    figure.suptitle(f"{record['title']}\n{record['verdict']} at {record['scale']} scale", x=0.01, ha="left", fontsize=12)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def _inches(arms: list[dict[str, Any]], kind: str, name: str) -> float:
    """The height of a panel: a line for each arm, or enough for curves."""
    return CURVES if kind == "curve" else 1.0 + 0.36 * sum(name in arm["measures"] for arm in arms)


def _measure(axes: Any, record: dict[str, Any], name: str) -> None:
    """One row per arm that has the measure."""
    arms = [arm for arm in record["arms"] if name in arm["measures"]]
    for row, arm in enumerate(reversed(arms)):
        found, colour = arm["measures"][name], COLOURS.get(arm["role"], "#7f7f7f")
        if found["low"] is not None:
            axes.plot([found["low"], found["high"]], [row, row], color=colour, alpha=0.45, linewidth=2.5)
        axes.scatter(found["values"], [row] * len(found["values"]), color=colour, marker="|", s=60, zorder=2)
        axes.scatter([found["mean"]], [row], color=colour, s=55, zorder=3)
        place = (found["mean"], row)
        axes.annotate(f"{found['mean']:.3f}", place, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(arms)), [arm["label"] for arm in reversed(arms)])
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.set_xlabel(f"{record['measures'][name]}: seeds, mean and 95 % interval")
    axes.grid(axis="x", alpha=0.25)


def _curve(axes: Any, record: dict[str, Any], name: str) -> None:
    """One line per arm over tasks: the mean over seeds, in a band from the lowest to the highest where lines are few.

    Where they are many, parts of the system are left out.
    """
    from matplotlib import colormaps

    arms = [arm for arm in record["arms"] if name in arm["curves"]]
    if len(arms) > MANY:
        arms = [arm for arm in arms if arm["role"] != "part"]
    hues = colormaps["tab10"].colors
    for number, arm in enumerate(arms):
        x, mean, low, high = zip(*arm["curves"][name], strict=True)
        hue, style = hues[number % len(hues)], DASHES[number // len(hues) % len(DASHES)]
        axes.plot(x, mean, style, color=hue, linewidth=1.6, label=arm["label"])
        if len(arms) <= FEW:
            axes.fill_between(x, low, high, color=hue, alpha=0.12, linewidth=0)
    axes.set_title(name, loc="left", fontsize=10)
    along = record.get("axes", {}).get(name, "tasks")
    axes.set_xlabel(along)
    if "logarithmic" in along:
        axes.set_xscale("log")
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.12))  # beside it, it would squeeze
    axes.grid(alpha=0.25)
