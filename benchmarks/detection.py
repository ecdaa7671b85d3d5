"""Time of face detection on simulated 640 x 480 frames, and in how many of them the face is found.

    python benchmarks/detection.py [--frames 60] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import time

import cv2
import numpy as np

from capture.camera import Pace
from capture.sources import make_camera
from detect.blazeface import BlazeFaceDetector

SCENES = ("bona_fide", "print", "screen", "mask")


def measure(scene: str, frames: int) -> dict[str, float]:
    durations_ms, found = [], 0
    camera = make_camera(f"simulated:{scene}", pace=Pace.LOCKSTEP, seed=1)
    detector = BlazeFaceDetector()
    try:
        camera.open()
        detector.detect(camera.read(1.0).colour.pixels)  # the first call builds the graph
        for _ in range(frames):
            image = camera.read(1.0).colour.pixels
            started_s = time.perf_counter()
            found += bool(detector.detect(image))
            durations_ms.append((time.perf_counter() - started_s) * 1e3)
    finally:
        detector.close()
        camera.close()
    p50, p95 = np.percentile(durations_ms, [50, 95])
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2), "found": found, "frames": frames}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="a scene")
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.quick:
        arguments.frames = min(arguments.frames, 20)
    results = {scene: measure(scene, arguments.frames) for scene in SCENES}
    if arguments.json:
        print(json.dumps({"detection": results, "cores": os.cpu_count()}))
        return
    print(f"BlazeFace short range on simulated 640 x 480 colour frames, {os.cpu_count()} cores")
    for scene, result in results.items():
        print(f"  {scene:10} p50 {result['p50_ms']:6.2f} ms   p95 {result['p95_ms']:6.2f} ms   "
              f"face found in {result['found']} of {result['frames']}")


if __name__ == "__main__":
    main()
