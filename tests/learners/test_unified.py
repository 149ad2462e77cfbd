"""The unified learner: its presets against the learners and the loops that they stand for, mixtures, limits and refusals."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from everlearn.core.budget import Budget
from everlearn.core.check import check_learner
from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator
from everlearn.core.state import same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.der import DER
from everlearn.learners.derpp import DERpp
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.icarl import Exemplars, ICaRL
from everlearn.learners.lwf import LwF
from everlearn.learners.objective import FISHERS, Objective, OutputTerm, WeightTerm
from everlearn.learners.online_ewc import OnlineEWC
from everlearn.learners.presets import PRESETS, preset
from everlearn.learners.replay import Replay
from everlearn.learners.si import SI
from everlearn.learners.unified import Unified
from everlearn.nn.bregman import BinaryNegEntropy, LogNorm, NegEntropy, Quadratic, Squared
from everlearn.nn.fisher import fisher_diagonal
from everlearn.nn.mean_field import MeanField
from everlearn.optim.optimizers import SGD, Adam

CLASSES = 6


@pytest.fixture
def events(batches):
    """events(count) -> batches of three tasks of two classes each, `count` of them in all, with a change announced between."""

    def make(count=50, seed=1, sizes=(4, 1, 6)):
        drawn = batches(count, seed, classes=2, sizes=sizes)
        parts = [drawn[: count // 3], drawn[count // 3 : 2 * count // 3], drawn[2 * count // 3 :]]
        told = []
        for task, part in enumerate(parts):
            told += [Boundary(task=task, classes=(2 * task, 2 * task + 1))] if task else []
            told += [Batch(batch.x, batch.y + 2 * task) for batch in part]
        return told

    return make


def net(network, seed=0):
    return network(seed, classes=CLASSES)


# ---- presets that the house has as learners ----------------------------------------------------------------------------------

SGD5 = SGD(lr=0.05)
TWINS = {
    "finetune": (lambda m: FineTune(m, optimizer=SGD5), {}, {}),
    "replay": (lambda m: Replay(m, capacity=20, replay_batch=5, optimizer=SGD5, seed=3), {}, {"capacity": 20}),
    "der": (
        lambda m: DER(m, capacity=20, alpha=0.6, replay_batch=5, optimizer=SGD5, seed=3),
        {"strength": 0.6},
        {"capacity": 20},
    ),
    "derpp": (
        lambda m: DERpp(m, capacity=20, alpha=0.6, beta=0.8, replay_batch=5, optimizer=SGD5, seed=3),
        {"strength": 0.6, "labels": 0.8},
        {"capacity": 20},
    ),
    "online_ewc": (
        lambda m: OnlineEWC(m, strength=5.0, decay=0.7, fisher_samples=30, optimizer=SGD5, seed=3),
        {"strength": 5.0, "decay": 0.7},
        {"fisher_samples": 30},
    ),
    "si": (lambda m: SI(m, strength=0.4, damping=0.05, optimizer=SGD5, seed=3), {"strength": 0.4, "damping": 0.05}, {}),
    "lwf": (
        lambda m: LwF(m, strength=0.7, temperature=3.0, optimizer=SGD5, seed=3),
        {"strength": 0.7, "temperature": 3.0},
        {},
    ),
    "icarl": (
        lambda m: ICaRL(m, capacity=500, replay_batch=5, optimizer=SGD5, seed=3),
        {},
        {"capacity": 500, "keep": Exemplars()},
    ),
}
EXACT = {"finetune", "replay", "der", "derpp"}  # the same operations in the same order


@pytest.mark.parametrize("name", TWINS)
def test_a_preset_is_the_learner_of_that_name(name, network, events, fold, weights):
    """After 50 steps on the same events the weights differ by 1e-6 at most; the loss of iCaRL is meant, not its predictions."""
    make, options, settings = TWINS[name]
    learner = make(net(network))
    unified = Unified(net(network), preset(name, **options), replay_batch=5, optimizer=SGD5, seed=3, **settings)
    fold(learner, events()), fold(unified, events())
    apart = (weights(learner) - weights(unified)).abs().max()
    assert apart == 0 if name in EXACT else apart <= 1e-6
    if name != "finetune":
        assert not torch.allclose(
            weights(learner), weights(fold(FineTune(net(network), optimizer=SGD5), events())), atol=1e-3
        )


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01), SGD(lr=0.05, momentum=0.9), SGD(lr=0.05, clip=0.1)], ids=str)
def test_path_integrals_are_those_of_the_learner_under_every_optimiser(optimizer, network, events, fold, weights):
    learner = fold(SI(net(network), strength=0.5, optimizer=optimizer), events())
    unified = fold(Unified(net(network), preset("si", strength=0.5), optimizer=optimizer), events())
    assert torch.allclose(learner.importance, unified.springs[0].importance, rtol=1e-3, atol=1e-5)
    assert torch.allclose(weights(learner), weights(unified), atol=1e-5)


# ---- presets as loops written by hand ------------------------------------------------------------------------------------------


def descend(model, loss, lr):
    """One step of plain descent; the loss."""
    value = loss()
    slopes = torch.autograd.grad(value, list(model.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter -= lr * slope
    return value


def flat(model):
    return torch.cat([parameter.reshape(-1) for parameter in model.parameters()])


def loop(model, told, penalty, consolidate, lr=0.05):
    """Fine-tuning under a penalty(x) that a consolidation(x, y of the task, task) prepares: plain, slow and obvious."""
    rows, task = [], 0
    for event in told:
        if isinstance(event, Boundary):
            consolidate(torch.cat([row.x for row in rows]), torch.cat([row.y for row in rows]), task)
            rows, task = [], task + 1
            continue
        rows.append(event)
        model.train()
        descend(model, lambda event=event: cross_entropy(model(event.x), event.y) + penalty(event.x), lr)
    return flat(model).detach()


def test_mas_is_a_loop_written_by_hand(network, events, fold, weights):
    model, held = net(network), {}

    def consolidate(x, y, task):
        total = torch.zeros(len(flat(model)))
        for row in x:
            slopes = torch.autograd.grad(model(row[None]).square().sum(), list(model.parameters()))
            total += torch.cat([slope.reshape(-1) for slope in slopes]).abs()
        held["o"] = total / len(x) + held.get("o", 0)
        held["w"] = flat(model).detach().clone()

    def penalty(x):
        return 0.05 * (held["o"] * (flat(model) - held["w"]) ** 2).sum() if held else 0.0

    twin = loop(model, events(), penalty, consolidate)
    unified = fold(Unified(net(network), preset("mas", strength=0.05), fisher_samples=500, optimizer=SGD5), events())
    assert (weights(unified) - twin).abs().max() <= 1e-6


def test_offline_ewc_with_spread_answers_is_a_loop_written_by_hand(network, events, fold, weights):
    """One term for each past task, the exact Fisher, and CPR's pull towards the uniform distribution."""
    model, past = net(network), []

    def consolidate(x, y, task):
        past.append((fisher_diagonal(model, list(model.parameters()), x, y, "exact"), flat(model).detach().clone()))

    def penalty(x):
        held = sum((3.0 / 2 * (fisher * (flat(model) - anchor) ** 2).sum() for fisher, anchor in past), torch.zeros(()))
        logs = log_softmax(model(x), 1)
        return held + 0.4 * (torch.log(torch.tensor(float(CLASSES))) + (logs.exp() * logs).sum(1).mean())

    twin = loop(model, events(), penalty, consolidate)
    objective = Objective(
        output=preset("cpr", strength=0.4).output, weight=preset("ewc", strength=3.0, importance="fisher_exact").weight
    )
    unified = fold(Unified(net(network), objective, fisher_samples=500, optimizer=SGD5), events())
    assert (weights(unified) - twin).abs().max() <= 1e-6
    assert unified.springs[0].constant > 0


