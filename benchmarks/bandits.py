"""Bandits beside Vowpal Wabbit and MABWiser: decisions and rewards a second on one core, and what they earn on the way.

    python benchmarks/bandits.py

Classification as a bandit: the reward is 1 where the action is the label, rows come once, shuffled. First both must turn the same costs
into the same probabilities to 1e-6, or the script stops. Vowpal Wabbit reads text, the way of its Python examples; MABWiser is asked
for a thousand rows. Times are those of the processor. Writes results/bandits.json and results/bandits.md.
"""

import argparse
import math
import os
from pathlib import Path
from time import process_time
from typing import Any

import numpy
import timing
import torch
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy

from everlearn.agents.bandit import ContextualBandit
from everlearn.agents.confidence import LinUCB
from everlearn.agents.gap_weighting import SquareCB
from everlearn.core.events import Feedback

SETS = ("nursery", "page_blocks")  # five actions each
SQUARECB = "--cb_explore_adf --squarecb --gamma_scale 10 --gamma_exponent 0.5 -q sa --quiet"
TARGETS = {"batches of 256": 28_000, "one at a time": 8_000}  # decisions with their rewards a second
FEW = 1000  # rows for MABWiser and what stands beside it
SHORT = ("MABWiser LinUCB", "linucb, one at a time")
BATCH = 256
Rate = tuple[float, float]  # decisions a second, mean reward


