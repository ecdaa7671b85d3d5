"""Prints whose makers know of the infrared camera: a picture taken at 850 nm, printed in carbon.

Printed infrared pictures are known attacks: the Multispectral-Spoof database (Chingovska, Erdogmus, Anjos and Marcel,
Idiap, https://www.idiap.ch/dataset/msspoof) prints pictures taken through an 800 nm filter in black and white and shows
them to visible and infrared cameras; SySS opened Windows Hello in 2017 with a laser print of an infrared picture whose
brightness and contrast had been adjusted (as reported by the press of the day; SySS's own text was not read). The two
layers of `Ink.TWO_LAYER` are a construction of our own: what colour and infrared cameras see of one sheet can be chosen
separately, as security printing does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from capture.simulated.materials import BLACK_TONER_INFRARED, PAPER_WHITE
from capture.simulated.meshes import Float32
from capture.simulated.pictures import Picture, printed
from capture.simulated.species import Ink

#: Reflectance that the maker gives to what is bright in the infrared picture, skin: that of skin, give or take.
_SKIN_INFRARED = (0.46, 0.64)
#: The same of the carbon layer below dyes, as a share of the paper's: as little carbon as the picture bears.
_FAINT = (0.82, 0.95)
#: What carbon leaves of white in the visible, as a share.
_BLACK_VISIBLE = 0.05


def printed_picture(picture: Picture, ink: Ink, paper_infrared: float, rng: np.random.Generator) -> Float32:
    """Reflectance (rows, columns, 4) of the picture printed in that ink.

    `INFRARED_TONER` and `TWO_LAYER` need a picture with an infrared plane.
    """
    if ink in (Ink.TONER, Ink.DYE):
        return printed(picture.radiance, ink, paper_infrared, rng)
    if picture.infrared is None:
        raise AssertionError(f"ink {ink}: the picture has no infrared plane")
    if ink is Ink.INFRARED_TONER:
        return infrared_toner(picture.infrared * np.float32(rng.uniform(*_SKIN_INFRARED)), paper_infrared, rng)
    faint = np.power(picture.infrared, np.float32(rng.uniform(0.6, 0.8)))
    carbon = infrared_toner(faint * np.float32(paper_infrared * rng.uniform(*_FAINT)), paper_infrared, rng)
    # Dyes above the carbon can only take light away: where carbon is too dark for the colour wanted, its grey shows.
    colour = printed(picture.radiance, Ink.DYE, paper_infrared, rng)
    out = np.minimum(colour, carbon)
    out[..., 3] = carbon[..., 3] * (colour[..., 3] / np.float32(paper_infrared))
    return np.asarray(np.clip(out, 0, 1), np.float32)


def infrared_toner(wanted: NDArray[np.floating], paper_infrared: float, rng: np.random.Generator) -> Float32:
    """Reflectance (rows, columns, 4) of paper with as much carbon as brings it to the `wanted` one (rows, columns) at
    850 nm; the same carbon is grey in the visible."""
    toner, white = rng.uniform(*BLACK_TONER_INFRARED), rng.uniform(*PAPER_WHITE)
    black = np.clip((paper_infrared - wanted) / (paper_infrared - toner), 0, 1)[..., None]
    tint = rng.uniform(0.97, 1.03, 3)
    visible = white * tint * (1 - (1 - _BLACK_VISIBLE) * black)
    infrared = paper_infrared + (toner - paper_infrared) * black
    out = np.concatenate([visible, infrared], axis=2).astype(np.float32)
    out *= 1 + np.float32(0.012) * rng.standard_normal((*out.shape[:2], 1), dtype=np.float32)  # paper grain
    return np.asarray(np.clip(out, 0, 1), np.float32)
