"""Puts the two renderers side by side: the same simulated scenes, each with its own light, sensors and depth.

    python -m capture.independent.compare sheet.jpg [--seed 42] [--distance 0.5] [--json] [SCENE ...]

Of each scene: colour, depth and infrared of the fast simulated camera, then of the independent one; black has no
depth. Prints, for each scene, mean levels of the surface that bears the face in both, and the errors of both depths
against the exact geometry, in millimetres.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.frames import StreamKind
from capture.independent.camera import IndependentSensors, Quality, independent_rig
from capture.rig import Rig
from capture.simulated.catalogue import SCENES, make_scene
from capture.simulated.profiles import SensorProfile, sensor_profile
from capture.simulated.render import Stage, segments
from capture.simulated.scene import Scene, Segment
from capture.simulated.sensors import Sensors, simulated_rig
from capture.simulated.view import View

#: Scenes compared unless others are named.
MAIN_SCENES = ("bona_fide", "flat_print", "glossy_print", "phone_replay", "tablet_replay", "rigid_mask",
               "silicone_mask", "paper_mask", "mannequin_head", "printed_eye_glasses")
_INSTANT, _TIME_S = 4, 0.4
_TILE = 220


class DepthErrors(NamedTuple):
    """Of the face-bearing surface: share of its pixels without depth; median error, half the span from the 16th to the
    84th percentile, and share of errors beyond 10 mm, in mm and shares."""

    holes: float
    median_mm: float
    spread_mm: float
    beyond_10_mm: float


@dataclass(frozen=True, kw_only=True)
class SceneComparison:
    """What both renderers made of one scene. Colour and infrared levels are mean 8-bit codes of the face-bearing
    surface; `independent_seconds` processor time of its frame set."""

    scene: str
    fast_colour: float
    independent_colour: float
    fast_red_over_green: float
    independent_red_over_green: float
    fast_infrared: float
    independent_infrared: float
    fast_depth: DepthErrors
    independent_depth: DepthErrors
    independent_seconds: float


class _Shown(NamedTuple):
    """Planes of one camera and its geometry."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    infrared: NDArray[np.uint8]
    colour_view: View
    depth_view: View
    rig: Rig


def depth_errors(measured_m: NDArray[np.floating], true_m: NDArray[np.floating],
                 where: NDArray[np.bool_]) -> DepthErrors:
    """Errors of `measured_m` (0: none) against `true_m`, in metres, over the pixels `where`."""
    measured, true = measured_m[where], true_m[where]
    error = 1e3 * (measured - true)[measured > 0]
    if not len(error):
        return DepthErrors(1.0, float("nan"), float("nan"), float("nan"))
    low, middle, high = np.percentile(error, [16, 50, 84]).tolist()
    return DepthErrors(1 - len(error) / max(len(true), 1), middle, (high - low) / 2,
                       float((np.abs(error) > 10).mean()))


