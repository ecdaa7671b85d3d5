"""Gradient reversal (DANN, arXiv 1505.07818): the identity forward, the gradient times -strength backward.

A domain classifier behind it learns to tell domains apart, while what lies before it learns to make that impossible.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * cotangent, None


def reverse_gradient(value: Tensor, strength: float) -> Tensor:
    """The value itself; its gradient comes back multiplied by -`strength`. Any shape."""
    reversed_value: Tensor = _Reversal.apply(value, strength)  # type: ignore[no-untyped-call]
    return reversed_value


def ramp(update: int, length: int) -> float:
    """Strength of the reversal in an update: 2 / (1 + exp(-10 update / length)) - 1, from 0 towards 1 (DANN, 5.2.2).

    Args:
        update: from 0.
        length: updates after which it is 0.9999; 0 for a strength of 1 from the start.
    """
    return 2.0 / (1.0 + math.exp(-10.0 * min(1.0, update / length))) - 1.0 if length else 1.0


class DomainDiscriminator(nn.Sequential):
    """Which data set a feature comes from: linear, ReLU, dropout, linear (SSDG's and SSAN's)."""

    def __init__(self, width: int, hidden: int, domains: int, *, dropout: float) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, domains))
