"""The network alone, and the network beside a live camera: the same tiny checkpoint, one run, same machine.

    python benchmarks/live.py [--seconds 15] [--json]

Alone: `TorchScorer` on one synthetic crop, threads as the worker would get. Beside: the real `mmdg-live` processes on
the simulated camera at real-time pace; durations come from the stamps that every score carries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

from mmdg_model.scorer import CropPlanes
from pipeline.config import settings_from, worker_threads
from pipeline.telemetry import StageLatencies

SPEC = "simulated:bona_fide"


def alone(repeats: int) -> dict[str, float]:
    from mmdg_model.checkpoint import load_checkpoint
    from mmdg_model.test_checkpoint import ensure_test_checkpoint
    from mmdg_model.torch_scorer import TorchScorer

    threads = worker_threads(settings_from({"cameras": [{"spec": SPEC}]}, "benchmark"))
    scorer = TorchScorer(load_checkpoint(ensure_test_checkpoint()), threads=threads)
    rng = np.random.default_rng(0)
    mask = np.ones((224, 224), bool)
    planes = CropPlanes(
        colour=rng.integers(0, 256, (224, 224, 3)).astype(np.uint8), colour_valid=mask,
        depth=rng.integers(4000, 9000, (224, 224)).astype(np.uint16), depth_valid=mask,
        infrared=rng.integers(0, 256, (224, 224)).astype(np.uint8), infrared_valid=mask)
    durations_ms = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        scorer.score([planes])
        durations_ms.append((time.perf_counter() - started_s) * 1e3)
    p50, p95 = np.percentile(durations_ms, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "count": repeats, "threads": threads}


def beside(seconds: float) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "pipeline.commands.live", "--camera", SPEC, "--json", "--seconds", str(seconds)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    latencies = StageLatencies()
    scores = [e for e in map(json.loads, finished.stdout.splitlines()) if e.get("type") == "score"]
    for event in scores[len(scores) // 5:]:  # warm-up left out
        latencies.add(event["stamps_ns"])
    return latencies.percentiles_ms()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds = min(arguments.seconds, 10.0)
    single, live = alone(30), beside(arguments.seconds)
    if arguments.json:
        print(json.dumps({"tiny_alone_ms": single, "beside_a_simulated_camera_ms": live, "cores": os.cpu_count()}))
        return
    print(f"tiny network, float32, {os.cpu_count()} cores, simulated camera")
    print(f"  alone ({single['threads']} thread)      p50 {single['p50']:7.1f} ms   p95 {single['p95']:7.1f} ms")
    for stage, found in live.items():
        ratio = f"   {found['p50'] / single['p50']:5.2f} x alone" if stage == "inference" else ""
        print(f"  beside: {stage:20} p50 {found['p50']:7.1f} ms   p95 {found['p95']:7.1f} ms   "
              f"n={found['count']}{ratio}")


if __name__ == "__main__":
    main()
