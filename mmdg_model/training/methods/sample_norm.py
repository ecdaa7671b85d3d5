"""The normalisation of convolutional networks here: by sample, where their sources normalise by batch."""

from __future__ import annotations

import math

from torch import nn


def sample_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in place of batch normalisation: as many parameters, no sample depends on another.

    A batch's statistics change with its split over accumulated parts and processes, and mean little for the small
    batches that processors without a GPU train on. Up to 32 groups of at least four channels.
    """
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels)
