"""DenseNet-161 up to its second transition (arXiv 1608.06993), one a modality: CMFL's own network.

Widths follow the model's preset: growth is a sixteenth of `width`, the two blocks have half of `depth` and `depth`
layers. At the paper's size (768, 12) these are DenseNet-161's own: growth 48, blocks of 6 and 12, 384 channels.

Legend: b batch, m modalities (order of `network.MODALITIES`), c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig
from mmdg_model.network import MODALITIES
from mmdg_model.training.methods.plain_vit import read_planes
from mmdg_model.training.methods.sample_norm import sample_norm

#: Channels of a layer's 1x1 bottleneck over its growth.
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; its output is put behind its input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.grown = nn.Sequential(
            sample_norm(channels), nn.ReLU(), nn.Conv2d(channels, BOTTLENECK * growth, kernel_size=1, bias=False),
            sample_norm(BOTTLENECK * growth), nn.ReLU(),
            nn.Conv2d(BOTTLENECK * growth, growth, kernel_size=3, padding=1, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        """`[b, c, h, w]` to `[b, c + growth, h, w]`."""
        return torch.cat([maps, self.grown(maps)], dim=1)


class DenseFeatures(nn.Sequential):
    """Stem and dense blocks.

    Args:
        growth: channels that a layer adds; the stem has twice as many.
        blocks: layers of each block.
        last_transition: whether the last block is followed by one too; a complete DenseNet ends in a norm instead.

    Attributes:
        channels: of the result.
    """

    def __init__(self, growth: int, blocks: Sequence[int], *, last_transition: bool = True) -> None:
        channels = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False),
                                   sample_norm(channels), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)]
        for index, depth in enumerate(blocks):
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            if index < len(blocks) - 1 or last_transition:
                layers += [sample_norm(channels), nn.ReLU(),
                           nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
            else:
                layers.append(sample_norm(channels))
        super().__init__(*layers)
        self.channels = channels


class DenseBranches(nn.Module):
    """`DenseFeatures` a modality, averaged over the image."""

    def __init__(self, shape: ModelConfig) -> None:
        super().__init__()
        self.shape = shape
        growth, depth = max(4, shape.width // 16), shape.depth
        features = [DenseFeatures(growth, (max(1, depth // 2), depth)) for _ in MODALITIES]
        self.channels = features[0].channels
        self.each = nn.ModuleList(features)

    def forward(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to features `[b, m, c]`, 0 for what is not read.

        Raises:
            ValueError: as `read_planes`.
        """
        seen, read_BM = read_planes(planes, present_BM, self.shape)
        features_BMC = torch.stack([branch(seen[:, index]).mean(dim=(2, 3))
                                    for index, branch in enumerate(self.each)], dim=1)
        return features_BMC * read_BM[:, :, None]
