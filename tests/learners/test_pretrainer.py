"""Pre-training that goes on: the main line by a hand-written loop, forks that leave it as it was, exact resume in every phase."""

import copy

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.random import generator
from everlearn.core.state import same
from everlearn.data.pretraining import ImageDomain, TextDomain
from everlearn.data.replay_mix import ReplayMix
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding, NextToken
from everlearn.nn.tiny_gpt import TinyGPT
from everlearn.optim.optimizers import SGD, Adam
from everlearn.optim.schedules import Constant, Infinite, RepeatedCosine

SCHEDULE = Infinite(0.01, warmup=3, cooldown_end=8)


def text(name, seed):
    drawn = torch.randint(7, (600,), generator=torch.Generator().manual_seed(seed))
    return TextDomain(name, drawn.to(torch.uint8), window=6)


FIRST, SECOND = text("first", 0), text("second", 1)


def network(**changes):
    return TinyGPT(7, **{"dim": 8, "depth": 1, "heads": 2, "length": 6, **changes})


def line(model=None, **changes):
    return ContinualPretrainer(model or network(), **{"schedule": SCHEDULE, "batch": 8, **changes})


class Dropping(nn.Module):
    """Draws random numbers while it trains."""

    def __init__(self):
        super().__init__()
        self.inner, self.drop = network(), nn.Dropout(0.3)

    def forward(self, x):
        return self.drop(self.inner.hidden(x)) @ self.inner.table.T


