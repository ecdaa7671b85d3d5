"""CASIA-SURF CeFA (C): what its paths tell, and what its three lists hold.

Three forms of path:

    CeFA/CeFA-Race/<race>/<race>-<number>/<race number>_<number>_<device>_<session>_<instrument>/<sensor>/<frame>.jpg
    CeFA/CeFA-Mask/3D-Mask/<mask>/<type>_<mask>_<five numbers>/<sensor>/<frame>.jpg
    CeFA/CeFA-Mask/Silicone-Mask/<mask>/<type>_<mask>_<five numbers>/<sensor>/<frame>.jpg

Masks occur in the test list only. The five numbers of a mask's recording tell light, place and dress; the species does
not depend on them. A mask's subject is the mask itself: nothing says whose face it copies or who wears it.
"""

from __future__ import annotations

import re

from mmdg_model.training.samples import BONA_FIDE, ListCounts, Presentation, Split

COUNTS = {
    Split.TRAIN: ListCounts(lines=4800, live=1200, spoof=3600),
    Split.VALIDATION: ListCounts(lines=2401, live=601, spoof=1800),
    Split.TEST: ListCounts(lines=6739, live=1200, spoof=5539, duplicates=4),
}

#: The last number of a race recording.
INSTRUMENTS = {"1": BONA_FIDE, "2": "cloth_print", "3": "photo_print", "4": "screen_replay"}

MASKS = {"3D-Mask": "printed_3d_mask", "Silicone-Mask": "silicone_mask"}

_RACE = re.compile(r"CeFA/CeFA-Race/([A-Z]+)/(\1-(\d+))/\d+_\3_\d+_\d+_(\d+)/[^/]+/[^/]+")
_MASK = re.compile(r"CeFA/CeFA-Mask/(3D-Mask|Silicone-Mask)/(\d+)/\d+_\2(?:_\d+){5}/[^/]+/[^/]+")


def presentation(path: str) -> Presentation:
    """Of a path in the list; all unknown where the path has another form."""
    if (match := _RACE.fullmatch(path)) is not None:
        _, subject, _, instrument = match.groups()
        if (species := INSTRUMENTS.get(instrument)) is None:
            return Presentation(subject=subject)
        return Presentation(bona_fide=species == BONA_FIDE, species=species, subject=subject)
    if (match := _MASK.fullmatch(path)) is not None:
        kind, mask = match.groups()
        return Presentation(bona_fide=False, species=MASKS[kind], subject=f"{kind}-{mask}")
    return Presentation()
