"""The study of infinite learning-rate schedules: does it pay never to warm up again, where domains follow one another without end?

    loss[infinite .5] <= loss[cosine]            five pairs of digits, a masked autoencoder, both at the rate that suits them (full)
                      <= loss[cosine] - 0.005    both at one rate; and probe[infinite .5] >= probe[cosine] + 0.01 (quick)
    loss[infinite .5 with replay] <= loss[infinite .5]                                                               (full)
    copies at 50 % and 100 % of one constant run lie within 2 % of two cosine runs of those lengths                  (full)
    rise[infinite .5] <= 0.75 rise[cosine], rise[infinite .25] <= 0.5 rise[cosine]         where nothing shifts at all

rise is by how much training makes a loss worse, within a phase, than it was in the copy delivered before. It is measured on a quadratic
whose moments are exact, in softmax regression, and (full) in a language model on two halves of one text; beside it stands what is
delivered, where the schedule that warms up again may well be the better one: that the infinite one also delivers less loss where nothing
shifts is the negative control. Every schedule sees as many rows, and all are tuned on one grid of highest rates.

Reference: Singh et al. (2025), Beyond cosine decay: on the effectiveness of infinite learning rate schedule for continual pre-training,
CoLLAs, arXiv 2503.02844.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from everlearn.data.corpora import corpus, python_source
from everlearn.data.dataset import Data
from everlearn.data.known_sets import mnist10k
from everlearn.data.pretraining import ImageDomain, TextDomain
from everlearn.data.replay_mix import ReplayMix
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.learners.pretraining_penalties import LwFPenalty, MASPenalty
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding, NextToken
from everlearn.nn.tiny_gpt import TinyGPT
from everlearn.optim.optimizers import SGD
from everlearn.studies.pretraining_lines import (
    SCHEDULES,
    Classified,
    Way,
    judged,
    ln_rise,
    pairs_of_digits,
    probe,
    quadratic,
    schedule_of,
    standardised,
    walk,
)
from everlearn.studies.study import TUNING_SEEDS, Arm, Claim, Measured, Study

STEPS = {"quick": 150, "full": 400}  # updates for each pair of digits
WIDTH = {"quick": {"dim": 48, "heads": 3}, "full": {"dim": 64, "heads": 4}}
RATES = (2e-3, 8e-3)
QUICK_RATE = 8e-3
REPLAYED = 0.5  # of the rows, where there is replay
TUNED = 2  # pairs of digits of a tuning run
SOFTMAX_STEPS, SOFTMAX_RATE, SOFTMAX_BATCH, SOFTMAX_DECAY = 3000, 0.3, 8, 1e-3
TEXT_STEPS, TEXT_RATE, TEXT_BATCH, WINDOW, TEXT_REPLAY = 1000, 3e-3, 8, 64, 0.25
WINDOWS = 512  # of each text that are judged
LOOKS = {"quick": 30, "full": 40, "softmax": 100, "halves": 50}  # updates between two points of a curve

RATE_CURVE, LOSS_CURVE = "Learning rate, forks in their place", "Loss on the digits 0 and 1, forks in their place"
FLAT_CURVE = "Training loss where nothing shifts, forks in their place"
PAINT = MaskedAutoencoding()


@dataclass(frozen=True)
class Setup:
    """An arm: what is learned, with which schedule, and what else differs.

    keep: share of each past pair that is kept and replayed; penalty: lwf or mas; copy: go on from the annealed copy; kind: digits,
    buffer (GDumb), joint, anytime, softmax, quadratic, texts or halves.
    """

    schedule: str
    role: str
    kind: str = "digits"
    keep: float = 0.0
    penalty: str = ""
    copy: bool = False
    quick: bool = False


COSINE, INFINITE, LOW = "cosine", "infinite .5", "infinite .25"
ARMS = {
    **{
        name: Setup(
            name,
            "system" if name == INFINITE else "part" if "infinite" in name else "baseline",
            quick=name in (COSINE, INFINITE),
        )
        for name in (INFINITE, COSINE, *SCHEDULES)
    },
    "infinite .5, replay .05": Setup(INFINITE, "system", keep=0.05),
    "infinite .5, replay .5": Setup(INFINITE, "system", keep=0.5),
    "ER .05 (cosine)": Setup(COSINE, "baseline", keep=0.05),
    "ER .5 (cosine)": Setup(COSINE, "baseline", keep=0.5),
    "LwF (cosine)": Setup(COSINE, "baseline", penalty="lwf"),
    "MAS (cosine)": Setup(COSINE, "baseline", penalty="mas"),
    "GDumb .05": Setup(COSINE, "baseline", "buffer", keep=0.05),
    "GDumb .5": Setup(COSINE, "baseline", "buffer", keep=0.5),
    "joint (reference)": Setup(COSINE, "control", "joint"),
    "infinite .5, from the copy": Setup(INFINITE, "part", copy=True),
    "any time": Setup(INFINITE, "part", "anytime"),
    **{
        f"{kind}, {name}": Setup(name, "control", kind, quick=kind != "halves")
        for kind in ("quadratic", "softmax", "halves")
        for name in (COSINE, INFINITE, LOW)
    },
    "softmax, infinite .5, from the copy": Setup(INFINITE, "control", "softmax", copy=True),
    **{f"texts, {name}": Setup(name, "part", "texts") for name in (COSINE, INFINITE, "no re-warm")},
    **{f"texts, {name}, replay": Setup(name, "part", "texts", keep=1.0) for name in (COSINE, INFINITE)},
}
STRENGTHS = {"lwf": (0.25, 0.5, 0.75), "mas": (0.01, 0.1, 1.0)}
PENALTY = {"lwf": LwFPenalty, "mas": MASPenalty}


class InfiniteLRStudy(Study):
    """Losses, probes, forgetting and rises of schedules that warm up once, again and again, or never end."""

    name: ClassVar[str] = "infinite_lr"
    title: ClassVar[str] = "A schedule without an end makes pre-training on one domain after the other better"
    reference: ClassVar[str] = "Singh et al. (2025), arXiv 2503.02844"
    measures: ClassVar[Mapping[str, str]] = {
        "painted": "1 less the squared error of hidden pixels (variance 1) at the end, mean over five pairs",
        "probe": "accuracy of a ridge probe over ten digits at the end",
        "learned": "as painted, each pair by the copy delivered after it",
        "forgotten": "rise of the error on earlier pairs since their delivered copies",
        "rise": "highest loss within a phase where nothing shifts, less that delivered before",
        "ln rise": "its logarithm",
        "delivered": "training loss of the copy delivered last where nothing shifts",
        "apart": "largest difference between a copy and a cosine run of its length, as a share of the loss of the latter",
        "text": "mean held-out loss of the texts at the end, nats a byte",
        "text forgotten": "rise of the loss on earlier texts since their delivered copies",
    }
    axes: ClassVar[Mapping[str, str]] = {RATE_CURVE: "update", LOSS_CURVE: "update", FLAT_CURVE: "update"}

    def seeds(self, scale: str) -> tuple[int, ...]:
        """Five at quick scale, three at full scale: weights, rows and masks."""
        return tuple(range(5 if scale == "quick" else 3))

    def arms(self, scale: str) -> tuple[Arm, ...]:
        """At quick scale two schedules for digits at one rate, and where nothing shifts; at full scale all, digits tuned on one grid."""
        if scale == "quick":
            return tuple(
                Arm(label, setup.role, ({"lr": QUICK_RATE},) if setup.kind == "digits" else ({},))
                for label, setup in ARMS.items()
                if setup.quick
            )
        return tuple(Arm(label, setup.role, _settings(setup)) for label, setup in ARMS.items())

    def claims(self, scale: str) -> tuple[Claim, ...]:
        """Digits, rises, at full scale replay, any time and the other methods; and the control."""
        full = scale == "full"
        if not full:
            rows = [
                Claim("infinite .5 ends at least 0.005 below cosine", INFINITE, COSINE, 0.005),
                Claim("its probe is at least 1% better", INFINITE, COSINE, 0.01, measure="probe"),
            ]
        else:
            rows = [Claim("infinite .5 ends no higher than cosine, both tuned", INFINITE, COSINE)]
            rows += [
                Claim(f"with replay {keep} it ends no higher than without", f"infinite .5, replay {keep}", INFINITE)
                for keep in (".05", ".5")
            ]
            rows += [Claim(f"it ends no higher than {other}", INFINITE, other) for other in ("LwF (cosine)", "MAS (cosine)")]
            rows += [
                Claim(f"with replay {keep} it ends no higher than {other}", f"infinite .5, replay {keep}", other)
                for keep in (".05", ".5")
                for other in (f"ER {keep} (cosine)", f"GDumb {keep}")
            ]
            rows.append(
                Claim(
                    "copies of one run are within 2% of cosine runs of their lengths", "", "any time", -0.02, measure="apart"
                )
            )
        for kind in ("quadratic", "softmax", *(("halves",) if full else ())):
            for name, share in ((INFINITE, 0.75), (LOW, 0.5)):
                text = f"{kind}: the rise of {name} is at most {share} of cosine's"
                rows.append(Claim(text, f"{kind}, {COSINE}", f"{kind}, {name}", -math.log(share), measure="ln rise"))
        text = "softmax: infinite .5 also delivers a loss 0.001 lower"
        rows.append(Claim(text, f"softmax, {COSINE}", f"softmax, {INFINITE}", 0.001, control=True, measure="delivered"))
        return tuple(rows)

    def measure(self, arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
        """One line, or what stands for one."""
        setup = ARMS[arm]
        if setup.kind == "quadratic":
            return _flat(*quadratic(setup.schedule))
        if setup.kind == "softmax":
            return _softmax(setup, seed)
        if setup.kind in ("texts", "halves"):
            return _texts(setup, seed)
        if setup.kind == "anytime":
            return Measured({"apart": _apart(setting["lr"], seed)})
        return _digits(arm, setup, setting, scale, seed)


def _settings(setup: Setup) -> tuple[Mapping[str, Any], ...]:
    """What an arm is tuned over at full scale; an any-time run has the lower rate, which suits cosine."""
    if setup.kind == "anytime":
        return ({"lr": RATES[0]},)
    if setup.kind not in ("digits", "buffer", "joint"):
        return ({},)
    return tuple({"lr": lr} | more for lr in RATES for more in _strengths(setup))


def _strengths(setup: Setup) -> list[dict[str, float]]:
    return [{"strength": strength} for strength in STRENGTHS[setup.penalty]] if setup.penalty else [{}]


@cache
def _data() -> Data:
    return mnist10k()


def _line(schedule: str, lr: float, steps: int, scale: str, seed: int, **more: Any) -> ContinualPretrainer:
    """A masked autoencoder at the start of its way."""
    model = MaskedAutoencoder(**WIDTH[scale], seed=seed)
    return ContinualPretrainer(model, schedule=schedule_of(schedule, lr, steps), objective=PAINT, seed=seed, **more)


def _digits(arm: str, setup: Setup, setting: Mapping[str, Any], scale: str, seed: int) -> Measured:
    """Pairs of digits one after the other, or rows of all at once for as many updates; tuning runs see two pairs."""
    tuning, steps, lr = seed in TUNING_SEEDS, STEPS[scale], setting["lr"]
    pairs = pairs_of_digits(_data())[: TUNED if tuning else None]
    judge = judged(PAINT, pairs)
    if setup.kind != "digits":
        rows = _buffer(pairs, setup.keep, seed) if setup.kind == "buffer" else torch.cat([pair.images for pair in pairs])
        whole = ImageDomain("all", rows, torch.cat([pair.held for pair in pairs]))
        line = _line(setup.schedule, lr, steps * len(pairs), scale, seed)
        line.phase(whole, steps * len(pairs))
        loss = sum(judge(line.model, number) for number in range(len(pairs))) / len(pairs)
        return Measured({"painted": 1.0 - loss} | ({} if tuning else {"probe": probe(line.model, _data())}))
    replay = ReplayMix(REPLAYED, setup.keep, seed=seed) if setup.keep else None
    penalty = PENALTY[setup.penalty](PAINT, strength=setting["strength"]) if setup.penalty else None
    line = _line(setup.schedule, lr, steps, scale, seed, replay=replay, penalty=penalty)
    shown = not tuning and arm in (COSINE, INFINITE)
    way = walk(line, pairs, steps, judge, every=LOOKS[scale] if shown else 0, from_copy=setup.copy)
    scores = {"painted": 1.0 - way.loss, "learned": 1.0 - way.learned, "forgotten": way.forgotten}
    curves = {RATE_CURVE: way.curves["rate"], LOSS_CURVE: way.curves["loss"]} if shown else {}
    return Measured(scores | ({} if tuning else {"probe": probe(way.model.eval(), _data())}), curves)


def _buffer(pairs: list[ImageDomain], keep: float, seed: int) -> torch.Tensor:
    """The rows that replay would have kept of all pairs."""
    mix = ReplayMix(REPLAYED, keep, seed=seed)
    for pair in pairs:
        mix.add(pair)
    return torch.cat(mix.kept)


def _apart(lr: float, seed: int) -> float:
    """Copies of one run at constant rate, on all digits, at half and at the whole of the way, beside cosine runs of those lengths."""
    steps, data = 5 * STEPS["full"], _data()
    whole = ImageDomain("all", standardised(data.x), standardised(data.test_x))
    line = _line(INFINITE, lr, steps // 2, "full", seed)
    differences = []
    for length in (steps // 2, steps):
        fork = length // 5
        line.phase(whole, length - fork - line.steps)
        copy = held_out_loss(line.deliver(fork), PAINT, whole)
        other = _line(COSINE, lr, length, "full", seed)
        other.phase(whole, length)
        cosine = held_out_loss(other.model, PAINT, whole)
        differences.append(abs(copy / cosine - 1.0))
    return max(differences)


def _softmax(setup: Setup, seed: int) -> Measured:
    """Three phases on the same digits, in softmax regression from zero weights."""
    data = _data()
    x = data.x.flatten(1).float() / 255.0 - 0.13
    rows = torch.cat([data.y[:, None].float(), x], 1)
    model = nn.Linear(x.shape[1], 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    line = ContinualPretrainer(
        model,
        optimizer=SGD(SOFTMAX_RATE, weight_decay=SOFTMAX_DECAY),
        schedule=schedule_of(setup.schedule, SOFTMAX_RATE, SOFTMAX_STEPS, least=0.01),
        objective=Classified(),
        batch=SOFTMAX_BATCH,
        seed=seed,
    )

    @torch.no_grad()
    def judge(model: nn.Module, number: int) -> float:
        return float(functional.cross_entropy(model(x), data.y))

    domains = [ImageDomain(f"phase {number}", rows, rows[:1]) for number in range(3)]
    way = walk(line, domains, SOFTMAX_STEPS, judge, every=LOOKS["softmax"], from_copy=setup.copy)
    return Measured(_risen(way) | {"delivered": way.loss}, {FLAT_CURVE: way.curves["loss"]})


def _texts(setup: Setup, seed: int) -> Measured:
    """A language model on English, German and Python, or on two halves of one text."""
    halves = setup.kind == "halves"
    replay = ReplayMix(TEXT_REPLAY, setup.keep, seed=seed) if setup.keep else None
    line = ContinualPretrainer(
        TinyGPT(length=WINDOW, seed=seed),
        schedule=schedule_of(setup.schedule, TEXT_RATE, TEXT_STEPS),
        replay=replay,
        batch=TEXT_BATCH,
        seed=seed,
    )
    domains = _domains(halves)
    way = walk(line, domains, TEXT_STEPS, judged(NextToken(), domains, WINDOWS), every=LOOKS["halves"] if halves else 0)
    return Measured({"text": way.loss, "text forgotten": way.forgotten} | (_risen(way) if halves else {}))


def _domains(halves: bool) -> list[TextDomain]:
    english = corpus("en_tinyshakespeare")
    if halves:
        middle = len(english) // 2
        return [
            TextDomain("first half", english[:middle], window=WINDOW),
            TextDomain("second half", english[middle:], window=WINDOW),
        ]
    texts = {"English": english, "German": corpus("de_genesis", "de_kafka_verwandlung"), "Python": python_source()}
    return [TextDomain(name, tokens, window=WINDOW) for name, tokens in texts.items()]


def _risen(way: Way) -> dict[str, float]:
    return {"rise": way.rise, "ln rise": ln_rise(way.rise)}


def _flat(delivered: list[float], highest: list[float]) -> Measured:
    rise = sum(high - before for high, before in zip(highest[1:], delivered, strict=False)) / 2
    return Measured({"rise": rise, "ln rise": ln_rise(rise), "delivered": delivered[-1]})


STUDY = InfiniteLRStudy()
