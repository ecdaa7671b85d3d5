"""In how many simulated frames BlazeFace finds the face: live people by distance, every attack species at 0.5 m.

    python -m benchmarks.simulated_faces [--people 30] [--attacks 4] [--quick]

Each frame is of another person. All data is simulated; a detector knows faces, never liveness.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse

import cv2

from capture.simulated.catalogue import make_scene
from capture.simulated.profiles import SENSOR_PROFILES
from capture.simulated.sensors import Sensors, simulated_rig
from capture.simulated.species import SPECIES
from detect.blazeface import BlazeFaceDetector

DISTANCES_M = (0.35, 0.5, 0.75, 1.0)


def found_in(detector: BlazeFaceDetector, scene: str, seeds: range, distance_m: float) -> list[int]:
    """Seeds whose frame shows at least one detection."""
    profile, found = SENSOR_PROFILES["d4xx"], []
    for seed in seeds:
        sensors = Sensors(make_scene(scene, seed=seed, distance_m=distance_m), simulated_rig(), profile.noise, seed)
        if detector.detect(sensors.planes(3, 0.3 + 0.37 * (seed % 11), 0.3 + 0.37 * (seed % 11)).colour):
            found.append(seed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=30, help="live people at each distance")
    parser.add_argument("--attacks", type=int, default=4, help="frames of each species")
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    options = parser.parse_args()
    if options.quick:
        options.people, options.attacks = 4, 1
    cv2.setNumThreads(1)
    detector = BlazeFaceDetector()
    try:
        total = 0
        for number, distance_m in enumerate(DISTANCES_M):
            seeds = range(1000 * number, 1000 * number + options.people)
            found = found_in(detector, "bona_fide", seeds, distance_m)
            total += len(found)
            missed = sorted(set(seeds) - set(found))
            print(f"bona_fide at {distance_m:.2f} m: found in {len(found)} of {options.people}"
                  + (f"; not in seeds {missed}" if missed else ""), flush=True)
        print(f"bona_fide, all distances: {100 * total / (options.people * len(DISTANCES_M)):.1f} %")
        for species in SPECIES if options.attacks else ():
            found = found_in(detector, species, range(options.attacks), 0.5)
            print(f"{species:32s} found in {len(found)} of {options.attacks}", flush=True)
    finally:
        detector.close()


if __name__ == "__main__":
    main()
