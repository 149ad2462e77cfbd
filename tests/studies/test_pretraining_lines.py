"""Lines of pre-training: schedules by name, what a line delivers and remembers beside a walk by hand, exact moments, digits and probes."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.data.dataset import Data
from everlearn.data.pretraining import ImageDomain
from everlearn.learners.pretrainer import ContinualPretrainer
from everlearn.optim.optimizers import SGD
from everlearn.studies.pretraining_lines import (
    SCHEDULES,
    Classified,
    ln_rise,
    pairs_of_digits,
    probe,
    quadratic,
    schedule_of,
    standardised,
    walk,
)

# ---- schedules ---------------------------------------------------------------------------------------------------------------


def test_schedules_have_the_rates_of_their_names():
    """Phases of 100 updates, 1.0 at most: warm-up until 5, cool-down until 40, a tenth at least."""
    at = {name: [schedule_of(name, 1.0, 100)(step) for step in (0, 5, 40, 99, 100, 105, 150)] for name in SCHEDULES}
    later = 0.1 + 0.45 * (1 + math.cos(math.pi * 35 / 95))
    last = 0.1 + 0.45 * (1 + math.cos(math.pi * 94 / 95))
    half = 0.1 + 0.45 * (1 + math.cos(math.pi * 45 / 95))
    assert at["cosine"] == pytest.approx([0.0, 1.0, later, last, 0.0, 1.0, half])
    assert at["no re-warm"] == pytest.approx([0.0, 1.0, later, last, 0.1, 0.1, 0.1])
    assert at["constant"] == at["WSD"] == [0.0, *[1.0] * 6]
    for name, ratio in (("infinite .25", 0.25), ("infinite .5", 0.5), ("infinite .75", 0.75)):
        assert at[name] == [0.0, 1.0, *[ratio] * 5]
    for name in ("WSD", "infinite .5"):
        schedule = schedule_of(name, 1.0, 100)
        assert schedule.annealed(schedule.constant, 1.0) == pytest.approx(0.1)
    with pytest.raises(ArgumentError, match="did you mean 'cosine'"):
        schedule_of("cosin", 1.0, 100)


# ---- a line beside a walk by hand ---------------------------------------------------------------------------------------------


class Towards:
    """Half the squared distance of one weight from the numbers of the rows."""

    name = "towards"

    def draw(self, model, x, random):
        return (x,)

    def loss(self, model, *inputs):
        return 0.5 * (model.weight[0, 0] - inputs[0]).square().mean()


TARGETS, STEPS = (1.0, -1.0, 2.0), 20


def by_hand(rate, fork):
    """(delivered, highest, [loss on the first target after each update]) of plain descent from 0 towards each target in turn."""
    weight, done, delivered, highest, losses = 0.0, 0, [], [], []
    for target in TARGETS:
        seen = []
        for _ in range(STEPS - fork):
            weight -= rate(done) * (weight - target)
            done += 1
            seen.append(0.5 * (weight - TARGETS[0]) ** 2)
        copy = weight
        for step in range(fork):
            copy -= rate.annealed(rate.line(done), step / fork) * (copy - target)
            seen.append(0.5 * (copy - TARGETS[0]) ** 2)
        delivered.append([0.5 * (copy - other) ** 2 for other in TARGETS])
        highest.append(max(seen))
        losses += seen
    return delivered, highest, losses


@pytest.mark.parametrize(
    ("name", "fork"), [("cosine", 0), ("infinite .5", 4), ("WSD", 4), ("no re-warm", 0), ("constant", 0)]
)
def test_a_line_is_plain_descent_with_forks(name, fork):
    rate = schedule_of(name, 0.2, STEPS)
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    line = ContinualPretrainer(model, optimizer=SGD(0.2), schedule=rate, objective=Towards(), batch=4)
    domains = [ImageDomain(str(target), torch.full((20, 1), target)) for target in TARGETS]

    def judge(model, number):
        return 0.5 * (model.weight.item() - TARGETS[number]) ** 2

    way = walk(line, domains, STEPS, judge, every=1)
    delivered, highest, losses = by_hand(rate, fork)
    for row, other in zip(way.delivered, delivered, strict=True):
        assert row == pytest.approx(other, abs=1e-5)
    assert way.highest == pytest.approx(highest, abs=1e-5)
    assert [point[0] for point in way.curves["loss"]] == list(range(1, 61))
    assert [point[1] for point in way.curves["loss"]] == pytest.approx(losses, abs=1e-5)
    assert way.model.weight.item() == pytest.approx(2.0 - (2 * delivered[2][2]) ** 0.5, abs=1e-5)
    assert way.loss == pytest.approx(sum(delivered[2]) / 3, abs=1e-5)
    assert way.learned == pytest.approx((delivered[0][0] + delivered[1][1] + delivered[2][2]) / 3, abs=1e-5)
    rises = [delivered[2][0] - delivered[0][0], delivered[2][1] - delivered[1][1]]
    assert way.forgotten == pytest.approx(sum(rises) / 2, abs=1e-5)
    assert way.rise == pytest.approx(((highest[1] - delivered[0][0]) + (highest[2] - delivered[1][0])) / 2, abs=1e-5)


def test_rates_of_forks_stand_in_their_place():
    """Phases of 10, a fork of 2: updates 5 and 15 at 0.1, updates 10 and 20, the second of a fork, at 0.1 * 0.2 ** (1 / 2)."""
    model = nn.Linear(1, 1, bias=False)
    line = ContinualPretrainer(
        model, optimizer=SGD(0.2), schedule=schedule_of("infinite .5", 0.2, 10), objective=Towards(), batch=4
    )
    way = walk(line, [ImageDomain(name, torch.zeros(20, 1)) for name in "ab"], 10, lambda model, number: 0.0, every=5)
    assert [point[0] for point in way.curves["rate"]] == [5, 10, 15, 20]
    assert [point[1] for point in way.curves["rate"]] == pytest.approx([0.1, 0.1 * 0.2**0.5, 0.1, 0.1 * 0.2**0.5])
    assert line.steps == 16


def test_going_on_from_the_copy_makes_the_rate_jump():
    """From 0 towards 1 and then -1, phases of 10 by hand: the second one starts where the fork of the first ended, at 0.1 again."""
    rate = schedule_of("infinite .5", 0.2, 10)
    weight, ends = 0.0, []
    for target, begin in ((1.0, 0), (-1.0, 8)):
        for step in range(8):
            weight -= rate(begin + step) * (weight - target)
        for step in range(2):
            weight -= rate.annealed(0.1, step / 2) * (weight - target)
        ends.append(weight)
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    line = ContinualPretrainer(model, optimizer=SGD(0.2), schedule=rate, objective=Towards(), batch=4)
    domains = [ImageDomain(str(target), torch.full((20, 1), target)) for target in (1.0, -1.0)]
    way = walk(line, domains, 10, lambda model, number: model.weight.item(), from_copy=True)
    assert [row[0] for row in way.delivered] == pytest.approx(ends, abs=1e-5)
    assert line.steps == 20


def test_without_looks_there_are_no_curves():
    model = nn.Linear(1, 1, bias=False)
    line = ContinualPretrainer(model, schedule=schedule_of("cosine", 0.2, 4), objective=Towards(), batch=4)
    way = walk(line, [ImageDomain("a", torch.zeros(20, 1))], 4, lambda model, number: 3.0)
    assert way.curves == {} and way.highest == [-math.inf] and way.loss == 3.0 and way.forgotten == 0.0


# ---- exact moments -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shift", "ends", "peaks"),
    [
        ("cosine", 0.0, (0.005074, 0.005074, 0.005074), (0.025674, 0.025674)),
        ("infinite .25", 0.0, (0.004857, 0.004824, 0.004824), (0.006388, 0.006329)),
        ("infinite .5", 0.0, (0.008143, 0.008143, 0.008143), (0.012821, 0.012821)),
        ("cosine", 0.3, (0.005074, 0.050072, 0.005074), (0.068194,)),
        ("infinite .25", 0.3, (0.004857, 0.048701, 0.004831), (0.049847,)),
    ],
)
def test_moments_of_the_quadratic(name, shift, ends, peaks):
    """Warming up again raises the loss fivefold where nothing shifts, and forgets more where something does."""
    delivered, highest = quadratic(name, shift)
    assert delivered == pytest.approx(ends, abs=5e-7)
    assert highest[1 : 1 + len(peaks)] == pytest.approx(peaks, abs=5e-7)
    if name == "cosine" and not shift:
        assert highest[1] / delivered[0] == pytest.approx(5.06, abs=0.005)


def test_the_least_rise_has_a_logarithm():
    assert ln_rise(1.0) == 0.0
    assert ln_rise(-1.0) == ln_rise(0.0) == math.log(1e-4)


# ---- digits --------------------------------------------------------------------------------------------------------------------


def digits():
    """Thirty rows to learn from and ten as test part; pixel 0 is the label."""
    y, test_y = torch.arange(30) % 10, torch.arange(10)
    x, test_x = (torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8) for labels in (y, test_y))
    x[:, 0, 0, 0], test_x[:, 0, 0, 0] = y.to(torch.uint8), test_y.to(torch.uint8)
    return Data("digits", x, y, tuple(map(str, range(10))), test_x=test_x, test_y=test_y)


def test_pixels_are_standardised():
    assert standardised(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [-0.1307 / 0.3081, 0.8693 / 0.3081]
    )


def test_digits_come_two_by_two():
    pairs = pairs_of_digits(digits())
    assert [pair.name for pair in pairs] == ["01", "23", "45", "67", "89"]
    for number, pair in enumerate(pairs):
        for images, rows in ((pair.images, 6), (pair.held, 2)):
            labels = ((images[:, 0, 0, 0] * 0.3081 + 0.1307) * 255).round().long()
            assert len(images) == rows and set(labels.tolist()) == {2 * number, 2 * number + 1}


def test_a_probe_reads_what_the_encoder_says():
    """One column for each digit: all right. The same for every digit: one class of ten."""
    telling = SimpleNamespace(
        encode=lambda images: nn.functional.one_hot(
            ((images[:, 0, 0, 0] * 0.3081 + 0.1307) * 255).round().long(), 10
        ).float()
    )
    assert probe(telling, digits()) == 1.0
    assert probe(SimpleNamespace(encode=lambda images: torch.ones(len(images), 3)), digits()) == pytest.approx(0.1)


def test_classified_rows_carry_their_label_in_front():
    """Scores (0, x): cross-entropy of label 1 at x = 0 is ln 2, at x = ln 3 it is ln 4/3."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    rows = torch.tensor([[1.0, 0.0], [1.0, math.log(3.0)]])
    objective = Classified()
    assert objective.draw(model, rows, torch.Generator()) == (rows,)
    assert objective.loss(model, rows).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert objective.tokens(model, rows).squeeze(1)[1].tolist() == pytest.approx([0.0, math.log(3.0)])
