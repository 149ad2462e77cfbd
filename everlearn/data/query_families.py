"""Families of query problems: thresholds, labellings of a pool, arms, sets of arms, linear bandits, twenty questions.

    thresholds, labellings   X = I, z in {-1/2, 1/2}^n       <z* - z, theta> = sum of |theta_i| where they differ
    best_arm, top_k          X = I, z = e_i, or indicators of k arms
    linear                   X = Z, or Z given (transductive)
    twenty_questions         X = I, P(yes | object, question) known

References: Zhang, Jain & Jamieson (2020), arXiv 2010.15382; Fiez et al. (2019), Sequential experimental design for transductive
linear bandits, NeurIPS; Nowak (2011), The geometry of generalized binary search, IEEE Transactions on Information Theory.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.spec import describe
from everlearn.data.query_problem import QueryProblem


def spelled(family: Callable[..., QueryProblem]) -> Callable[..., QueryProblem]:
    """Give the problem the call string that it was made from."""
    signature = inspect.signature(family)

    @functools.wraps(family)
    def call(*args: Any, **kwargs: Any) -> QueryProblem:
        problem = family(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        text = ", ".join(f"{key}={describe(value)}" for key, value in given.items())
        return replace(problem, spec=f"{family.__name__}({text})")

    return call


@spelled
def thresholds(
    n: int = 10,
    horizon: int = 10,
    *,
    noise: str = "sign",
    loss: str = "regret",
    constraint: str | None = "realisable",
    repeat: bool = True,
) -> QueryProblem:
    """Labels of n points in a row that change once: n + 1 answers, z_k = +1/2 from point k on; theta_i is the margin at point i.

    Settings are those of QueryProblem.
    """
    check_count("thresholds", "n", n, low=2)
    point, cut = torch.arange(n), torch.arange(n + 1)
    answers = (point[None] >= cut[:, None]).double() - 0.5
    return labellings(answers, horizon, noise=noise, loss=loss, constraint=constraint, repeat=repeat)


def labellings(answers: Tensor, horizon: int = 20, **settings: Any) -> QueryProblem:
    """Classification over a pool: each row of answers (m, n), of -1/2 and 1/2, labels all n points."""
    return QueryProblem(torch.eye(answers.shape[1], dtype=torch.float64), answers, horizon=horizon, **settings)


@spelled
def best_arm(
    n: int = 10, horizon: int = 50, *, noise: str = "gaussian", sigma: float = 1.0, loss: str = "regret", repeat: bool = True
) -> QueryProblem:
    """Which of n arms has the highest mean. Settings are those of QueryProblem."""
    check_count("best_arm", "n", n, low=2)
    arms = torch.eye(n, dtype=torch.float64)
    return QueryProblem(arms, arms, horizon=horizon, noise=noise, sigma=sigma, loss=loss, repeat=repeat)


@spelled
def top_k(
    n: int = 10,
    k: int = 2,
    horizon: int = 50,
    *,
    noise: str = "gaussian",
    sigma: float = 1.0,
    loss: str = "regret",
    repeat: bool = True,
) -> QueryProblem:
    """Which k of n arms have the highest means: the answers are all sets of k. Settings are those of QueryProblem.

    Raises ArgumentError past 100,000 sets.
    """
    check_count("top_k", "n", n, low=2)
    check_count("top_k", "k", k)
    if k >= n or math.comb(n, k) > 100_000:
        raise ArgumentError(f"top_k: k must be below n, with at most 100,000 sets; got k={k} of n={n}.")
    sets = torch.combinations(torch.arange(n), k)
    answers = torch.zeros(len(sets), n, dtype=torch.float64).scatter_(1, sets, 1.0)
    arms = torch.eye(n, dtype=torch.float64)
    return QueryProblem(arms, answers, horizon=horizon, noise=noise, sigma=sigma, loss=loss, repeat=repeat)


def linear(features: Tensor, horizon: int = 50, answers: Tensor | None = None, **settings: Any) -> QueryProblem:
    """A linear bandit: queries are the features, and so are the answers unless others are given (transductive)."""
    return QueryProblem(
        features, features if answers is None else answers, horizon=horizon, **{"noise": "gaussian", **settings}
    )


def twenty_questions(
    table: Tensor,
    horizon: int = 20,
    *,
    flip: float | None = None,
    objects: tuple[str, ...] = (),
    questions: tuple[str, ...] = (),
    repeat: bool = False,
) -> QueryProblem:
    """Guess an object from yes and no: table (objects, questions) holds P(yes), and each question is asked once.

    flip: None plays with these probabilities; a number takes only their sides of 1/2, wrong with that probability.
    The unknown theta of object j is 2 table[j] - 1, also where the player takes sides only.
    """
    if flip is not None:
        check_range("twenty_questions", "flip", flip, 1e-6, 0.5 - 1e-6)
    if table.ndim != 2 or not bool(((table > 0) & (table < 1)).all()):
        raise ArgumentError("twenty_questions: table must be (objects, questions) probabilities strictly between 0 and 1.")
    table = table.double()
    sides = torch.where(table > 0.5, 0.5, -0.5).double()
    played = table if flip is None else torch.where(table > 0.5, 1.0 - flip, flip)
    if not repeat and horizon > table.shape[1]:
        raise ArgumentError(
            f"twenty_questions: {table.shape[1]} questions, each asked once, do not fill a horizon of {horizon}."
        )
    if len(torch.unique(played, dim=0)) < len(played):
        raise ArgumentError("twenty_questions: two objects have the same row, so that no question can tell them apart.")
    return QueryProblem(
        torch.eye(table.shape[1], dtype=torch.float64),
        sides,
        horizon=horizon,
        loss="identification",
        repeat=repeat,
        likelihood=played,
        query_names=questions,
        answer_names=objects,
    )
