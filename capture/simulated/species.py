"""Presentation attack instrument species as data: what each is made of, and what the real data sets call it.

Words follow ISO/IEC 30107-1 and -3: an *attack instrument* is presented to the sensor; instruments made by one method
form a *species*. `SPECIES` names ours; `DATA_SET_SPECIES` maps the species tokens of the real data sets to ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    """Families of species, for reports."""

    PRINT = "print"
    REPLAY = "replay"
    MASK = "mask"
    MANNEQUIN = "mannequin"
    PARTIAL = "partial"


class Ink(StrEnum):
    """What makes the picture. Toner black is carbon, opaque at 850 nm; dyes, black too, let 850 nm pass.

    `INFRARED_TONER` prints the picture that an infrared camera took, in toner black alone; `TWO_LAYER` a colour picture
    in dyes over such a one.
    """

    TONER = "toner"
    DYE = "dye"
    INFRARED_TONER = "infrared_toner"
    TWO_LAYER = "two_layer"


class Finish(StrEnum):
    """What is printed on."""

    MATTE = "matte"
    GLOSSY = "glossy"
    CLOTH = "cloth"


class Bend(StrEnum):
    """A sheet's shape. `BENT` has the radius of a head, `FORMED` the relief of an egg with a nose-high ridge."""

    FLAT = "flat"
    ROLLED = "rolled"
    BENT = "bent"
    DRAPED = "draped"
    FORMED = "formed"


class Cut(StrEnum):
    """Parts of the depicted face that are cut out, so that the wearer's own show."""

    EYES = "eyes"
    NOSE = "nose"
    MOUTH = "mouth"


class Outline(StrEnum):
    """What is left of a sheet: the page, head and shoulders, the face alone, two discs over the eyes, a strip across
    them."""

    PAGE = "page"
    BUST = "bust"
    FACE = "face"
    EYE_DISCS = "eye_discs"
    EYE_STRIP = "eye_strip"


