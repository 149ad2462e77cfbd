"""The four Fisher diagonals: numbers by hand, the slow twin, closed forms, and models that vmap cannot take."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.nn.fisher import KINDS, FisherDiagonal, fisher_diagonal, fisher_of_rows, fisher_row_by_row


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, 5),
    )


def images(count=7):
    return torch.randn(count, 1, 6, 6, generator=seeded(1)), torch.randint(0, 5, (count,), generator=seeded(2))


# ---- numbers by hand -------------------------------------------------------------------------------------------------------


def test_a_linear_model_that_knows_nothing_has_the_worked_out_diagonals():
    """W = 0, three classes, x = (1, 2), label 0: p = 1/3, d log p_c / d W_k = (delta_ck - 1/3) x."""
    model = nn.Linear(2, 3, bias=False)
    nn.init.zeros_(model.weight)
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    found = {kind: fisher_diagonal(model, [model.weight], x, y, kind, seeded()).view(3, 2) for kind in KINDS}
    torch.testing.assert_close(found["exact"], torch.tensor([[2 / 9, 8 / 9]] * 3))
    empirical = torch.tensor([[4 / 9, 16 / 9], [1 / 9, 4 / 9], [1 / 9, 4 / 9]])
    torch.testing.assert_close(found["empirical"], empirical)
    torch.testing.assert_close(found["released"], empirical / 3)
    label = found["sampled"][:, 0].argmax()  # the row of the label that was drawn
    torch.testing.assert_close(found["sampled"], empirical.roll(int(label), 0))


def test_the_exact_diagonal_of_a_linear_model_is_the_closed_form():
    """E over rows of p_c (1 - p_c) x_j^2 for weights, of p_c (1 - p_c) for biases."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 4), torch.randn(20, 3)
    chance = model(x).softmax(1).detach()
    spread = chance * (1 - chance)
    closed = torch.cat([(spread.T @ x.square() / 20).reshape(-1), spread.mean(0)])
    found = fisher_diagonal(model, list(model.parameters()), x, torch.zeros(20, dtype=torch.int64))
    torch.testing.assert_close(found, closed)


def test_the_sampled_diagonal_comes_to_the_exact_one():
    """A mean over 4000 draws; a draw's square is below 1 here, so four standard errors are 4 / sqrt(4000) = 0.063 at most."""
    torch.manual_seed(0)
    model, x = nn.Linear(2, 3), torch.randn(1, 2).clamp(-1, 1)
    many, y = x.expand(4000, 2), torch.zeros(4000, dtype=torch.int64)
    weights = list(model.parameters())
    exact, sampled = (fisher_diagonal(model, weights, many, y, kind, seeded(), chunk=500) for kind in ("exact", "sampled"))
    assert (exact - sampled).abs().max() < 0.063
    empirical = fisher_diagonal(model, weights, many, y, "empirical", chunk=500)
    assert (exact - empirical).abs().max() > 0.063  # the control: what the data's own labels give is something else


# ---- the slow twin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_many_rows_at_once_give_what_a_row_at_a_time_gives(kind, chunk):
    model, (x, y) = conv_net(), images()
    weights = list(model.parameters())
    fast = fisher_diagonal(model, weights, x, y, kind, seeded(), chunk)
    model.eval()
    slow = 0.0
    random = seeded()
    for place in range(len(y)):
        scores = model(x[place : place + 1])[0].log_softmax(0)
        chance = scores.detach().exp()
        over = {
            "exact": list(enumerate(chance)),
            "sampled": [],
            "empirical": [(int(y[place]), 1.0)],
            "released": [(int(y[place]), chance[y[place]])],
        }[kind]
        if kind == "sampled":
            if place % chunk == 0:  # labels are drawn by the chunk
                drawn = torch.multinomial(model(x[place : place + chunk]).softmax(1).detach(), 1, generator=random)
            over = [(int(drawn[place % chunk]), 1.0)]
        for label, weight in over:
            slopes = torch.autograd.grad(scores[label], weights, retain_graph=True)
            slow = slow + weight * torch.cat([slope.reshape(-1) for slope in slopes]).square()
    assert (fast - slow / len(y)).abs().max() <= 1e-5


