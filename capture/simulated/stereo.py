"""What a stereo matcher makes of true depth: smoothing, fat edges, correlated errors, steps of disparity.

Part of the errors fades from frame to frame, part lasts: on a still wall a D4xx shows waves that the mean of 50 frames
shows as well (docs/simulator-sources.md). What lasts is fixed to pixels here; a real camera's belongs to the scene too.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from capture.simulated.meshes import Float32
from capture.simulated.profiles import SensorNoise

_FIELDS, _MARGIN = 4, 400
#: A matcher's window does not smooth across jumps larger than this, pixels of disparity.
_SAME_SURFACE_PX = 0.6


@lru_cache(maxsize=4)
def _fields(shape: tuple[int, int], correlation_px: float) -> tuple[Float32, ...]:
    rng = np.random.default_rng(46)
    found = []
    for _ in range(_FIELDS):
        field = rng.standard_normal((shape[0] + _MARGIN, shape[1] + _MARGIN), dtype=np.float32)
        if correlation_px:
            field = np.asarray(cv2.GaussianBlur(field, (0, 0), correlation_px, borderType=cv2.BORDER_REFLECT),
                               np.float32)
        field /= field.std()
        field.flags.writeable = False
        found.append(field)
    return tuple(found)


class CorrelatedFields:
    """Unit-variance normal fields that are alike within a few pixels and fade from frame to frame; by seed and index
    alone. All cameras of one shape cut theirs from the same few large fields, each at places of its own."""

    def __init__(self, shape: tuple[int, int], correlation_px: float, hold_frames: int, seed: int) -> None:
        self._shape, self._hold, self._seed = shape, hold_frames, seed
        self._fields = _fields(shape, correlation_px)

    def _still(self, number: int, purpose: int) -> Float32:
        rng = np.random.default_rng([self._seed, 47, purpose, number])
        row, column, which, flips = (int(rng.integers(top)) for top in (_MARGIN, _MARGIN, _FIELDS, 4))
        field = self._fields[which][row:row + self._shape[0], column:column + self._shape[1]]
        return np.asarray(field[::-1 if flips & 1 else 1, ::-1 if flips & 2 else 1])

    def lasting(self) -> Float32:
        """A field (H, W) that is the same in every frame."""
        return self._still(0, 9)

    def at(self, index: int, purpose: int) -> Float32:
        """The field (H, W) of one frame. Two `hold` frames apart are independent; between, cosine and sine blend them,
        which keeps the variance."""
        number, within = divmod(index, self._hold)
        if not within:
            return self._still(number, purpose)
        angle = np.pi / 2 * within / self._hold
        return np.asarray(np.float32(np.cos(angle)) * self._still(number, purpose)
                          + np.float32(np.sin(angle)) * self._still(number + 1, purpose))


class DepthErrors:
    """Turns true depth into measured depth."""

    def __init__(self, shape: tuple[int, int], noise: SensorNoise, seed: int) -> None:
        self.noise = noise
        self._fields = CorrelatedFields(shape, noise.correlation_px, noise.hold_frames, seed)

    def applied(self, index: int, depth_m: Float32, focal_baseline_px_m: float,
                region: tuple[slice, slice]) -> Float32:
        """Measured depth (H, W); only `region` holds edges and curved surfaces."""
        noise = self.noise
        disparity = np.float32(focal_baseline_px_m) / depth_m
        own = disparity[region]
        if own.size and noise.window_px:
            smooth = cv2.GaussianBlur(own, (0, 0), noise.window_px)
            own[:] = np.where(np.abs(smooth - own) < _SAME_SURFACE_PX, smooth, own)
        if own.size and noise.fat_edges_px:
            side = 2 * noise.fat_edges_px + 1
            near = cv2.dilate(own, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
            ragged = self._fields.at(index, 2)[region] > 0
            own[:] = np.where((near - own > 1) & ragged, near, own)
        disparity += np.float32(noise.disparity_px * np.sqrt(1 - noise.lasting_share)) * self._fields.at(index, 1)
        if noise.lasting_share:
            disparity += np.float32(noise.disparity_px * np.sqrt(noise.lasting_share)) * self._fields.lasting()
        if noise.disparity_step_px:
            disparity = np.rint(disparity * np.float32(1 / noise.disparity_step_px)) \
                * np.float32(noise.disparity_step_px)
        return np.asarray(np.float32(focal_baseline_px_m) / np.maximum(disparity, np.float32(1e-3)), np.float32)
