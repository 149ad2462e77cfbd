"""Nine methods beside Avalanche's own of the same name: the digits, network, rate and settings of `continual.py`.

    python benchmarks/methods.py

The peer is fed in its fastest way, experience by experience without task labels. Times are medians over rounds of the median time from
the beginning of one step to that of the next, boundaries left out ("whole run" has them); accuracy as in `continual.py`.
Writes results/methods.json and results/methods.md.
"""

import argparse
from collections.abc import Callable
from functools import partial

import avalanche_peer
import timing
from continual import ARRIVALS, TIMED, compared, row, text
from digits import ALPHA, BATCH, CAPACITY, REPLAY_BATCH, Outcome, Problem, accuracy, problem
from own import learned, refitted

from everlearn.learners.agem import AGEM
from everlearn.learners.der import DER
from everlearn.learners.er_ace import ERACE
from everlearn.learners.gdumb import GDumb
from everlearn.learners.icarl import ICaRL
from everlearn.learners.lwf import LwF
from everlearn.learners.online_ewc import OnlineEWC
from everlearn.learners.replay import Replay
from everlearn.learners.si import SI
from everlearn.optim.refit import Never

HELD = {"capacity": CAPACITY, "replay_batch": REPLAY_BATCH}
STRENGTH, DAMPING = 0.1, 0.1  # of SI; the peer writes its penalty with half the strength
SPRINGS, DECAY = (
    20.0,
    1.0,
)  # strength and decay of online EWC; the peer's penalty has no half, so it is given half of the strength
DISTILLED, TEMPERATURE = 1.0, 2.0  # strength and temperature of LwF
PAIRS = {  # house's name: (the house's, the peer's name, the peer's)
    "replay": (partial(Replay, **HELD), "Replay", partial(avalanche_peer.replay, by_step=True)),
    "der": (partial(DER, **HELD, alpha=ALPHA), "DER, beta=0", partial(avalanche_peer.der, beta=0.0, by_step=True)),
    "er_ace": (partial(ERACE, **HELD), "ER_ACE", avalanche_peer.er_ace),
    "agem": (partial(AGEM, **HELD), "AGEM", avalanche_peer.agem),
    "online_ewc": (
        partial(OnlineEWC, strength=SPRINGS, decay=DECAY),
        "EWC, online",
        partial(avalanche_peer.ewc, strength=0.5 * SPRINGS * BATCH, decay=DECAY),
    ),
    "icarl": (partial(ICaRL, **HELD), "ICaRL", avalanche_peer.icarl),
    "si": (
        partial(SI, strength=STRENGTH, damping=DAMPING),
        "SI",
        partial(avalanche_peer.si, strength=2.0 * STRENGTH, damping=DAMPING),
    ),
    "lwf": (
        partial(LwF, strength=DISTILLED, temperature=TEMPERATURE),
        "LwF",
        partial(avalanche_peer.lwf, strength=DISTILLED, temperature=TEMPERATURE),
    ),
}
EPOCHS = 10  # passes over the memory of GDumb, at the end of each experience
GREEDY = partial(GDumb, capacity=CAPACITY, when=Never(), epochs=EPOCHS, batch=BATCH, floor=1.0)
LIMIT = 3.0
CONTENDERS = {
    **{f"everlearn {name}": (lambda given, make=make: learned(make, given)) for name, (make, _, _) in PAIRS.items()},
    "everlearn gdumb": partial(refitted, GREEDY),
    **{f"avalanche {peer}": run for _, peer, run in PAIRS.values()},
    "avalanche GDumb": partial(avalanche_peer.gdumb, epochs=EPOCHS),
}
RATIOS = (
    *((f"avalanche {peer}", f"everlearn {name}", ">=", LIMIT) for name, (_, peer, _) in PAIRS.items()),
    ("avalanche GDumb", "everlearn gdumb", ">=", LIMIT),
)


def turn(run: Callable[[Problem], Outcome], given: list[Problem], number: int) -> Outcome:
    """A contender's run in the round of a number."""
    return run(given[number])


def _asked(contender: str, methods: list[str]) -> bool:
    """Whether a contender belongs to one of these methods."""
    library, _, name = contender.partition(" ")
    peers = {method: peer for method, (_, peer, _) in PAIRS.items()} | {"gdumb": "GDumb"}
    return name in (methods if library == "everlearn" else [peers[method] for method in methods])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[*PAIRS, "gdumb"], help="methods; prints, and writes nothing"
    )
    options = parser.parse_args()
    chosen = {name: run for name, run in CONTENDERS.items() if not options.only or _asked(name, options.only)}
    found, scores = {}, {}
    for arrival in ARRIVALS:
        timing.show(f"classes arrive: {ARRIVALS[arrival]}")
        given = [problem(arrival, seed) for seed in range(options.seeds)]
        calls = {name: partial(turn, run, given) for name, run in chosen.items()}
        found[arrival] = timing.interleave(calls, options.seeds)
        scores[arrival] = {name: [accuracy(run, given[0]) for run in runs] for name, runs in found[arrival].items()}
    record = {
        "settings": {
            **vars(problem(TIMED, 0).settings),
            "alpha": ALPHA,
            "online_ewc": {"strength": SPRINGS, "decay": DECAY},
            "si": {"strength": STRENGTH, "damping": DAMPING},
            "lwf": {"strength": DISTILLED, "temperature": TEMPERATURE},
            "gdumb": {"epochs": EPOCHS},
            "seeds": options.seeds,
        },
        "contenders": {name: row(name, found[TIMED][name], scores) for name in chosen},
        "ratios": [compared(*pair, found[TIMED], scores) for pair in RATIOS if pair[1] in chosen],
    }
    if options.only:
        print(text(record))
    else:
        timing.publish("methods", record, text(record))


if __name__ == "__main__":
    main()
