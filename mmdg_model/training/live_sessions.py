"""Live sessions (L): crops of the running pipeline as training data, in a layout of our own.

    LIVE/<subject>_<species>_<take>/<sensor>/<frame>.png

The subject is whom the presented face belongs to; the species `bona_fide` or a kind of attack, with `-` for `_`; the
take numbers the sessions of that subject and species. Sensors are `color`, `depth`, `ir`; depth and infrared are 8-bit
levels (`mmdg_model.inputs.crop_levels`). Lists are `L-train.txt`, `L-val.txt` and `L-test.txt`, in the form of the
public ones.
"""

from __future__ import annotations

import re

from mmdg_model.training.samples import BONA_FIDE, Presentation

_PATH = re.compile(r"LIVE/([A-Za-z0-9]+)_([a-z0-9-]+)_\d+/[^/]+/[^/]+")


def folder(subject: str, species: str, take: int) -> str:
    """Of one session, below the data root."""
    return f"LIVE/{subject}_{species.replace('_', '-')}_{take:02d}"


def presentation(path: str) -> Presentation:
    """Of a path in the list; all unknown where the path has another form."""
    if (match := _PATH.fullmatch(path)) is None:
        return Presentation()
    species = match.group(2).replace("-", "_")
    return Presentation(bona_fide=species == BONA_FIDE, species=species, subject=match.group(1))
