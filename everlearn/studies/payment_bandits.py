"""The study of payment bandits: what inverse-gap weighting earns, and how policies swing that are fitted to the log of the one before.

    regret[inverse gaps, tuned] <= 0.5 regret[uniform]                  share of the uniform policy's regret, same payments
    oscillation rises with gamma over 50, 200, 1000, 5000;  that of greedy is at least twice that of 50
    drop[greedy] >= 0.02;  drop <= 0 with the memory of four periods    second learned generation less the first
    regret[200, memory 4] <= 0.75 regret[200]
    DR and SNIPS intervals cover the next policy's value in 85% of generations with ESS/n >= 0.1
    regret[greedy] > regret[1000] with a memory of one period, and on labelled tables inverse gaps earn more       full scale

One world of payments for each seed; a policy serves a period, is fitted to the log of its last `memory` periods from nothing, and serves
the next. In a world that stands still, uniform choices must not swing more than drawing other payments does (the negative control).

Reference: Vangara & Egg (2024), Contextual bandits in payment processing, arXiv 2412.00569.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from everlearn.agents.bandit import ContextualBandit
from everlearn.comparison.building import build_agent
from everlearn.data.classification_rounds import rounds
from everlearn.data.decision_log import DecisionLog
from everlearn.envs.payment_world import ACTIONS, Payments, PaymentWorld, payment_world
from everlearn.measure.off_policy import evaluate
from everlearn.measure.oscillation import alternation, oscillation, resampled, successor_drop
from everlearn.measure.policy_generation import generation_figures
from everlearn.studies.study import Arm, Claim, Measured, Study

GENERATIONS = {"quick": 10, "full": 20}
PAYMENTS = {"quick": 3000, "full": 20_000}
TABLES = {
    "quick": ("digits", "bandit_classification/segment", "bandit_classification/vowel", "bandit_classification/vehicle"),
    "full": (
        *("digits", "bandit_classification/segment", "bandit_classification/vowel", "bandit_classification/vehicle"),
        *(f"bandit_classification/{name}" for name in (
            "pendigits", "letter", "optdigits", "page_blocks", "mushroom", "nursery", "splice", "waveform5000", "spambase", "car",
            "cmc", "kr_vs_kp", "soybean", "glass", "ecoli", "dermatology", "balance_scale", "tic_tac_toe",
        )),
    ),
}  # fmt: skip
ROUNDS = {"quick": 1000, "full": 8000}  # of a table at most
ENOUGH = 0.1  # of a log's rows that it must be worth to the next policy, for its estimates to count
CONTROL = 10  # a slice of one in so many payments, treated uniformly beside the policy
DRAWS = 300  # of a bootstrap
BATCH = 50  # rounds of a table that are decided before their rewards come
BY_GENERATION = "Regret, generation by generation"


@dataclass(frozen=True)
class Setup:
    """An arm: the call string of its agent, its role, settings tried, and the world or the tables it meets."""

    call: str
    role: str = "part"
    settings: tuple[Mapping[str, Any], ...] = ({},)
    late: float = 0.0  # share of rewards that come one period late
    still: bool = False
    longer: int = 1  # times as many generations
    tables: bool = False
    judged: bool = False  # its next policies are judged on a log of the one before
    quick: bool = True


def _options(key: str, *values: float) -> tuple[Mapping[str, Any], ...]:
    return tuple({key: value} for value in values)


def _bandit(explore: str, memory: int = 1, more: str = "") -> str:
    return f"bandit(actions={len(ACTIONS)}, oracle=logistic(C=0.3), explore={explore}, memory={memory}, period=0{more})"


def _table(explore: str) -> str:
    return f"bandit(actions={{actions}}, oracle=ridge(strength=0.1), explore={explore}, memory=0, period=0)"


TUNED, UNIFORM, EPSILON, SOFT, GREEDY = "inverse gaps", "uniform", "epsilon-greedy", "softmax", "greedy"
GAMMAS = (50, 200, 1000, 5000)
SHORT = {gamma: f"inverse gaps {gamma}" for gamma in GAMMAS}
LONG = {name: f"{name}, memory 4" for name in (SHORT[200], SHORT[1000], EPSILON + " 0.1", GREEDY)}
STILL = "uniform, still world"
T_GAPS, T_EPSILON, T_GREEDY, T_UNIFORM, T_LINUCB = (
    f"tables: {name}" for name in ("inverse gaps", "epsilon-greedy", "greedy", "uniform", "linucb")
)
ARMS = {
    TUNED: Setup(_bandit("squarecb(gamma={gamma})"), "system", _options("gamma", *map(float, GAMMAS))),
    UNIFORM: Setup(_bandit("uniformly()"), "baseline"),
    EPSILON: Setup(_bandit("epsilon_greedy({epsilon})"), "baseline", _options("epsilon", 0.02, 0.05, 0.1, 0.2)),
    SOFT: Setup(_bandit("softmax({temperature})"), "baseline", _options("temperature", 0.005, 0.01, 0.02, 0.05)),
    GREEDY: Setup(_bandit("greedy()"), "baseline"),
    **{SHORT[gamma]: Setup(_bandit(f"squarecb(gamma={gamma}.0)"), judged=gamma == 200) for gamma in GAMMAS},
    LONG[SHORT[200]]: Setup(_bandit("squarecb(gamma=200.0)", 4), judged=True),
    LONG[SHORT[1000]]: Setup(_bandit("squarecb(gamma=1000.0)", 4)),
    LONG[EPSILON + " 0.1"]: Setup(_bandit("epsilon_greedy(0.1)", 4)),
    LONG[GREEDY]: Setup(_bandit("greedy()", 4)),
    STILL: Setup(_bandit("uniformly()"), "control", still=True, longer=4),
    "inverse gaps 200, a third late": Setup(_bandit("squarecb(gamma=200.0)", 2), late=0.3, quick=False),
    "inverse gaps 200, weighted by 1/p": Setup(_bandit("squarecb(gamma=200.0)", 1, ", weights='ips'"), quick=False),
    "inverse gaps 200, uniform share": Setup(_bandit("squarecb(gamma=200.0)", 1, ", share=0.05"), quick=False),
    "two effective actions": Setup(_bandit("squarecb(gamma=1000000.0, effective_actions=2.0)"), quick=False),
    "inverse gaps 200, blended": Setup(_bandit("squarecb(gamma=200.0)", 1, ", mix=0.5"), quick=False),
    "inverse gaps 200, least counts": Setup(_bandit("squarecb(gamma=200.0)", 1, ", minimum=100"), quick=False),
    "inverse gaps 200, gate": Setup(_bandit("squarecb(gamma=200.0)", 1, ", gate=True"), quick=False),
    "inverse gaps 1000, trees": Setup(
        _bandit("squarecb(gamma=1000.0)").replace("logistic(C=0.3)", "boosted()"), quick=False
    ),
    T_GAPS: Setup(
        _table("squarecb(scale={scale}, exponent=0.5)"), settings=_options("scale", 5.0, 20.0, 100.0), tables=True
    ),
    T_EPSILON: Setup(_table("epsilon_greedy({epsilon})"), settings=_options("epsilon", 0.02, 0.05, 0.1), tables=True),
    T_GREEDY: Setup(_table("greedy()"), tables=True),
    T_UNIFORM: Setup(_table("uniformly()"), tables=True),
    T_LINUCB: Setup(_table("linucb(alpha={alpha})"), settings=_options("alpha", 0.1, 0.3, 1.0), tables=True, quick=False),
}


class PaymentBanditStudy(Study):
    """Value, regret and swings of policies that are fitted to the log of the one before."""

    name: ClassVar[str] = "payment_bandits"
    title: ClassVar[str] = "Inverse-gap weighting earns most of what there is, and sharp policies breed worse successors"
    reference: ClassVar[str] = "Vangara & Egg (2024), arXiv 2412.00569"
    measures: ClassVar[Mapping[str, str]] = {
        "value": "mean probability of approval; on tables, mean reward",
        "regret": "best offered probability less the chosen one's, learned generations",
        "share": "regret as a share of the uniform policy's on the same payments",
        "three quarters": "regret, three quarters of it with a memory of one period",
        "swing": "mean step of regret from one learned generation to the next",
        "swing twice": "the same, twice for gamma 50",
        "drop": "regret of the second learned generation less that of the first",
        "effective": "exp(entropy) of the policy, mean",
        "cost": "value of the greedy policy less that of the policy",
        "log loss": "of the scores, on what the policy chose",
        "log loss, uniform": "the same on a slice that is treated uniformly",
        "calibration, uniform": "expected calibration error on that slice",
        "excess": "swing of the mean reward above 97.5% of what drawing rewards anew gives",
        "dr": "share of generations in which DR's 95% interval holds the next policy's value",
        "snips": "the same of SNIPS",
        "alternation": "share of neighbouring steps of the mean reward that go opposite ways",
    }
    axes: ClassVar[Mapping[str, str]] = {BY_GENERATION: "generation"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Ten worlds."""
        return tuple(range(10))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """All at full scale; at quick scale without the remedies, the trees and LinUCB."""
        full = scale == "full"
        return tuple(Arm(label, setup.role, setup.settings) for label, setup in ARMS.items() if full or setup.quick)

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """Regret, swings, drops, memory; at full scale greedy and the tables; and the control."""
        pairs = [(SHORT[high], SHORT[low]) for low, high in pairwise(GAMMAS)]
        rows = [
            Claim("inverse gaps have at most half the regret of uniform choices", "", TUNED, -0.5, measure="share"),
            *(Claim(f"{high} swing more than {low}", high, low, measure="swing") for high, low in pairs),
            Claim("greedy swings at least twice as much as inverse gaps 50", GREEDY, SHORT[50], measure="swing twice"),
            Claim("the second greedy policy loses 2% to the first", GREEDY, "", 0.02, measure="drop"),
            *(Claim(f"no drop: {arm}", "", arm, measure="drop") for arm in LONG.values()),
            Claim("memory 4 cuts a quarter of the regret", SHORT[200], LONG[SHORT[200]], measure="three quarters"),
            *(
                Claim(f"{name.upper()} intervals hold 85% of next policies' values: {arm}", arm, "", 0.85, measure=name)
                for arm in (SHORT[200], LONG[SHORT[200]])
                for name in ("dr", "snips")
            ),
            Claim(
                "uniform choices in a still world alternate as noise, not less",
                STILL,
                "",
                2 / 3 - 0.15,
                measure="alternation",
            ),
            Claim("and not more", "", STILL, -(2 / 3 + 0.15), measure="alternation"),
        ]
        if scale == "full":
            rows += [
                Claim("greedy has more regret than inverse gaps 1000", GREEDY, SHORT[1000], measure="regret"),
                Claim("on tables inverse gaps earn more than epsilon-greedy", T_GAPS, T_EPSILON),
            ]
        rows.append(Claim("uniform choices in a still world swing", STILL, "", control=True, measure="excess"))
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One policy over all generations of one world, or over all tables."""
        setup = ARMS[arm]
        if setup.tables:
            rewards = [_on_table(setup.call, setting, name, ROUNDS[scale], seed) for name in TABLES[scale]]
            return Measured({"value": sum(rewards) / len(rewards)})
        agent = build_agent(setup.call.format(**setting), seed)
        still = {"drift": 0.0, "base_drift": 0.0, "decay": 1.0} if setup.still else {}
        lived = _live(
            agent, payment_world(seed=seed, **still), setup.longer * GENERATIONS[scale], PAYMENTS[scale], setup, seed
        )
        regret = [told["regret"] for told in lived.figures]
        scores = {key: sum(told[key] for told in lived.figures[1:]) / (len(regret) - 1) for key in lived.figures[0]}
        swing, drawn = oscillation(regret), resampled(lived.rewards, seed=seed)
        scores |= {
            "share": scores["regret"] / scores.pop("uniform"),
            "three quarters": (0.75 if agent.memory == 1 else 1.0) * scores["regret"],
            "swing": swing,
            "swing twice": 2.0 * swing if arm == SHORT[50] else swing,
            "drop": successor_drop(regret),
            "excess": drawn.value - drawn.high,
            "alternation": alternation([float(row.mean()) for row in lived.rewards[1:]]),
        }
        if lived.held:
            scores |= {name: sum(told[name] for told in lived.held) / len(lived.held) for name in ("dr", "snips")}
        return Measured(scores, {BY_GENERATION: [[float(place), value] for place, value in enumerate(regret)]})


@dataclass(frozen=True)
class Lived:
    """What is told of each generation, its rewards, and whether intervals held the value of the next policy.

    held: only of generations whose log is worth enough to the next policy.
    """

    figures: list[dict[str, float]]
    rewards: list[Tensor]
    held: list[dict[str, bool]]


def _live(agent: ContextualBandit, world: PaymentWorld, generations: int, count: int, setup: Setup, seed: int) -> Lived:
    """Serve a period, learn from what has come, fit, and let the world drift; late rewards come with those of the next period."""
    lived = Lived([], [], [])
    waiting: list[tuple[Any, ...]] = []
    for generation in range(generations):
        payments = world.payments(count)
        seen = {"x": payments.x, "offered": payments.offered}
        made = agent.decide(seen, range(generation * count, (generation + 1) * count))
        rewards = payments.rewards(made.action)
        told = generation_figures(
            agent.scores(payments.x, payments.offered),
            made.probabilities,
            made.action,
            rewards,
            chances=payments.chances,
            control=_control(agent, world.payments(count // CONTROL, "control"), generation),
        )
        lived.figures.append(
            {
                "value": payments.value(made.probabilities),
                "regret": payments.regret(made.probabilities),
                "uniform": payments.regret(payments.uniform()),
                "effective": told["effective_actions"],
                "cost": told["exploration_cost"],
                "log loss": told["window"]["log_loss"],
                "log loss, uniform": told["control"]["log_loss"],
                "calibration, uniform": told["control"]["ece"],
            }
        )
        lived.rewards.append(rewards)
        ids = [str(generation * count + place) for place in range(count)]
        comes = torch.rand(count, generator=torch.Generator().manual_seed(1000 * seed + generation)) >= setup.late
        ages = torch.full((count,), made.generation)
        everything = (payments.x, payments.offered, made.action, rewards, made.propensity, ids, ages)
        for batch in (*waiting, _part(everything, comes)):
            agent.learn(*batch)
        waiting = [_part(everything, ~comes)] if not bool(comes.all()) else []
        other = world.payments(count, "judged") if setup.judged else None
        log = None if other is None else _log(agent, other, generation)
        agent.refit()
        if other is not None and log is not None:
            _judge(agent, other, log, lived, seed)
        world = world.drifted()
    return lived


def _control(agent: ContextualBandit, payments: Payments, generation: int) -> tuple[Tensor, Tensor, Tensor]:
    """(scores, actions, rewards) of a slice that is treated uniformly, and that no fit sees."""
    random = torch.Generator().manual_seed(generation)
    action = torch.multinomial(payments.uniform(), 1, generator=random)[:, 0]
    return agent.scores(payments.x, payments.offered), action, payments.rewards(action)


def _log(agent: ContextualBandit, payments: Payments, generation: int) -> DecisionLog:
    """What a policy does to payments that no fit sees."""
    made = agent.decide(
        {"x": payments.x, "offered": payments.offered}, range(generation * len(payments), (generation + 1) * len(payments))
    )
    return DecisionLog.of(
        payments.x,
        offered=payments.offered,
        action=made.action,
        propensity=made.propensity,
        reward=payments.rewards(made.action),
    )


def _judge(agent: ContextualBandit, payments: Payments, log: DecisionLog, lived: Lived, seed: int) -> None:
    """Hold the next policy's intervals, from the log of the one before, against its true value on the same payments."""
    policy = agent.probabilities({"x": payments.x, "offered": payments.offered})
    found = evaluate(log, policy, estimators=("dr", "snips"), draws=DRAWS, seed=seed)
    if found["dr"].ess / len(log) >= ENOUGH:
        truth = payments.value(policy)
        lived.held.append({name: found[name].low <= truth <= found[name].high for name in ("dr", "snips")})


def _part(batch: tuple[Any, ...], rows: Tensor) -> tuple[Any, ...]:
    """The chosen rows of each of its parts."""
    places = rows.nonzero().flatten().tolist()
    return tuple([part[place] for place in places] if isinstance(part, list) else part[rows] for part in batch)


def _on_table(call: str, setting: Mapping[str, Any], name: str, limit: int, seed: int) -> float:
    """The mean reward over one pass of a table, fitted anew every 50 rounds."""
    x, y = rounds(name, limit=limit, seed=seed)
    agent = build_agent(call.format(actions=int(y.max()) + 1, **setting), seed)
    total = 0.0
    for place in range(0, len(y), BATCH):
        rows = slice(place, place + BATCH)
        made = agent.decide(x[rows], range(place, place + len(y[rows])))
        rewards = (made.action == y[rows]).double()
        agent.learn(x[rows], None, made.action, rewards, made.propensity, [str(place + row) for row in range(len(rewards))])
        total += float(rewards.sum())
    return total / len(y)


STUDY = PaymentBanditStudy()
