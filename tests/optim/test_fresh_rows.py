"""New rows for one batch: which tokens have them, who is trained by it, ties, and a model that is left as it was."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.optim.forgetting import Normal, Reset, ShrinkPerturb
from everlearn.optim.fresh_rows import FreshRows, fresh_rows

from .tied import model_of

IDS = torch.tensor([[0, 2, 2, 4]])


def bound(model, **changes):
    rule = Reset(**{"every": 1, "probability": 0.5, "init": Normal(0.3), "scope": "batch"} | changes)
    return FreshRows(model, ["embedding.weight"], rule, tied="together", seed=5)


# ---- a table for one batch -------------------------------------------------------------------------------------------------


def test_fresh_rows_stand_for_one_batch_and_take_no_gradient():
    model = model_of()
    ids = torch.tensor([[0, 2, 2, 4]])
    table = model.embedding.weight
    before = table.detach().clone()
    new = fresh_rows(table, ids, 1.0, torch.Generator().manual_seed(3))
    assert ((new != table).all(1)).tolist() == [True, False, True, False, True, False]
    functional_call(model, {"embedding.weight": new}, (ids,)).square().sum().backward()
    drawn = (table.grad == 0).all(1)
    assert drawn.tolist() == [True, False, True, False, True, False]  # the tied output layer trains the others
    assert torch.equal(table, before)
    assert fresh_rows(table, ids, 0.0, torch.Generator().manual_seed(3)) is table
    with pytest.raises(ArgumentError, match="probability must be a number between 0 and 1"):
        fresh_rows(table, ids, -0.1, torch.Generator())


def test_special_tokens_and_the_others_of_a_batch():
    table = torch.zeros(6, 2, requires_grad=True)
    ids = torch.tensor([[0, 2, 2, 4]])
    new = fresh_rows(table, ids, 1.0, torch.Generator().manual_seed(3), exclude_rows=(2, 5))
    assert (new != 0).all(1).tolist() == [True, False, False, False, True, False]
    assert fresh_rows(table, ids, 1.0, torch.Generator(), exclude_rows=(0, 2, 4)) is table


def test_new_rows_may_keep_a_share_of_the_old_ones_and_are_not_trained_by_it():
    table = torch.arange(12.0).view(6, 2).requires_grad_()
    new = fresh_rows(table, IDS, 1.0, torch.Generator(), ShrinkPerturb(0.5, noise=0.0))
    assert new.tolist() == [[0.0, 0.5], [2.0, 3.0], [2.0, 2.5], [6.0, 7.0], [4.0, 4.5], [10.0, 11.0]]
    new.sum().backward()
    assert table.grad[:, 0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]


def test_tokens_of_a_batch_are_drawn_with_their_probability():
    """Of 2,000 tokens 600 in expectation; six standard deviations are 123."""
    table, ids = torch.zeros(2000, 1), torch.arange(2000).view(40, 50)
    random = torch.Generator().manual_seed(1)
    first, second = ((fresh_rows(table, ids, 0.3, random) != 0).flatten() for _ in range(2))
    assert abs(int(first.sum()) - 600) < 123 and abs(int(second.sum()) - 600) < 123
    assert not torch.equal(first, second)
    few = fresh_rows(table, ids[:1], 1.0, random) != 0
    assert few.flatten().nonzero().flatten().tolist() == list(range(50))  # only what occurs in the batch


# ---- a model that finds them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 2, 3])
def test_a_pass_finds_the_rows_that_a_function_of_seed_and_update_gives(t):
    """Beside a call of the model with the other table in its place: the same loss and the same gradients."""
    model, twin = model_of(), model_of()
    with bound(model, exclude_rows=(4,)).during(lambda: t) as rows:
        loss = model(IDS).square().sum()
        loss.backward()
    table = twin.embedding.weight
    new = fresh_rows(table, IDS, 0.5, generator(5, "fresh rows", t, "embedding.weight"), Normal(0.3), (4,))
    wanted = functional_call(twin, {"embedding.weight": new}, (IDS,)).square().sum()
    wanted.backward()
    assert torch.equal(loss, wanted) and sum(rows) == int((new != table).any(1).sum())
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs) and torch.equal(ours.grad, theirs.grad)


def test_tokens_are_drawn_anew_in_each_update_that_is_due():
    fresh = bound(model_of(), every=2, stop=30)
    found = {}
    for t in range(1, 40):
        with fresh.during(lambda t=t: t) as rows:
            fresh.model(IDS)
        found[t] = sum(rows) if rows else None
    assert [t for t, count in found.items() if count is not None] == list(range(2, 30, 2))
    assert {count for count in found.values() if count is not None} == {0, 1, 2, 3}


@pytest.mark.parametrize("how", ["evaluated", "without gradients", "interrupted", "not at all"])
def test_the_model_is_left_as_it_was(how):
    model = model_of()
    before, names = copy.deepcopy(model.state_dict()), [name for name, _ in model.named_parameters()]
    plain, table = model(IDS), model.embedding.weight
    with bound(model, probability=1.0).during(lambda: 1):
        if how == "evaluated":
            assert torch.equal(model.eval()(IDS), plain)
        elif how == "without gradients":
            with torch.no_grad():
                assert torch.equal(model(IDS), plain)
        elif how == "interrupted":
            with pytest.raises(IndexError):
                model(torch.tensor([[6]]))
        else:
            assert not torch.equal(model(IDS), plain)
            assert model.embedding.weight is model.decoder.weight is table  # after each pass
            model.embedding(IDS)  # by a learner that calls the parts of a model
    assert model.embedding.weight is model.decoder.weight is table
    assert [name for name, _ in model.named_parameters()] == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.train()(IDS), plain)


def test_each_table_has_rows_of_its_own():
    model = nn.ModuleDict({"a": nn.Embedding(9, 2), "b": nn.Embedding(9, 2)})
    before = copy.deepcopy(model.state_dict())
    with FreshRows(model, "*", Reset(1, scope="batch")).during(lambda: 1) as rows:
        a, b = model["a"](torch.tensor([1, 2])), model["b"](torch.tensor([1, 2, 3]))
    assert rows == [2, 3] and not torch.equal(a, b[:2])
    assert not torch.equal(a, before["a.weight"][1:3]) and not torch.equal(b, before["b.weight"][1:4])


def test_what_has_no_rows_for_a_batch_is_refused():
    model = model_of()
    with pytest.raises(ArgumentError, match=r"need a rule of scope='batch', got reset\(3\)"):
        FreshRows(model, ["embedding.weight"], Reset(3), tied="together")
    with pytest.raises(ArgumentError, match=r"embedding\.weight is tied to decoder\.weight"):
        FreshRows(model, ["embedding.weight"], Reset(3, scope="batch"))
    with pytest.raises(ArgumentError, match=r"an nn\.Embedding anew, and body\.weight is the weight of none"):
        FreshRows(model, ["body.weight"], Reset(3, scope="batch"))
    with pytest.raises(ArgumentError, match=r"exclude_rows holds 6, and embedding\.weight has rows 0\.\.5"):
        bound(model, exclude_rows=(6,))
