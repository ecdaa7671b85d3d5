"""Registration measured: accuracy against exact truth, and time beside the RealSense SDK's `rs.align`.

    python benchmarks/registration.py            # all distances, both rigs, both views, then the timing
    python benchmarks/registration.py --quick    # two distances, one rig
    python benchmarks/registration.py --scene simulated    # accuracy on the simulated camera's heads and truth

The scene is analytic and simulated (`tests/align/analytic_scene.py`): an ellipsoid head before a wall, exact
correspondences at any sub-pixel, stereo noise of 0.08 px disparity, 1 mm steps, 3 % holes and torn edges in depth,
distorted colour lenses. Figures say how well the geometry is solved, not how well a real camera is calibrated.

Errors are in colour pixels. Zones: `interior` lies more than 6 colour pixels inside the head's silhouette, `contour`
within 6. `valid` is the share of the zone that the mask calls valid; errors are over valid pixels only.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from align.planar_projection import PixelGrid
from align.registration import RegisteredPlanes, Registration
from align.rig_geometry import RigGeometry
from capture.frames import FrameSet, StreamKind
from capture.rig import Rig
from tests.align.analytic_scene import AnalyticScene, d435_like, d455_like

COLOUR, DEPTH, INFRARED = StreamKind.COLOUR, StreamKind.DEPTH, StreamKind.INFRARED
CONTOUR_PX = 6.0
SIZE, FACE_SCALE = 224, 1.3


class TruthScene(Protocol):
    """A scene whose correspondences are known. `AnalyticScene` is one; a simulated camera's truth maps make another
    (sample them bilinearly at x, y)."""

    rig: Rig
    distance_m: float

    def frame_set(self) -> FrameSet: ...

    def face_box(self, kind: StreamKind) -> tuple[float, float, float, float]:
        """Left, top, width, height of the face in the image of `kind`."""

    def positions(self, x: np.ndarray, y: np.ndarray, target: StreamKind) -> tuple[np.ndarray, ...]:
        """What colour shows at its pixels (x, y): pixel x, y in `target`, visible there, belongs to the head."""

    @property
    def inside_px(self) -> np.ndarray:
        """Colour image: distance in pixels from the head's silhouette, 0 outside."""


@dataclass(frozen=True)
class ZoneError:
    rms_px: float
    p95_px: float
    valid: float


def grid_around(box: tuple[float, float, float, float]) -> PixelGrid:
    left, top, width, height = box
    side = round(max(width, height) * FACE_SCALE)
    return PixelGrid(left=round(left + (width - side) / 2), top=round(top + (height - side) / 2), side=side, size=SIZE)


def accuracy(scene: TruthScene, registration: Registration,
             view: StreamKind) -> dict[tuple[StreamKind, str], ZoneError]:
    """Errors per (stream against colour, zone)."""
    grid = grid_around(scene.face_box(view))
    planes = registration.register(scene.frame_set(), grid, view, scene.distance_m)
    x, y = np.meshgrid(grid.columns(), grid.rows()) if view is COLOUR else planes.positions[COLOUR]
    inside = cv2.remap(scene.inside_px, x, y, cv2.INTER_LINEAR)
    zones = {"interior": inside > CONTOUR_PX, "contour": (inside > 0) & (inside <= CONTOUR_PX)}
    result = {}
    for kind, mask in ((DEPTH, planes.depth_valid), (INFRARED, planes.infrared_valid)):
        u, v, _, _ = scene.positions(x, y, kind)
        scale = scene.rig.intrinsics[COLOUR].fx / scene.rig.intrinsics[kind].fx
        error = np.hypot(u - planes.positions[kind][0], v - planes.positions[kind][1]) * scale
        for name, zone in zones.items():
            valid = zone & mask & planes.colour_valid
            errors = error[valid]
            result[kind, name] = ZoneError(
                rms_px=float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan"),
                p95_px=float(np.percentile(errors, 95)) if errors.size else float("nan"),
                valid=float(valid.sum() / max(zone.sum(), 1)))
    return result


MakeScene = Callable[[float, bool, float], TruthScene]  # distance_m, noise, skew_ms


