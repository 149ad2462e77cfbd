"""The study of dynamic sparse training: which masks let one network learn task after task and forget nothing.

    unchanged[isolated tasks] = 1                                                    every old score, to the bit
    accuracy[Erdos-Renyi, momentum] >= accuracy[no isolation] + 0.08,  accuracy[dense] + 0.10
    accuracy[Erdos-Renyi] >= accuracy[uniform]                          each growth rule, at density 0.2 and 0.5    (full scale)

CIFAR-100 at 16 x 16, tasks of ten classes, the task is told. Every first draw with every growth rule, a static mask among them, at
two or four densities; each switch by itself at density 0.2. Shared normalisation must forget, although the masks are the same (the
negative control). Fine-tuning without masks or without isolation is tuned, the sparse learner is not.

Reference: Yildirim et al. (2024), Continual learning with dynamic sparse training, CPAL, arXiv 2308.14831.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner
from everlearn.core.run import run
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.known_sets import cifar100_12k
from everlearn.data.pooled import pooled
from everlearn.data.split import tasks
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.measure.metrics import learning_accuracy
from everlearn.measure.sparsity import Sparsity
from everlearn.measure.unchanged import Unchanged
from everlearn.studies.study import Arm, Claim, Measured, Study

NETWORK = "conv_stack(widths=(24, 48, 96, 96))"
BATCH, EPOCHS = 50, 8
STEPS = 20  # of a pass over a task
TASKS = {"quick": 6, "full": 10}
OFTEN = 20  # steps between updates
MAIN = 0.2
DENSITIES = (0.02, 0.05, MAIN, 0.5)
INITS = {"erk": "Erdos-Renyi", "uniform": "uniform"}
GROWTH = ("none", "random", "unfired", "gradient", "momentum")
ONLY_HIGH = ("unfired", "gradient")  # measured at the two higher densities, to save a quarter of an hour
TUNED = tuple({"lr": lr, "norms": norms} for lr in (0.0003, 0.001, 0.003) for norms in ("per_task", "shared"))
BY_DENSITY, IN_USE = "Accuracy against density", "Share of the weights in use, over the tasks (density 0.2)"
UNTUNED = ({"lr": 0.001, "norms": "per_task"},)


@dataclass(frozen=True)
class Setup:
    """An arm: the learner's switches, the densities at which it is measured, role, settings tried."""

    switches: str
    densities: tuple[float, ...] = (MAIN,)
    role: str = "part"
    settings: tuple[Mapping[str, Any], ...] = ({},)


def label_of(init: str, growth: str) -> str:
    """What an arm of the grid is called."""
    return f"{INITS[init]}, {'static' if growth == 'none' else growth}"


GRID = {
    label_of(init, growth): Setup(f"init={init!r}, growth={growth!r}", DENSITIES[2 * (growth in ONLY_HIGH) :], role="system")
    for init in INITS
    for growth in GROWTH
}
BY_MOMENTUM = "growth='momentum'"
SYSTEM = label_of("erk", "momentum")
DENSE, OPEN, SHARED = "dense", "no isolation", "shared normalisation"
BASELINES = {
    DENSE: Setup(
        "growth='none', isolate=False, normalisation={norms!r}, optimizer=adam(lr={lr})",
        (1.0,),
        role="baseline",
        settings=TUNED,
    ),
    OPEN: Setup(
        f"{BY_MOMENTUM}, isolate=False, normalisation={{norms!r}}, optimizer=adam(lr={{lr}})",
        role="baseline",
        settings=TUNED,
    ),
}
SWITCHES = {
    SHARED: Setup(f"{BY_MOMENTUM}, normalisation='shared'", role="control"),
    "frozen weights regrow as zero": Setup(f"{BY_MOMENTUM}, regrown='zero'"),
    "free weights begin at zero": Setup(f"{BY_MOMENTUM}, free_weights='zero'"),
    "masked head": Setup(f"{BY_MOMENTUM}, head='shared'"),
    "nothing shared": Setup(f"{BY_MOMENTUM}, share=False"),
    "removal by sign": Setup(f"{BY_MOMENTUM}, removal='sign'"),
    "removal by Taylor": Setup(f"{BY_MOMENTUM}, removal='taylor'"),
    "released code": Setup(
        "growth='random', regrown='zero', free_weights='zero', head='shared', normalisation='shared', answers='all'"
    ),
    "PackNet": Setup("method='packnet'"),
    "PackNet, a tenth for each task": Setup("method='packnet'", (0.1,)),
    "WSN": Setup("method='wsn'"),
}
AUTO = {"automatic": Setup("init='auto', growth='auto'", role="system")}
ARMS = GRID | BASELINES | SWITCHES | AUTO
QUICK = (SYSTEM, label_of("uniform", "random"), DENSE, OPEN, SHARED)


