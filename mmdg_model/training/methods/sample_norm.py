"""The normalisation of convolutional networks here: by sample, where their sources normalise by batch."""

from __future__ import annotations

from torch import nn

#: Numbers of groups, the first that fits; each group has at least four channels.
_GROUPS = (32, 16, 8, 4, 2)


def sample_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in place of batch normalisation: as many parameters, no sample depends on another.

    A batch's statistics change with its split over accumulated parts and processes, and mean little for the small
    batches that processors without a GPU train on.
    """
    groups = next((groups for groups in _GROUPS if channels % groups == 0 and channels >= 4 * groups), 1)
    return nn.GroupNorm(groups, channels)