def print_accuracy(scenes: Iterable[MakeScene], distances_m: Iterable[float]) -> None:
    print(f"{'rig':14} {'view':6} {'dist':>5} {'noise':5} {'skew':>5} | colour-depth interior    contour               "
          "| colour-infrared interior contour\n"
          f"{'':14} {'':6} {'m':>5} {'':5} {'ms':>5} |    rms    p95  valid    rms    p95  valid |    rms    p95  valid"
          "    rms    p95  valid")
    for make_scene in scenes:
        registration: Registration | None = None
        for distance_m in distances_m:
            for noise, skew_ms in ((False, 0), (True, 0), (True, 16)):
                scene = make_scene(distance_m, noise, skew_ms)
                rig = scene.rig
                registration = registration or Registration(RigGeometry(rig))
                for view in (COLOUR, DEPTH):
                    errors = accuracy(scene, registration, view)
                    cells = [f"{e.rms_px:6.2f} {e.p95_px:6.2f} {e.valid:6.1%}" for e in errors.values()]
                    print(f"{rig.serial:14} {view.value:6} {distance_m:5.2f} {'on' if noise else 'off':5} {skew_ms:5}"
                          f" | {cells[0]} {cells[1]} | {cells[2]} {cells[3]}", flush=True)


def median_ms(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall time and median CPU time (all threads of this process) of a call, ms."""
    for _ in range(5):
        call()
    wall, cpu = [], []
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        call()
        cpu.append((time.process_time() - cpu_start) * 1e3)
        wall.append((time.perf_counter() - wall_start) * 1e3)
    return statistics.median(wall), statistics.median(cpu)


def sdk_align(rig: Rig, frame_set: FrameSet) -> tuple[object, Callable[[], object]]:
    """A software device fed with these planes, and the call `rs.align(color).process` on its frame set."""
    import libusb_package
    ctypes.CDLL(str(libusb_package.get_library_path()), ctypes.RTLD_GLOBAL)
    import pyrealsense2 as rs

    models = {"none": rs.distortion.none, "brown_conrady": rs.distortion.brown_conrady,
              "inverse_brown_conrady": rs.distortion.inverse_brown_conrady,
              "modified_brown_conrady": rs.distortion.modified_brown_conrady}
    device = rs.software_device()
    sensors = {DEPTH: device.add_sensor("Stereo Module"), COLOUR: device.add_sensor("RGB Camera")}
    sensors[DEPTH].add_read_only_option(rs.option.depth_units, rig.depth_scale_m)
    kinds = {DEPTH: (rs.stream.depth, rs.format.z16, 2), COLOUR: (rs.stream.color, rs.format.rgb8, 3)}
    profiles = {}
    for uid, (kind, (stream, pixel_format, bytes_per_pixel)) in enumerate(kinds.items()):
        own = rig.intrinsics[kind]
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height, intrinsics.fx, intrinsics.fy = own.width, own.height, own.fx, own.fy
        intrinsics.ppx, intrinsics.ppy = own.cx, own.cy
        intrinsics.model, intrinsics.coeffs = models[own.model.value], list(own.coefficients)
        video = rs.video_stream()
        video.type, video.index, video.uid, video.fmt, video.bpp = stream, 0, uid, pixel_format, bytes_per_pixel
        video.width, video.height, video.fps, video.intrinsics = own.width, own.height, 30, intrinsics
        profiles[kind] = sensors[kind].add_video_stream(video)
    move = rs.extrinsics()
    move.rotation = list(rig.to_colour[DEPTH].matrix.T.ravel())  # the SDK's rotation is column-major
    move.translation = list(rig.to_colour[DEPTH].translation_m)
    profiles[DEPTH].register_extrinsics_to(profiles[COLOUR], move)
    device.create_matcher(rs.matchers.default)
    syncer = rs.syncer(8)
    for kind, sensor in sensors.items():
        sensor.open(profiles[kind])
        sensor.start(syncer)
    planes = {DEPTH: frame_set.depth, COLOUR: frame_set.colour}
    frames = None
    for number in range(1, 40):  # the syncer waits for both streams; it needs a few sets to match them
        for kind, plane in planes.items():
            frame = rs.software_video_frame()
            frame.pixels, frame.bpp = plane.pixels, kinds[kind][2]
            frame.stride = plane.width * frame.bpp
            frame.timestamp, frame.frame_number = number * 33.3, number
            frame.domain, frame.profile = rs.timestamp_domain.hardware_clock, profiles[kind].as_video_stream_profile()
            if kind is DEPTH:
                frame.depth_units = rig.depth_scale_m
            sensors[kind].on_video_frame(frame)
        got, candidate = syncer.try_wait_for_frames(100)
        if got and candidate.size() == 2:
            frames = candidate
            break
    if frames is None:
        raise RuntimeError("the software device's syncer gave no set of depth and colour")
    align = rs.align(rs.stream.color)
    return (device, sensors, syncer), lambda: align.process(frames)


def print_speed(repeats: int) -> None:
    cv2.setNumThreads(1)
    print(f"\none face at 0.5 m, 848x480, three planes onto {SIZE}x{SIZE}, beside rs.align(color) on the same depth "
          f"and colour\n(rs.align leaves infrared unaligned); one thread, medians of {repeats}, "
          f"{platform.machine()}, numpy {np.__version__}, OpenCV {cv2.__version__}")
    for name, rig in (("undistorted colour", d435_like(distorted=False)), ("distorted colour", d435_like())):
        scene = AnalyticScene(rig=rig, distance_m=0.5, noise=True)
        frame_set = scene.frame_set()
        registration = Registration(RigGeometry(rig))
        calls: dict[str, Callable[[], object]] = {}
        for view in (COLOUR, DEPTH):
            grid = grid_around(scene.face_box(view))

            def call(grid: PixelGrid = grid, view: StreamKind = view) -> RegisteredPlanes:
                return registration.register(frame_set, grid, view, 0.5)  # noqa: B023

            calls[view.value] = call
        try:
            _keep, calls["rs.align"] = sdk_align(rig, frame_set)
        except ImportError as error:
            print(f"  rs.align not measured: {error}")
        # Interleaved, so that a busy machine slows all alike; CPU time, because it shares the cores with others.
        rounds = [{name: median_ms(one, repeats // 5) for name, one in calls.items()} for _ in range(5)]
        wall = {key: statistics.median(r[key][0] for r in rounds) for key in calls}
        cpu = {key: statistics.median(r[key][1] for r in rounds) for key in calls}
        print(f"  {name}")
        for key in calls:
            line = f"    {key:8} {wall[key]:5.2f} ms wall, {cpu[key]:5.2f} ms CPU"
            if "rs.align" in calls and key != "rs.align":
                line += (f"; rs.align takes {wall['rs.align'] / wall[key]:.1f} times as long "
                         f"({cpu['rs.align'] / cpu[key]:.1f} by CPU time)")
            print(line, flush=True)


def analytic(rig: Rig) -> MakeScene:
    return lambda distance_m, noise, skew_ms: AnalyticScene(
        rig=rig, distance_m=distance_m, noise=noise, skew_s=skew_ms / 1e3, velocity_m_s=(0.3, 0.0, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two distances, one rig, fewer repeats")
    parser.add_argument("--scene", choices=("analytic", "simulated"), default="analytic")
    arguments = parser.parse_args()
    quick = arguments.quick
    if arguments.scene == "simulated":
        from benchmarks.simulated_truth import SimulatedScene
        print_accuracy([lambda distance_m, noise, skew_ms: SimulatedScene(distance_m=distance_m, noise=noise,
                                                                          skew_ms=skew_ms)],
                       (0.35, 0.8) if quick else (0.35, 0.5, 0.8, 1.2))
        return
    print_accuracy([analytic(rig) for rig in ([d435_like()] if quick else [d435_like(), d455_like()])],
                   (0.35, 0.8) if quick else (0.35, 0.5, 0.8, 1.2))
    print_speed(50 if quick else 200)


if __name__ == "__main__":
    main()
