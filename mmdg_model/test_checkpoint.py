"""Test checkpoints: random weights of purpose `test`, made on the machine that needs them, never shipped.

A freshly initialised network would pass almost any test: its adapters are silent and its scores sit at one half. So
up projections and central-difference taps are random too, activations are enlarged until certainty varies, and the
head is scaled until scores spread over different crops.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmdg_model.asset_directory import TEST_CHECKPOINT_RECIPE, test_checkpoint_path
from mmdg_model.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.inputs import InputSpecification, prepare
from mmdg_model.network import LIVE_COLUMN, MMDG, build_mmdg
from mmdg_model.scorer import CropPlanes, Purpose
from mmdg_model.torch_scorer import measure_known_answer

#: Standard deviation of the logit over the calibration crops, up to the factor of 2 that its rounding allows.
LOGIT_SPREAD = 4.0


def make_test_checkpoint(path: Path, config: ModelConfig | None = None, seed: int = 0) -> Checkpoint:
    """Writes a random checkpoint and returns it as loaded.

    The same seed, torch version and machine give the same file, byte for byte. Weights are stored as float16.

    Args:
        path: of the file; replaced if it exists.
        config: defaults to `ModelConfig.tiny()`.
        seed: of the weights.
    """
    config = config or ModelConfig.tiny()
    specification = InputSpecification(image_size=config.image_size, absence=config.absence)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _random_network(config)
    network = network.half().float()  # everything below must see the weights as stored
    _spread_logits(network, specification)
    save_checkpoint(Checkpoint(
        config=config, input_spec=specification, purpose=Purpose.TEST,
        known_answer=measure_known_answer(network, specification),
        weights={name: weight.half() for name, weight in network.state_dict().items()},
        created_by="mmdg_model.test_checkpoint",
        training={"weights": "random", "seed": seed, "recipe": TEST_CHECKPOINT_RECIPE},
    ), path)
    return load_checkpoint(path)


def ensure_test_checkpoint() -> Path:
    """Path of the cached tiny test checkpoint in the asset directory, made first if it is not there or is damaged."""
    path = test_checkpoint_path()
    try:
        load_checkpoint(path)
    except CheckpointError:
        make_test_checkpoint(path)
    return path


@torch.no_grad()
def _random_network(config: ModelConfig) -> MMDG:
    """Enlarged beyond the usual start, so that attention is sharp and class tokens differ from crop to crop."""
    network = build_mmdg(config).eval()
    # Sums over `width` channels grow with its root: the same gain would make wider networks chaotic in bfloat16.
    per_channel = math.sqrt(192 / config.width)
    for name, parameter in network.named_parameters():
        if name.endswith(("attention.query_key_value.weight", "block.attention.output.weight")):
            parameter.mul_(4.0 * per_channel)
        elif name.endswith("patches.weight"):
            parameter.mul_(3.0)
        elif ".mlp." in name and name.endswith("weight"):
            parameter.mul_(2.0 * per_channel)
        elif name.endswith("convolution.weight"):
            nn.init.normal_(parameter, std=0.2)
        elif name.endswith("up.weight"):
            nn.init.normal_(parameter, std=0.1)
    return network


@torch.no_grad()
def _spread_logits(network: MMDG, specification: InputSpecification) -> None:
    """Scales and centres the head on fixed crops, by amounts coarse enough that rounding noise does not alter them."""
    inputs = prepare([_varied_crop(specification.image_size, seed) for seed in range(8)], specification)
    planes, present = torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present)
    logits = network(planes, present).logits
    spread = float((logits[:, LIVE_COLUMN] - logits[:, 1 - LIVE_COLUMN]).std())
    network.head.weight.mul_(2.0 ** round(math.log2(LOGIT_SPREAD / spread)))
    logits = network(planes, present).logits
    centre = float((logits[:, LIVE_COLUMN] - logits[:, 1 - LIVE_COLUMN]).mean())
    network.head.bias[LIVE_COLUMN] -= round(centre * 8) / 8


def _varied_crop(size: int, seed: int) -> CropPlanes:
    """Coarse blobs and fine noise in every plane; nothing like a face."""
    generator = np.random.default_rng(seed)
    cells = max(1, size // 32)
    enlarge = np.ones((-(-size // cells), -(-size // cells)), dtype=np.int64)

    def blobs(low: int, high: int, grain: int) -> NDArray[np.int64]:
        coarse = np.kron(generator.integers(low, high, (cells, cells)), enlarge)[:size, :size]
        return np.asarray(coarse + generator.integers(0, grain, (size, size)))

    everywhere = np.ones((size, size), dtype=np.bool_)
    return CropPlanes(
        colour=np.stack([blobs(0, 216, 40) for _ in range(3)], axis=-1).astype(np.uint8), colour_valid=everywhere,
        depth=blobs(4500, 5500, 40).astype(np.uint16), depth_valid=everywhere, depth_unit_m=1e-4,
        infrared=blobs(0, 216, 40).astype(np.uint8), infrared_valid=everywhere)


if __name__ == "__main__":
    print(ensure_test_checkpoint())