def test_cpr_is_its_term_beside_online_ewc(network, events, fold, weights):
    model, held = net(network), {}

    def consolidate(x, y, task):
        fisher = fisher_diagonal(model, list(model.parameters()), x, y, "sampled", generator(0, "fisher", task))
        held["f"], held["w"] = fisher + held.get("f", 0), flat(model).detach().clone()

    def penalty(x):
        logs = log_softmax(model(x), 1)
        spread = 0.5 * (logs.exp() * logs).sum(1).mean()
        return spread + (2.0 * (held["f"] * (flat(model) - held["w"]) ** 2).sum() if held else 0.0)

    twin = loop(model, events(), penalty, consolidate)
    unified = fold(Unified(net(network), preset("cpr", strength=0.5, ewc=4.0), fisher_samples=500, optimizer=SGD5), events())
    assert (weights(unified) - twin).abs().max() <= 1e-6


def test_natural_continual_learning_is_a_loop_written_by_hand(network, events, fold, weights):
    """w <- w - lr ((L + damping)^-1 grad CE + w - w_last) from the first change on."""
    model, held, lr, damping, rows, task = net(network), {}, 0.05, 0.5, [], 0
    for event in events():
        if isinstance(event, Boundary):
            x, y = torch.cat([row.x for row in rows]), torch.cat([row.y for row in rows])
            fisher = fisher_diagonal(model, list(model.parameters()), x, y, "sampled", generator(0, "fisher", task))
            held["l"], held["w"] = 4.0 * fisher + held.get("l", 0), flat(model).detach().clone()
            rows, task = [], task + 1
            continue
        rows.append(event)
        slope = torch.cat(
            [s.reshape(-1) for s in torch.autograd.grad(cross_entropy(model(event.x), event.y), list(model.parameters()))]
        )
        present = flat(model).detach()
        step = slope / (held["l"] + damping) + present - held["w"] if held else slope
        torch.nn.utils.vector_to_parameters(present - lr * step, model.parameters())
    options = {"fisher_samples": 500, "optimizer": SGD(lr=lr)}
    unified = fold(Unified(net(network), preset("ncl", strength=4.0, damping=damping), **options), events())
    assert (weights(unified) - flat(model).detach()).abs().max() <= 1e-5
    plain = fold(Unified(net(network), preset("online_ewc", strength=4.0), **options), events())
    assert not torch.allclose(weights(unified), weights(plain), atol=1e-3)


