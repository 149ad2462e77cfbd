"""Wirings of liquid cells: which neuron acts on which, and with what sign.

    sensory -> inter -> command (recurrent) -> motor            a neural circuit policy (NCP)

A wiring is two matrices with entries -1, 0 and 1, indexed [from, to]: `sensory` (inputs, units) and `inner` (units, units). Neurons
are numbered motors first, then command, then inter neurons. Draws are those of the package `ncps` 1.0.1 for the same seed.
References: Lechner et al. (2020), Neural circuit policies enabling auditable autonomy, Nature Machine Intelligence 2, 642-652.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range

LAYERS = ("inter", "command", "motor")
SIGNS = (-1, 1, 1)  # two excitatory synapses to one inhibitory, where all neurons are alike


@dataclass(frozen=True, eq=False)
class Wiring:
    """Which synapses exist, and their signs.

    sensory: (inputs, units) int8; inner: (units, units) int8, both indexed [from, to] with entries -1, 0, 1; layers: the numbers of
    the neurons of each layer in the order in which a signal passes them; the last layer's first `outputs` neurons are read.

    >>> wiring = auto_ncp(3, 16, 1)
    >>> wiring.inputs, wiring.units, wiring.outputs, [len(layer) for layer in wiring.layers]
    (3, 16, 1, [9, 6, 1])
    """

    sensory: Tensor
    inner: Tensor
    outputs: int
    layers: tuple[tuple[int, ...], ...]

    @property
    def inputs(self) -> int:
        return self.sensory.shape[0]

    @property
    def units(self) -> int:
        return self.sensory.shape[1]

    @property
    def sensory_synapse_count(self) -> int:
        return int(self.sensory.count_nonzero())

    @property
    def synapse_count(self) -> int:
        return int(self.inner.count_nonzero())

    def get_config(self) -> dict[str, Any]:
        """Lists and numbers that `Wiring.from_config` makes the same wiring of, for a file of JSON or YAML.

        >>> wiring = auto_ncp(3, 16, 1)
        >>> torch.equal(Wiring.from_config(wiring.get_config()).inner, wiring.inner)
        True
        """
        matrices = {"sensory": self.sensory.tolist(), "inner": self.inner.tolist()}
        return {**matrices, "outputs": self.outputs, "layers": [list(layer) for layer in self.layers]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Wiring":
        """The wiring of `get_config`."""
        sensory, inner = (numpy.array(config[name], dtype=numpy.int8) for name in ("sensory", "inner"))
        return _wiring(sensory, inner, config["outputs"], config["layers"])

    def to_networkx(self) -> Any:
        """A `networkx.DiGraph` with an edge for each synapse, its `polarity` -1 or 1, from ("sensory", k) or (layer, i) to (layer, i).

        layer: "inter", "command" or "motor" of a wiring in three layers, else "neuron". Needs networkx, which comes with torch.

        >>> graph = auto_ncp(3, 16, 1).to_networkx()
        >>> len(graph), graph.number_of_edges() == auto_ncp(3, 16, 1).synapse_count + auto_ncp(3, 16, 1).sensory_synapse_count
        (19, True)
        """
        import networkx

        names = LAYERS if len(self.layers) == len(LAYERS) else ["neuron"] * len(self.layers)
        neurons = {i: (name, i) for name, layer in zip(names, self.layers, strict=True) for i in layer}
        sensors = {k: ("sensory", k) for k in range(self.inputs)}
        graph = networkx.DiGraph()
        graph.add_nodes_from([*sensors.values(), *neurons.values()])
        for matrix, sources in ((self.sensory, sensors), (self.inner, neurons)):
            for source, target in matrix.nonzero().tolist():
                graph.add_edge(sources[source], neurons[target], polarity=int(matrix[source, target]))
        return graph


def fully_connected(
    inputs: int, units: int, outputs: int | None = None, *, self_connections: bool = True, seed: int = 1111
) -> Wiring:
    """Every synapse exists, two thirds of them excitatory on average; the first `outputs` neurons are read (all where None).

    self_connections: whether a neuron acts on itself. Raises ArgumentError where a number is not an int >= 1 or outputs > units.

    >>> fully_connected(2, 4).synapse_count, fully_connected(2, 4, self_connections=False).synapse_count
    (16, 12)
    """
    outputs = _sizes("fully_connected", inputs, units, outputs)
    random = numpy.random.default_rng(seed)
    inner, sensory = _empty(units, units), _empty(inputs, units)
    for source in range(units):
        for target in range(units):
            if source != target or self_connections:
                inner[source, target] = random.choice(SIGNS)
    for source in range(inputs):
        for target in range(units):
            sensory[source, target] = random.choice(SIGNS)
    return _wiring(sensory, inner, outputs, [range(units)])


def random_wiring(inputs: int, units: int, outputs: int | None = None, *, sparsity: float = 0.5, seed: int = 1111) -> Wiring:
    """A given share of all synapses, drawn at random: round(N (1 - sparsity)) of the inner ones and of the sensory ones.

    sparsity: in [0, 1). Raises ArgumentError where a number is out of its range.

    >>> wiring = random_wiring(2, 10, sparsity=0.8)
    >>> wiring.synapse_count, wiring.sensory_synapse_count
    (20, 4)

    Differs from ncps in: each sensory synapse draws its sign once, so the signs of sensory synapses are others.
    """
    outputs = _sizes("random_wiring", inputs, units, outputs)
    check_range("random_wiring", "sparsity", sparsity, 0.0, 1.0)
    if sparsity == 1.0:
        raise ArgumentError(
            "random_wiring: sparsity must be below 1, got 1.0. Use sparsity=0.9 for a tenth of the synapses."
        )
    random = numpy.random.default_rng(seed)
    matrices = []
    for sources in (units, inputs):
        matrix = _empty(sources, units)
        places = [(source, target) for source in range(sources) for target in range(units)]
        count = int(numpy.round(sources * units * (1 - sparsity)))
        for source, target in random.choice(places, size=count, replace=False):
            matrix[source, target] = random.choice(SIGNS)
        matrices.append(matrix)
    inner, sensory = matrices
    return _wiring(sensory, inner, outputs, [range(units)])


def ncp(
    inputs: int,
    *,
    inter: int,
    command: int,
    motor: int,
    sensory_fanout: int,
    inter_fanout: int,
    recurrent_command: int,
    motor_fanin: int,
    seed: int = 22222,
) -> Wiring:
    """A neural circuit policy: sensory -> inter -> command -> motor, with recurrent synapses among command neurons alone.

    inter, command, motor: neurons of each layer; sensory_fanout: inter neurons on which each input acts; inter_fanout: command neurons
    on which each inter neuron acts; recurrent_command: draws of command -> command synapses (repeats collapse); motor_fanin: command
    neurons that act on each motor neuron. Both signs are equally likely. An inter or command neuron on which nothing acts gets the
    mean number of sources, at least 1; a command neuron that acts on no motor neuron gets the mean number of targets, at least 1.
    Raises ArgumentError where a number is out of its range.

    >>> wiring = ncp(4, inter=12, command=6, motor=1, sensory_fanout=4, inter_fanout=4, recurrent_command=6, motor_fanin=6)
    >>> wiring.units, [len(layer) for layer in wiring.layers]
    (19, [12, 6, 1])
    """
    for name, count in (("inputs", inputs), ("inter", inter), ("command", command), ("motor", motor)):
        check_count("ncp", name, count)
    check_count("ncp", "recurrent_command", recurrent_command, 0)
    for name, count, kind, most in (
        ("sensory_fanout", sensory_fanout, "inter", inter),
        ("inter_fanout", inter_fanout, "command", command),
        ("motor_fanin", motor_fanin, "command", command),
    ):
        check_count("ncp", name, count)
        if count > most:
            raise ArgumentError(
                f"ncp: {name}={count} is more than the {most} {kind} neurons. Use {name}={most} at most, or more {kind} neurons."
            )
    random = numpy.random.RandomState(seed)
    units = inter + command + motor
    sensors, motors = range(inputs), range(motor)
    commands, inters = range(motor, motor + command), range(motor + command, units)
    sensory, inner = _empty(inputs, units), _empty(units, units)

    def outgoing(matrix, sources: Sequence[int], targets: Sequence[int], fanout: int) -> None:
        """Each source acts on `fanout` targets, then each target that was left out gets the mean number of sources."""
        for source in sources:
            for target in random.choice(targets, size=fanout, replace=False):
                matrix[source, target] = random.choice((-1, 1))
        mean = int(numpy.clip(int(len(sources) * fanout / len(targets)), 1, len(sources)))
        for target in [target for target in targets if not matrix[sources, target].any()]:
            for source in random.choice(sources, size=mean, replace=False):
                matrix[source, target] = random.choice((-1, 1))

    outgoing(sensory, sensors, inters, sensory_fanout)
    outgoing(inner, inters, commands, inter_fanout)
    for _ in range(recurrent_command):
        source, target = random.choice(commands), random.choice(commands)
        inner[source, target] = random.choice((-1, 1))
    outgoing(inner.T, motors, commands, motor_fanin)  # the same the other way round: each motor neuron chooses its sources
    return _wiring(sensory, inner, motor, [inters, commands, motors])


def auto_ncp(inputs: int, units: int, outputs: int, *, sparsity: float = 0.5, seed: int = 22222) -> Wiring:
    """A neural circuit policy of `units` neurons in all, `outputs` of them motor neurons; 40 % of the others are command neurons.

    sparsity: between 0.1 and 1; fan-outs are (1 - sparsity) of the neurons of the next layer, at least 1.
    Raises ArgumentError where outputs >= units - 2 or a number is out of its range.

    >>> auto_ncp(1, 32, 4).synapse_count
    115
    """
    for name, count in (("inputs", inputs), ("units", units), ("outputs", outputs)):
        check_count("auto_ncp", name, count)
    check_range("auto_ncp", "sparsity", sparsity, 0.1, 1.0)
    if outputs >= units - 2:
        raise ArgumentError(
            f"auto_ncp: outputs must be below units - 2 = {units - 2}, got {outputs}. Use units={outputs + 3} or more."
        )
    density = 1.0 - sparsity
    command = max(int(0.4 * (units - outputs)), 1)
    inter = units - outputs - command
    return ncp(
        inputs,
        inter=inter,
        command=command,
        motor=outputs,
        sensory_fanout=max(int(inter * density), 1),
        inter_fanout=max(int(command * density), 1),
        recurrent_command=max(int(command * density * 2), 1),
        motor_fanin=max(int(command * density), 1),
        seed=seed,
    )


def _sizes(owner: str, inputs: int, units: int, outputs: int | None) -> int:
    outputs = units if outputs is None else outputs
    for name, count in (("inputs", inputs), ("units", units), ("outputs", outputs)):
        check_count(owner, name, count)
    if outputs > units:
        raise ArgumentError(f"{owner}: outputs={outputs} is more than units={units}. Use outputs={units} at most.")
    return outputs


def _empty(sources: int, targets: int):
    return numpy.zeros((sources, targets), dtype=numpy.int8)


def _wiring(sensory, inner, outputs: int, layers: Sequence[Sequence[int]]) -> Wiring:
    return Wiring(torch.from_numpy(sensory), torch.from_numpy(inner), outputs, tuple(tuple(layer) for layer in layers))
