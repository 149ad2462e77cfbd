"""Replay for pre-training: whose turn it is, what is kept of each domain, and that a ratio of 0 changes nothing."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.pretraining import ImageDomain, TextDomain
from everlearn.data.replay_mix import ReplayMix


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(name, low, count):
    return ImageDomain(name, torch.arange(low, low + count).float().view(-1, 1), held=torch.zeros(1, 1))


@pytest.mark.parametrize(("ratio", "turns"), [(0.5, "01010101"), (0.25, "00010001"), (0.75, "01110111"), (1.0, "11111111")])
def test_turns_come_evenly(ratio, turns):
    mix = ReplayMix(ratio)
    assert "".join(map(str, mix.past(0, 8).int().tolist())) == turns
    split = torch.cat([mix.past(0, 3), mix.past(3, 5)])
    assert torch.equal(split, mix.past(0, 8))


def test_half_alternates_strictly_over_any_even_number_of_draws():
    mix = ReplayMix(0.5)
    for start in (0, 2, 1000, 10**12):
        assert mix.past(start, 6).tolist() == [False, True] * 3


def test_rows_of_the_past_stand_where_it_is_their_turn():
    mix = ReplayMix(0.5)
    mix.add(numbers("a", 100, 4))
    mix.add(numbers("b", 200, 4))
    present = torch.arange(4000.0).view(-1, 1) + 1000
    mixed = mix.mix(present, 0, seeded()).flatten()
    assert torch.equal(mixed[::2], present.flatten()[::2]) and mix.replayed == 2000
    assert torch.equal(present.flatten(), torch.arange(4000.0) + 1000)  # not written into
    past = mixed[1::2]
    counts = {value: int((past == value).sum()) for value in [*range(100, 104), *range(200, 204)]}
    assert sum(counts.values()) == 2000 and min(counts.values()) > 250 - 6 * 16 and max(counts.values()) < 250 + 6 * 16


def test_domains_take_even_turns_whatever_their_size():
    mix = ReplayMix(1.0)
    mix.add(numbers("small", 0, 10))
    mix.add(numbers("large", 1000, 1000))
    mixed = mix.mix(torch.zeros(4000, 1), 0, seeded())
    assert int((mixed < 1000).sum()) == pytest.approx(2000, abs=6 * 32)


@pytest.mark.parametrize("mix", [ReplayMix(0.0), ReplayMix(0.5, keep=0.0)])
def test_without_a_ratio_or_a_share_nothing_is_kept_or_drawn(mix):
    mix.add(numbers("a", 0, 10))
    random = seeded()
    before, present = random.get_state(), torch.zeros(6, 1)
    assert mix.mix(present, 0, random) is present and torch.equal(random.get_state(), before)
    assert (mix.stored, mix.nbytes, mix.replayed, mix.seen) == (0, 0, 0, 10)


def test_before_the_first_domain_ends_there_is_no_past():
    present = torch.zeros(6, 1)
    assert ReplayMix(0.5).mix(present, 0, seeded()) is present


def test_a_share_is_kept_without_a_row_twice():
    mix = ReplayMix(0.5, keep=0.05)
    mix.add(TextDomain("text", torch.arange(10_000, dtype=torch.int32), window=10))
    assert mix.stored == round(0.05 * 899) and mix.nbytes == 45 * 11 * 4
    assert len(set(mix.kept[0][:, 0].tolist())) == 45
    mix.add(numbers("few", 0, 3).__class__("few", torch.zeros(3, 11), held=torch.zeros(1, 11)))
    assert [len(rows) for rows in mix.kept] == [45, 1]  # at least one


def test_the_seed_decides_which_rows_are_kept():
    kept = []
    for seed in (0, 0, 1):
        mix = ReplayMix(0.5, keep=0.1, seed=seed)
        mix.add(numbers("a", 0, 100))
        kept.append(sorted(mix.kept[0].flatten().tolist()))
    assert kept[0] == kept[1] != kept[2]
    mix = ReplayMix(0.5, keep=0.1)
    for _ in range(2):
        mix.add(numbers("a", 0, 100))
    assert not torch.equal(*mix.kept)  # each domain draws for itself


def test_a_limit_is_shared_among_domains():
    mix = ReplayMix(0.5)
    mix.limit(10, None)
    for number in range(3):
        mix.add(numbers(str(number), 100 * number, 40))
    assert [len(rows) for rows in mix.kept] == [4, 3, 3]
    mix.limit(None, 5 * 4)
    assert mix.capacity == 5 and mix.nbytes == 20


def test_shares_out_of_range_are_refused():
    with pytest.raises(ArgumentError, match=r"ratio must .*1.5"):
        ReplayMix(1.5)
    with pytest.raises(ArgumentError, match="keep"):
        ReplayMix(0.5, keep=-0.1)
    assert repr(ReplayMix(0.25, keep=0.05)) == "replay_mix(ratio=0.25, keep=0.05)"
