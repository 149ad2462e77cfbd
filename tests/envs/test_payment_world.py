"""The world of payments: its equations by hand, what is offered, drift, the figures of its reference, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.envs.payment_world import ACTIONS, payment_world

SEEDS = 20


def test_chances_are_those_of_the_equation_row_by_row():
    """The slow twin: every logit summed up from the world's tables, with what the row of x says of the payment."""
    world = payment_world(seed=4)
    payments = world.payments(40)
    for row in range(40):
        x = payments.x[row].double()
        issuer, merchant = int(x[:12].argmax()), int(x[12:20].argmax())
        z, c, d = x[20:].tolist()
        for action in range(len(ACTIONS)):
            logit = float(world.base[issuer] + world.issuer[issuer, action] + world.merchant[merchant, action])
            logit += float(world.amount[action]) * z + float(world.cross[action]) * c - 0.6 * c - 0.3 * d
            assert float(payments.chances[row, action]) == pytest.approx(
                1.0 / (1.0 + math.exp(-logit)), abs=1e-7
            )  # z is float32


def test_what_is_offered_follows_from_the_payment():
    payments = payment_world(seed=4).payments(4000)
    x, offered = payments.x, payments.offered
    merchant = x[:, 12:20].argmax(1)
    z, c, d = x[:, 20], x[:, 21] == 1, x[:, 22] == 1
    assert offered[:, 0].all() and offered[:, 2].all()
    assert torch.equal(offered[:, 1], (z < 0.5) & ~c)
    assert torch.equal(offered[:, 4], merchant % 3 != 0)
    assert torch.equal(offered[:, 5], ~d)
    # shares of 4,000 draws within four standard errors of 0.6, 0.3, 0.3 and 0.5
    for found, share in ((offered[:, 3], 0.6), (offered[:, 6], 0.3), (c, 0.3), (d, 0.5)):
        assert abs(float(found.float().mean()) - share) < 4 * math.sqrt(share * (1 - share) / 4000)


def test_figures_of_the_uniform_policy_are_those_of_the_reference():
    """Over worlds: 2 + .7 Phi(.5) + .6 + 5/8 + .5 + .3 = 4.509 treatments, approval .817, regret .0882; within four standard errors."""
    found = []
    for seed in range(SEEDS):
        world = payment_world(seed=seed)
        for _ in range(2):
            payments = world.payments(1500)
            uniform = payments.uniform()
            found.append((payments.offered.sum(1).double().mean(), payments.value(uniform), payments.regret(uniform)))
            world = world.drifted()
    table = torch.tensor(found, dtype=torch.float64).reshape(SEEDS, 2, 3).mean(1)
    error = table.std(0) / math.sqrt(SEEDS)
    expected = torch.tensor([4.509, 0.817, 0.0882], dtype=torch.float64)
    assert ((table.mean(0) - expected).abs() < 4 * error).all(), (table.mean(0), error)
    assert (error < torch.tensor([0.06, 0.012, 0.006])).all()  # or else the line above would tell nothing


def test_rewards_come_as_often_as_their_chances_say_and_alike_for_every_policy():
    payments = payment_world(seed=2).payments(20000)
    action = torch.zeros(20000, dtype=torch.int64)
    chance = payments.chances[:, 0]
    error = float((chance * (1 - chance)).sum().sqrt()) / 20000
    assert abs(float((payments.rewards(action) - chance).mean())) < 4 * error
    assert torch.equal(payments.rewards(action), payments.rewards(action))
    assert payments.first(7).rewards(action[:7]).tolist() == payments.rewards(action)[:7].tolist()


def test_the_best_policy_has_no_regret_and_is_offered():
    payments = payment_world(seed=2).payments(500)
    leader = payments.chances.masked_fill(~payments.offered, -1.0).argmax(1)
    best = torch.nn.functional.one_hot(leader, len(ACTIONS)).double()
    assert payments.regret(best) == pytest.approx(0.0, abs=1e-12) and payments.regret(payments.uniform()) > 0.02
    payments.rewards(leader)


def test_a_world_is_a_value_and_drift_follows_its_equation():
    world = payment_world(seed=1, drift=0.1)
    assert torch.equal(world.payments(9).x, world.payments(9).x)
    assert not torch.equal(world.payments(9).x, world.payments(9, "judged").x)
    after = world.drifted()
    assert torch.equal(after.issuer, world.drifted().issuer) and after.generation == 1
    assert torch.equal(after.issuer[:, 0], 0.98 * world.issuer[:, 0]) and torch.equal(after.merchant, world.merchant)
    pushed = replace(world, drift=0.2).drifted()  # the same draw, twice as far
    assert torch.allclose(pushed.issuer - 0.98 * world.issuer, 2 * (after.issuer - 0.98 * world.issuer))
    moves = torch.cat(
        [(payment_world(seed=s).drifted().issuer / 0.98 - payment_world(seed=s).issuer)[:, 1:].flatten() for s in range(20)]
    )
    assert abs(float(moves.std()) - 0.1) < 4 * 0.1 / math.sqrt(2 * len(moves))
    still = payment_world(seed=1, drift=0.0, base_drift=0.0, decay=1.0)
    assert torch.equal(still.drifted().issuer, still.issuer) and torch.equal(still.drifted().base, still.base)


def test_refusals():
    with pytest.raises(ArgumentError, match="issuers must be"):
        payment_world(0)
    with pytest.raises(ArgumentError, match="drift must be a number >= 0"):
        payment_world(drift=-0.1)
    payments = payment_world(seed=1).payments(50)
    row = int((~payments.offered[:, 1]).nonzero()[0])
    action = torch.zeros(50, dtype=torch.int64)
    action[row] = 1
    with pytest.raises(InputError, match=f"row {row}: action 1 is not offered; offered are \\[0"):
        payments.rewards(action)
    with pytest.raises(InputError, match="50 int64 in 0"):
        payments.rewards(action.int())
