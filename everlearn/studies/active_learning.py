"""The study of learned active learning: is a query policy that was trained against an adversary better where it is worst?

    worst[learned] <= 0.85 worst[sgbs]    worst[learned] <= worst[random] + 0.02    mean[learned] <= mean[sgbs] + 0.03
    max_k gap_k[pi_*] <= 0.6 max_k gap_k[bayes] and <= max_k gap_k[min-max]    worst[pi_*] < worst[sgbs] for every r >= 6   (full scale)

gap_k(pi) = worst case of pi in the class of difficulty r_k, less that of the policy that was trained for this class. Ten thresholds, ten
questions, noisy signs. A worst case is the mean of the ten hardest of a pool of instances that attacks on all policies found, on
episodes of their own. The rounds of the training were chosen among six settings, so SGBS is also given the best of eight values of beta
on the very instances it is judged on. Trained on a fixed prior, without the adversary, the policy must not be better (the control).

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from everlearn.agents.learned_query import Learned
from everlearn.agents.query_policy import Policy
from everlearn.agents.query_rules import GeneralizedBinarySearch, Random, Uncertainty
from everlearn.agents.query_training import Schedule, Training, run_training
from everlearn.core.random import generator
from everlearn.data.query_families import thresholds
from everlearn.data.query_problem import QueryProblem
from everlearn.measure.particles import MARGINS
from everlearn.measure.worst_case import pool_losses, worst_case
from everlearn.studies.shared import shared
from everlearn.studies.study import Arm, Claim, Measured, Study

LEVELS = {"quick": (12.0,), "full": (4.0, 6.0, 12.0, 24.0, 48.0)}
# many short rounds rather than few long ones: a policy is attacked more often on the same number of steps
STAGE = {"quick": (24, 50), "full": (12, 40)}
LAST = {"quick": (24, 50), "full": (24, 40)}
WIDTH, PARTICLES = 64, 44
LEARNED, BAYES, MINMAX = "learned", "without adversary", "min-max of the hardest class"
BETAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.35, 0.4)  # beside the published one
BEST = "sgbs, best beta in hindsight"
RULES = {"sgbs": GeneralizedBinarySearch(), "random": Random(), "uncertainty": Uncertainty()}
TRIED = {f"sgbs {beta:g}": GeneralizedBinarySearch(beta) for beta in BETAS}
ROLES = {LEARNED: "system", **dict.fromkeys((*RULES, BEST), "baseline"), MINMAX: "baseline", BAYES: "control"}
CURVE = "Worst-case loss by difficulty"


class ActiveLearningStudy(Study):
    """Classes of difficulty, trained policies and rules, attacked and held against one pool of instances."""

    name: ClassVar[str] = "active_learning"
    title: ClassVar[str] = "A query policy trained against an adversary is better where it is worst"
    reference: ClassVar[str] = "Zhang, Jain & Jamieson (2020), arXiv 2010.15382"
    measures: ClassVar[Mapping[str, str]] = {
        "worst": "loss on the ten hardest instances of difficulty at most 12 that attacks on all policies found",
        "mean": "mean loss on all those instances",
        "of sgbs": "worst over that of soft generalized binary search",
        "of the best sgbs": "worst over that of its best beta, chosen on the same instances",
        "own": "mean loss on what the attack on the policy itself found",
        "gap": "largest loss over the classes beyond that of a policy trained for the class",
        f"gap of {BAYES}": f"gap over that of the policy {BAYES}",
        f"gap of {MINMAX}": f"gap over that of the {MINMAX}",
        **{f"over sgbs at {r:g}": f"worst over that of SGBS, difficulty at most {r:g}" for r in LEVELS["full"]},
    }
    axes: ClassVar[Mapping[str, str]] = {CURVE: "difficulty r"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Draws of networks, instances and episodes; the numbers of rounds and steps were chosen on seeds 0, 1 and 2."""
        return (3, 4, 5)

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """The trained policy first: others are measured on what attacks on it found. SGBS has eight values of beta in hindsight."""
        return tuple(Arm(label, role) for label, role in ROLES.items() if scale == "full" or label != MINMAX)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """What training gains where it is worst, what it costs on average, and the control."""
        rows = [
            Claim(
                "where it is worst, the policy loses at most 0.85 of what SGBS loses", "", LEARNED, -0.85, measure="of sgbs"
            ),
            Claim(
                "where it is worst, it loses at most 0.85 of what SGBS at its best beta loses",
                "",
                LEARNED,
                -0.85,
                measure="of the best sgbs",
            ),
            Claim("where it is worst, it loses at most 0.02 more than random queries", "random", LEARNED, -0.02),
            Claim("on average it loses at most 0.03 more than SGBS", "sgbs", LEARNED, -0.03, measure="mean"),
        ]
        if scale == "full":
            rows += [
                Claim(
                    f"its largest gap is at most {share:g} of that of {other}",
                    "",
                    LEARNED,
                    -share,
                    measure=f"gap of {other}",
                )
                for other, share in ((BAYES, 0.6), (MINMAX, 1.0))
            ]
            rows += [
                Claim(f"its worst case is below that of SGBS at {r:g}", "", LEARNED, -1.0, measure=f"over sgbs at {r:g}")
                for r in LEVELS["full"]
                if r >= 6.0
            ]
        control = "trained without an adversary, it loses at most 0.85 of what SGBS loses"
        return (*rows, Claim(control, "", BAYES, -0.85, control=True, measure="of sgbs"))

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """Every policy of the seed is trained and attacked once, and then held against the pools that all share."""
        found = shared("active learning", scale, seed, make=lambda: measured(scale, seed))
        own = found[arm]
        scores = dict(own["scores"])
        return Measured(scores, {CURVE: own["curve"]} if scale == "full" else {})


