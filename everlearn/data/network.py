"""A communication network: nodes, directed links with routing weight and capacity, and the public networks that come as data.

    d(a, b) = 2 R asin( sqrt( sin^2((lat_a - lat_b)/2) + cos lat_a cos lat_b sin^2((lon_a - lon_b)/2) ) )        R = 6371 km

Directed links carry their own load: a cable between two nodes is a pair of them.

References: Zhang, Roughan, Duffield & Greenberg (2003), Fast accurate computation of large-scale IP traffic matrices from link
loads, SIGMETRICS (Abilene); Orlowski, Wessaely, Pioro & Tomaszewski (2010), SNDlib 1.0, Networks 55 (Euro28, there nobel-eu).
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from everlearn.core.errors import ArgumentError, DataError, closest
from everlearn.data.arrays import read_npz
from everlearn.data.folders import roots, where

EARTH_KM = 6371.0  # mean radius
Node = int | str


@dataclass(frozen=True, repr=False)
class Network:
    """Nodes and directed links.

    nodes: names; links: (source, target) node numbers of each link; weight: what a link costs a path, > 0; capacity: Mbit/s,
    infinite where it is not known; lonlat: (longitude, latitude) of each node in degrees, None where they are not known.
    Raises ArgumentError for what is no network: no links, unknown nodes, loops, two links between the same nodes.

    >>> triangle = Network("triangle", ("a", "b", "c"), ((0, 1), (1, 2), (2, 0)), (1.0, 1.0, 3.0), (100.0,) * 3)
    >>> triangle.link("c", "a"), triangle.link_names
    (2, ('a>b', 'b>c', 'c>a'))
    """

    name: str
    nodes: tuple[str, ...]
    links: tuple[tuple[int, int], ...]
    weight: tuple[float, ...]
    capacity: tuple[float, ...]
    lonlat: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.nodes)
        if len(set(self.nodes)) < count:
            twice = next(name for name in self.nodes if self.nodes.count(name) > 1)
            raise ArgumentError(f"{self.name}: the node {twice!r} stands twice. Node names must differ.")
        if not self.links:
            raise ArgumentError(f"{self.name}: a network needs at least one link.")
        if not len(self.links) == len(self.weight) == len(self.capacity):
            raise ArgumentError(
                f"{self.name}: {len(self.links)} links need as many weights and capacities, "
                f"got {len(self.weight)} and {len(self.capacity)}."
            )
        if self.lonlat is not None and len(self.lonlat) != count:
            raise ArgumentError(f"{self.name}: {count} nodes need as many coordinates, got {len(self.lonlat)}.")
        seen = set()
        for link, weight, capacity in zip(self.links, self.weight, self.capacity, strict=True):
            if not all(0 <= end < count for end in link):
                raise ArgumentError(
                    f"{self.name}: the link {link} names a node outside 0..{count - 1}. Nodes are numbered from 0."
                )
            if link[0] == link[1]:
                raise ArgumentError(f"{self.name}: the link {link} joins a node to itself. Leave it out.")
            if link in seen:
                raise ArgumentError(
                    f"{self.name}: there are two links {link}. Join parallel links to one and add their capacities."
                )
            seen.add(link)
            if not (math.isfinite(weight) and weight > 0):
                raise ArgumentError(f"{self.name}: the link {link} has weight {weight}; a finite number > 0 is needed.")
            if not capacity > 0:
                raise ArgumentError(
                    f"{self.name}: the link {link} has capacity {capacity}; a number of Mbit/s > 0 is needed."
                )

    def __repr__(self) -> str:
        return f"Network({self.name}: {len(self.nodes)} nodes, {len(self.links)} directed links)"

    def node(self, which: Node) -> int:
        """The number of a node, given by its name or number. Raises ArgumentError."""
        if isinstance(which, str):
            if which not in self.nodes:
                raise ArgumentError(f"{self.name}: {closest('node', which, self.nodes)}")
            return self.nodes.index(which)
        if not isinstance(which, int) or isinstance(which, bool) or not 0 <= which < len(self.nodes):
            raise ArgumentError(f"{self.name}: a node is a name or a number 0..{len(self.nodes) - 1}, got {which!r}.")
        return which

    def link(self, source: Node, target: Node) -> int:
        """The number of the link from one node to another. Raises ArgumentError."""
        ends = self.node(source), self.node(target)
        if ends not in self.links:
            name = f"{self.nodes[ends[0]]}>{self.nodes[ends[1]]}"
            raise ArgumentError(f"{self.name}: {closest('link', name, self.link_names)}")
        return self.links.index(ends)

    def links_of(self, node: Node) -> tuple[int, ...]:
        """The numbers of all links that begin or end at a node."""
        number = self.node(node)
        return tuple(index for index, ends in enumerate(self.links) if number in ends)

    @property
    def link_names(self) -> tuple[str, ...]:
        """`source>target` of each link."""
        return tuple(f"{self.nodes[source]}>{self.nodes[target]}" for source, target in self.links)

    def distances(self) -> numpy.ndarray:
        """(nodes, nodes) float64: great-circle distances in km. Raises DataError where coordinates are not known."""
        if self.lonlat is None:
            raise DataError(f"{self.name}: it has no coordinates, so distances are not known. Use weights by hops instead.")
        return great_circle(numpy.array(self.lonlat))

    def weighted(self, rule: str) -> "Network":
        """The same network with weight 1 for every link (rule "hops") or its length in km ("km"), at least 1 m."""
        if rule == "hops":
            return replace(self, weight=(1.0,) * len(self.links))
        if rule != "km":
            raise ArgumentError(f"{self.name}: weights must be 'hops' or 'km', got {rule!r}.")
        distance = self.distances()
        return replace(self, weight=tuple(max(0.001, float(distance[ends])) for ends in self.links))


def great_circle(lonlat: numpy.ndarray) -> numpy.ndarray:
    """(n, n) float64 km between places (n, 2) of longitude and latitude in degrees, on a sphere.

    >>> float(great_circle(numpy.array([[0.0, 0.0], [90.0, 0.0]]))[0, 1].round(3))  # a quarter of the equator
    10007.543
    """
    lon, lat = numpy.radians(numpy.asarray(lonlat, dtype=numpy.float64)).T
    half = numpy.sin((lat[:, None] - lat) / 2) ** 2
    half += numpy.cos(lat)[:, None] * numpy.cos(lat) * numpy.sin((lon[:, None] - lon) / 2) ** 2
    return 2 * EARTH_KM * numpy.arcsin(numpy.sqrt(half.clip(0.0, 1.0)))


def both_ways(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Each cable as its two directed links, one after the other.

    >>> both_ways([(0, 1), (1, 2)])
    ((0, 1), (1, 0), (1, 2), (2, 1))
    """
    return tuple(ends for first, second in pairs for ends in ((first, second), (second, first)))


