"""Frozen parts of a network, differentiated for their input alone and in little memory.

    y = scale * x + shift,  dy/dx = scale        batch norm by the batch's own statistics, which count as constants ("lean")

What backward must keep of a frozen part: the weights, one bit for each number that a ReLU let through, one byte for each maximum.
Plain autograd keeps the input of every convolution and batch norm, and the output of every ReLU. No module is rewritten: the
functions that modules call are seen to while they run (a `TorchFunctionMode`), whoever wrote the modules.

Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904 (what its count of memory takes for granted).
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from everlearn.core.errors import ArgumentError
from everlearn.nn.bits import pack_bits, unpack_bits

GRADIENTS = ("lean", "exact", "cut")
BYTE = 256  # places in a window that one byte tells apart


def frozen(part: nn.Module, x: Tensor, gradient: str = "lean", batch_stats: bool = True) -> Tensor:
    """part(x) for a part whose weights do not learn; its running statistics are neither asked nor changed.

    gradient: with regard to x, "exact" (plain autograd), "lean" (as above: the same where there is no batch norm) or "cut" (none);
    what comes out is the same to the bit. batch_stats: batch norm by the statistics of x, else by the running ones.

    Put the part into evaluation mode first. Convolutions, linear layers, batch norm, ReLU, ReLU6, leaky ReLU, mean and maximum
    pooling and sums are lean; all else (GELU, layer norm, attention) is differentiated as always.

    >>> part = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    >>> frozen(part, torch.ones(2, 1, 4, 4, requires_grad=True)).shape
    torch.Size([2, 2, 2, 2])
    """
    if gradient not in GRADIENTS:
        raise ArgumentError(f"gradient must be one of {', '.join(map(repr, GRADIENTS))}, got {gradient!r}.")
    keeping = torch.no_grad() if gradient == "cut" else nullcontext()
    try:
        with keeping, _Frozen(gradient == "lean", batch_stats, x):
            return part(x)
    except _Overwritten:  # what else reads x shall find it as it was
        with keeping, _Frozen(gradient == "lean", batch_stats, None):
            return part(x.clone())


class _Overwritten(Exception):
    """A part is about to write over its input."""


class _Frozen(TorchFunctionMode):
    """Sees to what modules call: torch's own function, or one that keeps less. spared: a tensor that is not to be written over."""

    def __init__(self, lean: bool, batch_stats: bool, spared: Tensor | None):
        super().__init__()
        self.lean = lean
        self.batch_stats = batch_stats
        self.spared = None if spared is None else spared.untyped_storage().data_ptr()

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return self._normalised(*args, **kwargs)
        if self.spared is not None and _writes(func, args, kwargs) and args[0].untyped_storage().data_ptr() == self.spared:
            raise _Overwritten
        if self.lean and func in LEAN and torch.is_grad_enabled() and args[0].requires_grad:
            return LEAN[func](*args, **kwargs)
        return func(*args, **kwargs)

    def _normalised(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        own = self.batch_stats or running_mean is None
        if not (self.lean and torch.is_grad_enabled() and x.requires_grad):
            if own:
                return functional.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
            return functional.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)
        return _Norm.apply(x, None if own else running_mean, None if own else running_var, weight, bias, eps)


