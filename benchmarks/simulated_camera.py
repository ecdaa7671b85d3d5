"""How fast the simulated camera renders on one core, per scene, and where the time goes.

    python -m benchmarks.simulated_camera [--frames 40] [--distance 0.5]

Prints full tri-modal sets a second at 640x480, by processor time (what one undisturbed core would do) and by the wall's
clock, and for one scene the share of each step; all from one run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy loads: the figure is for one core

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from capture.camera import Pace
from capture.simulated import sensors as sensors_module
from capture.simulated import stereo as stereo_module
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.colour_path import ColourPath
from capture.simulated.raycast import RayCaster
from capture.simulated.render import Stage

#: One of each kind; others cost what these cost.
SCENES = ("bona_fide", "print", "screen", "mask", "nobody", "two_people", "bent_print_eyes_nose_cut", "phone_replay",
          "monitor_replay", "transparent_mask")


def timed(owner: Any, name: str, spent: Counter[str]) -> None:
    """Replaces a function by one that adds its wall time, inner calls included, to `spent`."""
    plain: Callable[..., Any] = getattr(owner, name)

    def wrapper(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return plain(*arguments, **options)
        finally:
            spent[f"{getattr(owner, '__name__', owner).rsplit('.')[-1]}.{name}"] += time.perf_counter() - started
    setattr(owner, name, wrapper)


def milliseconds(scene: str, frames: int, distance_m: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Processor and wall time of each read, (frames, 2); the first second of scene time, which builds the ray casters,
    is left out."""
    with SimulatedCamera(make_scene(scene, seed=1, distance_m=distance_m), pace=Pace.LOCKSTEP) as camera:
        for _ in range(50):
            if camera.read(1.0).sequence >= 15:
                break
        took = []
        for _ in range(frames):
            processor, wall = time.process_time(), time.perf_counter()
            camera.read(1.0)
            took.append(((time.process_time() - processor) * 1e3, (time.perf_counter() - wall) * 1e3))
    return np.array(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--distance", type=float, default=0.5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"simulated camera, 640x480, one core, {options.frames} sets a scene at {options.distance} m")
    for scene in SCENES:
        took = milliseconds(scene, options.frames, options.distance)
        (p50, wall_p50), (p95, wall_p95) = np.percentile(took, [50, 95], axis=0)
        print(f"  {scene:26s} processor: {1e3 / p50:6.1f} sets/s, p50 {p50:6.1f} ms, p95 {p95:6.1f} ms   "
              f"wall: {1e3 / wall_p50:6.1f} sets/s, p50 {wall_p50:6.1f} ms, p95 {wall_p95:6.1f} ms")
    spent: Counter[str] = Counter()
    for owner, name in ((RayCaster, "cast"), (Stage, "visible"), (Stage, "paint"), (ColourPath, "finish"),
                        (sensors_module, "stereo_shadow"), (stereo_module.DepthErrors, "applied"),
                        (sensors_module.Sensors, "planes")):
        timed(owner, name, spent)
    milliseconds("bona_fide", options.frames, options.distance)
    print("where bona_fide spends it (inner calls included; Stage.visible and Stage.paint contain RayCaster.cast):")
    for name, seconds in spent.most_common():
        print(f"  {name:32s} {100 * seconds / spent['Sensors.planes']:5.1f} %")


if __name__ == "__main__":
    main()
