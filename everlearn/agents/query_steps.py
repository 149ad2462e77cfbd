"""One step of training a query policy: by the score function on simulated episodes, or by imitation of a rule.

    psi <- psi - lr * mean_ml (L_ml - b_m) grad_psi sum_t log pi(i_t | s_t)        b_m = mean_l L_ml

With the mean of each problem as the baseline, episodes of one problem with equal losses move nothing; without it the differences
between problems would drown the signal.
"""

from typing import Any

import torch
from torch import Tensor, nn

from everlearn.agents.learned_query import Learned
from everlearn.measure.worst_case import Played, QueryRule, play

CLIP = 1.0  # of the gradient's norm


def episode_log_probabilities(policy: Learned, played: Played) -> tuple[Tensor, Tensor]:
    """((B,) sum_t log pi(i_t | s_t), with the answer's own where a head gives it; (T B,) entropies of the choices)."""
    steps, count, _ = played.states.shape
    n = policy.problem.size
    counts, sums = played.states.flatten(0, 1).split(n, 1)
    share = (torch.arange(steps) / policy.problem.horizon).repeat_interleave(count)[:, None].to(torch.get_default_dtype())
    logits = policy.log_probabilities(counts, sums, share.to(policy.scores.first.weight.dtype))
    own = logits.gather(1, played.index.flatten()[:, None]).reshape(steps, count).sum(0)
    if policy.answer == "head":
        head = policy.outputs(played.counts, played.sums, 1.0)[1].log_softmax(1)
        own = own + head.gather(1, played.answer[:, None])[:, 0]
    finite = logits.clamp_min(-30.0)
    return own, -(finite.exp() * finite).sum(1)


def policy_objective(policy: Learned, played: Played, episodes: int, entropy: float) -> Tensor:
    """What is descended: its gradient is the score-function estimate of that of the mean loss, less a bonus for entropy."""
    log_probability, spread = episode_log_probabilities(policy, played)
    loss = played.loss.reshape(-1, episodes)
    advantage = (loss - loss.mean(1, keepdim=True)).flatten().to(log_probability.dtype)
    return (advantage * log_probability).mean() - entropy * spread.mean()


def policy_step(
    policy: Learned, optimizer: torch.optim.Optimizer, theta: Tensor, episodes: int, entropy: float, random: torch.Generator
) -> Tensor:
    """Play `episodes` of each theta (M, d), descend once. Returns (M,) mean losses."""
    played = play(policy, policy.problem, theta.repeat_interleave(episodes, 0), random, record=True)
    descend(policy.scores, optimizer, policy_objective(policy, played, episodes, entropy))
    return played.loss.reshape(-1, episodes).mean(1)


def clone_step(
    policy: Learned, rule: QueryRule, optimizer: torch.optim.Optimizer, theta: Tensor, random: torch.Generator
) -> float:
    """Cross-entropy to a rule on the policy's own episodes (theta (B, d), one each). Returns it."""
    problem = policy.problem
    targets: list[Tensor] = []

    def watched(counts: Tensor, sums: Tensor, step: int, generator: torch.Generator) -> Tensor:
        targets.append(rule(counts, sums, step, generator))
        return policy(counts, sums, step, generator)

    begin: Any = getattr(rule, "begin", None)
    if begin is not None:
        begin(len(theta))
    played = play(watched, problem, theta, random, record=True)
    counts, sums = played.states.flatten(0, 1).split(problem.size, 1)
    dtype = policy.scores.first.weight.dtype
    share = (torch.arange(problem.horizon, dtype=dtype) / problem.horizon).repeat_interleave(len(theta))[:, None]
    logits = policy.log_probabilities(counts, sums, share).clamp_min(-30.0)
    loss = -(torch.cat(targets).to(dtype) * logits).sum(1).mean()
    if policy.answer == "head":
        head = policy.outputs(played.counts, played.sums, 1.0)[1].log_softmax(1)
        best = problem.scores(played.counts, played.sums)
        best = (best >= best.amax(1, keepdim=True) - 1e-9).to(dtype)
        loss = loss - (best / best.sum(1, keepdim=True) * head).sum(1).mean()
    descend(policy.scores, optimizer, loss)
    return float(loss.detach())


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step with the gradient's norm held at 1 or less."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimizer.step()
