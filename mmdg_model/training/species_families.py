"""Families of attack species over all data sets: what leave-one-species-out leaves out together, and reports group by.

Data sets name species in their own ways and cut them differently (WMCA's `print` is a species, CASIA-SURF has six
prints). Leaving out one name would leave its likes in other data sets. Names are those that paths and metadata tell
(`casia_surf`, `cefa`, `wmca`, `padisi`, `live_sessions`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType


class Family(StrEnum):
    """Kinds of attack instrument. A mannequin's head is counted among the masks: the whole face is artificial."""

    PRINT = "print"
    REPLAY = "replay"
    MASK = "mask"
    PARTIAL = "partial"


#: The names of each family, sorted.
FAMILIES: Mapping[Family, tuple[str, ...]] = MappingProxyType({
    Family.PRINT: (
        "bent_print", "bent_print_eyes_cut", "bent_print_eyes_nose_cut", "bent_print_eyes_nose_mouth_cut",
        "cloth_print", "dye_print", "face_cut_print", "flat_print", "flat_print_eyes_cut", "flat_print_eyes_nose_cut",
        "flat_print_eyes_nose_mouth_cut", "formed_infrared_print", "formed_print", "glossy_print", "infrared_print",
        "paper", "photo_print", "print", "rolled_print", "two_layer_print"),
    Family.REPLAY: (
        "matte_display_replay", "monitor_replay", "phone_replay", "replay", "screen_replay", "tablet_replay",
        "tablet_video_replay"),
    Family.MASK: (
        "fake_head", "flexible_mask", "mannequin", "mannequin_head", "paper_mask", "printed_3d_mask", "rigid_mask",
        "silicone_mask", "transparent_mask"),
    Family.PARTIAL: (
        "face_tattoo", "funny_eyes", "glasses", "half_mask", "heavy_make_up", "makeup", "paper_glasses",
        "printed_eye_glasses", "tattoo"),
})

_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}


def family_of(species: str) -> Family | None:
    """None of a species that no family knows."""
    return _FAMILY.get(species)


def described(species: Collection[str]) -> str:
    """Names of whole families where the species are such, else the species themselves: for tables and labels."""
    whole = [family for family, names in FAMILIES.items() if set(names) <= set(species)]
    rest = sorted(set(species) - {name for family in whole for name in FAMILIES[family]})
    return ", ".join([*map(str, whole), *rest])
