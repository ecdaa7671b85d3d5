"""From radiance and geometry to planes: rig, response, noise and holes of the simulated RGB-D-IR camera.

Geometry of a D435 at 640x480: colour with f about 615 px, depth and left infrared on one grid with f about 385 px (the
infrared imagers' 91 degree field of view over 848 columns, scaled and cut to 640), stereo baseline 50 mm, colour
14.7 mm beside the left infrared imager. These are typical values that the SDK reports for such cameras; no calibration
of one unit is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.frames import StreamKind
from capture.rig import DistortionModel, Extrinsics, Intrinsics, Rig
from capture.simulated.meshes import Float32
from capture.simulated.render import BodyState, Stage, View, Visible, wall_radiance
from capture.simulated.response import CODES_PER_UNIT, decode_srgb, encode_srgb
from capture.simulated.scene import Scene, turn

DEPTH_SCALE_M = 1e-3
STEREO_BASELINE_M = 0.050
COLOUR_OFFSET_M = 0.0147
#: Mild lens distortion for those who ask for it: k1, k2, p1, p2, k3.
MILD_DISTORTION = (0.06, -0.12, 0.0006, -0.0004, 0.03)


def simulated_rig(size: tuple[int, int] = (640, 480), *, distorted: bool = False, serial: str = "SIM-D435-0") -> Rig:
    """The true rig. `distorted` gives the colour stream `MILD_DISTORTION` (Brown-Conrady)."""
    width, height = size
    scale = width / 640
    colour = Intrinsics(width=width, height=height, fx=615.2 * scale, fy=615.4 * scale,
                        cx=(width - 1) / 2 + 2.3 * scale, cy=(height - 1) / 2 - 1.7 * scale,
                        model=DistortionModel.BROWN_CONRADY if distorted else DistortionModel.NONE,
                        coefficients=MILD_DISTORTION if distorted else (0.0, 0.0, 0.0, 0.0, 0.0))
    depth = Intrinsics(width=width, height=height, fx=385.1 * scale, fy=385.1 * scale,
                       cx=(width - 1) / 2 - 0.8 * scale, cy=(height - 1) / 2 + 1.1 * scale)
    to_colour = Extrinsics.from_arrays(turn(0.003, -0.002, 0.001), np.array([COLOUR_OFFSET_M, 0.0001, 0.0003]))
    return Rig(serial=serial, name="simulated D435-like camera",
               intrinsics={StreamKind.COLOUR: colour, StreamKind.DEPTH: depth, StreamKind.INFRARED: depth},
               to_colour={StreamKind.COLOUR: Extrinsics.identity(), StreamKind.DEPTH: to_colour,
                          StreamKind.INFRARED: to_colour}, depth_scale_m=DEPTH_SCALE_M)


@dataclass(frozen=True, kw_only=True)
class SensorNoise:
    """What the sensors add. `SensorNoise()` is a D435-like camera, `SensorNoise.none()` an ideal one.

    Attributes:
        disparity_px: standard deviation of the stereo matcher's disparity; depth noise is z² times this / (f B).
        holes: leave depth out at jumps, in the stereo shadow, at grazing angles, on dark and on glossy surfaces.
        grazing_cosine: surfaces seen flatter than this give no depth. dark_code: nor do those darker than this.
        full_well: electrons at code 255 (shot noise), in colour and infrared. read_codes: noise in the dark, codes.
        blur_px: standard deviation of the optics' point-spread function.
    """

    disparity_px: float = 0.08
    holes: bool = True
    grazing_cosine: float = 0.18
    dark_code: float = 2.0
    full_well: float | None = 6000.0
    read_codes: float = 0.9
    blur_px: float = 0.6

    @classmethod
    def none(cls) -> SensorNoise:
        """Ideal planes: exact depth to the nearest unit, no noise, no blur, no holes."""
        return cls(disparity_px=0.0, holes=False, full_well=None, read_codes=0.0, blur_px=0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planes:
    """One instant: `colour` uint8 (H, W, 3) RGB, `depth` uint16 (H, W) in `DEPTH_SCALE_M`, `infrared` uint8 (H, W)."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    infrared: NDArray[np.uint8]


