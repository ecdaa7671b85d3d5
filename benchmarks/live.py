"""The network alone, and the network beside a live camera: the same checkpoint, one run, same machine.

    python benchmarks/live.py [--seconds 15] [--model FILE] [--camera simulated:bona_fide | replay:FILE] [--json]

By default the checkpoint that comes with the program, else the test checkpoint.

Alone: `TorchScorer` on one synthetic crop, threads as the worker would get. Beside: the real `mmdg-live` processes on
the camera at real-time pace; durations come from the stamps that every score carries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mmdg_model.scorer import CropPlanes
from pipeline.config import settings_from, worker_threads
from pipeline.telemetry import StageLatencies

SPEC = "simulated:bona_fide"


def default_model() -> Path:
    from mmdg_model.shipped_weights import shipped_checkpoint
    from mmdg_model.test_checkpoint import ensure_test_checkpoint

    shipped = shipped_checkpoint()
    return shipped[0] if shipped is not None else ensure_test_checkpoint()


def alone(model: Path, repeats: int) -> dict[str, float]:
    from mmdg_model.checkpoint import load_checkpoint
    from mmdg_model.torch_scorer import TorchScorer

    threads = worker_threads(settings_from({"cameras": [{"spec": SPEC}]}, "benchmark"))
    checkpoint = load_checkpoint(model)
    scorer, side = TorchScorer(checkpoint, threads=threads), checkpoint.input_spec.image_size
    rng = np.random.default_rng(0)
    mask = np.ones((side, side), bool)
    planes = CropPlanes(
        colour=rng.integers(0, 256, (side, side, 3)).astype(np.uint8), colour_valid=mask,
        depth=rng.integers(4000, 9000, (side, side)).astype(np.uint16), depth_valid=mask,
        infrared=rng.integers(0, 256, (side, side)).astype(np.uint8), infrared_valid=mask)
    durations_ms = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        scorer.score([planes])
        durations_ms.append((time.perf_counter() - started_s) * 1e3)
    p50, p95 = np.percentile(durations_ms, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "count": repeats, "threads": threads}


def beside(model: Path, camera: str, seconds: float) -> tuple[dict[str, dict[str, float]], float]:
    """Percentiles of each stage, and scored sets a second."""
    command = [sys.executable, "-m", "pipeline.commands.live", "--camera", camera, "--json", "--seconds", str(seconds),
               "--model", str(model)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    latencies = StageLatencies()
    scores = [e for e in map(json.loads, finished.stdout.splitlines()) if e.get("type") == "score"]
    warm = scores[len(scores) // 5:]  # warm-up left out
    if len(warm) < 2:
        raise SystemExit(f"{len(scores)} sets of {camera} were scored within {seconds:g} s: too few for a rate; does "
                         "every frame show exactly one face?")
    for event in warm:
        latencies.add(event["stamps_ns"])
    arrivals_ns = [event["stamps_ns"]["arrival"] for event in warm]
    return latencies.percentiles_ms(), (len(warm) - 1) * 1e9 / (arrivals_ns[-1] - arrivals_ns[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--camera", default=SPEC, help="simulated, or a recording, which is paced as it was made")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model = arguments.model or default_model()
    if arguments.quick:
        arguments.seconds = min(arguments.seconds, 10.0)
    single = alone(model, 30)
    live, rate = beside(model, arguments.camera, arguments.seconds)
    if arguments.json:
        print(json.dumps({"model": model.name, "alone_ms": single, "camera": arguments.camera, "beside_ms": live,
                          "scored_per_second": round(rate, 1), "cores": os.cpu_count()}))
        return
    print(f"{model.name}, float32, {os.cpu_count()} cores, {arguments.camera}: {rate:.1f} sets scored a second")
    print(f"  alone ({single['threads']} thread)      p50 {single['p50']:7.1f} ms   p95 {single['p95']:7.1f} ms")
    for stage, found in live.items():
        ratio = f"   {found['p50'] / single['p50']:5.2f} x alone" if stage == "inference" else ""
        print(f"  beside: {stage:20} p50 {found['p50']:7.1f} ms   p95 {found['p95']:7.1f} ms   "
              f"n={found['count']}{ratio}")


if __name__ == "__main__":
    main()
