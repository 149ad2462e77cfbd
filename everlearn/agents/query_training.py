"""Trains a query policy against an adversary, for every difficulty at once.

    pi_k = argmin_pi max_{theta in Theta_{r_k}} loss(pi, theta)            V_k = its worst case
    pi_* = argmin_pi max_k [ max_{theta in Theta_{r_k}} loss(pi, theta) - V_k ]

trainer "archive" (double oracle): each round attacks the frozen policy with fresh instances, keeps them for good, and improves the
policy on instances drawn by 0.7 softmax(running loss / 0.25) + 0.3 uniform. "simultaneous": instances, their weights and the policy
move together, as published; at a small budget they cycle.

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
Differs from the paper in: the archive, its weights by a softmax of running losses, the rule that is cloned first, 1/100 of the budget.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everlearn.agents.learned_query import Learned
from everlearn.agents.query_policy import Policy
from everlearn.agents.query_rules import GeneralizedBinarySearch, Random
from everlearn.agents.query_simultaneous import Mixture
from everlearn.agents.query_steps import clone_step, policy_step
from everlearn.core.errors import ArgumentError, StateError, check_count, check_range
from everlearn.core.random import generator as seeded
from everlearn.core.state import capture, digest, load, newest_snapshot, save_snapshot
from everlearn.data.query_problem import QueryProblem
from everlearn.measure.particles import MARGINS, Family, Particles
from everlearn.measure.worst_case import QueryRule, attack, expected_losses, pool_losses

TRAINERS = ("archive", "simultaneous")
SHARPNESS, PRIORITY = 0.25, 0.7  # of the weights on the archive, and their share beside the uniform ones
FORGET = 0.8  # of a running loss, at each visit

Progress = Callable[[float, dict[str, Any]], None]


@dataclass(frozen=True)
class Schedule:
    """The figures of training; the defaults are those of the archive trainer (rounds and steps aside)."""

    rounds: int = 12
    steps: int = 200
    stage_rounds: int | None = None  # of each pi_k; by default rounds and steps
    stage_steps: int | None = None
    problems: int = 48
    episodes: int = 12
    lr: float = 1e-3
    entropy: float = 0.01
    particles: int = 44
    ascent: int = 40
    attack_episodes: int = 8
    attack_lr: float = 0.02
    clone_steps: int = 200
    clone_batch: int = 256
    clone_lr: float = 3e-3
    value_episodes: int = 200  # by which each V_k is measured

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "problems", "particles", "attack_episodes", "clone_batch", "value_episodes"):
            check_count("train_query_policy", name, getattr(self, name))
        check_count("train_query_policy", "episodes", self.episodes, low=2, fix="One episode has no baseline.")
        for name in ("ascent", "clone_steps"):
            check_count("train_query_policy", name, getattr(self, name), low=0)
        for name in ("lr", "entropy", "attack_lr", "clone_lr"):
            check_range("train_query_policy", name, getattr(self, name), 0.0)


class Training:
    """A training that can be stopped between any two rounds: `step()` until `done`, then `result()`."""

    parts = (
        "scores", "optimizer", "random", "free", "index", "level", "loss", "mixture", "place", "values", "curve", "kept",
    )  # fmt: skip

    def __init__(
        self,
        problem: QueryProblem,
        levels: Sequence[float],
        schedule: Schedule,
        *,
        trainer: str,
        adversary: bool,
        margins: tuple[float, float],
        seed: int,
        answer: str,
        network: str,
        width: int,
    ):
        if trainer not in TRAINERS:
            raise ArgumentError(f"train_query_policy: trainer must be one of {TRAINERS}, got {trainer!r}.")
        if not levels or list(levels) != sorted(set(levels)):
            raise ArgumentError(
                f"train_query_policy: difficulties must be numbers that rise, at least one, got {list(levels)}."
            )
        self.problem = problem
        self.levels = tuple(float(r) for r in levels)
        self.schedule = schedule
        self.trainer = trainer
        self.adversary = adversary
        self.seed = seed
        self.families = [Family(problem, r, margins) for r in self.levels]
        self.policy = Learned(problem, answer=answer, network=network, width=width, seed=seed)
        self.scores = self.policy.scores
        self.random = seeded(seed, "train_query_policy")
        self.optimizer = torch.optim.Adam(self.scores.parameters(), lr=schedule.lr)
        self.free = torch.zeros(0, problem.queries.shape[1], dtype=torch.float64)
        self.index = torch.zeros(0, dtype=torch.int64)
        self.level = torch.zeros(0, dtype=torch.int64)
        self.loss = torch.zeros(0, dtype=torch.float64)
        self.mixture = Mixture(schedule.particles, self.families[0])
        self.place = [0, 0]  # stage, round
        self.values: list[float] = []
        self.curve: list[dict[str, Any]] = []
        self.kept: dict[str, Any] = {}  # the network of each stage
        made = (repr(problem), digest(capture([problem.queries, problem.answers])), self.levels, asdict(schedule))
        rest = (trainer, adversary, tuple(margins), seed, answer, network, width)
        self.identity = json.dumps([*made, *rest])

    @property
    def stages(self) -> int:
        """pi_1 .. pi_K, and pi_* where there are several difficulties."""
        return len(self.levels) + (len(self.levels) > 1)

    @property
    def done(self) -> bool:
        """Whether the last round was played."""
        return self.place[0] == self.stages

    @property
    def _final(self) -> bool:
        return self.place[0] == len(self.levels)

    @property
    def share(self) -> float:
        """Of the rounds that are played."""
        total = sum(self._rounds(stage) for stage in range(self.stages))
        return (sum(self._rounds(stage) for stage in range(self.place[0])) + self.place[1]) / total

    def _rounds(self, stage: int) -> int:
        final = stage >= len(self.levels)
        return self.schedule.rounds if final or self.schedule.stage_rounds is None else self.schedule.stage_rounds

    def _steps(self) -> int:
        schedule = self.schedule
        return schedule.steps if self._final or schedule.stage_steps is None else schedule.stage_steps

    def step(self) -> None:
        """One round: attack, then improve; at a stage's end its value is measured, and the next goes on from its network."""
        stage, number = self.place
        if self.place == [0, 0]:
            self._clone()
        if number == 0:
            self._begin_stage()
        loss = self._archive_round() if self.trainer == "archive" else self._mixture_round()
        self.curve.append({"stage": stage, "round": number, "loss": loss, "instances": len(self.free)})
        self.place = [stage, number + 1]
        if number + 1 == self._rounds(stage):
            if not self._final:
                self.kept[str(stage)] = capture(self.scores)
                self.values.append(self._value(stage))
            self.place = [stage + 1, 0]

    def result(self) -> Learned:
        """The policy as it stands, with values, archive and curve."""
        policy = self.policy
        policy.values = dict(zip(self.levels, self.values, strict=False))
        policy.archive = {"theta": self._theta(), "loss": self.loss.clone(), "level": self.level.clone()}
        policy.curve = capture(self.curve)
        return policy

    def stage_policies(self) -> dict[float, Learned]:
        """{r_k: pi_k}, those that are finished."""
        found = {}
        for number, r in enumerate(self.levels):
            if str(number) in self.kept:
                own = Learned(self.problem, answer=self.policy.answer, network=self.policy.network, width=self.policy.width)
                own.scores.load_state_dict(self.kept[str(number)])
                found[r] = own
        return found

    def _clone(self) -> None:
        """Imitate soft generalized binary search where answers are labellings or have a likelihood, unless the network begins as a rule."""
        problem, schedule = self.problem, self.schedule
        if (problem.likelihood is None and not problem.is_labelling) or self.policy.network == "posterior":
            return
        rule = Policy(GeneralizedBinarySearch(), problem)
        optimizer = torch.optim.Adam(self.scores.parameters(), lr=schedule.clone_lr)
        pool = self.families[-1].draw(schedule.clone_batch, self.random).theta
        for _ in range(schedule.clone_steps):
            rows = torch.randint(len(pool), (schedule.clone_batch,), generator=self.random)
            clone_step(self.policy, rule, optimizer, pool[rows], self.random)

    def _begin_stage(self) -> None:
        """Instances to start from: of an attack on uniform sampling, or, without an adversary, a prior that stays as it is."""
        stage, schedule = self.place[0], self.schedule
        if self._final:
            return
        family = self.families[stage]
        if self.trainer == "simultaneous":
            self.mixture.begin(family, self.random)
        elif self.adversary:
            start = family.draw(schedule.particles, self.random)
            self._keep(Policy(Random(), self.problem), start)
        else:
            prior = family.draw(schedule.particles * self._rounds(stage), self.random)
            loss = expected_losses(self.policy, self.problem, prior.theta, episodes=8, generator=self.random)
            self._append(prior, loss)

    def _keep(self, policy: QueryRule, start: Particles) -> None:
        """Attack, and append what is still in its class."""
        schedule = self.schedule
        found, loss, _ = attack(
            policy, start, self.random, steps=schedule.ascent, episodes=schedule.attack_episodes, lr=schedule.attack_lr
        )
        self._append(found, loss)

    def _append(self, found: Particles, loss: Tensor) -> None:
        level = torch.full((len(found),), self.families.index(found.family), dtype=torch.int64)
        self.free = torch.cat((self.free, found.free))
        self.index = torch.cat((self.index, found.index))
        self.level = torch.cat((self.level, level))
        self.loss = torch.cat((self.loss, loss))

    def _archive_round(self) -> float:
        """Attack the frozen policy in its class (in every class at the end), then improve on the archive. Returns the mean loss."""
        stage, schedule = self.place[0], self.schedule
        if self.adversary:
            attacked = range(len(self.levels)) if self._final else (stage,)
            for level in attacked:
                count = max(len(self.problem.answers) if self._final else 1, schedule.particles // len(attacked))
                self._keep(self.policy, self.families[level].draw(count, self.random))
        theta, base = self._theta(), self._base()
        total, steps = 0.0, self._steps()
        for _ in range(steps):
            rows = torch.multinomial(self._weights(base), schedule.problems, replacement=True, generator=self.random)
            loss = policy_step(self.policy, self.optimizer, theta[rows], schedule.episodes, schedule.entropy, self.random)
            self.loss[rows] = FORGET * self.loss[rows] + (1.0 - FORGET) * loss
            total += float(loss.mean())
        return total / steps

    def _weights(self, base: Tensor) -> Tensor:
        """0.7 softmax(running sub-optimality / 0.25) + 0.3 uniform; without an adversary uniform."""
        uniform = torch.full_like(self.loss, 1.0 / len(self.loss))
        if not self.adversary:
            return uniform
        return PRIORITY * ((self.loss - base) / SHARPNESS).softmax(0) + (1.0 - PRIORITY) * uniform

    def _base(self) -> Tensor:
        """V_k of each instance's difficulty, 0 before the last stage."""
        return torch.tensor(self.values, dtype=torch.float64)[self.level] if self._final else torch.zeros_like(self.loss)

    def _theta(self) -> Tensor:
        return Particles(self.families[0], self.free, self.index).theta

    def _mixture_round(self) -> float:
        """All at once: policy, weights and instances, as many iterations as steps."""
        schedule, steps = self.schedule, self._steps()
        values = self.values if self._final else None
        self.mixture.family = self.families[min(self.place[0], len(self.families) - 1)]
        total = sum(
            self.mixture.step(self.policy, self.optimizer, self.levels, values, schedule, self.adversary, self.random)
            for _ in range(steps)
        )
        self.free, self.index = self.mixture.free.clone(), self.mixture.index.clone()
        self.loss = self.mixture.loss.clone()
        self.level = self.mixture.levels(self.levels)
        return total / steps

    def _value(self, stage: int) -> float:
        """V_k: mean loss of the ten hardest of a fresh attack on pi_k, on episodes of their own."""
        random = seeded(self.seed, "value", stage)
        start = self.families[stage].draw(2 * self.schedule.particles, random)
        found, _, _ = attack(self.policy, start, random, steps=self.schedule.ascent, episodes=self.schedule.attack_episodes)
        return pool_losses(self.policy, self.problem, found.theta, episodes=self.schedule.value_episodes, generator=random)[
            1
        ]


def train_query_policy(
    problem: QueryProblem,
    difficulties: Sequence[float],
    *,
    rounds: int = 12,
    steps: int = 200,
    trainer: str = "archive",
    seed: int = 0,
    adversary: bool = True,
    margins: tuple[float, float] = MARGINS,
    answer: str = "erm",
    network: str = "mlp",
    width: int = 128,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    **figures: Any,
) -> Learned:
    """Train a policy that is nearly as good as can be at each difficulty; one difficulty alone gives the min-max policy of its class.

    problem: what is asked; difficulties: r_1 < ... < r_K (math.inf: no limit but the bounds of theta); rounds, steps: of pi_*, and of
    each pi_k unless stage_rounds and stage_steps say otherwise; trainer: "archive" or "simultaneous"; adversary: False trains on a
    fixed prior (the control, and the Bayes policy); margins: bounds of |theta_i| of labellings; answer, network, width: those of
    `Learned`; folder: where each round is kept, so that the same call goes on where it was, to the same bits; progress: called with
    the share that is done and the figures of the round; further figures: those of `Schedule`.

    Returns the policy with `.values`, `.archive` and `.curve`.

    Raises ArgumentError where a difficulty is below the smallest that there can be, StateError where the folder belongs to other
    arguments.

    >>> from everlearn.data.query_families import thresholds
    >>> rule = train_query_policy(thresholds(4, horizon=4), [12.0], rounds=1, steps=2, clone_steps=5, width=8)
    >>> list(rule.values), len(rule.curve)
    ([12.0], 1)
    """
    schedule = Schedule(rounds=rounds, steps=steps, **figures)
    training = Training(
        problem, difficulties, schedule, trainer=trainer, adversary=adversary, margins=margins, seed=seed,
        answer=answer, network=network, width=width,
    )  # fmt: skip
    return run_training(training, folder, progress).result()


def run_training(training: Training, folder: str | Path | None = None, progress: Progress | None = None) -> Training:
    """Play every round that is left; each is kept in the folder, where there is one."""
    place = None if folder is None else Path(folder)
    if place is not None:
        found = newest_snapshot(place) if place.exists() else None
        if found is not None:
            if found[1]["made"] != training.identity:
                raise StateError(
                    f"train_query_policy: {place} holds a training with other arguments; choose another folder or remove it."
                )
            load(training, found[1]["state"])
    while not training.done:
        training.step()
        if place is not None:
            save_snapshot(place, len(training.curve), {"made": training.identity, "state": capture(training)})
        if progress is not None:
            progress(training.share, training.curve[-1])
    return training
