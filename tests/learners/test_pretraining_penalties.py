"""Penalties of pre-training: their values by hand, what they hold and what they leave, strength 0, and resuming to the bit."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.core.state import capture, load, same
from everlearn.data.pretraining import ImageDomain, TextDomain
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.learners.pretraining_penalties import PENALTIES, LwFPenalty, MASPenalty
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding, NextToken
from everlearn.nn.tiny_gpt import TinyGPT
from everlearn.optim.schedules import Constant, Infinite

PAINT = MaskedAutoencoding()


class Told:
    """An objective whose tokens are what the model says of a row, one token to a row."""

    name = "told"

    def draw(self, model, x, random):
        return (x,)

    def loss(self, model, *inputs):
        return model(inputs[0]).square().mean()

    def tokens(self, model, *inputs):
        return model(inputs[0])[:, None]


def linear(*rows):
    model = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))
    return model


def set_to(model, *rows):
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))


def images(seed, rows=40):
    return torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def autoencoder():
    return MaskedAutoencoder(8, 1, patch=4, dim=12, depth=1, mask_ratio=0.5, seed=0)


def line(penalty, model=None):
    return ContinualPretrainer(
        model or autoencoder(), schedule=Infinite(0.01, 2, 6), objective=PAINT, penalty=penalty, batch=8, seed=3
    )


def domains():
    return [ImageDomain(str(seed), images(seed)) for seed in range(3)]


# ---- learning without forgetting --------------------------------------------------------------------------------------------


def test_lwf_is_one_less_the_cosine_times_the_strength():
    """(1, 0) is turned by 60 degrees, cosine 1/2, and (0, 1) stays: 0.8 (1/2 + 0) / 2 = 0.2. Lengths do not matter."""
    model, penalty = linear([1.0, 0.0], [0.0, 1.0]), LwFPenalty(Told(), strength=0.8)
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert penalty(model, rows).item() == 0.0
    penalty.after(model, Told(), None, 0)
    assert penalty(model, rows).item() == pytest.approx(0.0, abs=1e-6)
    set_to(model, [3.0 * 0.5, 0.0], [3.0 * 0.75**0.5, 1.0])
    assert penalty(model, rows).item() == pytest.approx(0.2, abs=1e-6)
    set_to(model, [-1.0, 0.0], [0.0, 1.0])
    assert penalty(model, rows).item() == pytest.approx(0.8)  # turned round, cosine -1: 0.8 (2 + 0) / 2


def test_lwf_holds_to_the_model_of_the_last_domain_and_teaches_the_present_one_alone():
    model, penalty = linear([1.0, 0.0], [0.0, 1.0]), LwFPenalty(Told(), strength=1.0)
    row = torch.tensor([[1.0, 0.0]])
    penalty.after(model, Told(), None, 0)
    set_to(model, [0.0, 0.0], [1.0, 1.0])
    assert penalty(model, row).item() == pytest.approx(1.0)  # at a right angle to the first
    penalty.after(model, Told(), None, 1)
    assert penalty(model, row).item() == pytest.approx(0.0, abs=1e-6)
    set_to(model, [1.0, 0.0], [1.0, 1.0])
    penalty(model, row).backward()
    # 1 - cos of (a, b) with (0, 1) is 1 - b / |(a, b)|: its slope at (1, 1) is (1, -1) / 2^1.5
    assert model.weight.grad.tolist() == [pytest.approx([2**-1.5, 0.0]), pytest.approx([-(2**-1.5), 0.0])]
    assert not any(weight.requires_grad for weight in penalty._teacher.parameters())


def test_lwf_has_a_teacher_that_drops_nothing():
    model, penalty = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5)).train(), LwFPenalty(Told(), strength=1.0)
    penalty.after(model, Told(), None, 0)
    assert penalty(model, torch.ones(3, 4)).item() > 0.1  # the model itself drops half of its units
    assert penalty(model.eval(), torch.ones(3, 4)).item() == pytest.approx(0.0, abs=1e-6)


def test_lwf_lets_both_models_see_the_same_patches():
    """With the weights of the copy the penalty is 0 under every mask; a decoder may change as it likes."""
    model, penalty = autoencoder(), LwFPenalty(PAINT, strength=1.0)
    penalty.after(model, PAINT, None, 0)
    with torch.no_grad():
        for weight in [*model.decoder.parameters(), *model.paint.parameters(), model.mask_token]:
            weight.add_(1.0)
    for seed in range(5):
        inputs = PAINT.draw(model, images(seed), torch.Generator().manual_seed(seed))
        assert penalty(model, *inputs).item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        model.embed.weight.mul_(-1.0)
    assert penalty(model, *inputs).item() > 0.01


# ---- memory aware synapses ---------------------------------------------------------------------------------------------------


def whole(*rows):
    """A domain whose rows to learn from are these."""
    x = torch.tensor(rows)
    return ImageDomain("rows", x, x[:1])


def test_mas_importance_is_the_slope_of_the_tokens_length():
    """f = w x = -4 for w = (2, 2), x = (1, -3): the slope of f^2 is 2 f x = (-8, 24)."""
    model, penalty = linear([2.0, 2.0]), MASPenalty(Told(), strength=3.0)
    penalty.after(model, Told(), whole([1.0, -3.0]), 0)
    assert penalty.importance.tolist() == [8.0, 24.0]
    set_to(model, [2.5, 1.0])
    assert penalty(model, torch.zeros(1, 2)).item() == pytest.approx(3.0 * (8.0 * 0.25 + 24.0 * 1.0))
    penalty(model, torch.zeros(1, 2)).backward()
    assert model.weight.grad[0].tolist() == pytest.approx([3.0 * 2 * 8.0 * 0.5, 3.0 * 2 * 24.0 * -1.0])


def test_mas_takes_the_size_of_a_batchs_slope_and_the_mean_over_batches():
    """Slopes 2 f x of the rows (1, 1) and (1, -2) for w = (1, 1): (4, 4) and (-2, 4). As one batch |(1, 4)|, as two (3, 4)."""
    for batch, importance in ((2, [1.0, 4.0]), (1, [3.0, 4.0])):
        penalty = MASPenalty(Told(), batch=batch)
        penalty.after(linear([1.0, 1.0]), Told(), whole([1.0, 1.0], [1.0, -2.0]), 0)
        assert penalty.importance.tolist() == importance


def test_mas_keeps_a_share_of_the_importance_so_far_and_holds_to_the_last_weights():
    """(8, 24) of the first domain; for w = (1, 0), x = (1, 2) it is (2, 4): 0.25 of the one and 0.75 of the other."""
    model, penalty = linear([2.0, 2.0]), MASPenalty(Told(), decay=0.25)
    penalty.after(model, Told(), whole([1.0, -3.0]), 0)
    set_to(model, [1.0, 0.0])
    penalty.after(model, Told(), whole([1.0, 2.0]), 1)
    assert penalty.importance.tolist() == [0.25 * 8 + 0.75 * 2, 0.25 * 24 + 0.75 * 4]
    assert penalty.anchor.tolist() == [1.0, 0.0]
    assert penalty(model, torch.zeros(1, 2)).item() == 0.0


def test_mas_importance_beside_a_slow_twin():
    """12 of the rows in batches of 5, 5 and 2; rows come from (seed, domain), masks from (seed, domain, batch)."""
    model, domain = autoencoder(), domains()[0]
    with torch.no_grad():
        model.encoder[-1].weight.copy_(torch.linspace(0.5, 1.5, 12))
    penalty = MASPenalty(PAINT, samples=12, batch=5, seed=3)
    penalty.after(model, PAINT, domain, 2)
    rows = domain.sample(12, generator(3, "mas", 2))
    total = [torch.zeros_like(weight) for weight in model.parameters()]
    for turn, part in enumerate((rows[:5], rows[5:10], rows[10:])):
        tokens = model.encode_seen(*PAINT.draw(model, part, generator(3, "mas masks", 2, turn)))
        model.zero_grad()
        (sum(row.square().sum() for row in tokens) / len(part)).backward()
        for own, weight in zip(total, model.parameters(), strict=True):
            own += 0.0 if weight.grad is None else weight.grad.abs()
    torch.testing.assert_close(penalty.importance, torch.cat([own.flatten() for own in total]) / 3)


def test_mas_drops_nothing_while_it_measures():
    """As in the first test, w = (2, 2) and x = (1, -3); with a unit dropped it would be 0, or four times as much."""
    model, penalty = nn.Sequential(linear([2.0, 2.0]), nn.Dropout(0.5)).train(), MASPenalty(Told())
    penalty.after(model, Told(), whole([1.0, -3.0]), 0)
    assert penalty.importance.tolist() == [8.0, 24.0]


def importance_by_name(model):
    penalty = MASPenalty(PAINT)
    penalty.after(model, PAINT, domains()[0], 0)
    sizes = [weight.numel() for weight in model.parameters()]
    return dict(zip((name for name, _ in model.named_parameters()), penalty.importance.split(sizes), strict=True))


def test_mas_gives_a_decoder_no_importance():
    model = autoencoder()
    with torch.no_grad():
        model.encoder[-1].weight.copy_(torch.linspace(0.5, 1.5, 12))
    parts = ("decoder", "paint", "mask_token")
    for name, values in importance_by_name(model).items():
        assert bool(values.any()) != name.startswith(parts), name


def test_mas_holds_little_but_the_last_layers_scale_where_that_is_even():
    """LayerNorm gives each token the length sqrt(dim), so |f|^2 = 12 g^2 a token: its slope by each of 12 scales is 2 for 3 tokens."""
    found = importance_by_name(autoencoder())
    last = found.pop("encoder.1.weight")
    assert last.sum().item() == pytest.approx(3 * 12 * 2.0, rel=0.01)
    del found["encoder.1.bias"]
    assert max(float(values.mean()) for values in found.values()) < 0.01 * float(last.mean())


def test_mas_leaves_the_mode_and_the_gradients_of_the_model():
    model, penalty = autoencoder().train(), MASPenalty(PAINT)
    penalty.after(model, PAINT, domains()[0], 0)
    assert model.training and all(weight.grad is None for weight in model.parameters())


# ---- within pre-training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PENALTIES.values())
def test_strength_0_is_no_penalty_to_the_bit_and_another_is_not(kind):
    ends = []
    for penalty in (None, kind(PAINT, strength=0.0), kind(PAINT, strength=5.0)):
        trained = line(penalty)
        for domain in domains()[:2]:
            trained.phase(domain, 8)
        ends.append(capture(trained.model))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


@pytest.mark.parametrize(
    ("penalty", "model", "objective", "worlds"),
    [
        (lambda: LwFPenalty(PAINT, strength=20.0), autoencoder, PAINT, domains),
        (lambda: MASPenalty(PAINT, strength=1e4), autoencoder, PAINT, domains),
        (
            lambda: LwFPenalty(NextToken(), strength=20.0),
            lambda: TinyGPT(10, dim=16, depth=1, length=8, seed=0),
            NextToken(),
            lambda: [TextDomain(str(step), step * torch.arange(400) % 10, window=8) for step in (1, 3)],
        ),
    ],
    ids=["lwf", "mas", "lwf of a language model"],
)
def test_a_strong_penalty_forgets_less_of_the_first_domain(penalty, model, objective, worlds):
    """What is held is what the tokens were; the penalty itself, at strength 1, must end lower than it does without being applied."""
    moved = []
    for applied in (False, True):
        held = penalty()
        trained = ContinualPretrainer(
            model(), schedule=Constant(0.005), objective=objective, penalty=held if applied else None, batch=8, seed=3
        )
        first, second = worlds()[:2]
        trained.phase(first, 20)
        if not applied:
            held.after(trained.model, objective, first, 0)
        trained.phase(second, 20)
        inputs = objective.draw(trained.model, first.sample(16, torch.Generator()), torch.Generator().manual_seed(0))
        moved.append(held(trained.model, *inputs).item())
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("kind", PENALTIES.values())
def test_a_killed_run_goes_on_to_the_same_bits(kind):
    """State is saved within the second and within the third phase, and goes on in a new process's objects."""
    first, second, third = domains()
    trained = line(kind(PAINT, strength=5.0))
    trained.phase(first, 7)
    trained.phase(second, 4)
    saved = trained.state_dict()
    trained.phase(second, 4)
    trained.phase(third, 5)
    other = line(kind(PAINT, strength=5.0))
    other.load_state_dict(saved)
    other.phase(second, 4)
    other.phase(third, 2)
    again = line(kind(PAINT, strength=5.0))
    load(again, other.state_dict())
    again.phase(third, 3)
    assert same(again.state_dict(), trained.state_dict())


