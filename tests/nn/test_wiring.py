"""Wirings: sizes by hand, draws of the package ncps 1.0.1 for the same seed, and no neuron left without a source."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.nn.wiring import Wiring, auto_ncp, fully_connected, ncp, random_wiring


@pytest.mark.parametrize(
    ("units", "outputs", "sparsity", "inter", "command", "sensory_fanout", "inter_fanout", "recurrent", "fanin"),
    [(16, 1, 0.5, 9, 6, 4, 3, 6, 3), (32, 4, 0.5, 17, 11, 8, 5, 11, 5), (64, 8, 0.75, 34, 22, 8, 5, 11, 5)],
)
def test_sizes_by_hand(units, outputs, sparsity, inter, command, sensory_fanout, inter_fanout, recurrent, fanin):
    wiring = auto_ncp(9, units, outputs, sparsity=sparsity)
    motors, commands, inters = (list(layer) for layer in reversed(wiring.layers))
    assert (len(inters), len(commands), len(motors)) == (inter, command, outputs)
    assert motors + commands + inters == list(range(units))
    assert int(wiring.sensory.count_nonzero(1).min()) >= sensory_fanout  # more where a neuron was left out
    assert int(wiring.inner[inters][:, commands].count_nonzero(1).min()) >= inter_fanout
    assert 1 <= int(wiring.inner[commands][:, commands].count_nonzero()) <= recurrent
    assert int(wiring.inner[commands][:, motors].count_nonzero(0).min()) >= fanin
    same = ncp(
        9,
        inter=inter,
        command=command,
        motor=outputs,
        sensory_fanout=sensory_fanout,
        inter_fanout=inter_fanout,
        recurrent_command=recurrent,
        motor_fanin=fanin,
    )
    assert torch.equal(same.inner, wiring.inner) and torch.equal(same.sensory, wiring.sensory)


def test_the_driving_policy_has_nineteen_neurons():
    wiring = ncp(4, inter=12, command=6, motor=1, sensory_fanout=4, inter_fanout=4, recurrent_command=6, motor_fanin=6)
    assert wiring.units == 19
    assert int(wiring.inner[1:7, 0].count_nonzero()) == 6  # the motor neuron listens to all six


def test_draws_are_those_of_the_peer():
    """From ncps.wirings AutoNCP(16, 1, 0.5), build(1); FullyConnected and Random(4, sparsity_level=0.5), build(1)."""
    wiring = auto_ncp(1, 16, 1)
    first = [(a, b, int(wiring.inner[a, b])) for a, b in wiring.inner.nonzero().tolist()][:12]
    assert first == [
        *[(1, 0, 1), (1, 2, 1), (2, 0, 1), (2, 3, 1), (3, 0, 1), (4, 0, 1), (4, 1, 1), (5, 0, 1), (5, 2, 1)],
        *[(6, 0, 1), (6, 4, -1), (7, 4, -1)],
    ]
    assert wiring.sensory.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, -1, -1, 1, 1, -1, -1, -1, 1]]
    assert wiring.synapse_count == int(wiring.inner.abs().sum()) and wiring.sensory_synapse_count == 9
    drawn = random_wiring(1, 4, sparsity=0.5)
    assert drawn.inner.tolist() == [[0, 0, 0, 0], [0, 0, 1, -1], [1, 0, 1, 1], [0, -1, 1, -1]]
    assert drawn.sensory.abs().tolist() == [[0, 1, 0, 1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(3, 30), st.floats(0.1, 1.0), st.integers(0, 1000))
def test_no_neuron_is_left_out_and_nothing_runs_backward(inputs, outputs, more, sparsity, seed):
    wiring = auto_ncp(inputs, outputs + more, outputs, sparsity=sparsity, seed=seed)
    inters, commands, motors = (list(layer) for layer in wiring.layers)
    assert wiring.sensory[:, inters].any(0).all() and not wiring.sensory[:, commands + motors].any()
    assert wiring.inner[inters][:, commands].any(0).all() and not wiring.inner[inters][:, inters + motors].any()
    assert wiring.inner[commands][:, motors].any(1).all() and not wiring.inner[commands][:, inters].any()
    assert not wiring.inner[motors].any()
    assert set(wiring.inner.unique().tolist()) <= {-1, 0, 1}
    again = auto_ncp(inputs, outputs + more, outputs, sparsity=sparsity, seed=seed)
    assert torch.equal(again.inner, wiring.inner) and torch.equal(again.sensory, wiring.sensory)


def test_two_thirds_of_all_synapses_are_excitatory():
    share = (fully_connected(20, 60).inner == 1).double().mean().item()
    assert abs(share - 2 / 3) < 4 * (2 / 9 / 3600) ** 0.5  # four standard deviations of a mean of 3,600 draws
    assert fully_connected(2, 5, self_connections=False).inner.diagonal().tolist() == [0] * 5
    assert not torch.equal(fully_connected(2, 9).inner, fully_connected(2, 9, seed=1).inner)


def test_a_wiring_is_made_again_of_its_configuration():
    wiring = auto_ncp(2, 12, 3, seed=5)
    again = Wiring.from_config(json.loads(json.dumps(wiring.get_config())))
    assert torch.equal(again.inner, wiring.inner) and torch.equal(again.sensory, wiring.sensory)
    assert again.inner.dtype == again.sensory.dtype == torch.int8
    assert (again.outputs, again.layers) == (wiring.outputs, wiring.layers)


def test_the_graph_has_an_edge_for_each_synapse_with_its_sign():
    wiring = auto_ncp(2, 12, 3)
    graph = wiring.to_networkx()
    assert len(graph) == 14 and graph.number_of_edges() == wiring.synapse_count + wiring.sensory_synapse_count
    layer_of = {i: name for name, layer in zip(("inter", "command", "motor"), wiring.layers, strict=True) for i in layer}
    for (start, source), (_, target), polarity in graph.edges(data="polarity"):
        matrix = wiring.sensory if start == "sensory" else wiring.inner
        assert polarity == matrix[source, target] and start in ("sensory", layer_of[source])
    assert {name for name, _ in graph} == {"sensory", "inter", "command", "motor"}
    plain = fully_connected(1, 3).to_networkx()
    assert sorted(plain.successors(("sensory", 0))) == [("neuron", 0), ("neuron", 1), ("neuron", 2)]


def test_refusals_name_the_argument():
    for call, message in (
        (lambda: auto_ncp(1, 8, 6), "outputs must be below units - 2 = 6, got 6"),
        (lambda: auto_ncp(1, 8, 2, sparsity=0.05), "sparsity must be a number between 0.1 and 1"),
        (lambda: fully_connected(1, 4, 5), "outputs=5 is more than units=4"),
        (lambda: random_wiring(1, 4, sparsity=1.0), "sparsity must be below 1"),
        (lambda: fully_connected(0, 4), "inputs must be an int >= 1"),
        (
            lambda: ncp(
                1, inter=2, command=3, motor=1, sensory_fanout=3, inter_fanout=1, recurrent_command=0, motor_fanin=1
            ),
            "sensory_fanout=3 is more than the 2 inter neurons",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()
