"""Shortest-path routing against closed forms, a slow walk, conservation of flow on random networks, and Abilene's figures."""

import heapq
import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.data.demands import abilene
from everlearn.data.folders import roots
from everlearn.data.network import Network, both_ways, euro28_network, nsfnet_network
from everlearn.data.routing import Routes, route

DIAMOND = Network("diamond", tuple("abcd"), both_ways([(0, 1), (0, 2), (1, 3), (2, 3)]), (1.0,) * 8, (10.0,) * 8)


def need(folder):
    if not any((root / folder).is_dir() for root in roots()):
        pytest.skip(f"EVERLEARN_DATA has no {folder}")


def networks(weights):
    """Random directed networks of 2 to 7 nodes, with ties where weights are few; not all are connected."""

    @st.composite
    def draw(pick):
        count = pick(st.integers(2, 7))
        every = [(source, target) for source in range(count) for target in range(count) if source != target]
        links = pick(st.lists(st.sampled_from(every), min_size=1, max_size=len(every), unique=True))
        weight = pick(st.lists(weights, min_size=len(links), max_size=len(links)))
        return Network("drawn", tuple(map(str, range(count))), tuple(links), tuple(weight), (1.0,) * len(links))

    return draw()


def costs_to(network, target, down):
    """Dijkstra by hand: {node: cost of its cheapest path to the target}."""
    cost, queue = {}, [(0.0, target)]
    while queue:
        so_far, node = heapq.heappop(queue)
        if node in cost:
            continue
        cost[node] = so_far
        for index, (tail, head) in enumerate(network.links):
            if head == node and index not in down and tail not in cost:
                heapq.heappush(queue, (so_far + network.weight[index], tail))
    return cost


def slow_route(network, ecmp, down=()):
    """The obvious twin: carries one unit of each demand from node to node until it arrives."""
    count = len(network.nodes)
    fraction = torch.zeros(len(network.links), count, count, dtype=torch.float64)
    reached = torch.zeros(count, count, dtype=torch.bool)
    for target in range(count):
        cost = costs_to(network, target, down)
        for source in cost:
            reached[source, target] = True
            at = {source: 1.0}
            while set(at) - {target}:
                node = max(set(at) - {target}, key=cost.get)
                carried = at.pop(node)
                hops = [
                    (head, index)
                    for index, (tail, head) in enumerate(network.links)
                    if tail == node and index not in down and head in cost
                    if cost[head] < cost[node] and math.isclose(network.weight[index] + cost[head], cost[node], rel_tol=1e-9)
                ]
                for head, index in sorted(hops) if ecmp else [min(hops)]:
                    share = carried / len(hops) if ecmp else carried
                    fraction[index, source, target] += share
                    at[head] = at.get(head, 0.0) + share
    return fraction, reached


def balance(network, fraction):
    """(node, source, target): what leaves a node less what comes in."""
    found = torch.zeros(len(network.nodes), *fraction.shape[1:], dtype=torch.float64)
    for index, (source, target) in enumerate(network.links):
        found[source] += fraction[index]
        found[target] -= fraction[index]
    return found


def expected_balance(reached):
    """+1 at the source and -1 at the target of every demand that has a path, 0 at all other nodes."""
    unit = torch.eye(len(reached), dtype=torch.float64)
    return (unit[:, :, None] - unit[:, None, :]) * reached


def test_single_path_takes_the_smallest_node_at_a_tie_and_ecmp_divides():
    """Two ways of two hops between opposite corners: by node 1 alone, or half by each."""
    single, divided = route(DIAMOND), route(DIAMOND, ecmp=True)
    names = dict(zip(DIAMOND.link_names, range(8), strict=True))
    by_b, by_c = [names["a>b"], names["b>d"]], [names["a>c"], names["c>d"]]
    assert single.fraction[by_b, 0, 3].tolist() == [1.0, 1.0] and single.fraction[by_c, 0, 3].tolist() == [0.0, 0.0]
    assert divided.fraction[by_b + by_c, 0, 3].tolist() == [0.5] * 4
    assert divided.fraction[:, 0, 1].tolist() == single.fraction[:, 0, 1].tolist()  # a neighbour has no tie


