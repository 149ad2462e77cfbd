"""The study of learned active learning: is a query policy that was trained against an adversary better where it is worst?

    worst[learned] <= 0.85 worst[sgbs]    worst[learned] <= worst[random] + 0.02    mean[learned] <= mean[sgbs] + 0.03
    full scale:  max_k gap_k[pi_*] <= 0.6 max_k gap_k[bayes] and <= max_k gap_k[min-max]    worst[pi_*] < worst[sgbs] for every r >= 6
    five hardest animals[learned] >= those of sgbs + 0.05, all animals >= sgbs - 0.02    jokes[learned] <= ucb + 0.1 and < thompson

gap_k(pi) = worst case of pi in the class of difficulty r_k, less that of the policy that was trained for this class. Ten thresholds, ten
questions, noisy signs; other tasks in `query_tasks`. A worst case is the mean of the ten hardest of a pool of instances that attacks on
all policies found, on episodes of their own. SGBS is also given the best of eight values of beta on the very instances it is judged on.
Trained on a fixed prior, without the adversary, the policy must not be better (the control).

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from everlearn.agents.learned_query import Learned
from everlearn.agents.query_policy import Policy
from everlearn.agents.query_rules import GeneralizedBinarySearch
from everlearn.agents.query_training import Schedule, Training, run_training
from everlearn.core.random import generator
from everlearn.data.query_families import thresholds
from everlearn.data.query_problem import QueryProblem
from everlearn.measure.particles import MARGINS
from everlearn.measure.worst_case import pool_losses, worst_case
from everlearn.studies.query_tasks import LEARNED, RULES, animal_scores, joke_scores, longer_scores
from everlearn.studies.shared import shared
from everlearn.studies.study import Arm, Claim, Measured, Study

LEVELS = {"quick": (12.0,), "full": (4.0, 6.0, 12.0, 24.0, 48.0)}
STAGE = {"quick": (6, 120), "full": (6, 150)}  # rounds and steps of the policy of each class, as in the paper's small twin
LAST = {"quick": (6, 120), "full": (10, 200)}  # of the policy for all classes, and of what it is held against
WIDTH, PARTICLES = 16, 44
POOLED = {"quick": 200, "full": 100}  # episodes of each instance of a pool
BAYES, MINMAX = "without adversary", "min-max of the hardest class"
BETAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.35, 0.4)  # beside the published one
BEST = "sgbs, best beta in hindsight"
TRIED = {f"sgbs {beta:g}": GeneralizedBinarySearch(beta) for beta in BETAS}
TASKS = {"animals": animal_scores, "jokes": joke_scores, "longer": longer_scores}  # of the full scale
ARMS = {"ucb": "jokes", "thompson": "jokes"}  # that play one task alone
SHARES = {BAYES: 0.6, MINMAX: 1.0}  # of their gap, which the policy's may not exceed
ROLES = {
    LEARNED: "system",
    **dict.fromkeys((*RULES, BEST), "baseline"),
    **dict.fromkeys((MINMAX, *ARMS), "baseline"),
    BAYES: "control",
}
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
        **{f"gap beyond {other}": f"gap less {share:g} of that of the policy: {other}" for other, share in SHARES.items()},
        **{f"over sgbs at {r:g}": f"worst over that of SGBS, difficulty at most {r:g}" for r in LEVELS["full"]},
        "most over sgbs": "the largest of these for difficulties of 6 and more",
        "worst of 25": "loss on the ten hardest instances of 25 thresholds, 20 questions, difficulty at most 12",
        "mean of 25": "mean loss on all those instances",
        "animals": "share of 50 animals that are named after 20 questions",
        "five animals": "the same of the five hardest",
        "jokes": "best rating of a user less that of the joke recommended after ten",
    }
    axes: ClassVar[Mapping[str, str]] = {CURVE: "difficulty r"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Draws of networks, instances and episodes; the network was chosen on seed 0."""
        return (3, 4, 5)

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """The trained policy first: others are measured on what attacks on it found. SGBS has eight values of beta in hindsight."""
        return tuple(Arm(label, role) for label, role in ROLES.items() if scale == "full" or label not in (MINMAX, *ARMS))

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
                    f"its largest gap is at most {share:g} of that of the policy: {other}",
                    "",
                    LEARNED,
                    measure=f"gap beyond {other}",
                )
                for other, share in SHARES.items()
            ]
            rows += [
                Claim(f"its worst case is below that of SGBS at {r:g}", "", LEARNED, -1.0, measure=f"over sgbs at {r:g}")
                for r in LEVELS["full"]
                if r >= 6.0
            ]
            rows += [
                Claim("of 25 thresholds its worst case is below that of SGBS", "sgbs", LEARNED, measure="worst of 25"),
                Claim(
                    "it names 0.05 more of the five hardest animals than SGBS", LEARNED, "sgbs", 0.05, measure="five animals"
                ),
                Claim("it names at most 0.02 fewer animals than SGBS", LEARNED, "sgbs", -0.02, measure="animals"),
                Claim("its jokes lose at most 0.1 more than those of UCB", "ucb", LEARNED, -0.1, measure="jokes"),
                Claim("its jokes lose less than those of Thompson sampling", "thompson", LEARNED, measure="jokes"),
                Claim(
                    "trained without an adversary, its worst case is below that of SGBS at every difficulty",
                    "",
                    BAYES,
                    -1.0,
                    control=True,
                    measure="most over sgbs",
                ),
            ]
        control = "trained without an adversary, where it is worst, it loses at most 0.02 more than random queries"
        return (*rows, Claim(control, "random", BAYES, -0.02, control=True))

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """Every policy of the seed is trained once and attacked once, and then held against the pools that all share.

        Each arm begins with another part, so that two processes make different parts at the same time.
        """
        parts, first = parts_of(scale), list(ROLES).index(arm)
        for place in range(len(parts)):
            made(parts[(first + place) % len(parts)], scale, seed)
        tasks = [made(name, scale, seed) for name in TASKS] if scale == "full" else []
        scores = {key: value for found in tasks for key, value in found.get(arm, {}).items()}
        if arm in ARMS:
            return Measured(scores)
        own = shared("active learning", scale, seed, make=lambda: measured(scale, seed))[arm]
        return Measured({**own["scores"], **scores}, {CURVE: own["curve"]} if scale == "full" else {})


