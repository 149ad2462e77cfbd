"""The two forms of SNDlib's files, native text and XML, read into the same tables.

    ?SNDlib native format; type: network; version: 1.0         <network><networkStructure>
    NODES (  a ( 1.0 2.0 )  )                                    <nodes><node id="a"><coordinates><x>1.0</x><y>2.0</y> ...
    LINKS (  ab ( a b ) 40 0 0 0 ( 155 1 )  )                    <links><link id="ab"><source>a</source><target>b</target> ...
    DEMANDS (  d ( a b ) 1 12.5 UNLIMITED  )                     <demands><demand id="d"> ... <demandValue>12.5</demandValue>

An item stands in a line of native text; `#` begins a comment. Document types and entities of XML are refused.

Reference: Orlowski, Wessaely, Pioro & Tomaszewski (2010), SNDlib 1.0: survivable network design library, Networks 55.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from everlearn.core.errors import DataError
from everlearn.data.network import number

HEADER = "?SNDlib native format; type: network; version: 1.0"


class Place(NamedTuple):
    """A node of a file: where it stands, its line."""

    at: tuple[float, float] | None
    line: int


class Edge(NamedTuple):
    """A link of a file: its ends, what is installed, its routing cost and the capacities of its modules, its line."""

    ends: tuple[str, str]
    installed: float
    cost: float
    modules: tuple[float, ...]
    line: int


class Request(NamedTuple):
    """A demand of a file: its ends, units of routing and value, its line."""

    ends: tuple[str, str]
    value: float
    line: int


@dataclass
class Contents:
    """What stands in a file, by the names in it."""

    meta: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Place] = field(default_factory=dict)
    links: dict[str, Edge] = field(default_factory=dict)
    demands: dict[str, Request] = field(default_factory=dict)
    geographical: bool = True


def read_contents(path: Path) -> Contents:
    """What stands in a file, in either form. Raises DataError with the number of the line that cannot be read."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    found = _Xml(path).read(data) if data.lstrip().startswith(b"<") else _native(path, data.decode("latin-1"))
    if not found.nodes:
        raise DataError(f"{path}: it holds no nodes.")
    return found


# ---- native text -----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[()]|[^\s()]+")


def _native(path: Path, text: str) -> Contents:
    """Sections NAME ( ... ) with an item a line; `#` begins a comment."""
    found = Contents()
    section, opened, headed = "", 0, False
    for line, raw in enumerate(text.splitlines(), start=1):
        content = raw.partition("#")[0].strip()
        if not content:
            continue
        if not headed:
            if [word.strip() for word in content.split(";")] != [word.strip() for word in HEADER.split(";")]:
                raise DataError(f"{path}:{line}: the file must begin with {HEADER!r} or be XML, got {content[:60]!r}.")
            headed = True
            continue
        tokens = _TOKEN.findall(content)
        if section and tokens == [")"]:
            section = ""
        elif section:
            _ITEMS[section](found, path, line, tokens, content)
        elif tokens[0] in _ITEMS and tokens[1:] in (["("], ["(", ")"]):
            section, opened = (tokens[0] if len(tokens) == 2 else ""), line
        else:
            raise DataError(f"{path}:{line}: a section such as 'NODES (' is expected, got {content[:60]!r}.")
    if not headed:
        raise DataError(f"{path}: it is empty.")
    if section:
        raise DataError(f"{path}:{opened}: the section {section} is not closed; a line with ')' alone ends it.")
    return found


def _meta(found: Contents, path: Path, line: int, tokens: list[str], content: str) -> None:
    key, equals, value = content.partition("=")
    if not equals:
        raise DataError(f"{path}:{line}: META has lines 'key = value', got {content!r}.")
    found.meta[key.strip()] = value.strip()


def _node(found: Contents, path: Path, line: int, tokens: list[str], content: str) -> None:
    if len(tokens) == 1:
        _add(found.nodes, tokens[0], Place(None, line), "node", path, line)
        return
    _shaped(tokens, "name ( x y )", path, line, content)
    at = number(path, line, tokens[2]), number(path, line, tokens[3])
    _add(found.nodes, tokens[0], Place(at, line), "node", path, line)


def _link(found: Contents, path: Path, line: int, tokens: list[str], content: str) -> None:
    _shaped(
        tokens, "name ( from to ) installed installed_cost routing_cost setup_cost ( {capacity cost}* )", path, line, content
    )
    fixed, modules = tokens[5:9], tokens[9:]
    if len(fixed) < 4 or len(modules) < 2 or modules[0] != "(" or modules[-1] != ")" or len(modules) % 2:
        raise DataError(
            f"{path}:{line}: a link has four numbers and pairs of capacity and cost in brackets, got {content[:80]!r}."
        )
    values = [_amount(path, line, item) for item in fixed]
    capacities = tuple(_amount(path, line, item) for item in modules[1:-1:2])
    edge = Edge((tokens[2], tokens[3]), values[0], values[2], capacities, line)
    _add(found.links, tokens[0], edge, "link", path, line)


