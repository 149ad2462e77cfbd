"""What a model would answer with other weights: imagined steps, which leave weights, gradients and random numbers alone.

    z' = z - rate * (x . x_i + 1) e_i        a linear layer after one step on row i:  x_i its input, e_i the loss's derivative by z

The second form needs no copy of the weights, at the first layer with the layer's own input and deeper with the changed one. It holds
for perceptrons; other networks are evaluated by `torch.func.functional_call`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear

from everlearn.core.events import X

ACTIVATIONS = (nn.ELU, nn.ReLU, nn.Tanh, nn.Identity)
CHANGING = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.modules.batchnorm._NormBase)
Shift = Sequence[Tensor | None]  # by trained parameter, None where there is none


class Chain:
    """A perceptron as its linear layers with what stands between them. Weights come as [w1, b1, w2, b2, ...], those of the model."""

    def __init__(self, before: Sequence[nn.Module], linears: Sequence[nn.Linear], between: Sequence[nn.Module]):
        self.before = list(before)
        self.linears = list(linears)
        self.between = list(between)
        self.weights = [weight for layer in self.linears for weight in (layer.weight, layer.bias)]

    def scores(self, x: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """(rows, classes) with the given weights; the model's own where none are given."""
        weights = self.weights if weights is None else weights
        x = self._entered(x)
        for layer in range(len(self.linears)):
            if layer:
                x = self.between[layer - 1].forward(x)
            x = linear(x, weights[2 * layer], weights[2 * layer + 1])
        return x

    def slopes(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(inputs, errors) by layer, (rows, in) and (rows, out): row i's gradient is e_i x_i^T for weights, e_i for biases."""
        inputs, sums = [self._entered(x)], []
        for layer, module in enumerate(self.linears):
            sums.append(linear(inputs[-1], module.weight, module.bias))
            if layer < len(self.between):
                inputs.append(self.between[layer].forward(sums[-1]))
        error = sums[-1].softmax(1)
        error[torch.arange(len(y)), y] -= 1.0
        errors = [error]
        for layer in range(len(self.linears) - 1, 0, -1):
            back = errors[0] @ self.linears[layer].weight
            errors.insert(0, back * slope(self.between[layer - 1], sums[layer - 1], inputs[layer]))
        return inputs, errors

    def moved(self, x: Tensor, inputs: Sequence[Tensor], errors: Sequence[Tensor], rates: Sequence[float]) -> Tensor:
        """(rates, rows, classes): scores of x after a step of each rate along the summed gradients of some rows."""
        x = self._entered(x)
        count, last = len(x), len(self.linears) - 1
        for layer, module in enumerate(self.linears):
            z = linear(x, module.weight, module.bias)
            push = (x @ inputs[layer].T).add_(1.0) @ errors[layer]
            if layer == 0:  # what comes in is the same for all rates
                x = torch.cat([z.sub(push, alpha=rate) for rate in rates])
            else:
                for number, rate in enumerate(rates):
                    part = slice(number * count, (number + 1) * count)
                    z[part].sub_(push[part], alpha=rate)
                x = z
            if layer < last:
                x = self.between[layer].forward(x)
        return x.view(len(rates), count, -1)

    def _entered(self, x: Tensor) -> Tensor:
        """What the first linear layer sees. Modules without hooks, so their forward is all there is to a call."""
        for module in self.before:
            x = module.forward(x)
        return x


def slope(activation: nn.Module, z: Tensor, h: Tensor) -> Tensor:
    """The derivative of an activation at z, where it gives h. ELU for z <= 0: alpha exp(z) = h + alpha; ReLU at 0: 0.

    >>> elu = nn.ELU()
    >>> z = torch.tensor([-1.0, 0.0, 2.0])
    >>> [round(value, 7) for value in slope(elu, z, elu(z)).tolist()]
    [0.3678795, 1.0, 1.0]
    """
    if isinstance(activation, nn.ELU):
        return torch.where(z > 0, 1.0, h + activation.alpha)
    if isinstance(activation, nn.ReLU):
        return (z > 0).to(z.dtype)
    if isinstance(activation, nn.Tanh):
        return 1.0 - h * h
    return torch.ones_like(z)


def chain_of(model: nn.Module) -> Chain | None:
    """The chain behind a network that is a perceptron, all of whose weights are trained; None for any other network.

    >>> chain_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ELU(), nn.Linear(3, 2))).between
    [ELU(alpha=1.0)]
    """
    before: list[nn.Module] = []
    linears: list[nn.Linear] = []
    between: list[nn.Module] = []
    for module in _in_a_row(model):
        if any(True for _ in module.children()) or module._forward_hooks or module._forward_pre_hooks:
            return None
        if type(module) is nn.Linear:
            if len(between) < len(linears):
                between.append(nn.Identity())
            linears.append(module)
        elif isinstance(module, CHANGING) or [*module.parameters(), *module.buffers()]:
            return None
        elif not linears:
            before.append(module)
        elif isinstance(module, ACTIVATIONS) and len(between) < len(linears):
            between.append(module)
        else:
            return None
    if not linears or len(between) >= len(linears):
        return None
    weights = [weight for layer in linears for weight in (layer.weight, layer.bias)]
    whole = all(weight is not None and weight.requires_grad for weight in weights)
    return Chain(before, linears, between) if whole and len({id(weight) for weight in weights}) == len(weights) else None


def _in_a_row(model: nn.Module) -> list[nn.Module]:
    """The modules of nested sequences in their order."""
    if type(model) is nn.Sequential and not model._forward_hooks and not model._forward_pre_hooks:
        return [inner for module in model for inner in _in_a_row(module)]
    return [model]


class Imagination:
    """Scores of a model with its weights moved, in evaluation mode and without gradients; nothing of the model changes.

    >>> model = nn.Linear(2, 2)
    >>> imagination, x = Imagination(model), torch.ones(1, 2)
    >>> shift = [torch.ones(2, 2), torch.zeros(2)]
    >>> bool((model(x) - imagination.scores(x, shift, 0.5)).sub(1.0).abs().max() < 1e-6)
    True
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.chain = chain_of(model)
        self.steady = not any(isinstance(module, CHANGING) for module in model.modules())  # training and evaluation agree
        self._named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._weights = list(self._named.values())

    def scores(self, x: X, shift: Shift | None = None, rate: float = 0.0) -> Tensor:
        """(rows, classes) with weights w - rate * shift; shift: by trained parameter, in the model's order."""
        with torch.no_grad():
            weights = self._weights if shift is None else self._moved(shift, rate)
            if self.chain is not None and isinstance(x, Tensor):
                return self.chain.scores(x, weights)
            training = self.model.training
            if training and not self.steady:
                self.model.eval()
            try:
                return functional_call(self.model, dict(zip(self._named, weights, strict=True)), (x,))
            finally:
                if training and not self.steady:
                    self.model.train()

    def _moved(self, shift: Shift, rate: float) -> list[Tensor]:
        if all(part is not None for part in shift):
            return list(torch._foreach_add(self._weights, shift, alpha=-rate))
        pairs = zip(self._weights, shift, strict=True)
        return [weight if part is None else weight.detach() - rate * part for weight, part in pairs]

    def gradient(self, x: X, y: Tensor) -> list[Tensor | None]:
        """The gradient of the rows' summed cross-entropy by trained parameter, in evaluation mode where the two modes differ."""
        training = self.model.training
        if training and not self.steady:
            self.model.eval()
        try:
            with torch.enable_grad():
                loss = cross_entropy(self.model(x), y, reduction="sum")
                return list(torch.autograd.grad(loss, self._weights, allow_unused=True))
        finally:
            if training and not self.steady:
                self.model.train()
