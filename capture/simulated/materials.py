"""`Material`: how a surface reflects visible light and 850 nm, and how a stereo matcher fares on it.

Reflectances are linear, in [0, 1]. They are first-sketch values chosen inside the ranges that the literature gives:
melanin absorbs little at 850 nm, so skin of every tone is bright there; dye inks and most toners are nearly
transparent there, so a print shows its paper; an LCD's polarisers and black glass return next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Material:
    """Surface properties that the texture of a body does not carry.

    Attributes:
        name: for people.
        gloss, gloss_infrared: strength of the specular lobe in either band, as reflectance.
        shininess: exponent of that lobe.
        emission: radiance of the texture when it glows instead of reflecting (1 = white paper in the key light);
            0 for everything that is lit.
        softness: how far diffuse light wraps past the terminator, 0 (stone) to 1; skin scatters below its surface.
        hole_fraction: share of the surface on which stereo matching finds nothing even face on.
    """

    name: str
    gloss: float = 0.0
    gloss_infrared: float = 0.0
    shininess: float = 20.0
    emission: float = 0.0
    softness: float = 0.0
    hole_fraction: float = 0.0


SKIN = Material(name="skin", gloss=0.05, gloss_infrared=0.04, shininess=18.0, softness=0.35)
CLOTH = Material(name="cloth", softness=0.15)
PAPER = Material(name="paper", gloss=0.01, gloss_infrared=0.01, shininess=6.0, softness=0.1)
SCREEN = Material(name="screen", gloss=0.03, gloss_infrared=0.9, shininess=900.0, emission=0.9, hole_fraction=0.3)
RESIN = Material(name="resin", gloss=0.05, gloss_infrared=0.10, shininess=30.0, softness=0.05)

#: Diffuse reflectance at 850 nm.
PAPER_INFRARED = 0.80
INK_INFRARED = 0.92  # what full ink leaves of the paper's reflectance
SCREEN_INFRARED = 0.03
BEZEL_INFRARED = 0.05
RESIN_INFRARED = 0.36
CLOTH_INFRARED = 0.40
HAIR_INFRARED = 0.17