def test_variational_continual_learning_is_a_loop_written_by_hand(network, events, fold):
    twin = MeanField(net(network))
    size = len(flat(twin.network))
    last = torch.zeros(size), torch.ones(size)
    for step, event in enumerate(event for event in events() if isinstance(event, Batch)):
        changes = [place for place, told in enumerate(events()) if isinstance(told, Boundary)]
        if step in (changes[0], changes[1] - 1):
            last = tuple(row.detach().clone() for row in twin.row())
        twin.train()
        twin.draw(generator(0, "weights", step))

        def loss(event=event, last=last):
            mean, deviation = twin.row()
            moved = (deviation**2 + (mean - last[0]) ** 2) / (2 * last[1] ** 2)
            return cross_entropy(twin(event.x), event.y) + 0.01 * ((last[1] / deviation).log() + moved - 0.5).sum()

        descend(twin, loss, 0.05)
    unified = fold(Unified(net(network), preset("vcl", strength=0.01), optimizer=SGD5), events())
    assert (flat(unified.descent.model) - flat(twin)).abs().max() <= 1e-5


# ---- what the identities say ---------------------------------------------------------------------------------------------------


def test_replaying_the_batch_itself_doubles_the_gradient_exactly(network, batches):
    batch = batches(1)[0]
    learner = Unified(net(network), preset("er"), capacity=len(batch), replay_batch=len(batch))
    learner.memory.insert(x=batch.x, y=batch.y)
    order = Memory(len(batch), seed=0)
    order.insert(x=batch.x, y=batch.y)
    plain = net(network)
    before = flat(plain).detach().clone()
    slopes = torch.autograd.grad(cross_entropy(plain(batch.x), batch.y), list(plain.parameters()))
    expected = before - 0.1 * 2 * torch.cat([slope.reshape(-1) for slope in slopes])
    learner.update(batch)
    assert torch.allclose(flat(learner.network), expected, rtol=1e-6, atol=1e-7)


def test_springs_at_rest_pull_nothing(network, events, fold):
    """Right behind a change the penalty is 0 and so is its gradient."""
    told = events()
    first = next(place for place, event in enumerate(told) if isinstance(event, Boundary))
    learner = fold(Unified(net(network), preset("ewc", strength=7.0)), told[: first + 1])
    penalty = learner.springs[0].penalty()
    assert penalty.item() == 0
    assert all(not slope.any() for slope in torch.autograd.grad(penalty, learner.springs[0].weights))
    values = learner.update(told[first + 1])
    assert values["weight_1"].item() == 0 and values["loss"].item() == values["task"].item()


# ---- every term with every other -----------------------------------------------------------------------------------------------