def test_both_ways_over_rows_agree_and_leave_unused_weights_at_zero():
    model, (x, y) = conv_net().eval(), images(4)
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    names, weights = zip(*model.named_parameters(), strict=True)
    half = torch.full((4, 1), 0.5)
    fast, slow = (way(model, names, weights, x, half, y[:, None]) for way in (fisher_of_rows, fisher_row_by_row))
    torch.testing.assert_close(fast, slow)
    place = names.index("unused")
    at = sum(weight.numel() for weight in weights[:place])
    assert not fast[at : at + 2].any() and fast.any()


class Deciding(nn.Module):
    """A network whose way depends on a value, which vmap cannot take."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) if x.sum().item() > 0 else self.layer(-x)


def test_a_model_that_vmap_cannot_take_is_differentiated_row_by_row():
    torch.manual_seed(0)
    model, x, y = Deciding(), torch.randn(6, 3), torch.randint(0, 2, (6,))
    turned = torch.where(x.sum(1, keepdim=True) > 0, x, -x)
    weights = list(model.parameters())
    found = fisher_diagonal(model, weights, x, y, "empirical")
    torch.testing.assert_close(found, fisher_diagonal(model.layer, list(model.layer.parameters()), turned, y, "empirical"))


class Words(nn.Module):
    """A network over a dict of tensors."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        mask = x["mask"][..., None]
        return self.head((self.table(x["tokens"]) * mask).sum(1) / mask.sum(1))


def test_inputs_may_be_a_dict():
    torch.manual_seed(0)
    model = Words()
    x = {"tokens": torch.randint(0, 5, (6, 4)), "mask": torch.ones(6, 4)}
    y = torch.randint(0, 3, (6,))
    weights = list(model.parameters())
    found = fisher_diagonal(model, weights, x, y, "released")
    chance = model(x).softmax(1).detach().gather(1, y[:, None])
    slow = fisher_row_by_row(model, ["table.weight", "head.weight", "head.bias"], weights, x, chance, y[:, None]) / 6
    assert (found - slow).abs().max() <= 1e-5


def test_only_the_parameters_that_are_named_are_taken_in_their_order():
    model, (x, y) = conv_net(), images()
    every = list(model.parameters())
    whole = fisher_diagonal(model, every, x, y)
    part = fisher_diagonal(model, [every[-1], every[0]], x, y)
    torch.testing.assert_close(part, torch.cat([whole[-5:], whole[: every[0].numel()]]))


def test_batch_norm_keeps_its_statistics():
    model, (x, y) = conv_net(), images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fisher_diagonal(model, list(model.parameters()), x, y, "sampled", seeded())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- refusals, and the class for a loop of one's own -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "true"}, r"kind must be one of 'exact', 'sampled', 'empirical', 'released', got 'true'\."),
        ({"kind": "sampled"}, r"pass random=torch\.Generator\(\)"),
        ({"y": torch.zeros(2, dtype=torch.int64)}, r"got 7 and 2\."),
        ({"parameters": []}, "none was given"),
        ({"parameters": [nn.Parameter(torch.ones(3))]}, r"one of shape \(3,\) is not"),
        ({"chunk": 0}, "chunk must be an int >= 1, got 0"),
    ],
)
def test_what_cannot_be_estimated_is_refused(change, message):
    model, (x, y) = conv_net(), images()
    given = {"model": model, "parameters": list(model.parameters()), "x": x, "y": y} | change
    with pytest.raises(ArgumentError, match=message):
        fisher_diagonal(**given)


def test_batches_are_averaged_up_to_the_limit_and_the_mode_is_put_back():
    model, (x, y) = conv_net(), images(7)
    fisher = FisherDiagonal(model)
    model.train()
    found = fisher.estimate([(x[:4], y[:4]), (x[4:], y[4:])], "empirical", max_examples=6)
    assert model.training
    torch.testing.assert_close(found, fisher_diagonal(model, list(model.parameters()), x[:6], y[:6], "empirical"))
    by_name = fisher.by_name()
    assert {name: value.shape for name, value in by_name.items()} == {
        name: value.shape for name, value in model.named_parameters()
    }
    torch.testing.assert_close(torch.cat([value.reshape(-1) for value in by_name.values()]), found)


def test_an_estimate_needs_rows():
    fisher = FisherDiagonal(conv_net())
    with pytest.raises(ArgumentError, match="at least one row"):
        fisher.estimate([])
    with pytest.raises(ArgumentError, match="there is no estimate yet"):
        fisher.by_name()
