"""Schedulers: the rate of each update, annealing on demand, exact resume in every phase, any optimiser, and what is refused."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, StateError
from everlearn.optim.rates import InfiniteLR, ScheduledLR
from everlearn.optim.schedules import Constant, Infinite, RepeatedCosine

MAKERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1.0),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=1.0),
}


def trained(optimizer="adamw"):
    """A small network with two groups of parameters, and its optimiser."""
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    with torch.no_grad():
        for number, weight in enumerate(network.parameters()):
            weight.copy_(torch.sin(torch.arange(weight.numel()) + number).view_as(weight))
    groups = [{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr_scale": 0.5}]
    return network, MAKERS[optimizer](groups)


def infinite(optimizer):
    return InfiniteLR(optimizer, 0.02, warmup=4, cooldown_end=9)


def update(network, optimizer, scheduler, step):
    x = torch.cos(torch.arange(12) * (step + 1.0)).view(3, 4)
    optimizer.zero_grad()
    (network(x) - 1.0).square().mean().backward()
    rate = optimizer.param_groups[0]["lr"]
    optimizer.step()
    scheduler.step()
    return rate


def whole(network, optimizer, scheduler):
    """Copies of all three states."""
    return copy.deepcopy((network.state_dict(), optimizer.state_dict(), scheduler.state_dict()))


def put_back(states, network, optimizer, scheduler):
    for part, state in zip((network, optimizer, scheduler), states, strict=True):
        part.load_state_dict(copy.deepcopy(state))


def drive(network, optimizer, scheduler, first, last, fork=15, steps=6):
    """Updates first..last-1 with an annealing from `fork` on; the rates they were made at."""
    rates = []
    for step in range(first, last):
        if step == fork:
            scheduler.start_anneal(steps)
        rates.append(update(network, optimizer, scheduler, step))
    return rates


def test_each_update_is_made_at_the_rate_of_its_number():
    network, optimizer = trained()
    schedule = RepeatedCosine(0.01, steps=8, warmup=3)
    scheduler = ScheduledLR(optimizer, schedule)
    rates = [update(network, optimizer, scheduler, step) for step in range(20)]
    assert rates == [schedule(step) for step in range(20)]
    assert optimizer.param_groups[1]["lr"] == 0.5 * schedule(20)
    assert scheduler.get_last_lr() == [schedule(20), 0.5 * schedule(20)]


def test_each_group_may_have_a_schedule_of_its_own():
    network, optimizer = trained()
    first, second = RepeatedCosine(0.01, steps=8, warmup=3), Constant(0.2)
    scheduler = ScheduledLR(optimizer, [first, second])
    rates = []
    for step in range(12):
        rates.append([group["lr"] for group in optimizer.param_groups])
        update(network, optimizer, scheduler, step)
    assert rates == [[first(step), 0.5 * 0.2] for step in range(12)]  # times the group's lr_scale
    states = whole(network, optimizer, scheduler)
    again, others = trained()
    resumed = ScheduledLR(others, (first, second))
    put_back(states, again, others, resumed)
    assert [group["lr"] for group in others.param_groups] == [first(12), 0.1]
    for step in range(12, 20):
        assert update(network, optimizer, scheduler, step) == update(again, others, resumed, step)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    with pytest.raises(StateError, match=r"belongs to \[repeated_cosine"):
        ScheduledLR(trained()[1], [second, first]).load_state_dict(states[2])
    with pytest.raises(ArgumentError, match="the optimiser has 2 groups, got 1 schedules"):
        ScheduledLR(optimizer, [first])
    with pytest.raises(ArgumentError, match=r"schedule must be a schedule such as constant\(0.1\), got 0.1"):
        ScheduledLR(optimizer, [first, 0.1])


def test_an_annealing_on_demand_is_the_pure_schedule_with_that_start():
    network, optimizer = trained()
    scheduler = infinite(optimizer)
    rates = drive(network, optimizer, scheduler, 0, 24)
    pure = Infinite(0.02, 4, 9, anneal_start=15, anneal_end=21)
    assert rates == [pure(step) for step in range(24)]


@pytest.mark.parametrize("optimizer", MAKERS)
@pytest.mark.parametrize(("stop", "phase"), [(2, "warmup"), (6, "cooldown"), (12, "constant"), (18, "anneal"), (22, "end")])
def test_stopped_in_any_phase_it_goes_on_to_the_same_bits(optimizer, stop, phase):
    network, steps = trained(optimizer)
    scheduler = infinite(steps)
    before = drive(network, steps, scheduler, 0, stop)
    assert scheduler.phase == phase
    states = whole(network, steps, scheduler)
    states = (*states[:2], pickle.loads(pickle.dumps(json.loads(json.dumps(states[2])))))
    after = drive(network, steps, scheduler, stop, 26)

    other, others = trained(optimizer)
    resumed = infinite(others)
    drive(other, others, resumed, 0, 3)  # it had done something else
    put_back(states, other, others, resumed)
    assert drive(other, others, resumed, stop, 26) == after
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert before + after == [Infinite(0.02, 4, 9, anneal_start=15, anneal_end=21)(step) for step in range(26)]


def test_the_main_line_goes_on_from_what_was_saved_before_an_annealing():
    line, steps = trained()
    scheduler = infinite(steps)
    drive(line, steps, scheduler, 0, 15, fork=None)
    saved = whole(line, steps, scheduler)
    drive(line, steps, scheduler, 15, 21)  # the copy that is delivered
    put_back(saved, line, steps, scheduler)
    scheduler.resume_constant()
    rates = drive(line, steps, scheduler, 15, 20, fork=None)

    straight, other = trained()
    never = infinite(other)
    assert drive(straight, other, never, 0, 20, fork=None)[15:] == rates == [0.01] * 5
    assert all(torch.equal(a, b) for a, b in zip(line.parameters(), straight.parameters(), strict=True))


def test_going_on_from_annealed_weights_needs_a_word():
    network, optimizer = trained()
    scheduler = infinite(optimizer)
    drive(network, optimizer, scheduler, 0, 18)
    with pytest.raises(ArgumentError, match="began at step 15; load the state"):
        scheduler.resume_constant()
    scheduler.resume_constant(allow_rewarm=True)
    assert scheduler.phase == "constant" and optimizer.param_groups[0]["lr"] == 0.01
    assert update(network, optimizer, scheduler, 18) == 0.01


def test_an_annealing_is_over_once_its_steps_are_made():
    network, optimizer = trained()
    scheduler = infinite(optimizer)
    drive(network, optimizer, scheduler, 0, 20)
    assert scheduler.phase == "anneal"
    drive(network, optimizer, scheduler, 20, 21)
    assert scheduler.phase == "end" and optimizer.param_groups[0]["lr"] == pytest.approx(0.002)


def test_after_an_annealing_it_stays_low_and_going_on_from_one_in_the_cool_down_is_at_the_constant_rate():
    network, optimizer = trained()
    scheduler = infinite(optimizer)
    rates = drive(network, optimizer, scheduler, 0, 12, fork=6, steps=3)  # the cool-down ends at step 9
    assert rates[9:] == [0.002, 0.002, 0.002] and scheduler.phase == "end"
    scheduler.resume_constant(allow_rewarm=True)
    assert (scheduler.phase, optimizer.param_groups[0]["lr"]) == ("constant", 0.01)


def test_what_cannot_be_annealed_is_refused_and_nothing_changes():
    network, optimizer = trained()
    scheduler = infinite(optimizer)
    drive(network, optimizer, scheduler, 0, 3)
    before = scheduler.state_dict()
    with pytest.raises(ArgumentError, match="the warm-up ends at step 4, and this is step 3"):
        scheduler.start_anneal(5)
    with pytest.raises(ArgumentError, match="steps must be an int >= 1, got 0"):
        scheduler.start_anneal(0)
    assert scheduler.state_dict() == before
    drive(network, optimizer, scheduler, 3, 10)
    scheduler.start_anneal(5)
    with pytest.raises(ArgumentError, match="began at step 10 already"):
        scheduler.start_anneal(5)
    with pytest.raises(ArgumentError, match="the schedule itself has no end"):
        InfiniteLR(optimizer, 0.1, warmup=1, cooldown_end=2, anneal_start=5, anneal_end=6)


def test_a_state_of_another_schedule_is_refused_and_nothing_changes():
    _, optimizer = trained()
    first, second = ScheduledLR(optimizer, Constant(0.1)), infinite(trained()[1])
    with pytest.raises(StateError, match=r"belongs to constant\(0.2\), not to constant\(0.1\)"):
        first.load_state_dict(ScheduledLR(trained()[1], Constant(0.2)).state_dict())
    with pytest.raises(StateError, match="another scheduler; it holds fork, schedule, step, steps"):
        first.load_state_dict(second.state_dict())
    with pytest.raises(StateError, match="another scheduler"):
        second.load_state_dict(first.state_dict())
    assert first.get_last_lr() == [0.1, 0.05] and second.get_last_lr() == [0.0, 0.0]
    with pytest.raises(ArgumentError, match="schedule must be a schedule"):
        ScheduledLR(optimizer, 0.1)
