"""Draws contact sheets of simulated scenes: colour, depth and infrared side by side, as the sensors give them.

    python -m capture.simulated.contact_sheet sheet.jpg [--seed 2] [--profile d4xx] [--distance 0.5] [--surroundings]
        [SCENE ...]

`--surroundings` shows another person and the next kind of surroundings in each row (a scene may be named several
times). Depth is coloured from 0.12 m before to 0.25 m behind the subject; black has no depth.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.catalogue import SCENES, make_scene
from capture.simulated.profiles import SENSOR_PROFILES, SensorProfile
from capture.simulated.sensors import Planes, Sensors, simulated_rig
from capture.simulated.species import SPECIES
from capture.simulated.surroundings import Nearby, Surroundings, draw_surroundings

_BEFORE_M, _BEHIND_M = 0.12, 0.25


def depth_in_colour(planes: Planes, unit_m: float, subject_m: float) -> NDArray[np.uint8]:
    """Depth as BGR (H, W, 3)."""
    depth_m = planes.depth * unit_m
    share = (depth_m - (subject_m - _BEFORE_M)) / (_BEFORE_M + _BEHIND_M)
    painted = cv2.applyColorMap(np.clip(255 - 255 * share, 1, 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    painted[planes.depth == 0] = 0
    return np.asarray(painted, np.uint8)


def row(scene: str, *, seed: int, profile: SensorProfile, distance_m: float,
        surroundings: Surroundings | None = None) -> NDArray[np.uint8]:
    """One scene: colour, depth, infrared, with its name, BGR (240, 720, 3); the two are cut to the colour's view."""
    sensors = Sensors(make_scene(scene, seed=seed, distance_m=distance_m, surroundings=surroundings),
                      simulated_rig(profile=profile), profile.noise, seed, profile)
    planes = sensors.planes(4, 0.4, 0.4)
    share = profile.focal_px / profile.colour_focal_px
    rows, columns = (slice(round(n * (1 - share) / 2), round(n * (1 + share) / 2)) for n in planes.depth.shape)
    parts = [planes.colour[..., ::-1], depth_in_colour(planes, profile.depth_scale_m, distance_m)[rows, columns],
             cv2.cvtColor(planes.infrared, cv2.COLOR_GRAY2BGR)[rows, columns]]
    out = np.hstack([cv2.resize(part[:, part.shape[1] // 8:part.shape[1] * 7 // 8], (240, 240),
                                interpolation=cv2.INTER_AREA) for part in parts])
    names = [scene] if surroundings is None else [scene, surroundings.nearby, surroundings.cover]
    text = f"{', '.join(name for name in names if name not in ('nothing', 'none'))} (simulated)"
    for ink, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(out, text, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, thickness, cv2.LINE_AA)
    return np.asarray(out, np.uint8)


def draw(scenes: tuple[str, ...], *, seed: int, profile: SensorProfile, distance_m: float,
         columns: int = 2, surroundings: bool = False) -> NDArray[np.uint8]:
    """Rows of scenes in `columns`, BGR; with `surroundings`, row by row another person and their next kind."""
    rows = []
    for number, scene in enumerate(scenes):
        near = None
        if surroundings:
            kinds = list(Nearby)[1:]
            near = replace(draw_surroundings(1000 * seed + number), nearby=kinds[number % len(kinds)])
        rows.append(row(scene, seed=seed + (number if surroundings else 0), profile=profile, distance_m=distance_m,
                        surroundings=near))
    rows += [np.zeros_like(rows[0])] * (-len(rows) % columns)
    return np.vstack([np.hstack(rows[start:start + columns]) for start in range(0, len(rows), columns)])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}; default: all species")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--profile", choices=list(SENSOR_PROFILES), default="d4xx")
    parser.add_argument("--distance", type=float, default=0.5)
    parser.add_argument("--surroundings", action="store_true", help="something stands near in each row")
    options = parser.parse_intermixed_args()
    scenes = tuple(options.scenes) or ("bona_fide", *SPECIES)
    sheet = draw(scenes, seed=options.seed, profile=SENSOR_PROFILES[options.profile], distance_m=options.distance,
                 surroundings=options.surroundings)
    settings = [cv2.IMWRITE_JPEG_QUALITY, 66] if options.target.suffix in (".jpg", ".jpeg") else []
    if not cv2.imwrite(str(options.target), sheet, settings):
        raise SystemExit(f"{options.target}: could not be written")


if __name__ == "__main__":
    main()
