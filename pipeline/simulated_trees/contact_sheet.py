"""A picture of a simulated tree for people: what the files hold, read back as training reads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdg_model.scorer import Modality
from mmdg_model.training.decoding import FileTrouble, Levels, read_sample_levels
from mmdg_model.training.manifests import Metadata, list_path, read_list, read_metadata
from mmdg_model.training.samples import Domain, Sample, Split

_TILE, _LABEL, _SHOWN = 112, 190, 4
_ORDER = (Modality.RGB, Modality.DEPTH, Modality.INFRARED)


def draw_contact_sheet(root: Path, path: Path, *, seed: int = 0) -> Path:
    """One row a domain and species: colour, depth and infrared of four random samples. Says that it is simulated.

    Raises:
        ManifestError: a list of the tree cannot be read.
    """
    table = root / "lists" / "P-metadata.csv"
    metadata: Metadata = read_metadata(table) if table.exists() else {}
    groups: dict[tuple[Domain, str], list[Sample]] = {}
    for domain in Domain:
        for split in Split:
            if list_path(root / "lists", domain, split).exists():
                for sample in read_list(list_path(root / "lists", domain, split), root, domain, split,
                                        metadata=metadata):
                    groups.setdefault((domain, sample.species), []).append(sample)
    rng = np.random.default_rng(seed)
    rows = [_caption("SIMULATED crops; colour, depth and infrared of four random samples a row", _LABEL + 12 * _TILE)]
    for (domain, species), samples in groups.items():
        # One frame of a recording: others of it look alike.
        recordings = sorted({sample.recording: sample for sample in samples}.items())
        chosen = [recordings[int(each)][1] for each in rng.permutation(len(recordings))[:_SHOWN]]
        tiles = [_tile(levels) for sample in chosen for levels in map(read_sample_levels(sample).get, _ORDER)]
        tiles += [np.zeros((_TILE, _TILE, 3), np.uint8)] * (3 * _SHOWN - len(tiles))
        label = np.zeros((_TILE, _LABEL, 3), np.uint8)
        for line, text in enumerate((str(domain), *species.split("_print_"))):
            cv2.putText(label, text, (6, 24 + 26 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.48, (255, 255, 255), 1,
                        cv2.LINE_AA)
        rows.append(np.hstack([label, *tiles]))
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])
    return path


def _caption(text: str, width: int) -> NDArray[np.uint8]:
    band = np.zeros((30, width, 3), np.uint8)
    cv2.putText(band, text, (6, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 220, 120), 1, cv2.LINE_AA)
    return band


def _tile(levels: Levels | FileTrouble | None) -> Levels:
    if levels is None or isinstance(levels, FileTrouble):
        return np.zeros((_TILE, _TILE, 3), np.uint8)
    coloured = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
    return np.asarray(cv2.resize(coloured, (_TILE, _TILE), interpolation=cv2.INTER_AREA), np.uint8)
