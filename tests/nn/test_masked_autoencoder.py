"""The masked autoencoder: patches and their order, what is in sight, what the loss counts, and what is refused."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.nn.masked_autoencoder import MaskedAutoencoder


@pytest.fixture
def model():
    return MaskedAutoencoder(size=12, channels=2, patch=4, dim=12, seed=0)


def images(rows=3):
    return torch.randn(rows, 2, 12, 12, generator=torch.Generator().manual_seed(1))


def masks(model, rows=3, seed=2):
    return model.draw_masks(rows, torch.Generator().manual_seed(seed))


def test_patches_are_cut_row_by_row(model):
    x = images()
    cut = model.patches(x)
    for token in range(9):
        top, left = 4 * (token // 3), 4 * (token % 3)
        assert torch.equal(cut[:, token], x[:, :, top : top + 4, left : left + 4].flatten(1))


def test_as_many_patches_are_kept_as_the_ratio_says_and_each_as_often():
    for tokens, ratio, kept in ((16, 0.75, 4), (9, 0.75, 2), (16, 0.5, 8)):
        side = int(tokens**0.5)
        model = MaskedAutoencoder(size=2 * side, patch=2, dim=6, mask_ratio=ratio)
        hidden = model.draw_masks(4000, torch.Generator().manual_seed(0))
        assert (hidden.sum(1) == tokens - kept).all()
        chance = kept / tokens
        shares = (~hidden).double().mean(0)
        assert float((shares - chance).abs().max()) < 5 * (chance * (1 - chance) / 4000) ** 0.5


def test_what_is_hidden_is_out_of_sight_and_what_is_seen_is_not(model):
    x, hidden = images(), masks(model)
    painted = model(x, hidden)
    other = x.clone()
    patch = int(hidden[0].nonzero()[0])
    top, left = 4 * (patch // 3), 4 * (patch % 3)
    other[0, :, top : top + 4, left : left + 4] += 3.0
    assert torch.equal(model(other, hidden), painted)
    patch = int((~hidden[0]).nonzero()[0])
    top, left = 4 * (patch // 3), 4 * (patch % 3)
    other[0, :, top : top + 4, left : left + 4] += 3.0
    changed = (model(other, hidden) - painted).abs().amax((1, 2))
    assert changed[0] > 1e-4 and not changed[1:].any()


def test_each_patch_is_painted_at_its_place(model):
    """Images row by row, with masks as they fall, equal one image at a time with its patches put in order by hand."""
    x, hidden = images(), masks(model)
    for row in range(3):
        tokens = model.embed(model.patches(x[row : row + 1])) + model.positions
        seen = (~hidden[row]).nonzero().flatten()
        z = model.encoder(torch.cat([model.cls, tokens[:, seen]], 1))
        full = model.mask_token.repeat(1, 9, 1)
        full[:, seen] = z[:, 1:]
        slow = model.paint(model.decoder(torch.cat([z[:, :1], full], 1) + model.decoder_positions)[:, 1:])
        torch.testing.assert_close(model(x, hidden)[row : row + 1], slow)


def test_the_loss_counts_hidden_pixels_only(model, monkeypatch):
    x, hidden = images(), masks(model)
    monkeypatch.setattr(model, "forward", lambda images, hidden: model.patches(images))
    assert float(model.loss(x, hidden)) == 0.0
    wrong = lambda images, hidden: model.patches(images) + 5.0 * ~hidden[:, :, None]  # noqa: E731
    monkeypatch.setattr(model, "forward", wrong)
    assert float(model.loss(x, hidden)) == 0.0
    monkeypatch.setattr(model, "forward", lambda images, hidden: model.patches(images) + 2.0 * hidden[:, :, None])
    assert float(model.loss(x, hidden)) == pytest.approx(4.0 * 7 / 9 / 0.75)  # 7 of 9 are hidden, over the ratio asked for


def test_places_and_tokens_begin_narrow():
    model = MaskedAutoencoder(size=32, patch=2, dim=60, seed=0)
    for name in ("positions", "decoder_positions"):
        assert getattr(model, name).std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("cls", "mask_token"):
        assert 0.01 < getattr(model, name).std().item() < 0.03


def test_an_encoding_is_the_first_token_of_all_patches_at_their_places(model):
    x = images()
    tokens = torch.cat([model.cls.expand(3, -1, -1), model.embed(model.patches(x)) + model.positions], 1)
    torch.testing.assert_close(model.encode(x), model.encoder(tokens)[:, 0])


def test_an_encoding_sees_every_patch(model):
    x = images()
    code = model.encode(x)
    for token in range(9):
        other = x.clone()
        other[:, :, 4 * (token // 3), 4 * (token % 3)] += 3.0
        assert ((model.encode(other) - code).abs().amax(1) > 1e-5).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"patch": 5}, "size=12 and patch=5"),
        ({"mask_ratio": 1.0}, "keeps 0 of 9 patches"),
        ({"mask_ratio": 0.0}, "keeps 9 of 9 patches"),
        ({"depth": 0}, "depth must be an int >= 1"),
        ({"dim": 10}, "dim=10 and heads=3"),
    ],
)
def test_what_is_no_autoencoder_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        MaskedAutoencoder(**{"size": 12, "patch": 4, "dim": 12, **wrong})