def test_the_main_line_is_the_plain_loop():
    """Rows, loss, optimiser and rates written out by hand."""
    trained = line(optimizer=Adam(weight_decay=0.01, betas=(0.9, 0.95)), seed=5)
    losses = trained.phase(FIRST, steps=12)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    for step in range(12):
        x = FIRST.draw(8, generator(5, "rows", step)).long()
        loss = nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        assert loss.item() == losses[step].item()
        optimizer.param_groups[0]["lr"] = SCHEDULE(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mine, own in zip(trained.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, own)
    assert (trained.steps, trained.draws, trained.rate, trained.lr) == (12, 96, SCHEDULE(11), SCHEDULE(12))


def test_groups_keep_their_own_share_of_the_rate():
    model = network()
    groups = [{"params": [model.table], "lr_scale": 0.5}, {"params": [model.positions]}]
    trained = line(model, optimizer=torch.optim.SGD(groups, lr=1.0))
    trained.phase(FIRST, steps=5)
    assert [group["lr"] for group in trained.optimizer.param_groups] == [0.5 * SCHEDULE(5), SCHEDULE(5)]


def test_parts_of_a_batch_add_up_to_it():
    whole, parts = line(optimizer=SGD()), line(optimizer=SGD(), accumulate=4)
    torch.testing.assert_close(whole.phase(FIRST, steps=10), parts.phase(FIRST, steps=10))
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_clipped_step_is_as_long_as_it_may_be():
    free, clipped = line(optimizer=SGD(), schedule=Constant(1.0)), line(optimizer=SGD(clip=1e-3), schedule=Constant(1.0))
    before = [weight.detach().clone() for weight in free.model.parameters()]
    for trained, most in ((free, None), (clipped, 1e-3)):
        trained.phase(FIRST, steps=1)
        moved = (
            torch.stack([(w - b).norm() for w, b in zip(trained.model.parameters(), before, strict=True)]).norm().detach()
        )
        assert moved > 0.1 if most is None else float(moved) == pytest.approx(most, rel=1e-3)


def test_bfloat16_changes_the_forward_pass_and_not_the_weights_kind():
    plain, half = line(), line(precision="bfloat16")
    first, second = plain.phase(FIRST, steps=3), half.phase(FIRST, steps=3)
    assert not torch.equal(first, second) and torch.allclose(first, second, rtol=0.02)
    assert {weight.dtype for weight in half.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model", [network, Dropping])
@pytest.mark.parametrize("at", [2, 3, 5, 8, 11])
def test_stopped_anywhere_it_goes_on_with_the_same_bits(model, at):
    """Within warm-up, cool-down, constant rate; with momentum, replay, dropout, and another domain behind."""

    def made():
        return line(model(), replay=ReplayMix(0.5, keep=0.5), seed=3)

    torch.manual_seed(0)
    first = made()
    start = copy.deepcopy(first.state_dict())
    first.phase(FIRST, steps=11)
    first.phase(SECOND, steps=6)
    stopped = made()
    stopped.load_state_dict(start)
    stopped.phase(FIRST, steps=at)
    torch.manual_seed(9)
    resumed = made()
    resumed.load_state_dict(stopped.state_dict())
    resumed.phase(FIRST, steps=11 - at)
    resumed.phase(SECOND, steps=6)
    assert same(resumed.state_dict(), first.state_dict())
    assert first.names == ["first", "second"] and first.began == [0, 11] and first.replay.replayed == 24


@pytest.mark.parametrize("done", [0, 1, 4, 6])
def test_stopped_within_an_annealing_it_goes_on_with_the_same_bits(done):
    first = line()
    first.phase(FIRST, steps=10)
    stopped = line()
    stopped.load_state_dict(first.state_dict())
    stopped.enter(FIRST)
    first.anneal(6)
    seen = []

    def stop(trained, loss):
        seen.append(trained.state_dict())

    stopped.anneal(6, watch=stop)
    resumed = line()
    if done:
        resumed.load_state_dict(seen[done - 1])
    else:
        resumed.phase(FIRST, steps=10)
    resumed.enter(FIRST)
    left = resumed.anneal(6)
    assert len(left) == 6 - done and same(resumed.state_dict(), first.state_dict())


def test_delivering_leaves_the_main_line_as_it_was():
    torch.manual_seed(4)
    trained = line(Dropping())
    trained.phase(FIRST, steps=12)
    before, random = trained.state_dict(), torch.get_rng_state()
    model = trained.deliver(anneal_steps=8)
    assert same(trained.state_dict(), before) and torch.equal(torch.get_rng_state(), random)
    assert not model.training and all(weight.grad is None for weight in model.parameters())
    assert not torch.equal(model.inner.table, trained.model.inner.table)
    trained.phase(FIRST, steps=4)
    undisturbed = line(Dropping())
    undisturbed.load_state_dict(before)
    undisturbed.phase(FIRST, steps=4)
    assert same(trained.state_dict(), undisturbed.state_dict())


def test_a_delivery_that_is_interrupted_gives_the_main_line_back():
    trained = line()
    trained.phase(FIRST, steps=12)
    before = trained.state_dict()

    def interrupt(trained, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.deliver(anneal_steps=8, watch=interrupt)
    assert same(trained.state_dict(), before)


def test_the_fork_follows_the_annealing_and_the_line_its_constant_rate():
    trained = line()
    trained.phase(FIRST, steps=10)
    rates = []
    trained.deliver(4, watch=lambda trained, loss: rates.append(trained.rate))
    schedule = Infinite(0.01, warmup=3, cooldown_end=8, anneal_start=10, anneal_end=14)
    assert rates == pytest.approx([schedule(step) for step in range(10, 14)], rel=1e-12)
    trained.phase(SECOND, steps=2, watch=lambda trained, loss: rates.append(trained.rate))
    assert rates[4:] == [0.005, 0.005]


def test_nothing_to_anneal_hands_out_the_line_itself():
    trained = line(schedule=RepeatedCosine(0.01, steps=10, warmup=2))
    trained.phase(FIRST, steps=10)
    model = trained.deliver(0)
    assert torch.equal(model.table, trained.model.table) and model is not trained.model
    with pytest.raises(ArgumentError, match=r"repeated_cosine.* has no annealing to start; deliver\(0\)"):
        trained.deliver(4)


def test_going_on_from_an_annealed_copy_is_refused_unless_it_is_wanted():
    trained = line()
    trained.phase(FIRST, steps=10)
    trained.anneal(4)
    with pytest.raises(ArgumentError, match="allow_rewarm=True"):
        trained.phase(SECOND, steps=2)
    trained.phase(SECOND, steps=2, allow_rewarm=True)
    assert trained.rate == 0.005 and not trained.annealing


def test_annealing_before_the_warm_up_is_over_is_refused_and_changes_nothing():
    trained = line()
    trained.phase(FIRST, steps=2)
    before = trained.state_dict()
    with pytest.raises(ArgumentError, match="warm-up ends at step 3"):
        trained.deliver(4)
    assert same(trained.state_dict(), before)


def test_a_loss_that_is_no_number_ends_the_phase():
    """The first update is made at weights that are sound, at a rate that ruins them; the second one finds out."""
    told, seen = r"the loss of update 2 is nan, on first; lower the highest rate, .* adam\(clip=1\.0\)", []
    with pytest.raises(ArgumentError, match=told):
        line(optimizer=SGD(), schedule=Constant(1e38)).phase(FIRST, steps=6)
    watched = line(optimizer=SGD(), schedule=Constant(1e38))
    with pytest.raises(ArgumentError, match=told):
        watched.phase(FIRST, steps=6, watch=lambda trained, loss: seen.append(loss))
    assert len(seen) == 1 and watched.steps == 2


def test_replay_of_no_share_is_no_replay_bit_for_bit():
    plain, none, some = line(), line(replay=ReplayMix(0.0)), line(replay=ReplayMix(0.5))
    for trained in (plain, none, some):
        trained.phase(FIRST, steps=5)
        trained.phase(SECOND, steps=5)
    assert torch.equal(plain.model.table, none.model.table)
    assert not torch.equal(plain.model.table, some.model.table)
    assert some.replay.replayed == 20


def test_replayed_rows_and_dropout_are_drawn_anew_in_each_update():
    trained = line(replay=ReplayMix(1.0))
    trained.phase(FIRST, steps=1)
    rows = []
    for _ in range(3):
        trained.phase(SECOND, steps=1)
        rows.append(trained.rows())
        assert torch.equal(rows[-1], trained.replay.mix(rows[-1], trained.draws, generator(0, "past", trained.steps)))
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[1], rows[2])
    still = line(Dropping(), schedule=Constant(0.0), seed=3)  # nothing is learned: what differs is dropped
    still.rows = lambda: FIRST.draw(8, generator(0, "one"))
    still.model.eval()  # as whoever measured it may have left it
    losses = still.phase(FIRST, steps=4)
    assert len(set(losses.tolist())) == 4


class Leash:
    """Holds the table near where the last domain left it."""

    parts = ("at", "heard")

    def __init__(self, strength):
        self.strength, self.at, self.heard = strength, None, []

    def __call__(self, model, *inputs):
        return 0.0 if self.at is None else self.strength * (model.table - self.at).square().sum()

    def after(self, model, objective, domain, number):
        self.at = model.table.detach().clone()
        self.heard.append([domain.name, number])


def test_a_penalty_hears_of_each_domain_that_ends_and_holds_the_model():
    moved = []
    for strength in (0.0, 100.0):
        trained = line(penalty=Leash(strength), optimizer=SGD(), schedule=Constant(0.001))
        trained.phase(FIRST, steps=5)
        left = trained.model.table.detach().clone()
        trained.phase(SECOND, steps=200)
        assert trained.penalty.heard == [["first", 0]] and torch.equal(trained.penalty.at, left)
        moved.append(float((trained.model.table - left).detach().norm()))
    assert moved[1] < 0.5 * moved[0]


def test_a_masked_autoencoder_learns_the_same_way():
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    domain = ImageDomain("noise", images)
    trained = line(MaskedAutoencoder(size=8, patch=2, dim=12), objective=MaskedAutoencoding(), batch=4)
    losses = trained.phase(domain, steps=3)
    x = domain.draw(4, generator(0, "rows", 0))
    fresh = MaskedAutoencoder(size=8, patch=2, dim=12)
    hidden = fresh.draw_masks(4, generator(0, "objective", 0))
    assert float(losses[0]) == float(fresh.loss(x, hidden))
    assert held_out_loss(trained.model, trained.objective, domain) == held_out_loss(trained.model, trained.objective, domain)
    parts = [
        fresh.loss(x, fresh.draw_masks(2, generator(7, "held out", number))).item()
        for number, x in enumerate(domain.held_out(2))
    ]
    assert held_out_loss(fresh, trained.objective, domain, rows=2, seed=7) == pytest.approx(sum(parts) / 2, rel=1e-6)


def test_the_held_out_loss_is_the_mean_over_rows_whatever_the_batches():
    model = network()
    x = torch.cat(list(FIRST.held_out()))
    by_hand = float(NextToken().loss(model, x))
    for rows in (3, 4, 256):
        assert held_out_loss(model, NextToken(), FIRST, rows=rows) == pytest.approx(by_hand, rel=1e-6)
    few = held_out_loss(model, NextToken(), FIRST, rows=2, most=5)
    assert few == pytest.approx(float(NextToken().loss(model, x[:5])), rel=1e-6)
    assert model.training
    with pytest.raises(ArgumentError, match="bare holds no row out"):
        held_out_loss(model, NextToken(), TextDomain("bare", torch.arange(50) % 7, window=6, held=0.0))


def test_what_means_nothing_is_refused():
    with pytest.raises(ArgumentError, match="batch=8, 1 processes and accumulate=3"):
        line(accumulate=3)
    with pytest.raises(ArgumentError, match="precision must be float32 or bfloat16, got 'float16'"):
        line(precision="float16")
    with pytest.raises(ArgumentError, match="no domain was entered"):
        line().deliver(3)
    with pytest.raises(ArgumentError, match="steps"):
        line().phase(FIRST, steps=-1)
    trained = line(replay=ReplayMix(0.5))
    trained.phase(FIRST, steps=4)
    resumed = line(replay=ReplayMix(0.5))
    resumed.load_state_dict(trained.state_dict())
    with pytest.raises(StateError, match="saved within 'first'; enter that domain first, then 'second'"):
        resumed.phase(SECOND, steps=1)
    with pytest.raises(StateError, match="state of another scheduler"):
        line(schedule=Constant(0.1)).load_state_dict(trained.state_dict() | {"replay": None})


def test_a_compiled_loss_would_be_the_same_module(monkeypatch):
    """compile=True hands the loss to torch; what that gives is torch's affair."""
    called = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, *args, **options: called.append(type(module).__name__))
    line(compile=True)
    line()
    assert called == ["_Loss"]