class Hold(StrEnum):
    """Who presents it: held in hands before the face, held at the chest, worn on the face, standing by itself."""

    BEFORE_FACE = "before_face"
    AT_CHEST = "at_chest"
    WORN = "worn"
    STANDING = "standing"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A printed picture of a face, life-sized."""

    ink: Ink = Ink.TONER
    finish: Finish = Finish.MATTE
    bend: Bend = Bend.FLAT
    cut: tuple[Cut, ...] = ()
    outline: Outline = Outline.PAGE
    hold: Hold = Hold.BEFORE_FACE


@dataclass(frozen=True, kw_only=True)
class Display:
    """A screen. `size_m` of the whole front; `pitch_m` of its pixels; `face_scale` of the shown face, 1 = life-sized.

    A `matte` front scatters some 850 nm light and gives stereo something to match: its depth is flat and whole. A
    `video` blinks.
    """

    size_m: tuple[float, float]
    bezel_m: float
    pitch_m: float
    face_scale: float = 1.0
    matte: bool = False
    video: bool = False
    hold: Hold = Hold.BEFORE_FACE


class Stuff(StrEnum):
    """What a mask or a mannequin is made of."""

    RESIN = "resin"
    SILICONE = "silicone"
    PAPER = "paper"
    PLASTIC = "plastic"
    CLEAR_PLASTIC = "clear_plastic"
    INFRARED_PRINT = "infrared_print"


@dataclass(frozen=True, kw_only=True)
class Shell:
    """A mask in the shape of a face, worn. `lower_half` covers nose, mouth and chin only."""

    stuff: Stuff
    lower_half: bool = False


@dataclass(frozen=True, kw_only=True)
class Mannequin:
    """A whole artificial head."""

    stuff: Stuff = Stuff.PLASTIC


class Paint(StrEnum):
    """Colour put on living skin."""

    MAKE_UP = "make_up"
    TATTOO = "tattoo"


@dataclass(frozen=True, kw_only=True)
class Species:
    """One species: its name, its family, what it is made of, and one line for people."""

    name: str
    category: Category
    instrument: Sheet | Display | Shell | Mannequin | Paint
    summary: str


_EYES, _NOSE, _MOUTH = (Cut.EYES,), (Cut.EYES, Cut.NOSE), (Cut.EYES, Cut.NOSE, Cut.MOUTH)
_PHONE, _TABLET, _MONITOR = (0.072, 0.150), (0.200, 0.270), (0.530, 0.320)


def _rows() -> tuple[Species, ...]:
    prints, replay, mask, partial = Category.PRINT, Category.REPLAY, Category.MASK, Category.PARTIAL
    cut_outs = [
        Species(name=f"{bend.value}_print_{'_'.join(part.value for part in cut)}_cut", category=prints,
                instrument=Sheet(bend=bend, cut=cut, hold=Hold.WORN),
                summary=f"toner print, {' and '.join(part.value for part in cut)} cut out, worn "
                        + ("flat before the face" if bend is Bend.FLAT else "bent around the face"))
        for cut in (_EYES, _NOSE, _MOUTH) for bend in (Bend.FLAT, Bend.BENT)]
    return (
        Species(name="flat_print", category=prints, instrument=Sheet(),
                summary="toner on office paper, held flat"),
        Species(name="rolled_print", category=prints, instrument=Sheet(bend=Bend.ROLLED),
                summary="toner on office paper, slightly rolled"),
        Species(name="dye_print", category=prints, instrument=Sheet(ink=Ink.DYE, bend=Bend.ROLLED),
                summary="dye ink on office paper: infrared shows blank paper"),
        Species(name="glossy_print", category=prints,
                instrument=Sheet(ink=Ink.DYE, finish=Finish.GLOSSY, bend=Bend.ROLLED),
                summary="photo paper with a mirror's gloss"),
        Species(name="cloth_print", category=prints,
                instrument=Sheet(ink=Ink.DYE, finish=Finish.CLOTH, bend=Bend.DRAPED),
                summary="printed cloth, in folds"),
        Species(name="bent_print", category=prints, instrument=Sheet(bend=Bend.BENT),
                summary="toner print bent to the radius of a head"),
        Species(name="formed_print", category=prints,
                instrument=Sheet(bend=Bend.FORMED, outline=Outline.FACE, hold=Hold.WORN),
                summary="toner print on a form with the relief of a face"),
        Species(name="infrared_print", category=prints, instrument=Sheet(ink=Ink.INFRARED_TONER, bend=Bend.ROLLED),
                summary="toner print of an infrared picture: grey in colour"),
        Species(name="formed_infrared_print", category=prints, instrument=Shell(stuff=Stuff.INFRARED_PRINT),
                summary="the same on a form with the relief of the face, worn"),
        Species(name="two_layer_print", category=prints, instrument=Sheet(ink=Ink.TWO_LAYER),
                summary="colour picture in dyes over a faint carbon layer that carries the infrared picture"),
        Species(name="face_cut_print", category=prints, instrument=Sheet(outline=Outline.FACE, hold=Hold.WORN),
                summary="the printed face alone, cut out along its outline, held before the face"),
        *cut_outs,
        Species(name="phone_replay", category=replay,
                instrument=Display(size_m=_PHONE, bezel_m=0.003, pitch_m=0.06e-3, face_scale=0.42, hold=Hold.AT_CHEST),
                summary="a phone"),
        Species(name="tablet_replay", category=replay,
                instrument=Display(size_m=_TABLET, bezel_m=0.012, pitch_m=0.10e-3), summary="a tablet, still picture"),
        Species(name="tablet_video_replay", category=replay,
                instrument=Display(size_m=_TABLET, bezel_m=0.012, pitch_m=0.10e-3, video=True),
                summary="a tablet whose face blinks"),
        Species(name="monitor_replay", category=replay,
                instrument=Display(size_m=_MONITOR, bezel_m=0.015, pitch_m=0.27e-3, hold=Hold.STANDING),
                summary="a desktop monitor"),
        Species(name="matte_display_replay", category=replay,
                instrument=Display(size_m=_TABLET, bezel_m=0.012, pitch_m=0.10e-3, matte=True),
                summary="a display with a matte film: flat depth without a hole"),
        Species(name="rigid_mask", category=mask, instrument=Shell(stuff=Stuff.RESIN), summary="painted resin"),
        Species(name="silicone_mask", category=mask, instrument=Shell(stuff=Stuff.SILICONE),
                summary="pigmented silicone: moves with the face, skin-like at 850 nm"),
        Species(name="paper_mask", category=mask, instrument=Shell(stuff=Stuff.PAPER),
                summary="printed card in the coarse shape of a face, eye holes"),
        Species(name="transparent_mask", category=mask, instrument=Shell(stuff=Stuff.CLEAR_PLASTIC),
                summary="clear plastic over a living face"),
        Species(name="mannequin_head", category=Category.MANNEQUIN, instrument=Mannequin(), summary="painted plastic"),
        Species(name="half_mask", category=partial, instrument=Shell(stuff=Stuff.RESIN, lower_half=True),
                summary="resin over nose, mouth and chin"),
        Species(name="printed_eye_glasses", category=partial,
                instrument=Sheet(outline=Outline.EYE_DISCS, hold=Hold.WORN),
                summary="glasses with printed eyes in place of lenses"),
        Species(name="paper_glasses", category=partial,
                instrument=Sheet(outline=Outline.EYE_STRIP, bend=Bend.BENT, hold=Hold.WORN),
                summary="a printed strip across the eyes"),
        Species(name="heavy_make_up", category=partial, instrument=Paint.MAKE_UP, summary="make-up: colour only"),
        Species(name="face_tattoo", category=partial, instrument=Paint.TATTOO,
                summary="carbon ink patterns on the face"),
    )


#: Every species by name.
SPECIES: dict[str, Species] = {row.name: row for row in _rows()}

#: Older names of scenes.
ALIASES = {"print": "rolled_print", "screen": "tablet_replay", "mask": "rigid_mask"}

#: Data set -> its species token (as `mmdg_model.training` reads it) -> ours that are made the same way. An empty tuple:
#: nothing here is made that way.
DATA_SET_SPECIES: dict[str, dict[str, tuple[str, ...]]] = {
    # CASIA-SURF (CVPR 2019): flat and bent colour prints with eyes, nose, mouth cut out
    "casia_surf": {f"{bend}_print_{cut}_cut": (f"{bend}_print_{cut}_cut",)
                   for bend in ("flat", "bent") for cut in ("eyes", "eyes_nose", "eyes_nose_mouth")},
    # CASIA-SURF CeFA (WACV 2021)
    "cefa": {"cloth_print": ("cloth_print",), "photo_print": ("flat_print", "rolled_print"),
             "screen_replay": ("tablet_replay", "tablet_video_replay"), "printed_3d_mask": ("rigid_mask",),
             "silicone_mask": ("silicone_mask",)},
    # WMCA (George et al., TIFS 2020)
    "wmca": {"glasses": ("printed_eye_glasses", "paper_glasses"), "fake_head": ("mannequin_head",),
             "paper_mask": ("paper_mask",), "rigid_mask": ("rigid_mask", "transparent_mask"),
             "flexible_mask": ("silicone_mask",), "print": ("flat_print", "rolled_print", "glossy_print", "dye_print"),
             "replay": ("phone_replay", "tablet_replay", "tablet_video_replay", "monitor_replay")},
    # PADISI-Face (Rostami et al., ICCV 2021)
    "padisi": {"funny_eyes": ("printed_eye_glasses",), "paper": ("face_cut_print", "flat_print_eyes_cut"),
               "mannequin": ("mannequin_head",), "half_mask": ("half_mask",),
               "transparent_mask": ("transparent_mask",), "makeup": ("heavy_make_up",),
               "silicone_mask": ("silicone_mask",), "paper_glasses": ("paper_glasses",), "tattoo": ("face_tattoo",)},
}
