"""The network on an NVIDIA GPU: captured graphs against plain PyTorch and the naive published form, one run.

    python benchmarks/cuda_inference.py [--quick] [--sizes tiny base] [--batches 1 8 32] [--rounds 30]

Same weights (random, purpose `test`, logits spread), same crops. A time is from pixels ready on the host to logits on
the host: both copies and the synchronisation are in it. The naive form draws 20 dropout samples for certainty. Forms
take turns within a round; medians. Agreement is with the naive form in float64 on the same GPU, without sampling.
Without a CUDA device it says so and ends with exit code 0. JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from naive_reference import NaiveMmdg

from mmdg_model.backends.cuda_engine import PRECISIONS, CudaEngine, unavailable_because
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.inputs import PreparedInputs, prepare
from mmdg_model.test_checkpoint import _varied_crop, make_test_checkpoint
from mmdg_model.torch_scorer import build_network


def naive(checkpoint: Checkpoint, dtype: torch.dtype, samples: int | None) -> NaiveMmdg:
    config = checkpoint.config
    return NaiveMmdg({name: weight.to("cuda", dtype) for name, weight in checkpoint.weights.items()},
                     heads=config.heads, depth=config.depth, adapter_heads=config.adapter_heads,
                     theta=config.cdc_theta, rate=config.uncertainty_rate, dropout=config.uncertainty_dropout,
                     eps=config.layer_norm_eps, samples=samples)


def forms(checkpoint: Checkpoint) -> dict[str, Callable[[PreparedInputs], Any]]:
    """Name to a function from inputs on the host to logits on the host."""
    sampled, plain = naive(checkpoint, torch.float32, 20), build_network(checkpoint).cuda()

    def run_naive(inputs: PreparedInputs) -> Any:
        with torch.inference_mode():
            return sampled.logits(torch.from_numpy(inputs.planes).cuda(),
                                  torch.from_numpy(inputs.present).cuda()).cpu().numpy()

    def run_plain(inputs: PreparedInputs) -> Any:
        with torch.inference_mode():
            return plain(torch.from_numpy(inputs.planes).cuda(),
                         torch.from_numpy(inputs.present).cuda()).logits.cpu().numpy()

    found: dict[str, Callable[[PreparedInputs], Any]] = {"naive float32": run_naive, "plain float32": run_plain}
    for precision in PRECISIONS:
        engine = CudaEngine(checkpoint, precision=precision)
        found[f"graph {precision}"] = lambda inputs, engine=engine: engine.run(inputs)[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny network, batch 1, few rounds")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    if why := unavailable_because():
        print(json.dumps({"benchmark": "cuda", "left_out": why}))
        return
    if arguments.quick:
        arguments.sizes, arguments.batches, arguments.rounds = ["tiny"], [1], 5
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            checkpoint = make_test_checkpoint(Path(folder) / f"{size}.safetensors", ModelConfig.preset(size))
            found = forms(checkpoint)
            crops = [_varied_crop(checkpoint.config.image_size, seed) for seed in range(max(arguments.batches))]
            everything = prepare(crops, checkpoint.input_spec)
            with torch.inference_mode():
                exact = naive(checkpoint, torch.float64, None).logits(
                    torch.from_numpy(everything.planes).double().cuda(),
                    torch.from_numpy(everything.present).cuda()).cpu().numpy()
            exact = exact[:, 1] - exact[:, 0]
            for batch in arguments.batches:
                inputs = prepare(crops[:batch], checkpoint.input_spec)
                times: dict[str, list[float]] = {name: [] for name in found}
                for turn in range(arguments.rounds + 3):
                    for name, form in found.items():
                        started = time.perf_counter()
                        form(inputs)
                        if turn >= 3:
                            times[name].append(time.perf_counter() - started)
                baseline = float(np.median(times["naive float32"]))
                for name, form in found.items():
                    logits = form(everything)
                    rows.append({
                        "size": size, "batch": batch, "form": name,
                        "median_ms": round(float(np.median(times[name])) * 1e3, 3),
                        "p95_ms": round(float(np.quantile(times[name], 0.95)) * 1e3, 3),
                        "times_faster": round(baseline / float(np.median(times[name])), 1),
                        "largest_logit_difference_over_deviation": round(float(
                            np.abs(logits[:, 1] - logits[:, 0] - exact).max() / exact.std()), 5)})
                    print(" ".join(f"{value!s:>14}" for value in rows[-1].values()), file=sys.stderr)
    print(json.dumps({"benchmark": "cuda", "device": torch.cuda.get_device_name(), "torch": torch.__version__,
                      "rounds": arguments.rounds, "rows": rows}))


if __name__ == "__main__":
    main()
