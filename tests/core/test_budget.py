"""Limits are kept exactly: in the middle of a batch, over memories, in bytes, in seconds, and over ten thousand updates."""

import gc
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn import Adapter, Batch, Boundary, Budget, FineTune, Learner, Replay, Retrain, run
from everlearn.core.budget import Meter, activation_bytes, first_rows
from everlearn.core.errors import ArgumentError, BudgetError
from everlearn.core.run import Fold
from everlearn.core.state import capture, same
from everlearn.core.store import Store, stores


def batch(count, labelled=True):
    y = torch.zeros(count, dtype=torch.int64) if labelled else None
    return Batch(torch.arange(float(count))[:, None], y, 3, torch.arange(float(count)), tuple(map(str, range(count))))


@pytest.mark.parametrize("name", ["replay", "replay_bytes", "labels", "updates", "activation_bytes"])
@pytest.mark.parametrize("value", [-1, 2.5, True, "5", float("nan")])
def test_counts_are_whole_numbers(name, value):
    with pytest.raises(ArgumentError, match=f"budget: {name} must be an int >= 0, got"):
        Budget(**{name: value})


@pytest.mark.parametrize("name", ["seconds", "latency_ms"])
@pytest.mark.parametrize("value", [-0.1, "5", float("nan"), True])
def test_times_are_numbers(name, value):
    with pytest.raises(ArgumentError, match=f"budget: {name} must be a number >= 0, got"):
        Budget(**{name: value})


# ---- labels and updates ----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12),
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 8),
)
@settings(max_examples=200, deadline=None)
def test_exactly_the_first_labels_and_updates_are_admitted(sizes, labels, updates):
    """The slow twin: lay all labelled rows in one line and cut it."""
    meter = Meter(Budget(labels=labels, updates=updates))
    admitted = [(part, meter.admit(part)) for part in (batch(count, labelled) for count, labelled in sizes)]
    line = [(number, row) for number, (count, labelled) in enumerate(sizes) if labelled for row in range(count)]
    allowed = line[: len(line) if labels is None else labels]
    first = sorted({number for number, _ in allowed})[: len(sizes) if updates is None else updates]
    allowed = [(number, row) for number, row in allowed if number in first]
    given_out = [
        (number, int(row))
        for number, (_, part) in enumerate(admitted)
        if part is not None and part.y is not None
        for row in part.x[:, 0]
    ]
    assert given_out == allowed
    assert meter.labels == len(allowed) and meter.updates == len(first)
    for whole, part in admitted:
        if part is not None:
            count = len(part)
            assert torch.equal(part.x, whole.x[:count]) and part.id == whole.id[:count] and part.task == 3
            assert torch.equal(part.time, whole.time[:count]) and (part.y is None or len(part.y) == count)


def test_once_closed_nothing_more_is_learned_from_inputs_alone_either():
    meter = Meter(Budget(labels=5))
    assert len(meter.admit(batch(4))) == 4 and meter.admit(batch(2, labelled=False)) is not None
    assert len(meter.admit(batch(4))) == 1 and meter.closed == ""
    assert meter.admit(batch(1)) is None and meter.closed == "labels"
    assert meter.admit(batch(2, labelled=False)) is None
    assert meter.used() == {"labels": 5, "updates": 2, "closed": "labels"}


def test_a_cut_batch_is_what_is_learned(clouds, fine_tune):
    stream = clouds(10)  # of 6 rows
    result = run(fine_tune(), stream, budget=Budget(labels=20))
    twin = fine_tune()
    for event in (*(stream[index] for index in range(3)), first_rows(stream[3], 2)):
        twin.update(event)
    assert same(capture(result.learner), capture(twin))
    assert result.used["labels"] == 20 and result.used["updates"] == 4 and result.used["closed"] == "labels"


def test_predictions_go_on_when_learning_has_ended(clouds, fine_tune, tally):
    watch = tally()
    result = run(fine_tune(), clouds(10), budget=Budget(updates=3), monitors=[watch])
    assert [step.metrics is not None for step in watch.log[1:]] == 3 * [True] + 7 * [False]
    assert watch.rows == 60 and result.used["closed"] == "updates"


