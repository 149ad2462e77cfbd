"""Forgetting on purpose: when, of what, what the optimiser keeps, exact resume, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.spec import build, parse
from everlearn.core.state import capture, load
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import (
    FORGETTING,
    FanIn,
    Forgetting,
    Normal,
    Reset,
    ShrinkPerturb,
    StopWhen,
    UniformLaw,
    active_forgetting,
    own_group,
    select_parameters,
    temporary_forgetting,
)
from everlearn.optim.rates import ScheduledLR
from everlearn.optim.schedules import Decay, Join, Warmup

from .tied import model_of

OPTIMIZERS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.0),
    "fused": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.0, fused=True),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.01),
}


def step(model, optimizer, t):
    ids = torch.tensor([[t % 6, (t + 1) % 6, (2 * t) % 6]])
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(ids).flatten(0, 1), (ids.flatten() + 1) % 6).backward()
    optimizer.step()


def trained(optimizer="adamw", updates=7, rule=None):
    model = model_of()
    made = OPTIMIZERS[optimizer](model.parameters())
    rule = rule or Reset(every=8)
    forgetting = Forgetting(model, ["embedding.weight"], made, rule, tied="together", seed=5)
    for t in range(1, updates + 1):
        step(model, made, t)
        forgetting.after(t)
    return model, made, forgetting


def test_resets_come_at_multiples_before_the_stop():
    due = [t for t in range(1, 41) if temporary_forgetting(10, 25).due(t)]
    assert due == [10, 20]
    assert [t for t in range(41) if temporary_forgetting(10, 20).due(t)] == [10]
    assert [t for t in range(41) if active_forgetting(10).due(t)] == [10, 20, 30, 40]
    assert active_forgetting(10, probability=0.5) == Reset(10, probability=0.5)
    assert temporary_forgetting(10, 20, init=Normal(0.02)) == Reset(10, 20, Normal(0.02))
    assert not any(temporary_forgetting(1, 0).due(t) for t in range(5))


def test_forgetting_may_end_once_a_measure_was_high_long_enough():
    enough, seen = StopWhen(0.9, patience=3), []
    for value in (0.95, 0.95, 0.9, 0.95, math.nan, 0.91, 0.92, 0.93, 0.0):
        seen.append(enough(value))
        resumed = StopWhen(0.9, patience=3)
        load(resumed, capture(enough))
        enough = resumed
    assert seen == 7 * [False] + [True, True] and enough.reached
    for wrong, told in (((math.nan,), "level must be a number"), ((0.9, 0), "patience must be an int >= 1, got 0")):
        with pytest.raises(ArgumentError, match=told):
            StopWhen(*wrong)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_reset_makes_the_chosen_table_anew_and_nothing_else(optimizer):
    model, made, forgetting = trained(optimizer)
    before, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(made.state_dict()["state"])
    report = forgetting.after(8)
    assert report.update == 8 and report.rows == {"embedding.weight": 6}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in ("embedding.weight", "decoder.weight"))
    assert model.decoder.weight is model.embedding.weight
    table = list(model.parameters()).index(model.embedding.weight)
    for number, state in made.state_dict()["state"].items():
        for key, value in state.items():
            if number == table:
                assert float(torch.as_tensor(value).abs().sum()) == 0.0
            else:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(moments[number][key]))


def test_the_correction_of_bias_begins_again():
    """The first step of Adam moves every coordinate by lr |g| / (|g| + eps); with the old count of steps by 3.162 lr for these betas."""
    moved = {}
    for clear in ("all", "moments"):
        model, made, forgetting = trained()
        forgetting.after(8)
        if clear == "moments":  # what clearing the moments alone would leave
            made.state[model.embedding.weight]["step"].fill_(10_000.0)
        before = model.embedding.weight.detach().clone()
        step(model, made, 8)
        gradient = model.embedding.weight.grad
        large = gradient.abs() > 1e-4
        moved[clear] = ((model.embedding.weight.detach() - before).abs()[large] / 0.01).mean().item()
        assert large.sum() > 5
    assert moved["all"] == pytest.approx(1.0, abs=1e-3)
    assert moved["moments"] == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-2)


def test_without_clearing_the_optimiser_keeps_its_moments():
    model, made, forgetting = trained(rule=Reset(every=8, clear_optimizer=False))
    kept = copy.deepcopy(made.state[model.embedding.weight])
    before = model.embedding.weight.detach().clone()
    forgetting.after(8)
    assert not torch.equal(model.embedding.weight, before)
    assert all(torch.equal(value, kept[key]) for key, value in made.state[model.embedding.weight].items())


def test_excluded_rows_stay():
    model, made, forgetting = trained(rule=Reset(every=8, exclude_rows=(0, 5)))
    before = model.embedding.weight.detach().clone()
    assert forgetting.after(8).rows == {"embedding.weight": 4}
    same = (model.embedding.weight == before).all(1)
    assert same.tolist() == [True, False, False, False, False, True]
    state = made.state[model.embedding.weight]  # the count of steps is one for all rows, and so their moments go with it
    assert not any(bool(value.any()) for value in state.values())


def test_where_all_rows_stay_nothing_is_cleared():
    model, made, forgetting = trained(rule=Reset(every=8, exclude_rows=tuple(range(6))))
    kept = copy.deepcopy(made.state[model.embedding.weight])
    assert forgetting.after(8).rows == {"embedding.weight": 0}
    assert all(torch.equal(value, kept[key]) for key, value in made.state[model.embedding.weight].items())


def test_a_count_of_steps_that_is_no_tensor_begins_again():
    model, made, forgetting = trained()
    made.state[model.embedding.weight]["step"] = 7
    forgetting.after(8)
    assert made.state[model.embedding.weight]["step"] == 0 and isinstance(made.state[model.embedding.weight]["step"], int)


def test_new_values_differ_by_seed_update_and_parameter():
    model = nn.ModuleDict({"a": nn.Embedding(4, 3), "b": nn.Embedding(4, 3)})
    made, found = torch.optim.SGD(model.parameters(), lr=0.1), []
    for seed, t in ((0, 1), (0, 2), (1, 1)):
        Forgetting(model, "*", made, Reset(1), seed=seed).after(t)
        found += [model["a"].weight.detach().clone(), model["b"].weight.detach().clone()]
    assert not any(torch.equal(one, other) for number, one in enumerate(found) for other in found[:number])


def test_rows_are_drawn_anew_for_each_reset_and_only_their_moments_go():
    rule = Reset(every=2, probability=0.5)
    model, made, forgetting = trained(rule=rule)
    weight = model.embedding.weight
    patterns = set()
    for t in range(8, 40, 2):
        before, state = weight.detach().clone(), copy.deepcopy(made.state[weight])
        report = forgetting.after(t)
        changed = (weight != before).all(1)
        assert int(changed.sum()) == report.rows["embedding.weight"]
        assert torch.equal((weight != before).any(1), changed)
        assert float(made.state[weight]["step"]) == float(state["step"])
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(made.state[weight][key], state[key].masked_fill(changed[:, None], 0.0))
        patterns.add(tuple(changed.tolist()))
        step(model, made, t)
    assert len(patterns) > 5


def test_probability_zero_is_the_identity_and_draws_from_no_generator_but_its_own():
    model, made, forgetting = trained(rule=Reset(every=8, probability=0.0))
    before = copy.deepcopy((model.state_dict(), made.state_dict()))
    random = torch.get_rng_state()
    assert forgetting.after(8).rows == {"embedding.weight": 0}
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert str(made.state_dict()) == str(before[1])


def test_a_resumed_run_forgets_the_same():
    whole, _, _ = trained(updates=30, rule=Reset(every=4, probability=0.7))
    model, made, _ = trained(updates=14, rule=Reset(every=4, probability=0.7))
    other = model_of(seed=9)
    others = OPTIMIZERS["adamw"](other.parameters())
    other.load_state_dict(model.state_dict())
    others.load_state_dict(copy.deepcopy(made.state_dict()))
    forgetting = Forgetting(other, ["embedding.weight"], others, Reset(every=4, probability=0.7), tied="together", seed=5)
    for t in range(15, 31):
        step(other, others, t)
        forgetting.after(t)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("law", "mean", "std"),
    [
        (Normal(2.0, mean=1.0), 1.0, 2.0),
        (UniformLaw(1.0, 3.0), 2.0, 2 / math.sqrt(12)),
        (ShrinkPerturb(0.25, 0.5), 1.0, 0.5),
    ],
)
def test_new_values_follow_their_law(law, mean, std):
    new = law.new(torch.full((200, 100), 4.0), torch.Generator().manual_seed(1))
    assert float(new.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(20_000))
    assert float(new.std()) == pytest.approx(std, rel=0.05)
    assert build(parse(repr(law)), FORGETTING) == law
    rule = Reset(every=3, stop=9, init=law, exclude_rows=(1,))
    assert build(parse(repr(rule)), FORGETTING) == rule


def test_a_layer_is_drawn_as_it_began():
    """Even in -1/sqrt(inputs)..1/sqrt(inputs), as torch's own layer: variance 1 / (3 inputs)."""
    weight = FanIn().new(torch.zeros(500, 5, 3, 3), torch.Generator().manual_seed(0))
    reach = 1 / math.sqrt(45)
    assert float(weight.abs().max()) == pytest.approx(reach, rel=1e-3) and float(weight.abs().max()) <= reach
    assert float(weight.var()) == pytest.approx(reach**2 / 3, rel=0.02)
    assert float(nn.Conv2d(5, 500, 3).weight.detach().var()) == pytest.approx(reach**2 / 3, rel=0.02)
    assert torch.equal(FanIn().new(torch.ones(7), torch.Generator()), torch.zeros(7))
    assert build(parse("reset(50, init=fan_in())"), FORGETTING) == Reset(50, init=FanIn())


