"""The step of PCR and HPCR beside the forward and backward passes that it cannot do without.

    python benchmarks/contrast.py

Both contrast two views of 10 incoming and of 10 remembered rows: two passes of 20 rows through the network. "Bare" makes just these,
with plain cross-entropy and the same descent, on views that lie ready. Digits of 28x28 go through `conv4`, images of 32x32 through the
reduced ResNet-18. Parts of the step are timed alone as well, and the loss in its two forms: over counts of classes, and over pairs
of rows. All times are processor times of one thread.
Writes results/contrast.json and results/contrast.md.
"""

import argparse
from collections.abc import Callable, Iterator
from time import process_time

import timing
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator, isolated
from everlearn.core.stream import Schema
from everlearn.data.memory import Memory
from everlearn.data.views import Views
from everlearn.learners.hpcr import HPCR
from everlearn.learners.pcr import PCR
from everlearn.learners.replay import Replay
from everlearn.nn.losses import proxy_contrastive_loss
from everlearn.nn.networks import conv4, reduced_resnet18
from everlearn.optim.optimizers import SGD

ROWS = 10  # incoming, and drawn
CAPACITY = 5000
CLASSES = 10
SHAPES = {"digits": (1, 28, 28), "colour": (3, 32, 32)}
NETWORKS = {"digits": conv4, "colour": reduced_resnet18}
STEPS = {"digits": 20, "colour": 2}  # in a round
LIMITS = {"step": 1.15, "memory": 0.05, "rate": 30.0, "form": 3.0}
FORMS = {"N = 40, 10 classes, d = 64": (40, 10, 64), "N = 512, 100 classes, d = 160": (512, 100, 160)}
TEMPERATURE = 0.09


def network(kind: str) -> torch.nn.Module:
    """A new network for images of a kind."""
    with isolated(0, "network"):
        return NETWORKS[kind](Schema(SHAPES[kind], torch.uint8, tuple(str(number) for number in range(CLASSES))))


def batches(kind: str) -> Iterator[Batch]:
    """Random images, without end."""
    random = generator(0, kind)
    while True:
        x = torch.randint(256, (ROWS, *SHAPES[kind]), dtype=torch.uint8, generator=random)
        yield Batch(x, torch.randint(CLASSES, (ROWS,), generator=random))


def bare(kind: str, passes: int, count: int) -> Callable[[], None]:
    """One step of `passes` forward passes of `count` rows that lie ready, one backward pass, plain descent."""
    model = network(kind).train()
    weights = list(model.parameters())
    random = generator(1, kind)
    given = [torch.randint(256, (count, *SHAPES[kind]), generator=random).float() for _ in range(passes)]
    y = torch.randint(CLASSES, (passes * count,), generator=random)

    def step() -> None:
        loss = cross_entropy(torch.cat([model(x) for x in given]), y)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            torch._foreach_add_(weights, gradients, alpha=-0.1)

    return step


def learner_step(kind: str, make: Callable[..., PCR | HPCR | Replay], **arguments) -> Callable[[], None]:
    """One update of a learner in its second task, with a full memory."""
    learner = make(network(kind), replay_batch=ROWS, optimizer=SGD(lr=0.1), seed=0, **arguments)
    given = batches(kind)
    learner.boundary(Boundary(0))
    for _ in range(3):
        learner.update(next(given))
    learner.boundary(Boundary(1))

    def step() -> None:
        learner.update(next(given))

    return step


