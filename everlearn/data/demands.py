"""Traffic matrices: measured ones, files of them, and a generator of days and weeks from a gravity model.

    base_sd = c P_s P_d / dist_sd^exponent        c: the sum over s != d is `total`
    D_sd(t) = base_sd max(0.05, 1 + 0.45 sin(w t + phi_d) + 0.15 sin(2 w t + 2 phi_d + 1) + 0.10 sin(w t / 7 + psi_sd)) (1 + noise e)

with w = 2 pi / (samples in a day), phi_d the longitude of d in hours as an angle plus 0.2 N(0, 1), psi uniform, e standard normal;
t counts from midnight UTC. Matrices are (time, source, target) in Mbit/s; the diagonal never loads a link.

References: Zhang, Roughan, Duffield & Greenberg (2003), Fast accurate computation of large-scale IP traffic matrices from link
loads, SIGMETRICS (gravity model, Abilene); Ayoub et al. (2024), arXiv 2404.05304 (sums of sines with a daily rhythm; the constants
are ours).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.random import derive
from everlearn.data.arrays import read_npz
from everlearn.data.network import Network, abilene_network, csv_rows, euro28_network, network_file, number

FLOOR = 0.05  # the least a demand sinks to, as a share of its mean
DAY, HALF_DAY, WEEK = 0.45, 0.15, 0.10  # amplitudes
SHIFT = 0.2  # deviation of the busy hour, in radians
HUNDRED_BYTES = 100 * 8 / 300 / 1e6  # Mbit/s of 100 bytes in 5 minutes
# fmt: off
POPULATION = {  # of metropolitan areas, in millions, rounded
    "Amsterdam": 2.5, "Athens": 3.6, "Barcelona": 5.2, "Belgrade": 1.7, "Berlin": 4.7, "Bordeaux": 1.3, "Brussels": 2.1,
    "Budapest": 3.0, "Copenhagen": 2.1, "Dublin": 2.1, "Frankfurt": 2.7, "Glasgow": 1.8, "Hamburg": 3.2, "London": 14.0,
    "Lyon": 2.3, "Madrid": 6.7, "Milan": 4.3, "Munich": 2.9, "Oslo": 1.6, "Paris": 13.0, "Prague": 2.2, "Rome": 4.3,
    "Stockholm": 2.4, "Strasbourg": 0.8, "Vienna": 2.9, "Warsaw": 3.3, "Zagreb": 1.2, "Zurich": 1.4,
}
# fmt: on


@dataclass(frozen=True, repr=False)
class Traffic:
    """A network and what its nodes send each other.

    demands: (time, source, target) float64, Mbit/s, >= 0; step_minutes: time between two matrices.
    Raises ArgumentError for another shape, negative or missing demands.
    """

    name: str
    network: Network
    demands: Tensor
    step_minutes: float = 5.0

    def __post_init__(self) -> None:
        check_demands(self.name, self.network, self.demands)
        if not (math.isfinite(self.step_minutes) and self.step_minutes > 0):
            raise ArgumentError(f"{self.name}: step_minutes must be a number > 0, got {self.step_minutes!r}.")

    def __repr__(self) -> str:
        return (
            f"Traffic({self.name}: {len(self)} matrices of {len(self.network.nodes)} nodes, {self.step_minutes:g} min apart)"
        )

    def __len__(self) -> int:
        return len(self.demands)


def check_demands(owner: str, network: Network, demands: Tensor) -> None:
    """Refuse what is no (time, source, target) tensor of finite numbers >= 0 for a network."""
    count = len(network.nodes)
    if not isinstance(demands, Tensor):
        raise ArgumentError(
            f"{owner}: demands must be a tensor (time, {count}, {count}), got {type(demands).__name__}. Use torch.as_tensor(demands)."
        )
    shape = tuple(demands.shape)
    if len(shape) != 3 or shape[1:] != (count, count) or shape[0] == 0 or not demands.dtype.is_floating_point:
        raise ArgumentError(
            f"{owner}: demands must be a floating-point tensor (time, {count}, {count}) for {network!r}, "
            f"got shape {shape} of {demands.dtype}."
        )
    wrong = ~(demands >= 0) | demands.isinf()
    if wrong.any():
        at, source, target = wrong.nonzero()[0].tolist()
        raise ArgumentError(
            f"{owner}: the demand {network.nodes[source]} > {network.nodes[target]} of matrix {at} is "
            f"{demands[at, source, target].item()}; a finite number >= 0 is needed. Fill what was not measured, with 0 say."
        )


def abilene() -> Traffic:
    """Two weeks of Abilene from 1 March 2004: 4,032 measured matrices of 12 nodes, one every 5 minutes, without gaps.

    Raises DataError where EVERLEARN_DATA has no abilene_tm. Reference: Zhang et al. (2003).
    """
    arrays = read_npz(network_file("abilene_tm", "abilene_tm.npz"))
    return Traffic("abilene", abilene_network(), torch.from_numpy(arrays["tm"]).double(), float(arrays["step_minutes"]))


def euro28(steps: int = 4032, seed: int = 0) -> Traffic:
    """Euro28 with generated demands of 10 Tbit/s on average, one matrix every 5 minutes. Raises as `sine_demands`."""
    network = euro28_network()
    demands = sine_demands(network, steps, mass=[POPULATION[name] for name in network.nodes], total=10e6, seed=seed)
    given = {"steps": (steps, 4032), "seed": (seed, 0)}
    texts = [f"{key}={value}" for key, (value, usual) in given.items() if value != usual]
    return Traffic(f"euro28({', '.join(texts)})" if texts else "euro28", network, demands)


def gravity(mass: Sequence[float], *, total: float, distance: Tensor | None = None, exponent: float = 0.5) -> Tensor:
    """(source, target) float64: total traffic divided in proportion to mass_s mass_d / distance^exponent, nothing to oneself.

    mass: what each node weighs, population say, >= 0 and above 0 for two nodes at least; distance: (source, target), > 0 between
    different nodes, None for no influence.

    >>> gravity([1.0, 1.0, 2.0], total=10.0).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [2.0, 2.0, 0.0]]
    """
    check_range("gravity", "total", total, 0.0)
    check_range("gravity", "exponent", exponent, 0.0)
    weight = torch.as_tensor(mass, dtype=torch.float64)
    if weight.ndim != 1 or not bool((weight >= 0).all()) or weight.isinf().any() or int((weight > 0).sum()) < 2:
        raise ArgumentError(f"gravity: mass must be numbers >= 0, two of them above 0 at least, got {weight.tolist()}.")
    apart = ~torch.eye(len(weight), dtype=torch.bool)
    pull = torch.outer(weight, weight) * apart
    if distance is not None:
        if distance.shape != pull.shape or not bool((distance[apart] > 0).all()):
            raise ArgumentError(
                f"gravity: distance must be {tuple(pull.shape)} numbers > 0 between nodes, got shape {tuple(distance.shape)}."
            )
        pull = pull / torch.where(apart, distance.double(), 1.0) ** exponent
    return pull * (total / pull.sum())


def sine_demands(
    network: Network,
    steps: int,
    *,
    mass: Sequence[float],
    total: float,
    step_minutes: float = 5.0,
    noise: float = 0.05,
    exponent: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """(steps, source, target) float64 demands with a day, half a day and a week in them, the busy hour following local time.

    mass: what each node weighs in the gravity model; total: mean sum of a matrix over whole weeks, Mbit/s; noise: deviation of the
    factor drawn for each demand and matrix, 0 for none. The first matrices do not depend on how many are asked for. Where the
    network has no coordinates, distances do not count and all clocks are equal. Raises ArgumentError.
    """
    check_count("sine_demands", "steps", steps)
    check_range("sine_demands", "step_minutes", step_minutes, 1e-9)
    check_range("sine_demands", "noise", noise, 0.0)
    count = len(network.nodes)
    if len(mass) != count:
        raise ArgumentError(f"sine_demands: mass must weigh each of the {count} nodes, got {len(mass)} numbers.")
    distance = None if network.lonlat is None else torch.from_numpy(network.distances())
    base = gravity(mass, total=total, distance=distance, exponent=exponent).numpy()
    phases = numpy.random.default_rng(derive(seed, "phases"))
    longitude = numpy.zeros(count) if network.lonlat is None else numpy.array(network.lonlat)[:, 0]
    phi = 2 * math.pi * longitude / 360 + SHIFT * phases.standard_normal(count)
    psi = phases.uniform(0, 2 * math.pi, (count, count))
    angle = (2 * math.pi * step_minutes / (24 * 60)) * numpy.arange(steps)[:, None]
    local = DAY * numpy.sin(angle + phi) + HALF_DAY * numpy.sin(2 * angle + 2 * phi + 1)
    level = 1 + local[:, None, :] + WEEK * numpy.sin(angle[:, :, None] / 7 + psi)
    demands = base * numpy.maximum(FLOOR, level)
    if noise:
        draws = numpy.random.default_rng(derive(seed, "noise")).standard_normal((steps, count, count))
        demands *= numpy.maximum(0.0, 1 + noise * draws)
    return torch.from_numpy(demands)


def read_matrix_lines(path: str | Path, nodes: int, *, unit: float = HUNDRED_BYTES) -> Tensor:
    """(time, source, target) float64 Mbit/s from a text of nodes * nodes numbers a line, one line a matrix, by source.

    unit: Mbit/s of 1 in the file; the default is that of the published Abilene files, 100 bytes in 5 minutes.
    Raises DataError with the number of the line that cannot be read.
    """
    path = Path(path)
    check_count("read_matrix_lines", "nodes", nodes, low=2)
    matrices = []
    for line, text in _lines(path):
        values = [_demand(path, line, item) for item in text.replace(",", " ").split()]
        if values and len(values) != nodes * nodes:
            raise DataError(f"{path}:{line}: {nodes} x {nodes} = {nodes * nodes} numbers are expected, got {len(values)}.")
        matrices += [values] if values else []
    if not matrices:
        raise DataError(f"{path}: it holds no matrix.")
    return torch.tensor(matrices, dtype=torch.float64).reshape(-1, nodes, nodes) * unit


def read_demand_table(path: str | Path, network: Network) -> Tensor:
    """(time, source, target) float64 Mbit/s from a CSV with the columns time, src, dst, value, one demand a row.

    Times are numbers that rise from matrix to matrix, all equally far apart; src and dst are node names or numbers; a pair without a
    row sends nothing. Raises DataError with the number of the line: an unknown node, a time that goes back or leaves a gap, a demand
    that comes twice.
    """
    path = Path(path)
    _lines(path)  # says so where there is no such file
    names: Mapping[str, int] = {
        **{str(i): i for i in range(len(network.nodes))},
        **{n: i for i, n in enumerate(network.nodes)},
    }
    times: list[float] = []
    cells: dict[tuple[int, int, int], float] = {}
    for line, row in csv_rows(path, ("time", "src", "dst", "value")):
        time = number(path, line, row["time"])
        if times and time < times[-1]:
            raise DataError(f"{path}:{line}: time {time:g} comes after {times[-1]:g}. Sort the rows by time.")
        if not times or time > times[-1]:
            if len(times) > 1 and not math.isclose(time - times[-1], times[1] - times[0], rel_tol=1e-6):
                raise DataError(
                    f"{path}:{line}: time {time:g} follows {times[-1]:g}; matrices before are {times[1] - times[0]:g} apart. Fill the gap."
                )
            times.append(time)
        for key in ("src", "dst"):
            if row[key] not in names:
                raise DataError(
                    f"{path}:{line}: {network.name} has no node {row[key]!r}; nodes: {', '.join(network.nodes)}."
                )
        cell = len(times) - 1, names[row["src"]], names[row["dst"]]
        if cell in cells:
            raise DataError(f"{path}:{line}: the demand {row['src']} > {row['dst']} at time {time:g} stands twice.")
        cells[cell] = _demand(path, line, row["value"])
    if not times:
        raise DataError(f"{path}: it holds no demand.")
    demands = torch.zeros(len(times), len(network.nodes), len(network.nodes), dtype=torch.float64)
    demands[tuple(torch.tensor(list(cells)).T)] = torch.tensor(list(cells.values()), dtype=torch.float64)
    return demands


def _demand(path: Path, line: int, text: str) -> float:
    value = number(path, line, text)
    if value < 0:
        raise DataError(f"{path}:{line}: a demand must be >= 0, got {text}.")
    return value


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        return list(enumerate(path.read_text(encoding="utf8").splitlines(), start=1))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}.") from error
