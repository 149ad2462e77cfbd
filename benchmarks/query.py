"""Query rules beside scikit-activeml: the same posterior, the same indices, and the time of one query from a pool of 10,000.

    python benchmarks/query.py

A committee of 20 members gives each row of the pool probabilities of yes and no. `uncertainty` must choose the rows of
UncertaintySampling("entropy") on the committee's mean, `bald` those of QueryByCommittee("KL_divergence"), and `sgbs` those of
QueryByCommittee("vote_entropy"), for 200 pools of 500 rows, or the script stops; of rows that are equal (votes) it must be one of theirs.
Times are those of the processor. Both sides get the probabilities ready made: what is timed is the choice, and for `labeler` all that
StreamLabeler does in buying one label of a window. Writes results/query.json and results/query.md.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from time import process_time

import numpy
import timing
import torch
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import QueryByCommittee, UncertaintySampling
from torch import Tensor

from everlearn import Batch, Budget
from everlearn.agents.query_rules import Bald, FromPosterior, GeneralizedBinarySearch, Uncertainty
from everlearn.agents.stream_labeler import StreamLabeler

MEMBERS, POOL, PROOF, POOLS = 20, 10_000, 500, 200
TARGET = 1.0  # our time, at most, in times theirs


class Told(SkactivemlClassifier):
    """A classifier whose probabilities are told: row number i of the pool has chance[i] of yes."""

    def __init__(self, chance: numpy.ndarray, classes=None, missing_label=numpy.nan, cost_matrix=None, random_state=None):
        super().__init__(classes=classes, missing_label=missing_label, cost_matrix=cost_matrix, random_state=random_state)
        self.chance = chance

    def fit(self, X, y, sample_weight=None):
        """Nothing is learned."""
        self.classes_ = numpy.array([0, 1])
        return self

    def predict_proba(self, X):
        """(rows, 2) as told, by the number in the first column."""
        chance = self.chance[numpy.asarray(X)[:, 0].astype(int)]
        return numpy.stack([1.0 - chance, chance], axis=1)

    def predict(self, X):
        """The side of 1/2."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)


def pool(size: int, seed: int) -> Tensor:
    """(members, size) chances of yes, no two rows alike."""
    draws = numpy.random.default_rng(seed)
    return torch.from_numpy(draws.beta(0.7, 0.7, size=(MEMBERS, size)) * 0.98 + 0.01)


def peers(chance: Tensor) -> dict[str, Callable[[], tuple[numpy.ndarray, numpy.ndarray]]]:
    """{our rule: the peer's query, giving (indices, utilities)}."""
    size = chance.shape[1]
    x, y = numpy.arange(size, dtype=float)[:, None], numpy.full(size, numpy.nan)
    mean = Told(chance.mean(0).numpy(), classes=[0, 1]).fit(x, y)
    members = [Told(row.numpy(), classes=[0, 1]).fit(x, y) for row in chance]

    def by_uncertainty():
        return UncertaintySampling(method="entropy", random_state=0).query(x, y, mean, fit_clf=False, return_utilities=True)

    def by_committee(method: str):
        return QueryByCommittee(method=method, random_state=0).query(
            x, y, members, fit_ensemble=False, return_utilities=True
        )

    return {
        "uncertainty": by_uncertainty,
        "bald": partial(by_committee, "KL_divergence"),
        "sgbs": partial(by_committee, "vote_entropy"),
    }


RULES: dict[str, FromPosterior] = {"uncertainty": Uncertainty(), "bald": Bald(), "sgbs": GeneralizedBinarySearch()}


def ours(rule: FromPosterior, chance: Tensor) -> int:
    """The row that a rule asks for."""
    weight = torch.full((1, len(chance)), 1.0 / len(chance), dtype=torch.float64)
    return int(rule.of(weight, chance)[0].argmax())


def bought(rule: FromPosterior, chance: Tensor, ids: tuple[str, ...]) -> tuple[str, ...]:
    """The same through a window of a stream, with ids, checks and the budget."""
    labeler = StreamLabeler(rule, Budget(labels=1), share=1.0)
    return labeler.buy(Batch(torch.zeros(len(ids), 1), id=ids), torch.stack([1.0 - chance, chance], 2))


def prove() -> dict[str, int]:
    """How many pools were chosen from alike; stops the script where one is not."""
    alike = dict.fromkeys(RULES, 0)
    for seed in range(POOLS):
        chance = pool(PROOF, seed)
        for name, query in peers(chance).items():
            indices, utilities = query()
            theirs = numpy.flatnonzero(numpy.isclose(utilities[0], utilities[0].max(), rtol=0, atol=1e-12))
            if name != "sgbs" and [ours(RULES[name], chance)] != indices.tolist():
                raise SystemExit(f"{name}: pool {seed}: {ours(RULES[name], chance)} here, {indices} there")
            if ours(RULES[name], chance) not in theirs:
                raise SystemExit(f"{name}: pool {seed}: {ours(RULES[name], chance)} here, one of {theirs} there")
            alike[name] += 1
    return alike


def timed(call: Callable[[], object], _round: int) -> float:
    """Milliseconds of the processor."""
    start = process_time()
    call()
    return 1e3 * (process_time() - start)


def main() -> None:
    """Prove, time, publish."""
    reader = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    reader.add_argument("--rounds", type=int, default=30)
    rounds = reader.parse_args().rounds
    warnings.filterwarnings("ignore")
    alike = prove()
    chance, ids = pool(POOL, 0), tuple(map(str, range(POOL)))
    rows, record = [], {}
    for name, query in peers(chance).items():
        given = chance.mean(0, keepdim=True) if name == "uncertainty" else chance  # what the peer is given too
        calls = {
            "peer": query,
            "rule": partial(ours, RULES[name], given),
            "labeler": partial(bought, RULES[name], given, ids),
        }
        times = timing.interleave({key: partial(timed, call) for key, call in calls.items()}, rounds)
        middle = {key: timing.summary(values) for key, values in times.items()}
        against = {key: timing.ratio(times[key], times["peer"]) for key in ("rule", "labeler")}
        record[name] = {"times_ms": times, "summary": middle, "ratio": against, "pools_alike": alike[name]}
        met = "met" if against["rule"]["ratio"] <= TARGET else "missed"
        figures = [f"{middle[key]['median']:.2f}" for key in ("peer", "rule", "labeler")]
        shares = [f"{against[key]['ratio']:.2f}" for key in ("rule", "labeler")]
        rows.append([f"`{name}`", f"{alike[name]} of {POOLS}", *figures, *shares, met])
    head = [
        "",
        "pools alike",
        "scikit-activeml, ms",
        "rule, ms",
        "labeler, ms",
        "rule / theirs",
        "labeler / theirs",
        "target 1.0",
    ]
    timing.publish("query", record, timing.table(head, rows))


if __name__ == "__main__":
    main()