def test_shrinking_by_nothing_with_no_noise_changes_nothing():
    old = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(UniformLaw(2.0, 2.0).new(old, torch.Generator()), torch.full((4, 3), 2.0))
    assert torch.equal(ShrinkPerturb(1.0, 0.0).new(old, torch.Generator()), old)


def test_patterns_choose_and_ties_must_be_named():
    model = model_of()
    assert list(select_parameters(model, ["body.*"])) == ["body.weight", "body.bias"]
    assert list(select_parameters(model, "decoder.weight", tied="together")) == ["decoder.weight"]
    assert list(select_parameters(model, ["embedding.weight", "decoder.weight"])) == ["embedding.weight"]
    with pytest.raises(ArgumentError, match=r"embedding\.weight is tied to decoder\.weight, which is not selected"):
        select_parameters(model, ["embedding.weight"])
    with pytest.raises(ArgumentError, match=r"'emb' fits no parameter; there are embedding\.weight, body\.weight"):
        select_parameters(model, ["emb"])
    with pytest.raises(ArgumentError, match="no parameter is selected"):
        select_parameters(model, [])


def test_what_cannot_be_reset_is_refused_and_nothing_changes():
    model = model_of()
    body = torch.optim.SGD(model.body.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match=r"embedding\.weight is not among the parameters of the optimiser"):
        Forgetting(model, ["embedding.weight"], body, Reset(3), tied="together")
    whole = OPTIMIZERS["adamw"](model.parameters())
    with pytest.raises(ArgumentError, match=r"exclude_rows holds 6, and embedding\.weight has rows 0\.\.5"):
        Forgetting(model, ["embedding.weight"], whole, Reset(3, exclude_rows=(6,)), tied="together")
    with pytest.raises(ArgumentError, match=r"exclude_rows holds -1, and embedding\.weight has rows 0\.\.5"):
        Forgetting(model, ["embedding.weight"], whole, Reset(3, exclude_rows=(-1,)), tied="together")
    with pytest.raises(ArgumentError, match="scope='batch' makes nothing anew between updates; use FreshRows"):
        Forgetting(model, ["embedding.weight"], whole, Reset(3, scope="batch"), tied="together")
    with pytest.raises(ArgumentError, match="tied must be None or 'together'"):
        Forgetting(model, ["body.weight"], whole, Reset(3), tied="yes")
    lbfgs = torch.optim.LBFGS(model.parameters())
    lbfgs.state[model.embedding.weight]["history"] = [torch.zeros(3)]
    forgetting = Forgetting(model, ["embedding.weight"], lbfgs, Reset(3), tied="together")
    before = model.embedding.weight.detach().clone()
    with pytest.raises(StateError, match=r"LBFGS keeps 'history' for embedding\.weight, which cannot be cleared"):
        forgetting.after(3)
    assert torch.equal(model.embedding.weight, before)
    rows = OPTIMIZERS["sgd"](model.parameters())
    rows.state[model.embedding.weight] = {"momentum_buffer": None, "mean_of_rows": torch.zeros(6)}
    forgetting = Forgetting(model, ["embedding.weight"], rows, Reset(3, stop=9), tied="together")
    with pytest.raises(StateError, match=r"SGD keeps 'mean_of_rows' for embedding\.weight, which cannot be cleared"):
        forgetting.after(3)
    assert torch.equal(model.embedding.weight, before)
    del rows.state[model.embedding.weight]["mean_of_rows"]
    assert forgetting.after(3) and rows.state[model.embedding.weight]["momentum_buffer"] is None
    before = model.embedding.weight.detach().clone()
    kept = Forgetting(model, ["embedding.weight"], lbfgs, Reset(3, clear_optimizer=False), tied="together")
    assert kept.after(6).rows == {"embedding.weight": 6} and not torch.equal(model.embedding.weight, before)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Reset(0), "every must be an int >= 1, got 0"),
        (lambda: Reset(3, stop=-1), "stop must be an int >= 0, got -1"),
        (lambda: Reset(3, probability=1.5), "probability must be a number between 0 and 1, got 1.5"),
        (lambda: Reset(3, init=0.02), "init must be a law"),
        (lambda: Reset(3, scope="bach"), "unknown scope 'bach'; did you mean 'batch'"),
        (lambda: Normal(math.nan), "std must be a number >= 0, got nan"),
        (lambda: ShrinkPerturb(0.5, noise=-0.1), "noise must be a number >= 0, got -0.1"),
        (lambda: UniformLaw(2.0, 1.0), "low must be at most high"),
        (lambda: Normal(-1.0), "std must be a number >= 0"),
        (lambda: ShrinkPerturb(1.5), "shrink must be a number between 0 and 1"),
    ],
)
def test_what_is_no_rule_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        wrong()