def parts_of(scale: str) -> tuple[str, ...]:
    """What a seed needs that can be made side by side: the longest first."""
    return (LEARNED, BAYES) if scale == "quick" else (LEARNED, BAYES, MINMAX, *TASKS)


def made(part: str, scale: str, seed: int) -> Any:
    """The states of trained policies, the policy of the last stage first, or the scores on a task."""
    if part in TASKS:
        return shared("active learning", part, seed, make=lambda: TASKS[part](seed))
    levels = LEVELS[scale] if part == LEARNED else LEVELS[scale][-1:]

    def states() -> dict[str, Any]:
        own = train(levels, scale, seed, adversary=part != BAYES)
        return {"last": own.result().state_dict()} | {f"{r:g}": one.state_dict() for r, one in own.stage_policies().items()}

    return shared("active learning", part, scale, seed, make=states)


def policy_of(state: dict[str, Any]) -> Learned:
    """A trained policy from its state."""
    policy = Learned(problem(), **state["made"])
    policy.load_state_dict(state)
    return policy


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
            network="posterior", width=WIDTH,
        )
    )  # fmt: skip


def measured(scale: str, seed: int) -> dict[str, Any]:
    """{arm: {scores, curve}} of one seed."""
    levels = LEVELS[scale]
    trained = {part: made(part, scale, seed) for part in parts_of(scale) if part not in TASKS}
    policies: dict[str, Any] = {part: policy_of(states["last"]) for part, states in trained.items()}
    policies |= {name: Policy(rule, problem()) for name, rule in RULES.items()}
    tables = {}
    for r in levels:
        stage = {f"stage {r:g}": policy_of(trained[LEARNED][f"{r:g}"])} if scale == "full" else {}
        tables[r] = table = pooled(policies | stage, r, scale, seed)
        # harder to beat than one tuned elsewhere: it is chosen where it is judged, and no attack is made on the others
        best = min((table[name] for name in ("sgbs", *TRIED)), key=lambda told: told["worst"])
        table[BEST] = {"worst": best["worst"], "mean": best["mean"]}
    found = {}
    for name in (*policies, BEST):
        at = tables[12.0]
        scores = dict(at[name]) | {
            "of sgbs": at[name]["worst"] / at["sgbs"]["worst"],
            "of the best sgbs": at[name]["worst"] / at[BEST]["worst"],
        }
        if scale == "full":
            ratios = {r: table[name]["worst"] / table["sgbs"]["worst"] for r, table in tables.items()}
            scores |= {f"over sgbs at {r:g}": ratio for r, ratio in ratios.items()}
            scores |= {"gap": gap(tables, name), "most over sgbs": max(ratio for r, ratio in ratios.items() if r >= 6.0)}
        found[name] = {"scores": scores, "curve": [[r, table[name]["worst"]] for r, table in tables.items()]}
    if scale == "full":
        for other, share in SHARES.items():
            for own in found.values():
                own["scores"][f"gap beyond {other}"] = own["scores"]["gap"] - share * found[other]["scores"]["gap"]
    return found


def pooled(policies: Mapping[str, Learned | Policy], r: float, scale: str, seed: int) -> dict[str, dict[str, float]]:
    """{policy: worst, mean, own}: all on the union of what attacks on each of them found in the class; SGBS with every beta too."""
    attacks = {name: worst_case(policy, problem(), r, episodes=100, seed=seed) for name, policy in policies.items()}
    pool = torch.cat([found.theta for found in attacks.values()])
    table = {}
    for name, policy in {**policies, **{name: Policy(rule, problem()) for name, rule in TRIED.items()}}.items():
        losses, worst = pool_losses(policy, problem(), pool, generator=generator(seed, "pool", r), episodes=POOLED[scale])
        table[name] = {"worst": worst, "mean": float(losses.mean())}
        if name in attacks:
            table[name]["own"] = attacks[name].mean
    return table


def gap(tables: Mapping[float, Mapping[str, Mapping[str, float]]], name: str) -> float:
    """max_k of the worst case beyond that of the policy trained for class k.

    >>> gap({4.0: {"a": {"worst": 0.5}, "stage 4": {"worst": 0.4}}, 6.0: {"a": {"worst": 0.8}, "stage 6": {"worst": 0.5}}}, "a")
    0.3
    """
    return round(max(table[name]["worst"] - table[f"stage {r:g}"]["worst"] for r, table in tables.items()), 12)


STUDY = ActiveLearningStudy()
