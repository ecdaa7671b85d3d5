"""Times one forward pass of the network by size, precision and threads, and the pixel path before it.

    python benchmarks/inference.py [--rounds 20] [--sizes tiny base]

Random weights: the time does not depend on them. Every figure and ratio is from this run on this machine. The table
goes to stderr, one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from mmdg_model.config import ModelConfig
from mmdg_model.inputs import InputSpecification, prepare
from mmdg_model.known_answer import known_answer_crops
from mmdg_model.network import build_mmdg

SIZES = {"tiny": ModelConfig.tiny, "base": ModelConfig.base}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median and 95th percentile of `rounds` calls after two that warm up, in milliseconds."""
    durations_ms = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        work()
        durations_ms.append((time.perf_counter() - started) * 1e3)
    measured = durations_ms[2:]
    return {"median_ms": round(float(np.median(measured)), 2), "p95_ms": round(float(np.quantile(measured, 0.95)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()

    specification = InputSpecification()
    crop = known_answer_crops(specification)[:1]
    inputs = prepare(crop, specification)
    present = torch.from_numpy(inputs.present)
    rows: list[dict[str, object]] = [
        {"work": "prepare", **measure(lambda: prepare(crop, specification), arguments.rounds)}]
    for size in arguments.sizes:
        network = build_mmdg(SIZES[size]()).eval()
        reference_ms: float | None = None
        for precision, dtype in DTYPES.items():
            network = network.to(dtype)
            planes = torch.from_numpy(inputs.planes).to(dtype)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                with torch.inference_mode():
                    timing = measure(lambda n=network, p=planes: n(p, present), arguments.rounds)
                reference_ms = reference_ms or timing["median_ms"]
                rows.append({"work": f"forward {size}", "precision": precision, "threads": threads, **timing,
                             "speed_ratio": round(reference_ms / timing["median_ms"], 2)})

    print(f"{'work':<14} {'precision':<9} {'threads':>7} {'median ms':>10} {'p95 ms':>9} {'ratio':>6}", file=sys.stderr)
    for row in rows:
        print(f"{row['work']:<14} {row.get('precision', ''):<9} {row.get('threads', ''):>7} {row['median_ms']:>10} "
              f"{row['p95_ms']:>9} {row.get('speed_ratio', ''):>6}", file=sys.stderr)
    print(json.dumps({"benchmark": "inference", "batch": 1, "rounds": arguments.rounds, "torch": torch.__version__,
                      "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                      "load_average": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main()