def compare_scene(scene: Scene, *, seed: int, profile: SensorProfile,
                  quality: Quality) -> tuple[SceneComparison, NDArray[np.uint8]]:
    """Renders one scene twice. Returns figures, and a strip BGR (_TILE, 6 * _TILE, 3)."""
    rig = simulated_rig(profile=profile)
    sensors = Sensors(scene, rig, profile.noise, seed, profile)
    planes = sensors.planes(_INSTANT, _TIME_S, _TIME_S)
    fast = _Shown(planes.colour, planes.depth, planes.infrared, sensors.colour_view, sensors.depth_view, rig)
    own = independent_rig()
    path_traced = IndependentSensors(scene, own, seed, quality)
    began = time.process_time()
    rendered = path_traced.planes(_INSTANT, _TIME_S)
    seconds = time.process_time() - began
    independent = _Shown(rendered.colour, rendered.depth, rendered.infrared, path_traced.colour_view,
                         path_traced.depth_view, own)
    figures = []
    for shown in (fast, independent):
        stage = Stage(scene)
        states = stage.states(_TIME_S)
        colour, depth = stage.visible(shown.colour_view, states), stage.visible(shown.depth_view, states)
        face = segments(colour, scene.bodies) == Segment.FACE
        depth_face = segments(depth, scene.bodies) == Segment.FACE
        red, green, blue = shown.colour[face].mean(axis=0).tolist()
        unit_m = shown.rig.depth_scale_m or 0.0
        figures.append(((red + green + blue) / 3, red / green, float(shown.infrared[depth_face].mean()),
                        depth_errors(shown.depth * unit_m, depth.depth_m, depth_face)))
    (a, a_ratio, a_infrared, a_depth), (b, b_ratio, b_infrared, b_depth) = figures
    comparison = SceneComparison(
        scene=scene.name, fast_colour=a, independent_colour=b, fast_red_over_green=a_ratio,
        independent_red_over_green=b_ratio, fast_infrared=a_infrared, independent_infrared=b_infrared,
        fast_depth=a_depth, independent_depth=b_depth, independent_seconds=seconds)
    strip = np.hstack([part for shown in (fast, independent) for part in _tiles(shown, scene.nominal_distance_m)])
    for text, column in ((f"{scene.name} (simulated): fast", 4), ("independent", 3 * _TILE + 4)):
        for ink, thick in ((0, 3), (255, 1)):
            cv2.putText(strip, text, (column, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.40, (ink,) * 3, thick, cv2.LINE_AA)
    return comparison, np.asarray(strip, np.uint8)


def _tiles(shown: _Shown, subject_m: float) -> list[NDArray[np.uint8]]:
    """Colour, depth, infrared around the optical axis, equally wide in the scene, BGR (_TILE, _TILE, 3) each."""
    depth_m = shown.depth * (shown.rig.depth_scale_m or 0.0)
    share = (depth_m - (subject_m - 0.12)) / 0.37
    painted = cv2.applyColorMap(np.clip(255 - 255 * share, 1, 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    painted[shown.depth == 0] = 0
    found = []
    for image, kind in ((shown.colour[..., ::-1], StreamKind.COLOUR), (painted, StreamKind.DEPTH),
                        (cv2.cvtColor(shown.infrared, cv2.COLOR_GRAY2BGR), StreamKind.INFRARED)):
        i = shown.rig.intrinsics[kind]
        half = round(0.195 / 0.5 * i.fx)
        middle = (round(i.cy + 0.02 * i.fx), round(i.cx))
        cut = image[max(middle[0] - half, 0):middle[0] + half, max(middle[1] - half, 0):middle[1] + half]
        found.append(np.asarray(cv2.resize(cut, (_TILE, _TILE), interpolation=cv2.INTER_AREA), np.uint8))
    return found


def table(rows: list[SceneComparison]) -> str:
    """Figures for people."""
    lines = ["simulated scenes, fast renderer | independent renderer, on the face-bearing surface",
             (f"{'scene':<22}{'colour':>13}{'red/green':>13}{'infrared':>13}{'holes %':>14}{'bias mm':>15}"
              f"{'spread mm':>13}{'> 10 mm %':>13}{'cpu s':>7}")]
    for row in rows:
        a, b = row.fast_depth, row.independent_depth
        lines.append(f"{row.scene:<22}{row.fast_colour:>6.0f}{row.independent_colour:>7.0f}"
                     f"{row.fast_red_over_green:>6.2f}{row.independent_red_over_green:>7.2f}"
                     f"{row.fast_infrared:>6.0f}{row.independent_infrared:>7.0f}"
                     f"{100 * a.holes:>7.1f}{100 * b.holes:>7.1f}{a.median_mm:>8.2f}{b.median_mm:>7.2f}"
                     f"{a.spread_mm:>6.2f}{b.spread_mm:>7.2f}{100 * a.beyond_10_mm:>6.1f}{100 * b.beyond_10_mm:>7.1f}"
                     f"{row.independent_seconds:>7.1f}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--distance", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_intermixed_args()
    rows, strips = [], []
    for name in tuple(options.scenes) or MAIN_SCENES:
        row, strip = compare_scene(make_scene(name, seed=options.seed, distance_m=options.distance), seed=options.seed,
                                   profile=sensor_profile("d4xx"), quality=Quality(step=2))
        rows.append(row)
        strips.append(strip)
    settings = [cv2.IMWRITE_JPEG_QUALITY, 72] if options.target.suffix in (".jpg", ".jpeg") else []
    if not cv2.imwrite(str(options.target), np.vstack(strips), settings):
        raise SystemExit(f"{options.target}: could not be written")
    sys.stdout.write((json.dumps([asdict(row) for row in rows]) if options.json else table(rows)) + "\n")


if __name__ == "__main__":
    main()
