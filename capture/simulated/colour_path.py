"""From radiance to a colour image: lens, exposure, Bayer mosaic, noise, interpolation, tone, chroma subsampling."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.meshes import Float32
from capture.simulated.profiles import SensorNoise
from capture.simulated.response import encode_srgb

#: Raw values of white, with headroom below 16 bits for noise.
_WHITE = 4095 * 8


class NormalBank:
    """Normal numbers by seed. Drawing them costs more than rendering: each frame reads the bank from another place."""

    def __init__(self, seed: int, largest: int) -> None:
        self._numbers = np.random.default_rng([seed, 45]).standard_normal(2 * largest + 65_536, dtype=np.float32)

    def draw(self, rng: np.random.Generator, count: int) -> Float32:
        """`count` of them, (count,)."""
        start = int(rng.integers(len(self._numbers) - count))
        return self._numbers[start:start + count]


class ColourPath:
    """The colour sensor behind its lens; `serial` draws the unit's fixed pattern, None for a sensor without."""

    def __init__(self, shape: tuple[int, int], noise: SensorNoise, bank: NormalBank,
                 serial: np.random.Generator | None) -> None:
        self.noise, self._bank = noise, bank
        self._gains: Float32 = np.ones(shape, np.float32)
        if serial is not None:
            self._gains += np.float32(noise.fixed_pattern) * serial.standard_normal(shape, dtype=np.float32)
        self._tone = encode_srgb(np.arange(_WHITE + 1, dtype=np.float32) / np.float32(_WHITE))

    def finish(self, radiance: Float32, exposure: float, rng: np.random.Generator,
               region: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Codes (H, W, 3) of linear radiance (H, W, 3), which is changed in place; only `region` has sharp edges."""
        noise = self.noise
        if noise.blur_px and radiance[region].size:
            radiance[region] = cv2.GaussianBlur(radiance[region], (0, 0), noise.blur_px)
        if noise.full_well is None:
            return encode_srgb(radiance * np.float32(exposure))
        if not noise.bayer:
            planes = [self._exposed(radiance[..., band], exposure, rng) for band in range(3)]
            return self._finish_chroma(self._tone[np.stack(planes, axis=-1)])
        raw = np.empty(radiance.shape[:2], np.float32)
        raw[0::2, 0::2], raw[0::2, 1::2] = radiance[0::2, 0::2, 0], radiance[0::2, 1::2, 1]
        raw[1::2, 0::2], raw[1::2, 1::2] = radiance[1::2, 0::2, 1], radiance[1::2, 1::2, 2]
        # OpenCV names the pattern by its second row: red first here is BayerBG there.
        colour = cv2.demosaicing(self._exposed(raw, exposure, rng), cv2.COLOR_BayerBG2RGB)
        return self._finish_chroma(self._tone[colour])

    def _exposed(self, radiance: Float32, exposure: float, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Raw values (H, W): fixed pattern, shot and read noise."""
        assert self.noise.full_well is not None
        level = np.clip(radiance * np.float32(exposure), 0, 1.2) * self._gains
        spread = np.sqrt(level / np.float32(self.noise.full_well)
                         + np.float32((self.noise.read_codes / 255 / 8) ** 2))
        level += spread * self._bank.draw(rng, level.size).reshape(level.shape)
        return np.asarray((np.clip(level, 0, 1) * np.float32(_WHITE)).astype(np.uint16))

    def _finish_chroma(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self.noise.chroma_subsampled:
            return codes
        opponent = cv2.cvtColor(codes, cv2.COLOR_RGB2YCrCb)
        height, width = codes.shape[:2]
        chroma = cv2.resize(opponent[..., 1:], (width // 2, height), interpolation=cv2.INTER_AREA)
        opponent[..., 1:] = cv2.resize(chroma, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.cvtColor(opponent, cv2.COLOR_YCrCb2RGB), np.uint8)
