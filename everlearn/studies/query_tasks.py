"""Three tasks of the full study of learned active learning: twenty questions, jokes, and more thresholds.

    animals   the player knows sides of 1/2 alone (flip 0.1); trained against flips in [0, 0.3]; asked by the animals' own P(yes)
    jokes     trained against users within 95 % of the prior; asked by the ratings of users whom nobody has seen
    longer    25 thresholds, 20 questions, one class of difficulty; attacked as in the study

Each gives {arm: {measure: value}}. All networks are "posterior": they begin as a rule and see what the posterior says of each query.

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from everlearn.agents.arm_rules import Thompson, Ucb
from everlearn.agents.learned_query import Learned
from everlearn.agents.query_policy import Policy, replay, simulate
from everlearn.agents.query_rules import GeneralizedBinarySearch, Random, Rule, Uncertainty
from everlearn.agents.query_training import train_query_policy
from everlearn.core.random import generator
from everlearn.data.jokes import jokes
from everlearn.data.query_families import thresholds
from everlearn.data.query_problem import QueryProblem
from everlearn.data.query_tables import animals
from everlearn.measure.worst_case import pool_losses, worst_case

LEARNED = "learned"
RULES: Mapping[str, Rule] = {"sgbs": GeneralizedBinarySearch(), "random": Random(), "uncertainty": Uncertainty()}
FEW = 5  # animals
FLIPS = (0.0, 0.3)  # of the adversary, as margins 1 - 2 flip
# the hardest animal has difficulty 12.1 where all answers flip with 0.2; each animal's own P(yes), cut at 0.3, is below 10.9
DIFFICULTY = 12.0
ANIMALS: dict[str, Any] = {"rounds": 8, "steps": 20, "particles": 50, "problems": 32, "width": 8, "value_episodes": 20}
JOKES: dict[str, Any] = {"rounds": 6, "steps": 20, "width": 16}
LONGER: dict[str, Any] = {"rounds": 6, "steps": 100, "width": 16}
PLAYS = {"animals": 400, "jokes": 5, "longer": 100}  # of each animal, user and instance, at the end


def animal_scores(seed: int) -> dict[str, dict[str, float]]:
    """How often each rule names the animal: on average, and the five hardest."""
    problem = replace(animals(20, flip=0.1), constraint="realisable")
    low, high = (1.0 - 2.0 * flip for flip in reversed(FLIPS))
    policy = train_query_policy(
        problem, [DIFFICULTY], margins=(low, high), answer="head", network="posterior", seed=seed, **ANIMALS
    )
    found = {}
    for name, rule in {LEARNED: policy, **RULES}.items():
        rates = named(rule, problem, PLAYS["animals"], seed)
        found[name] = {"animals": float(rates.mean()), "five animals": float(rates.sort().values[:FEW].mean())}
    return found


def named(rule: Rule, problem: QueryProblem, episodes: int, seed: int) -> torch.Tensor:
    """(50,) how often each animal is named when it answers with its own P(yes), whatever the player believes of it."""
    chance: Any = animals(problem.horizon).likelihood
    truth = torch.arange(len(chance)).repeat_interleave(episodes)
    answer = simulate(rule, problem, 2.0 * chance[truth] - 1.0, generator(seed, "animals")).answer
    return (answer == truth).double().view(-1, episodes).mean(1)


def joke_scores(seed: int) -> dict[str, dict[str, float]]:
    """What users lose by the joke that is recommended after ten ratings: their best rating minus that of the joke."""
    users = jokes(10)
    policy = train_query_policy(users.problem, [math.inf], network="posterior", seed=seed, **JOKES)
    found = {}
    for name, rule in {LEARNED: policy, "ucb": Ucb(), "thompson": Thompson(), "random": Random()}.items():
        random = generator(seed, "jokes")
        losses = [users.losses(replay(rule, users.problem, users.ratings, random)).mean() for _ in range(PLAYS["jokes"])]
        found[name] = {"jokes": float(torch.stack(losses).mean())}
    return found


def longer_scores(seed: int) -> dict[str, dict[str, float]]:
    """Worst case and mean over one pool of what attacks on all of them found."""
    problem = thresholds(25, horizon=20)
    policy = train_query_policy(problem, [DIFFICULTY], network="posterior", seed=seed, **LONGER)
    policies: dict[str, Learned | Policy] = {
        LEARNED: policy,
        **{name: Policy(rule, problem) for name, rule in RULES.items()},
    }
    attacks = [worst_case(one, problem, DIFFICULTY, episodes=1, seed=seed).theta for one in policies.values()]
    pool, found = torch.cat(attacks), {}
    for name, one in policies.items():
        losses, worst = pool_losses(one, problem, pool, episodes=PLAYS["longer"], generator=generator(seed, "longer"))
        found[name] = {"worst of 25": worst, "mean of 25": float(losses.mean())}
    return found
