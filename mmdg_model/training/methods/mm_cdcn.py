"""MM-CDCN (CVPRW 2020, arXiv 2004.08388): central difference convolutions, one branch a modality, a map of liveness.

A convolution of which a share θ sees differences to its centre only (arXiv 2003.04092); three levels of each branch are
resized to an eighth of the image, joined, and end in a map M that should be 1 for a live face and 0 for an attack:

    CDC(x)  = conv3x3(x; w) - θ conv1x1(x; sum of w's taps)
    L       = mean (M - T)^2 + mean over eight neighbours k of (D_k M - D_k T)^2,   D_k M = M_k - M_centre
    score   = 4 (mean of M - 1/2)

The score is the first-order log-odds about 1/2 of a mean that is trained to be 0 or 1.

Legend: b batch, m modalities (order of `network.MODALITIES`), h side of the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ModelConfig
from mmdg_model.network import LIVE_COLUMN, MODALITIES
from mmdg_model.training.methods.contract import Method, MethodContext, MethodError, TrainingBatch
from mmdg_model.training.methods.mean_loss import MeanLossMethod
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import read_planes
from mmdg_model.training.methods.sample_norm import sample_norm
from mmdg_model.training.methods.starting_weights import check_start, draw_network

#: Image side over map side.
MAP_STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class MmCdcnSettings:
    """What may be set.

    Attributes:
        theta: share of the central difference (source: 0.7).
        contrast_weight: of the contrastive depth loss (source: 1).

    Raises:
        ValueError: a value out of range.
    """

    theta: float = 0.7
    contrast_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.theta <= 1.0:
            raise ValueError(f"theta is {self.theta!r}, expected 0 to 1")
        if not 0.0 <= self.contrast_weight < float("inf"):
            raise ValueError(f"contrast_weight is {self.contrast_weight!r}, expected at least 0")


class CentralDifferenceConv2d(nn.Module):
    """3x3 CDC without bias. It is linear in x, so the second term folds into the centre tap: one convolution."""

    def __init__(self, inputs: int, outputs: int, *, theta: float) -> None:
        super().__init__()
        self.theta = theta
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # what `nn.Conv2d` does, as in the release

    def forward(self, maps: Tensor) -> Tensor:
        """`[b, inputs, height, width]` to `[b, outputs, height, width]`."""
        taps = self.weight.sum(dim=(2, 3), keepdim=True)
        return F.conv2d(maps, self.weight - self.theta * F.pad(taps, (1, 1, 1, 1)), padding=1)


def _unit(inputs: int, outputs: int, theta: float) -> list[nn.Module]:
    return [CentralDifferenceConv2d(inputs, outputs, theta=theta), sample_norm(outputs), nn.ReLU()]


def _block(inputs: int, narrow: int, wide: int, theta: float) -> nn.Sequential:
    return nn.Sequential(*_unit(inputs, narrow, theta), *_unit(narrow, wide, theta), *_unit(wide, narrow, theta),
                         nn.MaxPool2d(kernel_size=3, stride=2, padding=1))


class CentralDifferenceBranch(nn.Module):
    """One modality: a stem, three blocks that halve the image, their levels joined at an eighth of it.

    Args:
        channels: of the stem; the rest follows (64 in the source: 128, 196).
    """

    def __init__(self, channels: int, *, theta: float) -> None:
        super().__init__()
        narrow, wide = 2 * channels, channels * 196 // 64
        self.stem = nn.Sequential(*_unit(3, channels, theta))
        self.blocks = nn.ModuleList([_block(channels, narrow, wide, theta), _block(narrow, narrow, wide, theta),
                                     _block(narrow, narrow, wide, theta)])
        self.joined = nn.Sequential(*_unit(3 * narrow, narrow, theta))

    def forward(self, image: Tensor) -> Tensor:
        """`[b, 3, S, S]` to `[b, 2 channels, S / 8, S / 8]`."""
        maps, levels, side = self.stem(image), [], image.shape[-1] // MAP_STRIDE
        for block in self.blocks:
            maps = block(maps)
            levels.append(F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False))
        joined: Tensor = self.joined(torch.cat(levels, dim=1))
        return joined


class MultiModalCDCN(nn.Module):
    """Three branches, one map. 64 channels of the stem at the paper's size, fewer for narrower model presets."""

    def __init__(self, shape: ModelConfig, *, theta: float) -> None:
        super().__init__()
        self.shape = shape
        channels = max(8, shape.width // 12)
        self.branches = nn.ModuleList(CentralDifferenceBranch(channels, theta=theta) for _ in MODALITIES)
        self.joined = nn.Sequential(*_unit(len(MODALITIES) * 2 * channels, 2 * channels, theta))
        self.head = CentralDifferenceConv2d(2 * channels, 1, theta=theta)

    def forward(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to maps `[b, S / 8, S / 8]`, at least 0.

        An absent modality's features are 0, with the encoding `flag`. Raises `ValueError` as `read_planes`.
        """
        seen, read_BM = read_planes(planes, present_BM, self.shape)
        features = [branch(seen[:, index]) * read_BM[:, index, None, None, None]
                    for index, branch in enumerate(self.branches)]
        map_B1HH = torch.relu(self.head(self.joined(torch.cat(features, dim=1))))
        return map_B1HH[:, 0]


def contrastive_depth_loss(map_BHH: Tensor, target_BHH: Tensor) -> Tensor:
    """`[b]`: mean over eight neighbours and all inner places of the squared error of neighbour - centre.

    `[b, h, h]` each, h at least 3; no padding, as released.
    """
    error_BHH = map_BHH - target_BHH  # differences are linear: the difference of errors is the error of differences
    side = error_BHH.shape[-1] - 2
    centre = error_BHH[:, 1:-1, 1:-1]
    squares = [(error_BHH[:, row:row + side, column:column + side] - centre).square()
               for row in range(3) for column in range(3) if (row, column) != (1, 1)]
    return torch.stack(squares).mean(dim=(0, 2, 3))


class MmCdcn(MeanLossMethod):
    """The two terms above."""

    terms = ("map", "contrast")

    def __init__(self, context: MethodContext, network: MultiModalCDCN, settings: MmCdcnSettings) -> None:
        super().__init__(context, network)
        self._settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Against a map of ones for live, zeros for attacks."""
        map_BHH = self.network(batch.planes, batch.present)
        map_BHH = map_BHH.to(torch.promote_types(map_BHH.dtype, torch.float32))
        live_B = (batch.label == LIVE_COLUMN).to(map_BHH.dtype)
        target_BHH = live_B[:, None, None].expand_as(map_BHH)
        return {"map": (map_BHH - target_BHH).square().mean(),
                "contrast": self._settings.contrast_weight * contrastive_depth_loss(map_BHH, target_BHH).mean()}

    def logits(self, planes: Tensor, present: Tensor) -> Tensor:
        """`[b, 2]`: 0 for attack, 4 (mean of the map - 1/2) for bona fide."""
        mean_B = self.network(planes, present).mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(mean_B), 4.0 * (mean_B - 0.5)], dim=1)


def build_mm_cdcn(context: MethodContext, settings: MmCdcnSettings) -> Method:
    """Everything trains: no pretrained weights exist for it, and a ViT's are not read.

    Raises:
        MethodError: see `check_start`; or an image side that is no multiple of 8, or below 24.
    """
    check_start(context)
    if context.model.image_size % MAP_STRIDE or context.model.image_size < 3 * MAP_STRIDE:
        raise MethodError(f"model.image_size is {context.model.image_size}, expected a multiple of {MAP_STRIDE} from "
                          f"{3 * MAP_STRIDE}: the map has an eighth of it, at least 3 x 3")
    return MmCdcn(context, draw_network(context, lambda: MultiModalCDCN(context.model, theta=settings.theta)), settings)


ROWS = (MethodEntry(
    name="mm_cdcn", title="MM-CDCN", summary="central difference convolutions, a branch a modality, a map of liveness",
    source="arXiv 2004.08388; arXiv 2003.04092; arXiv 2402.19298, Tables 1 to 3", settings=MmCdcnSettings,
    build=build_mm_cdcn, fixed={}, own_backbone=True),)
