"""The simulated camera's truth maps behind `benchmarks.registration.TruthScene`. Needs the extra `simulate`."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from capture.camera import Pace
from capture.frames import FrameSet, StreamKind
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.scene import Segment
from capture.simulated.sensors import SensorNoise, simulated_rig


class SimulatedScene:
    """One frame set of a simulated live head, and its exact correspondences (sampled bilinearly between pixels).

    `velocity_m_s`: a drift added to the head's own gentle motion. Infrared shares the depth grid.
    """

    def __init__(self, *, distance_m: float, noise: bool, skew_ms: float, seed: int = 0,
                 velocity_m_s: tuple[float, float, float] = (0.3, 0.0, 0.0)) -> None:
        self.distance_m = distance_m
        self.rig = simulated_rig(distorted=True)
        scene = make_scene("bona_fide", seed=seed, distance_m=distance_m, drift_m_per_s=velocity_m_s)
        camera = SimulatedCamera(scene, seed=seed, pace=Pace.LOCKSTEP, frames=1, rig=self.rig, skew_ms=skew_ms,
                                 noise=SensorNoise() if noise else SensorNoise.none(), with_truth=True)
        with camera:
            self._frame_set = camera.read(10.0)
        self._truth = self._frame_set.truth
        self._maps = self._truth.render_truth()

    def frame_set(self) -> FrameSet:
        return self._frame_set

    def face_box(self, kind: StreamKind) -> tuple[float, float, float, float]:
        ((left, top, right, bottom),) = self._truth.face_boxes(kind)
        return left, top, right - left, bottom - top

    def positions(self, x: np.ndarray, y: np.ndarray, target: StreamKind) -> tuple[np.ndarray, ...]:
        x, y = x.astype(np.float32), y.astype(np.float32)
        there = cv2.remap(self._maps.colour_to_depth.astype(np.float32), x, y, cv2.INTER_LINEAR)
        seen = cv2.remap(self._maps.colour_seen_by_depth.astype(np.uint8), x, y, cv2.INTER_NEAREST) > 0
        face = cv2.remap(self._maps.colour_segments, x, y, cv2.INTER_NEAREST) == Segment.FACE
        return there[..., 0], there[..., 1], seen, face

    @cached_property
    def inside_px(self) -> np.ndarray:
        face = (self._maps.colour_segments == Segment.FACE).astype(np.uint8)
        return cv2.distanceTransform(face, cv2.DIST_L2, 5)
