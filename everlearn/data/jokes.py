"""Which joke a new user would like best, from a few of their ratings: Jester, as a linear bandit.

    rating_j = mean_j + <[1, v_j], theta> + noise        v: right singular vectors of centred training ratings

theta has the mean and covariance of training users; a test user's own rating of joke j is the answer to query j.

Reference: Goldberg, Roeder, Gupta & Perkins (2001), Eigentaste: a constant time collaborative filtering algorithm, Information
Retrieval 4.
"""

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.data.arrays import read_npz
from everlearn.data.network import network_file
from everlearn.data.query_problem import QueryProblem

MISSING, TRAIN, NOISE = 9999, 1000, 3.66


@dataclass(frozen=True)
class Jokes:
    """problem: the linear bandit of 100 jokes; ratings: (473, 100) of the users that it has not seen, -10..10."""

    problem: QueryProblem
    ratings: Tensor

    def losses(self, answer: Tensor) -> Tensor:
        """(users,) each user's best rating minus their rating of the joke that was recommended."""
        return self.ratings.amax(1) - self.ratings.gather(1, answer[:, None])[:, 0]


def jokes(horizon: int = 10, *, dimensions: int = 8, seed: int = 0) -> Jokes:
    """1,473 users who rated all 100 jokes of Jester: 1,000 give the features and the prior, 473 are to be served.

    dimensions: singular vectors kept; seed: of the division of users. Raises DataError where EVERLEARN_DATA has no jester5k.
    """
    check_count("jokes", "dimensions", dimensions)
    raw = read_npz(network_file("jester5k", "jester5k.npz"))["ratings_x100"]
    full = raw[(raw != MISSING).all(1)] / 100.0
    order = numpy.random.default_rng(seed).permutation(len(full))
    train, test = full[order[:TRAIN]], full[order[TRAIN:]]
    mean = train.mean(0)
    vectors = numpy.linalg.svd(train - mean, full_matrices=False)[2][:dimensions].T
    features = numpy.hstack([numpy.ones((len(vectors), 1)), vectors])
    users = numpy.linalg.lstsq(features, (train - mean).T, rcond=None)[0]
    x = torch.from_numpy(features)
    problem = QueryProblem(
        x,
        x,
        noise="gaussian",
        sigma=NOISE,
        horizon=horizon,
        repeat=False,
        prior=(torch.from_numpy(users.mean(1)), torch.from_numpy(numpy.cov(users))),
        offset=torch.from_numpy(mean),
    )
    return Jokes(problem, torch.from_numpy(test))
