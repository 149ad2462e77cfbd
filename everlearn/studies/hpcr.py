"""The study of holistic proxy-based contrastive replay: does contrast over the classes at hand forget less than replay does?

    accuracy[pcr]  >= accuracy[replay] + margin        forgetting[pcr]  <= forgetting[replay] - 0.10
    accuracy[hpcr] >= accuracy[pcr]   + margin        forgetting[hpcr] <= forgetting[pcr]    + 0.02

Memory, passes over the stream and network are equal. A step of PCR looks at two views of each row; `replay` therefore may take
two steps per batch, and is tuned over one and two. Every learner is judged among the classes that have come. Where the same
rows come shuffled there is nothing to forget, and both inequalities must fail (the negative controls).

Reference: Lin et al. (2023), HPCR, arXiv 2309.15038; Lin et al. (2023), PCR, arXiv 2304.04408.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from everlearn.comparison.building import build_learner
from everlearn.core.run import run
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.known_sets import cifar100_12k, mnist10k
from everlearn.data.naming import evenly
from everlearn.data.prequential import iid
from everlearn.data.split import split
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.studies.study import Arm, Claim, Measured, Study

ROWS = 200  # of each digit, to learn from and to judge on, at quick scale
TASKS = {"quick": 5, "full": 10}
CAPACITY = {"quick": 100, "full": 200}
PERIOD = {"quick": 40, "full": 100}  # batches of a task
MARGIN = {"quick": (0.05, -0.03), "full": (0.03, 0.02)}  # of pcr over replay, of hpcr over pcr
RATES = (0.03, 0.1)

# what each arm is; {capacity} and {period} follow the scale
LEARNERS = {
    "replay": "replay(capacity={capacity}, replay_batch=10",
    "replay, one step": "replay(capacity={capacity}, replay_batch=10",
    "er_ace": "er_ace(capacity={capacity}, replay_batch=10",
    "derpp": "derpp(capacity={capacity}, replay_batch=10",
    "scr": "scr(capacity={capacity}, replay_batch=10",
    "pcr": "pcr(capacity={capacity}",
    "hpcr": "hpcr(capacity={capacity}, period={period}",
    "pcr, rate 0.1": "pcr(capacity={capacity}",  # what the parts below are to be compared with: one rate for all of them
    "hpcr, rate 0.1": "hpcr(capacity={capacity}, period={period}",
    "pcr, all classes compete": "pcr(capacity={capacity}, competing='all'",
    "pcr + sample contrast": "hpcr(capacity={capacity}, contrast='proxy+sample', gradient_temperature=(0.09, 0.09), pcd=0, scd=0",
    "pcr + temperature": "hpcr(capacity={capacity}, period={period}, pcd=0, scd=0",
    "pcr + score distillation": "hpcr(capacity={capacity}, gradient_temperature=(0.09, 0.09), scd=0",
    "pcr + relation distillation": "hpcr(capacity={capacity}, gradient_temperature=(0.09, 0.09), pcd=0",
    "hpcr + sample contrast": "hpcr(capacity={capacity}, period={period}, contrast='proxy+sample'",
    "hpcr, static temperature 0.08": "hpcr(capacity={capacity}, gradient_temperature=(0.08, 0.08)",
    "hpcr - temperature": "hpcr(capacity={capacity}, gradient_temperature=(0.09, 0.09)",
    "hpcr - score distillation": "hpcr(capacity={capacity}, period={period}, pcd=0",
    "hpcr - relation distillation": "hpcr(capacity={capacity}, period={period}, scd=0",
}
PARTS = tuple(LEARNERS)[7:]  # ablations: at the rate that was published, as the system they are parts of
SHUFFLED = ", shuffled"


class HPCRStudy(Study):
    """Replay, its relatives, PCR, HPCR and the parts of HPCR: digits at quick scale, superclasses of CIFAR-100 at full scale."""

    name: ClassVar[str] = "hpcr"
    title: ClassVar[str] = "Contrast over the classes at hand forgets less than replay"
    reference: ClassVar[str] = "Lin et al. (2023), arXiv 2309.15038; Lin et al. (2023), arXiv 2304.04408"
    measures: ClassVar[Mapping[str, str]] = {
        "accuracy": "average accuracy at the end",
        "forgetting": "forgetting, over all tasks but the last",
    }

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three: class order, network, memory and views."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """The system, its field, its parts, and the control."""
        rates = (0.1,) if scale == "quick" else RATES
        alone = tuple({"lr": lr, "passes": 1} for lr in rates)
        twice = tuple({"lr": lr, "passes": passes} for lr in rates for passes in (1, 2))
        published = ({"lr": 0.1, "passes": 1},)
        rows = [Arm("hpcr", "system", alone), Arm("pcr", "system", alone)]
        rows += [Arm("replay, one step", "baseline", published), Arm("replay", "baseline", twice)]
        if scale == "full":
            rows += [Arm("er_ace", "baseline", twice), Arm("derpp", "baseline", twice), Arm("scr", "baseline", alone)]
            rows += [Arm(part, "part", published) for part in PARTS]
        rows += [Arm("pcr" + SHUFFLED, "control", alone), Arm("replay" + SHUFFLED, "control", twice)]
        return tuple(rows)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """The published order with its margins, against replay with one step and against the better of one and two."""
        better, more = MARGIN[scale]
        rows = []
        for base in ("replay, one step", "replay"):
            rows += [
                Claim(f"pcr ends at least {better:.0%} above {base}", "pcr", base, better),
                Claim(f"pcr forgets at least 10% less than {base}", base, "pcr", 0.10, measure="forgetting"),
            ]
        above = f"at least {more:.0%} above" if more > 0 else f"at most {-more:.0%} below"
        rows += [
            Claim(f"hpcr ends {above} pcr", "hpcr", "pcr", more),
            Claim("hpcr forgets at most 2% more than pcr", "pcr", "hpcr", -0.02, measure="forgetting"),
            Claim(
                f"pcr ends at least {better:.0%} above replay where rows come shuffled",
                "pcr" + SHUFFLED,
                "replay" + SHUFFLED,
                better,
                control=True,
            ),
            Claim(
                "pcr forgets at least 10% less than replay where rows come shuffled",
                "replay" + SHUFFLED,
                "pcr" + SHUFFLED,
                0.10,
                measure="forgetting",
                control=True,
            ),
        ]
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """Accuracy and forgetting of one stream, with the average accuracy over the tasks so far as a curve."""
        shuffled = arm.endswith(SHUFFLED)
        stream = _stream(scale, seed, shuffled)
        text = LEARNERS[arm.removesuffix(SHUFFLED)].format(capacity=CAPACITY[scale], period=PERIOD[scale])
        learner = build_learner(
            f"{text}, passes={setting['passes']}, optimizer=sgd(lr={setting['lr']}))", stream, "conv4", seed
        )
        monitor = AccuracyMatrix(seen_only=True)
        run(learner, stream, monitors=[monitor])
        found = monitor.figures()
        scores = {"accuracy": found["average_accuracy"], "forgetting": found["forgetting"]}
        if shuffled:
            return Measured(scores)
        rise = [[task + 1, sum(row[: task + 1]) / (task + 1)] for task, row in enumerate(found["matrix"])]
        return Measured(scores, {"average accuracy over the tasks so far": rise})


def _stream(scale: str, seed: int, shuffled: bool) -> Stream:
    data = _data(scale)
    ordered = split(data, experiences=TASKS[scale], batch=10, seed=seed)
    if not shuffled:
        return ordered
    stream = iid(data, batch=10, seed=seed)  # judged on the same sets, as often
    stream.held_out, stream.checkpoints = ordered.held_out, evenly(len(stream), TASKS[scale])
    return stream


@cache
def _data(scale: str) -> Data:
    return mnist10k().per_class(ROWS, ROWS) if scale == "quick" else cifar100_12k(labels="coarse")


STUDY = HPCRStudy()
