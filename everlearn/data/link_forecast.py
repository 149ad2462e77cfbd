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

import numpy
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.random import derive
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.demands import Traffic
from everlearn.data.indexed import place
from everlearn.data.link_loads import Change, Span, link_loads
from everlearn.data.naming import named
from everlearn.data.network import Network, Node
from everlearn.data.window_stream import Windows, WindowStream

OBSERVED = ("targets", "all")


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
    layout = Windows(every if observe == "all" else targets, targets, window, horizon, bool(missing), "loads")
    kept = numpy.random.default_rng(derive(seed, "missing")).random(steps) >= missing
    held_out = HeldOutStates(loads.spans, network, data.demands[steps:], layout) if test is not None else ()
    names = network.link_names
    stream = WindowStream(
        loads.loads,
        kept,
        layout,
        features=[names[link] for link in layout.observed],
        targets=[names[link] for link in targets],
        batch=batch,
        minutes=data.step_minutes,
        changes=[span.start for span in loads.spans[1:]],
        states=[span.state for span in loads.spans],
        announced=bool(boundaries),
        held_out=held_out,
    )
    stream.network_loads = loads
    stream.deployed = stream.event_at(deployed * steps)
    return stream


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
