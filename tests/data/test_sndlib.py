"""SNDlib files, written by hand: both forms give the same, and what cannot be read names its line."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.network import great_circle
from everlearn.data.sndlib import read_demand_folder, read_demands, read_network
from everlearn.data.sndlib_files import read_contents

NATIVE = """?SNDlib native format; type: network; version: 1.0
# a comment
META (
  granularity = 5min
  time = 20040301-0005
  unit = MBITPERSEC
)
NODES (
  A ( 0.0 0.0 )
  B ( 90.0 0.0 )  # at the equator
  C-1 ( 0.0 60.0 )
)
LINKS (
  AB ( A B ) 40.00 0.00 2.50 0.00 ( 155.00 1.00 622.00 2.00 )
  BC ( B C-1 ) 0.00 0.00 1.00 0.00 ( 155.00 1.00 622.00 2.00 )
  CA ( C-1 A ) 0.00 0.00 3.00 0.00 ( )
)
DEMANDS (
  A_B ( A B ) 1 12.5 UNLIMITED
  B_A ( B A ) 2 3.0 UNLIMITED
)
ADMISSIBLE_PATHS (
)
"""
XML = """<?xml version="1.0" encoding="ISO-8859-1"?>
<network xmlns="http://sndlib.zib.de/network" version="1.0">
 <meta><granularity>5min</granularity><time>20040301-0005</time><unit>MBITPERSEC</unit></meta>
 <networkStructure>
  <nodes coordinatesType="geographical">
   <node id="A"><coordinates><x>0.0</x><y>0.0</y></coordinates></node>
   <node id="B"><coordinates><x>90.0</x><y>0.0</y></coordinates></node>
   <node id="C-1"><coordinates><x>0.0</x><y>60.0</y></coordinates></node>
  </nodes>
  <links>
   <link id="AB"><source>A</source><target>B</target>
    <preInstalledModule><capacity>40.0</capacity><cost>0.0</cost></preInstalledModule><routingCost>2.5</routingCost>
    <additionalModules><addModule><capacity>155.0</capacity><cost>1.0</cost></addModule>
     <addModule><capacity>622.0</capacity><cost>2.0</cost></addModule></additionalModules></link>
   <link id="BC"><source>B</source><target>C-1</target><routingCost>1.0</routingCost>
    <additionalModules><addModule><capacity>155.0</capacity><cost>1.0</cost></addModule>
     <addModule><capacity>622.0</capacity><cost>2.0</cost></addModule></additionalModules></link>
   <link id="CA"><source>C-1</source><target>A</target><routingCost>3.0</routingCost></link>
  </links>
 </networkStructure>
 <demands>
  <demand id="A_B"><source>A</source><target>B</target><demandValue>12.5</demandValue></demand>
  <demand id="B_A"><source>B</source><target>A</target><routingUnit>2</routingUnit><demandValue>3.0</demandValue></demand>
 </demands>