def test_shares_multiply_along_the_way():
    """a divides by 2, then b divides by 3: links behind b carry a sixth."""
    pairs = [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 3), (3, 6), (4, 6), (5, 6)]
    network = Network("fans", tuple("abcdefg"), tuple(pairs), (1.0,) * 9, (1.0,) * 9)
    shares = dict(zip(network.link_names, route(network, ecmp=True).fraction[:, 0, 6].tolist(), strict=True))
    assert shares["a>b"] == shares["a>c"] == 0.5
    assert shares["b>e"] == shares["b>f"] == shares["e>g"] == pytest.approx(1 / 6)
    assert shares["d>g"] == pytest.approx(1 / 6 + 1 / 2)


def test_loads_are_worked_out_by_hand():
    """On a line a-b-c the middle links carry the demands that pass them; the diagonal loads nothing."""
    line = Network("line", tuple("abc"), both_ways([(0, 1), (1, 2)]), (1.0,) * 4, (1.0,) * 4)
    demands = torch.tensor([[100.0, 1.0, 2.0], [4.0, 100.0, 8.0], [16.0, 32.0, 100.0]], dtype=torch.float64)
    assert route(line).loads(demands).tolist() == [3.0, 20.0, 10.0, 48.0]  # a>b: 1+2, b>a: 4+16, b>c: 2+8, c>b: 16+32
    cut = route(line, down={2})  # b>c: a>c and b>c are lost
    assert cut.loads(demands).tolist() == [1.0, 20.0, 0.0, 48.0]
    assert float(cut.lost(demands)) == 10.0 and float(route(line).lost(demands)) == 0.0
    assert cut.over({0}).nonzero().tolist() == [[0, 1]]
    less = cut.without(cut.over({0}))
    assert less.lost(demands) == 11.0 and less.loads(demands).tolist() == [0.0, 20.0, 0.0, 48.0]


@settings(max_examples=60, deadline=None)
@given(network=networks(st.sampled_from([1.0, 2.0, 3.0])), ecmp=st.booleans())
def test_flow_is_conserved(network, ecmp):
    found = route(network, ecmp=ecmp)
    assert torch.allclose(balance(network, found.fraction), expected_balance(found.reached), atol=1e-12)
    assert found.fraction.min() >= 0 and found.fraction.max() <= 1 + 1e-12
    assert not found.fraction.diagonal(dim1=1, dim2=2).any() and bool(found.reached.diagonal().all())