# ---- a rate of its own -----------------------------------------------------------------------------------------------------


def test_the_chosen_parameters_make_a_group_of_their_own():
    model = model_of()
    model.body.bias.requires_grad_(False)
    others, chosen = own_group(model, "embedding.weight", tied="together", weight_decay=0.0, lr_scale=0.5)
    assert [id(value) for value in others["params"]] == [id(model.body.weight), id(model.decoder.bias)]
    assert [id(value) for value in chosen.pop("params")] == [id(model.embedding.weight)]
    assert chosen == {"weight_decay": 0.0, "lr_scale": 0.5}
    with pytest.raises(ArgumentError, match="is tied to"):
        own_group(model, "embedding.weight")


def test_the_rate_of_embeddings_begins_again_with_each_reset():
    """Whole run of T = 60 updates, K = 12: what is made anew sees position (n T // K) mod T of the schedule, all else position n."""
    model, total, rule = model_of(), 60, Reset(12)
    rate = Join(Warmup(0.1, steps=10), 10, Decay(0.1, 0.0, steps=50, shape="linear"))
    optimizer = torch.optim.AdamW(own_group(model, "embedding.weight", tied="together"))
    scheduler = ScheduledLR(optimizer, [rate, rule.restarted(rate, steps=total)])
    forgetting = Forgetting(model, "embedding.weight", optimizer, rule, tied="together")
    used, moved = [], []
    for t in range(1, total + 1):
        used.append(tuple(group["lr"] for group in optimizer.param_groups))
        before = model.embedding.weight.detach().clone()
        step(model, optimizer, t)
        moved.append(not torch.equal(before, model.embedding.weight))
        forgetting.after(t)
        scheduler.step()
    assert used == [(rate(n), rate((n * (total // 12)) % total)) for n in range(total)]
    assert [n for n, (_, own) in enumerate(used) if own == 0.0] == [0, 12, 24, 36, 48]  # the update after each reset
    assert [n for n, some in enumerate(moved) if not some] == [0, 12, 24, 36, 48]
    assert used[2] == (0.02, 0.1) and used[7][1] == pytest.approx(0.05)  # warm within 2 updates, half way down after 7


@pytest.mark.parametrize("rule", [Reset(3, stop=0), Reset(100), Reset(3, probability=0.0)], ids=str)
def test_a_loop_in_which_nothing_is_made_anew_ends_in_the_same_bits(rule):
    ends = []
    for given in (None, rule, Reset(3)):
        model = TinyEncoder(vocabulary=30, dim=16, heads=2, seed=0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
        forgetting = None if given is None else Forgetting(model, ["table"], optimizer, given)
        torch.manual_seed(3)
        for t in range(1, 10):
            ids = torch.randint(30, (4, 7))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
            optimizer.step()
            if forgetting is not None:
                forgetting.after(t)
        ends.append([value.detach().clone() for value in (*model.parameters(), torch.get_rng_state())])
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
    assert not torch.equal(ends[0][0], ends[2][0])
    assert torch.equal(ends[0][-1], ends[2][-1])  # resets draw from no generator but their own