class Sensors:
    """Renders planes of one scene. Each instant depends on scene, seed and index alone, never on what came before."""

    def __init__(self, scene: Scene, rig: Rig, noise: SensorNoise, seed: int) -> None:
        self.stage, self.rig, self.noise, self.seed = Stage(scene), rig, noise, seed
        self.colour_view = View(intrinsics=rig.intrinsics[StreamKind.COLOUR],
                                from_world=rig.transform(StreamKind.DEPTH, StreamKind.COLOUR))
        self.depth_view = View(intrinsics=rig.intrinsics[StreamKind.DEPTH], from_world=Extrinsics.identity())
        self._wall_colour = encode_srgb(wall_radiance(self.colour_view, scene.wall, scene.light)[0])
        # Automatic exposure, settled: skin (0.6) at the scene's nominal distance gives about code 150.
        self._infrared_gain = np.float32(290.0 * scene.nominal_distance_m ** 2)
        self._wall_infrared = wall_radiance(self.depth_view, scene.wall, scene.light)[1] * self._infrared_gain
        pixels = self.colour_view.intrinsics.width * self.colour_view.intrinsics.height
        rng = np.random.default_rng([seed, 41])
        # Drawing normals costs more than rendering: each frame reads this bank from another place.
        self._bank = rng.standard_normal(4 * pixels + 65_536, dtype=np.float32)
        blotches = cv2.GaussianBlur(rng.standard_normal((64, 64)), (0, 0), 2.0)
        self._blotches: Float32 = (blotches / np.std(blotches)).astype(np.float32)
        codes = np.arange(256, dtype=np.float32)
        self._infrared_sigma = np.zeros(256, np.float32)
        self._colour_sigma = np.zeros(256, np.float32)
        if noise.full_well is not None:
            shot = codes * np.float32(255 / noise.full_well)
            self._infrared_sigma = np.sqrt(shot + np.float32(noise.read_codes ** 2))
            linear = decode_srgb(np.arange(256, dtype=np.uint8))
            spread = np.sqrt(linear / np.float32(noise.full_well) + np.float32((noise.read_codes / 255 / 8) ** 2))
            self._colour_sigma = np.minimum(spread * CODES_PER_UNIT, 6.0).astype(np.float32)

    def planes(self, index: int, time_s: float, colour_time_s: float) -> Planes:
        """The instant `index`: depth and infrared at `time_s`, colour at `colour_time_s`."""
        rng = np.random.default_rng([self.seed, 43, index])
        states = self.stage.states(time_s)
        later = states if colour_time_s == time_s else self.stage.states(colour_time_s)
        colour = self._colour(later, self._normals(rng, 3))
        depth, infrared = self._depth_and_infrared(states, rng)
        return Planes(colour=colour, depth=depth, infrared=infrared)

    def _normals(self, rng: np.random.Generator, planes: int) -> Float32:
        count = planes * self.colour_view.intrinsics.width * self.colour_view.intrinsics.height
        start = int(rng.integers(len(self._bank) - count))
        return self._bank[start:start + count]

    def _colour(self, states: list[BodyState], normals: Float32) -> NDArray[np.uint8]:
        visible = self.stage.visible(self.colour_view, states)
        codes = self._wall_colour.copy()
        flat = codes.reshape(-1, 3)
        for layer in visible.layers:
            shaded = self.stage.shade(self.colour_view, layer, colour=True, infrared=False)
            assert shaded.colour is not None
            flat[layer.pixel] = encode_srgb(shaded.colour)
        return self._finish(codes, self._colour_sigma, normals)

    def _finish(self, codes: NDArray[np.uint8], sigma: Float32, normals: Float32) -> NDArray[np.uint8]:
        """Point-spread function, then noise whose strength depends on the code."""
        if self.noise.blur_px:
            codes = np.asarray(cv2.GaussianBlur(codes, (5, 5), self.noise.blur_px), np.uint8)
        if self.noise.full_well is None:
            return codes
        spread = cv2.LUT(codes, sigma)
        noisy = cv2.add(cv2.multiply(spread, normals.reshape(codes.shape)), codes, dtype=cv2.CV_8U)
        return np.asarray(noisy, np.uint8)

    def _depth_and_infrared(self, states: list[BodyState],
                            rng: np.random.Generator) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        visible = self.stage.visible(self.depth_view, states)
        level = self._wall_infrared.copy()
        lost = np.zeros(level.shape, bool)
        flat_level, flat_lost = level.reshape(-1), lost.reshape(-1)
        for layer in visible.layers:
            shaded = self.stage.shade(self.depth_view, layer, colour=False, infrared=True)
            assert shaded.infrared is not None
            flat_level[layer.pixel] = shaded.infrared * self._infrared_gain
            if not self.noise.holes:
                continue
            blind = shaded.facing < self.noise.grazing_cosine
            body = self.stage.scene.bodies[layer.body]
            if body.material.hole_fraction:
                mesh = self.stage.mesh(layer.body, layer.state)
                cell = (mesh.points(layer.triangle, layer.u, layer.v)[:, :2] / 0.006).astype(np.int64) % 64
                failing = np.quantile(self._blotches, body.material.hole_fraction) + rng.normal(0, 0.1)
                blind |= (self._blotches < failing)[cell[:, 1], cell[:, 0]]
            flat_lost[layer.pixel] = blind
        infrared = self._finish(np.clip(level + np.float32(0.5), 0, 255).astype(np.uint8), self._infrared_sigma,
                                self._normals(rng, 1))
        depth = visible.depth_m
        focal_baseline = np.float32(self.depth_view.intrinsics.fx * STEREO_BASELINE_M)
        if self.noise.holes:
            lost |= stereo_shadow(visible, float(focal_baseline))
            lost |= level < np.float32(self.noise.dark_code)
        if self.noise.disparity_px:
            spread = np.square(depth) * np.float32(self.noise.disparity_px / focal_baseline)
            depth = depth + spread * self._normals(rng, 1).reshape(depth.shape)
        units = np.clip(depth * np.float32(1 / DEPTH_SCALE_M) + np.float32(0.5), 0, 65535).astype(np.uint16)
        units[lost] = 0
        return units, infrared


def stereo_shadow(visible: Visible, focal_baseline_px_m: float) -> NDArray[np.bool_]:
    """Pixels (H, W) of the left imager that the right one cannot see, or that lie on a jump in depth.

    The right imager sees a pixel of column x at x - d; it is hidden if one further right lands left of it.
    """
    bodies = [layer.pixel for layer in visible.layers]
    whole: NDArray[np.bool_] = np.zeros_like(visible.depth_m, bool)
    if not bodies:  # the wall alone has neither edge nor shadow
        return whole
    width = visible.depth_m.shape[-1]
    rows = slice(max(min(int(p.min()) for p in bodies) // width - 1, 0),
                 max(int(p.max()) for p in bodies) // width + 2)
    depth = visible.depth_m[rows]
    landing = np.arange(depth.shape[1], dtype=np.float32) - np.float32(focal_baseline_px_m) / depth
    nearest = np.minimum.accumulate(landing[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(depth.shape, bool)
    hidden[:, :-1] = nearest[:, 1:] < landing[:, :-1]
    square = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(depth, square) - cv2.erode(depth, square)
    whole[rows] = hidden | (jump > 0.06 * depth)
    return whole