def test_conservation_finds_a_routing_that_loses_traffic():
    """A control: the same check on a routing with one hop taken out, and on one with a share that is too small."""
    found = route(DIAMOND)
    for factor in (0.0, 0.9):
        broken = found.fraction.clone()
        broken[0] *= factor
        assert not torch.allclose(balance(DIAMOND, broken), expected_balance(found.reached), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(network=networks(st.sampled_from([1.0, 1.5, 2.5, 0.1, 0.2, 0.3])), ecmp=st.booleans(), data=st.data())
def test_the_slow_twin_agrees(network, ecmp, data):
    """Weights such as 0.1 + 0.2 and 0.3 are ties in truth and differ in floating point."""
    down = data.draw(st.sets(st.integers(0, len(network.links) - 1)))
    found = route(network, ecmp=ecmp, down=down)
    fraction, reached = slow_route(network, ecmp, down)
    assert torch.equal(found.reached, reached)
    assert torch.allclose(found.fraction, fraction, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(network=networks(st.sampled_from([1.0, 2.0])), ecmp=st.booleans())
def test_links_carry_the_cost_of_the_shortest_path(network, ecmp):
    """sum_l weight_l R[l, s, d] is the distance, whatever is divided how; with weights 1 it is the number of hops."""
    found = route(network, ecmp=ecmp)
    carried = torch.einsum("l,lsd->sd", torch.tensor(network.weight, dtype=torch.float64), found.fraction)
    for target in range(len(network.nodes)):
        for source, cost in costs_to(network, target, ()).items():
            assert float(carried[source, target]) == pytest.approx(cost, abs=1e-9)


def test_without_ties_ecmp_equals_single_path():
    weight = tuple(float(2**power) for power in range(8))  # sums of different powers of two never tie
    network = Network("no ties", DIAMOND.nodes, DIAMOND.links, weight, DIAMOND.capacity)
    assert torch.equal(route(network).fraction, route(network, ecmp=True).fraction)
    assert not torch.equal(route(DIAMOND).fraction, route(DIAMOND, ecmp=True).fraction)


@pytest.mark.parametrize("ecmp", [False, True])
def test_a_link_that_costs_next_to_nothing_is_no_way_back(ecmp):
    twins = Network(
        "twins", tuple("abd"), both_ways([(0, 1), (0, 2), (1, 2)]), (1e-12, 1e-12, 1.0, 1.0, 1.0, 1.0), (1.0,) * 6
    )
    fraction = route(twins, ecmp=ecmp).fraction
    assert [fraction[twins.link(*link), twins.node(link[0]), 2].item() for link in ("ad", "bd")] == [1.0, 1.0]
    assert not fraction[twins.link("a", "b"), :, 2].any() and not fraction[twins.link("b", "a"), :, 2].any()


def test_only_so_many_states_are_kept(monkeypatch):
    monkeypatch.setattr("everlearn.data.routing.KEPT", 2)
    routes = Routes(DIAMOND)
    first = routes.without({0})
    for link in (1, 2, 3):
        routes.without({link})
    assert len(routes._made) == 2 and routes.without({3}) is routes.without({3})
    assert torch.equal(routes.without({0}).fraction, first.fraction)


def test_each_state_is_routed_once():
    routes = Routes(DIAMOND)
    assert routes.without({1, 0}) is routes.without([0, 1])
    assert torch.equal(routes.without({0}).fraction, route(DIAMOND, down={0}).fraction)
    assert torch.equal(Routes(DIAMOND, ecmp=True).without().fraction, route(DIAMOND, ecmp=True).fraction)
    assert not routes.without({0}).fraction[0].any()


def test_abilene_has_the_published_loads():
    """2.5608 links per bit, and the means of six links over the two weeks."""
    need("abilene_tm")
    data = abilene()
    loads = route(data.network).loads(data.demands)
    total = data.demands.sum((1, 2)) - data.demands.diagonal(dim1=1, dim2=2).sum(1)
    assert float(total[0]) == pytest.approx(2541.720, abs=5e-4)
    assert float(total.mean()) == pytest.approx(3021.504, abs=5e-4)
    assert float(loads.sum(1).mean()) == pytest.approx(7737.606, abs=5e-4)
    assert float(loads.sum() / total.sum()) == pytest.approx(2.5608, abs=5e-5)
    means = {
        ("ATLAng", "HSTNng"): 167.9,
        ("CHINng", "IPLSng"): 572.1,
        ("IPLSng", "CHINng"): 702.6,
        ("NYCMng", "CHINng"): 563.0,
        ("HSTNng", "KSCYng"): 46.5,
        ("WASHng", "NYCMng"): 470.5,
    }
    for ends, mean in means.items():
        assert float(loads[:, data.network.link(*ends)].mean()) == pytest.approx(mean, abs=0.05)
    fraction, reached = slow_route(data.network, ecmp=False)
    assert torch.equal(route(data.network).fraction, fraction) and bool(reached.all())


@pytest.mark.parametrize("ecmp", [False, True])
def test_public_topologies_conserve_flow_and_are_routed_in_no_time(ecmp):
    need("network_topologies")
    for network in (euro28_network(), nsfnet_network()):
        route(network, ecmp=ecmp)
        seconds = []
        for _ in range(3):
            started = time.process_time()
            found = route(network, ecmp=ecmp)
            seconds.append(time.process_time() - started)
        assert bool(found.reached.all())
        assert torch.allclose(balance(network, found.fraction), expected_balance(found.reached), atol=1e-12)
        assert min(seconds) < 0.05
