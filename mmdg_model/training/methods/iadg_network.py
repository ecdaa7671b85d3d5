"""IADG's network (arXiv 2304.05640): convolutions with a kernel made for each sample, a classifier, a depth map.

Legend: b batch, c channels, s side of a map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.plain_vit import ModalityFusion, new_head
from mmdg_model.training.methods.residual_network import convolution, scaled
from mmdg_model.training.methods.sample_norm import sample_norm
from mmdg_model.training.methods.trunks import TrunkFeatures, UAdapterTrunk, ViTTrunk


class DynamicKernel(nn.Module):
    """One half of the channels through a depthwise 3x3 kernel made of the sample itself, the other through a fixed one.

    The kernel of a channel follows from that channel's mean over the map.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.split = inputs // 2
        self.kernel = nn.Sequential(nn.Linear(1, 9), nn.Linear(9, 9))
        self.fixed = convolution(inputs - self.split, inputs - self.split)
        self.joined = convolution(inputs, outputs, size=1)

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """`[b, inputs, s, s]` to `[b, outputs, s, s]`."""
        dynamic, rest = map_BCSS[:, :self.split], map_BCSS[:, self.split:]
        batch, channels, height, width = dynamic.shape
        kernel: Tensor = self.kernel(dynamic.mean(dim=(2, 3))[:, :, None])
        # All samples at once: each of b * c planes is a group with a kernel of its own.
        moved = F.conv2d(dynamic.reshape(1, batch * channels, height, width),
                         kernel.reshape(batch * channels, 1, 3, 3), padding=1, groups=batch * channels)
        joined: Tensor = self.joined(torch.cat([moved.reshape(dynamic.shape), self.fixed(rest)], dim=1))
        return joined


def convolved(inputs: int, outputs: int, *, dynamic: bool = False) -> nn.Sequential:
    """Convolution (or `DynamicKernel`), norm, ReLU."""
    layer: nn.Module = DynamicKernel(inputs, outputs) if dynamic else convolution(inputs, outputs)
    return nn.Sequential(layer, sample_norm(outputs), nn.ReLU())


class DynamicTrunk(nn.Module):
    """9-to-3 fusion and IADG's feature extractor: three stages of three convolutions, the second one dynamic.

    Attributes:
        level_widths, level_sizes: of its three maps.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, middle, last = scaled(64, config), scaled(192, config), scaled(128, config)
        self.fusion = ModalityFusion(config)
        self.stem = convolved(3, first)
        self.stages = nn.ModuleList(
            nn.Sequential(convolved(inputs, last), convolved(last, middle, dynamic=True), convolved(middle, last),
                          nn.MaxPool2d(2)) for inputs in (first, last, last))
        self.width = 0
        self.level_widths = (last,) * 3
        self.level_sizes = tuple(config.image_size // 2**stage for stage in (1, 2, 3))

    def forward(self, planes: Tensor, present_BM: Tensor) -> TrunkFeatures:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`. Raises `ValueError`, see `ModalityFusion`."""
        map_BCSS: Tensor = self.stem(self.fusion(planes, present_BM))
        levels = []
        for stage in self.stages:
            map_BCSS = stage(map_BCSS)
            levels.append(map_BCSS)
        return TrunkFeatures(tuple(levels), map_BCSS.new_zeros(len(map_BCSS), 0))


class Judgement(NamedTuple):
    """`logits [b, 2]`; `depth [b, s, s]` in 0..1."""

    logits: Tensor
    depth: Tensor


class IadgOutput(NamedTuple):
    """`logits [b, 2]`; `depth [b, s, s]`; `feature [b, c, s, s]`, which they were made of."""

    logits: Tensor
    depth: Tensor
    feature: Tensor


class IadgNetwork(nn.Module):
    """Trunk, the three levels side by side in the last one's size, classifier and depth estimator.

    A ViT's levels go through a 1x1 convolution, a norm and a ReLU each, to IADG's width.

    Attributes:
        feature_width: channels of the joined feature, 384 as published.
    """

    def __init__(self, trunk: DynamicTrunk | ViTTrunk | UAdapterTrunk, config: ModelConfig) -> None:
        super().__init__()
        own, each = isinstance(trunk, DynamicTrunk), scaled(128, config)
        self.trunk = trunk
        self.necks = nn.ModuleList(
            nn.Identity() if own else nn.Sequential(convolution(inputs, each, size=1), sample_norm(each), nn.ReLU())
            for inputs in trunk.level_widths)
        self.feature_width = 3 * each
        self.assembly = nn.Sequential(convolution(self.feature_width, self.feature_width),
                                      sample_norm(self.feature_width))
        narrow, wide, widest = (scaled(channels, config) for channels in (128, 256, 512))
        self.classifier = nn.ModuleList([convolved(self.feature_width, narrow), convolved(narrow, wide),
                                         convolved(wide, widest)])
        self.head = new_head(widest)
        self.depth = nn.Sequential(convolved(self.feature_width, narrow), convolved(narrow, scaled(64, config)),
                                   nn.Conv2d(scaled(64, config), 1, kernel_size=3, padding=1))

    def forward(self, planes: Tensor, present_BM: Tensor) -> IadgOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`. Raises `ValueError`: wrong shapes, or no modality present."""
        levels = [neck(level) for neck, level in zip(self.necks, self.trunk(planes, present_BM).levels, strict=True)]
        feature = torch.cat([F.adaptive_avg_pool2d(level, levels[2].shape[-2:]) for level in levels], dim=1)
        return IadgOutput(*self.judge(feature), feature)

    def judge(self, feature: Tensor) -> Judgement:
        """Classifier and depth estimator on a joined feature `[b, c, s, s]`."""
        hidden = feature
        for number, layer in enumerate(self.classifier):
            if number and min(hidden.shape[-2:]) > 1:
                hidden = F.max_pool2d(hidden, 2)
            hidden = layer(hidden)
        return Judgement(self.head(hidden.mean(dim=(2, 3))), torch.sigmoid(self.depth(feature)[:, 0]))
