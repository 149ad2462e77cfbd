"""Refresh: the learner itself at rate 0, its published form step by step, each switch, and every learner that it can wrap."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn import (
    AGEM,
    DER,
    ERACE,
    HPCR,
    MIR,
    PCR,
    SCR,
    SI,
    Batch,
    Boundary,
    DERpp,
    FineTune,
    ICaRL,
    LwF,
    NearestClassMean,
    OnlineEWC,
    Refresh,
    Replay,
    Unified,
    check_learner,
)  # fmt: skip
from everlearn.comparison.building import build_learner, build_stream
from everlearn.comparison.catalog import learners
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import generator, isolated
from everlearn.core.state import same
from everlearn.learners.presets import preset
from everlearn.learners.refresh import ABLE
from everlearn.nn.fisher import fisher_diagonal
from everlearn.optim.optimizers import SGD

PUBLISHED = {"scale": "weight_norm", "loss": "current", "rate": 1e-5, "preconditioner": "fisher", "noise": 0.001}
MANY = (FineTune, Replay, DERpp, DER, ERACE, OnlineEWC, SI, LwF, ICaRL, MIR, AGEM, PCR, HPCR)


def network(seed=0):
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))


def events(count=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        if number % 4 == 0:
            found.append(Boundary(number // 4))
        y = torch.randint(0, 4, (6,), generator=random)
        found.append(Batch(torch.randn(6, 8, generator=random) + y[:, None], y))
    return found


def fold(learner, given=None):
    trace = []
    for event in given or events():
        trace.append(learner.boundary(event) if isinstance(event, Boundary) else learner.update(event))
    return trace


def weights(learner):
    return torch.cat([weight.detach().reshape(-1) for weight in learner.descent.parameters])


def ended(**options):
    learner = Refresh(DERpp(network(), capacity=20), **options)
    fold(learner)
    return weights(learner)


# ---- limits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", MANY, ids=lambda cls: cls.name)
def test_without_a_rate_it_is_the_learner_to_the_bit(cls):
    plain, wrapped = cls(network()), Refresh(cls(network()), rate=0.0, noise=1.0, preconditioner="fisher")
    assert same(fold(plain), fold(wrapped))
    assert same(plain.state_dict(), wrapped.state_dict()["learner"])


@pytest.mark.parametrize("cls", MANY, ids=lambda cls: cls.name)
def test_with_a_rate_every_learner_learns_otherwise_and_says_so(cls):
    plain, wrapped = cls(network()), Refresh(cls(network()), rate=1e-3)
    fold(plain)
    last = fold(wrapped)[-1]
    assert not same(plain.state_dict(), wrapped.state_dict()["learner"])
    assert "before" in last and torch.isfinite(last["before"])
    assert wrapped.needs_boundaries is plain.needs_boundaries


def test_a_mixed_objective_is_refreshed_too():
    learner = Refresh(Unified(network(), preset("ewc", strength=20)), rate=1e-3)
    assert fold(learner)[-1]["loss"] > 0
    assert not torch.equal(weights(learner), ended(rate=0.0))


def test_an_uphill_step_raises_the_loss_from_which_the_learner_steps():
    learner = Refresh(FineTune(network()), rate=1e-3)
    for metrics in fold(learner):
        assert metrics is None or metrics["loss"] > metrics["before"]


# ---- the published form ----------------------------------------------------------------------------------------------------


def test_the_published_form_step_by_step():
    """Copy, ascend on the batch alone, scale to the length of each tensor, divide, add noise; then the learner's own step."""
    given = [event for event in events() if isinstance(event, Batch)]
    with isolated(0, "network"):
        plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    twin = copy.deepcopy(plain)
    given = [Batch(batch.x.double(), batch.y) for batch in given]
    ours = Refresh(DERpp(plain, capacity=10, optimizer=SGD(lr=0.05)), **PUBLISHED | {"rate": 1e-2, "noise": 0.1}, seed=3)
    theirs = DERpp(twin, capacity=10, optimizer=SGD(lr=0.05))
    fisher, kept = None, []
    for number, batch in enumerate(given):
        if number == 6:
            ours.boundary(Boundary(1))
            x, y = torch.cat([one.x for one in kept]), torch.cat([one.y for one in kept])
            fisher = fisher_diagonal(twin, list(twin.parameters()), x, y, "released")
        slopes = torch.autograd.grad(cross_entropy(twin(batch.x), batch.y), list(twin.parameters()))
        count = sum(weight.numel() for weight in twin.parameters())
        noise = torch.randn(count, generator=generator(3, "ascent", number, 0)).double()
        place = 0
        for weight, slope in zip(twin.parameters(), slopes, strict=True):
            span = slice(place, place + weight.numel())
            place += weight.numel()
            divisor = 1.0 if fisher is None else 1.0 + 0.001 * fisher[span].view_as(weight)
            with torch.no_grad():
                delta = weight.norm() / (slope.norm() + 1e-20) * slope
                weight += 1e-2 * (delta + 0.1 * noise[span].view_as(weight)) / divisor
        theirs.update(batch)
        ours.update(batch)
        kept.append(batch)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-8)  # a division in float32
    assert ours.tasks == 1 and same(
        ours.learner.memory.rows()["logits"].round(decimals=5), theirs.memory.rows()["logits"].round(decimals=5)
    )


