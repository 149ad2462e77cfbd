"""Link loads as a stream of forecasts: a window of past loads, and the load `horizon` matrices after its end.

    x[i] = loads[t_i - window + 1 .. t_i]        y[i] = loads[t_i + horizon]        at every sample t_i that was not lost

Nothing comes before it is known: the answer of a window stands in the stream behind every window that ends before the answer's own
time. With horizon=1 it comes with its window (predict, then learn); with a longer one the same ids come again with y later.
A failure is announced, if at all, at the first window that ends in it, never earlier; the windows after it hold loads of before, as
they would in service. Targets are real numbers, one column per link; `schema.targets` holds the names of these links.

Reference: Ayoub et al. (2024), arXiv 2404.05304 (link-load prediction under failures). Gama et al. (2013), On evaluating stream
learning algorithms, Machine Learning 90 (prequential).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Event, X
from everlearn.core.random import derive
from everlearn.core.stream import HeldOut, Schema, Stream
from everlearn.data.demands import Traffic
from everlearn.data.indexed import place
from everlearn.data.link_loads import Change, LinkLoads, Span, link_loads
from everlearn.data.naming import evenly, named
from everlearn.data.network import Network, Node

CHECKPOINTS = 10
OBSERVED = ("targets", "all")
BOUNDARY, INPUT, ANSWER = range(3)  # kinds of events


@named
def link_forecast(
    data: Traffic,
    *,
    changes: Sequence[Change] = (),
    window: int = 24,
    horizon: int = 1,
    links: Sequence[tuple[Node, Node]] | None = None,
    observe: str = "targets",
    batch: int = 1,
    boundaries: bool = False,
    missing: float = 0.0,
    ecmp: bool = False,
    converge_delay: int = 0,
    deployed: float = 0.5,
    test: float | None = 0.1,
    seed: int = 0,
) -> Stream:
    """Forecast the loads of a network's links while links and nodes fail.

    changes: failures and repairs; window: loads in x; horizon: matrices from the end of a window to its answer; links: the (source,
    target) nodes of the links to forecast, None for all; observe: "targets" puts these links in x, "all" every link; batch: windows
    that arrive together; boundaries: announce changes by their state's number, 0 for the whole network; missing: part of the samples
    that is lost (drawn by the seed): x is then a dict of `loads` and `dt`, the matrices since the sample before; ecmp, converge_delay:
    those of `link_loads`; deployed: part of the streamed matrices that is the model's first training; test: the last part of the
    matrices, never streamed, on which learners are judged under every state of the network that lasts, None for no such sets.

    x: (batch, window, links observed) float32, y: (batch, links forecast) float32, Mbit/s; time: minutes from the first matrix to the
    window's end. Raises ArgumentError, DataError.
    """
    if not isinstance(data, Traffic):
        kind = getattr(data, "name", type(data).__name__)
        raise ArgumentError(f"link_forecast: the first argument must be traffic such as abilene, got {kind}.")
    for argument, value in {"window": window, "horizon": horizon, "batch": batch}.items():
        check_count("link_forecast", argument, value)
    check_range("link_forecast", "missing", missing, 0.0, 0.9)
    check_range("link_forecast", "deployed", deployed, 0.0, 1.0)
    if observe not in OBSERVED:
        raise ArgumentError(f"link_forecast: observe must be 'targets' or 'all', got {observe!r}.")
    network = data.network
    every = tuple(range(len(network.links)))
    targets = every if links is None else _chosen(network, links)
    steps = len(data) - _held_out_steps(data, test, window + horizon)
    if steps < window + horizon:
        raise DataError(
            f"link_forecast: {data.name} has {steps} matrices to learn from; window={window} and horizon={horizon} need "
            f"{window + horizon}. Use a shorter window."
        )
    loads = link_loads(network, data.demands[:steps], changes, ecmp=ecmp, converge_delay=converge_delay)
    layout = Windows(every if observe == "all" else targets, targets, window, horizon, bool(missing))
    kept = numpy.random.default_rng(derive(seed, "missing")).random(steps) >= missing
    held_out = HeldOutStates(loads.spans, network, data.demands[steps:], layout) if test is not None else ()
    stream = LinkForecast(loads, kept, layout, data.step_minutes, batch=batch, announced=bool(boundaries), held_out=held_out)
    stream.deployed = stream.event_at(deployed * steps)
    return stream


class Windows(NamedTuple):
    """Which loads a window shows. observed, targets: numbers of links; gaps: whether x tells the time between samples."""

    observed: tuple[int, ...]
    targets: tuple[int, ...]
    window: int
    horizon: int
    gaps: bool

    def rows(self, loads: Tensor, samples: numpy.ndarray, last: numpy.ndarray) -> tuple[X, Tensor]:
        """x and y of the windows that end at places `last` of `samples`, the rising numbers of the matrices that were seen."""
        shown = samples[last[:, None] + numpy.arange(1 - self.window, 1)]
        x = loads[torch.from_numpy(shown)][..., list(self.observed)].float()
        y = loads[torch.from_numpy(samples[last] + self.horizon)][..., list(self.targets)].float()
        if not self.gaps:
            return x, y
        before = numpy.concatenate([[-1], samples])[last[:, None] + numpy.arange(1 - self.window, 1)]
        return {"loads": x, "dt": torch.from_numpy((shown - before).astype(numpy.float32))}, y


class LinkForecast(Stream):
    """Windows in the order of time, in batches that never reach over a change of the routing. Tables are made once, x on demand."""

    def __init__(
        self,
        loads: LinkLoads,
        kept: numpy.ndarray,
        layout: Windows,
        step_minutes: float,
        *,
        batch: int,
        announced: bool,
        held_out: Sequence[HeldOut],
    ):
        names = loads.network.link_names
        features, targets = ([names[link] for link in chosen] for chosen in (layout.observed, layout.targets))
        self.name = "link_forecast"
        self.schema = Schema(
            (layout.window, len(layout.observed)), torch.float32, (), tuple(features), targets=tuple(targets)
        )
        self.held_out = held_out
        self.boundaries = announced
        self.headline = "prequential"
        self.network_loads = loads
        self._layout = layout
        self._minutes = step_minutes
        self._samples = numpy.flatnonzero(kept)
        self._last = _windows(kept, self._samples, layout)
        end = self._samples[self._last]
        starts = numpy.array([span.start for span in loads.spans])
        self._low, self._high, spans = _batches(numpy.searchsorted(starts, end, side="right") - 1, batch)
        self._first = end[self._low]  # the time at which the first window of each batch ends
        answered = end[self._high - 1] + layout.horizon  # the time at which all answers of a batch are known
        self._kind, self._number, self.late = _order(self._first, answered, spans if announced else None)
        self._inputs = numpy.flatnonzero(self._kind == INPUT)  # the event of each batch
        self._states = [loads.spans[number].state for number in spans]
        changed = numpy.searchsorted(answered, starts[1:])  # the first batch whose answers know of a change
        self.changes = tuple(dict.fromkeys(self._inputs[changed[changed < len(answered)]].tolist()))
        begun = self._inputs[1:][spans[1:] != spans[:-1]] - announced
        if len(held_out):
            self.checkpoints = (*begun.tolist(), len(self)) if len(begun) else evenly(len(self), CHECKPOINTS)

    def __len__(self) -> int:
        return len(self._kind)

    def __getitem__(self, index: int) -> Event:
        index = place(index, len(self))
        number = int(self._number[index])
        if self._kind[index] == BOUNDARY:
            return Boundary(self._states[number])
        last = self._last[self._low[number] : self._high[number]]
        end = self._samples[last]
        x, y = self._layout.rows(self.network_loads.loads, self._samples, last)
        return Batch(
            x,
            None if self.late and self._kind[index] == INPUT else y,
            time=torch.from_numpy(end * self._minutes),
            id=tuple(map(str, end.tolist())) if self.late else None,
        )

    def event_at(self, time: float) -> int:
        """The number of the first event whose windows end at a matrix or later, the last one at most."""
        number = int(numpy.searchsorted(self._first, time))
        return int(self._inputs[min(number, len(self._inputs) - 1)])


def _windows(kept: numpy.ndarray, samples: numpy.ndarray, layout: Windows) -> numpy.ndarray:
    """The places in `samples` at which a window ends whose answer was seen too."""
    last = numpy.arange(layout.window - 1, len(samples))
    answer = samples[last] + layout.horizon
    inside = answer < len(kept)
    last = last[inside][kept[answer[inside]]]
    if not len(last):
        raise DataError(
            f"link_forecast: of {len(kept)} matrices {len(samples)} are seen, and no window of {layout.window} has its answer among "
            "them. Lose fewer samples, or use a shorter window."
        )
    return last


def _batches(span: numpy.ndarray, batch: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """(first row, end, span) of each batch; rows of one batch have one span."""
    begins = numpy.flatnonzero(numpy.diff(span, prepend=-1))
    ends = numpy.append(begins[1:], len(span))
    low = numpy.concatenate([numpy.arange(begin, end, batch) for begin, end in zip(begins, ends, strict=True)])
    return low, numpy.minimum(low + batch, ends[numpy.searchsorted(begins, low, side="right") - 1]), span[low]


def _order(
    first: numpy.ndarray, answered: numpy.ndarray, spans: numpy.ndarray | None
) -> tuple[numpy.ndarray, numpy.ndarray, bool]:
    """(kind, batch) of each event, and whether answers come late. spans: announced where they begin, None for not at all."""
    number = numpy.arange(len(first))
    due = numpy.searchsorted(first, answered)  # answers come before the first batch that may know them
    late = bool((due > number + 1).any())
    begun = number[:0] if spans is None else number[numpy.diff(spans, prepend=-1) != 0]
    kinds = [numpy.full(len(number), INPUT), numpy.full(len(begun), BOUNDARY), numpy.full(late * len(number), ANSWER)]
    numbers = [number, begun, number[: late * len(number)]]
    places = [
        3 * number + 2,
        3 * begun + 1,
        3 * due[: late * len(number)],
    ]  # before a batch its boundary, before that answers
    kind, source, where = map(numpy.concatenate, (kinds, numbers, places))
    order = numpy.lexsort((source, where))
    return kind[order], source[order], late


class HeldOutStates(Sequence[HeldOut]):
    """One set per lasting state of the network: the held-out matrices as that state would route them, made when asked for."""

    def __init__(self, spans: Sequence[Span], network: Network, demands: Tensor, layout: Windows):
        lasting = {span.state: span for span in spans if not span.broken}
        self._spans = [lasting[state] for state in sorted(lasting)]
        self._network = network
        self._demands = demands
        self._layout = layout

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> HeldOut:
        span = self._spans[place(index, len(self))]
        samples = numpy.arange(len(self._demands))
        last = samples[self._layout.window - 1 : len(samples) - self._layout.horizon]
        x, y = self._layout.rows(span.routing.loads(self._demands), samples, last)
        down = ", ".join(self._network.link_names[link] for link in sorted(span.avoided))
        return HeldOut(f"{span.state}: {f'without {down}' if down else 'whole network'}", x, y)


def _chosen(network: Network, links: Sequence[tuple[Node, Node]]) -> tuple[int, ...]:
    """The numbers of the links that are named, each once."""
    if (
        not isinstance(links, (tuple, list))
        or not links
        or not all(isinstance(i, (tuple, list)) and len(i) == 2 for i in links)
    ):
        raise ArgumentError(f"link_forecast: links must be pairs of nodes such as ((0, 1), (1, 2)), got {links!r}.")
    chosen = tuple(network.link(*ends) for ends in links)
    if len(set(chosen)) < len(chosen):
        raise ArgumentError(f"link_forecast: a link stands twice in links={links!r}.")
    return chosen


def _held_out_steps(data: Traffic, test: float | None, least: int) -> int:
    """The number of matrices that are held out. Refuses a part in which no window has its answer."""
    if test is None:
        return 0
    check_range("link_forecast", "test", test, 0.0, 1.0)
    count = round(len(data) * test)
    if test in (0, 1) or count < least:
        raise ArgumentError(
            f"link_forecast: test={test!r} holds out {count} of {len(data)} matrices; a window and its answer need {least}. "
            "Raise test, or use test=None."
        )
    return count
