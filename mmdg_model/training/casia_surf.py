"""CASIA-SURF (S): what its paths tell, and what its three lists hold.

    CASIA-SURF-CROP/{real,fake}_part/{real,fake}_{train,val,test}_part/<subject>/<recording>.rssdk/<sensor>/<frame>.jpg

A recording is `real`, or the number and the letters of an attack: a photo print with the eyes (e), the nose (n) and
the mouth (m) cut out, held still and flat (s) or bent around the face (b). Faces are cut out on black.
The data set's own lists call live 0; the benchmark's lists call it 1.
"""

from __future__ import annotations

import re

from mmdg_model.training.samples import BONA_FIDE, ListCounts, Presentation, Split

COUNTS = {
    Split.TRAIN: ListCounts(lines=6297, live=900, spoof=5397, duplicates=20),
    Split.VALIDATION: ListCounts(lines=2100, live=300, spoof=1800),
    Split.TEST: ListCounts(lines=12564, live=1800, spoof=10764, duplicates=56),
}

SPECIES = {
    "01_e_s": "flat_print_eyes_cut",
    "02_e_b": "bent_print_eyes_cut",
    "03_en_s": "flat_print_eyes_nose_cut",
    "04_en_b": "bent_print_eyes_nose_cut",
    "05_enm_s": "flat_print_eyes_nose_mouth_cut",
    "06_enm_b": "bent_print_eyes_nose_mouth_cut",
}

_PATH = re.compile(r"CASIA-SURF-CROP/(real|fake)_part/\1_(?:train|val|test)_part/([^/]+)/([^/]+)\.rssdk/[^/]+/[^/]+")


def presentation(path: str) -> Presentation:
    """Of a path in the list; all unknown where the path has another form."""
    if (match := _PATH.fullmatch(path)) is None:
        return Presentation()
    part, subject, recording = match.groups()
    if part == "real":
        return Presentation(bona_fide=True, species=BONA_FIDE, subject=subject)
    known = SPECIES.get(recording)
    return Presentation(bona_fide=False, subject=subject, **({"species": known} if known else {}))
