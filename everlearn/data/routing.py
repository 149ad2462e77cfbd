"""Shortest-path routing: which fraction of the traffic between two nodes each link carries.

    P_d[u, v] = share of the traffic for d that u hands to v        over links with weight(u, v) + dist(v, d) = dist(u, d)
    V_d = I + P_d + P_d^2 + ...                                      V_d[s, u]: fraction of the demand (s, d) that passes u
    R[l, s, d] = V_d[s, u] P_d[u, v]     for link l = (u, v)         load of l = sum_{s != d} R[l, s, d] D[s, d]

Every next hop is strictly nearer to d, so the series ends after as many terms as the longest path has links, and nothing is
rounded where shares are 0 and 1. Single path: of several next hops at equal cost, the one with the smallest node number. Equal-cost
multipath (ECMP): each node divides its traffic equally among them.

References: Dijkstra (1959), A note on two problems in connexion with graphs; Fortz & Thorup (2000), Internet traffic engineering by
optimizing OSPF weights, INFOCOM (even split over shortest paths).
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from everlearn.data.network import Network

TIE = 1e-9  # paths whose costs differ by less than this share are of equal cost: sums of lengths in km round
KEPT = 256  # topology states whose routing is kept


@dataclass(frozen=True)
class Routing:
    """fraction: (links, source, target) float64, the part of each demand on each link; reached: (source, target) bool."""

    fraction: Tensor
    reached: Tensor

    def loads(self, demands: Tensor) -> Tensor:
        """(..., links) load of demands (..., source, target), in their unit; what has no path, and the diagonal, loads nothing."""
        return demands.flatten(-2) @ self.fraction.flatten(-2).T.to(demands.dtype)

    def lost(self, demands: Tensor) -> Tensor:
        """(...,) demand without a path; a node always reaches itself, so the diagonal is left out."""
        return demands[..., ~self.reached].sum(-1)

    def over(self, links: Collection[int]) -> Tensor:
        """(source, target) bool: the demands of which a part crosses one of some links."""
        return (self.fraction[sorted(links)] > 0).any(0)

    def without(self, pairs: Tensor) -> "Routing":
        """The same routing, with the demands of some pairs (source, target) lost."""
        return Routing(self.fraction * ~pairs, self.reached & ~pairs)


def route(network: Network, *, ecmp: bool = False, down: Collection[int] = ()) -> Routing:
    """The routing of a network, some links left out. ecmp: divide equally at every node over all next hops at equal cost.

    >>> square = Network("square", tuple("abcd"), ((0, 1), (0, 2), (1, 3), (2, 3)), (1.0,) * 4, (1.0,) * 4)
    >>> route(square).fraction[:, 0, 3].tolist(), route(square, ecmp=True).fraction[:, 0, 3].tolist()
    ([1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5])
    """
    count = len(network.nodes)
    up = numpy.array([index not in down for index in range(len(network.links))])
    source, target = numpy.array(network.links).T
    weight = numpy.array(network.weight)
    distance = _distances(count, source[up], target[up], weight[up])
    through = weight[:, None] + distance[target]  # cost from the source of a link to each node, by that link
    best = distance[source]
    chosen = up[:, None] & numpy.isfinite(best) & (through <= best * (1 + TIE))
    chosen &= distance[target] < best  # no way back, whatever was rounded
    share = (_divided if ecmp else _smallest)(chosen, source, target, count)
    step = numpy.zeros((count, count, count))  # [destination, from, to]
    step[:, source, target] = share.T
    passing = _passing(torch.from_numpy(step))  # [destination, source of the demand, node]
    fraction = passing[:, :, source].permute(2, 1, 0) * torch.from_numpy(share)[:, None, :]
    return Routing(fraction.contiguous(), torch.from_numpy(numpy.isfinite(distance)))


def _distances(count: int, source: numpy.ndarray, target: numpy.ndarray, weight: numpy.ndarray) -> numpy.ndarray:
    """(from, to) float64: the cost of the cheapest path, infinite where there is none."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    return dijkstra(csr_array((weight, (source, target)), shape=(count, count)))


def _divided(chosen: numpy.ndarray, source: numpy.ndarray, target: numpy.ndarray, count: int) -> numpy.ndarray:
    """(links, destination): 1 / (next hops of the link's source) on each of them."""
    hops = numpy.zeros((count, chosen.shape[1]))
    numpy.add.at(hops, source, chosen)
    return chosen / numpy.maximum(hops[source], 1.0)


def _smallest(chosen: numpy.ndarray, source: numpy.ndarray, target: numpy.ndarray, count: int) -> numpy.ndarray:
    """(links, destination): 1 on the next hop with the smallest node number."""
    first = numpy.full((count, chosen.shape[1]), count)
    numpy.minimum.at(first, source, numpy.where(chosen, target[:, None], count))
    return (chosen & (target[:, None] == first[source])).astype(numpy.float64)


def _passing(step: Tensor) -> Tensor:
    """I + P + P^2 + ... of nilpotent matrices (batch, n, n), by doubling: (I + P)(I + P^2)(I + P^4)..."""
    total, power = torch.eye(step.shape[-1], dtype=step.dtype) + step, step
    while (power := power @ power).any():
        total = total + total @ power
    return total


class Routes:
    """The routing of every topology state of one network, each made once (the last 256 are kept)."""

    def __init__(self, network: Network, *, ecmp: bool = False):
        self.network = network
        self.ecmp = ecmp
        self._made: dict[frozenset[int], Routing] = {}

    def without(self, down: Collection[int] = ()) -> Routing:
        """The routing with some links down."""
        key = frozenset(down)
        if key not in self._made:
            if len(self._made) >= KEPT:
                self._made.pop(next(iter(self._made)))
            self._made[key] = route(self.network, ecmp=self.ecmp, down=key)
        return self._made[key]
