"""A network as oracle: one output for each action, fitted with log loss on the output of the action taken.

    f(x, a) = sigmoid(net(x)_a),    minibatches of Adam over the rows of the window

State is the weights; a fit begins Adam anew. Any `torch.nn.Module` may stand in for the perceptron: `network(make=mymodule:build)`.
Reference: Riquelme, Tucker, Snoek (2018), "Deep Bayesian bandits showdown", arXiv 1802.09127 (neural-greedy).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy
import torch
from torch import Tensor, nn
from torch.func import functional_call

from everlearn.agents.oracles import Array, Model, Oracle, Rows
from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.random import generator, isolated


@dataclass(frozen=True, repr=False)
class Network(Oracle):
    """A multilayer perceptron of torch, or a module of yours.

    hidden: widths of its layers; epochs, lr, batch: of Adam; warm_start: go on from the weights of the fit before; make: a function
    (columns, actions) -> module with one output for each action, in the place of the perceptron.
    """

    name = "network"
    hidden: tuple[int, ...] = (64,)
    epochs: int = 10
    lr: float = 0.003
    batch: int = 64
    warm_start: bool = False
    make: Callable[[int, int], nn.Module] | None = None

    def __post_init__(self) -> None:
        for width in self.hidden:
            check_count(self.name, "hidden", width)
        check_count(self.name, "epochs", self.epochs)
        check_count(self.name, "batch", self.batch)
        check_range(self.name, "lr", self.lr, 1e-12)
        if self.make is not None and not callable(self.make):
            raise ArgumentError(f"network: make must be a function (columns, actions) -> module, got {self.make!r}.")

    def start(self, actions: int, seed: int) -> Model:
        return NetworkModel(self, actions, seed)

    def built(self, columns: int, actions: int, seed: int) -> nn.Module:
        """The module with weights drawn from a seed."""
        with isolated(seed, "network"):
            if self.make is not None:
                return self.make(columns, actions)
            layers: list[nn.Module] = []
            widths = [columns, *self.hidden]
            for first, second in pairwise(widths):
                layers += [nn.Linear(first, second), nn.ReLU()]
            return nn.Sequential(*layers, nn.Linear(widths[-1], actions))


class NetworkModel(Model):
    """State: weights by name, columns (0 before the first fit), seed."""

    parts = ("weights", "columns", "seed")

    def __init__(self, settings: Network, actions: int, seed: int):
        self.settings, self.actions, self.seed = settings, actions, seed
        self.weights: dict[str, Tensor] = {}
        self.columns = 0
        self._module: nn.Module | None = None

    def fit(self, rows: Rows) -> None:
        settings = self.settings
        module = settings.built(rows.x.shape[1], self.actions, self.seed)
        if settings.warm_start and self.columns == rows.x.shape[1]:
            module.load_state_dict(self.weights)
        x, reward = torch.from_numpy(rows.x).float(), torch.from_numpy(rows.reward).float()
        action, weight = torch.from_numpy(rows.action), torch.from_numpy(rows.weight).float()
        module.train()
        optimizer = torch.optim.Adam(module.parameters(), lr=settings.lr)
        random = generator(self.seed, "minibatches", len(x))
        with isolated(self.seed, "dropout"), torch.enable_grad():
            for _ in range(settings.epochs):
                for part in torch.randperm(len(x), generator=random).split(settings.batch):
                    logits = module(x[part]).gather(1, action[part, None])[:, 0]
                    losses = nn.functional.binary_cross_entropy_with_logits(logits, reward[part], reduction="none")
                    optimizer.zero_grad()
                    (weight[part] * losses).mean().backward()
                    optimizer.step()
        self.columns = rows.x.shape[1]
        self.weights = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def scores(self, x: Array) -> Array:
        if not self.columns:
            return numpy.full((self.actions, len(x)), 0.5)
        if self._module is None:
            self._module = self.settings.built(self.columns, self.actions, self.seed).eval()
        logits = functional_call(self._module, self.weights, (torch.from_numpy(x).float(),))
        return torch.sigmoid(logits.double()).numpy().T