</network>
"""
FORMS = {"native": (NATIVE, "tiny.txt"), "xml": (XML, "tiny.xml")}


def write(folder, text, name="tiny.txt"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture(params=FORMS)
def file(request, tmp_path):
    return write(tmp_path, *FORMS[request.param])


def test_a_network_and_its_demands_are_read_in_either_form(file):
    network = read_network(file)
    assert network.name == "tiny" and network.nodes == ("A", "B", "C-1")
    assert network.links == ((0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2))
    assert network.weight == (1.0,) * 6
    assert network.capacity == (40.0, 40.0, 622.0, 622.0, math.inf, math.inf)  # installed, largest module, not known
    assert network.lonlat == ((0.0, 0.0), (90.0, 0.0), (0.0, 60.0))
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[0, 1], expected[1, 0] = 12.5, 6.0
    assert torch.equal(read_demands(file, network), expected)
    assert torch.equal(read_demands(file, network, unit=1000.0), 1000 * expected)


def test_weights_are_hops_lengths_or_costs_and_links_may_go_one_way(file):
    distance = great_circle([(0.0, 0.0), (90.0, 0.0), (0.0, 60.0)])
    assert read_network(file, weights="km").weight[:2] == pytest.approx([distance[0, 1]] * 2)
    one_way = read_network(file, weights="routing_cost", directed=True)
    assert one_way.weight == (2.5, 1.0, 3.0) and one_way.links == ((0, 1), (1, 2), (2, 0))
    with pytest.raises(ArgumentError, match="weights must be one of hops, km, routing_cost, got 'miles'"):
        read_network(file, weights="miles")


def test_both_forms_hold_the_same(tmp_path):
    first, second = (read_contents(write(tmp_path, *form)) for form in FORMS.values())
    assert first.meta == second.meta

    def without_lines(table):
        return {name: tuple(item)[:-1] for name, item in table.items()}

    for table in ("nodes", "links", "demands"):
        assert without_lines(getattr(first, table)) == without_lines(getattr(second, table))


def test_units_are_the_files_own_word(tmp_path):
    network = read_network(write(tmp_path, NATIVE))
    kilo = write(tmp_path, NATIVE.replace("MBITPERSEC", "KBITPERSEC"), "kilo.txt")
    assert float(read_demands(kilo, network)[0, 1]) == pytest.approx(0.0125)
    odd = write(tmp_path, NATIVE.replace("MBITPERSEC", "ERLANG"), "odd.txt")
    with pytest.raises(DataError, match="its unit is 'ERLANG'; known are"):
        read_demands(odd, network)
    assert float(read_demands(odd, network, unit=2.0)[0, 1]) == 25.0


def test_places_that_are_no_degrees_are_left_out(tmp_path):
    assert read_network(write(tmp_path, NATIVE.replace("90.0 0.0", "300.0 100.0"))).lonlat is None
    assert read_network(write(tmp_path, XML.replace('"geographical"', '"pixel"'), "pixel.xml")).lonlat is None


def test_a_folder_of_matrices_is_sorted_by_the_times_in_them(tmp_path):
    network = read_network(write(tmp_path, NATIVE))
    for name, at, value in (("c", "0000", 1.0), ("a", "0010", 3.0), ("b", "0005", 2.0)):
        text = NATIVE.replace("0301-0005", f"0301-{at}").replace("12.5", str(value))
        write(tmp_path, text, f"demandMatrix-{name}.txt")
    data = read_demand_folder(tmp_path, network)
    assert data.demands[:, 0, 1].tolist() == [1.0, 2.0, 3.0] and data.step_minutes == 5.0
    for name, at, minutes in (
        ("one", ["0000"], 5.0),
        ("hours", ["0000", "0100", "0200"], 60.0),
    ):  # of one file nothing is known
        (tmp_path / name).mkdir()
        for time in at:
            write(tmp_path / name, NATIVE.replace("0301-0005", f"0301-{time}"), f"demandMatrix-{time}.txt")
        assert read_demand_folder(tmp_path / name, network).step_minutes == minutes
    write(tmp_path, XML.replace("0301-0005", "0301-0020"), "demandMatrix-d.xml")
    with pytest.raises(DataError, match=r"d.xml: its time 20040301-0020 comes 10 min after the one before, and others 5"):
        read_demand_folder(tmp_path, network)
    write(tmp_path, XML, "demandMatrix-d.xml")
    with pytest.raises(DataError, match="another file has the time 20040301-0005 too"):
        read_demand_folder(tmp_path, network)
    write(tmp_path, XML.replace("20040301-0005", "noon"), "demandMatrix-d.xml")
    with pytest.raises(DataError, match="must tell a time such as 20040301-0005, got 'noon'"):
        read_demand_folder(tmp_path, network)
    with pytest.raises(DataError, match="holds no file demandMatrix"):
        read_demand_folder(tmp_path / "none", network)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "LINKS (\n  AB ( A B ) 40.00",
            "LINKS (\n  AB ( A D ) 40.00",
            r"tiny.txt:14: there is no node 'D'; nodes: A, B, C-1",
        ),
        ("AB ( A B ) 40", "AB ( A A ) 40", r"tiny.txt:14: the link AB joins A to itself"),
        ("BC ( B C-1 )", "BC ( B A )", r"tiny.txt:15: a second link joins B and A"),
    ],
)
def test_a_network_that_cannot_be_names_the_line(tmp_path, old, new, message):
    with pytest.raises(DataError, match=message):
        read_network(write(tmp_path, NATIVE.replace(old, new)))


def test_what_is_missing_is_named(tmp_path):
    network = read_network(write(tmp_path, NATIVE))
    with pytest.raises(DataError, match=r"tiny.txt:15: the link BC has routing cost 0. Use weights='hops'"):
        read_network(write(tmp_path, NATIVE.replace("0.00 1.00 0.00", "0.00 0.00 0.00")), weights="routing_cost")
    empty = write(tmp_path, NATIVE[: NATIVE.index("LINKS (")])
    with pytest.raises(DataError, match="it holds no links"):
        read_network(empty)
    with pytest.raises(DataError, match="it holds no demands"):
        read_demands(empty, network)
    unknown = write(tmp_path, NATIVE.replace("A_B ( A B )", "A_B ( A X )"))
    with pytest.raises(DataError, match=r"tiny.txt:19: there is no node 'X'"):
        read_demands(unknown, network)
