"""Operations whose backward pass is cheap because the forward pass keeps what all of its repetitions share.

ReGrad sends several cotangents back through one graph. PyTorch's own formulas recompute the same slopes for each; these
keep them instead. Gradients are equal up to rounding; second derivatives are not provided.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _OneChannelAttention(torch.autograd.Function):
    """See `one_channel_attention`. With P the weights and o the result,

        do_i/dq_i = Σ_j P_ij k_j v_j - o_i Σ_j P_ij k_j,

    which the forward pass keeps; the keys' and values' gradients are one product with P^T.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = torch.softmax(query[..., :, None] * key[..., None, :], dim=-1)
        # Few rows times a square: on a processor twice as fast as the square times few columns.
        moments = torch.stack([value, key, key * value], dim=-2) @ weights.transpose(-1, -2)
        mixed, mean_key, mean_product = moments.unbind(-2)
        mixed = mixed.contiguous()
        ctx.save_for_backward(weights, query, value, mixed, mean_product - mixed * mean_key)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, query, value, mixed, slope = ctx.saved_tensors
        asked = query * cotangent
        sums = torch.stack([cotangent, asked, asked * mixed], dim=-2) @ weights
        to_value, to_key, from_mean = sums.unbind(-2)
        return cotangent * slope, value * to_key - from_mean, to_value


def one_channel_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T) v for heads one channel wide, unscaled: `[..., q]`, `[..., n]`, `[..., n]` to `[..., q]`.

    Keeps the weights `[..., q, n]` for the backward pass.
    """
    mixed: Tensor = _OneChannelAttention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return mixed


class _KeptAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(width)) v that keeps its weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = query * query.shape[-1] ** -0.5
        weights = torch.softmax(query @ key.transpose(-1, -2), dim=-1)
        ctx.save_for_backward(query, key, value, weights)
        return weights @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, weights = ctx.saved_tensors
        to_weights = cotangent @ value.transpose(-1, -2)
        to_logits = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        return ((to_logits @ key) * query.shape[-1] ** -0.5, to_logits.transpose(-1, -2) @ query,
                weights.transpose(-1, -2) @ cotangent)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(width)) v: `[..., n, width]` each. For graphs that several cotangents are sent through.

    In bfloat16 on a processor PyTorch's fused kernel takes four times as long backward as plain matrix products of the
    kept weights `[..., n, n]`; everywhere else the fused kernel is as fast or faster, and keeps less.
    """
    if not _bfloat16_on_processor(query):
        return F.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):
        mixed: Tensor = _KeptAttention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return mixed


class _KeptSlope(torch.autograd.Function):
    """GELU that keeps its slope instead of its input."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(torch.ops.aten.gelu_backward(torch.ones_like(value), value))
        return F.gelu(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        slope, = ctx.saved_tensors
        product: Tensor = cotangent * slope
        return product


def gelu(value: Tensor) -> Tensor:
    """GELU, exact form. In bfloat16 on a processor its slope, costlier than the product with it, is computed once."""
    if not _bfloat16_on_processor(value):
        return F.gelu(value)
    result: Tensor = _KeptSlope.apply(value)  # type: ignore[no-untyped-call]
    return result


def _bfloat16_on_processor(value: Tensor) -> bool:
    return value.device.type == "cpu" and value.dtype is torch.bfloat16
