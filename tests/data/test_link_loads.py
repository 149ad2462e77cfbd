"""Failures and repairs: hand-worked loads, the spec's figures on Abilene, delays, partitions, and a slow twin."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.core.spec import build, parse
from everlearn.data.demands import abilene
from everlearn.data.folders import roots
from everlearn.data.link_loads import (
    CHANGES,
    LinkDown,
    LinkUp,
    NodeDown,
    NodeUp,
    drift_class,
    link_loads,
    random_failures,
    ratio,
)
from everlearn.data.network import Network, both_ways
from everlearn.data.routing import route

# a square a-b-d, a-c-d with a tail d-e: the tail is a bridge
SQUARE = Network("square", tuple("abcde"), both_ways([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]), (1.0,) * 10, (4.0,) * 10)


def ones(steps):
    return torch.ones(steps, 5, 5, dtype=torch.float64)


def of(loads, name):
    return loads.loads[:, SQUARE.link_names.index(name)].tolist()


@pytest.fixture(scope="module")
def traffic():
    if not any((root / "abilene_tm").is_dir() for root in roots()):
        pytest.skip("EVERLEARN_DATA has no abilene_tm")
    return abilene()


def test_without_failures_loads_are_routing_times_demand():
    demands = torch.rand(6, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ecmp in (False, True):
        found = link_loads(SQUARE, demands, ecmp=ecmp)
        expected = torch.einsum("lsd,tsd->tl", route(SQUARE, ecmp=ecmp).fraction, demands)
        assert torch.allclose(found.loads, expected, atol=1e-12) and not found.lost.any() and found.changes == ()


def test_a_failure_moves_traffic_and_a_repair_brings_it_back():
    """Before, a>b carries a to b, d, e and c to b (of two ways from c, by a), and a>c carries a to c and b to c. With a-b down, a sends
    all four of its demands over c, and b reaches c by d. Nothing is lost."""
    found = link_loads(SQUARE, ones(6), [LinkDown(2, ("a", "b")), LinkUp(4, (0, 1))])
    assert of(found, "a>b") == [4.0, 4.0, 0.0, 0.0, 4.0, 4.0]
    assert of(found, "a>c") == [2.0, 2.0, 4.0, 4.0, 2.0, 2.0]
    assert not found.lost.any() and found.changes == (2, 4)
    assert [span.state for span in found.spans] == [0, 1, 0]
    assert found.drift_ratio(2, 2)[SQUARE.link("a", "c")] == 2.0 and found.drift_ratio(2, 2)[SQUARE.link("a", "b")] == 0.0
    assert found.effect(2, 4)[SQUARE.link("a", "c")] == 2.0 and found.effect(0, 2).tolist() == [1.0] * 10


def test_one_direction_alone_may_fail():
    found = link_loads(SQUARE, ones(2), [LinkDown(1, ("a", "b"), both=False)])
    assert of(found, "a>b")[1] == 0.0 and of(found, "b>a")[1] > 0.0


def test_down_and_up_at_once_is_no_change():
    found = link_loads(SQUARE, ones(4), [LinkDown(2, ("a", "b")), LinkUp(2, ("a", "b"))])
    assert torch.equal(found.loads, link_loads(SQUARE, ones(4)).loads) and found.changes == ()
    other = link_loads(SQUARE, ones(4), [LinkUp(2, ("a", "b")), LinkDown(2, ("a", "b"))])
    assert other.changes == (2,)  # the order in the list decides
    bridge = [LinkDown(2, ("d", "e")), LinkUp(2, ("d", "e"))]
    assert link_loads(SQUARE, ones(4), bridge, on_partition="error").changes == ()


def test_a_partition_is_counted_and_can_be_refused():
    """The tail d-e is the only way to e: 8 ordered pairs lose their path."""
    changes = [LinkDown(1, ("d", "e"))]
    assert link_loads(SQUARE, ones(2), changes).lost.tolist() == [0.0, 8.0]
    with pytest.raises(ArgumentError, match="from matrix 1 on, 8 pairs of nodes have no path, a > e"):
        link_loads(SQUARE, ones(2), changes, on_partition="error")
    link_loads(SQUARE, ones(2), [LinkDown(1, ("a", "b"))], on_partition="error")


def test_a_failed_node_loses_its_own_demands_and_others_go_round_it():
    """b down: the 8 demands from and to b are lost; the link of a to c that failed by itself stays down when b is back."""
    found = link_loads(SQUARE, ones(3), [NodeDown(1, "b"), NodeUp(2, "b")], on_partition="error")
    assert found.lost.tolist() == [0.0, 8.0, 0.0] and of(found, "a>c") == [2.0, 3.0, 2.0]
    both = link_loads(SQUARE, ones(4), [NodeDown(1, "b"), LinkDown(2, ("a", "b")), NodeUp(3, "b")])
    assert of(both, "a>b")[3] == 0.0 and of(both, "b>d")[3] > 0.0


def test_traffic_is_lost_until_the_routing_has_learned_of_a_failure():
    """For two matrices the eight demands over a-b are lost (a to b, d, e, c to b; b to a, c, d to a, e to a), then they go round; the
    repair is used two matrices late, and nothing is lost then."""
    found = link_loads(SQUARE, ones(10), [LinkDown(2, ("a", "b")), LinkUp(6, ("a", "b"))], converge_delay=2)
    assert found.lost.tolist() == [0.0, 0.0, 8.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert of(found, "a>b") == [4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 4.0]
    assert of(found, "a>c") == [2.0, 2.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0, 2.0, 2.0]
    assert found.changes == (2, 4, 8)


def test_a_short_outage_within_the_delay_only_loses():
    found = link_loads(SQUARE, ones(8), [LinkDown(2, ("a", "b")), LinkUp(3, ("a", "b"))], converge_delay=3)
    assert (found.lost > 0).nonzero().flatten().tolist() == [2]
    assert of(found, "a>b")[2:4] == [0.0, 4.0]


@st.composite
def histories(draw):
    kinds = st.sampled_from([LinkDown, LinkUp, NodeDown, NodeUp])
    changes = []
    for kind in draw(st.lists(kinds, max_size=8)):
        at = draw(st.integers(0, 12))
        changes.append(
            kind(at, draw(st.sampled_from(SQUARE.links)) if kind in (LinkDown, LinkUp) else draw(st.integers(0, 4)))
        )
    return changes


def slow_loads(demands, changes, ecmp, delay):
    """One matrix at a time: replays the list up to now and up to `delay` ago, and routes anew."""

    def down(now):
        links, nodes = set(), set()
        for change in sorted(changes, key=lambda item: item.time):
            if change.time <= now:
                if isinstance(change, (NodeDown, NodeUp)):
                    (nodes.add if isinstance(change, NodeDown) else nodes.discard)(change.node)
                else:
                    pair = {SQUARE.link(*change.link), SQUARE.link(*change.link[::-1])}
                    links = links | pair if isinstance(change, LinkDown) else links - pair
        return {i for i, ends in enumerate(SQUARE.links) if i in links or set(ends) & nodes}

    loads, lost = torch.zeros(len(demands), 10, dtype=torch.float64), torch.zeros(len(demands), dtype=torch.float64)
    for now, matrix in enumerate(demands):
        routing = route(SQUARE, ecmp=ecmp, down=down(now - delay))
        dead = down(now)
        for s in range(5):
            for d in set(range(5)) - {s}:
                used = routing.fraction[:, s, d]
                if not routing.reached[s, d] or any(used[link] > 0 for link in dead):
                    lost[now] += matrix[s, d]
                else:
                    loads[now] += used * matrix[s, d]
    return loads, lost


@settings(max_examples=15, deadline=None)
@given(changes=histories(), ecmp=st.booleans(), delay=st.integers(0, 3))
def test_the_slow_twin_agrees(changes, ecmp, delay):
    demands = torch.rand(14, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = link_loads(SQUARE, demands, changes, ecmp=ecmp, converge_delay=delay)
    loads, lost = slow_loads(demands, changes, ecmp, delay)
    assert torch.allclose(found.loads, loads, atol=1e-12) and torch.allclose(found.lost, lost, atol=1e-12)
    assert [found.spans[0].start, found.spans[-1].end] == [0, 14]


def test_utilisation_and_overload_by_hand():
    """Capacity 4: a>c carries 4 after the failure (full, no overload), d>e carries 4, c>d 6."""
    found = link_loads(SQUARE, ones(2), [LinkDown(1, ("a", "b"))])
    assert found.utilisation[1, SQUARE.link("a", "c")] == 1.0
    assert found.overloaded.nonzero().tolist() == [[t, i] for t in (0, 1) for i in range(10) if found.loads[t, i] > 4]
    assert found.overloaded[1, SQUARE.link("c", "d")] and not found.overloaded[1, SQUARE.link("a", "c")]


def test_ratios_and_their_classes():
    after, before = torch.tensor([0.0, 1.0, 3.0, 0.0]), torch.tensor([0.0, 0.0, 2.0, 5.0])
    assert ratio(after, before).tolist() == [1.0, float("inf"), 1.5, 0.0]
    edges = torch.tensor([2.0, 0.5, 1.99, 1.1, 1.09, 1.0], dtype=torch.float64)
    assert drift_class(edges) == ["drastic", "drastic", "moderate", "moderate", "none", "none"]
    assert drift_class(ratio(after, before)) == ["none", "drastic", "moderate", "drastic"]


def test_abilene_failures_have_the_published_effect(traffic):
    """Week 2 with the failure against week 2 without it."""
    cases = {
        ("DNVRng", "KSCYng"): {("HSTNng", "KSCYng"): 9.63, ("LOSAng", "HSTNng"): 5.06, ("STTLng", "DNVRng"): 0.06},
        ("CHINng", "IPLSng"): {("ATLAng", "IPLSng"): 7.91},
        ("CHINng", "NYCMng"): {("ATLAng", "IPLSng"): 8.84},
        ("ATLAng", "WASHng"): {("IPLSng", "ATLAng"): 3.43},
    }
    for failed, expected in cases.items():
        effect = link_loads(traffic.network, traffic.demands, [LinkDown(2016, failed)]).effect(2016)
        for ends, size in expected.items():
            assert float(effect[traffic.network.link(*ends)]) == pytest.approx(size, abs=0.005)
    bridge = link_loads(traffic.network, traffic.demands[:1], [LinkDown(0, ("ATLAM5", "ATLAng"))])
    assert int((~bridge.spans[0].routing.reached).sum()) == 22 and float(bridge.lost) > 0 and bridge.spans[0].state == 1


def test_two_weeks_of_abilene_take_less_than_a_second(traffic):
    """With 47 random changes; the loads of a failure's day before and after differ as the prototype's table says (x 11)."""
    changes = random_failures(traffic.network, 4032, between=2000, repair=100)
    started = time.process_time()
    found = link_loads(traffic.network, traffic.demands, changes)
    assert time.process_time() - started < 1.0 and len(found.spans) > 20
    one = link_loads(traffic.network, traffic.demands, [LinkDown(2016 + 144, ("DNVRng", "KSCYng"))])
    ratios = one.drift_ratio(2160, 288)
    assert float(ratios[traffic.network.link("HSTNng", "KSCYng")]) == pytest.approx(11.4, rel=0.05)


def test_random_failures_keep_the_promised_shares():
    """100 mean up, 25 mean down: a cable is down for p = 1/5 of the time. Over n cycles the share of alternating exponential times has
    deviation p (1 - p) sqrt(2 / n), 0.0051 for the 2,000 cycles of five cables over 50,000 matrices; four of them are allowed."""
    steps = 50_000
    changes = random_failures(SQUARE, steps, between=100.0, repair=25.0, seed=2)
    assert [c.time for c in changes] == sorted(c.time for c in changes)
    open_at, down, waits = {}, 0, []
    for change in changes:
        if isinstance(change, LinkDown):
            assert change.link not in open_at
            open_at[change.link] = change.time
        else:
            waits.append(change.time - open_at.pop(change.link))
            down += waits[-1]
    assert down / (5 * steps) == pytest.approx(0.2, abs=4 * 0.0051)
    assert changes == random_failures(SQUARE, steps, between=100.0, repair=25.0, seed=2)
    assert changes != random_failures(SQUARE, steps, between=100.0, repair=25.0, seed=3)
    nodes = random_failures(SQUARE, 1000, between=100.0, repair=25.0, what="nodes")
    assert nodes and all(isinstance(change, (NodeDown, NodeUp)) for change in nodes)


def test_changes_are_typed_as_they_are_shown():
    for change in (LinkDown(3, ("a", "b")), LinkUp(4, (0, 1), both=False), NodeDown(5, "b"), NodeUp(6, 1)):
        assert build(parse(repr(change)), CHANGES) == change


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ([LinkDown(1, ("a", "d"))], {}, "unknown link 'a>d'"),
        ([LinkDown(1, ("a", "z"))], {}, "unknown node 'z'"),
        ([NodeDown(1, 9)], {}, r"a node is a name or a number 0\.\.4, got 9"),
        ([LinkDown(-1, ("a", "b"))], {}, "must be the number of a matrix, >= 0"),
        ([LinkDown(1.5, ("a", "b"))], {}, "must be the number of a matrix, >= 0"),
        ([LinkDown(1, "ab c")], {}, "must be a pair of nodes"),
        ([(1, "a", "b")], {}, "a change is one of link_down, link_up, node_down, node_up"),
        ([], {"converge_delay": -1}, "converge_delay must be an int >= 0"),
        ([], {"on_partition": "warn"}, "on_partition must be 'drop' or 'error'"),
    ],
)
def test_what_cannot_happen_is_refused(changes, options, message):
    with pytest.raises(ArgumentError, match=message):
        link_loads(SQUARE, ones(3), changes, **options)


def test_windows_that_do_not_fit_are_refused():
    found = link_loads(SQUARE, ones(6))
    for at in (1, 5, 2.0):
        with pytest.raises(ArgumentError, match="do not fit in 6; use a shorter window"):
            found.drift_ratio(at, 2)
    with pytest.raises(ArgumentError, match="there is no matrix in 6"):
        found.effect(6)
    for options in ({"between": 0}, {"repair": -1}, {"what": "cables"}):
        with pytest.raises(ArgumentError, match="random_failures: "):
            random_failures(SQUARE, 5, **{"between": 1.0, "repair": 1.0} | options)