def _writes(func: Callable, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call writes over its first argument."""
    name = getattr(func, "__name__", "")
    asked = kwargs.get("inplace") or (func in ACTIVATIONS and args[ACTIVATIONS[func] :] == (True,))
    in_place = asked or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
    return bool(in_place) and len(args) > 0 and isinstance(args[0], Tensor)


class _Norm(torch.autograd.Function):
    """Batch norm whose mean and variance count as constants. Keeps one number for each channel."""

    @staticmethod
    def forward(ctx, x, mean, variance, weight, bias, eps):
        if mean is None:
            y, _, spread = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        else:
            y = functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
            spread = torch.rsqrt(variance + eps)
        scale = spread if weight is None else spread * weight.detach()
        ctx.save_for_backward(scale)
        return y

    @staticmethod
    def backward(ctx, gradient):
        (scale,) = ctx.saved_tensors
        shape = [1, -1] + [1] * (gradient.ndim - 2)
        return gradient * scale.view(shape).to(gradient.dtype), None, None, None, None, None


class _Convolution(torch.autograd.Function):
    """A convolution by a weight that does not learn. Keeps the weight alone."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation, groups):
        y = torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)
        ctx.weight = weight  # stands anyway; what `save_for_backward` is given counts as kept for this step
        ctx.shape, ctx.kind, ctx.order = x.shape, x.dtype, _order(x)
        ctx.numbers = (stride, padding, dilation, groups)
        return y

    @staticmethod
    def backward(ctx, gradient):
        stride, padding, dilation, groups = ctx.numbers
        # the shape and order of the input are asked for, never its numbers
        stand_in = torch.empty(0, dtype=gradient.dtype, device=gradient.device)
        stand_in = (
            stand_in.new_empty(ctx.shape)
            if ctx.order is None
            else torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.order)
        )
        found, _, _ = torch.ops.aten.convolution_backward(
            gradient,
            stand_in,
            ctx.weight.detach().to(gradient.dtype),
            None,
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            [True, False, False],
        )
        return found.to(ctx.kind), None, None, None, None, None, None


def _order(x: Tensor) -> torch.memory_format | None:
    return torch.channels_last if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else None


