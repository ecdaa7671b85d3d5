"""ResNet-18 (arXiv 1512.03385) for methods that bring their own backbone, with group instead of batch normalisation.

Legend: b batch, c channels, s side of a map.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.sample_norm import sample_norm


def scaled(channels: int, config: ModelConfig) -> int:
    """Channels of a published network at `config`'s share of ViT-B's width, a multiple of 8, at least 16.

    So that the presets `tiny` and `micro` shrink every network as they shrink the ViT; at `base` it is `channels`.
    """
    return max(16, round(channels * config.width / 768 / 8) * 8)


def convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Without bias, padded, weights after He (fan out)."""
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is projected where its shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(convolution(inputs, outputs, stride=stride), sample_norm(outputs), nn.ReLU(),
                                      convolution(outputs, outputs), sample_norm(outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else nn.Sequential(
            convolution(inputs, outputs, size=1, stride=stride), sample_norm(outputs))
        self.activation = nn.ReLU()

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """`[b, c, s, s]` to `[b, outputs, s / stride, s / stride]`."""
        activated: Tensor = self.activation(self.residual(map_BCSS) + self.shortcut(map_BCSS))
        return activated


class ResNet18(nn.Module):
    """Stem and stages of two basic blocks each; no pooling at the end and no classifier.

    Args:
        width: channels of the first stage; 64 as published, where four stages hold 11,176,512 parameters.
        stages: how many of the four.

    Attributes:
        widths: channels of each stage's output.
    """

    def __init__(self, width: int, *, stages: int = 4) -> None:
        super().__init__()
        self.widths = tuple(width * 2**stage for stage in range(stages))
        self.stem = nn.Sequential(convolution(3, width, size=7, stride=2), sample_norm(width), nn.ReLU(),
                                  nn.MaxPool2d(3, stride=2, padding=1))
        inputs = (width, *self.widths)
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(inputs[stage], outputs, stride=1 if stage == 0 else 2),
                          BasicBlock(outputs, outputs, stride=1)) for stage, outputs in enumerate(self.widths))

    def levels(self, images: Tensor) -> Iterator[Tensor]:
        """`[b, 3, S, S]` to each stage's output in turn, `[b, widths[i], S / 4 / 2^i, S / 4 / 2^i]`, rounded up."""
        map_BCSS: Tensor = self.stem(images)
        for stage in self.stages:
            map_BCSS = stage(map_BCSS)
            yield map_BCSS

    def forward(self, images: Tensor) -> Tensor:
        """The last stage's output."""
        *_, last = self.levels(images)
        return last
