"""What decides the samples of a run, as one SHA-256: the lists' bytes, what is known of each sample, files' sizes.

Sizes and not contents: a run over 45,000 files should start in seconds. `mmdg data verify` reads contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmdg_model.scorer import Modality
from mmdg_model.training.samples import ManifestError, Sample

#: Stands for the size of a file that is not there.
MISSING = -1


def file_sizes(samples: Iterable[Sample]) -> dict[Path, int]:
    """Size in bytes of every file that samples name, `MISSING` where there is none."""
    return {path: _size(path) for path in {path for sample in samples for path in sample.files.values()}}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return MISSING


def fingerprint(lists: Iterable[Path], samples: Iterable[Sample], sizes: Mapping[Path, int]) -> str:
    """Hexadecimal SHA-256. Equal wherever the tree lies; metadata counts as far as it tells of these samples.

    Args:
        lists: files that the samples were read from.
        samples: in the order of the lists.
        sizes: of `file_sizes`.
    """
    digest = hashlib.sha256()
    for path in lists:
        blob = path.read_bytes()
        digest.update(f"{path.name}\0{len(blob)}\0".encode() + blob)
    for sample in samples:
        told = (sample.species, sample.subject, *(str(sizes[path]) for path in sample.files.values()))
        digest.update("\0".join((*told, "")).encode())
    return digest.hexdigest()


def require_tree(samples: Iterable[Sample], sizes: Mapping[Path, int], root: Path) -> None:
    """Refuses a list of which not one colour image exists: a wrong root, or a data set that was not unpacked.

    A missing file or two is the lists' own practice; without this check a run on a wrong root would report 12,000 of
    them and train on nothing.

    Raises:
        ManifestError: naming the list and one of the files.
    """
    first_of_list: dict[str, Sample] = {}
    found: set[str] = set()
    for sample in samples:
        name = f"{sample.domain}-{sample.split}"
        first_of_list.setdefault(name, sample)
        if sizes[sample.files[Modality.RGB]] != MISSING:
            found.add(name)
    for name, sample in first_of_list.items():
        if name not in found:
            raise ManifestError(f"list {name}: not one of its colour images exists below {root}, for example "
                                f"{sample.files[Modality.RGB]}; give the folder that the lists' paths start from")