def _request(found: Contents, path: Path, line: int, tokens: list[str], content: str) -> None:
    _shaped(tokens, "name ( from to ) unit value hops", path, line, content)
    if len(tokens) != 8:
        raise DataError(
            f"{path}:{line}: a demand has the form name ( from to ) unit value hops, got {len(tokens) - 5} words "
            f"behind the nodes: {content[:80]!r}."
        )
    value = _amount(path, line, tokens[5]) * _amount(path, line, tokens[6])
    _add(found.demands, tokens[0], Request((tokens[2], tokens[3]), value, line), "demand", path, line)


def _skipped(found: Contents, path: Path, line: int, tokens: list[str], content: str) -> None:
    """Admissible paths are read by none of our models."""


_ITEMS = {"META": _meta, "NODES": _node, "LINKS": _link, "DEMANDS": _request, "ADMISSIBLE_PATHS": _skipped}


def _shaped(tokens: list[str], form: str, path: Path, line: int, content: str) -> None:
    """Refuse what does not begin with a name and two words in brackets."""
    if len(tokens) < 5 or tokens[1] != "(" or tokens[4] != ")" or {"(", ")"} & {tokens[0], tokens[2], tokens[3]}:
        raise DataError(f"{path}:{line}: {form} is expected, got {content[:80]!r}.")


def _add(table: dict, name: str, item: NamedTuple, kind: str, path: Path, line: int) -> None:
    if name in table:
        raise DataError(f"{path}:{line}: the {kind} {name!r} stands twice; the first is in line {table[name].line}.")
    table[name] = item


def _amount(path: Path, line: int, text: str) -> float:
    value = number(path, line, text)
    if value < 0:
        raise DataError(f"{path}:{line}: a number >= 0 is expected, got {text}.")
    return value


# ---- XML -------------------------------------------------------------------------------------------------------------------


class _Xml:
    """A walk through the elements of a file; the words of the item that is open gather until it closes."""

    items = ("node", "link", "demand")

    def __init__(self, path: Path):
        self.path = path
        self.found = Contents()
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.open
        self.parser.EndElementHandler = self.close
        self.parser.CharacterDataHandler = self.text
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.above: list[str] = []
        self.item: tuple[str, str, int] | None = None  # kind, name and line of what is open
        self.words: dict[str, list[str]] = {}
        self.pieces: list[str] = []

    def read(self, data: bytes) -> Contents:
        """The contents of a file."""
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            raise DataError(
                f"{self.path}:{error.lineno}: it is no well-formed XML: {expat.ErrorString(error.code)}."
            ) from error
        return self.found

    def doctype(self, *_) -> None:
        raise DataError(f"{self.path}:{self.parser.CurrentLineNumber}: a document type is not read. Take its line out.")

    def open(self, tag: str, attributes: dict[str, str]) -> None:
        tag, line = tag.rpartition(":")[2], self.parser.CurrentLineNumber
        if not self.above and tag != "network":
            raise DataError(f"{self.path}:{line}: <network> is expected, got <{tag}>.")
        if tag == "nodes":
            self.found.geographical = attributes.get("coordinatesType", "geographical") == "geographical"
        if tag in self.items and self.above and self.above[-1] == f"{tag}s":
            if not attributes.get("id"):
                raise DataError(f"{self.path}:{line}: <{tag}> needs an id.")
            self.item, self.words = (tag, attributes["id"], line), {}
        self.above.append(tag)
        self.pieces = []

    def text(self, piece: str) -> None:
        self.pieces.append(piece)

    def close(self, _: str) -> None:
        tag, word = self.above.pop(), "".join(self.pieces).strip()
        self.pieces = []
        if self.item is not None and tag == self.item[0]:
            self.finish(*self.item)
            self.item = None
        elif self.item is not None:
            key = f"module {tag}" if self.above[-1] == "addModule" else tag
            if self.above[-1] == "preInstalledModule":
                key = f"installed {tag}"
            self.words.setdefault(key, []).append(word)
        elif self.above and self.above[-1] == "meta":
            self.found.meta[tag] = word

    def finish(self, kind: str, name: str, line: int) -> None:
        """Keep the item that closed."""
        if kind == "node":
            at = None
            if "x" in self.words or "y" in self.words:
                at = number(self.path, line, self.word("x", line)), number(self.path, line, self.word("y", line))
            _add(self.found.nodes, name, Place(at, line), kind, self.path, line)
            return
        ends = self.word("source", line), self.word("target", line)
        if kind == "demand":
            value = self.amount("demandValue", line) * self.amount("routingUnit", line, "1")
            _add(self.found.demands, name, Request(ends, value, line), kind, self.path, line)
            return
        modules = tuple(_amount(self.path, line, word) for word in self.words.get("module capacity", ()))
        installed, cost = self.amount("installed capacity", line, "0"), self.amount("routingCost", line, "0")
        _add(self.found.links, name, Edge(ends, installed, cost, modules, line), kind, self.path, line)

    def word(self, tag: str, line: int, default: str | None = None) -> str:
        given = self.words.get(tag, [] if default is None else [default])
        if len(given) != 1:
            raise DataError(f"{self.path}:{line}: <{tag}> must stand here once, got {len(given)}.")
        return given[0]

    def amount(self, tag: str, line: int, default: str | None = None) -> float:
        return _amount(self.path, line, self.word(tag, line, default))
