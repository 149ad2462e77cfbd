"""What the study of infinite schedules measures, in small, beside the same steps taken one by one."""

import pytest
import torch

from everlearn.data.dataset import Data
from everlearn.data.pretraining import ImageDomain
from everlearn.data.replay_mix import ReplayMix
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.learners.pretraining_penalties import LwFPenalty, MASPenalty
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding
from everlearn.optim.schedules import Infinite, RepeatedCosine
from everlearn.studies import infinite_lr
from everlearn.studies.infinite_lr import ARMS, STUDY
from everlearn.studies.pretraining_lines import pairs_of_digits, standardised
from everlearn.studies.study import TUNING_SEEDS

PAINT, STEPS, RATE = MaskedAutoencoding(), 10, 0.004
WIDTH = {"dim": 16, "heads": 2}


@pytest.fixture
def digits(monkeypatch):
    """Forty images of noise to learn from, twenty as test part; ten updates for each pair, a narrow model."""
    random = torch.Generator().manual_seed(0)
    x, test_x = (torch.randint(256, (rows, 1, 28, 28), generator=random).to(torch.uint8) for rows in (40, 20))
    data = Data("digits", x, torch.arange(40) % 10, tuple("0123456789"), test_x=test_x, test_y=torch.arange(20) % 10)
    monkeypatch.setattr(infinite_lr, "_data", lambda: data)
    monkeypatch.setitem(infinite_lr.STEPS, "full", STEPS)
    monkeypatch.setitem(infinite_lr.WIDTH, "full", WIDTH)
    return data


def line(schedule, seed=1, **more):
    return ContinualPretrainer(MaskedAutoencoder(**WIDTH, seed=seed), schedule=schedule, objective=PAINT, seed=seed, **more)


def mean_loss(model, domains):
    return sum(held_out_loss(model, PAINT, domain) for domain in domains) / len(domains)


def test_a_schedule_with_an_end_spends_all_updates_on_its_line(digits):
    pairs, cosine = pairs_of_digits(digits), line(RepeatedCosine(RATE, STEPS, 1))
    learned = []
    for pair in pairs:
        cosine.phase(pair, STEPS)
        learned.append(held_out_loss(cosine.model, PAINT, pair))
    scores = STUDY.measure("cosine", {"lr": RATE}, "full", 1).scores
    assert scores["painted"] == pytest.approx(1.0 - mean_loss(cosine.model, pairs))
    assert scores["learned"] == pytest.approx(1.0 - sum(learned) / 5)
    now = [held_out_loss(cosine.model, PAINT, pair) for pair in pairs]
    assert scores["forgotten"] == pytest.approx(
        sum(after - before for after, before in zip(now[:4], learned[:4], strict=True)) / 4
    )


def test_an_infinite_line_delivers_copies_and_replays_what_it_kept(digits):
    pairs = pairs_of_digits(digits)
    infinite = line(Infinite(RATE, 1, 4), replay=ReplayMix(0.5, 0.5, seed=1))
    for pair in pairs:
        infinite.phase(pair, 8)
        copy = infinite.deliver(2)
    scores = STUDY.measure("infinite .5, replay .5", {"lr": RATE}, "full", 1).scores
    assert scores["painted"] == pytest.approx(1.0 - mean_loss(copy, pairs))
    assert infinite.replay.stored == 4 * 4  # half of the eight rows of each of four pairs
    assert scores["painted"] != STUDY.measure("infinite .5", {"lr": RATE}, "full", 1).scores["painted"]


@pytest.mark.parametrize(("arm", "penalty"), [("LwF (cosine)", LwFPenalty), ("MAS (cosine)", MASPenalty)])
def test_penalties_are_those_of_their_names(digits, arm, penalty):
    pairs, held = (
        pairs_of_digits(digits)[:2],
        line(RepeatedCosine(RATE, STEPS, 1), seed=1000, penalty=penalty(PAINT, strength=0.5)),
    )
    for pair in pairs:
        held.phase(pair, STEPS)
    scores = STUDY.measure(arm, {"lr": RATE, "strength": 0.5}, "full", 1000).scores
    assert scores["painted"] == pytest.approx(1.0 - mean_loss(held.model, pairs))


@pytest.mark.parametrize(("arm", "rows"), [("GDumb .5", 20), ("joint (reference)", 40)])
def test_what_knows_all_pairs_at_once_learns_as_long(digits, arm, rows):
    """GDumb begins anew with the rows that replay would have kept, the reference with all."""
    pairs, kept = pairs_of_digits(digits), ReplayMix(0.5, 0.5 if rows == 20 else 1.0, seed=1)
    for pair in pairs:
        if rows == 20:
            kept.add(pair)
    known = torch.cat(kept.kept if rows == 20 else [pair.images for pair in pairs])
    assert len(known) == rows
    whole = line(RepeatedCosine(RATE, 5 * STEPS, 2))
    whole.phase(ImageDomain("all", known, known), 5 * STEPS)
    assert STUDY.measure(arm, {"lr": RATE}, "full", 1).scores["painted"] == pytest.approx(
        1.0 - mean_loss(whole.model, pairs)
    )


def test_copies_on_the_way_are_compared_with_runs_of_their_lengths(digits):
    whole = ImageDomain("all", standardised(digits.x), standardised(digits.test_x))
    infinite, shares = line(Infinite(RATE, 1, 10)), []
    for main, fork, length in ((20, 5, 25), (20, 10, 50)):
        infinite.phase(whole, main)
        cosine = line(RepeatedCosine(RATE, length, length // 20))
        cosine.phase(whole, length)
        shares.append(held_out_loss(infinite.deliver(fork), PAINT, whole) / held_out_loss(cosine.model, PAINT, whole))
    found = STUDY.measure("any time", {"lr": RATE}, "full", 1).scores["apart"]
    assert found == pytest.approx(max(abs(share - 1.0) for share in shares))


def test_tuning_runs_see_two_pairs_and_no_labels(digits):
    scores = STUDY.measure("cosine", {"lr": RATE}, "full", TUNING_SEEDS[0]).scores
    pairs, cosine = pairs_of_digits(digits)[:2], line(RepeatedCosine(RATE, STEPS, 1), seed=TUNING_SEEDS[0])
    for pair in pairs:
        cosine.phase(pair, STEPS)
    assert scores["painted"] == pytest.approx(1.0 - mean_loss(cosine.model, pairs))
    assert "probe" not in scores


def test_all_that_learn_digits_are_tuned_on_one_grid_of_rates():
    for arm in STUDY.arms("full"):
        if ARMS[arm.label].kind in ("digits", "buffer", "joint"):
            assert {setting["lr"] for setting in arm.settings} == {2e-3, 8e-3}
