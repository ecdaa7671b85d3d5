"""WMCA (W): what its paths tell, and what its three lists hold.

    WMCA-Image/R_CDIT/<client>_<session>_<presenter>_<type>_<instrument>/<sensor>/<frame>.jpg

The client is whom the presented face belongs to (a mannequin has a number of its own), the presenter who wore or held
the instrument; the subject here is the client. Type and instrument name one object. The species are those of the data
set's paper (George et al., "Biometric Face Presentation Attack Detection with Multi-Channel Convolutional Neural
Network", IEEE TIFS 2020), whose counts of videos per species come out of this table.
"""

from __future__ import annotations

import re

from mmdg_model.training.samples import BONA_FIDE, UNKNOWN, ListCounts, Presentation, Split

COUNTS = {
    Split.TRAIN: ListCounts(lines=1695, live=372, spoof=1323),
    Split.VALIDATION: ListCounts(lines=1671, live=324, spoof=1347),
    Split.TEST: ListCounts(lines=1671, live=345, spoof=1326),
}

#: (type, instrument numbers, species). Instruments that none of the lists has are left unknown.
_INSTRUMENTS: tuple[tuple[int, tuple[int, ...], str], ...] = (
    (1, (1, 4, 5, 6, 7, 15, 16), "glasses"),
    (1, (2, 13, 14), "rigid_mask"),  # a plastic and two transparent masks, filed as disguises
    (2, tuple(range(1, 8)), "fake_head"),
    (2, tuple(range(8, 12)), "paper_mask"),
    (2, tuple(range(12, 18)), "rigid_mask"),
    (2, (18, *range(75, 100)), "flexible_mask"),
    (3, (1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14), "print"),
    (3, (5, 10, 15), "replay"),  # photos, but shown on a screen
    (4, tuple(range(1, 19)), "replay"),
)
SPECIES = {(kind, number): species for kind, numbers, species in _INSTRUMENTS for number in numbers}

_PATH = re.compile(r"WMCA-Image/R_CDIT/(\d{3})_\d{2}_\d{3}_(\d)_(\d{2})/[^/]+/[^/]+")


def presentation(path: str) -> Presentation:
    """Of a path in the list; all unknown where the path has another form."""
    if (match := _PATH.fullmatch(path)) is None:
        return Presentation()
    client, kind, instrument = match.group(1), int(match.group(2)), int(match.group(3))
    if kind == 0:
        return Presentation(bona_fide=True, species=BONA_FIDE, subject=client)
    return Presentation(bona_fide=False, species=SPECIES.get((kind, instrument), UNKNOWN), subject=client)
