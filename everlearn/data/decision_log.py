"""A log of decisions with what came of them: what any policy can be judged on, and any bandit learned from.

    row i:  x_i, offered_i (a non-empty set of actions), a_i ~ p_i(. | x_i, offered_i), p_i(a_i), r_i

The propensity is that of the moment of the decision, never one worked out later with a newer model. A log checks itself when it is
made, so that what reads it need not. Reference: Li et al. (2011), arXiv 1003.5956; Bottou et al. (2013), arXiv 1209.2355.
"""

import hashlib
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from everlearn.core.errors import DataError

SUM = 1e-6  # how far a row of probabilities may be from a sum of one


@dataclass(frozen=True, eq=False)
class DecisionLog:
    """Decisions in the order in which they were made. Raises DataError that names the first row which cannot be right.

    x: (n, d) float32; offered: (n, actions) bool; action: (n,) int64; propensity: (n,) float64, of the action taken;
    reward: (n,) float64; id: n different names; generation: (n,) int64, how often the policy had been fitted anew; time: (n,) float64;
    probabilities: (n, actions) float64, of all actions; weight: (n,) float64, how many decisions a row stands for (logs that
    were thinned out).

    >>> import torch
    >>> log = DecisionLog.of(torch.zeros(2, 1), action=torch.tensor([0, 1]), propensity=torch.tensor([0.5, 0.25]),
    ...                      reward=torch.tensor([1.0, 0.0]), actions=3)
    >>> len(log), log.actions, log.id
    (2, 3, ('0', '1'))
    """

    x: Tensor
    offered: Tensor
    action: Tensor
    propensity: Tensor
    reward: Tensor
    id: tuple[str, ...]
    generation: Tensor
    time: Tensor | None = None
    probabilities: Tensor | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        _shapes(self)
        _contents(self)

    @classmethod
    def of(
        cls,
        x: Tensor,
        *,
        action: Tensor,
        propensity: Tensor,
        reward: Tensor,
        offered: Tensor | None = None,
        actions: int | None = None,
        id: tuple[str, ...] | None = None,
        generation: Tensor | None = None,
        time: Tensor | None = None,
        probabilities: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> "DecisionLog":
        """A log from what is at hand: dtypes are brought to those of the class, what is missing is filled in.

        offered: all of `actions` actions where it is None (as many as were taken where that is None too); id: 0, 1, ...;
        generation: 0. A decision that was told twice with the same reward is kept once.
        """
        action = action.to(torch.int64)
        if offered is None:
            if actions is None:
                actions = (
                    probabilities.shape[1] if probabilities is not None else int(action.max()) + 1 if len(action) else 0
                )
            offered = torch.ones(len(action), actions, dtype=torch.bool)
        log = {
            "x": x.to(torch.float32),
            "offered": offered.to(torch.bool),
            "action": action,
            "propensity": propensity.to(torch.float64),
            "reward": reward.to(torch.float64),
            "id": tuple(map(str, range(len(action)))) if id is None else tuple(map(str, id)),
            "generation": torch.zeros(len(action), dtype=torch.int64) if generation is None else generation.to(torch.int64),
            "time": None if time is None else time.to(torch.float64),
            "probabilities": None if probabilities is None else probabilities.to(torch.float64),
            "weight": None if weight is None else weight.to(torch.float64),
        }
        return cls(**_once(log))

    def __len__(self) -> int:
        return len(self.action)

    @property
    def actions(self) -> int:
        """The number of actions, named 0..actions-1."""
        return self.offered.shape[1]

    @property
    def counts(self) -> Tensor:
        """(n,) float64: how many decisions each row stands for, 1 where the log was not thinned out."""
        return torch.ones(len(self), dtype=torch.float64) if self.weight is None else self.weight

    def rows(self, index: Tensor | slice) -> "DecisionLog":
        """The log of some rows, in the order of `index` (positions, a mask, or a slice)."""
        places = torch.arange(len(self))[index]
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        cut = {name: value[places] for name, value in values.items() if isinstance(value, Tensor)}
        return DecisionLog(**{**values, **cut, "id": tuple(self.id[place] for place in places.tolist())})

    def split(self, share: float = 0.5) -> tuple["DecisionLog", "DecisionLog"]:
        """(earlier part, later part); the earlier has `share` of the rows. Raises DataError where one of them would be empty."""
        first = round(share * len(self))
        if not 0 < first < len(self):
            raise DataError(
                f"decision log: {share} of {len(self)} rows leaves one part empty; take a share between 0 and 1."
            )
        return self.rows(slice(0, first)), self.rows(slice(first, None))

    def hashes(self) -> tuple[str, ...]:
        """A short hash of each row of x, by which a decision can be matched with its input where x itself is not kept."""
        data = self.x.contiguous().numpy()
        return tuple(hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in data)


def _once(log: dict) -> dict:
    """The same fields without rows that repeat an earlier one, id, action and reward."""
    names = log["id"]
    if len(set(names)) == len(names) or not len(names) == len(log["action"]) == len(log["reward"]):
        return log
    first: dict[str, int] = {}
    kept = []
    for row, name in enumerate(names):
        before = first.setdefault(name, row)
        if before == row:
            kept.append(row)
            continue
        for key in ("action", "reward"):
            if log[key][row] != log[key][before]:
                raise _fault(
                    f"the decision {name!r} has the {key} {log[key][row].item():g}, and in row {before} {log[key][before].item():g}; "
                    "an id names one decision",
                    row,
                )
    index = torch.tensor(kept)
    cut = {key: value[index] for key, value in log.items() if isinstance(value, Tensor)}
    return {**log, **cut, "id": tuple(names[row] for row in kept)}


def _shapes(log: DecisionLog) -> None:
    n, actions = len(log.action), log.offered.shape[-1]
    allowed = {
        "x": (torch.float32, (n, log.x.shape[-1])),
        "offered": (torch.bool, (n, actions)),
        "action": (torch.int64, (n,)),
        "propensity": (torch.float64, (n,)),
        "reward": (torch.float64, (n,)),
        "generation": (torch.int64, (n,)),
        "time": (torch.float64, (n,)),
        "probabilities": (torch.float64, (n, actions)),
        "weight": (torch.float64, (n,)),
    }
    for name, (dtype, shape) in allowed.items():
        value = getattr(log, name)
        if value is not None and (value.dtype != dtype or tuple(value.shape) != shape):
            raise DataError(
                f"decision log: {name} must be {dtype} of shape {shape}, got {value.dtype} of shape {tuple(value.shape)}."
            )
    if not n:
        raise DataError("decision log: it holds no rows.")
    if len(log.id) != n:
        raise DataError(f"decision log: {n} rows need {n} ids, got {len(log.id)}.")


def _contents(log: DecisionLog) -> None:
    taken = log.action.clamp(0, log.actions - 1)[:, None]
    _each(log.x.isfinite().all(dim=1), log.id, "x holds NaN or infinite values; all must be finite")
    _each(log.offered.any(dim=1), log.id, f"no action is on offer; each row needs 1..{log.actions}")
    _each(
        (log.action >= 0) & (log.action < log.actions),
        log.id,
        f"the action is {{}}; it must lie in 0..{log.actions - 1}",
        log.action,
    )
    _each(
        log.offered.gather(1, taken)[:, 0],
        log.id,
        "the action {} was not on offer; it must be one of those that were",
        log.action,
    )
    good = (log.propensity > 0) & (log.propensity <= 1)
    _each(good, log.id, "the propensity is {:g}; it must lie above 0 and be at most 1", log.propensity)
    _each(log.reward.isfinite(), log.id, "the reward is {:g}; it must be a finite number", log.reward)
    if log.time is not None:
        _each(log.time.isfinite(), log.id, "the time is {:g}; it must be a finite number", log.time)
    if log.weight is not None:
        _each(
            (log.weight > 0) & log.weight.isfinite(),
            log.id,
            "the weight is {:g}; it must be a finite number > 0",
            log.weight,
        )
    if log.probabilities is not None:
        check_probabilities("decision log", log.probabilities, log.offered, log.id)
        held = log.probabilities.gather(1, taken)[:, 0]
        same = (held - log.propensity).abs() <= SUM
        _each(
            same,
            log.id,
            "the propensity is {:g}, and its row of probabilities says otherwise; they must agree",
            log.propensity,
        )
    if len(set(log.id)) != len(log.id):
        seen: set[str] = set()
        fresh = torch.tensor([not (name in seen or seen.add(name)) for name in log.id])
        _each(fresh, log.id, "the id stands in an earlier row as well; an id names one decision")


def check_probabilities(owner: str, probabilities: Tensor, offered: Tensor, names: tuple[str, ...]) -> None:
    """Refuse rows that are no distribution over the actions on offer. Raises DataError that names the first."""
    _each(probabilities.isfinite().all(dim=1), names, "a probability is NaN or infinite; all must lie in 0..1", owner=owner)
    good = ((probabilities >= 0) & (probabilities <= 1 + SUM)).all(dim=1)
    _each(good, names, "a probability lies outside 0..1", owner=owner)
    total = probabilities.sum(dim=1)
    _each((total - 1).abs() <= SUM, names, "the probabilities sum to {:g}; they must sum to 1 +- 1e-6", total, owner)
    _each(
        ~((probabilities > 0) & ~offered).any(dim=1),
        names,
        "an action that is not on offer has a probability above 0",
        owner=owner,
    )


def _each(
    good: Tensor, names: tuple[str, ...], what: str, values: Tensor | None = None, owner: str = "decision log"
) -> None:
    if bool(good.all()):
        return
    wrong = (~good).nonzero().flatten()
    row = int(wrong[0])
    said = what if values is None else what.format(values[row].item())
    raise _fault(said, row, names, len(wrong), owner)


def _fault(what: str, row: int, names: tuple[str, ...] = (), wrong: int = 1, owner: str = "decision log") -> DataError:
    name = f" (id {names[row]!r})" if names else ""
    more = f" {wrong - 1} more row{'s' if wrong > 2 else ''} like it." if wrong > 1 else ""
    return DataError(f"{owner}: row {row}{name}: {what}.{more}")
