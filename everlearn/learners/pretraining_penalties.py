"""What holds a pre-trained model to past domains without a row of them: to what its encoder said, or to weights that mattered to it.

    lwf   loss + strength * mean over rows and tokens of (1 - cos(f_old, f)),   f_old: the encoder as it was when the last domain ended
    mas   loss + strength * sum_i O_i (w_i - a_i)^2,                            a: the weights as they were then
          O_new = mean over batches of | d/dw  mean over rows of |f|^2 |,       O <- decay O + (1 - decay) O_new

f are the tokens of the objective (`Pretext.tokens`): those of the patches in sight, or what a language model's last layer sees. Weights
that f does not depend on, a decoder's, get no importance. A penalty is a value with state: `ContinualPretrainer(penalty=...)` adds it to
the loss, tells it when a domain ends, and saves it.

References: Li & Hoiem (2017), Learning without forgetting, arXiv 1606.09282. Aljundi et al. (2018), Memory aware synapses, arXiv
1711.09601. Both for masked autoencoders: Singh et al. (2025), Beyond cosine decay, CoLLAs, arXiv 2503.02844.
"""

import copy
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.core.errors import check_count, check_range
from everlearn.core.flat import flat
from everlearn.core.random import generator
from everlearn.core.spec import describe
from everlearn.data.pretraining import Domain
from everlearn.learners.pull import Pull
from everlearn.nn.pretext import Pretext


