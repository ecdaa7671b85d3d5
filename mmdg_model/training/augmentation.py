"""Random changes to a training sample's planes, between reading them and `inputs.prepare`.

Photometric changes are drawn for each modality by itself: three sensors drift independently. Geometric ones are drawn
once for all planes, which stay registered. Every draw is keyed by (seed, epoch, place in the list, copy), so a sample
looks the same whichever worker or process reads it, and in whatever order.

A pixel at level 0 was not measured (`decoding`). It stays 0 under every photometric change, as it does in a live crop:
the sensor saw nothing there, so there is nothing to brighten, and a shifted hole would be a value that no input of the
product ever has. For the same reason a measured pixel of depth or infrared never falls to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdg_model.scorer import CropPlanes
from mmdg_model.training.run_config import AugmentationConfig

Levels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class _Stream(IntEnum):
    """What a generator draws for. The numbers are part of every run: changing one changes all runs."""

    GEOMETRY = 0
    COLOUR = 1
    DEPTH = 2
    INFRARED = 3
    DROPOUT = 4


@dataclass(frozen=True)
class DrawKey:
    """Names one appearance of one sample.

    Attributes:
        seed: of the run.
        epoch: from 0.
        place: of the sample in the training list.
        copy: how often the sample occurred before in this epoch.
    """

    seed: int
    epoch: int
    place: int
    copy: int = 0

    def generator(self, stream: int) -> np.random.Generator:
        """Independent of all other keys and streams."""
        return np.random.default_rng([self.seed, self.epoch, self.place, self.copy, stream])


def augment(crop: CropPlanes, config: AugmentationConfig, key: DrawKey) -> CropPlanes:
    """The crop, changed as drawn. With everything off in `config` it is the crop, bit for bit.

    Args:
        crop: of 8-bit levels in every plane, as `decoding.load_sample` makes it.
        config: which changes, and how large.
        key: of the draws.

    Raises:
        ValueError: a depth or infrared plane of more than 8 bits.
    """
    if crop.depth is not None and crop.depth.max() > 255:
        raise ValueError(f"depth holds {crop.depth.max()}, expected 8-bit levels; metric depth becomes levels first")
    if crop.infrared is not None and crop.infrared.dtype != np.uint8:
        raise ValueError(f"infrared is {crop.infrared.dtype}, expected 8-bit levels")
    return _photometric(_geometric(_dropped(crop, config, key), config, key), config, key)


def _dropped(crop: CropPlanes, config: AugmentationConfig, key: DrawKey) -> CropPlanes:
    drop_depth, drop_infrared = key.generator(_Stream.DROPOUT).random(2) < (config.drop_depth, config.drop_infrared)
    if drop_depth:
        crop = replace(crop, depth=None, depth_valid=None)
    return replace(crop, infrared=None, infrared_valid=None) if drop_infrared else crop


def _geometric(crop: CropPlanes, config: AugmentationConfig, key: DrawKey) -> CropPlanes:
    """One flip, crop and rotation of all planes and their masks."""
    flip, share, across, down, turn = key.generator(_Stream.GEOMETRY).random(5)
    if flip < config.flip:
        crop = _on_planes(crop, lambda levels, valid: (np.ascontiguousarray(levels[:, ::-1]),
                                                       np.ascontiguousarray(valid[:, ::-1])))
    if config.crop_share == 1.0 and config.rotation_degrees == 0.0:
        return crop
    size = len(crop.colour)
    side = 1.0 - share * (1.0 - config.crop_share)
    centre = size * (side / 2 + (1.0 - side) * np.array([across, down]))
    angle = math.radians((2.0 * turn - 1.0) * config.rotation_degrees)
    to_source = side * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # Pixel (i, j) has its centre at (i + 1/2, j + 1/2).
    shift = centre - to_source @ np.full(2, size / 2) + to_source @ np.full(2, 0.5) - 0.5
    source = np.column_stack([to_source, shift])
    warped = _on_planes(crop, lambda levels, valid: _warped(levels, valid, source))
    # A small crop of a face that was cut out can hold nothing but the black around it.
    return warped if warped.colour_valid.any() else crop


def _warped(levels: Levels, valid: Mask, source: NDArray[np.float64]) -> tuple[Levels, Mask]:
    """Bilinear over measured pixels only; a pixel is valid where they have at least half of the weight.

    Holes must not bleed into the surface beside them: a mean of a depth and a 0 is a depth that nobody measured.
    """
    weight = _sampled(valid.astype(np.float32), source)
    kept = weight >= 0.5
    spread = valid if levels.ndim == 2 else valid[:, :, None]
    total = _sampled(np.where(spread, levels, 0).astype(np.float32), source)
    divisor = np.where(kept, weight, 1.0)
    mean = np.rint(total / (divisor if levels.ndim == 2 else divisor[:, :, None]))
    # Of measured pixels at 1 or more the mean is too; it could only round below in single precision.
    lowest = 1.0 if levels.ndim == 2 else 0.0
    kept_spread = kept if levels.ndim == 2 else kept[:, :, None]
    return np.where(kept_spread, np.clip(mean, lowest, 255.0), 0.0).astype(np.uint8), kept


def _sampled(plane: NDArray[np.float32], source: NDArray[np.float64]) -> NDArray[np.float32]:
    size = plane.shape[0]
    sampled: Any = cv2.warpAffine(plane, source, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                  borderMode=cv2.BORDER_CONSTANT, borderValue=(0.0, 0.0, 0.0, 0.0))
    result: NDArray[np.float32] = sampled
    return result


def _on_planes(crop: CropPlanes, change: Any) -> CropPlanes:
    """The crop with `change(levels, valid)` of each plane that it has."""
    colour, colour_valid = change(crop.colour, crop.colour_valid)
    crop = replace(crop, colour=colour, colour_valid=colour_valid)
    if crop.depth is not None and crop.depth_valid is not None:
        depth, depth_valid = change(crop.depth.astype(np.uint8), crop.depth_valid)
        crop = replace(crop, depth=depth.astype(np.uint16), depth_valid=depth_valid)
    if crop.infrared is not None and crop.infrared_valid is not None:
        infrared, infrared_valid = change(crop.infrared, crop.infrared_valid)
        crop = replace(crop, infrared=infrared, infrared_valid=infrared_valid)
    return crop


def _photometric(crop: CropPlanes, config: AugmentationConfig, key: DrawKey) -> CropPlanes:
    if config.offset == 0.0 and config.gamma_low == config.gamma_high == 1.0 and config.noise == 0.0:
        return crop
    crop = replace(crop, colour=_recoloured(crop.colour, crop.colour_valid, config, key.generator(_Stream.COLOUR)))
    if crop.depth is not None and crop.depth_valid is not None:
        depth = _recoloured(crop.depth.astype(np.uint8), crop.depth_valid, config, key.generator(_Stream.DEPTH))
        crop = replace(crop, depth=depth.astype(np.uint16))
    if crop.infrared is not None and crop.infrared_valid is not None:
        infrared = crop.infrared.astype(np.uint8, copy=False)
        crop = replace(crop, infrared=_recoloured(infrared, crop.infrared_valid, config,
                                                  key.generator(_Stream.INFRARED)))
    return crop


def _recoloured(levels: Levels, valid: Mask, config: AugmentationConfig, generator: np.random.Generator) -> Levels:
    """Offset of each channel, then contrast 255·(v/255)^γ, then noise, of the valid pixels."""
    num_channels = 1 if levels.ndim == 2 else levels.shape[2]
    offsets = generator.uniform(-config.offset, config.offset, num_channels)
    gamma = generator.uniform(config.gamma_low, config.gamma_high)
    noise = generator.uniform(0.0, config.noise)
    shifted = np.clip(np.arange(256)[:, None] + offsets, 0.0, 255.0)
    table = 255.0 * (shifted / 255.0) ** gamma
    lowest = 1.0 if levels.ndim == 2 else 0.0
    if config.noise == 0.0:
        whole = np.clip(np.rint(table), lowest, 255.0).astype(np.uint8)
        changed: Levels = cv2.LUT(levels, whole.reshape(1, 256, num_channels)).astype(np.uint8, copy=False)
    else:
        looked_up = cv2.LUT(levels, table.astype(np.float32).reshape(1, 256, num_channels))
        grain = generator.standard_normal(levels.shape, dtype=np.float32) * np.float32(noise)
        changed = np.clip(np.rint(looked_up + grain), lowest, 255.0).astype(np.uint8)
    return np.where(valid if levels.ndim == 2 else valid[:, :, None], changed, np.uint8(0))
