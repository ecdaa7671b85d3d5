"""Small networks and crops for the tests of this folder."""

import numpy as np
import torch

from benchmarks.naive_reference import NaiveMmdg
from mmdg_model.config import ModelConfig
from mmdg_model.network import build_mmdg
from mmdg_model.scorer import CropPlanes

#: Every part of the real network, three blocks and 64 pixels small.
MICRO = ModelConfig(width=48, heads=3, depth=3, image_size=64)


def lively_network(config=MICRO, seed=0):
    """A network in evaluation mode whose adapters speak and whose logits vary: nothing left at its silent start."""
    torch.manual_seed(seed)
    network = build_mmdg(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("up.weight"):
                parameter.normal_(std=0.3)
            elif name.endswith(("convolution.weight", "head.weight")):
                parameter.normal_(std=0.5)
            elif "block." in name and name.endswith("weight") and "norm" not in name:
                parameter.mul_(4.0)
    return network


def random_planes(batch, config=MICRO, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 3, config.image_size, config.image_size, generator=generator)


def crop(size=64, seed=0, without=(), **changes):
    """A valid crop of noise; `without` names absent planes, `changes` replaces fields."""
    generator = np.random.default_rng(seed)
    everywhere = np.ones((size, size), dtype=np.bool_)
    planes = {
        "colour": generator.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "colour_valid": everywhere,
        "depth": generator.integers(4000, 6000, (size, size), dtype=np.uint16),
        "depth_valid": everywhere,
        "infrared": generator.integers(0, 1024, (size, size), dtype=np.uint16),
        "infrared_valid": everywhere,
        "infrared_bit_depth": 10,
    }
    absent = {field: None for name in without for field in (name, f"{name}_valid")}
    return CropPlanes(**(planes | absent | changes))


def naive_reference(weights, config):
    """The plain second implementation with these weights; certainty in its limit, so without noise."""
    return NaiveMmdg(weights, heads=config.heads, depth=config.depth, adapter_heads=config.adapter_heads,
                     theta=config.cdc_theta, rate=config.uncertainty_rate, dropout=config.uncertainty_dropout,
                     eps=config.layer_norm_eps, samples=None)
