"""The study that tests the house itself: does a small replay memory keep what fine-tuning forgets?

    accuracy[replay] - accuracy[fine_tune] >= 0.10   where classes come one group after the other,
    and the same inequality must fail where the same rows come shuffled (nothing to forget: the negative control).

Reference: Rolnick et al. (2019), Experience replay for continual learning, arXiv 1811.11682; Chaudhry et al. (2019), On tiny
episodic memories in continual learning, arXiv 1902.10486.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner, build_stream
from everlearn.core.run import run
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.studies.study import Arm, Claim, Measured, Study

MARGIN = 0.10
DIGITS, CIFAR = "digits", "CIFAR-100 superclasses"
SOURCES = {DIGITS: "digits", CIFAR: "cifar100_12k(labels='coarse')"}
CAPACITY = {DIGITS: 200, CIFAR: 1000}
MODEL = {DIGITS: "mlp(hidden=(100,))", CIFAR: "small_cnn(width=8)"}
BATCH = {DIGITS: 10, CIFAR: 32}
EPOCHS = {"quick": 1, "full": 3}
# Passes are tuned for every arm alike: replay sees more rows per step, and must not win by that alone.
SETTINGS = tuple({"lr": lr, "passes": passes} for lr in (0.1, 0.3) for passes in (1, 4))


class ReplayStudy(Study):
    """Replay against fine-tuning on digits and on the superclasses of CIFAR-100, five experiences each."""

    name: ClassVar[str] = "replay"
    title: ClassVar[str] = "A small replay memory keeps what fine-tuning forgets"
    reference: ClassVar[str] = "Rolnick et al. (2019), arXiv 1811.11682; Chaudhry et al. (2019), arXiv 1902.10486"
    measures: ClassVar[Mapping[str, str]] = {"accuracy": "average accuracy at the end"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three seeds, or five."""
        return tuple(range(3 if scale == "quick" else 5))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """Replay and fine-tuning on each data set, in sequence and shuffled."""
        rows = []
        for source in SOURCES:
            rows.append(Arm(f"replay, {source}", "system", SETTINGS))
            rows.append(Arm(f"fine_tune, {source}", "baseline", SETTINGS))
            rows.append(Arm(f"replay, {source}, shuffled", "control", SETTINGS))
            rows.append(Arm(f"fine_tune, {source}, shuffled", "control", SETTINGS))
        return tuple(rows)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """The margin in sequence; the same margin shuffled must fail."""
        rows = []
        for source in SOURCES:
            rows.append(
                Claim(
                    f"{source}: replay of {CAPACITY[source]} rows ends at least {MARGIN:.0%} above fine-tuning, classes in sequence",
                    f"replay, {source}",
                    f"fine_tune, {source}",
                    MARGIN,
                )
            )
            rows.append(
                Claim(
                    f"{source}: the same margin where rows come shuffled",
                    f"replay, {source}, shuffled",
                    f"fine_tune, {source}, shuffled",
                    MARGIN,
                    control=True,
                )
            )
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """Average accuracy over the held-out sets at the end of one stream."""
        method, source, *shuffled = arm.split(", ")
        rows = f"batch={BATCH[source]}, epochs={EPOCHS[scale]}"
        scenario = f"iid({SOURCES[source]}, {rows})" if shuffled else f"split({SOURCES[source]}, experiences=5, {rows})"
        arguments = f"passes={setting['passes']}, optimizer=sgd(lr={setting['lr']})"
        learner = f"fine_tune({arguments})" if method == "fine_tune" else f"replay(capacity={CAPACITY[source]}, {arguments})"
        stream = build_stream(scenario, seed)
        monitor = AccuracyMatrix()
        run(build_learner(learner, stream, MODEL[source], seed), stream, monitors=[monitor])
        return Measured({"accuracy": monitor.figures()["average_accuracy"]})


STUDY = ReplayStudy()
