"""Times one forward pass under each way to the certainty, as ratios to the closed form.

    python benchmarks/uncertainty_cost.py [--rounds 10] [--size tiny]

Random weights: the time does not depend on them. One thread, float32, batch 1; rounds take turns, so that other work on
the machine hits all alike. The table goes to stderr, one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time

import numpy as np
import torch

from mmdg_model.config import ModelConfig, UncertaintyEstimatorKind
from mmdg_model.network import build_mmdg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", choices=("tiny", "base"), default="tiny")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    config = ModelConfig.tiny() if arguments.size == "tiny" else ModelConfig.base()
    networks = {kind: build_mmdg(dataclasses.replace(config, uncertainty_estimator=kind)).eval()
                for kind in UncertaintyEstimatorKind}
    planes, present = torch.rand(1, 3, 3, 224, 224) * 2 - 1, torch.ones(1, 3, dtype=torch.bool)
    durations_ms: dict[str, list[float]] = {kind: [] for kind in networks}
    with torch.inference_mode():
        for _ in range(arguments.rounds + 2):
            for kind, network in networks.items():
                started = time.perf_counter()
                network(planes, present)
                durations_ms[kind].append((time.perf_counter() - started) * 1e3)
    medians_ms = {kind: float(np.median(values[2:])) for kind, values in durations_ms.items()}
    closed_ms = medians_ms[UncertaintyEstimatorKind.ANALYTIC]
    rows = {str(kind): {"median_ms": round(median, 2), "ratio_to_analytic": round(median / closed_ms, 2)}
            for kind, median in medians_ms.items()}
    for kind, row in rows.items():
        print(f"{kind:<16} {row['median_ms']:>9} ms {row['ratio_to_analytic']:>6} of analytic", file=sys.stderr)
    print(json.dumps({"benchmark": "uncertainty_cost", "size": arguments.size, "rounds": arguments.rounds,
                      "samples": config.uncertainty_samples, "load_average": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main()
