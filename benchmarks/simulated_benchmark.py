"""How fast the simulated benchmark is rendered on one core, and where the time goes.

    python -m benchmarks.simulated_benchmark [--recordings 3]          # so many of each domain and scene
    python -m benchmarks.simulated_benchmark --as-planned 80           # so many, drawn by lot from a tree's plan

Films recordings, as `mmdg simulate benchmark` does, and prints processor time: building the scene, opening the camera,
rendering, and everything after it (detector, aligner, levels, files), in frames a second of one undisturbed core. The
first form is for looking at species, the second is what a tree costs. What a process does once (loading the
detector, a recording of each domain with its camera's tables) is printed on its own. All figures are of simulated data
and from one run.
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
import numpy as np

from capture.simulated.camera import SimulatedCamera
from detect.blazeface import BlazeFaceDetector
from mmdg_model.training.samples import Domain, Split
from pipeline.simulated_benchmark import BenchmarkPlan, plan_benchmark
from pipeline.simulated_trees import presentation
from pipeline.simulated_trees.domains import DOMAINS
from pipeline.simulated_trees.files import write_sample
from pipeline.simulated_trees.plan import Recording


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


def chosen(plan: BenchmarkPlan, each: int, as_planned: int | None) -> list[Recording]:
    """What is filmed: `each` of every domain and scene of the test lists, or `as_planned` of the whole plan by lot."""
    if as_planned is not None:
        whole = [recording for planned in plan.recordings.values() for recording in planned]
        picked = np.random.default_rng(5).choice(len(whole), min(as_planned, len(whole)), replace=False)
        return [whole[number] for number in sorted(picked)]
    count: Counter[tuple[str, str]] = Counter()
    found = []
    for (domain, split), planned in plan.recordings.items():
        for recording in planned if split is Split.TEST else ():
            count[domain, recording.scene] += 1
            if count[domain, recording.scene] <= each:
                found.append(recording)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--recordings", type=int, default=3, help="of each domain and scene")
    how.add_argument("--as-planned", type=int, help="recordings in the plan's own mixture of species")
    how.add_argument("--quick", action="store_true", help="one of each")
    parser.add_argument("--domains", default="WSPC", help="letters; L is the D4xx sessions")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    spent: Counter[str] = Counter()
    timed(presentation, "presented_scene", spent, "building scenes")
    timed(SimulatedCamera, "open", spent, "opening cameras")
    timed(SimulatedCamera, "read", spent, "rendering")
    plan = plan_benchmark("small", seed=99, domains=[Domain(letter) for letter in options.domains])
    recordings = chosen(plan, 1 if options.quick else options.recordings, options.as_planned)
    frames = num_bytes = 0

    def film(recording: Recording, folder: str) -> None:
        nonlocal frames, num_bytes
        for instant in presentation.record(recording, detector, plan.inputs):
            frames += 1
            if instant.levels is not None:
                num_bytes += write_sample(Path(folder), recording.names(instant.index), instant.levels,
                                          DOMAINS[recording.domain].jpeg_quality)
    once = time.process_time()
    with BlazeFaceDetector() as detector, tempfile.TemporaryDirectory() as folder:
        for each in {recording.domain: recording for recording in recordings}.values():
            film(each, folder)
        once = time.process_time() - once
        frames = num_bytes = 0
        spent.clear()
        started = time.process_time()
        for recording in recordings:
            film(recording, folder)
        seconds = time.process_time() - started
    spent["detector, aligner, levels, files"] = seconds - spent.total()
    print(f"simulated benchmark, one core, {len(recordings)} recordings, {frames} frames, {num_bytes / 1e6:.1f} MB: "
          f"{frames / seconds:.2f} frames/s, {seconds / len(recordings):.2f} s a recording (processor time); "
          f"before it, once a process: {once:.1f} s")
    for label, each in spent.most_common():
        print(f"  {label:34s} {100 * each / seconds:5.1f} %   {1e3 * each / frames:6.1f} ms a frame")


if __name__ == "__main__":
    main()
