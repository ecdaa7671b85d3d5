"""What a loader's worker does: named samples become one prepared batch, and whatever was wrong is sent along.

Workers hold no list and no state but the cache: a request says all. So one set of workers serves training, prototypes,
validation and tests, and a batch does not depend on which worker made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmdg_model.inputs import InputSpecification, prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.augmentation import DrawKey, augment
from mmdg_model.training.decoding import FileTrouble, try_load_sample
from mmdg_model.training.level_cache import CacheLevels
from mmdg_model.training.protocols import Scenario, withhold
from mmdg_model.training.run_config import AugmentationConfig
from mmdg_model.training.samples import Sample


class LoadingError(RuntimeError):
    """Reading a sample failed in a way that is no trouble of its files; the message names its file."""


@dataclass(frozen=True)
class SampleRequest:
    """One sample to read.

    Attributes:
        sample: of a list.
        key: of its augmentation; None leaves it as it is.
        slot: of the cache; None when it has none.
        is_cached: whether the slot holds it already.
    """

    sample: Sample
    key: DrawKey | None = None
    slot: int | None = None
    is_cached: bool = False


@dataclass(frozen=True)
class BatchRequest:
    """Samples that become one batch, and what a test withholds from them."""

    samples: tuple[SampleRequest, ...]
    scenario: Scenario = Scenario.COMPLETE


class LoadedBatch(NamedTuple):
    """What comes home.

    Attributes:
        planes: `float32 [k, 3, 3, S, S]`, present: `bool [k, 3]`, as `inputs.prepare` makes them.
        kept: the k places in the request that could be read, ascending.
        troubles: of all files of the request.
        stored: slots that were written.
    """

    planes: Tensor
    present: Tensor
    kept: tuple[int, ...]
    troubles: tuple[FileTrouble, ...]
    stored: tuple[int, ...]


class SampleReader(Dataset[LoadedBatch]):
    """`reader[request]`: files, cache, augmentation, `inputs.prepare`.

    Args:
        specification: of the network's input.
        augmentation: for samples that come with a key.
        cache: memory of decoded samples, if any.
    """

    def __init__(self, specification: InputSpecification, augmentation: AugmentationConfig,
                 cache: CacheLevels | None) -> None:
        self._specification = specification
        self._augmentation = augmentation
        self._cache = cache

    def __getitem__(self, request: BatchRequest) -> LoadedBatch:
        """Samples without a readable colour image are left out; their trouble says why.

        Raises:
            LoadingError: anything else went wrong with a sample.
        """
        crops: list[CropPlanes] = []
        kept: list[int] = []
        stored: list[int] = []
        troubles: list[FileTrouble] = []
        for place, each in enumerate(request.samples):
            try:
                crop = self._crop(each, troubles, stored)
                if crop is not None:
                    crops.append(withhold(crop if each.key is None else augment(crop, self._augmentation, each.key),
                                          request.scenario))
                    kept.append(place)
            except Exception as error:
                raise LoadingError(f"{each.sample.files[Modality.RGB]} (list {each.sample.domain}-{each.sample.split}, "
                                   f"line {each.sample.line}): {type(error).__name__}: {error}") from error
        if not crops:
            size = self._specification.image_size
            return LoadedBatch(torch.zeros(0, 3, 3, size, size), torch.zeros(0, 3, dtype=torch.bool), (),
                               tuple(troubles), ())
        inputs = prepare(crops, self._specification)
        return LoadedBatch(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present), tuple(kept),
                           tuple(troubles), tuple(stored))

    def _crop(self, request: SampleRequest, troubles: list[FileTrouble], stored: list[int]) -> CropPlanes | None:
        if self._cache is not None and request.slot is not None and request.is_cached:
            return self._cache.read(request.slot)
        num_troubles = len(troubles)
        crop = try_load_sample(request.sample, troubles.append, image_size=self._specification.image_size)
        # A sample in trouble is read anew each time: its trouble may be over, and it must not be forgotten.
        if self._cache is not None and request.slot is not None and len(troubles) == num_troubles and crop is not None:
            self._cache.write(request.slot, crop)
            stored.append(request.slot)
        return crop
