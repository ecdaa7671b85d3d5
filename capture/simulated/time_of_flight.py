"""What a time-of-flight sensor makes of true depth: noise that grows as light returns, mixed pixels, scattered light.

Reasons, and texts where one was read (docs/simulator-sources.md):

- Spread of a phase measurement: proportional to sqrt(A + B) / A, A what returns of the sensor's own light, B the rest.
  It follows where the shot noise of all light, sqrt(A + B), is what disturbs a signal of size A; uncertainty depends on
  the received signal, out of doors on the background. A falls with the square of distance, reflectance and slant.
- Its order of magnitude is chosen; the Azure Kinect's standard deviation is at most 17 mm up to 3.5 m (Tölgyessy et
  al., Sensors 21, 2021, abstract), ours about 6 mm there on white.
- Flying pixels: a pixel on an edge adds the phasors of both surfaces. Where the two distances differ by much less than
  the unambiguous range, the sum's phase is their mean weighted by amplitude; that is what is computed.
- Scattering in the lens and light that arrives by way of other surfaces pull every pixel towards its surroundings,
  dark ones most; how much is chosen.

Not modelled: light that enters skin or wax before it returns (a few millimetres), phase wrapping, motion meanwhile.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.meshes import Float32
from capture.simulated.profiles import SensorNoise
from capture.simulated.stereo import CorrelatedFields

#: Over so many pixels (standard deviation) light is scattered.
_SCATTERED_PX = 12.0
#: A pixel whose mixed depth lies further than this from its own is recognised and dropped, every second time.
_RECOGNISED_M = 0.02


class TimeOfFlightErrors:
    """Turns true depth and returned light into measured depth."""

    def __init__(self, shape: tuple[int, int], noise: SensorNoise, seed: int) -> None:
        self.noise = noise
        self._fields = CorrelatedFields(shape, noise.correlation_px, noise.hold_frames, seed)

    def spread_m(self, returned: Float32, ambient: float) -> Float32:
        """Standard deviation of depth where `returned` (H, W) of the lamp's light comes back (1: a white surface that
        faces the sensor at 1 m), beside `ambient` light in the same unit."""
        bright = np.maximum(returned, np.float32(1e-4))
        return np.asarray(np.float32(self.noise.range_noise_m) * np.sqrt(bright + np.float32(ambient)) / bright,
                          np.float32)

    def applied(self, index: int, depth_m: Float32, returned: Float32,
                ambient: float) -> tuple[Float32, NDArray[np.bool_]]:
        """Measured depth (H, W), and where the sensor says that it has none."""
        noise, measured = self.noise, depth_m
        lost: NDArray[np.bool_] = np.zeros(depth_m.shape, bool)
        bright = np.maximum(returned, np.float32(1e-4))
        if noise.mixed_px:
            weight = cv2.GaussianBlur(bright, (0, 0), noise.mixed_px)
            measured = np.asarray(cv2.GaussianBlur(bright * depth_m, (0, 0), noise.mixed_px) / weight, np.float32)
            # Slopes are not mixed, only jumps are.
            measured = np.where(np.abs(measured - depth_m) < np.float32(0.004), depth_m, measured)
            lost |= (np.abs(measured - depth_m) > np.float32(_RECOGNISED_M)) & (self._fields.at(index, 2) > 0)
        if noise.scattered_share:
            small = (depth_m.shape[1] // 8, depth_m.shape[0] // 8)
            around = [cv2.GaussianBlur(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), (0, 0),
                                       _SCATTERED_PX / 8) for plane in (bright, bright * depth_m)]
            light, moved = (np.float32(noise.scattered_share) * cv2.resize(plane, depth_m.shape[::-1])
                            for plane in around)
            measured = (bright * measured + moved) / (bright + light)
        if noise.range_noise_m:
            spread = self.spread_m(returned, ambient)
            measured = measured + spread * self._fields.at(index, 1)
            lost |= spread > np.float32(noise.range_noise_limit_m)
        return np.asarray(measured, np.float32), lost