def _convolution(dimensions: int) -> Callable[..., Tensor]:
    def apply(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        if x.ndim != dimensions + 2 or torch.is_autocast_enabled(x.device.type):
            plain = (functional.conv1d, functional.conv2d, functional.conv3d)[dimensions - 1]
            return plain(x, weight, bias, stride, padding, dilation, groups)
        stride, dilation = _each(stride, dimensions), _each(dilation, dimensions)
        if isinstance(padding, str):
            wide = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            if padding == "same" and any(side % 2 for side in wide):  # more on one side than on the other
                around = [part for side in reversed(wide) for part in (side // 2, side - side // 2)]
                x, wide = functional.pad(x, around), [0] * dimensions
            padding = [side // 2 if padding == "same" else 0 for side in wide]
        return _Convolution.apply(x, weight, bias, stride, _each(padding, dimensions), dilation, groups)

    return apply


def _each(value: Any, dimensions: int) -> list[int]:
    return [value] * dimensions if isinstance(value, int) else list(value) * (dimensions if len(value) == 1 else 1)


class _Rectified(torch.autograd.Function):
    """An activation with a slope of 1 where a condition holds, and another elsewhere. Keeps one bit for each number."""

    @staticmethod
    def forward(ctx, x, kept, activation, slope, inplace):
        y = activation(x)
        if kept is None:  # a number let through is one that is not 0, which is told in a sixth of the time of a comparison
            kept = y.bool()
        ctx.save_for_backward(pack_bits(kept))
        ctx.slope = slope
        ctx.kept_as = (kept.shape, kept.stride())
        if inplace:
            ctx.mark_dirty(x)
            return x.copy_(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        (bits,) = ctx.saved_tensors
        # bytes become floats in a sixth of the time that truth values take, and products a fraction of that of torch.where
        kept = unpack_bits(bits, *ctx.kept_as).view(torch.uint8).to(gradient.dtype)
        if ctx.slope:
            kept = kept.mul_(1.0 - ctx.slope).add_(ctx.slope)
        return kept.mul_(gradient), None, None, None, None


def rectified(x: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), of which backward keeps one bit for each number.

    >>> rectified(torch.tensor([-1.0, 2.0], requires_grad=True)).tolist()
    [0.0, 2.0]
    """
    return _Rectified.apply(x, None, torch.relu, 0.0, inplace)


def _clipped(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    seen = x.detach()
    kept = (seen > min_val) & (seen < max_val)
    return _Rectified.apply(x, kept, lambda z: functional.hardtanh(z, min_val, max_val), 0.0, inplace)


def _leaky(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _Rectified.apply(x, x.detach() > 0, lambda z: functional.leaky_relu(z, negative_slope), negative_slope, inplace)


class _Pooled(torch.autograd.Function):
    """The maximum of each window. Keeps its place in the window, in one byte."""

    @staticmethod
    def forward(ctx, x, kernel, stride, padding, dilation, ceil_mode):
        y, index = functional.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        ctx.shape, ctx.kernel = x.shape, kernel
        ctx.numbers = (stride, padding, dilation)
        first, second = _corners(ctx, y.shape[2:], index.device)
        down = (index // x.shape[3] - first) // dilation[0]
        across = (index % x.shape[3] - second) // dilation[1]
        ctx.save_for_backward((down * kernel[1] + across).to(torch.uint8))
        return y

    @staticmethod
    def backward(ctx, gradient):
        (place,) = ctx.saved_tensors
        _, _, dilation = ctx.numbers
        first, second = _corners(ctx, gradient.shape[2:], gradient.device)
        place = place.to(torch.int64)
        down = first + (place // ctx.kernel[1]) * dilation[0]
        across = second + (place % ctx.kernel[1]) * dilation[1]
        found = gradient.new_zeros(*ctx.shape[:2], ctx.shape[2] * ctx.shape[3])
        found.scatter_add_(2, (down * ctx.shape[3] + across).flatten(2), gradient.flatten(2))
        return found.view(ctx.shape), None, None, None, None, None


def _corners(ctx: Any, plane: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first row and column of each window."""
    (down, across), (top, left), _ = ctx.numbers
    rows, columns = (torch.arange(side, device=device) for side in plane)
    return (rows * down - top)[:, None], columns * across - left


def _maximum(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    kernel = _each(kernel_size, 2)
    if return_indices or x.ndim != 4 or kernel[0] * kernel[1] > BYTE:
        return functional.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    steps = kernel if stride is None or stride == [] else _each(stride, 2)
    return _Pooled.apply(x, kernel, steps, _each(padding, 2), _each(dilation, 2), ceil_mode)


class _Averaged(torch.autograd.Function):
    """Means of windows. Keeps nothing: the shape of x is all that their gradient needs."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.stand_in = torch.empty(1, dtype=x.dtype, device=x.device).expand(x.shape)
        ctx.backward_of = backward
        return forward(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.backward_of(gradient.contiguous(), ctx.stand_in), None, None


def _mean(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    steps = _each(kernel_size if stride is None or stride == [] else stride, 2)
    rest = (_each(kernel_size, 2), steps, _each(padding, 2), ceil_mode, count_include_pad, divisor_override)
    return _Averaged.apply(
        x, lambda x: functional.avg_pool2d(x, *rest), lambda g, x: torch.ops.aten.avg_pool2d_backward(g, x, *rest)
    )


def _mean_to(x, output_size):
    if output_size in (1, (1, 1), [1, 1]):  # a plain mean, which keeps nothing as it is
        return functional.adaptive_avg_pool2d(x, output_size)
    return _Averaged.apply(
        x, lambda x: functional.adaptive_avg_pool2d(x, output_size), torch.ops.aten._adaptive_avg_pool2d_backward
    )


LEAN: dict[Callable, Callable[..., Tensor]] = {
    functional.conv1d: _convolution(1),
    functional.conv2d: _convolution(2),
    functional.conv3d: _convolution(3),
    functional.relu: rectified,
    torch.relu: rectified,
    Tensor.relu: rectified,
    torch.relu_: lambda x: rectified(x, inplace=True),
    Tensor.relu_: lambda x: rectified(x, inplace=True),
    functional.relu6: lambda x, inplace=False: _clipped(x, 0.0, 6.0, inplace),
    functional.hardtanh: _clipped,
    functional.leaky_relu: _leaky,
    functional.max_pool2d: _maximum,
    functional.avg_pool2d: _mean,
    functional.adaptive_avg_pool2d: _mean_to,
}
# activations that may be asked to write over x, with the number of arguments ahead of that word
ACTIVATIONS: dict[Callable, int] = {
    functional.relu: 1,
    functional.relu6: 1,
    functional.hardtanh: 3,
    functional.leaky_relu: 2,
    functional.elu: 2,
    functional.selu: 1,
    functional.celu: 2,
    functional.silu: 1,
    functional.hardswish: 1,
    functional.mish: 1,
    functional.hardsigmoid: 1,
}
