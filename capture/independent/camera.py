"""`IndependentCamera`: simulated scenes seen by the independent renderer, behind the `Camera` contract.

For tests of generalisation: nothing is trained on its images. All its data is simulated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.camera import Camera, CameraDescription, CameraError, EndOfStreamError, MonotonicNs
from capture.frames import ClockDomain, EmitterState, Frame, FrameSet, Pixels, Spectrum, StreamKind
from capture.independent.description import Band, face_window, subject_place
from capture.independent.imagers import ColourImager, InfraredImager
from capture.independent.mitsuba_renderer import MitsubaStage, Projector, Shot, StageAtInstant, load_mitsuba
from capture.independent.stereo_matcher import (
    PROJECTOR_FIELD_DEG,
    PROJECTOR_PLACE_M,
    Matcher,
    depth_units,
    dot_pattern,
)
from capture.rig import Extrinsics, Intrinsics, Rig
from capture.simulated.catalogue import make_scene
from capture.simulated.meshes import Float32
from capture.simulated.render import Stage
from capture.simulated.scene import Scene, turn
from capture.simulated.truth import SimulatedTruth
from capture.simulated.view import View

BASELINE_M, DEPTH_UNIT_M = 0.055, 1e-3
NEAREST_M, FARTHEST_M = 0.18, 6.0


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Paths a pixel: in the window around the faces (`colour`, `infrared`, `dots` each), and `outside` it, where only
    every `step`-th pixel of a row and of a column is rendered."""

    colour: int = 9
    infrared: int = 9
    dots: int = 4
    outside: int = 4
    step: int = 4


def independent_rig(serial: str = "SIM-INDEPENDENT-0") -> Rig:
    """640 x 480, colour f = 608 px, infrared and depth f = 396 px on one grid: of this camera alone."""
    colour = Intrinsics(width=640, height=480, fx=608.3, fy=608.3, cx=316.2, cy=243.9)
    depth = Intrinsics(width=640, height=480, fx=395.7, fy=395.7, cx=321.4, cy=238.2)
    to_colour = Extrinsics.from_arrays(turn(-0.002, 0.003, -0.0015), np.array([0.0152, -0.0002, 0.0004]))
    return Rig(serial=serial, name="simulated camera of the independent renderer",
               intrinsics={StreamKind.COLOUR: colour, StreamKind.DEPTH: depth, StreamKind.INFRARED: depth},
               to_colour={StreamKind.COLOUR: Extrinsics.identity(), StreamKind.DEPTH: to_colour,
                          StreamKind.INFRARED: to_colour}, depth_scale_m=DEPTH_UNIT_M)


