"""What failures do to a network's links: traffic matrices and a list of failures and repairs give the load of every link.

    y[t, l] = sum_{s != d} R_t[l, s, d] D[t, s, d]           R_t: the routing that is in force at t

Links that failed by t - converge_delay are routed around. Demands whose path crosses a link that failed since then are lost, until
the routing has learned of it; a repair, too, is learned of after that delay. Demands between nodes that no path joins are lost, and
counted. Every topology state is routed once, and all matrices of a span in which nothing changes are multiplied at once.

References: Ayoub et al. (2024), arXiv 2404.05304 (failures as concept drift of link loads); Markopoulou et al. (2008),
Characterization of failures in an operational IP backbone network, IEEE/ACM Transactions on Networking 16 (failure processes).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.random import derive
from everlearn.core.spec import describe
from everlearn.data.demands import check_demands
from everlearn.data.network import Network, Node
from everlearn.data.routing import Routes, Routing, route

DRASTIC, MODERATE = 2.0, 1.1  # ratios of load from which a change is called so, up or down


@dataclass(frozen=True, repr=False)
class LinkDown:
    """At matrix `time` the link from one node to another fails, and with `both` the one back as well."""

    time: int
    link: tuple[Node, Node]
    both: bool = True
    name: ClassVar[str] = "link_down"

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class LinkUp:
    """At matrix `time` the link from one node to another is repaired, and with `both` the one back as well."""

    time: int
    link: tuple[Node, Node]
    both: bool = True
    name: ClassVar[str] = "link_up"

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class NodeDown:
    """At matrix `time` a node fails: all its links, and all demands from and to it."""

    time: int
    node: Node
    name: ClassVar[str] = "node_down"

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class NodeUp:
    """At matrix `time` a node is repaired. Its links that failed by themselves stay down."""

    time: int
    node: Node
    name: ClassVar[str] = "node_up"

    def __repr__(self) -> str:
        return describe(self)


Change = LinkDown | LinkUp | NodeDown | NodeUp
CHANGES = {item.name: item for item in (LinkDown, LinkUp, NodeDown, NodeUp)}


@dataclass(frozen=True)
class Span:
    """Matrices start..end-1, in which one routing is in force.

    state: its number, 0 where nothing is down, the others by first appearance; avoided: the links that are routed around; broken:
    those whose failure the routing has not learned of.
    """

    start: int
    end: int
    state: int
    avoided: frozenset[int]
    broken: frozenset[int]
    routing: Routing


@dataclass(frozen=True)
class LinkLoads:
    """Loads of links over time. loads: (time, links) and lost: (time,), Mbit/s; spans: what was in force when, in order."""

    network: Network
    demands: Tensor
    loads: Tensor
    lost: Tensor
    spans: tuple[Span, ...]
    ecmp: bool = False

    @property
    def changes(self) -> tuple[int, ...]:
        """The matrices at which the routing changed."""
        return tuple(span.start for span in self.spans[1:])

    @property
    def utilisation(self) -> Tensor:
        """(time, links): load / capacity, 0 where the capacity is infinite."""
        return self.loads / torch.tensor(self.network.capacity, dtype=self.loads.dtype)

    @property
    def overloaded(self) -> Tensor:
        """(time, links) bool: more load than capacity."""
        return self.utilisation > 1

    def drift_ratio(self, time: int, window: int = 288) -> Tensor:
        """(links,) mean load of the window from `time` on / that of the window before it; 1 where both are 0.

        The ratio has the hour of the day in it unless windows are whole days. Raises ArgumentError where they do not fit.
        """
        check_count("drift_ratio", "window", window)
        if not isinstance(time, int) or not window <= time <= len(self.loads) - window:
            raise ArgumentError(
                f"drift_ratio: two windows of {window} matrices about time {time!r} do not fit in {len(self.loads)}; "
                "use a shorter window."
            )
        return ratio(self.loads[time : time + window].mean(0), self.loads[time - window : time].mean(0))

    def effect(self, start: int = 0, end: int | None = None) -> Tensor:
        """(links,) mean load of matrices start..end-1 / what it would have been had nothing failed; 1 where both are 0."""
        part = slice(start, len(self.loads) if end is None else end)
        if not len(self.loads[part]):
            raise ArgumentError(f"effect: there is no matrix in {start}..{end}; the last is {len(self.loads) - 1}.")
        whole = route(self.network, ecmp=self.ecmp).loads(self.demands[part])
        return ratio(self.loads[part].mean(0), whole.mean(0))


def ratio(after: Tensor, before: Tensor) -> Tensor:
    """after / before, 1 where both are 0."""
    return torch.where((after == 0) & (before == 0), torch.ones_like(after), after / before)


def drift_class(ratios: Tensor) -> list[str]:
    """ "drastic" (at least twice or at most half), "moderate" (at least 1.1 times, or the inverse) or "none", for each ratio.

    >>> drift_class(torch.tensor([11.4, 1.9, 1.0, 0.9, 0.3]))
    ['drastic', 'moderate', 'none', 'moderate', 'drastic']
    """
    size = torch.maximum(ratios, 1 / ratios)
    return ["drastic" if value >= DRASTIC else "moderate" if value >= MODERATE else "none" for value in size.tolist()]


def link_loads(
    network: Network,
    demands: Tensor,
    changes: Sequence[Change] = (),
    *,
    ecmp: bool = False,
    converge_delay: int = 0,
    on_partition: str = "drop",
) -> LinkLoads:
    """Route traffic matrices over a network whose links and nodes fail and are repaired.

    demands: (time, source, target), Mbit/s; changes: failures and repairs, in any order; those of one time count as they stand in
    the list, and those behind the last matrix are not reached. ecmp: divide equally over paths of equal cost; converge_delay:
    matrices until the routing knows of a change; on_partition: "drop" loses the demands between parts that failures have cut apart,
    "error" refuses such a list. Demands of a failed node are lost in any case. Raises ArgumentError.

    >>> line = Network("line", ("a", "b"), ((0, 1), (1, 0)), (1.0, 1.0), (10.0, 10.0))
    >>> found = link_loads(line, torch.ones(3, 2, 2), [LinkDown(1, ("a", "b")), LinkUp(2, ("a", "b"))])
    >>> found.loads.tolist(), found.lost.tolist()
    ([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]], [0.0, 2.0, 0.0])
    """
    check_demands("link_loads", network, demands)
    spans = plan(network, len(demands), changes, ecmp=ecmp, converge_delay=converge_delay, on_partition=on_partition)
    loads = torch.cat([span.routing.loads(demands[span.start : span.end]) for span in spans])
    lost = torch.cat([span.routing.lost(demands[span.start : span.end]) for span in spans])
    return LinkLoads(network, demands, loads, lost, spans, ecmp)


def plan(
    network: Network,
    steps: int,
    changes: Sequence[Change] = (),
    *,
    ecmp: bool = False,
    converge_delay: int = 0,
    on_partition: str = "drop",
) -> tuple[Span, ...]:
    """The spans of `steps` matrices in which one routing each is in force. Arguments as those of `link_loads`."""
    check_count("link_loads", "converge_delay", converge_delay, low=0)
    if on_partition not in ("drop", "error"):
        raise ArgumentError(f"link_loads: on_partition must be 'drop' or 'error', got {on_partition!r}.")
    history = _history(network, changes)
    if on_partition == "error":
        _refuse_partition(network, history)
    routes = Routes(network, ecmp=ecmp)
    times = {time + late for time, _, _ in history for late in (0, converge_delay)}
    states: dict[tuple[frozenset[int], frozenset[int]], int] = {(frozenset(), frozenset()): 0}
    spans: list[Span] = []
    for start, end in pairwise([0, *sorted(times & set(range(1, steps))), steps]):
        avoided = _down(history, start - converge_delay)
        broken = _down(history, start) - avoided
        state = states.setdefault((avoided, broken), len(states))
        if spans and spans[-1].state == state:
            spans[-1] = replace(spans[-1], end=end)
            continue
        routing = routes.without(avoided)
        spans.append(Span(start, end, state, avoided, broken, routing.without(routing.over(broken)) if broken else routing))
    return tuple(spans)


def random_failures(
    network: Network, steps: int, *, between: float, repair: float, what: str = "links", seed: int = 0
) -> tuple[Change, ...]:
    """Failures and repairs of every cable (or node), independent of each other, with exponential times, in the order of time.

    between: mean matrices from a repair to the next failure of the same part; repair: mean matrices from failure to repair; what:
    "links" (both directions together) or "nodes". In the long run a part is down for repair / (between + repair) of the time. What is
    repaired within the matrix of its failure is left out. Raises ArgumentError.

    >>> line = Network("line", ("a", "b"), ((0, 1), (1, 0)), (1.0, 1.0), (10.0, 10.0))
    >>> random_failures(line, 1000, between=300.0, repair=50.0, seed=1)
    (link_down(256, link=(0, 1)), link_up(281, link=(0, 1)))
    """
    check_count("random_failures", "steps", steps)
    check_range("random_failures", "between", between, 1e-9)
    check_range("random_failures", "repair", repair, 1e-9)
    if what not in ("links", "nodes"):
        raise ArgumentError(f"random_failures: what must be 'links' or 'nodes', got {what!r}.")
    cables = sorted({(min(ends), max(ends)) for ends in network.links})
    parts: Sequence[tuple[int, int] | int] = cables if what == "links" else range(len(network.nodes))
    found: list[tuple[int, int, Change]] = []
    for number, part in enumerate(parts):
        draws = numpy.random.default_rng(derive(seed, what, part))
        clock = 0.0
        while (clock := clock + draws.exponential(between)) < steps:
            down, clock = int(clock), clock + draws.exponential(repair)
            if int(clock) == down:
                continue
            pair = _failure(part, down), _repair(part, int(clock))
            found += [(change.time, number, change) for change in pair if change.time < steps]
    return tuple(change for _, _, change in sorted(found, key=lambda item: item[:2]))


def _failure(part: tuple[int, int] | int, time: int) -> Change:
    return NodeDown(time, part) if isinstance(part, int) else LinkDown(time, part)


def _repair(part: tuple[int, int] | int, time: int) -> Change:
    return NodeUp(time, part) if isinstance(part, int) else LinkUp(time, part)


History = list[tuple[int, frozenset[int], frozenset[int]]]  # from a time on: links down, nodes down


def _history(network: Network, changes: Sequence[Change]) -> History:
    """What is down from each time of a change on."""
    for change in changes:
        if not isinstance(change, Change):
            raise ArgumentError(
                f"link_loads: a change is one of {', '.join(CHANGES)}, got {change!r}. Write link_down(100, (0, 1)), say."
            )
        if not isinstance(change.time, int) or isinstance(change.time, bool) or change.time < 0:
            raise ArgumentError(f"link_loads: the time of {change!r} must be the number of a matrix, >= 0.")
    links: set[int] = set()
    nodes: set[int] = set()
    history: History = []
    for change in sorted(changes, key=lambda item: item.time):
        if isinstance(change, (LinkDown, LinkUp)):
            (links.update if isinstance(change, LinkDown) else links.difference_update)(_both(network, change))
        else:
            (nodes.add if isinstance(change, NodeDown) else nodes.discard)(network.node(change.node))
        down = frozenset(links.union(*(network.links_of(node) for node in nodes)))
        if history and history[-1][0] == change.time:
            history.pop()
        history.append((change.time, down, frozenset(nodes)))
    return history


def _both(network: Network, change: LinkDown | LinkUp) -> set[int]:
    """The links that a change names; with `both` the way back counts where there is one."""
    if not isinstance(change.link, (tuple, list)) or len(change.link) != 2:
        raise ArgumentError(f"link_loads: the link of {change!r} must be a pair of nodes.")
    ends = tuple(map(network.node, change.link))
    found = {network.link(*ends)}
    return found | {network.links.index(ends[::-1])} if change.both and ends[::-1] in network.links else found


def _down(history: History, time: int) -> frozenset[int]:
    """The links that are down at a time."""
    return next((down for start, down, _ in reversed(history) if start <= time), frozenset())


def _refuse_partition(network: Network, history: History) -> None:
    """Refuse failures after which nodes that work cannot reach each other."""
    for time, down, failed in history:
        cut = ~route(network, down=down).reached
        cut[sorted(failed)] = False
        cut[:, sorted(failed)] = False
        if cut.any():
            source, target = cut.nonzero()[0].tolist()
            raise ArgumentError(
                f"link_loads: from matrix {time} on, {int(cut.sum())} pairs of nodes have no path, {network.nodes[source]} > "
                f"{network.nodes[target]} for one. Take the failure out, or use on_partition='drop'."
            )
