"""Files of SNDlib, the library of test instances for network design: networks and demands, as XML or as native text.

    read_network(path)          nodes, links, coordinates             read_demands(path, network)     one traffic matrix
    read_demand_folder(path)    a folder of files demandMatrix-*.xml or demandMatrix-*.txt, sorted by the time in each

The first line of a file tells XML and text apart. What cannot be read is refused with the number of its line. Values of other units
than Mbit/s must be given their factor.

Reference: Orlowski, Wessaely, Pioro & Tomaszewski (2010), SNDlib 1.0: survivable network design library, Networks 55.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.demands import Traffic
from everlearn.data.network import Network, both_ways
from everlearn.data.sndlib_files import Contents, read_contents

UNITS = {"MBITPERSEC": 1.0, "KBITPERSEC": 1e-3, "GBITPERSEC": 1e3}
WEIGHTS = ("hops", "km", "routing_cost")
TIMES = ("%Y%m%d-%H%M", "%Y%m%d-%H%M%S", "%Y-%m-%d-%H-%M")


def read_network(path: str | Path, *, weights: str = "hops", directed: bool = False) -> Network:
    """The network of an SNDlib file.

    weights: "hops" (1 each), "km" (great-circle lengths) or "routing_cost" (as in the file, must be > 0); directed: whether a link
    of the file goes one way only. The capacity is what is installed, else the largest module, else infinite. Coordinates that are
    no longitudes and latitudes are left out. Raises ArgumentError, DataError.
    """
    path = Path(path)
    if weights not in WEIGHTS:
        raise ArgumentError(f"read_network: weights must be one of {', '.join(WEIGHTS)}, got {weights!r}.")
    found = read_contents(path)
    if not found.links:
        raise DataError(f"{path}: it holds no links. Read the topology from the file of the network, not from a matrix.")
    numbers = {name: index for index, name in enumerate(found.nodes)}
    links, weight, capacity = [], [], []
    for name, edge in found.links.items():
        ends = _ends(path, edge.ends, edge.line, numbers)
        if ends[0] == ends[1]:
            raise DataError(f"{path}:{edge.line}: the link {name} joins {edge.ends[0]} to itself. Take it out.")
        if weights == "routing_cost" and not edge.cost > 0:
            raise DataError(f"{path}:{edge.line}: the link {name} has routing cost {edge.cost:g}. Use weights='hops'.")
        ways = (ends,) if directed else both_ways([ends])
        for way in ways:
            if way in links:
                raise DataError(
                    f"{path}:{edge.line}: a second link joins {edge.ends[0]} and {edge.ends[1]}. Join parallel links."
                )
        links += ways
        weight += [edge.cost if weights == "routing_cost" else 1.0] * len(ways)
        capacity += [edge.installed or max(edge.modules, default=0.0) or math.inf] * len(ways)
    places = [place.at for place in found.nodes.values()]
    known = found.geographical and all(at is not None and abs(at[0]) <= 180 and abs(at[1]) <= 90 for at in places)
    lonlat = tuple(places) if known else None
    network = Network(path.stem, tuple(found.nodes), tuple(links), tuple(weight), tuple(capacity), lonlat)
    return network.weighted("km") if weights == "km" else network


def read_demands(path: str | Path, network: Network, *, unit: float | None = None) -> Tensor:
    """(source, target) float64: the demands of an SNDlib file in Mbit/s, nodes in the order of the network.

    unit: Mbit/s of 1 in the file; None takes it from the file's own word, and 1 where it has none. Demands between the same nodes add
    up. Raises DataError.
    """
    return _matrix(Path(path), read_contents(Path(path)), network, unit)


def read_demand_folder(path: str | Path, network: Network, *, unit: float | None = None) -> Traffic:
    """The matrices of a folder of files demandMatrix*.xml or demandMatrix*.txt, in the order of the times in them.

    Raises DataError where there are none, a time is missing or comes twice, or the steps between them differ.
    """
    path = Path(path)
    files = sorted(file for file in path.glob("demandMatrix*") if file.suffix in (".xml", ".txt"))
    if not files:
        raise DataError(f"{path}: it holds no file demandMatrix*.xml or demandMatrix*.txt.")
    read = sorted(
        ((_time(file, found), file, found) for file in files for found in [read_contents(file)]), key=lambda item: item[:2]
    )
    times = [time for time, _, _ in read]
    steps = [(later - time).total_seconds() / 60 for time, later in pairwise(times)]
    for (time, file, _), step in zip(read[1:], steps, strict=True):
        if step == 0:
            raise DataError(f"{file}: another file has the time {time:%Y%m%d-%H%M} too.")
        if step != steps[0]:
            raise DataError(
                f"{file}: its time {time:%Y%m%d-%H%M} comes {step:g} min after the one before, and others {steps[0]:g}. Fill the gap."
            )
    demands = torch.stack([_matrix(file, found, network, unit) for _, file, found in read])
    return Traffic(path.name, network, demands, steps[0] if steps else 5.0)


def _matrix(path: Path, found: Contents, network: Network, unit: float | None) -> Tensor:
    if not found.demands:
        raise DataError(f"{path}: it holds no demands.")
    word = found.meta.get("unit", "MBITPERSEC")
    if unit is None and word not in UNITS:
        raise DataError(
            f"{path}: its unit is {word!r}; known are {', '.join(UNITS)}. Give unit=, the Mbit/s of 1 in the file."
        )
    numbers = {name: index for index, name in enumerate(network.nodes)}
    matrix = torch.zeros(len(numbers), len(numbers), dtype=torch.float64)
    for request in found.demands.values():
        matrix[_ends(path, request.ends, request.line, numbers)] += request.value
    return matrix * (UNITS[word] if unit is None else unit)


def _ends(path: Path, ends: Sequence[str], line: int, numbers: dict[str, int]) -> tuple[int, int]:
    for name in ends:
        if name not in numbers:
            raise DataError(f"{path}:{line}: there is no node {name!r}; nodes: {', '.join(numbers)}.")
    return numbers[ends[0]], numbers[ends[1]]


def _time(path: Path, found: Contents) -> datetime:
    text = found.meta.get("time", "")
    for form in TIMES:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise DataError(f"{path}: its META section must tell a time such as 20040301-0005, got {text!r}.")
