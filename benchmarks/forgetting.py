"""What making a table of embeddings anew costs: the loop of the dual-process study with resets, with none, and with a reset by hand.

    python benchmarks/forgetting.py

A `TinyEncoder` of 10,000 tokens (d = 64) learns batches of 128 sequences, and its table is made anew after every tenth update. By hand
means what one writes without a library: `normal_` on the table and `zero_` on its two moments. Where no reset is ever due, the weights
must be those of the loop without, to the bit, or the script stops. Times are processor times of one thread.
Writes results/forgetting.json and results/forgetting.md.
"""

import argparse
from collections.abc import Callable
from time import process_time

import timing
import torch
from torch import nn
from torch.nn import functional

from everlearn.core.events import Batch
from everlearn.data.roles import ASKED, RoleStream
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Forgetting, Reset

VOCABULARY, EVERY, STEPS, RESETS = 10_000, 10, 40, 20
LIMIT = 0.03  # of a step
BARE, NEVER, OURS, HAND = "no forgetting", "everlearn: never due", "everlearn: every 10 updates", "by hand: every 10 updates"
KINDS = (BARE, NEVER, OURS, HAND)
After = Callable[[int], object]


def by_hand(table: nn.Parameter, optimizer: torch.optim.Optimizer) -> After:
    """The reset without a library."""

    def after(t: int) -> None:
        if t % EVERY == 0:
            with torch.no_grad():
                table.normal_()
            for key in ("exp_avg", "exp_avg_sq", "step"):
                optimizer.state[table][key].zero_()

    return after


def after_of(kind: str, model: TinyEncoder, optimizer: torch.optim.Optimizer) -> After:
    """What is called after each update."""
    if kind == BARE:
        return lambda t: None
    if kind == HAND:
        return by_hand(model.table, optimizer)
    return Forgetting(model, ["table"], optimizer, Reset(EVERY, stop=0 if kind == NEVER else None)).after


class Contender:
    """A model, its optimiser and what follows each update; `seconds` adds up."""

    def __init__(self, kind: str, stream: RoleStream, seed: int):
        self.model = TinyEncoder(stream.size, answers=ASKED, seed=seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.after = after_of(kind, self.model, self.optimizer)
        self.seconds = 0.0

    def step(self, t: int, batch: Batch) -> None:
        """Update number t, and what follows it."""
        started = process_time()
        self.optimizer.zero_grad()
        scores = self.model(batch.x)
        functional.cross_entropy(scores.flatten(0, 1), batch.y[:, ASKED].flatten()).backward()
        self.optimizer.step()
        self.after(t)
        self.seconds += process_time() - started

    def reset(self) -> float:
        """Processor seconds of one reset, the mean of some."""
        started = process_time()
        for number in range(1, RESETS + 1):
            self.after(number * EVERY)
        return (process_time() - started) / RESETS


def in_turns(stream: RoleStream, seed: int) -> dict[str, tuple[float, float]]:
    """{kind: processor seconds of (a step with what follows it, a reset)}: all take each step in turns, so that noise falls on all."""
    contenders = {kind: Contender(kind, stream, seed) for kind in KINDS}
    for t in range(1, STEPS + 1):
        batch = stream[t]
        for place in range(len(KINDS)):
            contenders[KINDS[(place + t) % len(KINDS)]].step(t, batch)
    if not torch.equal(contenders[BARE].model.table, contenders[NEVER].model.table):
        raise SystemExit("without a reset that is due, the weights differ from the loop without")
    return {kind: (found.seconds / STEPS, found.reset()) for kind, found in contenders.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    stream = RoleStream(VOCABULARY, seed=0)
    found = timing.interleave({"all": lambda seed: in_turns(stream, seed)}, options.rounds)["all"]
    steps = {kind: [run[kind][0] for run in found] for kind in KINDS}
    resets = {kind: [run[kind][1] for run in found] for kind in (OURS, HAND)}
    share = {
        kind: timing.summary([reset / EVERY / step for reset, step in zip(resets[kind], steps[BARE], strict=True)])
        for kind in resets
    }
    record = {
        "settings": {"vocabulary": VOCABULARY, "every": EVERY, "steps": STEPS, "rounds": options.rounds},
        "step_ms": {kind: timing.summary([1e3 * value for value in values]) for kind, values in steps.items()},
        "reset_ms": {kind: timing.summary([1e3 * value for value in values]) for kind, values in resets.items()},
        "share_of_a_step": share,
        "ratio": {
            kind: timing.summary([one / bare for one, bare in zip(steps[kind], steps[BARE], strict=True)])
            for kind in KINDS[1:]
        },
        "limit": LIMIT,
        "met": share[OURS]["median"] < LIMIT,
    }
    timing.publish("forgetting", record, text(record))


def text(record: dict) -> str:
    """The table for people."""
    rows = []
    for kind, step in record["step_ms"].items():
        reset, share, ratio = (record[key].get(kind) for key in ("reset_ms", "share_of_a_step", "ratio"))
        rows.append(
            [
                kind,
                f"{step['median']:.1f} ({step['low']:.1f}-{step['high']:.1f})",
                f"{ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})" if ratio else "",
                f"{reset['median']:.2f} ({reset['low']:.2f}-{reset['high']:.2f})" if reset else "",
                f"{100 * share['median']:.2f} %" if share else "",
            ]
        )
    head = [
        "",
        "step, ms (quartiles)",
        "ratio to no forgetting in the same round",
        "one reset, ms",
        "one reset in ten steps, share of a step",
    ]
    verdict = f"Target: below {100 * LIMIT:.0f} % of a step, {'met' if record['met'] else 'missed'}. Never due: the same bits as without."
    return f"{timing.table(head, rows)}\n\n{verdict}"


if __name__ == "__main__":
    main()
