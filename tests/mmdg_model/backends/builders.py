"""Crops whose scores spread."""

import numpy as np

from tests.mmdg_model.builders import crop


def varied_crops(number, seed=5):
    """Noise under brightness and relief that differ from crop to crop."""
    generator, crops = np.random.default_rng(seed), []
    for index in range(number):
        blobs = np.kron(generator.integers(0, 200, (2, 2, 3)), np.ones((32, 32, 1), dtype=np.int64))
        relief = np.kron(generator.integers(4500, 5500, (2, 2)), np.ones((32, 32), dtype=np.int64))
        crops.append(crop(seed=seed + index, colour=(blobs + generator.integers(0, 40, (64, 64, 3))).astype(np.uint8),
                          depth=relief.astype(np.uint16), infrared=(blobs[:, :, 0] * 4).astype(np.uint16)))
    return crops