def test_boundaries_are_not_heard_when_learning_has_ended(clouds):
    heard = []

    class Deaf(Learner):
        name = "deaf"
        parts = ()

        def predict(self, x):
            return torch.zeros(len(x), 4)

        def update(self, batch):
            heard.append("update")
            return {}

        def boundary(self, boundary):
            heard.append(boundary.task)

    run(Deaf(), clouds(35, boundaries=True), budget=Budget(updates=12))
    assert heard == [0, *9 * ["update"], 1, *3 * ["update"]]


def test_answers_do_not_come_by_way_of_boundaries(clouds, fine_tune):
    """A session's rows that are handed over at its beginning keep their inputs; where labels are limited, not their labels."""
    told = Boundary(1, (0, 1), batch(3))
    for budget, labelled in ((Budget(), True), (Budget(updates=3), True), (Budget(labels=100), False)):
        heard = []
        learner = fine_tune()
        learner.boundary = heard.append
        Fold(learner, clouds(1), budget, []).step(told)
        assert (heard[0].data.y is not None) == labelled
        assert torch.equal(heard[0].data.x, told.data.x) and heard[0].classes == (0, 1) and heard[0].task == 1
    assert Meter(Budget(labels=1)).announce(Boundary(2)) == Boundary(2)


def test_rows_of_dicts_are_cut_as_well():
    part = first_rows(Batch({"a": torch.arange(3), "b": torch.zeros(3, 2)}, torch.arange(3)), 2)
    assert part.x["a"].tolist() == [0, 1] and part.x["b"].shape == (2, 2) and part.y.tolist() == [0, 1] and part.id is None


# ---- seconds ---------------------------------------------------------------------------------------------------------------


class Slow(Learner):
    """Takes as long as it is told by a clock of the test's own."""

    name = "slow"
    parts = ("updates",)

    def __init__(self, clock, update, predict=0.0, boundary=0.0):
        self._clock, self.costs, self.updates = clock, (update, predict, boundary), 0

    def predict(self, x):
        self._clock[0] += self.costs[1]
        return torch.zeros(len(x), 4)

    def update(self, batch):
        self._clock[0] += self.costs[0]
        self.updates += 1
        return {}

    def boundary(self, boundary):
        self._clock[0] += self.costs[2]


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_seconds_end_learning_at_a_prefix(clouds, clock):
    learner = Slow(clock, update=0.25)
    result = run(learner, clouds(50), budget=Budget(seconds=1.0))
    assert learner.updates == 4 and result.used["closed"] == "seconds"


def test_seconds_count_predictions_and_boundaries_but_not_the_stream(clouds, clock, tally):
    class Patient(type(clouds(1))):
        def __getitem__(self, index):
            clock[0] += 1000.0
            return super().__getitem__(index)

    learner = Slow(clock, update=0.25, predict=0.125, boundary=0.5)
    run(learner, Patient(50, boundaries=True), budget=Budget(seconds=2.0), monitors=[tally()])
    assert learner.updates == 4  # 0.5 + 4 * 0.375 = 2
    fold = Fold(Slow(clock, update=0.25, predict=0.125), clouds(8), Budget(), [tally()])
    for event in clouds(8):
        fold.step(event)
    assert fold.meter.seconds == 8 * 0.375


def test_seconds_go_on_over_a_resume(clouds, clock, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Slow(clock, 0.25), clouds(50), budget=Budget(seconds=1.0), folder=tmp_path, snapshot_every=1, progress=stop)
    result = run(Slow(clock, 0.25), clouds(50), budget=Budget(seconds=1.0), folder=tmp_path, snapshot_every=1)
    assert result.learner.updates == 4 and result.used["updates"] == 4


# ---- memories --------------------------------------------------------------------------------------------------------------


class Shelf(Store):
    """Remembers how it was limited."""

    parts = ("capacity", "seen", "replayed")
    stored = nbytes = 0

    def __init__(self):
        self.capacity, self.seen, self.replayed, self.told = None, 0, 0, []

    def limit(self, samples, nbytes):
        self.told.append((samples, nbytes))


class Inner:
    parts = ("shelves",)

    def __init__(self):
        self.shelves = [Shelf(), (Shelf(),)]


