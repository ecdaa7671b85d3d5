"""From radiance and geometry to planes: rig, response, noise and holes of the simulated RGB-D-IR camera.

Geometry of a D435 at 640x480: colour with f about 615 px, depth and left infrared on one grid with f about 385 px (the
infrared imagers' 91 degree field of view over 848 columns, scaled and cut to 640), stereo baseline 50 mm, colour
14.7 mm beside the left infrared imager. These are within two per cent of what units report (docs/simulator-sources.md);
no calibration of one unit is copied. Other kinds of camera are rows of `capture.simulated.profiles.SENSOR_PROFILES`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.frames import EmitterState, StreamKind
from capture.rig import DistortionModel, Extrinsics, Intrinsics, Rig
from capture.simulated.colour_path import ColourPath, NormalBank
from capture.simulated.meshes import Float32
from capture.simulated.profiles import SENSOR_PROFILES, Ranging, SensorNoise, SensorProfile
from capture.simulated.projector import dot_pattern, projected_dots
from capture.simulated.render import BodyState, Stage, Visible, sample
from capture.simulated.scene import Scene, turn
from capture.simulated.stereo import DepthErrors
from capture.simulated.time_of_flight import TimeOfFlightErrors
from capture.simulated.view import View
from capture.simulated.wall import COLOUR, INFRARED, wall_radiance

__all__ = ["DEPTH_SCALE_M", "STEREO_BASELINE_M", "Planes", "SensorNoise", "Sensors", "simulated_rig"]

_D4XX = SENSOR_PROFILES["d4xx"]
DEPTH_SCALE_M = _D4XX.depth_scale_m
STEREO_BASELINE_M = _D4XX.baseline_m
#: Mild lens distortion for those who ask for it: k1, k2, p1, p2, k3.
MILD_DISTORTION = (0.06, -0.12, 0.0006, -0.0004, 0.03)
#: Exposure is metered on every so-manieth pixel of every so-manieth row.
_METERED = 4
#: Luminance weights of the infrared imagers for visible light: silicon sees red best.
_VISIBLE_WEIGHTS = np.array([0.45, 0.35, 0.20], np.float32)


def simulated_rig(size: tuple[int, int] = (640, 480), *, distorted: bool = False, serial: str = "SIM-D435-0",
                  profile: SensorProfile = _D4XX) -> Rig:
    """The true rig. `distorted` gives the colour stream `MILD_DISTORTION` (Brown-Conrady)."""
    width, height = size
    scale = width / 640
    colour = Intrinsics(width=width, height=height, fx=profile.colour_focal_px * scale,
                        fy=(profile.colour_focal_px + 0.2) * scale,
                        cx=(width - 1) / 2 + 2.3 * scale, cy=(height - 1) / 2 - 1.7 * scale,
                        model=DistortionModel.BROWN_CONRADY if distorted else DistortionModel.NONE,
                        coefficients=MILD_DISTORTION if distorted else (0.0, 0.0, 0.0, 0.0, 0.0))
    depth = Intrinsics(width=width, height=height, fx=profile.focal_px * scale, fy=profile.focal_px * scale,
                       cx=(width - 1) / 2 - 0.8 * scale, cy=(height - 1) / 2 + 1.1 * scale)
    to_colour = Extrinsics.from_arrays(turn(0.003, -0.002, 0.001), np.array([profile.colour_offset_m, 0.0001, 0.0003]))
    return Rig(serial=serial, name=profile.product,
               intrinsics={StreamKind.COLOUR: colour, StreamKind.DEPTH: depth, StreamKind.INFRARED: depth},
               to_colour={StreamKind.COLOUR: Extrinsics.identity(), StreamKind.DEPTH: to_colour,
                          StreamKind.INFRARED: to_colour}, depth_scale_m=profile.depth_scale_m)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planes:
    """One instant: `colour` uint8 (H, W, 3) RGB, `depth` uint16 (H, W) in the rig's unit, `infrared` uint8 (H, W)."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    infrared: NDArray[np.uint8]