def abilene_network() -> Network:
    """Abilene, the backbone of US universities in 2004: 12 nodes, 30 directed links, weights of its own routing, capacities.

    Raises DataError where EVERLEARN_DATA has no abilene_tm. Reference: Zhang et al. (2003).
    """
    path = network_file("abilene_tm", "abilene_links.csv")
    names: dict[int, str] = {}
    links, weight, capacity = [], [], []
    for line, row in csv_rows(path, ("src", "dst", "src_name", "dst_name", "igp_weight", "capacity_mbps")):
        ends = int(number(path, line, row["src"])), int(number(path, line, row["dst"]))
        names |= dict(zip(ends, (row["src_name"], row["dst_name"]), strict=True))
        links.append(ends)
        weight.append(number(path, line, row["igp_weight"]))
        capacity.append(number(path, line, row["capacity_mbps"]))
    nodes = tuple(names[index] for index in sorted(names))
    arrays = read_npz(network_file("abilene_tm", "abilene_tm.npz"))
    lonlat = tuple((float(lon), float(lat)) for lon, lat in arrays["lonlat"])
    return Network("abilene", nodes, tuple(links), tuple(weight), tuple(capacity), lonlat)


def euro28_network() -> Network:
    """Euro28: 28 European cities, 41 cables (82 directed links), weights in km; capacities are not known, so infinite.

    Raises DataError where EVERLEARN_DATA has no network_topologies. Reference: Orlowski et al. (2010).
    """
    path = network_file("network_topologies", "euro28_nodes.csv")
    places = [
        (row["name"], *(_degrees(number(path, line, row[key])) for key in ("lon", "lat")))
        for line, row in csv_rows(path, ("id", "name", "lon", "lat"))
    ]
    links = _cables("euro28_links.csv")
    network = Network(
        "euro28",
        tuple(place[0] for place in places),
        links,
        (1.0,) * len(links),
        (math.inf,) * len(links),
        tuple(place[1:] for place in places),
    )
    return network.weighted("km")


def nsfnet_network() -> Network:
    """NSFNET: 14 nodes, 21 cables (42 directed links), weight 1 each; capacities are not known, so infinite.

    Raises DataError where EVERLEARN_DATA has no network_topologies.
    """
    links = _cables("nsfnet_links.csv")
    nodes = tuple(map(str, range(max(map(max, links)) + 1)))
    return Network("nsfnet", nodes, links, (1.0,) * len(links), (math.inf,) * len(links))


def network_file(folder: str, name: str) -> Path:
    """A file of a folder of EVERLEARN_DATA. Raises DataError that says where was looked."""
    for root in roots():
        if (root / folder / name).is_file():
            return root / folder / name
    raise DataError(
        f"{folder}/{name}: not found in {where()}. Set EVERLEARN_DATA to the folder that holds the folder {folder}."
    )


def number(path: Path, line: int, text: str) -> float:
    """A finite number of a file. Raises DataError with the place where it stands."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}:{line}: a finite number is expected, got {text!r}.")
    return value


def _degrees(value: float) -> float:
    """Degrees of what is written as degrees.minutes: 52.30 is 52 degrees and 30 minutes."""
    whole = math.trunc(value)
    return whole + (value - whole) * 100 / 60


def _cables(name: str) -> tuple[tuple[int, int], ...]:
    path = network_file("network_topologies", name)
    return both_ways(
        [(int(number(path, line, row["u"])), int(number(path, line, row["v"]))) for line, row in csv_rows(path, ("u", "v"))]
    )


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file with these columns."""
    with open(path, newline="", encoding="utf8") as file:
        reader = csv.DictReader(file)
        found = reader.fieldnames or ()
        missing = [column for column in columns if column not in found]
        if missing:
            raise DataError(f"{path}:1: the column {missing[0]!r} is missing; there are {', '.join(found) or 'none'}.")
        for row in reader:
            yield reader.line_num, row