class Keeper(Learner):
    name = "keeper"
    parts = ("shelf", "inner", "number")

    def __init__(self, reference=False):
        self.shelf, self.inner, self.number = Shelf(), Inner(), 3
        self.unnamed = Shelf()
        if reference:
            self.__class__ = type("Reference", (Keeper,), {"reference": True})

    def predict(self, x):
        return torch.zeros(len(x), 4)

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        """Nothing."""


def test_every_store_among_the_parts_is_found_and_shares_the_limit():
    keeper = Keeper()
    found = stores(keeper)
    assert found == [keeper.shelf, keeper.inner.shelves[0], keeper.inner.shelves[1][0]]
    Budget(replay=100, replay_bytes=50).limit(keeper)
    assert [store.told for store in found] == 3 * [[(33, 16)]] and keeper.unnamed.told == []
    Budget(replay=7).limit(keeper)
    assert keeper.shelf.told[-1] == (2, None)
    Budget(replay_bytes=7).limit(keeper)
    assert keeper.shelf.told[-1] == (None, 2)


def test_references_and_other_budgets_limit_no_store():
    keeper = Keeper(reference=True)
    Budget(replay=1).limit(keeper)
    Budget(labels=1).limit(Keeper())
    assert keeper.shelf.told == []


@pytest.mark.parametrize("rows", [0, 1, 3, 10, 39])
def test_replay_rows_are_limited(clouds, replay, rows):
    learner = replay()
    result = run(learner, clouds(30), budget=Budget(replay=rows))
    assert learner.memory.stored == rows and learner.memory.seen == 180 and result.used["closed"] == ""
    assert (
        same(capture(result.learner.descent), capture(run(replay(capacity=max(rows, 1)), clouds(30)).learner.descent))
        or not rows
    )


@pytest.mark.parametrize("size", [0, 39, 40, 1000])
def test_replay_bytes_are_limited(clouds, replay, size):
    """One row is 8 float32 and one int64: 40 bytes."""
    learner = replay(capacity=10**6)
    run(learner, clouds(30), budget=Budget(replay_bytes=size))
    assert learner.memory.stored == size // 40 and learner.memory.nbytes <= size


def test_a_reference_keeps_every_row(clouds, network):
    learner = Retrain(network())
    run(learner, clouds(5), budget=Budget(replay=1))
    assert learner.memory.stored == 30


# ---- activations -----------------------------------------------------------------------------------------------------------

BATCH, INPUTS, HIDDEN, CLASSES = 5, 8, 16, 4
# kept for the backward pass of linear, ReLU, linear, cross entropy: x, the hidden layer (once: what ReLU keeps is what the second
# layer keeps), log-probabilities, labels, and the total weight of the mean; no weights
BY_HAND = 4 * BATCH * INPUTS + 4 * BATCH * HIDDEN + 4 * BATCH * CLASSES + 8 * BATCH + 4


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def rows(count=BATCH):
    return Batch(torch.ones(count, INPUTS), torch.zeros(count, dtype=torch.int64))


def test_activations_of_a_perceptron_are_those_counted_by_hand():
    model, data = perceptron(), rows()
    loss, used = activation_bytes(lambda: cross_entropy(model(data.x), data.y))
    assert used == BY_HAND == 604 and loss.requires_grad
    wider = nn.Sequential(*model[:2], nn.Linear(HIDDEN, 1000))
    assert activation_bytes(lambda: cross_entropy(wider(data.x), data.y))[1] == BY_HAND + 4 * BATCH * (1000 - CLASSES)


def test_activations_are_counted_at_their_peak():
    """Three steps after one another keep no more than one; two losses at once keep more, but shared rows only once."""
    model, data = perceptron(), rows()

    def steps(count):
        for _ in range(count):
            cross_entropy(model(data.x), data.y).backward()

    assert activation_bytes(lambda: steps(3))[1] == BY_HAND
    both = activation_bytes(lambda: cross_entropy(model(data.x), data.y) + cross_entropy(model(data.x), data.y))[1]
    assert both == 2 * BY_HAND - 4 * BATCH * INPUTS - 8 * BATCH