OUTPUTS = {
    "nothing": (),
    "labels": (OutputTerm(1.0, NegEntropy(), "probs", "memory", "label"),),
    "scores": (OutputTerm(0.5, Squared(), "logits", "memory", "stored_logits"),),
    "old answers": (OutputTerm(1.0, NegEntropy(), "probs", "current", "old_model", temperature=2.0, classes="old"),),
    "old sigmoids": (OutputTerm(1.0, BinaryNegEntropy(), "sigmoid", "both", "old_model", classes="seen"),),
    "old sigmoids the other way": (OutputTerm(1.0, BinaryNegEntropy(), "sigmoid", "memory", "old_model", "model_first"),),
    "old features": (OutputTerm(1.0, Squared(), "features", "current", "old_model", reduce="mean"),),
    "uniform": (OutputTerm(0.5, NegEntropy(), "probs", "current", "uniform", "model_first"),),
    "natural parameters": (OutputTerm(0.5, LogNorm("categorical"), "logits", "memory", "old_model"),),
    "weighed scores": (OutputTerm(0.1, Quadratic((1.0, 2.0, 3.0, 1.0, 2.0, 3.0)), "logits", "memory", "stored_logits"),),
}
WEIGHTS = {
    "nothing": (),
    "start": (WeightTerm(0.1, Squared(), "start"),),
    "last": (WeightTerm(0.5, Squared()),),
    **{kind: (WeightTerm(5.0, Quadratic(), "last_task", kind),) for kind in FISHERS},
    "each task": (WeightTerm(5.0, Quadratic(), "each_task", "fisher_exact"),),
    "path": (WeightTerm(2.0, Quadratic(), "last_task", "path_integral"),),
    "length": (WeightTerm(0.5, Quadratic(), "last_task", "output_norm"),),
    "drawn": (WeightTerm(0.05, LogNorm()),),
    "two": (WeightTerm(0.5, Squared()), WeightTerm(5.0, Quadratic(), "last_task", "fisher_exact")),
}


@pytest.fixture
def ends(network, events, fold):
    """ends(output, weight) -> the network's weights after a fold; each pair is folded once."""
    done = {}

    def row(output, weight):
        if (output, weight) not in done:
            objective = Objective(output=OUTPUTS[output], weight=WEIGHTS[weight])
            learner = Unified(net(network), objective, replay_batch=4, fisher_samples=10, capacity=40, optimizer=SGD5)
            done[output, weight] = flat(fold(learner, events(12)).network).detach()
        return done[output, weight]

    return row


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name != "nothing"])
def test_any_output_term_goes_with_any_weight_term_and_each_does_something(output, ends):
    for weight in WEIGHTS:
        both = ends(output, weight)
        assert both.isfinite().all()
        assert not torch.equal(both, ends("nothing", weight)), weight
        if weight != "nothing":
            assert not torch.equal(both, ends(output, "nothing")), weight


def test_all_mixtures_end_in_different_weights(ends):
    rows = [ends(*pair) for pair in itertools.product(("nothing", "labels", "scores"), WEIGHTS)]
    assert all(not torch.equal(first, second) for first, second in itertools.combinations(rows, 2))


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 3},
        {"replay_batch": 2},
        {"keep": Ring()},
        {"fisher_samples": 2},
        {"optimizer": Adam()},
        {"passes": 2},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_option_changes_the_weights(network, events, fold, weights, change):
    objective = Objective(output=preset("derpp").output, weight=preset("online_ewc").weight)
    usual = {"capacity": 28, "replay_batch": 4, "fisher_samples": 20}
    change = change | ({"capacity": 23} if "capacity" in change else {})
    first = fold(Unified(net(network), objective, **usual), events())
    second = fold(Unified(net(network), objective, **usual | change), events())
    assert not torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("finetune", "replay")])
def test_a_strength_of_nothing_is_fine_tuning_to_the_bit(name, network, events, fold):
    options = {"strength": 0.0} | {"derpp": {"labels": 0.0}, "cpr": {"ewc": 0.0}}.get(name, {})
    unified = fold(Unified(net(network), preset(name, **options)), events())
    plain = fold(FineTune(net(network)), events())
    if name == "icarl":  # another task loss
        assert not same(unified.state_dict()["descent"], plain.state_dict()["descent"])
    else:
        assert same(unified.state_dict()["descent"], plain.state_dict()["descent"])


