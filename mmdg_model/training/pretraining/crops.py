"""`UnlabelledCrops`: pictures of faces and nothing else about them, augmented and masked by keyed draws.

Lists name labels, and paths name attacks. Both stop at `unlabelled`: what comes after knows files and places in a
list only. Every draw is keyed by (seed, epoch, sample), never by what was drawn before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mmdg_model.inputs import DepthEncoding, InputSpecification, PreparedInputs, prepare
from mmdg_model.network import MODALITIES
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.decoding import TroubleLog, try_load_sample
from mmdg_model.training.manifests import read_manifests
from mmdg_model.training.pretraining.config import CropAugmentationConfig, PretrainingError
from mmdg_model.training.pretraining.masked_autoencoder import MaskedBatch
from mmdg_model.training.samples import UNKNOWN, Domain, Sample, Split

#: What a draw is for; part of its key.
_ORDER, _AUGMENTATION, _MASK, _OTHER = range(4)

#: The epoch of the validation images' masks: the same at every evaluation, and no epoch of training.
VALIDATION_EPOCH = 1 << 40


@dataclass(frozen=True, kw_only=True)
class UnlabelledCrop:
    """The files of one crop. No label, no attack, no subject."""

    domain: Domain
    split: Split
    name: str
    files: Mapping[Modality, Path] = field(hash=False)


def unlabelled(samples: Iterable[Sample]) -> tuple[UnlabelledCrop, ...]:
    """Samples without whatever else is known of them, each once: a line that repeats a name adds nothing here."""
    crops: dict[tuple[Domain, str], UnlabelledCrop] = {}
    for sample in samples:
        crops.setdefault((sample.domain, sample.name), UnlabelledCrop(
            domain=sample.domain, split=sample.split, name=sample.name, files=sample.files))
    return tuple(crops.values())


@dataclass(frozen=True, kw_only=True)
class CropLists:
    """What a tree offers.

    Attributes:
        train, validation: of the training and of the validation lists. Subjects of the one are not in the other, as
            far as the data sets themselves see to it.
        fingerprint: SHA-256 over names and file sizes; no label goes in.
    """

    train: tuple[UnlabelledCrop, ...]
    validation: tuple[UnlabelledCrop, ...]
    fingerprint: str


def read_crop_lists(root: Path, lists: Path, domains: Sequence[str]) -> CropLists:
    """The crops of some data sets' training and validation lists. Test lists are not opened.

    Raises:
        ManifestError: see `read_list`.
    """
    letters, splits = [Domain(domain) for domain in domains], (Split.TRAIN, Split.VALIDATION)
    manifests = read_manifests(root, lists, domains=letters, splits=splits)
    found = {split: unlabelled(sample for domain in letters for sample in manifests[domain, split]) for split in splits}
    digest = hashlib.sha256()
    for crop in (*found[Split.TRAIN], *found[Split.VALIDATION]):
        sizes = [_size(crop.files[modality]) for modality in MODALITIES]
        digest.update(f"{crop.domain}\0{crop.split}\0{crop.name}\0{sizes}\n".encode())
    return CropLists(train=found[Split.TRAIN], validation=found[Split.VALIDATION], fingerprint=digest.hexdigest())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class _Levels(NamedTuple):
    """A crop's 8-bit levels, 5 bytes a pixel; a level above 0 is a valid pixel, as `decoding` has it."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint8] | None
    infrared: NDArray[np.uint8] | None


class UnlabelledCrops:
    """Decoded crops in memory, 5 bytes a pixel: 63 kB a crop at 112 pixels, 251 kB at 224.

    Args:
        crops: which. Those whose colour image cannot be read are left out and told in `troubles`.
        specification: of the planes; its image size is what crops are resized to.

    Raises:
        PretrainingError: not one crop could be read.
    """

    def __init__(self, crops: Sequence[UnlabelledCrop], specification: InputSpecification) -> None:
        log = TroubleLog()
        self.specification = specification
        self._levels: list[_Levels] = []
        for crop in crops:
            planes = try_load_sample(_as_sample(crop), log, image_size=specification.image_size)
            if planes is not None:
                depth, infrared = (None if plane is None else plane.astype(np.uint8)
                                   for plane in (planes.depth, planes.infrared))
                self._levels.append(_Levels(planes.colour, depth, infrared))
        self.troubles = log.troubles
        if not self._levels:
            raise PretrainingError(f"none of {len(crops)} crops can be read; the first: "
                                   f"{self.troubles[0] if self.troubles else 'the lists are empty'}")

    def __len__(self) -> int:
        return len(self._levels)

    def __getitem__(self, place: int) -> CropPlanes:
        """The crop as `decoding.load_sample` has it."""
        colour, depth, infrared = self._levels[place]
        return _with_planes(colour, None if depth is None else depth.astype(np.uint16), infrared)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each modality."""
        return {str(Modality.RGB): len(self),
                str(Modality.DEPTH): sum(levels.depth is not None for levels in self._levels),
                str(Modality.INFRARED): sum(levels.infrared is not None for levels in self._levels)}

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Places of an epoch's samples, each once."""
        return _drawn(seed, epoch, 0, _ORDER).permutation(len(self)).astype(np.int64)

    def training_batch(self, places: Sequence[int], *, seed: int, epoch: int, visible: int,
                       augmentation: CropAugmentationConfig, grid: int) -> MaskedBatch:
        """Augmented and masked."""
        crops = [augmented(self[place], augmentation, _drawn(seed, epoch, place, _AUGMENTATION))
                 for place in places]
        return masked(prepare(crops, self.specification), places, seed=seed, epoch=epoch, visible=visible, grid=grid)

    def clean_batch(self, places: Sequence[int], *, seed: int, visible: int, grid: int) -> MaskedBatch:
        """Not augmented, and masked alike at every call."""
        return masked(prepare([self[place] for place in places], self.specification), places, seed=seed,
                      epoch=VALIDATION_EPOCH, visible=visible, grid=grid)


