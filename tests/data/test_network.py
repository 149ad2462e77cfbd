"""Networks: what is refused, great-circle distances by hand, and the public topologies."""

import doctest
import importlib
import math

import numpy
import pytest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data import network as module
from everlearn.data.folders import roots
from everlearn.data.network import (
    EARTH_KM,
    Network,
    abilene_network,
    both_ways,
    euro28_network,
    great_circle,
    network_file,
    nsfnet_network,
)

TRIANGLE = ("triangle", ("a", "b", "c"), ((0, 1), (1, 2), (2, 0)), (1.0, 1.0, 3.0), (100.0,) * 3)


def need(folder):
    if not any((root / folder).is_dir() for root in roots()):
        pytest.skip(f"EVERLEARN_DATA has no {folder}")


@pytest.mark.parametrize("name", ["network", "routing", "demands", "sndlib", "sndlib_files", "link_loads", "link_forecast"])
def test_examples_of_the_doc_strings_hold(name):
    found = doctest.testmod(importlib.import_module(f"everlearn.data.{name}"))
    assert found.failed == 0
    assert found.attempted or name in ("sndlib", "sndlib_files", "link_forecast")


def test_nodes_and_links_are_found_by_name_or_number():
    network = Network(*TRIANGLE)
    assert network.node("b") == network.node(1) == 1
    assert network.link("c", "a") == network.link(2, 0) == network.link("c", 0) == 2
    assert network.links_of("b") == (0, 1)
    assert repr(network) == "Network(triangle: 3 nodes, 3 directed links)"


def test_what_is_not_there_is_refused_with_the_nearest_name():
    network = Network(*TRIANGLE)
    with pytest.raises(ArgumentError, match="triangle: unknown node 'd'"):
        network.node("d")
    with pytest.raises(ArgumentError, match=r"triangle: unknown link 'a>c'; did you mean"):
        network.link("a", "c")
    for wrong in (3, -1, True, 1.0, None):
        with pytest.raises(ArgumentError, match=r"a node is a name or a number 0\.\.2"):
            network.node(wrong)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, ("a", "b", "a"), "the node 'a' stands twice"),
        (2, (), "needs at least one link"),
        (2, ((0, 1), (1, 3), (2, 0)), r"the link \(1, 3\) names a node outside 0\.\.2. Nodes are numbered from 0"),
        (2, ((0, 1), (1, -1), (2, 0)), r"names a node outside 0\.\.2"),
        (2, ((0, 1), (1, 1), (2, 0)), r"the link \(1, 1\) joins a node to itself"),
        (2, ((0, 1), (0, 1), (2, 0)), r"two links \(0, 1\)"),
        (3, (1.0, 1.0), "3 links need as many weights and capacities, got 2 and 3"),
        (3, (1.0, 0.0, 1.0), "weight 0.0; a finite number > 0"),
        (3, (1.0, math.inf, 1.0), "weight inf"),
        (3, (1.0, math.nan, 1.0), "weight nan"),
        (4, (1.0, 0.0, 1.0), "capacity 0.0; a number of Mbit/s > 0"),
        (4, (1.0, math.nan, 1.0), "capacity nan"),
        (5, ((0.0, 0.0),), "3 nodes need as many coordinates, got 1"),
    ],
)
def test_what_is_no_network_is_refused(place, value, message):
    fields = [*TRIANGLE, None]
    fields[place] = value
    with pytest.raises(ArgumentError, match=message):
        Network(*fields)


def test_great_circle_distances():
    """A quarter of the equator, a sixth of a meridian, from pole to pole; and Berlin to Paris (878 km in atlases)."""
    places = [(0, 0), (90, 0), (0, 60), (0, 90), (17, -90)]
    found = great_circle(numpy.array(places, dtype=float))
    quarter = EARTH_KM * math.pi / 2
    assert found[0, 1] == pytest.approx(quarter, rel=1e-12)
    assert found[0, 2] == pytest.approx(quarter * 2 / 3, rel=1e-12)
    assert found[3, 4] == pytest.approx(2 * quarter, rel=1e-7)  # near to the antipode the sine is flat
    assert numpy.array_equal(found, found.T) and not found.diagonal().any()
    assert great_circle(numpy.array([[13.405, 52.52], [2.3522, 48.8566]]))[0, 1] == pytest.approx(878, abs=1)


def test_weights_by_hops_and_by_length():
    network = Network(*TRIANGLE, lonlat=((0.0, 0.0), (90.0, 0.0), (90.0, 0.0)))
    assert network.weighted("hops").weight == (1.0, 1.0, 1.0)
    quarter = EARTH_KM * math.pi / 2
    assert network.weighted("km").weight == pytest.approx((quarter, 0.001, quarter))  # two nodes in one place: a metre
    with pytest.raises(ArgumentError, match="weights must be 'hops' or 'km', got 'miles'"):
        network.weighted("miles")
    with pytest.raises(DataError, match="no coordinates"):
        Network(*TRIANGLE).weighted("km")


def test_cables_go_both_ways():
    assert both_ways([(0, 1), (2, 1)]) == ((0, 1), (1, 0), (2, 1), (1, 2))


def test_abilene_is_as_published():
    need("abilene_tm")
    network = abilene_network()
    assert (len(network.nodes), len(network.links)) == (12, 30)
    assert network.weight[network.link("ATLAng", "HSTNng")] == 1176
    assert network.capacity[network.link("IPLSng", "ATLAng")] == 2480
    assert all((target, source) in network.links for source, target in network.links)
    assert network.lonlat[network.node("NYCMng")] == pytest.approx((-73.97, 40.78), abs=0.1)


def test_euro28_and_nsfnet_are_as_published():
    need("network_topologies")
    network = euro28_network()
    assert (len(network.nodes), len(network.links)) == (28, 82)
    assert network.lonlat[0] == pytest.approx((4 + 51 / 60, 52 + 20 / 60))  # written 4.51, 52.2: degrees and minutes
    assert network.weight[network.link("Amsterdam", "Brussels")] == pytest.approx(173, abs=5)
    assert network.weight[network.link("Brussels", "Amsterdam")] == network.weight[network.link("Amsterdam", "Brussels")]
    assert set(network.capacity) == {math.inf}
    assert (len(nsfnet_network().nodes), len(nsfnet_network().links)) == (14, 42)


def test_a_missing_file_says_where_was_looked(monkeypatch, tmp_path):
    monkeypatch.setenv("EVERLEARN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"abilene_tm/abilene_links.csv: not found in EVERLEARN_DATA"):
        abilene_network()
    (tmp_path / "abilene_tm").mkdir()
    path = tmp_path / "abilene_tm" / "abilene_links.csv"
    path.write_text("src,dst,src_name,dst_name,igp_weight\n")
    assert network_file("abilene_tm", "abilene_links.csv") == path
    with pytest.raises(DataError, match=r"abilene_links.csv:1: the column 'capacity_mbps' is missing; there are src, dst"):
        abilene_network()
    path.write_text("src,dst,src_name,dst_name,igp_weight,capacity_mbps\n0,1,a,b,1,10\n1,0,b,a,one,10\n")
    with pytest.raises(DataError, match=r"abilene_links.csv:3: a finite number is expected, got 'one'"):
        abilene_network()


def test_degrees_and_minutes():
    assert module._degrees(52.30) == pytest.approx(52.5)
    assert module._degrees(-6.15) == pytest.approx(-6.25)