@pytest.mark.parametrize("kind", PENALTIES.values())
def test_a_state_that_is_loaded_replaces_what_was_held_to(kind):
    model, row = linear([1.0, 2.0], [3.0, -1.0]), torch.tensor([[1.0, 1.0]])
    first, second = kind(Told()), kind(Told())
    first.after(model, Told(), whole([1.0, 1.0]), 0)
    set_to(model, [-1.0, 1.0], [0.5, 2.0])
    wanted = first(model, row).item()
    second.after(model, Told(), whole([1.0, 1.0]), 0)
    assert second(model, row).item() == pytest.approx(0.0, abs=1e-6) and wanted > 0.1
    load(second, capture(first))
    assert second(model, row).item() == wanted


@pytest.mark.parametrize("kind", PENALTIES.values())
def test_delivering_leaves_the_penalty_as_it_was(kind):
    first, second, _ = domains()
    trained = line(kind(PAINT, strength=5.0))
    trained.phase(first, 7)
    trained.phase(second, 4)
    before = trained.state_dict()
    model = trained.deliver(3)
    assert same(trained.state_dict(), before)
    assert held_out_loss(model, PAINT, second) != held_out_loss(trained.model, PAINT, second)


def test_wrong_arguments_are_refused():
    for kind in PENALTIES.values():
        with pytest.raises(ArgumentError, match="strength"):
            kind(PAINT, strength=-1.0)
    with pytest.raises(ArgumentError, match="decay"):
        MASPenalty(PAINT, decay=1.5)
    with pytest.raises(ArgumentError, match="samples"):
        MASPenalty(PAINT, samples=0)
    with pytest.raises(ArgumentError, match="batch"):
        MASPenalty(PAINT, batch=0)


def test_a_penalty_is_named_by_its_call_string():
    assert repr(LwFPenalty(PAINT, strength=0.25)) == "lwf(masked_autoencoding(), strength=0.25)"
    assert repr(MASPenalty(NextToken())) == "mas(next_token())"
