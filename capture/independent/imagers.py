"""Colour and infrared imagers of the independent camera: radiance in, codes out. Nothing is shared with
`capture.simulated.sensors`.

Photon noise is Poisson, exposure is metered on the image itself, the colour image is sharpened, toned and sent as
Motion JPEG. Full well, read noise and non-uniformity are chosen in the order of magnitude of EMVA 1288 figures for
sensors of that size; no unit was measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.meshes import Float32

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True, kw_only=True)
class ImagerNoise:
    """What an imager adds.

    Attributes:
        full_well: electrons at white. read_electrons: noise in the dark. non_uniformity: relative spread of the
            pixels' sensitivities, fixed for a serial. lens_px: standard deviation of the lens's blur.
        vignetting: loss of light in the corners. jpeg_quality: of each colour image.
    """

    full_well: float = 9000.0
    read_electrons: float = 4.0
    non_uniformity: float = 0.006
    lens_px: float = 0.45
    vignetting: float = 0.18
    jpeg_quality: int = 88


def unit_generator(serial: str, purpose: str) -> np.random.Generator:
    """Random numbers that belong to one unit of the camera, whatever it looks at."""
    digest = hashlib.sha256(f"independent {purpose} {serial}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


class Imager:
    """Lens and pixels of one imager: the common part of colour and infrared."""

    def __init__(self, shape: tuple[int, int], serial: str, purpose: str, noise: ImagerNoise) -> None:
        self.noise = noise
        row, column = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
        uneven = unit_generator(serial, purpose).normal(1.0, noise.non_uniformity, shape)
        self._gains: Float32 = ((1 - noise.vignetting * (row ** 2 + column ** 2) / 2) * uneven).astype(np.float32)

    def exposed(self, level: Float32, rng: np.random.Generator) -> Float32:
        """(H, W) with white at 1, lens and gains applied before, as read out: clipped at 0 and 1."""
        electrons = rng.poisson(np.clip(level * self._gains, 0, 1.5) * self.noise.full_well).astype(np.float32)
        electrons += self.noise.read_electrons * rng.standard_normal(level.shape, dtype=np.float32)
        return np.asarray(np.clip(electrons / np.float32(self.noise.full_well), 0, 1), np.float32)

    def through_lens(self, radiance: Float32) -> Float32:
        """Blurred by the lens."""
        return np.asarray(cv2.GaussianBlur(radiance, (0, 0), self.noise.lens_px), np.float32)


class ColourImager(Imager):
    """Radiance (H, W, 3) to 8-bit RGB."""

    def __init__(self, shape: tuple[int, int], serial: str, noise: ImagerNoise | None = None) -> None:
        super().__init__(shape, serial, "colour", noise or ImagerNoise())
        self._balance = unit_generator(serial, "white balance").normal(1.0, 0.015, 3).astype(np.float32)

    def picture(self, radiance: Float32, metered: tuple[slice, slice], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Exposed for the middle grey of the part `metered`, mosaiced, developed, through Motion JPEG; (H, W, 3)."""
        luminance = np.maximum(radiance[metered] @ _LUMINANCE, 1e-4)
        wanted = 0.20 / float(np.exp(np.log(luminance).mean()))
        exposure = float(np.clip(wanted ** 0.7, 0.4, 3.0))
        light = self.through_lens(np.minimum(radiance * np.float32(exposure) * self._balance, 8))
        raw = np.empty(light.shape[:2], np.float32)
        raw[0::2, 0::2], raw[0::2, 1::2] = light[0::2, 0::2, 0], light[0::2, 1::2, 1]
        raw[1::2, 0::2], raw[1::2, 1::2] = light[1::2, 0::2, 1], light[1::2, 1::2, 2]
        codes = np.rint(1023 * self.exposed(raw, rng)).astype(np.uint16)  # 10 bits
        # OpenCV names the pattern by its second row: red first here is BayerBG there.
        linear = cv2.demosaicing(codes, cv2.COLOR_BayerBG2RGB_EA).astype(np.float32) / 1023
        tone = np.power(linear, np.float32(1 / 2.2))
        tone = tone + np.float32(0.06) * np.sin(np.float32(2 * np.pi) * (tone - 0.5)) * np.float32(0.5)  # more contrast
        sharp = tone + np.float32(0.35) * (tone - cv2.GaussianBlur(tone, (0, 0), 1.2))
        image = np.clip(255 * sharp + 0.5, 0, 255).astype(np.uint8)
        coded, buffer = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.noise.jpeg_quality])
        decoded = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
        assert coded
        assert decoded is not None, "OpenCV reads what it wrote"
        return np.ascontiguousarray(decoded[..., ::-1], np.uint8)


class InfraredImager(Imager):
    """Radiance (H, W) at 850 nm to 8 bits, linear."""

    #: Largest gain, codes (of 255) for the radiance of white lit at 1 m.
    MOST_GAIN = 230.0

    def __init__(self, shape: tuple[int, int], serial: str, purpose: str = "left infrared",
                 noise: ImagerNoise | None = None) -> None:
        super().__init__(shape, serial, purpose, noise or ImagerNoise(full_well=7000.0, read_electrons=6.0))

    def gain(self, radiance: Float32) -> float:
        """Automatic exposure: the brightest hundredth of the image begins at code 205."""
        return float(min(205.0 / max(float(np.percentile(radiance, 99)), 1e-6), self.MOST_GAIN))

    def picture(self, radiance: Float32, gain: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Codes (H, W)."""
        level = self.exposed(self.through_lens(np.minimum(radiance * np.float32(gain / 255), 8)), rng)
        return np.asarray(np.rint(255 * level), np.uint8)
