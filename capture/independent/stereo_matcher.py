"""Active stereo in earnest: a projected pattern of dots, two infrared images, and a matcher that knows nothing else.

Depth errors are what OpenCV's semi-global matcher makes of the images (Hirschmüller, "Stereo processing by semiglobal
matching and mutual information", TPAMI 2008): holes where it finds no unique match or left and right disagree, fat
edges, the strip the right imager does not see, noise that grows with z². Nothing is drawn at random here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.independent.imagers import unit_generator
from capture.simulated.meshes import Float32

#: The projector: beside the left imager, metres; its field across, degrees.
PROJECTOR_PLACE_M, PROJECTOR_FIELD_DEG = (0.028, 0.0, 0.0), 88.0


def dot_pattern(serial: str, dots: int = 9000, shape: tuple[int, int] = (960, 1280)) -> Float32:
    """A pattern of one projector, (rows, columns), multiples of even light: dots no two of which touch."""
    rng = unit_generator(serial, "projector")
    rows, columns = shape
    apart = 0.55 * np.sqrt(rows * columns / dots)
    taken = np.zeros(shape, np.uint8)
    pattern = np.zeros(shape, np.float32)
    for x, y in rng.uniform([2, 2], [columns - 2, rows - 2], (6 * dots, 2)):
        if not taken[int(y), int(x)]:
            cv2.circle(taken, (int(x), int(y)), round(apart), 1, -1)
            pattern[int(y), int(x)] = rng.uniform(0.6, 1.0)
            dots -= 1
            if not dots:
                break
    spot = 1.3
    pattern = cv2.GaussianBlur(pattern, (0, 0), spot) * np.float32(2 * np.pi * spot ** 2)
    return np.asarray(0.12 + 4.0 * pattern, np.float32)


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """Semi-global matching of rectified pairs.

    Attributes:
        disparities: searched, a multiple of 16. window_px: side of the matched blocks, odd.
        finer: images are enlarged this often before they are matched; halves the matcher's step of 1/16 px.
    """

    disparities: int = 128
    window_px: int = 7
    finer: int = 2

    def disparity_px(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> Float32:
        """Disparity (H, W) of the left image in its pixels; NaN where there is none."""
        height, width = left.shape
        size = (width * self.finer, height * self.finer)
        search = self.disparities * self.finer
        block = self.window_px * self.finer // 2 * 2 + 1 if self.finer > 1 else self.window_px
        block = min(block, 11)
        pair = [np.pad(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), ((0, 0), (search, 0)))
                for image in (left, right)]
        matcher = cv2.StereoSGBM.create(
            minDisparity=0, numDisparities=search, blockSize=block, P1=8 * block ** 2, P2=40 * block ** 2,
            disp12MaxDiff=1, preFilterCap=31, uniquenessRatio=8, speckleWindowSize=80 * self.finer ** 2, speckleRange=2,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY)
        fine = matcher.compute(*pair)[:, search:].astype(np.float32) / np.float32(16 * self.finer)
        fine[fine <= 0] = np.nan
        if self.finer == 1:
            return np.asarray(fine)
        # A pixel has depth where most of its parts have; theirs is averaged unless they lie on two surfaces.
        parts = fine.reshape(height, self.finer, width, self.finer).transpose(0, 2, 1, 3).reshape(height, width, -1)
        found = np.isfinite(parts).sum(axis=2) * 2 > parts.shape[2]
        lowest, highest = (op.reduce(np.where(np.isfinite(parts), parts, fill), axis=2)
                           for op, fill in ((np.minimum, np.inf), (np.maximum, -np.inf)))
        mean = np.nansum(parts, axis=2) / np.maximum(np.isfinite(parts).sum(axis=2), 1)
        out = np.where(highest - lowest > 1.0, highest, mean)
        return np.where(found, out, np.nan).astype(np.float32)


def depth_units(disparity_px: Float32, focal_baseline_px_m: float, unit_m: float, *, nearest_m: float,
                farthest_m: float) -> NDArray[np.uint16]:
    """Depth in units; 0 where there is no disparity or it is out of range."""
    with np.errstate(invalid="ignore", divide="ignore"):
        depth_m = np.float32(focal_baseline_px_m) / disparity_px
        good = np.isfinite(depth_m) & (depth_m >= nearest_m) & (depth_m <= farthest_m)
        units = np.where(good, np.rint(depth_m / np.float32(unit_m)), 0)
    return np.asarray(units, np.uint16)
