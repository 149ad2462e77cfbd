"""The study of dual processes: answering from the context or from the weights, set by forgetting embeddings on purpose.

    unseen[active] >= unseen[plain] + 0.25 (0.15 at quick scale),  unseen[active] >= 0.90 (full scale)
    iwl_head[plain] >= iwl_head[active] + 0.5 (0.4)
    icl_head rises and iwl_head falls with the update at which forgetting ends           full scale
    unseen[middle] >= 0.7,  iwl_head[middle] - iwl_tail[middle] >= 0.1,  val[middle] >= 0.97       full scale

A small encoder learns to tell roles of tokens (`data.roles`). The whole table of embeddings is made anew every ten updates: never (plain),
until some update (temporary), or without end (active). Where positions are made anew instead, or nothing is (probability 0), unseen tokens
must not come within reach of it (the negative controls).

Reference: Anand et al. (2025), Dual process learning: controlling use of in-context vs. in-weights strategies with weight forgetting,
ICLR, arXiv 2406.00053.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from everlearn.data.roles import ASKED, RoleStream
from everlearn.measure.route import route
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Forgetting, Reset
from everlearn.studies.study import Arm, Claim, Measured, Study

EVERY = 10  # updates between two resets
RATE, DECAY = 1e-3, 0.01
STEPS = {"quick": 1600, "full": 6000}
JUDGED = {"quick": 1000, "full": 2000}  # sequences of each kind
CURVE = 200  # updates between two points of a curve
UNSEEN, HEAD = "Unseen tokens answered right", "Frequent switched tokens answered from the weights"


@dataclass(frozen=True)
class Setup:
    """An arm: when forgetting ends (0: there is none, None: without end), and how the model and its data differ."""

    stop: int | None = 0
    role: str = "part"
    select: str = "table"
    vocabulary: int = 400
    alpha: float = 1.5
    std: float = 1.0
    probability: float = 1.0
    clear: bool = True
    quick: bool = False


PLAIN, ACTIVE = "plain", "active forgetting"
EARLY, MIDDLE, LATE = "temporary, until 600", "temporary, until 1100", "temporary, until 1800"
HALFWAY = "temporary, until 900"
PLACES, NOTHING = "positions made anew", "probability 0"
LARGE, FLAT = ", 2,000 tokens", ", no skew"
ARMS = {
    ACTIVE: Setup(None, "system", quick=True),
    PLAIN: Setup(0, "baseline", quick=True),
    HALFWAY: Setup(900, quick=True),
    EARLY: Setup(600),
    MIDDLE: Setup(1100),
    LATE: Setup(1800),
    PLACES: Setup(None, "control", select="positions", quick=True),
    NOTHING: Setup(None, "control", probability=0.0),
    "active, moments kept": Setup(None, clear=False),
    "active, embeddings of 0.02": Setup(None, std=0.02),
    "plain, embeddings of 0.02": Setup(0, std=0.02),
    ACTIVE + LARGE: Setup(None, vocabulary=2000),
    PLAIN + LARGE: Setup(0, vocabulary=2000),
    MIDDLE + LARGE: Setup(1100, vocabulary=2000),
    ACTIVE + FLAT: Setup(None, alpha=0.0),
    PLAIN + FLAT: Setup(0, alpha=0.0),
    MIDDLE + FLAT: Setup(1100, alpha=0.0),
    "active, skew of 1.2": Setup(None, alpha=1.2),
    "plain, skew of 1.2": Setup(0, alpha=1.2),
}


class DualProcessStudy(Study):
    """Shares of sequences answered right, from the context and from the weights, with and without forgetting."""

    name: ClassVar[str] = "dual_process"
    title: ClassVar[str] = "Embeddings that are forgotten on purpose make a model answer from its context"
    reference: ClassVar[str] = "Anand et al. (2025), arXiv 2406.00053"
    measures: ClassVar[Mapping[str, str]] = {
        "unseen": "share of sequences of tokens never shown that are answered right",
        "val": "the same of sequences as in training",
        "tail": "the same of rare tokens",
        "icl head": "frequent tokens in the other role, answered by the context",
        "iwl head": "frequent tokens in the other role, answered by what they are",
        "iwl gap": "the last one less the same of rare tokens",
    }
    axes: ClassVar[Mapping[str, str]] = {UNSEEN: "update", HEAD: "update"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three draws of data and weights."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """Four arms at quick scale, all of them at full scale; none has anything to tune, they differ in when forgetting ends."""
        return tuple(Arm(label, setup.role) for label, setup in ARMS.items() if setup.quick or scale == "full")

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """Unseen tokens, the weights' route, at full scale the dial and the dual process; and the controls."""
        quick = scale == "quick"
        rows = [
            Claim(
                f"active forgetting answers {15 if quick else 25}% more unseen tokens",
                ACTIVE,
                PLAIN,
                0.15 if quick else 0.25,
            ),
            Claim(
                f"without it {40 if quick else 50}% more answers come from the weights",
                PLAIN,
                ACTIVE,
                0.4 if quick else 0.5,
                measure="iwl head",
            ),
        ]
        if not quick:
            rows += [
                Claim("active forgetting answers at least 90% of unseen tokens", ACTIVE, "", 0.9),
                Claim("a later end brings more answers from the context", MIDDLE, EARLY, 0.0, measure="icl head"),
                Claim("and one later still", LATE, MIDDLE, 0.0, measure="icl head"),
                Claim("a later end brings fewer answers from the weights", EARLY, MIDDLE, 0.0, measure="iwl head"),
                Claim("and one later still fewer", MIDDLE, LATE, 0.0, measure="iwl head"),
                Claim("in the middle at least 70% of unseen tokens are answered", MIDDLE, "", 0.7),
                Claim("there frequent tokens are answered 10% more from the weights", MIDDLE, "", 0.1, measure="iwl gap"),
                Claim("there at least 97% are answered as in training", MIDDLE, "", 0.97, measure="val"),
                Claim("probability 0 answers 10% more unseen tokens", NOTHING, PLAIN, 0.1, control=True),
            ]
        rows.append(Claim("new positions answer 10% more unseen tokens", PLACES, PLAIN, 0.1, control=True))
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One model, judged before the reset of the same update."""
        setup = ARMS[arm]
        stream = RoleStream(setup.vocabulary, setup.alpha, seed=seed)
        model = TinyEncoder(stream.size, answers=ASKED, std=setup.std, seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
        keep = (stream.copula, stream.mask) if setup.select == "table" else ()
        rule = Reset(
            EVERY, setup.stop, exclude_rows=keep, probability=setup.probability, clear_optimizer=setup.clear
        )  # the law of new rows is N(0, 1) whatever the first one was, as in the published code
        forgetting = Forgetting(model, [setup.select], optimizer, rule, seed=seed)
        unseen, weights = [], []
        for t in range(1, STEPS[scale] + 1):
            batch = stream[t]
            optimizer.zero_grad()
            functional.cross_entropy(model(batch.x).flatten(0, 1), batch.y[:, ASKED].flatten()).backward()
            optimizer.step()
            if t % CURVE == 0:
                report = route(model, stream, count=JUDGED[scale], seed=seed)
                unseen.append([float(t), report.unseen])
                weights.append([float(t), report.iwl_head])
            forgetting.after(t)
        scores = {"unseen": report.unseen, "val": report.val, "tail": report.tail}
        scores |= {"icl head": report.icl_head, "iwl head": report.iwl_head, "iwl gap": report.iwl_head - report.iwl_tail}
        return Measured(scores, {UNSEEN: unseen, HEAD: weights})


STUDY = DualProcessStudy()
