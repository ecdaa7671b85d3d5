"""What a loader's worker does: named samples become one prepared batch, and whatever was wrong is sent along.

Workers hold no list and no state but the cache: a request says all. So one set of workers serves training, prototypes,
validation and tests, and a batch does not depend on which worker made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mmdg_model.absence import without
from mmdg_model.inputs import InputSpecification, PreparedInputs, prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.augmentation import DrawKey, augment
from mmdg_model.training.decoding import FileTrouble, TroubleKind, try_load_sample
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
        withheld: modalities that no sample of the run has; a sample without any other is left out, as one without a
            readable colour image is.
    """

    def __init__(self, specification: InputSpecification, augmentation: AugmentationConfig,
                 cache: CacheLevels | None, withheld: frozenset[Modality] = frozenset()) -> None:
        self._specification = specification
        self._augmentation = augmentation
        self._cache = cache
        self._withheld: NDArray[np.bool_] = np.array([modality in withheld for modality in Modality])

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
        if crops and self._withheld.any():
            inputs, kept = self._without_withheld(prepare(crops, self._specification), kept, request, troubles)
        elif crops:
            inputs = prepare(crops, self._specification)
        if not kept:
            size = self._specification.image_size
            return LoadedBatch(torch.zeros(0, 3, 3, size, size), torch.zeros(0, 3, dtype=torch.bool), (),
                               tuple(troubles), tuple(stored))
        return LoadedBatch(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present), tuple(kept),
                           tuple(troubles), tuple(stored))

    def _without_withheld(self, inputs: PreparedInputs, kept: list[int], request: BatchRequest,
                          troubles: list[FileTrouble]) -> tuple[PreparedInputs, list[int]]:
        """The rows that still measured something, and their places in the request."""
        has_any: NDArray[np.bool_] = np.any(inputs.present & ~self._withheld, axis=1)
        modality = list(Modality)[int(np.argmin(self._withheld))]
        for place in np.flatnonzero(~has_any):
            sample = request.samples[kept[place]].sample
            troubles.append(FileTrouble(path=sample.files[modality], modality=modality, kind=TroubleKind.UNREADABLE,
                                        reason="nothing was measured in any modality that the run is given"))
        rest = PreparedInputs(inputs.planes[has_any], inputs.present[has_any])
        kept = [place for place, used in zip(kept, has_any, strict=True) if used]
        if not kept:
            return rest, kept
        return without(rest, np.tile(self._withheld, (len(kept), 1)), self._specification), kept

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
