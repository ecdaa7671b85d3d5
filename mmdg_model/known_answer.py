"""The known-answer test: fixed crops through the whole path, logits compared with those stored at creation.

It proves that this file, on this machine, with this code, still computes what it did when it was made. It proves
nothing about training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mmdg_model.inputs import DepthEncoding, InputSpecification
from mmdg_model.scorer import CropPlanes

#: Name of the formula below; a stored answer to another formula cannot be checked.
FORMULA = "quadratic-residues-1"

#: Decimals to which answers are stored, far finer than any tolerance.
STORED_DECIMALS = 4


@dataclass(frozen=True, kw_only=True)
class KnownAnswer:
    """Logits that a checkpoint must reproduce.

    Attributes:
        formula: which fixed crops.
        logits: `[4, 2]` for `known_answer_crops`, as nested tuples.

    Raises:
        ValueError: an unknown formula, or logits that are not 4 pairs of finite numbers.
    """

    formula: str
    logits: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if self.formula != FORMULA:
            raise ValueError(f"known_answer.formula is {self.formula!r}, this version knows {FORMULA!r}")
        values = np.asarray(self.logits, dtype=np.float64)
        if values.shape != (4, 2) or not np.isfinite(values).all():
            raise ValueError(f"known_answer.logits is {self.logits!r}, expected 4 pairs of finite numbers")

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> Self:
        """Rounds measured logits `[4, 2]` for storage."""
        rows = tuple((round(float(attack), STORED_DECIMALS), round(float(live), STORED_DECIMALS))
                     for attack, live in logits)
        return cls(formula=FORMULA, logits=rows)

    def deviation(self, logits: NDArray[np.float32]) -> float:
        """Largest difference from `logits` `[4, 2]`, over the largest stored logit or 1; infinite for NaN."""
        stored = np.asarray(self.logits, dtype=np.float64)
        if logits.shape != stored.shape or not np.isfinite(logits).all():
            return float("inf")
        return float(np.abs(logits - stored).max() / max(1.0, float(np.abs(stored).max())))


def known_answer_crops(specification: InputSpecification) -> list[CropPlanes]:
    """Four crops: all modalities, without infrared, without depth, colour only. Integers throughout, no generator."""
    full = [_crop(specification, number) for number in range(4)]
    return [
        full[0],
        CropPlanes(colour=full[1].colour, colour_valid=full[1].colour_valid, depth=full[1].depth,
                   depth_valid=full[1].depth_valid, depth_unit_m=full[1].depth_unit_m),
        CropPlanes(colour=full[2].colour, colour_valid=full[2].colour_valid, infrared=full[2].infrared,
                   infrared_valid=full[2].infrared_valid, infrared_bit_depth=full[2].infrared_bit_depth),
        CropPlanes(colour=full[3].colour, colour_valid=full[3].colour_valid),
    ]


def _crop(specification: InputSpecification, number: int) -> CropPlanes:
    size = specification.image_size
    row, column = np.mgrid[0:size, 0:size].astype(np.int64)
    waves = [(row * row * (3 + number) + column * (7 + 2 * channel) + row * column) // (5 + channel) % 256
             for channel in range(5)]
    disc = (2 * row - size) ** 2 + (2 * column - size) ** 2
    if specification.depth_encoding is DepthEncoding.METRIC_8BIT:
        # A bowl 0.5 m away, 0.1 mm a unit, with 5 mm of relief on it.
        depth = 5000 + disc * 1000 // (size * size) + waves[3] * 50 // 256
    else:
        depth = waves[3]
    return CropPlanes(
        colour=np.stack(waves[:3], axis=-1).astype(np.uint8), colour_valid=disc < 2 * size * size,
        depth=depth.astype(np.uint16), depth_valid=(row * 31 + column * 17 + number) % 11 != 0, depth_unit_m=1e-4,
        infrared=(waves[4] * 1023 // 255).astype(np.uint16), infrared_valid=(row + column + number) % 29 != 0,
        infrared_bit_depth=10)
