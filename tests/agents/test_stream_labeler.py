"""Labels of a stream are bought exactly within a budget, whenever their answers come."""

import pytest
import torch
from torch import nn

from everlearn import Batch, Budget, FineTune
from everlearn.agents.query_rules import Bald, Random, Static, Uncertainty
from everlearn.agents.stream_labeler import FLOOR, StreamLabeler
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import isolated
from everlearn.data.delayed import delayed
from everlearn.data.load import load
from everlearn.data.scenarios import SCENARIOS


def window(size, start=0):
    return Batch(torch.zeros(size, 1), id=tuple(map(str, range(start, start + size))))


def distributions(members, rows, classes=3, seed=0):
    return torch.rand(members, rows, classes, generator=torch.Generator().manual_seed(seed)).softmax(2)


@pytest.mark.parametrize("labels", [0, 1, 17, 200])
@pytest.mark.parametrize(("delay", "missing"), [(0, 0.0), (5, 0.3)])
def test_the_budget_is_kept_to_the_label_over_a_stream_with_late_answers(labels, delay, missing):
    """What is spent is the least of the budget and the share of rows seen, at every window; what was bought is learned from or waits."""
    stream = delayed(SCENARIOS["split"](load("digits"), experiences=5, batch=50), delay=delay, missing=missing, seed=1)
    with isolated(0, "network"):
        learner = FineTune(nn.Linear(64, 10))
    labeler = StreamLabeler(Uncertainty(), Budget(labels=labels), share=0.1)
    learned, windows = [], 0
    for event in stream:
        if not isinstance(event, Batch):
            continue
        if event.y is None:
            labeler.buy(event, learner.predict(event.x).softmax(1))
            windows += 1
            assert labeler.spent == min(labels, int(0.1 * labeler.seen + 1e-9))
        elif event.id is not None:
            bought = labeler.receive(event)
            if bought is not None:
                learner.update(bought)
                learned += bought.id
    assert windows > 10 and len(set(learned)) == len(learned)
    assert labeler.spent == min(labels, int(0.1 * labeler.seen + 1e-9))
    assert len(learned) + len(labeler.waiting) == labeler.spent
    assert (not labeler.waiting) or missing > 0


def test_the_rows_on_which_members_differ_are_bought():
    """Bald against its formula, row by row; uncertainty buys what none of them knows."""
    said = torch.tensor([[[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]], [[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]])
    assert StreamLabeler(Bald(), share=0.4).buy(window(3), said) == ("2",)
    assert StreamLabeler(Uncertainty(), share=0.7).buy(window(3), said) in (("1", "2"), ("2", "1"))


def test_a_member_that_was_right_weighs_more():
    said = torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]])
    labeler = StreamLabeler(Bald(), share=1.0)
    labeler.buy(window(1), said)
    labeler.receive(Batch(torch.zeros(1, 1), torch.tensor([0]), id=("0",)))
    first = (1 - FLOOR) * 0.8 + FLOOR / 2
    assert labeler.log_weights.exp().tolist() == pytest.approx([first, 1 - first], abs=1e-6)
    faded = StreamLabeler(Bald(), share=1.0, discount=0.0)
    for start, label in ((0, 0), (1, 1)):
        faded.buy(window(1, start), said)
        faded.receive(Batch(torch.zeros(1, 1), torch.tensor([label]), id=(str(start),)))
    assert faded.log_weights.exp().tolist() == pytest.approx([1 - first, first], abs=1e-6)


def test_answers_that_nobody_bought_are_not_let_through():
    labeler = StreamLabeler(Random(), share=0.5)
    bought = labeler.buy(window(4), distributions(2, 4))
    assert len(bought) == 2
    full = Batch(torch.arange(4.0)[:, None], torch.tensor([0, 1, 2, 0]), id=("0", "1", "2", "3"))
    first = labeler.receive(full)
    assert sorted(first.id) == sorted(bought) and first.x[:, 0].tolist() == [float(name) for name in first.id]
    assert labeler.receive(full) is None  # a second answer is no new one


def test_state_continues_to_the_bit_and_ties_do_not_follow_the_order():
    def make():
        return StreamLabeler(Bald(), Budget(labels=9), share=0.3, seed=4)

    whole, half = make(), make()
    for start in (0, 10):
        whole.buy(window(10, start), distributions(3, 10, seed=start))
    half.buy(window(10), distributions(3, 10))
    from everlearn.core.state import capture
    from everlearn.core.state import load as put

    other = make()
    put(other, capture(half))
    other.buy(window(10, 10), distributions(3, 10, seed=10))
    assert other.waiting == whole.waiting and other.spent == whole.spent
    equal = torch.full((1, 100, 2), 0.5)
    assert set(StreamLabeler(Random(), share=0.1).buy(window(100), equal)) != set(map(str, range(10)))


def test_bad_input_is_refused_with_nothing_changed():
    labeler = StreamLabeler(share=1.0)
    cases = [
        (Batch(torch.zeros(2, 1)), distributions(2, 2), "have ids"),
        (Batch(torch.zeros(2, 1), id=("a", "a")), distributions(2, 2), "ids must be new"),
        (window(2), distributions(2, 3), r"\(members, 2, classes\)"),
        (window(2), torch.ones(2, 2, 3), "sum to 1"),
    ]
    for batch, said, words in cases:
        with pytest.raises(InputError, match=words):
            labeler.buy(batch, said)
    assert (labeler.spent, labeler.seen, labeler.waiting) == (0, 0, [])
    labeler.buy(window(2), distributions(2, 2))
    with pytest.raises(InputError, match=r"label 3 of '0' is not in 0\.\.2"):
        labeler.receive(Batch(torch.zeros(1, 1), torch.tensor([3]), id=("0",)))
    assert len(labeler.waiting) == 2 and labeler.log_weights.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="probabilities, got"):
        labeler.buy(window(2, 5), distributions(3, 2))
    with pytest.raises(ArgumentError, match="labels and nothing else"):
        StreamLabeler(budget=Budget(updates=3))
    with pytest.raises(ArgumentError, match="policy must be"):
        StreamLabeler(Static())
