"""`FaceBox` and the `Detector` contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Order of `FaceBox.keypoints`; right and left are the person's own.
KEYPOINT_NAMES = ("right_eye", "left_eye", "nose_tip", "mouth_centre", "right_ear", "left_ear")


@dataclass(frozen=True, kw_only=True)
class FaceBox:
    """A face found in one image.

    Attributes:
        x, y, width, height: pixels of the image it was found in, (x, y) the upper left corner; may reach outside.
        score: the detector's confidence in [0, 1]. It says "a face", never "a live face".
        keypoints: six (x, y) points in pixels, order of `KEYPOINT_NAMES`.
        image: `colour`, or `infrared` when the colour image was too dark to use.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    keypoints: tuple[tuple[float, float], ...]
    image: str = "colour"

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        return self.width * self.height

    def intersection_over_union(self, other: FaceBox) -> float:
        """Overlap in [0, 1]; 0 between boxes of different images."""
        if self.image != other.image:
            return 0.0
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        shared = max(across, 0.0) * max(down, 0.0)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


class DetectorError(RuntimeError):
    """The detector cannot run; the message says what is missing and how to get it."""


class Detector(Protocol):
    """Finds faces in one image."""

    def detect(self, image: NDArray[np.uint8]) -> list[FaceBox]:
        """`image`: `uint8 HxWx3` RGB. Returns boxes, best score first; an empty list when there is no face."""
        ...

    def close(self) -> None: ...
