"""The contextual bandit: choices and their propensities, rewards in any order, periods, every switch, and state."""

import functools
import time

import numpy
import pytest
import torch

from everlearn import check_agent
from everlearn.agents.bandit import ContextualBandit
from everlearn.agents.committee import Bag, Cover
from everlearn.agents.confidence import LinTS, LinUCB, RegCB
from everlearn.agents.draws import pick, uniforms
from everlearn.agents.explorer import Progress
from everlearn.agents.explorers import EpsilonGreedy, Greedy, Uniformly
from everlearn.agents.gap_weighting import Falcon, FastCB, SquareCB
from everlearn.agents.oracle_logistic import Logistic
from everlearn.agents.oracle_network import Network
from everlearn.agents.oracle_trees import Boosted
from everlearn.agents.oracles import Ridge
from everlearn.comparison.building import build_agent
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Feedback
from everlearn.core.state import load_snapshot, same, save_snapshot
from everlearn.measure.policy_generation import effective_actions

ACTIONS, COLUMNS = 3, 4
TRUE = torch.randn(ACTIONS, COLUMNS, generator=torch.Generator().manual_seed(9))


@functools.cache
def world(rows=200, seed=1):
    """x, what is on offer (the first action always), and the reward that each action would give."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, COLUMNS, generator=random)
    offered = torch.rand(rows, ACTIONS, generator=random) < 0.8
    offered[:, 0] = True
    rewards = (torch.rand(rows, ACTIONS, generator=random) < torch.sigmoid(2 * x @ TRUE.T)).double()
    return x, offered, rewards


def feedbacks(agent, rows=200, seed=1, generation=None):
    """What comes back for the decisions of an agent as it stands."""
    x, offered, rewards = world(rows, seed)
    made = agent.decide({"x": x, "offered": offered}, range(rows))
    return [
        Feedback(
            str(row), {"x": x[row : row + 1], "offered": offered[row : row + 1]}, int(made.action[row]),
            float(made.propensity[row]), float(rewards[row, made.action[row]]), generation=generation,
        )
        for row in range(rows)
    ]  # fmt: skip


def lived(agent, periods=3, rows=200):
    """An agent that has served some periods, each closed by hand. Returns the mean reward of each."""
    means = []
    for period in range(periods):
        x, offered, rewards = world(rows, period)
        made = agent.decide({"x": x, "offered": offered}, range(period * rows, (period + 1) * rows))
        reward = rewards.gather(1, made.action[:, None])[:, 0]
        agent.learn(x, offered, made.action, reward, made.propensity, [str(period * rows + row) for row in range(rows)])
        agent.refit()
        means.append(float(reward.mean()))
    return means


def bandit(**named):
    return ContextualBandit(**{"actions": ACTIONS, "period": 0, "seed": 1, **named})


def untallied(agent):
    return {key: value for key, value in agent.state_dict().items() if key != "tally"}


# ---- choosing --------------------------------------------------------------------------------------------------------------


def test_many_at_once_choose_as_each_alone():
    """Scores of one row and of many differ by rounding only (2^-52 times a few dozen terms), probabilities by gamma times that."""
    agent = bandit(explore=SquareCB(gamma=20.0))
    lived(agent, 1)
    x, offered, _ = world()
    many = agent.decide({"x": x, "offered": offered}, torch.arange(200))
    for row in range(0, 200, 7):
        one = agent.act({"x": x[row : row + 1], "offered": offered[row : row + 1]}, row)
        assert one.action == int(many.action[row]) and one.generation == many.generation == 1
        assert one.propensity == one.probabilities[one.action] == pytest.approx(float(many.propensity[row]), abs=1e-12)
        assert many.probabilities[row].tolist() == pytest.approx(one.probabilities, abs=1e-12)
    assert offered.gather(1, many.action[:, None]).all() and len(set(many.action.tolist())) == ACTIONS
    explorer = SquareCB(gamma=20.0).probabilities(agent.scores(x, offered), offered)
    torch.testing.assert_close(many.probabilities, explorer, rtol=0, atol=1e-12)
    assert torch.equal(agent.probabilities({"x": x, "offered": offered}), many.probabilities)


def test_what_is_on_offer_may_stand_behind_the_row():
    x, offered, _ = world(20)
    plain, masked = bandit(), bandit(masked=True)
    first = plain.decide({"x": x, "offered": offered}, range(20))
    second = masked.decide(torch.cat([x, offered.float()], 1), range(20))
    assert torch.equal(first.probabilities, second.probabilities) and torch.equal(first.action, second.action)
    row = torch.cat([x, offered.float()], 1)[:1]
    masked.update(Feedback("0", row, int(second.action[0]), 0.5, 1.0))
    assert masked.features == COLUMNS and len(masked.window) == 1


def test_it_is_the_sooner_right_the_better_it_explores():
    """Two thirds of what a policy that knows the truth gains over chance are there after two periods of 200."""
    x, offered, rewards = world(200, 2)
    best = (x @ TRUE.T).masked_fill(~offered, -1e9).argmax(1)
    chance = float((rewards * offered).sum(1).div(offered.sum(1)).mean())
    known = float(rewards.gather(1, best[:, None]).mean())
    for oracle in (Ridge(), Logistic()):
        assert lived(bandit(oracle=oracle, explore=SquareCB(gamma=100.0)))[2] > chance + 2 / 3 * (known - chance)
    assert abs(lived(bandit(explore=Uniformly()))[2] - chance) < 4 * (0.25 / 200) ** 0.5  # the control


# ---- rewards in any order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oracle", [Ridge(), Logistic()], ids=repr)
def test_rewards_late_twice_and_out_of_order_end_in_the_state_of_those_in_order(oracle):
    orderly, rude = bandit(oracle=oracle), bandit(oracle=oracle)
    first = feedbacks(orderly, 100, 1, generation=0)
    for feedback in first:
        orderly.update(feedback)
    orderly.refit()
    shuffled = [first[place] for place in torch.randperm(100, generator=torch.Generator().manual_seed(2)).tolist()]
    for feedback in shuffled[:70] + shuffled[:20]:
        rude.update(feedback)
    rude.refit()
    assert not same(untallied(orderly), untallied(rude))
    for feedback in shuffled[60:]:  # thirty come a period late, ten of the others once more
        rude.update(feedback)
    for agent in (orderly, rude):
        agent.refit()
    assert same(untallied(orderly), untallied(rude))
    assert rude.tally == {**orderly.tally, "duplicates": 30} and rude.tally["late"] == 0


def test_what_is_told_twice_must_be_the_same():
    agent = bandit()
    for feedback in feedbacks(agent, 5):
        agent.update(feedback)
    before = agent.state_dict()
    one = feedbacks(bandit(), 5)[0]
    assert agent.update(one) == {"duplicate": 1.0} and agent.tally["duplicates"] == 1
    agent.tally["duplicates"] = 0
    other = Feedback("0", one.observation, one.action, one.propensity, 1.0 - one.reward)
    with pytest.raises(InputError, match=r"bandit: decision '0' was told action \d and reward \d before, and now"):
        agent.update(other)
    x, offered, _ = world(2)
    twice = torch.tensor([0, 0]), torch.tensor([0.0, 1.0])
    with pytest.raises(InputError, match="decision 'a' was told"):
        agent.learn(x, offered, *twice, ids=["a", "a"])
    assert same(before, agent.state_dict())


def test_a_correction_takes_the_place_of_the_first_word():
    """After the next fit, the state is that of a log which had it right at once."""
    mended, right = bandit(corrections=True), bandit(corrections=True)
    told = feedbacks(mended, 40)
    for feedback in told:
        right.update(feedback)
        wrong = Feedback(feedback.id, feedback.observation, feedback.action, feedback.propensity, 1.0 - feedback.reward)
        mended.update(wrong if feedback.id in ("3", "17") else feedback)
    for place in (3, 17):
        assert mended.update(told[place]) == {"corrected": 1.0}
    assert mended.update(told[3]) == {"duplicate": 1.0}
    other = Feedback("3", told[3].observation, (told[3].action + 1) % 3, 0.5, told[3].reward)
    with pytest.raises(InputError, match=r"decision '3' was told action|was not on offer"):
        mended.update(other)  # another action is no correction
    for agent in (mended, right):
        agent.refit()
    assert same(untallied(mended), untallied(right)) and mended.tally["corrected"] == 2


def test_rewards_beyond_their_time_are_counted_and_dropped():
    for ttl, late in ((None, 0), (1, 0), (0, 5)):
        agent = bandit(ttl=ttl, memory=2)
        told = feedbacks(agent, 5, generation=0)
        agent.refit()
        outcomes = [agent.update(feedback) for feedback in told]
        assert sum("late" in outcome for outcome in outcomes) == agent.tally["late"] == late
        assert len(agent.window) == agent.learned == 5 - late
    agent.refit()
    agent.refit()
    assert agent.update(feedbacks(bandit(), 9, generation=0)[8]) == {"late": 1.0}


@pytest.mark.parametrize(
    "named",
    [{}, {"explore": LinUCB(0.5), "share": 0.1}, {"memory": 0}, {"period": 30, "weights": "clipped"}, {"explore": Bag(3)}],
    ids=str,
)
def test_many_at_once_leave_the_state_of_each_alone(named):
    batched, single = bandit(**named), bandit(**named)
    told = feedbacks(batched, 100)
    for feedback in told:
        single.update(feedback)
    x, offered, _ = world(100)
    action = torch.tensor([one.action for one in told])
    reward, propensity = (
        torch.tensor([getattr(one, key) for one in told], dtype=torch.float64) for key in ("reward", "propensity")
    )
    for part in (slice(0, 1), slice(1, 64), slice(64, 100)):
        ids = [one.id for one in told[part]]
        batched.learn(x[part], offered[part], action[part], reward[part], propensity[part], ids)
    assert same(batched.state_dict(), single.state_dict())


# ---- periods ---------------------------------------------------------------------------------------------------------------


def test_a_period_closes_by_itself_and_memory_is_bounded_by_periods():
    agent = bandit(period=20, memory=2, oracle=Logistic())
    for number, feedback in enumerate(feedbacks(agent, 100)):
        agent.update(feedback)
        assert agent.generation == (number + 1) // 20 and len(agent.window) <= 3 * 20
    assert agent.fitted == 40 and len(agent.window) == 40 and set(agent.window["generation"].tolist()) == {3, 4}
    none = bandit(memory=0)
    lived(none)
    assert len(none.window) == 0 and none.learned == 600


def test_the_model_is_that_of_the_window_alone():
    """Whatever was learned before the window leaves no trace in the model; a longer memory does."""

    def models(memory):
        long, short = (bandit(memory=memory, oracle=Logistic(), explore=Uniformly()) for _ in range(2))
        lived(long, 3)
        short.refit()
        short.refit()
        x, offered, rewards = world(200, 2)
        made = short.decide({"x": x, "offered": offered}, range(400, 600))
        reward = rewards.gather(1, made.action[:, None])[:, 0]
        short.learn(x, offered, made.action, reward, made.propensity, [str(400 + row) for row in range(200)])
        short.refit()
        return long.scores(x, offered), short.scores(x, offered)

    assert torch.equal(*models(1)) and not torch.equal(*models(2))


SWITCHES = {
    "oracle": {"oracle": Logistic()},
    "explore": {"explore": SquareCB(gamma=20.0)},
    "memory": {"memory": 1},
    "floor": {"floor": 0.3},
    "share": {"share": 0.3},
    "weights": {"weights": "ips"},
    "clip": {"weights": "clipped", "clip": 2.0},
    "train_on": {"train_on": "exploration_only", "share": 0.3},
    "platt": {"calibrate": "platt"},
    "isotonic": {"calibrate": "isotonic"},
    "mix": {"mix": 0.5},
    "minimum": {"minimum": 10_000},
    "gate": {"gate": True},
    "clipped": {"clipped": False},
    "effective_actions": {"explore": SquareCB(effective_actions=2.0)},
}
PLAIN = {"explore": SquareCB(gamma=50.0), "oracle": Ridge(online=False), "memory": 2}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_policy(name):
    x, offered, _ = world(100, 7)
    plain, switched = bandit(**PLAIN), bandit(**PLAIN | SWITCHES[name])
    for agent in (plain, switched):
        lived(agent, 4, 150)
    first, second = (agent.probabilities({"x": x, "offered": offered}) for agent in (plain, switched))
    torch.testing.assert_close(second.sum(1), torch.ones(100, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (second[~offered] == 0).all()
    assert not torch.equal(first, second)
    twin = bandit(**PLAIN | SWITCHES[name])
    twin.load_state_dict(switched.state_dict())
    assert torch.equal(twin.probabilities({"x": x, "offered": offered}), second)


def test_switches_do_what_they_say():
    x, offered, _ = world(100, 7)
    seen, count = {"x": x, "offered": offered}, offered.sum(1, keepdim=True)
    least = {}
    for name in ("floor", "share", "minimum"):
        agent = bandit(**PLAIN | SWITCHES[name])
        lived(agent, 2)
        least[name] = float((agent.probabilities(seen) * count)[offered].min())
    assert least["floor"] >= 0.3 - 1e-12 and least["share"] > 0.3 and least["minimum"] >= 0.5 - 1e-12
    even = bandit(explore=SquareCB(gamma=1e6, effective_actions=2.0))
    torch.testing.assert_close(
        even.probabilities(seen), offered.double() / count, rtol=0, atol=1e-15
    )  # before the first fit
    lived(even, 1)
    own = even.window["x"], even.window["offered"]
    mean = effective_actions(even.probabilities({"x": torch.tensor(own[0]), "offered": torch.tensor(own[1])})).mean()
    assert float(mean) == pytest.approx(2.0, abs=1e-6)
    mixed = bandit(mix=0.5, oracle=Logistic(), clipped=False)
    lived(mixed, 3)
    assert len(mixed.blend.models) == 5  # .5^5 is below a twentieth
    values = [model.scores(x.double().numpy()) for model in mixed.blend.models[:3]]
    slow = (values[0] + 0.5 * values[1] + 0.25 * values[2]) / 1.75
    numpy.testing.assert_allclose(mixed.scores(x).T.numpy(), slow, atol=1e-12)


def test_the_gate_holds_back_what_is_no_better():
    """Rewards that are the same for all actions: no model can be better for certain."""
    agent = bandit(gate=True, explore=SquareCB(gamma=100.0), oracle=Logistic())
    lived(agent, 1)
    assert agent.tally["held_back"] == 0
    scores = agent.scores(world()[0])
    x, offered, _ = world(200, 5)
    made = agent.decide({"x": x, "offered": offered}, range(200, 400))
    agent.learn(x, offered, made.action, torch.ones(200), made.propensity, [str(row) for row in range(200, 400)])
    metrics = agent.refit()
    assert metrics == {"deployed": 0.0} and agent.tally["held_back"] == 1 and agent.generation == 2
    assert torch.equal(agent.scores(world()[0]), scores)


def test_what_needs_propensities_refuses_rows_without():
    for named in ({"gate": True}, {"weights": "ips"}, {"train_on": "exploration_only", "share": 0.1}):
        with pytest.raises(InputError, match="need a propensity, got None"):
            bandit(**named).update(Feedback("0", torch.zeros(1, 4), 0, None, 1.0))


def test_an_action_that_is_never_on_offer_is_told():
    agent = bandit()
    x, offered, _ = world(50)
    offered = offered.clone()
    offered[:, 2] = False
    agent.learn(x, offered, torch.zeros(50, dtype=torch.int64), torch.ones(50))
    assert agent.refit()["never_offered"] == 1


# ---- state and refusals ----------------------------------------------------------------------------------------------------


KINDS = {
    "periods": {"period": 7},
    "mixed": {"period": 7, "mix": 0.5, "weights": "clipped"},
    "cover": {"explore": Cover(2), "period": 11},
    "exploration": {"explore": LinTS(), "share": 0.2, "train_on": "exploration_only", "period": 9},
    "guarded": {"period": 9, "calibrate": "platt", "gate": True, "oracle": Logistic()},
    "network": {"period": 9, "oracle": Network(hidden=(4,), epochs=1)},
    "forgetful": {"memory": 0, "explore": RegCB()},
    "even": {"period": 9, "explore": SquareCB(effective_actions=2.0)},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_keeps_the_contract(name):
    assert len(check_agent(lambda seed: ContextualBandit(3, seed=seed, **KINDS[name]), actions=3)) == 9


@pytest.mark.slow
def test_trees_keep_the_contract():
    named = {"period": 9, "oracle": Boosted(rounds=2, least=2), "calibrate": "isotonic"}
    assert len(check_agent(lambda seed: ContextualBandit(3, seed=seed, **named), actions=3)) == 9


def test_a_snapshot_goes_on(tmp_path):
    agent = bandit(oracle=Boosted(rounds=3, least=2), explore=Bag(2))
    lived(agent, 1)
    save_snapshot(tmp_path, 1, agent.state_dict())
    other = bandit(oracle=Boosted(rounds=3, least=2), explore=Bag(2))
    other.load_state_dict(load_snapshot(tmp_path / "000000001.json")[1])
    told = feedbacks(agent, 230, 4)[200:]
    for one in (agent, other):
        for feedback in told:
            one.update(feedback)
        one.refit()
    assert same(agent.state_dict(), other.state_dict())


def test_call_strings_are_read_back():
    for text in (
        "bandit(actions=7, oracle=logistic(C=1.0), explore=squarecb(gamma=1000.0), memory=1)",
        "bandit(actions=3, explore=epsilon_greedy(), masked=True)",
        "bandit(oracle=boosted(), explore=uniformly(), share=0.1)",
    ):
        assert repr(build_agent(text, 0)) == text
    assert repr(build_agent("bandit(actions=3, oracle=linear(), explore=squarecb(gamma=200))", 0)) == (
        "bandit(actions=3, explore=squarecb(gamma=200))"
    )


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"actions": 0}, "bandit: actions must be an int >= 1, got 0"),
        ({"memory": -1}, "memory must be an int >= 0"),
        ({"floor": 2.0}, "floor must be a number between 0 and 1"),
        ({"weights": "snips"}, "weights must be one of none, ips, clipped, got 'snips'"),
        ({"train_on": "some"}, "train_on must be one of all, exploration_only"),
        ({"calibrate": "beta"}, "calibrate must be one of none, platt, isotonic"),
        ({"mix": 1.0}, "mix must be a number between 0 and 0.9"),
        ({"oracle": 3}, r"oracle must be one such as ridge\(\)"),
        ({"explore": Ridge()}, r"explore must be one such as squarecb"),
        (
            {"explore": LinUCB(), "oracle": Boosted()},
            r"linucb\(\) asks how uncertain scores are, which boosted\(\) does not know",
        ),
        (
            {"oracle": Logistic(), "memory": 0},
            r"with memory=0 nothing is ever fitted, and logistic\(\) learns by fits alone",
        ),
        ({"train_on": "exploration_only", "explore": Greedy()}, "exploration_only needs a uniform part"),
    ],
    ids=str,
)
def test_arguments(named, message):
    with pytest.raises(ArgumentError, match=message):
        bandit(**named)


def test_bad_rows_are_refused_with_nothing_changed():
    agent = bandit(explore=FastCB(), oracle=Logistic())
    lived(agent, 1)
    before = agent.state_dict()
    x, offered, _ = world(3)
    good = torch.tensor([0, 0, 0]), torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.5, 0.5, 0.5])
    for place, wrong, message in (
        (0, torch.tensor([0, 0, 3]), r"row 2: action must be an int in 0\.\.2, got 3"),
        (1, torch.tensor([0.0, 1.5, 1.0]), r"row 1: reward must lie in \[0, 1\]"),
        (2, torch.tensor([0.5, 0.5, 0.0]), "row 2: propensity must be above 0"),
        (1, torch.tensor([0.0, 1.0]), "3 rows need as many actions, rewards"),
    ):
        told = [*good[:place], wrong, *good[place + 1 :]]
        with pytest.raises(InputError, match=message):
            agent.learn(x, offered, *told)
    with pytest.raises(InputError, match="x has 2 columns; it learned from 4"):
        agent.learn(x[:, :2], offered, *good)
    with pytest.raises(InputError, match="act takes one row, got 3"):
        agent.act(x, 0)
    with pytest.raises(InputError, match="each of the 3 rows needs a key, got 2"):
        agent.decide(x, [0, 1])
    with pytest.raises(InputError, match="the id of a decision must be text, got 7"):
        agent.update(Feedback(7, x[:1], 0, 0.5, 1.0))
    assert same(before, agent.state_dict())


@pytest.mark.parametrize(
    "explore", [EpsilonGreedy(0.2), Falcon(c=10.0), LinTS(0.1), Cover(3), RegCB(optimistic=False)], ids=repr
)
def test_every_explorer_learns_in_the_agent(explore):
    """The last of four periods earns more than chance by four standard errors at least."""
    _, offered, rewards = world(200, 3)
    chance = (rewards * offered).sum(1).div(offered.sum(1))
    assert lived(bandit(explore=explore), 4)[3] > float(chance.mean()) + 4 * (0.25 / 200) ** 0.5 * 0.5


@pytest.mark.slow
def test_a_hundred_thousand_rows_of_seven_actions_are_chosen_in_a_twentieth_of_a_second():
    """From scores to choices: 9 ms where nothing else runs. The least of seven times, of the processor."""
    random = numpy.random.default_rng(0)
    scores, offered = random.random((7, 100_000)), random.random((7, 100_000)) < 0.7
    offered[0] = True
    explore, keys, times = SquareCB(), numpy.arange(100_000), []
    for _ in range(7):
        started = time.process_time()
        pick(explore.distribution(scores, offered, Progress()), uniforms(1, keys))
        times.append(time.process_time() - started)
    assert min(times) <= 0.05


@pytest.mark.parametrize("explore", [Greedy(), EpsilonGreedy(0.1)])
def test_until_something_is_learned_choices_are_even(explore):
    """Else a log of the first period would tell of one action alone, and greedy choices would never leave it."""
    offered = torch.tensor([[True, True, False]])
    seen = {"x": torch.zeros(1, 2), "offered": offered}
    agent = ContextualBandit(actions=3, oracle=Logistic(), explore=explore, memory=1, period=0)
    even = [[0.5, 0.5, 0.0]]
    assert agent.probabilities(seen).tolist() == even
    agent.learn(torch.zeros(1, 2), offered, torch.tensor([1]), torch.tensor([1.0]), torch.tensor([0.5]))
    assert agent.probabilities(seen).tolist() == even  # told, but not fitted
    agent.refit()
    assert agent.probabilities(seen)[0, 1] > 0.9
    online = ContextualBandit(actions=3, explore=explore, memory=0, period=0)
    assert online.probabilities(seen).tolist() == even
    online.learn(torch.zeros(1, 2), offered, torch.tensor([1]), torch.tensor([1.0]), torch.tensor([0.5]))
    assert online.probabilities(seen)[0, 1] > 0.9
