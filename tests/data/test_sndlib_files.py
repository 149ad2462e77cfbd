"""The two forms of SNDlib's files: every way in which a line can be wrong is refused with its number."""

import pytest

from everlearn.core.errors import DataError
from everlearn.data.sndlib_files import read_contents

NATIVE = """?SNDlib native format; type: network; version: 1.0
META (
  time = 20040301-0005
)
NODES (
  A ( 1.5 -2.0 )
  B
)
LINKS (
  AB ( A B ) 40 0 2.5 0 ( 155 1 622 2 )
)
DEMANDS (
  d ( A B ) 2 12.5 UNLIMITED
)
"""
XML = """<?xml version="1.0"?>
<network>
 <meta><time>20040301-0005</time></meta>
 <networkStructure><nodes>
  <node id="A"><coordinates><x>1.5</x><y>-2.0</y></coordinates></node>
  <node id="B"/></nodes>
 <links>
  <link id="AB"><source>A</source><target>B</target><routingCost>2.5</routingCost></link>
 </links></networkStructure>
 <demands>
  <demand id="d"><source>A</source><target>B</target><demandValue>12.5</demandValue></demand>
 </demands>
</network>
"""


def read(folder, text, name="file"):
    path = folder / name
    path.write_bytes(text.encode("utf8") if isinstance(text, str) else text)
    return read_contents(path)


def test_what_stands_in_native_text(tmp_path):
    found = read(tmp_path, NATIVE)
    assert found.meta == {"time": "20040301-0005"}
    assert found.nodes == {"A": ((1.5, -2.0), 6), "B": (None, 7)}
    assert found.links == {"AB": (("A", "B"), 40.0, 2.5, (155.0, 622.0), 10)}
    assert found.demands == {"d": (("A", "B"), 25.0, 13)}


def test_what_stands_in_xml(tmp_path):
    found = read(tmp_path, XML)
    assert found.meta == {"time": "20040301-0005"} and found.geographical
    assert found.nodes == {"A": ((1.5, -2.0), 5), "B": (None, 6)}
    assert found.links == {"AB": (("A", "B"), 0.0, 2.5, (), 8)}
    assert found.demands == {"d": (("A", "B"), 12.5, 11)}


def test_a_byte_order_mark_is_passed_over(tmp_path):
    for text in (NATIVE, XML):
        assert read(tmp_path, b"\xef\xbb\xbf" + text.encode()) == read(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("?SNDlib native", "SNDlib native", r"file:1: the file must begin with '\?SNDlib native format"),
        ("version: 1.0", "version: 2.0", "file:1: the file must begin with"),
        ("NODES (", "KNOTS (", r"file:5: a section such as 'NODES \(' is expected, got 'KNOTS \('"),
        ("NODES (", "NODES", r"file:5: a section such as 'NODES \(' is expected, got 'NODES'"),
        ("time = 2", "time 2", "file:3: META has lines 'key = value', got 'time 20040301-0005'"),
        ("A ( 1.5 -2.0 )", "A ( 1.5 )", r"file:6: name \( x y \) is expected"),
        ("A ( 1.5 -2.0 )", "A ( 1.5 west )", "file:6: a finite number is expected, got 'west'"),
        ("  B\n", "  A\n", "file:7: the node 'A' stands twice; the first is in line 6"),
        ("AB ( A B ) 40 0", "AB A B 40 0", r"file:10: name \( from to \) installed"),
        ("40 0 2.5 0 (", "40 0 2.5 (", "file:10: a link has four numbers and pairs"),
        ("155 1 622 2 )", "155 1 622 )", "file:10: a link has four numbers and pairs"),
        ("155 1 622 2 )", "155 1 622 2", "file:10: a link has four numbers and pairs"),
        ("AB ( A B ) 40", "AB ( A B ) -40", "file:10: a number >= 0 is expected, got -40"),
        ("2 12.5 UNLIMITED", "2 12.5", "file:13: a demand has the form name .*, got 2 words behind the nodes"),
        ("2 12.5 UNLIMITED", "2 nan UNLIMITED", "file:13: a finite number is expected, got 'nan'"),
        ("2 12.5 UNLIMITED\n)", "2 12.5 UNLIMITED", r"file:12: the section DEMANDS is not closed"),
    ],
)
def test_native_text_that_cannot_be_read_names_its_line(tmp_path, old, new, message):
    assert old in NATIVE
    with pytest.raises(DataError, match=message):
        read(tmp_path, NATIVE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</network>", "</net>", "file:13: it is no well-formed XML: mismatched tag"),
        ("<network>\n", "<!DOCTYPE network>\n<network>\n", "file:2: a document type is not read"),
        ("<network>\n", "<solution/>\n<network>\n", "file:2: <network> is expected, got <solution>"),
        ('<node id="B"/>', "<node/>", "file:6: <node> needs an id"),
        ('<node id="B"/>', '<node id="A"/>', "file:6: the node 'A' stands twice; the first is in line 5"),
        ("<y>-2.0</y>", "", "file:5: <y> must stand here once, got 0"),
        ("<x>1.5</x>", "<x>1,5</x>", "file:5: a finite number is expected, got '1,5'"),
        ("<target>B</target><routing", "<routing", "file:8: <target> must stand here once, got 0"),
        ("<source>A</source><target>B</target><demand", "<source>A</source><source>B</source><demand", "file:11: <source>"),
        ("12.5", "-1", "file:11: a number >= 0 is expected, got -1"),
        ("<demandValue>12.5</demandValue>", "", "file:11: <demandValue> must stand here once, got 0"),
    ],
)
def test_xml_that_cannot_be_read_names_its_line(tmp_path, old, new, message):
    assert old in XML
    with pytest.raises(DataError, match=message):
        read(tmp_path, XML.replace(old, new))


def test_entities_are_refused(tmp_path):
    bomb = '<!DOCTYPE network [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n<network>\n'
    with pytest.raises(DataError, match="file:2: a document type is not read"):
        read(tmp_path, XML.replace("<network>\n", bomb))


def test_files_without_anything_are_refused(tmp_path):
    with pytest.raises(DataError, match="it is empty"):
        read(tmp_path, "# nothing\n")
    with pytest.raises(DataError, match="it holds no nodes"):
        read(tmp_path, NATIVE.splitlines()[0])
    with pytest.raises(DataError, match="it holds no nodes"):
        read(tmp_path, "<network/>")
    with pytest.raises(DataError, match="cannot be read"):
        read_contents(tmp_path / "none")
