"""Steps on feature maps in as few passes over memory as a CPU allows.

In bf16 the products of a training step are nearly free, and what is left is reading and writing maps. Each function here has
the values of the plain modules it stands for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# In fp32 products take the time: measured, two threads, a step was 0.93 times as fast with it.
FUSED = torch.bfloat16


def relu_of(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """relu(conv(x)); in training on a CPU in bf16 the ReLU rides on the convolution and the weights are laid out once.

    Shapes: those of the convolution. Plain modules wherever no gradient is wanted, so that exported programs stay plain.
    """
    dtype = product_dtype(x)
    if not (torch.is_grad_enabled() and x.device.type == "cpu" and _is_fused(dtype) and _is_plain(conv)):
        return torch.relu_(conv(x))
    return _ReluOfConvolution.apply(x.to(dtype), conv.weight, conv.bias, conv.stride, conv.padding)


def product_dtype(x: Tensor) -> torch.dtype:
    """What a product of x is computed in: autocast's type inside autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _is_fused(dtype: torch.dtype) -> bool:
    """Whether the kernel pays for a type, and is here: it needs a processor, and is not part of torch's public interface."""
    if dtype != FUSED or not torch.backends.mkldnn.is_available():
        return False
    return (
        hasattr(torch.ops.mkldnn, "_convolution_pointwise") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether the convolution is one that the fused kernel can stand for, and nobody listens to it with a hook."""
    plain = conv.padding_mode == "zeros" and conv.dilation == (1, 1) and conv.groups == 1
    heard = conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks
    return plain and not heard and not isinstance(conv.padding, str)


class _ReluOfConvolution(torch.autograd.Function):
    """relu(conv(x)) without a pass of its own for the ReLU, and one conversion of the weights for both directions."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        laid = weight.to(x.dtype, memory_format=torch.channels_last)
        y = torch.ops.mkldnn._convolution_pointwise(
            x, laid, bias.to(x.dtype), padding, stride, (1, 1), 1, "relu", [], ""
        )
        ctx.save_for_backward(x, laid, y)
        ctx.stride, ctx.padding, ctx.kept = stride, padding, weight.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        g = torch.ops.aten.threshold_backward(grad, y, 0)
        need = ctx.needs_input_grad
        into_x, into_weight, into_bias = torch.ops.aten.convolution_backward(
            g, x, weight, [weight.shape[0]], ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, need[:3]
        )
        if into_weight is not None:
            into_weight = into_weight.to(ctx.kept, memory_format=torch.contiguous_format)
        if into_bias is not None:
            into_bias = into_bias.to(ctx.kept)
        return into_x, into_weight, into_bias, None, None
