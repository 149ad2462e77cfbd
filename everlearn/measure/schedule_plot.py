"""How a schedule looks: as bars in a terminal, and as a figure beside others.

One bar stands for the value at its step; its length is the value's share of the highest one shown.
"""

from collections.abc import Mapping
from pathlib import Path

from everlearn.core.errors import StateError, check_count
from everlearn.optim.schedules import CosineCycle, Decay, Infinite, InverseSqrt, Join, RepeatedCosine, Schedule, Warmup

LINES, WIDTH = 25, 50  # of the picture in a terminal
POINTS = 1000  # of a curve
STEPS = 1000  # shown of a schedule that tells no length


def shown_steps(schedule: Schedule) -> int:
    """How many steps show all of a schedule: its end, or long enough to see how it goes on.

    >>> shown_steps(RepeatedCosine(0.1, steps=300)), shown_steps(Infinite(0.1, 50, 300))
    (600, 600)
    """
    if isinstance(schedule, Infinite):
        return schedule.anneal_end or 2 * schedule.cooldown_end or STEPS
    if isinstance(schedule, RepeatedCosine):
        return 2 * schedule.steps
    if isinstance(schedule, CosineCycle):
        return 2 * schedule.period
    if isinstance(schedule, InverseSqrt):
        return 10 * schedule.warmup
    if isinstance(schedule, Join):
        return schedule.steps + shown_steps(schedule.second)
    return schedule.steps if isinstance(schedule, (Decay, Warmup)) else STEPS


def bars(schedule: Schedule, steps: int) -> str:
    """A line for each of up to 25 steps from 0 to `steps`: the step, the value, and a bar.

    >>> print(bars(Warmup(0.1, steps=4), 4))
    0  0
    1  0.025  ############
    2  0.05   #########################
    3  0.075  #####################################
    4  0.1    ##################################################
    """
    check_count("show", "steps", steps)
    chosen = sorted({round(steps * place / (LINES - 1)) for place in range(LINES)})
    values = [schedule(step) for step in chosen]
    highest = max(values) or 1.0
    texts = [f"{value:.4g}" for value in values]
    wide, long = len(str(steps)), max(map(len, texts))
    lines = [
        f"{step:>{wide}}  {text:<{long}}  {'#' * int(WIDTH * value / highest)}"
        for step, text, value in zip(chosen, texts, values, strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines)


def plot_schedules(schedules: Mapping[str, Schedule], steps: int, path: str | Path) -> Path:
    """Draw schedules over steps 0..steps into a file (png, svg or pdf by its suffix), each under its name; returns the path."""
    check_count("plot_schedules", "steps", steps)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    at = sorted({round(steps * place / POINTS) for place in range(POINTS + 1)})
    for name, schedule in schedules.items():
        axes.plot(at, [schedule(step) for step in at], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("value")
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StateError(f"cannot draw {path}: {error}.") from error
    finally:
        pyplot.close(figure)
    return Path(path)
