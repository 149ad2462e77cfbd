"""The small encoder: its formula written out slowly, the tie, what is answered, and what is refused."""

import pytest
import torch
from torch.nn import functional

from everlearn.core.errors import ArgumentError
from everlearn.nn.tiny_encoder import TinyEncoder


def by_hand(model, x):
    h = model.first(model.table[x] + model.positions)
    for block in model.blocks:
        h = block(h)
    return model.last(functional.gelu(model.dense(h))) @ model.table.T + model.bias


def test_it_is_the_formula_of_its_doc_string():
    model = TinyEncoder(30, dim=8, depth=2, heads=2, inner=12, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.sin(torch.arange(weight.numel()).view_as(weight)))
    x = torch.randint(30, (5, 7), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x), by_hand(model, x), rtol=1e-4, atol=1e-5)
    cut = TinyEncoder(30, dim=8, depth=2, heads=2, inner=12, seed=1, answers=slice(4, 7))
    cut.load_state_dict(model.state_dict())
    torch.testing.assert_close(cut(x), model(x)[:, 4:])


def test_one_table_reads_and_answers():
    model = TinyEncoder(30, dim=8, heads=2, seed=1)
    assert model.table.shape == (30, 8) and sum(weight.shape[:1] == (30,) for weight in model.parameters()) == 2
    x = torch.zeros(1, 7, dtype=torch.int64)
    before = model(x)
    with torch.no_grad():
        model.table[29] *= 2.0
    after = model(x)
    assert torch.equal(before[..., :29], after[..., :29]) and not torch.equal(before[..., 29], after[..., 29])


def test_embeddings_begin_as_wide_as_they_are_asked_to_and_seeds_decide():
    wide, narrow = TinyEncoder(2000, seed=0), TinyEncoder(2000, std=0.02, seed=0)
    assert wide.table.std().item() == pytest.approx(1.0, rel=0.02)
    torch.testing.assert_close(narrow.table, 0.02 * wide.table)
    assert torch.equal(wide.dense.weight, TinyEncoder(2000, seed=0).dense.weight)
    assert not torch.equal(wide.dense.weight, TinyEncoder(2000, seed=1).dense.weight)


def test_tags_have_an_output_layer_of_their_own():
    tied, free = (TinyEncoder(30, dim=8, heads=2, seed=1, answers=slice(3, 4), tags=tags) for tags in (None, 2))
    assert "bias" not in dict(free.named_parameters()) and torch.equal(tied.table, free.table)
    x = torch.randint(30, (5, 7), generator=torch.Generator().manual_seed(0))
    h = free.last(functional.gelu(free.dense(free.hidden(x)[:, 3:4])))
    torch.testing.assert_close(free(x), h @ free.tagger.weight.T + free.tagger.bias)
    before = free(x)
    with torch.no_grad():
        free.table[29 if 29 not in x else next(row for row in range(30) if row not in x)] *= 2.0
    assert free(x).shape == (5, 1, 2) and torch.equal(before, free(x))  # no row answers that is not read


def test_layers_are_the_embeddings_and_what_each_block_gives():
    model = TinyEncoder(30, dim=8, depth=2, heads=2, seed=1)
    x = torch.randint(30, (5, 7), generator=torch.Generator().manual_seed(0))
    states = model.layers(x)
    first = model.first(model.table[x] + model.positions)
    assert torch.equal(states[0], first) and torch.equal(states[1], model.blocks[0](first))
    assert torch.equal(states[2], model.hidden(x)) and len(states) == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"dim": 10, "heads": 4}, "dim=10 and heads=4"),
        ({"depth": 0}, "depth must be an int >= 1"),
        ({"std": -1.0}, "std must be a number >= 0"),
        ({"length": 0}, "length must be an int >= 1"),
        ({"tags": 0}, "tags must be an int >= 1"),
    ],
)
def test_what_is_no_encoder_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        TinyEncoder(30, **wrong)
