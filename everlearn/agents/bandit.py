"""A contextual bandit that is fitted anew each period to the log of its own choices.

    p(. | x) = explore(f_g(x, .)),   f_{g+1} = the least error on the rows of the last `memory` periods,   g counts the periods

Until something is learned, choices are even. Rewards may come late, twice or out of order: a row belongs to the period that decided it,
and once a period is closed the state is that of the log in order.

Reference: Vangara & Egg (2024), Contextual bandits in payment processing, arXiv 2412.00569.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.agents.blend import Blend
from everlearn.agents.committee import Lesson
from everlearn.agents.draws import pick, uniforms
from everlearn.agents.explorer import Explorer, Progress, raised
from everlearn.agents.explorers import Uniformly
from everlearn.agents.fitting import (
    CALIBRATIONS,
    HELD_OUT,
    TRAIN_ON,
    WEIGHTS,
    Calibration,
    draws_of,
    explored,
    is_better,
    rows_of,
)
from everlearn.agents.gap_weighting import SquareCB
from everlearn.agents.observing import Seen, observed, period_of, told
from everlearn.agents.oracles import Array, Model, Oracle, Ridge
from everlearn.agents.window import Window
from everlearn.core.agent import Agent, Decision
from everlearn.core.errors import ArgumentError, InputError, check_count, check_range
from everlearn.core.events import Feedback, Metrics, X
from everlearn.core.random import derive
from everlearn.core.state import capture, restore

EVENLY = Uniformly()  # the policy that nothing has been learned for yet: its log is fair to every action
STARVED = 0.5  # of an even share: what an action with too few rows gets at least


@dataclass(frozen=True)
class Decisions:
    """Choices for many rows: action (n,) int64, propensity (n,) and probabilities (n, actions) float64, generation of the policy."""

    action: Tensor
    propensity: Tensor
    probabilities: Tensor
    generation: int


class ContextualBandit(Agent):
    """Chooses by the scores of an oracle and the rule of an explorer; learns from rewards in any order.

    actions: their number; oracle: what expects rewards, `ridge()`, `logistic()`, `boosted()`, `network()`; explore: an explorer;
    memory: periods that a fit looks back on, 0 to keep no rows (an oracle that learns online is needed); period: rewards after which
    a period is closed, 0 to close it by `refit()` alone; floor, share: given to the explorer; masked: the last `actions` columns of an
    observation say which actions are on offer; ttl: periods after which a reward is too late (memory - 1 where it is None);
    weights: of the rows in a fit, "none", "ips" or "clipped" at `clip`; train_on: "all" or "exploration_only"; calibrate: "none",
    "platt" or "isotonic", on a quarter of the rows held out; mix: the part of the scores that older models give (an exponential mean
    over periods); minimum: rows that an action should have in the window, below which it gets half an even share at least; gate:
    deploy a new model only where its lower bound beats the value of the current policy, on rows held out; corrections: a second,
    other reward of a decision takes the place of the first, from the next fit on, in the place of being refused; clipped: scores are kept
    in [0, 1]; bounded: rewards outside [0, 1] are refused.

    >>> agent = ContextualBandit(actions=3, seed=1)
    >>> decision = agent.act(torch.zeros(1, 2), key=7)
    >>> agent.act(torch.zeros(1, 2), key=7) == decision, round(decision.propensity, 4), decision.generation
    (True, 0.3333, 0)
    >>> agent.update(Feedback("7", torch.zeros(1, 2), decision.action, decision.propensity, reward=1.0))
    {'reward': 1.0, 'generation': 0}
    """

    name = "bandit"
    parts = (
        "features", "blend", "committee", "window", "counts", "sharpness",
        "generation", "learned", "fitted", "since", "tally",
    )  # fmt: skip

    def __init__(
        self,
        actions: int = 2,
        *,
        oracle: Oracle = Ridge(),
        explore: Explorer = SquareCB(),
        memory: int = 4,
        period: int = 1000,
        floor: float = 0.0,
        share: float = 0.0,
        masked: bool = False,
        ttl: int | None = None,
        weights: str = "none",
        clip: float = 10.0,
        train_on: str = "all",
        calibrate: str = "none",
        mix: float = 0.0,
        minimum: int = 0,
        gate: bool = False,
        corrections: bool = False,
        clipped: bool = True,
        bounded: bool = True,
        seed: int = 0,
    ):
        check_count(self.name, "actions", actions)
        check_count(self.name, "memory", memory, 0)
        check_count(self.name, "period", period, 0)
        check_count(self.name, "minimum", minimum, 0)
        check_range(self.name, "floor", floor, 0.0, 1.0)
        check_range(self.name, "share", share, 0.0, 1.0)
        check_range(self.name, "clip", clip, 1e-12)
        check_range(self.name, "mix", mix, 0.0, 0.9)
        if ttl is not None:
            check_count(self.name, "ttl", ttl, 0)
        for key, value, known in (
            ("weights", weights, WEIGHTS), ("train_on", train_on, TRAIN_ON), ("calibrate", calibrate, CALIBRATIONS),
        ):  # fmt: skip
            if value not in known:
                raise ArgumentError(f"bandit: {key} must be one of {', '.join(known)}, got {value!r}.")
        if not isinstance(oracle, Oracle):
            raise ArgumentError(f"bandit: oracle must be one such as ridge() or logistic(), got {oracle!r}.")
        if not isinstance(explore, Explorer):
            raise ArgumentError(f"bandit: explore must be one such as squarecb(gamma=200.0), got {explore!r}.")
        self.actions, self.oracle, self.explore = actions, oracle, explore
        self.memory, self.period, self.floor, self.share = memory, period, floor, share
        self.masked, self.ttl, self.weights, self.clip = masked, ttl, weights, clip
        self.train_on, self.calibrate, self.mix, self.minimum = train_on, calibrate, mix, minimum
        self.gate, self.clipped, self.bounded, self.seed = gate, clipped, bounded, seed
        self.corrections = corrections
        self._check_fit()
        self.features = 0
        self.blend = Blend(oracle, actions, mix, clipped, derive(seed, "oracle", 0))
        self.committee: list[Model] = [Ridge().start(actions, seed) for _ in range(explore.members)]
        self.window = Window(actions)
        self.counts = torch.zeros(actions, dtype=torch.int64)
        self.sharpness: float | None = None
        self.generation = self.learned = self.fitted = self.since = 0
        self.tally = {"duplicates": 0, "late": 0, "corrected": 0, "held_back": 0}
        self.restored()

    def _check_fit(self) -> None:
        """Refuse what does not go together."""
        if self.explore.needs_widths and not self.oracle.measures:
            raise ArgumentError(
                f"bandit: {self.explore!r} asks how uncertain scores are, which {self.oracle!r} does not know; use ridge() or logistic()."
            )
        if self.memory == 0 and not (self.oracle.online or self.explore.members):
            raise ArgumentError(
                f"bandit: with memory=0 nothing is ever fitted, and {self.oracle!r} learns by fits alone; use memory=1."
            )
        if self.train_on == "exploration_only" and self._spreading().uniform_part == 0.0:
            raise ArgumentError(
                "bandit: exploration_only needs a uniform part: share=, floor=, uniformly() or epsilon_greedy()."
            )

    # ---- choosing ----------------------------------------------------------------------------------------------------------

    def act(self, observation: X, key: int) -> Decision:
        """Choose by one uniform that is a function of (seed, key)."""
        seen = observed(observation, self.actions, self.masked, self.features)
        if len(seen.x) != 1:
            raise InputError(f"bandit: act takes one row, got {len(seen.x)}; decide(observation, keys) takes many.")
        spread = self._spread(seen)
        action = int(pick(spread, uniforms(self._choosing, [key]))[0])
        row = tuple(spread[:, 0].tolist())
        return Decision(action, row[action], row, self.generation)

    def decide(self, observation: X, keys: Sequence[int]) -> Decisions:
        """Choose for many rows at once: the choices that `act` makes for each with its key."""
        seen = observed(observation, self.actions, self.masked, self.features)
        if len(seen.x) != len(keys):
            raise InputError(f"bandit: each of the {len(seen.x)} rows needs a key, got {len(keys)}.")
        keys = keys.numpy() if isinstance(keys, Tensor) else keys
        spread = self._spread(seen)
        action = pick(spread, uniforms(self._choosing, keys))
        return Decisions(
            torch.from_numpy(action),
            torch.from_numpy(spread[action, numpy.arange(len(action))]),
            torch.from_numpy(numpy.ascontiguousarray(spread.T)),
            self.generation,
        )

    def probabilities(self, observation: X) -> Tensor:
        """(rows, actions) of the policy as it stands."""
        return torch.from_numpy(self._spread(observed(observation, self.actions, self.masked, self.features)).T.copy())

    def scores(self, x: X, offered: Tensor | None = None) -> Tensor:
        """(rows, actions) of what the oracle expects, as the explorer is told them."""
        seen = observed(x if offered is None else {"x": x, "offered": offered}, self.actions, self.masked, self.features)
        return torch.from_numpy(self._scores(seen.x).T.copy())

    def _scores(self, x: Array) -> Array:
        return self.blend.scores(x.astype(numpy.float64))

    def _spread(self, seen: Seen) -> Array:
        """(actions, rows) of the policy."""
        return self._policy(seen.x, seen.offered, self._scores(seen.x), self._explorer)

    def _policy(self, x: Array, offered: Array, scores: Array, explorer: Explorer) -> Array:
        widths = votes = None
        if explorer.needs_widths:
            widths = self.blend.newest.widths(x.astype(numpy.float64))
        if explorer.members:
            votes = numpy.stack([member.scores(x.astype(numpy.float64)) for member in self.committee])
        ready = self.blend.fits or (self.learned and (self.oracle.online or explorer.members))
        rule = explorer if ready else EVENLY
        spread = rule.distribution(scores, offered, Progress(self.learned, self.fitted, widths, votes))
        if self.minimum:
            starved = offered & (self.counts.numpy() < self.minimum)[:, None]
            spread = raised(spread, starved, STARVED / offered.sum(axis=0))
        return spread

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def update(self, feedback: Feedback) -> Metrics:
        """Take in one reward; close the period where it is full. Raises InputError, with nothing changed, for what cannot be learned."""
        if not isinstance(feedback, Feedback):
            raise InputError(f"bandit: update takes a Feedback, got {type(feedback).__name__}.")
        seen = observed(feedback.observation, self.actions, self.masked, self.features)
        action, reward, propensity = told(self, feedback.action, feedback.reward, feedback.propensity, seen)
        decided = period_of(feedback.generation)
        self._conflict(feedback.id, action, reward)
        return self._take(feedback.id, seen.x[0], seen.offered[:, 0], action, reward, propensity, decided)

    def learn(
        self,
        x: Tensor,
        offered: Tensor | None,
        action: Tensor,
        reward: Tensor,
        propensity: Tensor | None = None,
        ids: Sequence[str] | None = None,
        generation: Tensor | None = None,
    ) -> Metrics:
        """Take in many rewards: the state is that of `update` on each in order. All rows are checked before any is learned from.

        x: (n, columns); offered: (n, actions) bool or None; action, reward, propensity, generation: (n,); ids: names of the rows,
        numbers that go on from the rows learned so far where it is None.
        """
        seen = observed(x if offered is None else {"x": x, "offered": offered}, self.actions, False, self.features)
        count = len(seen.x)
        names = [str(self.learned + place) for place in range(count)] if ids is None else list(ids)
        chances = [None] * count if propensity is None else propensity.tolist()
        ages = [None] * count if generation is None else generation.tolist()
        lists = action.tolist(), reward.tolist(), chances, names, ages
        if any(len(values) != count for values in lists):
            raise InputError(
                f"bandit: {count} rows need as many actions, rewards, propensities, ids; got {[*map(len, lists)]}."
            )
        rows, met = [], {}
        for place, (what, value, chance, id, age) in enumerate(zip(*lists, strict=True)):
            action_, reward_, chance_ = told(self, what, value, chance, seen, place)
            self._conflict(id, action_, reward_, met)
            met.setdefault(id, (action_, reward_))
            rows.append((id, seen.x[place], seen.offered[:, place], action_, reward_, chance_, period_of(age, place)))
        before = dict(self.tally)
        for row in rows:
            self._take(*row)
        counted = {key: self.tally[key] - before[key] for key in ("duplicates", "late")}
        return {"reward": sum(row[4] for row in rows) / count, "generation": self.generation, **counted}

    def _conflict(self, id: Any, action: int, reward: float, met: dict | None = None) -> None:
        """Refuse a second, different word on a decision."""
        if not isinstance(id, str):
            raise InputError(f"bandit: the id of a decision must be text, got {id!r}.")
        place = self.window.known(id)
        first = (met or {}).get(id)
        if place is not None:
            first = int(self.window["action"][place]), float(self.window["reward"][place])
        if first is not None and first != (action, reward) and not (self.corrections and first[0] == action):
            raise InputError(
                f"bandit: decision {id!r} was told action {first[0]} and reward {first[1]:g} before, and now {action} and {reward:g}; "
                "a reward is told once, or again as it was."
            )

    def _take(
        self, id: str, x: Array, offered: Array, action: int, reward: float, propensity: float, generation: int | None
    ) -> Metrics:
        place = self.window.known(id)
        if place is not None:
            other = float(self.window["reward"][place]) != reward
            self.window["reward"][place] = reward
            self.tally["corrected" if other else "duplicates"] += 1
            return {"corrected" if other else "duplicate": 1.0}
        decided = (
            self.generation if generation is None else min(generation, self.generation)
        )  # a rollback may have gone back
        longest = max(self.memory - 1, 0) if self.ttl is None else self.ttl
        if self.generation - decided > longest:
            self.tally["late"] += 1
            return {"late": 1.0}
        self.features = len(x)
        if self.memory:
            self.window.append(id, x, offered, action, reward, propensity, decided)
        self._learn_row(id, x.astype(numpy.float64), offered, action, reward, propensity)
        self.counts[action] += 1
        self.learned += 1
        self.since += 1
        metrics: Metrics = {"reward": reward, "generation": self.generation}
        if self.period and self.since >= self.period:
            metrics |= self.refit()
        return metrics

    def _learn_row(self, id: str, x: Array, offered: Array, action: int, reward: float, propensity: float) -> None:
        if self.explore.members:
            scores = self._scores(x[None])[:, 0]
            self.explore.teach(
                self.committee, Lesson(id, x, offered, action, reward, propensity, scores, self.learned), self.seed
            )
        if not self.oracle.online:
            return
        if self.train_on == "exploration_only":
            chance = self._explorer.uniform_part / offered.sum() / propensity
            if draws_of(self.seed, "explored", [id])[0] >= chance:
                return
        weight = 1.0 if self.weights == "none" else 1.0 / propensity
        self.blend.newest.learn(x, action, reward, min(weight, self.clip) if self.weights == "clipped" else weight)

    # ---- periods -----------------------------------------------------------------------------------------------------------

    def refit(self) -> Metrics:
        """Close the period: fit a new model to the rows of the last `memory` periods, and decide by it from here on."""
        metrics: Metrics = {}
        if self.memory:
            self.window.sort(self.generation - self.memory + 1)
            self.counts = torch.from_numpy(numpy.bincount(self.window["action"], minlength=self.actions))
            kept = numpy.ones(len(self.window), bool)
            if self.train_on == "exploration_only":
                kept = explored(self.window, self._explorer.uniform_part, self.seed)
            if kept.any():
                metrics = self._fit(kept)
                self._teach_again()
            offered = self.window["offered"].any(axis=0)
            if len(self.window) and not offered.all():
                metrics["never_offered"] = int((~offered).sum())
        self.generation += 1
        self.since = 0
        self.restored()
        return metrics

    def _fit(self, kept: Array) -> Metrics:
        held = draws_of(self.seed, "held out", self.window.ids) < HELD_OUT
        rest = kept & ~held
        if self.gate and self.blend.fits and rest.any() and held.any():
            model, calibration = self._fitted(rest, held)
            explorer = self._settled(model, calibration)
            if not is_better(
                lambda x, offered: self._policy(
                    x, offered, self.blend.alone(model, calibration, x.astype(numpy.float64)), explorer
                ),
                lambda x, offered: self._policy(x, offered, self._scores(x), self._explorer),
                self.window,
                held,
            ):
                self.tally["held_back"] += 1
                return {"deployed": 0.0}
        calibrated = self.calibrate != "none" and rest.any() and (kept & held).any()
        model, calibration = self._fitted(rest if calibrated else kept, held & kept if calibrated else None)
        self.blend.push(model, calibration)
        self.fitted = int(kept.sum())
        self.sharpness = getattr(self._settled(model, calibration), "gamma", None)
        return {"deployed": 1.0, "rows": self.fitted}

    def _fitted(self, kept: Array, held: Array | None) -> tuple[Model, Calibration]:
        """A model fitted to some rows, and its calibration on others."""
        model = self.oracle.start(self.actions, derive(self.seed, "oracle", self.generation))
        if getattr(self.oracle, "warm_start", False):
            restore(model, capture(self.blend.newest))
        model.fit(rows_of(self.window, kept, self.weights, self.clip))
        calibration = Calibration()
        if held is not None and self.calibrate != "none":
            rows = rows_of(self.window, held, "none", self.clip)
            scores = model.scores(rows.x)[rows.action, numpy.arange(len(rows.action))]
            calibration.fit(self.calibrate, scores, rows.reward, rows.weight)
        return model, calibration

    def _settled(self, model: Model, calibration: Calibration) -> Explorer:
        offered = numpy.ascontiguousarray(self.window["offered"].T)
        return self._spreading().settled(
            self.blend.alone(model, calibration, self.window["x"].astype(numpy.float64)), offered
        )

    def _teach_again(self) -> None:
        """The committee learns the rows of the window anew, in their order."""
        if not self.explore.members:
            return
        self.committee = [Ridge().start(self.actions, self.seed) for _ in self.committee]
        x = self.window["x"].astype(numpy.float64)
        scores = self._scores(x)
        for place, id in enumerate(self.window.ids):
            row = (self.window[name][place] for name in ("offered", "action", "reward", "propensity"))
            offered, action, reward, propensity = row
            lesson = Lesson(id, x[place], offered, int(action), float(reward), float(propensity), scores[:, place], place)
            self.explore.teach(self.committee, lesson, self.seed)

    def _spreading(self) -> Explorer:
        """The explorer with the agent's floor and share."""
        if not (self.floor or self.share):
            return self.explore
        return replace(self.explore, floor=max(self.floor, self.explore.floor), share=self.share or self.explore.share)

    def restored(self) -> None:
        """What follows from the state: the explorer with the sharpness of this period."""
        self._choosing = derive(self.seed, "choose")
        explorer = self._spreading()
        if getattr(explorer, "effective_actions", None) is not None:
            explorer = replace(explorer, gamma=self.sharpness or 0.0, scale=None, effective_actions=None)
        self._explorer = explorer