def serial_generator(serial: str, purpose: int) -> np.random.Generator:
    """Random numbers that belong to one unit of a camera, whatever it looks at."""
    return np.random.default_rng([int.from_bytes(hashlib.sha256(serial.encode()).digest()[:8], "big"), purpose])


@lru_cache(maxsize=12)
def fixed_gains(serial: str, purpose: int, shape: tuple[int, int], spread: float) -> Float32:
    """A unit's fixed pattern: how sensitive each pixel (H, W) is, 1 on average."""
    gains = np.ones(shape, np.float32)
    if spread:
        gains += np.float32(spread) * serial_generator(serial, purpose).standard_normal(shape, dtype=np.float32)
    gains.flags.writeable = False
    return gains


@lru_cache(maxsize=4)
def unit_dots(serial: str, dots: int) -> Float32:
    """The dot pattern of a unit's projector."""
    return dot_pattern(dots, serial_generator(serial, 3))


@lru_cache(maxsize=12)
def shared_view(intrinsics: Intrinsics, from_world: Extrinsics) -> View:
    """A view with its rays, kept for the next camera of the same calibration."""
    return View(intrinsics=intrinsics, from_world=from_world)


def every_nth(intrinsics: Intrinsics, step: int) -> Intrinsics:
    """Of an image made of every `step`-th pixel of every `step`-th row."""
    return replace(intrinsics, width=-(-intrinsics.width // step), height=-(-intrinsics.height // step),
                   fx=intrinsics.fx / step, fy=intrinsics.fy / step, cx=intrinsics.cx / step, cy=intrinsics.cy / step)


class Sensors:
    """Renders planes of one scene. Each instant depends on scene, rig, seed and index alone, never on what came
    before."""

    def __init__(self, scene: Scene, rig: Rig, noise: SensorNoise, seed: int, profile: SensorProfile = _D4XX) -> None:
        self._ambient_infrared = scene.light.room_infrared
        self._misses = scene.depth_misses
        if profile.ranging is Ranging.TIME_OF_FLIGHT:  # it subtracts what its lamp did not send
            scene = replace(scene, light=replace(scene.light, room_infrared=0.0))
        else:  # the more sun, the less the lamp's light or dots say
            sun = self._ambient_infrared * scene.nominal_distance_m ** 2
            self._misses += 0.6 * sun / (1 + sun)
        self.stage, self.rig, self.noise, self.seed, self.profile = Stage(scene), rig, noise, seed, profile
        self.colour_view = shared_view(rig.intrinsics[StreamKind.COLOUR],
                                       rig.transform(StreamKind.DEPTH, StreamKind.COLOUR))
        self.depth_view = shared_view(rig.intrinsics[StreamKind.DEPTH], Extrinsics.identity())
        shape = (self.depth_view.intrinsics.height, self.depth_view.intrinsics.width)
        colour_shape = (self.colour_view.intrinsics.height, self.colour_view.intrinsics.width)
        self._wall_colour = wall_radiance(self.colour_view, scene.wall, scene.light, COLOUR)
        settled = np.random.default_rng([seed, 44])
        # Automatic exposure, settled: skin (0.6) at the scene's nominal distance gives about code 150, give or take.
        jitter = (0.08 if noise.full_well is not None else 0.0) * settled.standard_normal(2)
        self._light_level = scene.light.level if noise.full_well is not None else 1.0
        self._exposure = float(np.exp(jitter[0])) * self._light_level ** 0.15
        self._infrared_gain = np.float32(290.0 * scene.nominal_distance_m ** 2 * np.exp(jitter[1]))
        wall = wall_radiance(self.depth_view, scene.wall, scene.light,
                             COLOUR + INFRARED if profile.visible_share else INFRARED)
        self._wall_infrared = np.ascontiguousarray(wall[..., -1])
        self._wall_visible = np.ascontiguousarray(wall[..., :3]) @ _VISIBLE_WEIGHTS if profile.visible_share else None
        self._bank = NormalBank(max(int(np.prod(shape)), int(np.prod(colour_shape))))
        self._colour_path = ColourPath(noise, self._bank, fixed_gains(rig.serial, 1, colour_shape, noise.fixed_pattern))
        self._errors = DepthErrors(shape, noise, seed)
        self._flight_errors = TimeOfFlightErrors(shape, noise, seed)
        blotches = cv2.GaussianBlur(np.random.default_rng([seed, 41]).standard_normal((64, 64)), (0, 0), 2.0)
        self._blotches: Float32 = (blotches / np.std(blotches)).astype(np.float32)
        self._infrared_gains = fixed_gains(rig.serial, 2, shape, noise.fixed_pattern)
        self._settle_exposure()
        self._dots = unit_dots(rig.serial, profile.dots) \
            if profile.emitter is EmitterState.ON else None

    def _settle_exposure(self) -> None:
        """What is brighter than skin (paper, a subject too near) makes automatic exposure back off, to about 215."""
        coarse = shared_view(every_nth(self.depth_view.intrinsics, _METERED), Extrinsics.identity())
        visible = self.stage.visible(coarse, self.stage.states(0.0))
        if self.noise.full_well is None:
            return
        level = np.ascontiguousarray(self._wall_infrared[::_METERED, ::_METERED]).reshape(-1)
        self.stage.paint(coarse, visible, infrared=level)
        metered = visible.owner.reshape(-1) >= 0 if visible.layers else slice(None)
        bright = float(np.percentile(level[metered], 95)) * float(self._infrared_gain)
        self._infrared_gain *= np.float32(min(215 / max(bright, 1e-6), 1.0))

    def planes(self, index: int, time_s: float, colour_time_s: float) -> Planes:
        """The instant `index`: depth and infrared at `time_s`, colour at `colour_time_s`."""
        rng = np.random.default_rng([self.seed, 43, index])
        states = self.stage.states(time_s)
        later = states if colour_time_s == time_s else self.stage.states(colour_time_s)
        colour = self._colour(later, rng, self._smear(later, colour_time_s))
        depth, infrared = self._depth_and_infrared(index, states, rng)
        return Planes(colour=colour, depth=depth, infrared=infrared)

    def _smear(self, states: list[BodyState], time_s: float) -> tuple[float, float]:
        """How far the first body's middle moves in the colour image while that is exposed, columns and rows."""
        if not (self.noise.exposure_ms and states):
            return 0.0, 0.0
        body = self.stage.scene.bodies[0]
        middle = body.meshes["neutral"].vertices.mean(axis=0, keepdims=True)
        places = [self.colour_view.project(pose.to_world(middle))[0]
                  for pose in (states[0].pose, body.motion.pose(time_s + self.noise.exposure_ms * 1e-3))]
        moved = np.nan_to_num(places[1] - places[0])
        return float(moved[0]), float(moved[1])

    def _colour(self, states: list[BodyState], rng: np.random.Generator,
                smear_px: tuple[float, float]) -> NDArray[np.uint8]:
        visible = self.stage.visible(self.colour_view, states)
        radiance = self._wall_colour.copy()
        self.stage.paint(self.colour_view, visible, colour=radiance.reshape(-1, 3))
        return self._colour_path.finish(radiance, self._exposure, rng, _region(visible), self._light_level, smear_px)

    def _depth_and_infrared(self, index: int, states: list[BodyState],
                            rng: np.random.Generator) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        visible = self.stage.visible(self.depth_view, states)
        even, level, facing = self._infrared(visible)
        lost = np.zeros(level.shape, bool)
        if self.noise.holes:
            self._lose_on_surfaces(visible, facing, lost, rng)
        infrared = self._read_out(level, visible, rng)
        return self._depth(index, visible, even, lost), infrared

    def _infrared(self, visible: Visible) -> tuple[Float32, Float32, list[Float32]]:
        """What falls on the infrared imager, in codes, before blur and noise: as if lit evenly, and as it is lit; and
        how squarely each layer faces the imager."""
        even = self._wall_infrared.copy()
        seen = None if self._wall_visible is None else np.repeat(self._wall_visible[..., None], 3, axis=2)
        facing = self.stage.paint(self.depth_view, visible, infrared=even.reshape(-1),
                                  colour=None if seen is None else seen.reshape(-1, 3))
        even *= self._infrared_gain
        if self.profile.emitter is EmitterState.OFF:
            even *= np.float32(0.05)
        level = even
        if self._dots is not None:
            level = even * projected_dots(self._dots, self.depth_view, visible.depth_m)
        if seen is not None:
            level = level + (seen @ _VISIBLE_WEIGHTS) * np.float32(255 * self.profile.visible_share)
        return even, level, facing

    def _read_out(self, level: Float32, visible: Visible, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Point-spread function, fixed pattern, shot and read noise, 8 bits."""
        if self.noise.blur_px:
            region = _region(visible) if self._dots is None else np.s_[:, :]
            level = level.copy()
            if level[region].size:
                level[region] = cv2.GaussianBlur(level[region], (0, 0), self.noise.blur_px)
        if self.noise.full_well is not None:
            # A saturated pixel is white and stays so: clip before noise is scaled to the level.
            level = np.minimum(level * self._infrared_gains, np.float32(300))
            spread = np.sqrt(np.maximum(level, 0) * np.float32(255 / self.noise.full_well)
                             + np.float32(self.noise.read_codes ** 2))
            level = level + spread * self._bank.draw(rng, level.size).reshape(level.shape)
        return np.asarray(np.clip(level + np.float32(0.5), 0, 255).astype(np.uint8))

    def _lose_on_surfaces(self, visible: Visible, facing: list[Float32], lost: NDArray[np.bool_],
                          rng: np.random.Generator) -> None:
        """Marks where no depth comes back from the surface itself: slanted, glossy, or glass."""
        flat = lost.reshape(-1)
        blinds = [cosine < self.noise.grazing_cosine for cosine in facing]
        blinds += [np.zeros(len(layer.pixel), bool) for layer in visible.veils]
        for layer, blind in zip((*visible.layers, *visible.veils), blinds, strict=True):
            body = self.stage.scene.bodies[layer.body]
            failing_share = min(body.material.hole_fraction * self.profile.surface_holes + self._misses, 0.95)
            if failing_share >= 0.02:
                mesh = self.stage.mesh(layer.body, layer.state)
                places = mesh.points(layer.triangle, layer.u, layer.v)[:, :2] / 0.006 % 63
                failing = np.quantile(self._blotches, failing_share) + rng.normal(0, 0.1)
                blind |= sample(self._blotches, places.astype(np.float32)) < failing
            flat[layer.pixel] |= blind

    def _depth(self, index: int, visible: Visible, level: Float32, lost: NDArray[np.bool_]) -> NDArray[np.uint16]:
        focal_baseline = float(self.depth_view.intrinsics.fx * self.profile.baseline_m)
        depth = visible.depth_m
        if self.noise.holes:
            if self.profile.ranging is Ranging.TRIANGULATION:
                lost |= stereo_shadow(visible, focal_baseline)
            lost |= level < np.float32(self.noise.dark_code)
            lost |= level >= np.float32(self.noise.glare_code * 1.3)
        if self.noise.disparity_px:
            depth = self._errors.applied(index, depth, focal_baseline, _region(visible))
        if self.profile.ranging is Ranging.TIME_OF_FLIGHT:
            depth, unsure = self._flight_errors.applied(index, depth, level / self._infrared_gain,
                                                        self._ambient_infrared)
            if self.noise.holes:
                lost |= unsure
        units = np.clip(depth * np.float32(1 / self.profile.depth_scale_m) + np.float32(0.5), 0, 65535)
        units = units.astype(np.uint16)
        if self.noise.holes:
            disparities = self.profile.disparities
            nearest_m = max(self.profile.nearest_m, focal_baseline / disparities if disparities else 0.0)
            lost |= (depth < nearest_m) | (depth > self.profile.farthest_m)
        units[lost] = 0
        return np.asarray(units)


def _region(visible: Visible, margin: int = 8) -> tuple[slice, slice]:
    """Rows and columns that hold every body, with a margin."""
    occupied = visible.owner >= 0
    rows, columns = np.flatnonzero(occupied.any(axis=1)), np.flatnonzero(occupied.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return (slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
            slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1))


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
