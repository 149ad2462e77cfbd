"""The study of roles in real sentences: identifiers that are forgotten on purpose are told from the words beside them.

    unseen[active] > unseen[plain]
    iwl_head[plain] >= iwl_head[active] + 0.2
    unseen[temporary] > unseen[plain],  iwl_head[temporary] > iwl_head[active]

A small encoder tells nouns from adjectives behind identifiers in the English Web Treebank (`data.role_sentences`). The identifiers' rows of
its table are made anew every ten updates: never (plain), until some update (temporary), or without end (active); those of the words
beside them stay. Where positions are made anew instead, or nothing is (probability 0), unseen identifiers must gain nothing (the negative
controls). A linear probe on the rows of identifiers says how far the table itself knows nouns from adjectives.

Reference: Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch.nn import functional

from everlearn.data.role_sentences import RoleSentences, treebank_roles
from everlearn.measure.probe import linear_probe
from everlearn.measure.route import route
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Forgetting, Reset
from everlearn.studies.study import Arm, Claim, Measured, Study

EVERY = 10  # updates between two resets
RATE, DECAY = 1e-3, 0.01
STEPS = {"quick": 600, "full": 2000}
WORDS = {"quick": 1000, "full": None}  # identifiers of each class; None: all words of the lists
JUDGED = {"quick": 1000, "full": 4000}  # windows of each kind
POINTS = {"quick": 4, "full": 10}  # of a curve
PROBED = 1000  # identifiers of each class whose rows are probed, the most frequent
EPOCHS = 3  # of the probe on embeddings, as in the published code
UNSEEN, HEAD = "Unseen identifiers answered right", "Frequent switched identifiers answered from the weights"


@dataclass(frozen=True)
class Setup:
    """An arm: when forgetting ends (0: there is none, None: without end), and how the model and its data differ."""

    stop: int | None = 0
    role: str = "part"
    select: str = "table"
    whole: bool = False  # the rows of words beside identifiers too
    probability: float = 1.0
    ambiguous: float = 0.1
    quick: bool = False


PLAIN, ACTIVE, TEMPORARY = "plain", "active forgetting", "temporary, until 300"
PLACES, NOTHING = "positions made anew", "probability 0"
CLEAR = ", none ambiguous"
ARMS = {
    ACTIVE: Setup(None, "system", quick=True),
    PLAIN: Setup(0, "baseline", quick=True),
    TEMPORARY: Setup(300, quick=True),
    "temporary, until 1000": Setup(1000),
    PLACES: Setup(None, "control", select="positions", quick=True),
    NOTHING: Setup(None, "control", probability=0.0),
    "whole table made anew": Setup(None, whole=True),
    ACTIVE + CLEAR: Setup(None, ambiguous=0.0),
    PLAIN + CLEAR: Setup(0, ambiguous=0.0),
}


class RoleFromContextStudy(Study):
    """Shares of windows of real sentences answered right, from the context and from the weights, with and without forgetting."""

    name: ClassVar[str] = "role_from_context"
    title: ClassVar[str] = "In real sentences, forgotten identifiers are told from the words beside them"
    reference: ClassVar[str] = "Anand et al. (2025), arXiv 2406.00053"
    measures: ClassVar[Mapping[str, str]] = {
        "unseen": "share of windows around identifiers never shown that are answered right",
        "val": "the same of identifiers as in training, in sentences held out",
        "tail": "the same of rare identifiers",
        "icl head": "frequent identifiers in the other role, answered by the context",
        "iwl head": "frequent identifiers in the other role, answered by what they are",
        "iwl gap": "the last one less the same of rare identifiers",
        "probe": "share of frequent identifiers whose row of the table tells a linear probe their class",
    }
    axes: ClassVar[Mapping[str, str]] = {UNSEEN: "update", HEAD: "update"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Three draws of data and weights."""
        return tuple(range(3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """Four arms at quick scale, all of them at full scale; none has anything to tune, they differ in what is forgotten and when."""
        return tuple(Arm(label, setup.role) for label, setup in ARMS.items() if setup.quick or scale == "full")

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """Unseen identifiers, the weights' route, both at once; and the controls."""
        rows = [
            Claim("active forgetting answers more unseen identifiers", ACTIVE, PLAIN, 0.0),
            Claim("without it 20% more answers come from the weights", PLAIN, ACTIVE, 0.2, measure="iwl head"),
            Claim("so does temporary forgetting answer more unseen identifiers", TEMPORARY, PLAIN, 0.0),
            Claim("it answers more frequent ones from the weights", TEMPORARY, ACTIVE, 0.0, measure="iwl head"),
            Claim("new positions answer more unseen identifiers", PLACES, PLAIN, 0.0, control=True),
        ]
        if scale == "full":
            rows.append(Claim("probability 0 answers 1% more unseen identifiers", NOTHING, PLAIN, 0.01, control=True))
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One model, judged before the reset of the same update."""
        setup = ARMS[arm]
        stream = _stream(WORDS[scale], setup.ambiguous, seed)
        model = TinyEncoder(stream.size, length=2 * stream.window + 1, answers=stream.asked, tags=2, seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
        keep = () if setup.whole or setup.select != "table" else stream.kept
        rule = Reset(EVERY, setup.stop, exclude_rows=keep, probability=setup.probability)
        forgetting = Forgetting(model, [setup.select], optimizer, rule, seed=seed)
        unseen, weights = [], []
        for t in range(1, STEPS[scale] + 1):
            batch = stream[t]
            optimizer.zero_grad()
            functional.cross_entropy(model(batch.x).flatten(0, 1), batch.y[:, stream.asked].flatten()).backward()
            optimizer.step()
            if t % (STEPS[scale] // POINTS[scale]) == 0:
                report = route(model, stream, count=JUDGED[scale], bias=None, seed=seed)
                unseen.append([float(t), report.unseen])
                weights.append([float(t), report.iwl_head])
                table = model.table.detach().clone()  # as it is before a reset
            forgetting.after(t)
        scores = {"unseen": report.unseen, "val": report.val, "tail": report.tail}
        scores |= {"icl head": report.icl_head, "iwl head": report.iwl_head, "iwl gap": report.iwl_head - report.iwl_tail}
        probed = torch.cat([stream.ids(kind)[:PROBED] for kind in ("nouns", "adjectives")])
        classes = torch.isin(probed, stream.ids("adjectives"))
        scores |= {"probe": float(linear_probe(table[probed], classes, epochs=EPOCHS, seed=seed).held)}
        return Measured(scores, {UNSEEN: unseen, HEAD: weights})


@lru_cache(maxsize=8)
def _stream(words: int | None, ambiguous: float, seed: int) -> RoleSentences:
    """The sentences are read once in a process."""
    return treebank_roles(words=words, ambiguous=ambiguous, seed=seed)


STUDY = RoleFromContextStudy()
