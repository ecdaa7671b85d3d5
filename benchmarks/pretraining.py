"""What an update of pretraining costs: precisions, and the two forms of attention on a processor.

    python benchmarks/pretraining.py [--quick] [--recipe micro] [--batch 32] [--rounds 5] [--threads 2]

Noise as input, random weights: times do not depend on the content. A sample is three images. Rounds of all variants
alternate, and the best of each counts; ratios are from this run on this machine. JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmdg_model.training.pretraining.config import PretrainingConfig, recipe
from mmdg_model.training.pretraining.masked_autoencoder import MaskedBatch, build_masked_autoencoder

VARIANTS = {"float32, fused attention": ("32-true", SDPBackend.FLASH_ATTENTION),
            "float32, plain attention": ("32-true", SDPBackend.MATH),
            "bfloat16, fused attention": ("bf16-mixed", SDPBackend.FLASH_ATTENTION),
            "bfloat16, plain attention": ("bf16-mixed", SDPBackend.MATH)}


def make_update(config: PretrainingConfig, batch_size: int) -> Callable[[str, SDPBackend], float]:
    """A function that does one update and returns its seconds."""
    model = config.model.resolve()
    network = build_masked_autoencoder(model, config.decoder, config.objective, seed=0).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(batch_size, 3, model.grid**2, generator=generator)
    batch = MaskedBatch(
        torch.randn(batch_size, 3, 3, model.image_size, model.image_size, generator=generator),
        torch.ones(batch_size, 3, dtype=torch.bool),
        noise.argsort(dim=2)[:, :, :network.visible].sort(dim=2).values, torch.tensor([[1, 2, 0]] * batch_size))

    def update(precision: str, attention: SDPBackend) -> float:
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"), sdpa_kernel(attention):
            made = network(batch)
        network.total(network.errors(batch, made)).backward()
        optimizer.step()
        return time.perf_counter() - start

    return update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of small batches")
    parser.add_argument("--recipe", default="micro")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch_size, rounds = (8, 2) if arguments.quick else (arguments.batch, arguments.rounds)
    update = make_update(recipe(arguments.recipe), batch_size)
    best: dict[str, float] = {}
    for _ in range(rounds + 1):  # the first warms up, and is never the best
        for name, variant in VARIANTS.items():
            best[name] = min(best.get(name, float("inf")), update(*variant))
    slowest = best["float32, fused attention"]
    print(json.dumps({
        "recipe": arguments.recipe, "batch": batch_size, "threads": arguments.threads, "torch": torch.__version__,
        "samples_per_s": {name: round(batch_size / seconds, 1) for name, seconds in best.items()},
        "times_float32_fused": {name: round(slowest / seconds, 2) for name, seconds in best.items()}}, indent=2))


if __name__ == "__main__":
    main()
