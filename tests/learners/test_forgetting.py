"""Forgetting as a learner: resets step by step beside a loop by hand, when they come, exact resume, the contract, and refusals."""

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
    SI,
    Batch,
    Boundary,
    DERpp,
    FineTune,
    Forgetful,
    ICaRL,
    LwF,
    NearestClassMean,
    OnlineEWC,
    Replay,
    Sparse,
    check_learner,
)  # fmt: skip
from everlearn.comparison.building import build_learner, build_stream
from everlearn.comparison.catalog import learners, values
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import isolated
from everlearn.core.spec import build, parse
from everlearn.core.state import same
from everlearn.learners.forgetting import ABLE, default_selection
from everlearn.optim.forgetting import FanIn, Forgetting, Normal, Reset, ShrinkPerturb
from everlearn.optim.fresh_rows import FreshRows
from everlearn.optim.optimizers import SGD, Adam

MANY = (FineTune, Replay, DERpp, DER, ERACE, OnlineEWC, SI, LwF, ICaRL, MIR, AGEM, PCR, HPCR)
LAST = ["3.weight", "3.bias"]


def network(seed=0):
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))


class Words(nn.Module):
    """Two tables, one of them tied to the output."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(4, 3), nn.Embedding(2, 3)
        self.out = nn.Linear(3, 4, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, x):
        return self.out(self.tokens(x).mean(1) + self.places.weight[0])


class Levels(nn.Module):
    """Numbers by their level, 17 of them, each with a row of a table."""

    def __init__(self, seed=0):
        super().__init__()
        with isolated(seed, "levels"):
            self.table, self.out = nn.Embedding(17, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.out(self.table((4 * x).round().long().clamp(-8, 8) + 8).flatten(1, -2).mean(1))


def batches(count=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        y = torch.randint(0, 4, (6,), generator=random)
        found.append(Batch(torch.randn(6, 8, generator=random) + y[:, None], y))
    return found


def fold(learner, given=None):
    trace = []
    for number, batch in enumerate(given or batches()):
        if number % 4 == 0:
            learner.boundary(Boundary(number // 4))
        trace.append(learner.update(batch))
    return trace


def weights(learner):
    return {name: value.clone() for name, value in learner.learner.descent.model.state_dict().items()}


# ---- what a reset is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), SGD(lr=0.05, momentum=0.9), Adam(lr=0.01)], ids=str)
def test_it_is_the_loop_by_hand(optimizer):
    """Steps of a bare loop; after step 3, 6 and 9 the last layer is drawn anew and its moments are cleared."""
    plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    twin = copy.deepcopy(plain)
    learner = Forgetful(
        FineTune(plain, optimizer=optimizer), reset=Reset(3, stop=10, init=Normal(0.3)), select=["2.*"], seed=7
    )
    made = optimizer.make(list(twin.parameters()))
    forgetting = Forgetting(twin, ["2.weight", "2.bias"], made, Reset(3, stop=10, init=Normal(0.3)), seed=7)
    for t, batch in enumerate(batches(14), start=1):
        learner.update(batch)
        made.zero_grad()
        cross_entropy(twin(batch.x), batch.y).backward()
        made.step()
        for ours, theirs in zip(plain.parameters(), twin.parameters(), strict=True):  # before the reset of the same step
            assert torch.equal(ours, theirs)
        assert (forgetting.after(t) is not None) == (t in (3, 6, 9))


def test_resets_wait_for_the_next_labels_and_are_told():
    learner = Forgetful(network(), reset=Reset(4, stop=9))
    given = batches(16)
    told = []
    for batch in given[:4]:
        told.append(learner.update(batch).get("reset"))
    before, answers = weights(learner), learner.predict(given[0].x)
    learner.boundary(Boundary(1))
    assert learner.update(Batch(given[4].x)) == {}  # nothing to learn from
    assert same(before, weights(learner)) and torch.equal(answers, learner.predict(given[0].x))
    told += [learner.update(batch).get("reset") for batch in given[4:]]
    assert told == [None] * 4 + [8] + [None] * 3 + [8] + [None] * 7  # four rows of the weight, four of the bias
    assert learner.seen == 8


def test_what_is_chosen_is_drawn_anew_and_nothing_else():
    """With a rate of 0 only resets change weights."""
    learner = Forgetful(FineTune(network(), optimizer=SGD(lr=0.0)), reset=Reset(2, init=FanIn()))
    before = weights(learner)
    for batch in batches(2):
        learner.update(batch)
    assert same(before, weights(learner))
    learner.update(batches()[0])
    after = weights(learner)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(LAST)
    assert after["3.weight"].abs().max() <= 0.25 and torch.equal(after["3.bias"], torch.zeros(4))


def test_within_an_update_of_several_steps_the_last_one_due_is_made():
    ours = Forgetful(FineTune(network(), passes=5), reset=Reset(2), seed=3)
    assert ["reset" in ours.update(batch) for batch in batches(3)] == [False, True, True]
    assert ours.seen == 10  # after steps 4 and 10, of 15
    other = Forgetful(FineTune(network(), passes=5), reset=Reset(2, stop=3), seed=3)
    assert ["reset" in other.update(batch) for batch in batches(3)] == [False, True, False]
    assert other.seen == 2


def test_shrink_and_perturb_of_all_weights():
    learner = Forgetful(
        FineTune(network(), optimizer=SGD(lr=0.0)), reset=Reset(1, init=ShrinkPerturb(0.5, noise=0.0)), select="*"
    )
    before = weights(learner)
    for batch in batches(3):
        learner.update(batch)
    assert all(torch.equal(value, 0.25 * before[name]) for name, value in weights(learner).items())


# ---- limits and switches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", MANY, ids=lambda cls: cls.name)
def test_never_due_it_is_the_learner_to_the_bit(cls):
    plain, never, asked = cls(network()), Forgetful(cls(network())), Forgetful(cls(network()), reset=Reset(1, stop=0))
    trace = fold(plain)
    assert same(trace, fold(never)) and same(trace, fold(asked))
    assert same(plain.state_dict(), never.state_dict()["learner"])
    assert same(plain.state_dict(), asked.state_dict()["learner"])


@pytest.mark.parametrize("cls", MANY, ids=lambda cls: cls.name)
def test_with_resets_every_learner_learns_otherwise(cls):
    plain, wrapped = cls(network()), Forgetful(cls(network()), reset=Reset(3))
    fold(plain)
    assert sum("reset" in metrics for metrics in fold(wrapped)) == 3
    assert not same(plain.state_dict(), wrapped.state_dict()["learner"])
    assert wrapped.needs_boundaries is plain.needs_boundaries


def ended(learner=None, **options):
    made = Forgetful(learner or FineTune(network(), optimizer=Adam(lr=0.01)), **{"reset": Reset(3)} | options)
    fold(made)
    return weights(made)


@pytest.mark.parametrize(
    "change",
    [
        {"reset": Reset(4)},
        {"reset": Reset(3, stop=6)},
        {"reset": Reset(3, init=Normal(0.1))},
        {"reset": Reset(3, exclude_rows=(0,))},
        {"reset": Reset(3, probability=0.5)},
        {"reset": Reset(3, clear_optimizer=False)},
        {"select": "0.*"},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_switch_changes_the_result(change):
    assert not same(ended(), ended(**change))
    assert same(ended(**change), ended(**change))


def test_a_learner_that_begins_its_optimiser_anew_is_still_cleared():
    learner = Forgetful(Replay(network(), capacity=10, optimizer=Adam(lr=0.01), restart=True), reset=Reset(3))
    given = batches(10)
    for batch in given[:3]:
        learner.update(batch)
    learner.boundary(Boundary(1))
    for batch in given[3:6]:
        learner.update(batch)
    assert "reset" in learner.update(given[6])
    descent = learner.learner.descent
    steps = {name: int(descent.optimizer.state[value]["step"]) for name, value in descent.model.named_parameters()}
    assert steps == {
        "0.weight": 4,
        "0.bias": 4,
        "3.weight": 1,
        "3.bias": 1,
    }  # steps 4 to 7 since the change, step 7 since the reset


# ---- what is selected ------------------------------------------------------------------------------------------------------


def test_embeddings_are_chosen_before_the_last_layer():
    assert default_selection(network()) == LAST
    assert default_selection(Words()) == ["tokens.weight", "places.weight"]
    frozen = network()
    frozen[3].weight.requires_grad_(False)
    assert default_selection(frozen) == ["3.bias"]
    with pytest.raises(
        ArgumentError, match=r"no embedding and no linear layer that is trained; name what is made anew by select"
    ):
        default_selection(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8)))


def test_a_tied_table_is_made_anew_only_where_that_is_said():
    with pytest.raises(ArgumentError, match=r"tokens\.weight is tied to out\.weight, which is not selected"):
        Forgetful(Words())
    learner = Forgetful(FineTune(Words(), optimizer=SGD(lr=0.0)), reset=Reset(1), tied="together")
    batch = Batch(torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1]))
    assert [learner.update(batch).get("reset") for _ in range(2)] == [None, 6]
    model = learner.learner.descent.model
    assert model.out.weight is model.tokens.weight


# ---- new rows for one batch ------------------------------------------------------------------------------------------------

BATCH = Reset(1, stop=9, probability=0.5, scope="batch")


def spoken(count=14, seed=0):
    random = torch.Generator().manual_seed(seed)
    pairs = [torch.randint(0, 4, (2, 3, 2), generator=random) for _ in range(count)]
    return [Batch(x, y[:, 0]) for x, y in pairs]


def test_new_rows_for_one_batch_are_those_of_a_loop_by_hand():
    plain = Words()
    twin = copy.deepcopy(plain)
    learner = Forgetful(FineTune(plain, optimizer=Adam(lr=0.01)), reset=BATCH, tied="together", seed=7)
    made = Adam(lr=0.01).make(list(twin.parameters()))
    fresh = FreshRows(twin, ["tokens.weight", "places.weight"], BATCH, tied="together", seed=7)
    for t, batch in enumerate(spoken(), start=1):
        told = learner.update(batch)
        with fresh.during(lambda t=t: t) as rows:
            loss = cross_entropy(twin(batch.x), batch.y)
        made.zero_grad()
        loss.backward()
        made.step()
        assert told.get("reset") == (sum(rows) if t < 9 else None)
        for ours, theirs in zip(plain.parameters(), twin.parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "make", [lambda: FineTune(Words(), passes=2), lambda: Replay(Words(), capacity=12)], ids=["2", "replay"]
)
def test_rows_are_counted_for_each_step_and_replayed_ones_are_among_them(make):
    wrapped = Forgetful(make(), reset=Reset(1, scope="batch"), select="tokens.weight", tied="together")
    (first, second), looked_up = spoken(2), []
    wrapped.update(first)
    wrapped.learner.descent.model.tokens.register_forward_pre_hook(lambda _, inputs: looked_up.append(inputs[0]))
    told = wrapped.update(second)["reset"]
    assert told == sum(len(ids.unique()) for ids in looked_up)  # with probability 1
    assert sum(map(len, looked_up)) == 6  # three rows twice, or three and as many replayed ones


def test_of_probability_0_it_is_the_learner_to_the_bit():
    torch.manual_seed(0)
    words, given = Words(), spoken()
    plain, none, some = (FineTune(copy.deepcopy(words)) for _ in range(3))
    none = Forgetful(none, reset=Reset(1, probability=0.0, scope="batch"), tied="together")
    some = Forgetful(some, reset=BATCH, tied="together")
    for learner in (plain, none, some):
        fold(learner, given)
    assert same(plain.state_dict(), none.state_dict()["learner"])
    assert not same(plain.state_dict(), some.state_dict()["learner"])


def test_saved_anywhere_new_rows_go_on_to_the_same_bits():
    torch.manual_seed(0)
    words, given = Words(), spoken()

    def made():
        return Forgetful(Replay(copy.deepcopy(words), capacity=12), reset=BATCH, tied="together")

    whole = made()
    traces = [whole.update(batch) for batch in given]
    for place in (1, 5, 8, 9):
        first, second = made(), made()
        for batch in given[:place]:
            first.update(batch)
        second.load_state_dict(first.state_dict())
        answers = second.predict(given[0].x)
        assert torch.equal(answers, second.predict(given[0].x)) and torch.equal(answers, first.predict(given[0].x))
        assert same(traces[place:], [second.update(batch) for batch in given[place:]])
        assert same(whole.state_dict(), second.state_dict())


# ---- contract, call strings, refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Forgetful(Replay(network(seed), optimizer=Adam(lr=0.01), seed=seed), reset=Reset(3), seed=seed),
        lambda seed: Forgetful(
            OnlineEWC(network(seed), seed=seed), reset=Reset(2, init=ShrinkPerturb(), probability=0.5), select="*", seed=seed
        ),
        lambda seed: Forgetful(FineTune(network(seed), passes=3, seed=seed), reset=Reset(2, stop=20), seed=seed),
        lambda seed: Forgetful(Replay(Levels(seed), seed=seed), reset=Reset(1, probability=0.5, scope="batch"), seed=seed),
    ],
    ids=["last layer", "shrink and perturb", "several steps", "one batch"],
)
def test_it_keeps_the_contract_with_resets_in_it(make):
    assert len(check_learner(make, classes=4)) == 12


def test_saved_while_a_reset_is_due_it_goes_on_to_the_same_bits():
    given = batches(20)

    def made():
        return Forgetful(Replay(network(), capacity=12, optimizer=Adam(lr=0.01)), reset=Reset(5, probability=0.6))

    whole = made()
    traces = [whole.update(batch) for batch in given]
    for place in range(1, 20):
        first, second = made(), made()
        for batch in given[:place]:
            first.update(batch)
        second.load_state_dict(first.state_dict())
        assert same(traces[place:], [second.update(batch) for batch in given[place:]])
        assert same(whole.state_dict(), second.state_dict())


def test_a_refused_batch_leaves_what_is_due_for_the_next_one():
    learner = Forgetful(FineTune(network(), optimizer=Adam(lr=0.01)), reset=Reset(2))
    given = batches(3)
    for batch in given[:2]:
        learner.update(batch)
    before = learner.state_dict()
    for wrong in (Batch(given[2].x, given[2].y + 9), Batch(given[2].x * float("nan"), given[2].y), given[2].x):
        with pytest.raises(InputError):
            learner.update(wrong)
        assert same(before, learner.state_dict())
    assert learner.update(given[2])["reset"] == 8


def test_it_can_be_typed():
    stream = build_stream("split(digits)", 0)
    text = "forgetting(replay(capacity=200), reset=reset(50, init=fan_in()), select='*2.weight')"
    learner = build_learner(text, stream, "mlp(hidden=(8,))", 1)
    assert repr(learner) == text
    assert learner.learner.capacity == 200 and learner.learner.seed == learner.seed == 1
    assert learner.reset == Reset(50, init=FanIn())
    typed = build_learner("forgetting(fine_tune, reset=temporary_forgetting(10, stop=40))", stream, "mlp(hidden=(8,))", 0)
    assert typed.reset == Reset(10, stop=40)
    text = "forgetting(fine_tune(), reset=reset(1, stop=1000, probability=0.1, scope='batch'), tied='together')"
    learner = Forgetful(Words(), reset=Reset(1, stop=1000, probability=0.1, scope="batch"), tied="together")
    assert repr(learner) == text and build(parse(text).kwargs[0][1], values()) == learner.reset
    with pytest.raises(ArgumentError, match=r"makes rows of an nn\.Embedding anew, and 2\.weight is the weight of none"):
        build_learner(text, stream, "mlp(hidden=(8,))", 0)
    bare = build_learner("forgetting", stream, "mlp(hidden=(8,))", 0)
    assert isinstance(bare.learner, FineTune) and bare.reset == Reset(1000)


def test_new_rows_for_one_batch_can_be_typed(tmp_path, monkeypatch):
    """The grey levels of digits, 0 to 16, as tokens."""
    (tmp_path / "levels.py").write_text(
        "from torch import nn\n"
        "class Levels(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table, self.out = nn.Embedding(17, 4), nn.Linear(4, 10)\n"
        "    def forward(self, x):\n"
        "        return self.out(self.table((x - x.min()).round().long().clamp(0, 16)).flatten(1, -2).mean(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stream = build_stream("split(digits)", 0)
    text = "forgetting(fine_tune(), reset=reset(1, stop=3, probability=0.5, scope='batch'))"
    learner = build_learner(text, stream, "levels:Levels()", 0)
    assert repr(learner) == text and learner.reset == Reset(1, stop=3, probability=0.5, scope="batch")
    given = [event for event in (stream[index] for index in range(6)) if isinstance(event, Batch)][:4]
    told = [learner.update(batch).get("reset") for batch in given]
    assert [count is None for count in told] == [False, False, True, True] and sum(told[:2]) > 0


def test_learners_that_are_named_as_able_are():
    for name in ABLE:
        assert Forgetful(learners()[name](network())).seen == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Forgetful(NearestClassMean(network())), "nearest_class_mean does not take the gradient steps .* such as fine_tune"),
        (lambda: Forgetful(Sparse(network())), "sparse must be told the task of what it predicts"),
        (lambda: Forgetful("derpp"), "must be a learner or a network, got 'derpp'"),
        (lambda: Forgetful(network(), reset=50), r"reset must be a rule such as reset\(every=50\), got 50"),
        (lambda: Forgetful(network(), select="embedding"), "'embedding' fits no parameter; there are 0.weight"),
        (lambda: Forgetful(network(), tied="yes"), "tied must be None or 'together', got 'yes'"),
        (lambda: Forgetful(network(), reset=Reset(5, exclude_rows=(4,))), "exclude_rows holds 4, and 3.weight has rows 0..3"),
    ],
)  # fmt: skip
def test_what_cannot_forget_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