def data(name: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, y) of a set, shuffled, columns with a mean of 0 and a variance of 1."""
    for folder in os.environ.get("EVERLEARN_DATA", "").split(":"):
        path = Path(folder) / "bandit_classification" / f"{name}.npz"
        if path.is_file():
            with numpy.load(path) as held:
                x, y = held["X"].astype(numpy.float32), held["y"]
            order = numpy.random.default_rng(seed).permutation(len(x))
            x = (x - x.mean(0)) / numpy.maximum(x.std(0), 1e-6)
            return torch.from_numpy(x[order]), torch.from_numpy(
                numpy.unique(y, return_inverse=True)[1][order].astype(numpy.int64)
            )
    raise SystemExit(f"bandit_classification/{name}.npz is in no folder of EVERLEARN_DATA.")


def vw_lines(x: numpy.ndarray, actions: int, told: tuple[int, float, float] | None = None) -> list[str]:
    """One example as text; told: (action, cost, probability)."""
    shared = "shared |s " + " ".join(f"f{place}:{value:.6g}" for place, value in enumerate(x))
    label = ["" if told is None or told[0] != action else f"0:{told[1]:g}:{told[2]:.6g} " for action in range(actions)]
    return [shared, *(f"{label[action]}|a a{action}" for action in range(actions))]


def vowpal(x: torch.Tensor, y: torch.Tensor, actions: int, seed: int) -> Rate:
    workspace = vowpalwabbit.Workspace(SQUARECB)
    rows, labels = x.numpy(), y.tolist()
    drawn = numpy.random.default_rng(seed).random(len(rows))
    earned, started = 0, process_time()
    for place, row in enumerate(rows):
        chances = workspace.predict(vw_lines(row, actions))
        action = min(int(numpy.searchsorted(numpy.cumsum(chances), drawn[place], side="right")), actions - 1)
        hit = int(action == labels[place])
        earned += hit
        workspace.learn(vw_lines(row, actions, (action, 1.0 - hit, chances[action])))
    taken = process_time() - started
    workspace.finish()
    return len(rows) / taken, earned / len(rows)


def bandit(actions: int, seed: int, explore: Any = None) -> ContextualBandit:
    return ContextualBandit(actions, explore=explore or SquareCB(scale=10.0), memory=0, period=0, seed=seed)


def batched(x: torch.Tensor, y: torch.Tensor, actions: int, seed: int) -> Rate:
    agent, earned, started = bandit(actions, seed), 0.0, process_time()
    for start in range(0, len(x), BATCH):
        part = x[start : start + BATCH]
        made = agent.decide(part, range(start, start + len(part)))
        reward = (made.action == y[start : start + BATCH]).double()
        agent.learn(part, None, made.action, reward, made.propensity)
        earned += float(reward.sum())
    return len(x) / (process_time() - started), earned / len(x)


def single(x: torch.Tensor, y: torch.Tensor, actions: int, seed: int, explore: Any = None) -> Rate:
    agent, labels, earned = bandit(actions, seed, explore), y.tolist(), 0.0
    started = process_time()
    for place in range(len(x)):
        row = x[place : place + 1]
        made = agent.act(row, place)
        reward = float(made.action == labels[place])
        agent.update(Feedback(str(place), row, made.action, made.propensity, reward))
        earned += reward
    return len(x) / (process_time() - started), earned / len(x)


def mabwiser(x: torch.Tensor, y: torch.Tensor, actions: int, seed: int) -> Rate:
    rows, labels, earned = x[:FEW].numpy().astype(float), y.tolist(), 0
    mab = MAB(list(range(actions)), LearningPolicy.LinUCB(alpha=0.3), seed=seed)
    mab.fit([0], [0.0], rows[:1])
    started = process_time()
    for place in range(len(rows)):
        action = mab.predict(rows[place : place + 1])
        reward = int(action == labels[place])
        earned += reward
        mab.partial_fit([action], [reward], rows[place : place + 1])
    return len(rows) / (process_time() - started), earned / len(rows)


def apart() -> float:
    """The greatest difference of probabilities for the same costs: Vowpal Wabbit's own, as a twin without exploration tells them.

    Both are told probability 1: with others the twin's costs differ, since the statistics of `mtr` see the probability that was logged.
    """
    asked, twin = vowpalwabbit.Workspace(SQUARECB), vowpalwabbit.Workspace("--cb_adf --cb_type mtr -q sa --quiet")
    random, greatest = numpy.random.default_rng(0), 0.0
    for number in range(60):
        x = random.normal(size=4)
        found = numpy.array(asked.predict(vw_lines(x, 3)))
        scores = twin.predict(vw_lines(x, 3))
        ours = SquareCB(scale=10.0).probabilities(-torch.tensor([scores], dtype=torch.float64), learned=number)
        greatest = max(greatest, float(numpy.abs(ours.numpy()[0] - found).max()))
        told = int(random.integers(3)), float(random.random() < 0.5)
        asked.learn(vw_lines(x, 3, (*told, 1.0)))
        twin.learn(vw_lines(x, 3, (*told, 1.0)))
    return greatest


def deciding() -> dict[str, float]:
    """Decisions a second without learning: five actions with their oracle, and the milliseconds of 100,000 rows of seven without one."""
    from everlearn.agents.draws import pick, uniforms
    from everlearn.agents.explorer import Progress

    random = numpy.random.default_rng(0)
    agent, x = bandit(5, 0), torch.from_numpy(random.normal(size=(100_000, 16)).astype(numpy.float32))
    agent.learn(x[:500], None, torch.from_numpy(random.integers(5, size=500)), torch.from_numpy(random.random(500)))
    scores, offered, keys = random.random((7, 100_000)), random.random((7, 100_000)) < 0.7, torch.arange(100_000)
    offered[0] = True

    def taken(call: Any) -> float:
        times = []
        for _ in range(7):
            started = process_time()
            call()
            times.append(process_time() - started)
        return min(times)

    explore, numbers = SquareCB(), keys.numpy()
    bare = taken(lambda: pick(explore.distribution(scores, offered, Progress()), uniforms(1, numbers)))
    return {"decisions_per_second": 100_000 / taken(lambda: agent.decide(x, keys)), "seven_actions_ms": 1e3 * bare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    difference = apart()
    if difference > 1e-6:
        raise SystemExit(f"probabilities for the same costs are {difference:.1e} apart, so this is not the same rule")
    found: dict[str, Any] = {"apart": difference, "deciding": deciding()}
    rows = []
    for name in SETS:
        sets = [data(name, seed) for seed in range(rounds)]
        actions = int(sets[0][1].max()) + 1
        calls = {
            "Vowpal Wabbit": lambda seed, sets=sets, actions=actions: vowpal(*sets[seed], actions, seed),
            "batches of 256": lambda seed, sets=sets, actions=actions: batched(*sets[seed], actions, seed),
            "one at a time": lambda seed, sets=sets, actions=actions: single(*sets[seed], actions, seed),
            "MABWiser LinUCB": lambda seed, sets=sets, actions=actions: mabwiser(*sets[seed], actions, seed),
            "linucb, one at a time": lambda seed, sets=sets, actions=actions: single(
                sets[seed][0][:FEW], sets[seed][1][:FEW], actions, seed, LinUCB(0.3)
            ),
        }
        timing.show(name)
        made = timing.interleave(calls, rounds, warm=False)
        rate = {key: timing.summary([pair[0] for pair in pairs]) for key, pairs in made.items()}
        earned = {key: float(numpy.mean([pair[1] for pair in pairs])) for key, pairs in made.items()}
        found[name] = {"per_second": rate, "reward": earned}
        base = rate["Vowpal Wabbit"]["median"]
        for key in calls:
            target = TARGETS.get(key)
            verdict = "" if target is None else f">= {target:,} {'met' if rate[key]['median'] >= target else 'missed'}"
            margin = math.sqrt(earned[key] * (1 - earned[key]) / (rounds * (FEW if key in SHORT else len(sets[0][0]))))
            mean = f"{earned[key]:.3f} ± {1.96 * margin:.3f}"
            rows.append(
                [
                    name,
                    key,
                    f"{rate[key]['median']:,.0f}",
                    f"{rate[key]['median'] / base:.1f}",
                    verdict,
                    mean,
                ]
            )
    head = ["set", "contender", "decisions and rewards a second", "beside VW", "target", "mean reward on the way"]
    timing.publish(
        "bandits", {"settings": {"rounds": rounds, "few": FEW, "batch": BATCH}, **found}, timing.table(head, rows)
    )


if __name__ == "__main__":
    main()
