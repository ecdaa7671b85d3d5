"""From radiance to a colour image: lens, exposure, Bayer mosaic, noise, interpolation, tone, chroma subsampling."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.meshes import Float32
from capture.simulated.profiles import SensorNoise
from capture.simulated.response import encode_srgb

#: Raw values of white, with headroom below 16 bits for noise.
_WHITE = 4095 * 8
_TONE = encode_srgb(np.arange(_WHITE + 1, dtype=np.float32) / np.float32(_WHITE))


@lru_cache(maxsize=2)
def _bank(count: int) -> Float32:
    numbers = np.random.default_rng(45).standard_normal(count, dtype=np.float32)
    numbers.flags.writeable = False
    return numbers


class NormalBank:
    """Normal numbers. Drawing them costs more than rendering, so one bank serves every camera and each frame reads it
    from another place, drawn from the frame's own generator."""

    def __init__(self, largest: int) -> None:
        self._numbers = _bank(2 * largest + 1_000_003)

    def draw(self, rng: np.random.Generator, count: int) -> Float32:
        """`count` of them, (count,)."""
        start = int(rng.integers(len(self._numbers) - count))
        return self._numbers[start:start + count]


def _line(smear_px: tuple[float, float]) -> Float32:
    """A kernel that spreads evenly along a straight way."""
    reach = int(np.ceil(np.abs(smear_px).max() / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for share in np.linspace(-0.5, 0.5, 33):
        column, row = reach + share * smear_px[0], reach + share * smear_px[1]
        left, top = int(column), int(row)
        across, down = column - left, row - top
        kernel[top:top + 2, left:left + 2] += np.outer([1 - down, down], [1 - across, across]).astype(np.float32)
    return np.asarray(kernel / kernel.sum(), np.float32)


class ColourPath:
    """The colour sensor behind its lens; `gains` (H, W) is the unit's fixed pattern."""

    def __init__(self, noise: SensorNoise, bank: NormalBank, gains: Float32) -> None:
        self.noise, self._bank, self._gains = noise, bank, gains

    def finish(self, radiance: Float32, exposure: float, rng: np.random.Generator, region: tuple[slice, slice],
               light_level: float = 1.0, smear_px: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.uint8]:
        """Codes (H, W, 3) of linear radiance (H, W, 3), which is changed in place; only `region` has sharp edges.

        `light_level`: share of the usual number of photons that make up this radiance. `smear_px`: by how much
        (columns, rows) what is in `region` moved while it was exposed.
        """
        noise = self.noise
        if np.hypot(*smear_px) > 0.3 and radiance[region].size:
            radiance[region] = cv2.filter2D(radiance[region], -1, _line(smear_px), borderType=cv2.BORDER_REPLICATE)
        if noise.blur_px and radiance[region].size:
            radiance[region] = cv2.GaussianBlur(radiance[region], (0, 0), noise.blur_px)
        if noise.full_well is None:
            return encode_srgb(radiance * np.float32(exposure))
        if not noise.bayer:
            planes = [self._exposed(radiance[..., band], exposure, rng, light_level) for band in range(3)]
            return self._finish_chroma(_TONE[np.stack(planes, axis=-1)])
        raw = np.empty(radiance.shape[:2], np.float32)
        raw[0::2, 0::2], raw[0::2, 1::2] = radiance[0::2, 0::2, 0], radiance[0::2, 1::2, 1]
        raw[1::2, 0::2], raw[1::2, 1::2] = radiance[1::2, 0::2, 1], radiance[1::2, 1::2, 2]
        # OpenCV names the pattern by its second row: red first here is BayerBG there.
        colour = cv2.demosaicing(self._exposed(raw, exposure, rng, light_level), cv2.COLOR_BayerBG2RGB)
        return self._finish_chroma(_TONE[colour])

    def _exposed(self, radiance: Float32, exposure: float, rng: np.random.Generator,
                 light_level: float) -> NDArray[np.uint16]:
        """Raw values (H, W): fixed pattern, shot and read noise."""
        assert self.noise.full_well is not None
        level = np.clip(radiance * np.float32(exposure), 0, 1.2) * self._gains
        spread = np.sqrt(level / np.float32(self.noise.full_well * light_level)
                         + np.float32((self.noise.read_codes / 255 / 8 / light_level) ** 2))
        level += spread * self._bank.draw(rng, level.size).reshape(level.shape)
        return np.asarray((np.clip(level, 0, 1) * np.float32(_WHITE)).astype(np.uint16))

    def _finish_chroma(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.noise.jpeg_quality is not None:
            done, packed = cv2.imencode(".jpg", codes[..., ::-1], [
                cv2.IMWRITE_JPEG_QUALITY, self.noise.jpeg_quality,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422])
            assert done, "JPEG of an 8-bit image"
            return np.ascontiguousarray(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
        if not self.noise.chroma_subsampled:
            return codes
        opponent = cv2.cvtColor(codes, cv2.COLOR_RGB2YCrCb)
        height, width = codes.shape[:2]
        chroma = cv2.resize(opponent[..., 1:], (width // 2, height), interpolation=cv2.INTER_AREA)
        opponent[..., 1:] = cv2.resize(chroma, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.cvtColor(opponent, cv2.COLOR_YCrCb2RGB), np.uint8)
