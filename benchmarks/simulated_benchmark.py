"""How fast the simulated benchmark is rendered on one core, and where the time goes.

    python -m benchmarks.simulated_benchmark [--recordings 3]

Films a few recordings of each domain and scene, as `mmdg simulate benchmark` does, and prints processor time: building
the scene, opening the camera, rendering, and everything after it (detector, aligner, levels, files), in frames a second
of one undisturbed core. All figures are of simulated data and from one run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy loads: the figure is for one core

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from capture.simulated.camera import SimulatedCamera
from detect.blazeface import BlazeFaceDetector
from mmdg_model.training.samples import Split
from pipeline.simulated_benchmark import plan_benchmark
from pipeline.simulated_trees import presentation
from pipeline.simulated_trees.domains import DOMAINS
from pipeline.simulated_trees.files import write_sample


def timed(owner: Any, name: str, spent: Counter[str], label: str) -> None:
    """Replaces a function by one that adds its processor time to `spent`."""
    plain: Callable[..., Any] = getattr(owner, name)

    def wrapper(*arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return plain(*arguments, **options)
        finally:
            spent[label] += time.process_time() - started
    setattr(owner, name, wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=3, help="of each domain and scene")
    parser.add_argument("--quick", action="store_true", help="one of each")
    options = parser.parse_args()
    wanted = 1 if options.quick else options.recordings
    cv2.setNumThreads(1)
    spent: Counter[str] = Counter()
    timed(presentation, "presented_scene", spent, "building scenes")
    timed(SimulatedCamera, "open", spent, "opening cameras")
    timed(SimulatedCamera, "read", spent, "rendering")
    plan = plan_benchmark("small", seed=99)
    total: Counter[str] = Counter()
    chosen: Counter[tuple[str, str]] = Counter()
    frames = num_bytes = recordings = 0
    with BlazeFaceDetector() as detector, tempfile.TemporaryDirectory() as folder:
        for (domain, split), planned in plan.recordings.items():
            for recording in planned if split is Split.TEST else ():
                chosen[domain, recording.scene] += 1
                if chosen[domain, recording.scene] > wanted:
                    continue
                recordings += 1
                before = time.process_time()
                for instant in presentation.record(recording, detector, plan.inputs):
                    frames += 1
                    if instant.levels is not None:
                        num_bytes += write_sample(Path(folder), recording.names(instant.index), instant.levels,
                                                  DOMAINS[domain].jpeg_quality)
                total[str(domain)] += time.process_time() - before
    seconds = total.total()
    spent["detector, aligner, levels, files"] = seconds - spent.total()
    print(f"simulated benchmark, one core, {recordings} recordings, {frames} frames, {num_bytes / 1e6:.1f} MB: "
          f"{frames / seconds:.2f} frames/s, {seconds / recordings:.2f} s a recording (processor time)")
    for label, each in spent.most_common():
        print(f"  {label:34s} {100 * each / seconds:5.1f} %   {1e3 * each / frames:6.1f} ms a frame")


if __name__ == "__main__":
    main()