class SparseStudy(Study):
    """First draws, growth rules and densities, and what each switch is worth."""

    name: ClassVar[str] = "dst"
    title: ClassVar[str] = "A mask for each task lets one network learn on and forget nothing"
    reference: ClassVar[str] = "Yildirim et al. (2024), arXiv 2308.14831"
    measures: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy over all tasks at the end, the task told, at density 0.2 (dense: 1, PackNet once: 0.1)",
        "0.02": "the same at density 0.02",
        "0.05": "the same at density 0.05",
        "0.5": "the same at density 0.5",
        "learned": "accuracy on each task when it had just been learned, mean, at density 0.2",
        "backward transfer": "accuracy at the end less that when just learned, mean, at density 0.2",
        "unchanged": "share of earlier tasks' scores that stayed to the bit, at density 0.2",
        "used": "share of the weights that some task reads at the end, at density 0.2",
        "seconds": "seconds of a run of ten tasks (quick: six)",
    }

    axes: ClassVar[Mapping[str, str]] = {BY_DENSITY: "density (logarithmic)"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three draws of classes, network and masks."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """The grid with all its switches at full scale; five arms, untuned, at quick scale."""
        if scale == "full":
            return tuple(Arm(label, setup.role, setup.settings) for label, setup in ARMS.items())
        plain = {label: UNTUNED if ARMS[label].settings is TUNED else ({},) for label in QUICK}
        return tuple(Arm(label, ARMS[label].role, plain[label]) for label in QUICK)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """What isolation is worth, that nothing is forgotten, at full scale the first draw, and the control."""
        stays, all_of_them = "unchanged", 0.99999
        rows = [
            Claim("nothing old changes by a bit", SYSTEM, "", all_of_them, measure=stays),
            Claim("isolation is worth at least 8%", SYSTEM, OPEN, 0.08),
            Claim("masks are worth at least 10% over dense fine-tuning", SYSTEM, DENSE, 0.10),
            Claim(
                "shared normalisation costs at least 5% although masks are the same",
                "",
                SHARED,
                0.05,
                measure="backward transfer",
            ),
        ]
        if scale == "full":
            for growth in GROWTH:
                left, right = label_of("erk", growth), label_of("uniform", growth)
                rows += [
                    Claim(f"Erdos-Renyi leads uniform at density {told} ({growth})", left, right, measure=measure)
                    for told, measure in ((MAIN, "accuracy"), (0.5, "0.5"))
                ]
        rows.append(
            Claim("with shared normalisation nothing old changes", SHARED, "", all_of_them, control=True, measure=stays)
        )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """All tasks, once for each density of the arm."""
        setup = ARMS[arm]
        stream = _stream(scale, seed)
        pace = f"update_every={OFTEN}, task_steps={STEPS * EPOCHS}"
        scores: dict[str, float] = {}
        curves: dict[str, list[list[float]]] = {}
        by_density: list[list[float]] = []
        for density in setup.densities if scale == "full" else (setup.densities[-1] if arm == DENSE else MAIN,):
            call = f"sparse(density={density}, {pace}, {setup.switches.format(**setting)})"
            learner = build_learner(call, stream, NETWORK, seed)
            began = time.perf_counter()
            found = run(learner, stream, monitors=[AccuracyMatrix(), Unchanged(), Sparsity()]).figures
            seconds = time.perf_counter() - began
            accuracy = found["matrix"]["average_accuracy"]
            by_density.append([density, accuracy])
            if density != MAIN and len(setup.densities) > 1:
                scores[str(density)] = accuracy
                continue
            learned = learning_accuracy(found["matrix"]["matrix"])
            scores |= {"accuracy": accuracy, "learned": learned, "seconds": seconds}
            scores |= {
                "backward transfer": found["matrix"]["backward_transfer"],
                "unchanged": found["unchanged"]["unchanged"],
            }
            used = [[float(place), row["used"]] for place, row in enumerate(found["sparsity"]["by_task"], start=1)]
            scores["used"] = used[-1][1]
            if arm in (SYSTEM, label_of("uniform", "random"), "nothing shared", "automatic", "PackNet", "WSN"):
                curves[IN_USE] = used
        if arm in GRID:
            curves[BY_DENSITY] = by_density
        return Measured(scores, curves if scale == "full" else {})


def _stream(scale: str, seed: int) -> Stream:
    return tasks(_photographs(10 * TASKS[scale]), experiences=TASKS[scale], batch=BATCH, epochs=EPOCHS, seed=seed)


@cache
def _photographs(classes: int) -> Data:
    """The rows of the first classes."""
    data = pooled(cifar100_12k())
    few, judged = data.y < classes, data.test_y < classes
    return replace(data, x=data.x[few], y=data.y[few], test_x=data.test_x[judged], test_y=data.test_y[judged])


STUDY = SparseStudy()