def problem() -> QueryProblem:
    """Ten thresholds, ten questions."""
    return thresholds(10, horizon=10)


def train(levels: tuple[float, ...], scale: str, seed: int, adversary: bool = True) -> Training:
    """A finished training."""
    (stage_rounds, stage_steps), (rounds, steps) = STAGE[scale], LAST[scale]
    if len(levels) == 1 and scale == "full":  # a comparator has what the last stage has
        stage_rounds, stage_steps = rounds, steps
    schedule = Schedule(rounds=rounds, steps=steps, stage_rounds=stage_rounds, stage_steps=stage_steps, particles=PARTICLES)
    return run_training(
        Training(
            problem(), levels, schedule, trainer="archive", adversary=adversary, margins=MARGINS, seed=seed, answer="erm",
            network="mlp", width=WIDTH,
        )
    )  # fmt: skip


def measured(scale: str, seed: int) -> dict[str, Any]:
    """{arm: {scores, curve}} of one seed."""
    levels = LEVELS[scale]
    own = train(levels, scale, seed)
    policies: dict[str, Any] = {LEARNED: own.result(), BAYES: train(levels[-1:], scale, seed, adversary=False).result()}
    if scale == "full":
        policies[MINMAX] = train(levels[-1:], scale, seed).result()
    policies |= {name: Policy(rule, problem()) for name, rule in (RULES | TRIED).items()}
    stages = {f"stage {r:g}": policy for r, policy in own.stage_policies().items()} if scale == "full" else {}
    tables = {r: pooled(policies | stages, r, seed) for r in levels}
    for table in tables.values():  # harder to beat than one tuned elsewhere: it is chosen where it is judged
        table[BEST] = min((table[name] for name in ("sgbs", *TRIED)), key=lambda told: told["worst"])
    found = {}
    shown = [*(name for name in policies if name not in TRIED), BEST]
    for name in shown:
        at = tables[12.0]
        scores = dict(at[name]) | {
            "of sgbs": at[name]["worst"] / at["sgbs"]["worst"],
            "of the best sgbs": at[name]["worst"] / at[BEST]["worst"],
        }
        if scale == "full":
            scores["gap"] = gap(tables, name)
            scores |= {f"over sgbs at {r:g}": table[name]["worst"] / table["sgbs"]["worst"] for r, table in tables.items()}
        found[name] = {"scores": scores, "curve": [[r, table[name]["worst"]] for r, table in tables.items()]}
    if scale == "full":
        for other in (BAYES, MINMAX):
            for name in shown:
                ratio = found[name]["scores"]["gap"] / max(found[other]["scores"]["gap"], 1e-9)
                found[name]["scores"][f"gap of {other}"] = ratio
    return found


def pooled(policies: Mapping[str, Learned | Policy], r: float, seed: int) -> dict[str, dict[str, float]]:
    """{policy: worst, mean, own}: all on the union of what attacks on each of them found in the class."""
    attacks = {name: worst_case(policy, problem(), r, episodes=100, seed=seed) for name, policy in policies.items()}
    pool = torch.cat([found.theta for found in attacks.values()])
    table = {}
    for name, policy in policies.items():
        losses, worst = pool_losses(policy, problem(), pool, generator=generator(seed, "pool", r), episodes=200)
        table[name] = {"worst": worst, "mean": float(losses.mean()), "own": attacks[name].mean}
    return table


def gap(tables: Mapping[float, Mapping[str, Mapping[str, float]]], name: str) -> float:
    """max_k of the worst case beyond that of the policy trained for class k.

    >>> gap({4.0: {"a": {"worst": 0.5}, "stage 4": {"worst": 0.4}}, 6.0: {"a": {"worst": 0.8}, "stage 6": {"worst": 0.5}}}, "a")
    0.3
    """
    return round(max(table[name]["worst"] - table[f"stage {r:g}"]["worst"] for r, table in tables.items()), 12)


STUDY = ActiveLearningStudy()
