"""Whether a network that adapts without labels is collapsing, told from its answers beside those of the source to the same rows.

    variety lost   (H(mean q) - H(mean p)) / ln C         p: answers of the adapting network, q: of the source, over a window
    crowding       max_c share(argmax p = c) - max_c share(argmax q = c)
    agreement      share(argmax p = argmax q),   alarming where it is low while p is surer than q

No label is needed. Rows that truly are of one class crowd the source's answers too, so what is measured is the difference.
References: Niu et al. (2023), SAR, arXiv 2302.12400 (collapse to one class); Press et al. (2023), RDumb, arXiv 2306.05401 (methods
that adapt for long fall below those that do not).
"""

import math

import torch
from torch import Tensor

from everlearn.core.errors import check_count, check_range
from everlearn.nn.entropy import entropy_of_shares


class CollapseWatch:
    """Looks at the answers to the newest rows.

    window: rows looked at, whole batches, and rows until anything is said; variety: the part of ln C by which the entropy of the mean
    answer may fall below the source's, 0.15; crowding: how much larger the share of the most frequent answer may be, 0.2; agreement:
    the least part of answers that must be the source's where the network is surer than it, 0.4.

    >>> watch = CollapseWatch(window=32)
    >>> source, collapsed = 5.0 * torch.eye(4).repeat(4, 1), torch.tensor([[9.0, 0.0, 0.0, 0.0]]).expand(16, 4)
    >>> watch.observe(source, source)
    >>> print(watch.alarm())
    None
    >>> watch.observe(collapsed, source)
    >>> watch.alarm()
    'the most frequent answer has 62% of the rows, 25% in the source'
    """

    parts = ("batches",)

    def __init__(
        self,
        window: int = 200,
        *,
        variety: float = 0.15,
        crowding: float = 0.2,
        agreement: float = 0.4,
        owner: str = "CollapseWatch",
    ):
        check_count(owner, "window", window)
        for argument, value in (("variety", variety), ("crowding", crowding), ("agreement", agreement)):
            check_range(owner, argument, value, 0.0, 1.0)
        self.window = window
        self.variety = variety
        self.crowding = crowding
        self.agreement = agreement
        self.batches: list[dict[str, list[float] | float]] = []  # sums over the rows of each batch, the oldest first

    def observe(self, scores: Tensor, source: Tensor) -> None:
        """Note the scores of the adapting network and of the source, (batch, classes, ...) both, for the same rows."""
        ours, theirs = _answers(scores), _answers(source)
        kinds, wanted = ours.argmax(1), theirs.argmax(1)
        classes = ours.shape[1]
        batch = {
            "rows": len(ours),
            "ours": ours.sum(0).tolist(),
            "theirs": theirs.sum(0).tolist(),
            "our_kinds": torch.bincount(kinds, minlength=classes).tolist(),
            "their_kinds": torch.bincount(wanted, minlength=classes).tolist(),
            "agreed": int((kinds == wanted).sum()),
            "our_confidence": float(ours.amax(1).sum()),
            "their_confidence": float(theirs.amax(1).sum()),
        }
        held = [*self.batches, batch]
        rows = sum(item["rows"] for item in held)
        while rows - held[0]["rows"] >= self.window:
            rows -= held.pop(0)["rows"]
        self.batches = held

    @property
    def ready(self) -> bool:
        """Whether enough rows were seen to say anything."""
        return sum(batch["rows"] for batch in self.batches) >= self.window

    def signals(self) -> dict[str, float]:
        """`variety_lost`, `crowding`, `agreement`, and how much `surer` the network is, over the window; {} before any batch."""
        if not self.batches:
            return {}
        sums = {key: _sum([batch[key] for batch in self.batches]) for key in self.batches[0]}
        rows = sums["rows"]
        classes = len(sums["ours"])
        lost = (
            (entropy_of_shares(sums["theirs"]) - entropy_of_shares(sums["ours"])) / math.log(classes) if classes > 1 else 0.0
        )
        return {
            "variety_lost": lost,
            "crowding": (max(sums["our_kinds"]) - max(sums["their_kinds"])) / rows,
            "agreement": sums["agreed"] / rows,
            "surer": (sums["our_confidence"] - sums["their_confidence"]) / rows,
        }

    def alarm(self) -> str | None:
        """What is wrong, in a few words; None where nothing is, or where too few rows were seen."""
        if not self.batches:
            return None
        if not all(math.isfinite(batch["our_confidence"]) for batch in self.batches):
            return "its answers are not finite"
        if not self.ready:
            return None
        found = self.signals()
        if found["crowding"] > self.crowding:
            rows = sum(batch["rows"] for batch in self.batches)
            ours, theirs = (max(_sum([batch[key] for batch in self.batches])) / rows for key in ("our_kinds", "their_kinds"))
            return f"the most frequent answer has {ours:.0%} of the rows, {theirs:.0%} in the source"
        if found["variety_lost"] > self.variety:
            return f"the entropy of its mean answer fell by {found['variety_lost']:.0%} of ln C below the source's"
        if found["agreement"] < self.agreement and found["surer"] > 0:
            return f"it gives {found['agreement']:.0%} of the source's answers, and is surer than it"
        return None

    def clear(self) -> None:
        """Forget what was seen."""
        self.batches = []


def _answers(scores: Tensor) -> Tensor:
    """(answers, classes) probabilities of rows or pixels."""
    chances = scores.detach().double().softmax(1)
    return chances if chances.ndim == 2 else chances.movedim(1, -1).reshape(-1, chances.shape[1])


def _sum(values: list) -> list[float] | float:
    return [sum(column) for column in zip(*values, strict=True)] if isinstance(values[0], list) else sum(values)
