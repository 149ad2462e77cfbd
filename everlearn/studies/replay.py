"""The study that tests the house itself: does a small replay memory keep what fine-tuning forgets?

    accuracy[replay] - accuracy[fine_tune] >= 0.05   where classes come one group after the other,
    and the same inequality must fail where the same rows come shuffled (nothing to forget: the negative control).

Reference: Rolnick et al. (2019), Experience replay for continual learning, arXiv 1811.11682; Chaudhry et al. (2019), On tiny
episodic memories in continual learning, arXiv 1902.10486.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from everlearn.compare.catalog import build_learner, build_stream
from everlearn.core.run import run
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.studies.study import Arm, Claim, Study

MARGIN = 0.05
RATES = {"quick": (0.01, 0.03, 0.1), "full": (0.003, 0.01, 0.03, 0.1, 0.3)}
SOURCES = {"digits": "digits", "CIFAR-100 superclasses": "cifar100_12k(labels='coarse')"}
CAPACITY = {"digits": 200, "CIFAR-100 superclasses": 1000}
MODEL = {"digits": "mlp(hidden=(100,))", "CIFAR-100 superclasses": "small_cnn(width=8)"}
EPOCHS = {"quick": {"digits": 1, "CIFAR-100 superclasses": 1}, "full": {"digits": 3, "CIFAR-100 superclasses": 3}}


class ReplayStudy(Study):
    """Replay against fine-tuning on digits and on the superclasses of CIFAR-100, five experiences each."""

    name: ClassVar[str] = "replay"
    title: ClassVar[str] = "A small replay memory keeps what fine-tuning forgets"
    reference: ClassVar[str] = "Rolnick et al. (2019), arXiv 1811.11682; Chaudhry et al. (2019), arXiv 1902.10486"
    measure_name: ClassVar[str] = "average accuracy at the end"

    def seeds(self, scale: str) -> tuple[int, ...]:
        return tuple(range(3 if scale == "quick" else 10))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        settings = tuple({"lr": rate} for rate in RATES[scale])
        rows = []
        for source in SOURCES:
            rows.append(Arm(f"replay, {source}", "system", settings))
            rows.append(Arm(f"fine_tune, {source}", "baseline", settings))
            rows.append(Arm(f"replay, {source}, shuffled", "control", settings))
            rows.append(Arm(f"fine_tune, {source}, shuffled", "control", settings))
        return tuple(rows)

    def claims(self, scale: str) -> tuple[Claim, ...]:
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

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> float:
        method, source, *shuffled = arm.split(", ")
        epochs = EPOCHS[scale][source]
        scenario = f"iid({SOURCES[source]}, epochs={epochs})"
        if not shuffled:
            scenario = f"split({SOURCES[source]}, experiences=5, epochs={epochs})"
        optimizer = f"optimizer=sgd(lr={setting['lr']})"
        learner = f"fine_tune({optimizer})" if method == "fine_tune" else f"replay(capacity={CAPACITY[source]}, {optimizer})"
        stream = build_stream(scenario, seed)
        monitor = AccuracyMatrix()
        run(build_learner(learner, stream, MODEL[source], seed), stream, monitors=[monitor])
        return monitor.figures()["average_accuracy"]


STUDY = ReplayStudy()
