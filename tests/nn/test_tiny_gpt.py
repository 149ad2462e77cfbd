"""The small language model: what each position sees, its tied table, how it begins, and what is refused."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.nn.tiny_gpt import TinyGPT


@pytest.fixture
def model():
    return TinyGPT(11, dim=16, depth=2, heads=4, length=6, seed=3)


def tokens(rows=2, length=6):
    return torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(0))


def test_a_position_sees_itself_and_those_before_it(model):
    x = tokens()
    scores = model(x)
    for place in range(6):
        other = x.clone()
        other[:, place] = (other[:, place] + 1) % 11
        moved = (model(other) - scores).abs().amax((0, 2)) > 1e-7
        assert moved.tolist() == [False] * place + [True] * (6 - place)


def test_shorter_rows_give_the_same_scores(model):
    x = tokens()
    torch.testing.assert_close(model(x[:, :3]), model(x)[:, :3])


def test_scores_are_products_with_the_table_of_embeddings(model):
    x = tokens()
    torch.testing.assert_close(model(x), torch.einsum("bld,vd->blv", model.hidden(x), model.table))
    assert sum(weight.numel() for weight in model.parameters()) == 11 * 16 + 6 * 16 + 2 * 3280 + 32


def test_positions_count(model):
    x = torch.full((1, 6), 4)
    hidden = model.hidden(x)[0]
    assert not torch.allclose(hidden[0], hidden[3], atol=1e-3)
    with torch.no_grad():
        model.positions.zero_()
    torch.testing.assert_close(model.hidden(x)[0, 0], model.hidden(x)[0, 3])


def test_layers_that_add_to_the_path_begin_smaller_the_deeper_it_is():
    wide = TinyGPT(11, dim=64, depth=8, length=6, seed=0)
    for block in wide.blocks:
        assert float(block.mix.weight.std()) == pytest.approx(0.02, rel=0.05)
        assert float(block.narrow.weight.std()) == pytest.approx(0.02 / 4, rel=0.05)
        assert float(block.out.weight.std()) == pytest.approx(0.02 / 4, rel=0.05)
        assert not block.out.bias.any() and not block.wide.bias.any()


def test_the_seed_alone_decides_the_weights(model):
    torch.manual_seed(1)
    same = TinyGPT(11, dim=16, depth=2, heads=4, length=6, seed=3)
    other = TinyGPT(11, dim=16, depth=2, heads=4, length=6, seed=4)
    assert torch.equal(same.table, model.table) and torch.equal(same.blocks[1].mix.weight, model.blocks[1].mix.weight)
    assert not torch.equal(other.table, model.table)


def test_rows_that_are_too_long_and_sizes_that_mean_nothing_are_refused(model):
    with pytest.raises(InputError, match=r"7 tokens, and the model was made for 6; pass length=7"):
        model(tokens(length=7))
    with pytest.raises(ArgumentError, match="depth must be an int >= 1, got 0"):
        TinyGPT(11, depth=0)
    with pytest.raises(ArgumentError, match="dim=16 and heads=3"):
        TinyGPT(11, dim=16, heads=3)