class Penalty(Protocol):
    """What is added to the loss of a pre-trainer."""

    parts: ClassVar[tuple[str, ...]]

    def __call__(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The penalty, a number with its graph, on the rows of an update; 0 before a domain has ended."""
        ...

    def after(self, model: nn.Module, objective: Pretext, domain: Domain, number: int) -> None:
        """Domain `number` ends, counted from 0: hold to the model as it is."""
        ...


class LwFPenalty:
    """A frozen copy of the model teaches what it said of a row's tokens.

    objective: that of the pre-trainer; strength: alpha above, of which .25, .5 and .75 were tried; 0 is no penalty, to the bit.

    >>> from everlearn.nn.pretext import NextToken
    >>> from everlearn.nn.tiny_gpt import TinyGPT
    >>> model, penalty = TinyGPT(8, dim=16, depth=1, length=4, seed=0), LwFPenalty(NextToken())
    >>> rows = torch.tensor([[0, 1, 2, 3, 4]])
    >>> before = penalty(model, rows)
    >>> penalty.after(model, NextToken(), None, 0)
    >>> with torch.no_grad():
    ...     _ = model.positions.add_(0.1 * torch.arange(16.0))
    >>> before.item(), 0.0 < penalty(model, rows).item() < 1.0
    (0.0, True)

    Reference: Li & Hoiem (2017), arXiv 1606.09282; Singh et al. (2025), arXiv 2503.02844.
    Differs from the published code in: both models see the same patches; there each pass draws a mask of its own, so that the cosine
    of two tokens is one of two different patches, but for the first token.
    """

    name: ClassVar[str] = "lwf"
    parts: ClassVar[tuple[str, ...]] = ("old",)

    def __init__(self, objective: Pretext, *, strength: float = 0.5):
        check_range(self.name, "strength", strength, 0.0)
        self.objective, self.strength = objective, strength
        self.old: dict[str, Tensor] = {}  # the weights of the copy, by name; none before a domain has ended
        self._teacher: nn.Module | None = None

    def __repr__(self) -> str:
        return describe(self)

    def __call__(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """strength times the mean of 1 - cos over rows and tokens."""
        if not self.old or not self.strength:
            return torch.zeros((), device=inputs[0].device)
        if self._teacher is None:
            self._teacher = copy.deepcopy(model).requires_grad_(False).eval()
            self._teacher.load_state_dict(self.old)
        with torch.no_grad():
            held = self.objective.tokens(self._teacher, *inputs)
        alike = functional.cosine_similarity(self.objective.tokens(model, *inputs), held, dim=-1)
        return self.strength * (1.0 - alike).mean()

    def after(self, model: nn.Module, objective: Pretext, domain: Domain, number: int) -> None:
        """The model as it is becomes the teacher."""
        self.old = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._teacher = None

    def restored(self) -> None:
        """Forget the teacher of what stood before."""
        self._teacher = None


class MASPenalty:
    """Springs at the weights that the length of the tokens depends on.

    objective: that of the pre-trainer; strength: lambda above; decay: share of the importance so far that is kept when a domain ends
    (the first domain's is taken whole); samples: rows of a domain from which its importance is taken; batch: rows of each gradient;
    seed: which rows, and their masks. Strength 0 is no penalty, to the bit.

    A last layer that normalises tokens, as in most encoders, fixes their length where its own scale is even, as it is at the start: all
    weights before it then have no importance, and get some only as far as that scale becomes uneven.

    >>> from everlearn.data.pretraining import TextDomain
    >>> from everlearn.nn.pretext import NextToken
    >>> from everlearn.nn.tiny_gpt import TinyGPT
    >>> model, penalty = TinyGPT(8, dim=16, depth=1, length=4, seed=0), MASPenalty(NextToken(), samples=16)
    >>> penalty.after(model, NextToken(), TextDomain("counting", torch.arange(100) % 8, window=4), 0)
    >>> penalty.importance.shape, penalty(model, torch.tensor([[0, 1, 2, 3, 4]])).item()
    (torch.Size([3504]), 0.0)

    Reference: Aljundi et al. (2018), arXiv 1711.09601; Singh et al. (2025), arXiv 2503.02844.
    Differs from the paper in: gradients are taken of batches, as in the code for autoencoders, not of single rows.
    """

    name: ClassVar[str] = "mas"
    parts: ClassVar[tuple[str, ...]] = ("importance", "anchor")

    def __init__(
        self,
        objective: Pretext,
        *,
        strength: float = 1.0,
        decay: float = 0.5,
        samples: int = 1024,
        batch: int = 64,
        seed: int = 0,
    ):
        check_range(self.name, "strength", strength, 0.0)
        check_range(self.name, "decay", decay, 0.0, 1.0)
        check_count(self.name, "samples", samples)
        check_count(self.name, "batch", batch)
        self.objective, self.strength, self.decay = objective, strength, decay
        self.samples, self.batch, self.seed = samples, batch, seed
        self.importance: Tensor | None = None  # (weights,) in one row, as is the anchor
        self.anchor: Tensor | None = None
        self._pull: Pull | None = None

    def __repr__(self) -> str:
        return describe(self)

    def __call__(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """strength times the sum of O (w - a)^2; the rows play no part."""
        if self.anchor is None or not self.strength:
            return torch.zeros((), device=inputs[0].device)
        if self._pull is None:
            self._pull = Pull(list(model.parameters()), self.anchor, 2.0 * self.strength * self.importance)
        return self._pull.penalty()

    def after(self, model: nn.Module, objective: Pretext, domain: Domain, number: int) -> None:
        """Add the importance of a domain to that of those before it, and hold to the weights as they are."""
        fresh = self._importance(model, domain, number)
        if self.importance is not None:
            fresh = self.decay * self.importance + (1.0 - self.decay) * fresh
        self.importance, self.anchor = fresh, flat(list(model.parameters())).detach()
        self._pull = None

    def restored(self) -> None:
        """Forget the springs of what stood before."""
        self._pull = None

    def _importance(self, model: nn.Module, domain: Domain, number: int) -> Tensor:
        weights, training = list(model.parameters()), model.training
        model.eval()
        batches = domain.sample(self.samples, generator(self.seed, "mas", number)).split(self.batch)
        total = torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device)
        for turn, rows in enumerate(batches):
            inputs = self.objective.draw(model, rows.to(total.device), generator(self.seed, "mas masks", number, turn))
            length = self.objective.tokens(model, *inputs).square().flatten(1).sum(1).mean()
            total += flat(torch.autograd.grad(length, weights, allow_unused=True, materialize_grads=True)).abs()
        model.train(training)
        return total / len(batches)


PENALTIES: dict[str, type[LwFPenalty | MASPenalty]] = {cls.name: cls for cls in (LwFPenalty, MASPenalty)}
