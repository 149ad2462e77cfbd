"""Objectives without labels: what their losses are by hand, what draws they make, and what is refused."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.pretext import MaskedAutoencoding, NextToken, pretext


class Successor(nn.Module):
    """Sure, to a certain degree, that each number is followed by the next one."""

    def __init__(self, odds=9.0, wrapped=False):
        super().__init__()
        self.odds, self.wrapped = odds, wrapped

    def forward(self, x):
        scores = math.log(self.odds) * torch.eye(10)[(x + 1) % 10]
        return SimpleNamespace(logits=scores) if self.wrapped else scores


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("wrapped", [False, True])
def test_next_token_is_the_mean_of_what_each_next_token_costs(dtype, wrapped):
    x = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 1]], dtype=dtype)  # five of six follow: the odds are 9 to 9 others
    loss = NextToken().loss(Successor(wrapped=wrapped), x)
    assert float(loss) == pytest.approx((5 * math.log(2) + math.log(18)) / 6, rel=1e-6)


def test_next_token_draws_nothing():
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    x = torch.zeros(2, 3, dtype=torch.uint8)
    (drawn,) = NextToken().draw(Successor(), x, random)
    assert drawn is x and torch.equal(random.get_state(), before)


def test_masks_are_drawn_for_the_whole_batch_and_rows_can_be_shared():
    model = MaskedAutoencoder(size=8, patch=2, dim=12, seed=0)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    objective = MaskedAutoencoding()
    drawn = objective.draw(model, x, torch.Generator().manual_seed(2))
    assert torch.equal(drawn[1], model.draw_masks(6, torch.Generator().manual_seed(2)))
    whole = objective.loss(model, *drawn)
    shares = [objective.loss(model, *(value[rank::2] for value in drawn)) for rank in range(2)]
    assert float(whole) == pytest.approx(float(sum(shares)) / 2, rel=1e-6)
    assert float(whole) == pytest.approx(float(model.loss(x, drawn[1])))


def test_who_paints_what_is_there_loses_nothing_and_what_is_seen_does_not_count():
    model = MaskedAutoencoder(size=8, patch=2, dim=12, seed=0)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    hidden = model.draw_masks(3, torch.Generator().manual_seed(2))
    model.forward = lambda images, masks: model.patches(images)
    assert float(MaskedAutoencoding().loss(model, x, hidden)) == 0.0
    model.forward = lambda images, masks: model.patches(images) + 2.0 * (~masks)[:, :, None]
    assert float(MaskedAutoencoding().loss(model, x, hidden)) == 0.0
    model.forward = lambda images, masks: model.patches(images) + 2.0 * masks[:, :, None]
    assert float(MaskedAutoencoding().loss(model, x, hidden)) == pytest.approx(4.0)


def test_a_model_without_masks_and_an_unknown_name_are_refused():
    with pytest.raises(ArgumentError, match=r"Linear draws no masks; use masked_autoencoder"):
        MaskedAutoencoding().draw(nn.Linear(2, 2), torch.zeros(1, 2), torch.Generator())
    for x in (torch.zeros(2, 3), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ArgumentError, match=r"next_token: rows must be token ids \(rows, length \+ 1\), got torch"):
            NextToken().draw(Successor(), x, torch.Generator())
    with pytest.raises(ArgumentError, match="next_token"):
        pretext("next_tokens")
    assert repr(pretext("masked_autoencoding")) == "masked_autoencoding()"
