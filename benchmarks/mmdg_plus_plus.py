"""Times one forward pass of MMDG++ beside MMDG of the same backbone size, with and without sampled queries.

Then prints how far bfloat16 moves the logits of MMDG++, over their largest, with adapters at random instead of silent.

    python benchmarks/mmdg_plus_plus.py [--rounds 10] [--quick]

Random weights: the time does not depend on them. One thread, float32, batch 1. Every figure and ratio is from this run
on this machine; rounds of the three networks alternate, so that other work on the machine hits all of them. The table
goes to stderr, one JSON object to stdout. `--quick` takes the tiny size.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time

import numpy as np
import torch

from mmdg_model.architectures import Network, build
from mmdg_model.config import ModelConfig
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig


def networks(quick: bool) -> dict[str, Network]:
    """The compared networks, in evaluation mode."""
    plus_plus = MMDGPlusPlusConfig.tiny() if quick else MMDGPlusPlusConfig.base()
    sampled = MMDGPlusPlusConfig.from_dict(plus_plus.to_dict() | {"query_estimator": "sampled"})
    configs = {"mmdg": ModelConfig.tiny() if quick else ModelConfig.base(), "mmdg++ analytic": plus_plus,
               "mmdg++ sampled": sampled}
    return {name: build(config).eval() for name, config in configs.items()}


@torch.no_grad()
def bfloat16_deviation(network: Network) -> float:
    """Largest change of a logit in bfloat16 over eight random crops, over the largest logit."""
    torch.manual_seed(0)
    lively = copy.deepcopy(network)
    for name, parameter in lively.named_parameters():
        if "adapters" in name and name.endswith("weight") and "norm" not in name:
            parameter.normal_(std=0.1 if name.endswith(("up.weight", "log_variance.weight")) else 0.5)
        elif name == "head.weight":
            parameter.normal_()
    planes, present = torch.rand(8, 3, 3, 224, 224), torch.ones(8, 3, dtype=torch.bool)
    exact = lively(planes, present).logits
    return float((lively.bfloat16()(planes.bfloat16(), present).logits - exact).abs().max() / exact.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    compared = networks(arguments.quick)
    planes, present = torch.rand(1, 3, 3, 224, 224), torch.ones(1, 3, dtype=torch.bool)
    durations_ms: dict[str, list[float]] = {name: [] for name in compared}
    with torch.inference_mode():
        for round_number in range(arguments.rounds + 2):
            for name, network in compared.items():
                started = time.perf_counter()
                network(planes, present)
                if round_number >= 2:  # the first two warm up
                    durations_ms[name].append((time.perf_counter() - started) * 1e3)
    medians = {name: float(np.median(values)) for name, values in durations_ms.items()}
    print(f"{'network':<16} {'median ms':>10} {'p95 ms':>9} {'times mmdg':>11}", file=sys.stderr)
    for name, values in durations_ms.items():
        print(f"{name:<16} {medians[name]:>10.1f} {np.quantile(values, 0.95):>9.1f} "
              f"{medians[name] / medians['mmdg']:>11.2f}", file=sys.stderr)
    deviations = {name: bfloat16_deviation(network) for name, network in compared.items() if name != "mmdg"}
    for name, deviation in deviations.items():
        print(f"{name:<16} bfloat16 moves a logit by up to {deviation:.3f} of the largest", file=sys.stderr)
    print(json.dumps({"machine": platform.processor() or platform.machine(), "torch": torch.__version__,
                      "size": "tiny" if arguments.quick else "base", "rounds": arguments.rounds,
                      "median_ms": {name: round(value, 2) for name, value in medians.items()},
                      "bfloat16_deviation": {name: round(value, 4) for name, value in deviations.items()}}))


if __name__ == "__main__":
    main()
