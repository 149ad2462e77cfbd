"""A network whose weights are drawn anew in each training step, from independent Gaussians that are learned.

    w_i = mean_i + exp(r_i) * noise_i          r: logarithm of the deviation

Reference: Blundell et al. (2015), Weight uncertainty in neural networks, arXiv 1505.05424; Nguyen et al. (2018), Variational
continual learning, arXiv 1710.10628.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from everlearn.core.events import X
from everlearn.core.flat import cut, flat


class MeanField(nn.Module):
    """Wraps a network: its weights are the means, and each gets a deviation of its own.

    deviation: of all weights at the start, exp(-3) as in the code of Nguyen et al. In evaluation mode the means answer, and so they
    do in training mode until `draw` has been called.

    >>> drawn = MeanField(nn.Linear(2, 1), deviation=0.1)
    >>> drawn.draw(torch.Generator().manual_seed(0))
    >>> x = torch.ones(1, 2)
    >>> torch.equal(drawn(x), drawn(x)), torch.equal(drawn(x), drawn.network(x)), torch.equal(drawn.eval()(x), drawn.network(x))
    (True, False, True)
    """

    def __init__(self, network: nn.Module, deviation: float = math.exp(-3.0)):
        super().__init__()
        self.network = network
        self.means = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self.logarithms = nn.ParameterList(torch.full_like(mean, math.log(deviation)) for mean in self.means.values())
        self.noise: list[Tensor] = []  # one for each weight tensor, between `draw` and `still`

    def draw(self, random: torch.Generator) -> None:
        """From now on answer with one draw of the weights, the same until the next draw."""
        sizes = [mean.numel() for mean in self.means.values()]
        row = torch.randn(sum(sizes), generator=random)
        means = list(self.means.values())
        self.noise = [piece.to(mean) for piece, mean in zip(cut(row, means), means, strict=True)]

    def still(self) -> None:
        """Answer with the means again."""
        self.noise = []

    def forward(self, x: X) -> Tensor:
        """The network's answer, with weights drawn where there is noise and it trains."""
        if not self.training or not self.noise:
            return self.network(x)
        pairs = zip(self.means.items(), self.logarithms, self.noise, strict=True)
        weights = {name: torch.addcmul(mean, logarithm.exp(), noise) for (name, mean), logarithm, noise in pairs}
        return functional_call(self.network, weights, (x,))

    def row(self) -> tuple[Tensor, Tensor]:
        """(means, deviations), all numbers of each in one row, with gradients."""
        return flat(list(self.means.values())), flat(list(self.logarithms)).exp()