def test_gradients_are_the_same_while_activations_are_counted():
    plain, counted, data = perceptron(), perceptron(), rows()
    cross_entropy(plain(data.x), data.y).backward()
    activation_bytes(lambda: cross_entropy(counted(data.x), data.y).backward())
    for one, two in zip(plain.parameters(), counted.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_nothing_is_kept_where_nothing_is_learned():
    model, data = perceptron(), rows()
    with torch.no_grad():
        assert activation_bytes(lambda: model(data.x))[1] == 0


class Row:
    """One event after another."""

    name, boundaries, held_out, checkpoints, deployed = "row", False, (), (), 0

    def __init__(self, *events):
        self.events = events

    def __len__(self):
        return len(self.events)

    def __getitem__(self, index):
        return self.events[index]


def test_activations_above_the_limit_are_refused_with_both_numbers():
    run(FineTune(perceptron()), Row(rows()), budget=Budget(activation_bytes=BY_HAND))
    with pytest.raises(
        BudgetError, match=r"fine_tune\(\): one update keeps 604 bytes.*the budget allows 603.*smaller batches"
    ):
        run(FineTune(perceptron()), Row(rows()), budget=Budget(activation_bytes=BY_HAND - 1))


def test_later_updates_that_keep_more_are_refused_as_well():
    """Replay draws nothing on its first update."""
    result = run(Replay(perceptron(), replay_batch=5), Row(rows(), rows()), budget=Budget(activation_bytes=2 * BY_HAND))
    assert result.used["activation_bytes"] == 2 * BY_HAND - 4
    with pytest.raises(BudgetError):
        run(Replay(perceptron(), replay_batch=5), Row(rows(), rows()), budget=Budget(activation_bytes=BY_HAND))


class Sharpener(Adapter):
    """Lowers the entropy of its answers."""

    name = "sharpener"
    parts = ("model",)

    def __init__(self, model):
        self.model = model

    def predict(self, x):
        with torch.no_grad():
            return self.model(x)

    def adapt(self, x):
        scores = self.model(x)
        torch.special.entr(scores.softmax(1)).sum().backward()
        return scores.detach()

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        """Nothing."""


def test_adapting_is_held_against_the_limit_as_well():
    unlabelled = Batch(rows().x)
    result = run(Sharpener(perceptron()), Row(unlabelled), budget=Budget(activation_bytes=10**6))
    assert result.used["activation_bytes"] == 4 * BATCH * (INPUTS + HIDDEN + CLASSES)
    with pytest.raises(BudgetError, match="sharpener"):
        run(Sharpener(perceptron()), Row(unlabelled), budget=Budget(activation_bytes=BATCH))


def test_counting_activations_changes_no_bit(clouds, replay):
    free = run(replay(), clouds(20))
    limited = run(replay(), clouds(20), budget=Budget(activation_bytes=10**6))
    assert free.sha256 == limited.sha256 and free.used["activation_bytes"] == 0 < limited.used["activation_bytes"]


# ---- ten thousand updates --------------------------------------------------------------------------------------------------


def resident_bytes():
    """Memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def tensor_bytes(state):
    if isinstance(state, torch.Tensor):
        return state.nbytes
    items = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return sum(map(tensor_bytes, items))


@pytest.mark.slow
def test_memory_is_bounded_over_ten_thousand_updates(clouds, replay, tally):
    """Tensors stay as they are once the memory is full; the process grows by less than 200 bytes an update over the last 8,000,
    where keeping each batch would cost 240."""
    learner, points = replay(capacity=40), []
    stream = clouds(10_000, held_out=False)

    def look(done, total):
        if done % 1000 == 0:
            gc.collect()
            points.append((done, tensor_bytes(learner.state_dict()), resident_bytes()))

    run(learner, stream, monitors=[tally_without_log(tally)], budget=Budget(replay=30), progress=look)
    assert learner.memory.stored == 30 and learner.memory.seen == 60_000
    assert len({size for _, size, _ in points}) == 1
    times, sizes = [done for done, _, _ in points[2:]], [size for _, _, size in points[2:]]
    middle = sum(times) / len(times)
    slope = sum((done - middle) * size for done, size in zip(times, sizes, strict=True)) / sum(
        (done - middle) ** 2 for done in times
    )
    print("resident bytes:", [f"{done}: {size / 1e6:.1f} MB" for done, _, size in points], f"slope {slope:.1f} bytes/update")
    assert slope < 200.0


def tally_without_log(tally):
    class Forgetful(list):
        def append(self, item):
            """The test's monitor keeps what it saw; here that would be the leak."""

    watch = tally()
    watch.log = Forgetful()
    return watch