@pytest.mark.parametrize("name", PRESETS)
def test_continues_from_a_snapshot(name, network, events, continues):
    assert continues(lambda: Unified(net(network), preset(name), capacity=9, fisher_samples=6, seed=5), events(15))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_keeps_the_contract(name, network):
    assert len(check_learner(lambda seed: Unified(network(seed, 8, 4), preset(name), seed=seed), classes=4)) == 12


def test_a_mixture_continues_from_a_snapshot(network, events, continues):
    objective = Objective(
        output=(*OUTPUTS["labels"], *OUTPUTS["scores"], *OUTPUTS["old sigmoids"]), weight=(*WEIGHTS["two"], *WEIGHTS["path"])
    )
    assert continues(lambda: Unified(net(network), objective, capacity=40, fisher_samples=6, seed=5), events(15))


def test_draws_are_independent_and_counted(network, events, fold):
    learner = fold(Unified(net(network), preset("derpp"), capacity=20, replay_batch=5), events(12))
    draws, plain = [], learner.memory.draw
    learner.memory.draw = lambda *given: draws.append(plain(*given)) or draws[-1]
    learner.update(events(12)[-1])
    (drawn,) = draws
    assert len(drawn["y"]) == 10 and not torch.equal(drawn["x"][:5], drawn["x"][5:])


def test_the_capacity_holds_replayed_rows_and_those_of_importances(network, events, fold):
    objective = Objective(output=preset("er").output, weight=preset("ewc").weight)
    learner = fold(Unified(net(network), objective, capacity=30, fisher_samples=10), events())
    assert learner.memory.capacity == 20 and learner.sample.capacity == 10
    limited = Unified(net(network), objective)
    Budget(replay=8).limit(limited)
    fold(limited, events())
    assert limited.memory.stored <= 4 and limited.sample.stored <= 4


def test_values_of_terms_add_up_to_the_loss(network, events, fold):
    objective = Objective(output=OUTPUTS["labels"] + OUTPUTS["uniform"], weight=WEIGHTS["last"])
    learner = fold(Unified(net(network), objective), events())
    values = learner.update(events()[-1])
    assert list(values) == ["loss", "task", "output_1", "output_2", "weight_1"]
    total = values["task"] + values["output_1"] + 0.5 * values["output_2"] + values["weight_1"]
    assert values["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_needs_boundaries_only_where_a_term_is_about_the_past(network):
    needs = {name for name in PRESETS if Unified(net(network), preset(name)).needs_boundaries}
    assert needs == set(PRESETS) - {"finetune", "l2sp", "er", "replay", "der", "derpp"}


def test_refusals(network):
    with pytest.raises(ArgumentError, match=r"unified: output\(potential=negentropy.*remembered, but capacity=0"):
        Unified(net(network), preset("er"), capacity=0)
    mixed = Objective(output=preset("er").output, weight=preset("ewc").weight)
    with pytest.raises(ArgumentError, match="200 rows go to fisher_samples"):
        Unified(net(network), mixed, capacity=200)
    with pytest.raises(ArgumentError, match="task loss of source='both'"):
        Unified(net(network), preset("replay"), capacity=0)
    with pytest.raises(ArgumentError, match="objective must be an objective such as"):
        Unified(net(network), "ewc")
    with pytest.raises(ArgumentError, match="vector of the 90 weights"):
        Unified(net(network), Objective(weight=(WeightTerm(1.0, Quadratic((1.0, 2.0))),)))
    for wrong in ({"replay_batch": 0}, {"passes": 0}, {"fisher_samples": 0}, {"capacity": -1}):
        with pytest.raises(ArgumentError, match=f"unified: {next(iter(wrong))} must be"):
            Unified(net(network), **wrong)


def test_a_term_about_the_old_model_is_silent_in_the_first_task(network, events, caplog):
    with caplog.at_level("INFO", logger="everlearn.learners.unified"):
        learner = Unified(net(network), preset("lwf"))
    assert ["terms about the old model are 0" in record.message for record in caplog.records] == [True]
    plain = FineTune(net(network))
    for event in events()[:5]:
        assert list(learner.update(event)) == ["loss"]
        plain.update(event)
    assert same(learner.state_dict()["descent"], plain.state_dict()["descent"])
