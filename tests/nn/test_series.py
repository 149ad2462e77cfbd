"""Networks of one series: sizes, what they heed, and what is refused."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.spec import build, parse
from everlearn.nn.series import LTC, NCP, SERIES, CfC, Dense

X = torch.linspace(-1, 1, 12).reshape(2, 6, 1)
DT = torch.tensor([[1.0, 1.0, 2.0, 1.0, 3.0, 1.0]]).repeat(2, 1)


def made(network, window=6):
    with isolated(0, "network"):
        return network.make(window)


def parameters(network, window):
    return sum(p.numel() for p in made(network, window).parameters())


def test_sizes():
    """Dense 24-32-32-1; CfC of 16 units with 32 before them: (17 + 1) 32 + 4 (32 + 1) 16, and a layer to the answer of 17."""
    assert parameters(Dense(), 24) == 24 * 32 + 32 + 32 * 32 + 32 + 33
    assert parameters(CfC(), 24) == 18 * 32 + 4 * 33 * 16 + 17
    assert parameters(Dense(hidden=()), 24) == 25
    assert (
        parameters(LTC(units=8), 24) == 3 * 8 + 4 * 64 + 4 * 8 + 1 + 1 + 8 + 8 + 9
    )  # g, vleak, C; w, sigma, mu, E; in and out


@pytest.mark.parametrize("network", [CfC(), CfC(mode="pure"), LTC(), NCP(), NCP(cell="ltc"), Dense()], ids=repr)
def test_liquid_networks_heed_the_time_between_samples(network):
    model = made(network)
    assert model(X).shape == (2, 1)
    assert torch.equal(model(X), made(network)(X))  # the seed around it decides
    assert torch.allclose(model(X, torch.ones(2, 6)), model(X), atol=1e-6)
    assert torch.equal(model(X, DT), model(X)) == isinstance(network, Dense)
    text = repr(network)
    assert build(parse(text), SERIES) == network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CfC(units=0), "cfc: units must be an int >= 1, got 0"),
        (lambda: CfC(mode="other").make(6), "mode must be one of default, no_gate, pure"),
        (lambda: LTC(units=33), r"ltc: units must be at most 32, got 33\. Use cfc\(units=33\)"),
        (lambda: NCP(cell="lstm"), "ncp: cell must be 'cfc' or 'ltc', got 'lstm'"),
        (lambda: NCP(units=3).make(6), "auto_ncp"),
        (lambda: Dense(hidden=32), r"dense: hidden must be widths such as \(32, 32\), got 32"),
        (lambda: Dense(hidden=(32, 0)), r"dense: hidden\[1\] must be an int >= 1"),
        (lambda: Dense(lr=-1.0), "dense: lr"),
        (lambda: NCP(epochs=0), "ncp: epochs"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
