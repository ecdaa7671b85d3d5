"""How linear light becomes 8-bit codes: the sRGB transfer curve (IEC 61966-2-1), as tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from capture.simulated.meshes import Float32

_STEPS = 4096
_LINEAR = np.linspace(0, 1, _STEPS)
_ENCODE = np.rint(255 * np.where(_LINEAR <= 0.0031308, 12.92 * _LINEAR,
                                 1.055 * np.maximum(_LINEAR, 1e-9) ** (1 / 2.4) - 0.055)).astype(np.uint8)
_CODE = np.arange(256) / 255
_DECODE = np.where(_CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4).astype(np.float32)
#: How many codes one unit of linear light is worth, at each code: the slope of the curve.
CODES_PER_UNIT = (255 * np.where(_DECODE <= 0.0031308, 12.92,
                                 1.055 / 2.4 * np.maximum(_DECODE, 1e-9) ** (1 / 2.4 - 1))).astype(np.float32)


def encode_srgb(linear: Float32) -> NDArray[np.uint8]:
    """Linear light, 1 = white, to codes; brighter light clips."""
    return np.asarray(_ENCODE[np.clip(linear * np.float32(_STEPS - 1), 0, _STEPS - 1).astype(np.int16)])


def decode_srgb(codes: NDArray[np.uint8]) -> Float32:
    return np.asarray(_DECODE[codes])
