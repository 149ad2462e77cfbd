"""Networks that forecast one series from a window of it, as values that call strings name: `cfc(units=16)`, `dense(hidden=(32, 32))`.

    network: windows (batch, time, 1), and dt (batch, time) where the times between samples are known -> (batch, 1)

Each tells the learning rate and the passes over its first training data with which it was published or measured.
Reference: Ayoub et al. (2024), arXiv 2404.05304 (liquid networks and multilayer perceptrons on link loads); the sizes are ours.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.spec import describe
from everlearn.nn.closed_form import CfCCell, WiredCfCCell
from everlearn.nn.liquid import LiquidCell, LiquidRNN
from everlearn.nn.time_constant import LTCCell
from everlearn.nn.wiring import auto_ncp, fully_connected

MOST_NEURONS = 32  # of LTC cells, whose time grows with the square of it


class Series(nn.Module):
    """A recurrent liquid network whose last output is the answer; dt None means that no sample is missing."""

    def __init__(self, cell: LiquidCell):
        super().__init__()
        self.network = LiquidRNN(cell, return_sequences=False, proj_size=1)

    def forward(self, x: Tensor, dt: Tensor | None = None) -> Tensor:
        return self.network(x, dt=dt)[0]


class Flat(nn.Module):
    """Dense layers over the window. They take no notice of dt."""

    def __init__(self, window: int, hidden: tuple[int, ...]):
        super().__init__()
        widths = [window, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, x: Tensor, dt: Tensor | None = None) -> Tensor:
        return self.layers(x.squeeze(-1))


@dataclass(frozen=True)
class CfC:
    """A closed-form liquid network. units, backbone: neurons, and the width of the layer before them; mode: as of `CfCCell`."""

    units: int = 16
    backbone: int = 32
    mode: str = "default"
    lr: float = 0.005
    epochs: int = 8
    name: ClassVar[str] = "cfc"

    def __post_init__(self) -> None:
        _check(self, units=self.units, backbone=self.backbone)

    def make(self, window: int) -> nn.Module:
        """The network for windows of a length, its weights drawn from torch's global generator."""
        return Series(CfCCell(1, self.units, mode=self.mode, backbone_units=self.backbone))

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True)
class LTC:
    """A liquid time-constant network of `units` fully connected neurons, at most 32: its time grows with their square."""

    units: int = 8
    lr: float = 0.005
    epochs: int = 8
    name: ClassVar[str] = "ltc"

    def __post_init__(self) -> None:
        _check(self, units=self.units)
        if self.units > MOST_NEURONS:
            raise ArgumentError(f"ltc: units must be at most {MOST_NEURONS}, got {self.units}. Use cfc(units={self.units}).")

    def make(self, window: int) -> nn.Module:
        """The network for windows of a length, its weights drawn from torch's global generator."""
        return Series(LTCCell(fully_connected(1, self.units)))

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True)
class NCP:
    """Neurons wired as a neural circuit policy, inter -> command -> motor, of a cell "cfc" or "ltc".

    units: all neurons; sparsity: part of the synapses that is left out.
    """

    units: int = 16
    cell: str = "cfc"
    sparsity: float = 0.5
    lr: float = 0.005
    epochs: int = 8
    name: ClassVar[str] = "ncp"

    def __post_init__(self) -> None:
        _check(self, units=self.units)
        if self.cell not in ("cfc", "ltc"):
            raise ArgumentError(f"ncp: cell must be 'cfc' or 'ltc', got {self.cell!r}.")

    def make(self, window: int) -> nn.Module:
        """The network for windows of a length, its weights drawn from torch's global generator."""
        wiring = auto_ncp(1, self.units, 1, sparsity=self.sparsity)
        return Series(WiredCfCCell(wiring) if self.cell == "cfc" else LTCCell(wiring))

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True)
class Dense:
    """A multilayer perceptron over the window, which cannot see that samples are missing. hidden: widths of its layers."""

    hidden: tuple[int, ...] = (32, 32)
    lr: float = 0.002
    epochs: int = 30
    name: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        if not isinstance(self.hidden, (tuple, list)):
            raise ArgumentError(f"dense: hidden must be widths such as (32, 32), got {self.hidden!r}.")
        _check(self, **{f"hidden[{place}]": width for place, width in enumerate(self.hidden)})

    def make(self, window: int) -> nn.Module:
        """The network for windows of a length, its weights drawn from torch's global generator."""
        return Flat(window, tuple(self.hidden))

    def __repr__(self) -> str:
        return describe(self)


def _check(network: "SeriesNetwork", **counts: int) -> None:
    for argument, count in counts.items():
        check_count(network.name, argument, count)
    check_range(network.name, "lr", network.lr, 0.0)
    check_count(network.name, "epochs", network.epochs)


SeriesNetwork = CfC | LTC | NCP | Dense
SERIES = {item.name: item for item in (CfC, LTC, NCP, Dense)}