def crop_specification(image_size: int) -> InputSpecification:
    """How crops of data-set trees become planes: as for training."""
    return InputSpecification(image_size=image_size, depth_encoding=DepthEncoding.IDENTITY_8BIT)


def augmented(crop: CropPlanes, config: CropAugmentationConfig, rng: np.random.Generator) -> CropPlanes:
    """The same random square of all planes at the old size, perhaps mirrored.

    Squares are resized bilinearly as `decoding` resizes images; level 0 stays "nothing measured". A square without
    anything to see gives the whole crop.
    """
    size = crop.colour.shape[0]
    side = max(1, round(size * rng.uniform(config.least_side, 1.0)))
    top, left = (int(rng.integers(size - side + 1)) for _ in range(2))
    mirror = bool(rng.random() < config.flip)
    square = (slice(top, top + side), slice(left, left + side))
    if not crop.colour[square].any():
        square = (slice(None), slice(None))

    def cut(plane: NDArray[Any]) -> NDArray[Any]:
        part: NDArray[Any] = plane[square]
        if part.shape[0] != size:
            part = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(part[:, ::-1]) if mirror else part

    colour = cut(crop.colour).astype(np.uint8, copy=False)
    depth = None if crop.depth is None else cut(crop.depth).astype(np.uint16, copy=False)
    infrared = None if crop.infrared is None else cut(crop.infrared).astype(np.uint8, copy=False)
    return _with_planes(colour, depth, infrared)


def _with_planes(colour: NDArray[np.uint8], depth: NDArray[np.uint16] | None,
                 infrared: NDArray[np.uint8] | None) -> CropPlanes:
    return CropPlanes(colour=colour, colour_valid=np.any(colour > 0, axis=2),
                      depth=depth, depth_valid=None if depth is None else depth > 0, depth_unit_m=math.nan,
                      infrared=infrared, infrared_valid=None if infrared is None else infrared > 0,
                      infrared_bit_depth=8)


def masked(inputs: PreparedInputs, places: Sequence[int], *, seed: int, epoch: int, visible: int,
           grid: int) -> MaskedBatch:
    """Draws the visible patches of each image, and for each the other modality that is asked for."""
    modalities = len(MODALITIES)
    kept = np.empty((len(places), modalities, visible), dtype=np.int64)
    other = np.tile(np.arange(modalities), (len(places), 1))
    for row, place in enumerate(places):
        noise = _drawn(seed, epoch, place, _MASK).random((modalities, grid * grid))
        kept[row] = np.sort(np.argsort(noise, axis=1, kind="stable")[:, :visible], axis=1)
        # Drawn whatever is present, so that a modality more or less shifts no other draw.
        shares = _drawn(seed, epoch, place, _OTHER).random(modalities)
        for own in range(modalities):
            others = [index for index in range(modalities) if index != own and inputs.present[row, index]]
            if others:
                other[row, own] = others[int(shares[own] * len(others))]
    return MaskedBatch(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present), torch.from_numpy(kept),
                       torch.from_numpy(other))


def _drawn(seed: int, epoch: int, place: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, place, purpose])


def _as_sample(crop: UnlabelledCrop) -> Sample:
    """The form that `decoding` reads. It looks at domain and files only; the label here is nobody's."""
    return Sample(domain=crop.domain, split=crop.split, line=0, name=crop.name, bona_fide=False, species=UNKNOWN,
                  subject=UNKNOWN, recording=UNKNOWN, files=crop.files)