def test_scores_are_kept_as_the_moved_weights_give_them():
    model = nn.Linear(8, 4)
    moved = copy.deepcopy(model)
    batch = events()[1]
    learner = Refresh(DERpp(model, capacity=6, optimizer=SGD(lr=0.0)), rate=0.1)
    learner.update(batch)
    kept = learner.learner.memory.rows()["logits"]
    moved.load_state_dict(model.state_dict())  # lr 0: the weights stand where the ascent left them
    torch.testing.assert_close(kept, moved(batch.x).detach())


def test_the_fisher_of_old_tasks_fades():
    learner = Refresh(FineTune(network()), rate=1e-3, preconditioner="fisher", fisher_decay=0.5, fisher_kind="exact")
    assert learner.needs_boundaries
    given = events()
    fold(learner, given[:5])
    learner.boundary(Boundary(1))
    first, model = learner.fisher.clone(), learner.descent.model
    fold(learner, given[6:10])
    kept = learner.memory.rows()
    second = fisher_diagonal(model, learner.descent.parameters, kept["x"], kept["y"], "exact")
    learner.boundary(Boundary(2))
    torch.testing.assert_close(learner.fisher, second + 0.5 * first)
    learner.boundary(Boundary(3))  # nothing was learned since: no task ended
    assert learner.tasks == 2 and learner.memory.stored == 0


# ---- every switch changes the result ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 2e-3},
        {"steps": 2},
        {"scale": "gradient"},
        {"noise": 0.5},
        {"noise": 0.5, "seed": 1},
        {"loss": "current"},
        {"return_to_start": True},
        {"preconditioner": "fisher", "damping": 1e-3},
    ],
    ids=str,
)
def test_every_switch_changes_the_result(change):
    given = {"rate": 1e-3} | change
    assert not torch.equal(ended(rate=1e-3), ended(**given))
    assert torch.equal(ended(**given), ended(**given))


@pytest.mark.parametrize(
    "change", [{"fisher_kind": "empirical"}, {"fisher_decay": 1.0}, {"damping": 1.0}, {"fisher_samples": 5}], ids=str
)
def test_every_setting_of_the_fisher_changes_the_result(change):
    given = {"rate": 1e-2, "preconditioner": "fisher", "damping": 1e-3}
    assert not torch.equal(ended(**given), ended(**given | change))


# ---- contract, call strings, refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [PUBLISHED, {"scale": "gradient", "rate": 0.01, "steps": 2, "return_to_start": True}], ids=str
)
def test_it_keeps_the_contract(options):
    assert len(check_learner(lambda seed: Refresh(OnlineEWC(network(seed), seed=seed), seed=seed, **options))) == 12


def test_it_can_be_typed():
    stream = build_stream("split(digits)", 0)
    learner = build_learner("refresh(derpp(capacity=200), loss='current')", stream, "mlp(hidden=(8,))", 1)
    assert repr(learner) == "refresh(derpp(capacity=200), loss='current')"
    assert learner.learner.capacity == 200 and learner.learner.seed == learner.seed == 1
    bare = build_learner("refresh", stream, "mlp(hidden=(8,))", 0)
    assert isinstance(bare.learner, FineTune)


def test_its_rows_count_under_a_budget():
    learner = Refresh(DERpp(network(), capacity=50), rate=1e-3, preconditioner="fisher")
    Budget(replay=8).limit(learner)
    fold(learner)
    assert learner.memory.capacity == learner.learner.memory.capacity == 4


def test_learners_that_are_named_as_able_are():
    for name in ABLE:
        assert Refresh(learners()[name](network())).ascent.rate == 1e-5


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Refresh(NearestClassMean(network())), "nearest_class_mean takes no gradient steps .* such as fine_tune, replay"),
        (lambda: Refresh(Refresh(network())), "is refreshed already"),
        (lambda: Refresh("derpp"), "must be a learner or a network, got 'derpp'"),
        (lambda: Refresh(network(), rate=-1.0), r"refresh\(fine_tune\): rate must be a number >= 0"),
        (lambda: Refresh(network(), loss="both"), "loss must be one of 'objective', 'current', got 'both'"),
        (lambda: Refresh(network(), preconditioner="kfac"), "preconditioner must be one of 'none', 'fisher'"),
        (lambda: Refresh(network(), fisher_kind="true"), "fisher_kind must be one of 'exact'"),
        (lambda: Refresh(network(), fisher_decay=2.0), "fisher_decay must be a number between 0 and 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_refreshed_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.filterwarnings("ignore:.*second view")
def test_numbers_that_are_no_scores_have_no_cross_entropy():
    learner = Refresh(SCR(network()), rate=1e-3, loss="current")
    with pytest.raises(ArgumentError, match=r"are no scores of the 4 classes\. Use loss='objective'"):
        fold(learner)


def test_a_rate_that_throws_the_loss_out_of_the_numbers_stops_with_the_step():
    learner = Refresh(network(), rate=1e25)
    with pytest.raises(InputError, match=r"refresh\(fine_tune\): the loss is (inf|nan) at step 1"):
        fold(learner)