class IndependentCamera(Camera):
    """Mitsuba before a simulated scene; needs the extra `independent`. In lock-step only: a set takes seconds.

    Infrared is lit by the flood lamp; for depth the projector's dots are on instead, as with an emitter that
    alternates. Every set depends on scene, seed and index alone.

    Args:
        scene: a name of `capture.simulated.catalogue.SCENES`, or a `Scene`. seed: of the scene (when named) and noise.
        frame_rate: instants a second. frames: number of instants until `EndOfStreamError`, None = endless.
        quality: paths a pixel. threads: of Mitsuba in this process, None: as they are.
        serial: of the unit; fixed pattern, white balance and dots follow from it.
        with_truth: put a `SimulatedTruth` on each set.
    """

    def __init__(self, scene: str | Scene = "bona_fide", *, seed: int = 0, frame_rate: float = 10.0,
                 frames: int | None = None, quality: Quality | None = None, threads: int | None = 1,
                 serial: str = "SIM-INDEPENDENT-0", monotonic_ns: MonotonicNs = time.monotonic_ns,
                 with_truth: bool = False) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        if not frame_rate > 0:
            raise CameraError(f"independent camera: frame_rate is {frame_rate}, must be positive")
        if frames is not None and frames < 0:
            raise CameraError(f"independent camera: frames is {frames}, must be None or at least 0")
        self.scene = make_scene(scene, seed=seed) if isinstance(scene, str) else scene
        self.seed, self.frame_rate, self.frames, self.threads = seed, frame_rate, frames, threads
        self.rig, self.quality, self.with_truth = independent_rig(serial), quality or Quality(), with_truth
        self._sensors: IndependentSensors | None = None
        self._index = 0

    def open(self) -> CameraDescription:
        load_mitsuba(self.threads)  # says now if it is missing
        self._sensors, self._index = IndependentSensors(self.scene, self.rig, self.seed, self.quality, self.threads), 0
        return CameraDescription(
            kind="simulated", serial=self.rig.serial, rig=self.rig, frame_rate=self.frame_rate, live=False,
            simulated=True, details={"scene": self.scene.name, "seed": str(self.seed), "pace": "lockstep",
                                     "profile": "independent", "renderer": "mitsuba"})

    def close(self) -> None:
        self._sensors = None

    def read(self, timeout_s: float) -> FrameSet:
        """The next set, however long it takes to render: no path tracer keeps a deadline.

        Raises:
            EndOfStreamError: after `frames` instants.
        """
        if self._sensors is None:
            raise CameraError(f"{self.rig.serial}: read before open, or after close")
        index = self._index
        if self.frames is not None and index >= self.frames:
            raise EndOfStreamError(f"{self.rig.serial}: scene {self.scene.name} ended after {self.frames} instants")
        stamp_ns = round(index * 1e9 / self.frame_rate)
        planes = self._sensors.planes(index, stamp_ns * 1e-9)
        self._index = index + 1

        def frame(kind: StreamKind, pixels: Pixels, bits: int, spectrum: Spectrum) -> Frame:
            return Frame(kind=kind, pixels=pixels, frame_number=index, sensor_timestamp_ns=stamp_ns,
                         clock_domain=ClockDomain.SIMULATED, arrival_ns=stamp_ns, bit_depth=bits,
                         emitter=EmitterState.ON if kind is StreamKind.DEPTH else EmitterState.FLOOD, spectrum=spectrum)
        truth = SimulatedTruth(
            scene=self.scene.name, label=self.scene.label, species=self.scene.species, time_s=stamp_ns * 1e-9,
            colour_time_s=stamp_ns * 1e-9, rig=self.rig, _stage=Stage(self.scene),
            _colour_view=self._sensors.colour_view, _depth_view=self._sensors.depth_view) if self.with_truth else None
        return FrameSet(
            source=self.rig.serial, epoch=self.epoch, sequence=index,
            colour=frame(StreamKind.COLOUR, planes.colour, 8, Spectrum.VISIBLE),
            depth=frame(StreamKind.DEPTH, planes.depth, 16, Spectrum.NEAR_INFRARED),
            infrared=frame(StreamKind.INFRARED, planes.infrared, 8, Spectrum.NEAR_INFRARED),
            depth_scale_m=DEPTH_UNIT_M, truth=truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendered:
    """One instant: `colour` uint8 (H, W, 3) RGB, `depth` uint16 (H, W) in units, `infrared` uint8 (H, W);
    `colour_light` and `infrared_light` the radiance behind them, `window`, `depth_window` where it was rendered
    fully."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    infrared: NDArray[np.uint8]
    colour_light: Float32
    infrared_light: Float32
    window: tuple[slice, slice]
    depth_window: tuple[slice, slice]


class IndependentSensors:
    """Renders the planes of one scene."""

    def __init__(self, scene: Scene, rig: Rig, seed: int, quality: Quality, threads: int | None = None) -> None:
        self.scene, self.seed, self.quality = scene, seed, quality
        self.stage = MitsubaStage(scene, threads)
        depth = rig.intrinsics[StreamKind.DEPTH]
        self.colour_view = View(intrinsics=rig.intrinsics[StreamKind.COLOUR],
                                from_world=rig.transform(StreamKind.DEPTH, StreamKind.COLOUR))
        self.depth_view = View(intrinsics=depth, from_world=Extrinsics.identity())
        self.right_view = View(intrinsics=depth, from_world=Extrinsics.from_arrays(
            np.eye(3), np.array([-BASELINE_M, 0.0, 0.0])))
        self._projector = Projector(dot_pattern(rig.serial), PROJECTOR_PLACE_M, PROJECTOR_FIELD_DEG)
        shape = (depth.height, depth.width)
        i = self.colour_view.intrinsics
        self._colour = ColourImager((i.height, i.width), rig.serial)
        self._left = InfraredImager(shape, rig.serial)
        self._right = InfraredImager(shape, rig.serial, "right infrared")
        self._matcher = Matcher()
        self._focal_baseline = depth.fx * BASELINE_M

    def planes(self, index: int, time_s: float) -> Rendered:
        """The instant `index`, all sensors at `time_s`."""
        rng = np.random.default_rng([self.seed, 81, index])
        seeds = iter(rng.integers(1 << 30, size=16).tolist())
        window = face_window(self.scene, self.colour_view, time_s)
        depth_window = face_window(self.scene, self.depth_view, time_s)
        colour_light = self._image(self.stage.at(time_s, Band.COLOUR), self.colour_view, window, self.quality.colour,
                                   next(seeds), next(seeds), bounces=2)
        lit = self.stage.at(time_s, Band.INFRARED)
        infrared_light = self._image(lit, self.depth_view, depth_window, self.quality.infrared, next(seeds),
                                     next(seeds), bounces=2)[..., 0]
        everything = (slice(0, colour_light.shape[0]), slice(0, colour_light.shape[1]))
        colour = self._colour.picture(colour_light, window or everything, rng)
        infrared = self._left.picture(infrared_light, self._left.gain(infrared_light), rng)
        depth = self._coarse_depth(lit, next(seeds))
        if depth_window is not None:
            depth[depth_window] = self._matched(time_s, depth_window, (next(seeds), next(seeds)), rng)
        return Rendered(colour=colour, depth=depth, infrared=infrared, colour_light=colour_light,
                        infrared_light=infrared_light, window=window or everything,
                        depth_window=depth_window or everything)

    def _image(self, stage: StageAtInstant, view: View, window: tuple[slice, slice] | None, samples: int,
               coarse_seed: int, fine_seed: int, *, bounces: int) -> Float32:
        """Radiance (H, W, 3): fine in the window, coarse around it."""
        i = view.intrinsics
        quick = Shot(view, slice(0, i.height), slice(0, i.width), self.quality.outside, self.quality.step)
        coarse = stage.radiance(quick, coarse_seed, bounces=bounces)
        light = np.asarray(cv2.resize(coarse, (i.width, i.height), interpolation=cv2.INTER_LINEAR), np.float32)
        if window is not None:
            light[window] = stage.radiance(Shot(view, *window, samples), fine_seed, bounces=bounces)
        return light

    def _coarse_depth(self, stage: StageAtInstant, seed: int) -> NDArray[np.uint16]:
        """Depth (H, W) without errors, for the surroundings of the window."""
        i = self.depth_view.intrinsics
        coarse = stage.depth_m(Shot(self.depth_view, slice(0, i.height), slice(0, i.width), 1, self.quality.step), seed)
        coarse_px = np.float32(self._focal_baseline) / np.maximum(coarse, np.float32(1e-3))
        disparity_px = np.asarray(cv2.resize(coarse_px, (i.width, i.height), interpolation=cv2.INTER_NEAREST),
                                  np.float32)
        return depth_units(disparity_px, self._focal_baseline, DEPTH_UNIT_M, nearest_m=NEAREST_M,
                           farthest_m=FARTHEST_M)

    def _matched(self, time_s: float, window: tuple[slice, slice], seeds: tuple[int, int],
                 rng: np.random.Generator) -> NDArray[np.uint16]:
        """Depth (rows, columns) of the window, by matching two images with dots."""
        dots = self.stage.at(time_s, Band.INFRARED, lamp=False, projector=self._projector)
        rows, columns = window
        # What a face 0.15 m nearer than the subject's middle would need of the right image; the rest stays black.
        reach = int(self._focal_baseline / max(subject_place(self.scene, time_s)[2] - 0.15, NEAREST_M)) // 2 * 2 + 2
        wide = slice(max(columns.start - reach, 0), columns.stop)
        images = []
        for view, own, imager, seed in ((self.depth_view, columns, self._left, seeds[0]),
                                        (self.right_view, wide, self._right, seeds[1])):
            light = np.zeros((view.intrinsics.height, view.intrinsics.width), np.float32)
            light[rows, own] = dots.radiance(Shot(view, rows, own, self.quality.dots), seed, bounces=1)[..., 0]
            gain = min(imager.gain(light[rows, own]), imager.MOST_GAIN)
            images.append(imager.picture(light, gain, rng)[rows, wide])
        disparity = self._matcher.disparity_px(*images)[:, columns.start - wide.start:]
        return depth_units(disparity, self._focal_baseline, DEPTH_UNIT_M, nearest_m=NEAREST_M, farthest_m=FARTHEST_M)
