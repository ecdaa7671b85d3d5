"""`Material`: how a surface reflects visible light and 850 nm, and how a stereo matcher fares on it.

Reflectances are linear, in [0, 1]. The numbers are chosen, none was measured by us; what is lighter or darker than what
was read where `docs/simulator-sources.md` says so:

- Skin differs by tone below 1000 nm, less and less towards it: bright at 850 nm for every tone, darker for dark skin.
- In near infrared laser prints keep their portrait, ink-jet prints and displays lose theirs. Black toner is carbon;
  cyan, magenta and yellow colourants and dye blacks let 850 nm pass, so a dye print shows bare paper.
- Hair attenuates less with longer waves and with less pigment, and still absorbs at 1064 nm.
- Glass returns 4 % at normal incidence (Fresnel's formula for n = 1.5); polarisers and black matrix hardly more.
- Silicone, resin and plastics reflect as their pigments decide: a wide range by instrument.
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
        transmission: share of light that passes straight through; above 0 the body is a veil before what is behind it.
        pixel_pitch_m: of a display's own pixels, whose beat with the camera's gives moiré; 0: no such raster.
    """

    name: str
    gloss: float = 0.0
    gloss_infrared: float = 0.0
    shininess: float = 20.0
    emission: float = 0.0
    softness: float = 0.0
    hole_fraction: float = 0.0
    transmission: float = 0.0
    pixel_pitch_m: float = 0.0


SKIN = Material(name="skin", gloss=0.05, gloss_infrared=0.04, shininess=18.0, softness=0.35)
CLOTH = Material(name="cloth", softness=0.15)
HAIR = Material(name="hair", gloss=0.03, gloss_infrared=0.02, shininess=12.0, softness=0.3, hole_fraction=0.08)
PAPER = Material(name="paper", gloss=0.01, gloss_infrared=0.01, shininess=6.0, softness=0.1)
GLOSSY_PAPER = Material(name="glossy paper", gloss=0.10, gloss_infrared=0.25, shininess=220.0, softness=0.1,
                        hole_fraction=0.04)
PRINTED_CLOTH = Material(name="printed cloth", softness=0.2)
SCREEN = Material(name="screen", gloss=0.03, gloss_infrared=0.9, shininess=900.0, emission=0.9, hole_fraction=0.3)
MATTE_SCREEN = Material(name="matte screen", gloss=0.02, gloss_infrared=0.06, shininess=25.0, emission=0.8)
RESIN = Material(name="resin", gloss=0.05, gloss_infrared=0.10, shininess=30.0, softness=0.05)
SILICONE = Material(name="silicone", gloss=0.06, gloss_infrared=0.05, shininess=22.0, softness=0.33)
PLASTIC = Material(name="plastic", gloss=0.10, gloss_infrared=0.14, shininess=60.0, softness=0.05, hole_fraction=0.02)
CLEAR_PLASTIC = Material(name="clear plastic", gloss=0.20, gloss_infrared=0.20, shininess=120.0, transmission=0.85,
                         hole_fraction=0.15)
LENS = Material(name="spectacle lens", gloss=0.35, gloss_infrared=0.40, shininess=500.0, transmission=0.92,
                hole_fraction=0.25)
FRAME = Material(name="spectacle frame", gloss=0.10, gloss_infrared=0.08, shininess=60.0, hole_fraction=0.15)

#: Diffuse reflectance at 850 nm; pairs are limits between which each instrument has its own.
PAPER_INFRARED = (0.62, 0.88)
CLOTH_SHEET_INFRARED = (0.48, 0.72)
BLACK_TONER_INFRARED = (0.06, 0.24)
DYE_TRANSMITTANCE = (0.93, 0.98)  # of the paper's reflectance, under full ink
SCREEN_INFRARED = (0.02, 0.06)
MATTE_SCREEN_INFRARED = (0.07, 0.20)
BEZEL_INFRARED = 0.05
RESIN_INFRARED = (0.30, 0.66)
SILICONE_INFRARED = (0.46, 0.66)
PLASTIC_INFRARED = (0.35, 0.70)
HAIR_INFRARED = 0.17

#: How white paper is in the visible, how strong toner is laid on (the share of grey that black replaces), how bright
#: displays are, and on how much of a glossy one stereo finds nothing.
PAPER_WHITE = (0.72, 0.90)
TONER_STRENGTH = (0.45, 0.80)
DISPLAY_BRIGHTNESS = (0.55, 1.30)
DISPLAY_HOLES = (0.04, 0.45)
#: How much of hair, and of spectacle lenses, stereo finds nothing on.
HAIR_HOLES = (0.03, 0.35)
LENS_HOLES = (0.08, 0.65)