def views(kind: str, count: int) -> Callable[[], None]:
    """Random views of `count` images."""
    random, family = generator(2, kind), Views()
    x = next(batches(kind)).x.repeat(count // ROWS, 1, 1, 1)
    return lambda: family(x, random)


def memory(kind: str, d: int) -> Callable[[], None]:
    """A draw and an insertion of HPCR's memory of 5,000 rows, full and with all its fields."""
    store = Memory(CAPACITY, seed=0)
    random = generator(3, kind)
    given = batches(kind)

    def fields(count: int) -> dict[str, Tensor]:
        return {
            "logits": torch.randn(count, CLASSES, generator=random),
            "features": torch.randn(count, d, generator=random),
        }

    for _ in range(CAPACITY // ROWS + 10):
        batch = next(given)
        store.insert(x=batch.x, y=batch.y, **fields(ROWS))
    batch, extra = next(given), fields(ROWS)

    def turn() -> None:
        store.draw(ROWS)
        store.insert(x=batch.x, y=batch.y, **extra)

    return turn


def pairs(features: Tensor, labels: Tensor, proxies: Tensor) -> Tensor:
    """The contrast written over all pairs of rows, as the equation has it."""
    z, w = normalize(features, dim=1), normalize(proxies, dim=1)
    logits = z @ w[labels].T / TEMPERATURE
    positive = (labels[:, None] == labels).float()
    logs = logits - logits.logsumexp(1, keepdim=True)
    return -((positive * logs).sum(1) / positive.sum(1)).mean()


def counted(features: Tensor, labels: Tensor, proxies: Tensor) -> Tensor:
    """The same over counts of classes, as the house computes it."""
    return proxy_contrastive_loss(features, labels, proxies, TEMPERATURE)


def form(loss: Callable[[Tensor, Tensor, Tensor], Tensor], count: int, classes: int, d: int) -> Callable[[], None]:
    """The loss and its gradient, once."""
    random = generator(4)
    z = torch.randn(count, d, generator=random, requires_grad=True)
    w = torch.randn(classes, d, generator=random, requires_grad=True)
    y = torch.randint(classes, (count,), generator=random)
    return lambda: torch.autograd.grad(loss(z, y, w), (z, w))


def per_call(call: Callable[[], object], calls: int) -> Callable[[int], float]:
    """A contender for `timing.interleave`: processor seconds of one call, the mean of a round's."""

    def contender(_: int) -> float:
        started = process_time()
        for _ in range(calls):
            call()
        return (process_time() - started) / calls

    return contender


def contenders(kind: str) -> dict[str, Callable[[int], float]]:
    """All that is timed for one kind of images."""
    d = [module for module in network(kind).modules() if isinstance(module, torch.nn.Linear)][-1].in_features
    steps = {
        "bare, 2 passes of 20 rows": bare(kind, 2, 2 * ROWS),
        "pcr": learner_step(kind, PCR, capacity=CAPACITY),
        "hpcr": learner_step(kind, HPCR, capacity=CAPACITY),
        "hpcr, merged": learner_step(kind, HPCR, capacity=CAPACITY, merged=True),
        "bare, 1 pass of 20 rows": bare(kind, 1, 2 * ROWS),
        "replay": learner_step(kind, Replay, capacity=CAPACITY),
        "views of 20 rows": views(kind, 2 * ROWS),
        "memory: a draw and an insertion of 10 rows": memory(kind, d),
    }
    calls = STEPS[kind]
    return {name: per_call(step, calls if name.split(",")[0] != "memory" else 5 * calls) for name, step in steps.items()}


RATIOS = (  # of, over, sense, limit
    ("pcr", "bare, 2 passes of 20 rows", "<=", LIMITS["step"]),
    ("hpcr", "bare, 2 passes of 20 rows", "<=", LIMITS["step"]),
    ("hpcr, merged", "bare, 2 passes of 20 rows", "", None),
    ("replay", "bare, 1 pass of 20 rows", "<=", LIMITS["step"]),
    ("views of 20 rows", "hpcr", "", None),
    ("memory: a draw and an insertion of 10 rows", "hpcr", "<=", LIMITS["memory"]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    record = {"settings": {"rows": ROWS, "capacity": CAPACITY, "rounds": options.rounds}, "kinds": {}, "forms": {}}
    for kind in SHAPES:
        timing.show(kind)
        found = timing.interleave(contenders(kind), options.rounds)
        record["kinds"][kind] = {
            "network": NETWORKS[kind].__name__,
            "ms": {name: timing.summary([1e3 * value for value in values]) for name, values in found.items()},
            "ratios": [judged(found, *pair) for pair in RATIOS],
        }
    calls = {
        f"{name}, {loss.__name__}": per_call(form(loss, *size), 40)
        for name, size in FORMS.items()
        for loss in (pairs, counted)
    }
    found = timing.interleave(calls, options.rounds)
    for name in FORMS:
        slow, fast = found[f"{name}, pairs"], found[f"{name}, counted"]
        record["forms"][name] = {
            "pairs_us": timing.summary([1e6 * value for value in slow]),
            "counted_us": timing.summary([1e6 * value for value in fast]),
            "ratio": timing.ratio(slow, fast),
        }
    timing.publish("contrast", record, text(record))


def judged(found: dict[str, list[float]], of: str, over: str, sense: str, limit: float | None) -> dict:
    """A ratio beside its target."""
    ratio = timing.ratio(found[of], found[over])
    met = None if limit is None else (ratio["ratio"] <= limit if sense == "<=" else ratio["ratio"] >= limit)
    return {"of": of, "over": over, **ratio, "target": None if limit is None else f"{sense} {limit:g}", "met": met}


def text(record: dict) -> str:
    """The tables in Markdown."""
    parts = []
    for kind, found in record["kinds"].items():
        shape = "x".join(str(side) for side in SHAPES[kind])
        rows = [
            [name, f"{ms['median']:.3f} ({ms['low']:.3f}-{ms['high']:.3f})", f"{1e3 / ms['median']:,.0f}"]
            for name, ms in found["ms"].items()
        ]
        parts.append(timing.table([f"{shape}, `{found['network']}`", "ms (quartiles)", "a second"], rows))
        rows = [
            [
                f"{pair['of']} / {pair['over']}",
                f"{pair['ratio']:.3f} ({pair['low']:.3f}-{pair['high']:.3f})",
                "" if pair["target"] is None else f"{pair['target']} {'met' if pair['met'] else 'missed'}",
            ]
            for pair in found["ratios"]
        ]
        parts.append(timing.table([f"ratio, {shape}", "ratio (quartiles)", "target"], rows))
    rate = 1e3 / record["kinds"]["digits"]["ms"]["hpcr"]["median"]
    met = "met" if rate >= LIMITS["rate"] else "missed"
    parts.append(f"HPCR on 28x28: {rate:.0f} steps a second, target >= {LIMITS['rate']:.0f}: {met}.")
    rows = [
        [
            name,
            *(f"{found[key]['median']:,.0f}" for key in ("pairs_us", "counted_us")),
            f"{found['ratio']['ratio']:.2f} ({found['ratio']['low']:.2f}-{found['ratio']['high']:.2f})",
        ]
        for name, found in record["forms"].items()
    ]
    parts.append(timing.table(["loss and gradient", "over pairs, µs", "over counts, µs", "ratio (quartiles)"], rows))
    small, large = (found["ratio"]["ratio"] for found in record["forms"].values())
    parts.append(
        f"Targets: at N = 40 not slower ({'met' if small >= 1 else 'missed'}), at N = 512 three times as fast "
        f"({'met' if large >= LIMITS['form'] else 'missed'})."
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
