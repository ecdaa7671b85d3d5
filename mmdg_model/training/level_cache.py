"""Decoded samples kept in memory, shared with the loader's worker processes: small runs read the same crops 50 times.

What is kept is what `load_sample` gives, before augmentation, so a cache changes the time of a run and not one bit of
it. Samples are kept first come, first served, and never replaced: every epoch reads them all in a new order, where
replacing the oldest would keep what is needed last.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.decoding import crop_of_levels
from mmdg_model.training.samples import Sample

#: Where shared memory lies; small in containers unless asked for.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - its free space is read, no file is made
_NUM_CHANNELS = 5  # colour's three, depth, infrared


class CacheLevels:
    """The memory: `uint8 [capacity, S, S, 5]`. Workers write and read; who may read which slot `CacheIndex` knows."""

    def __init__(self, capacity: int, image_size: int, *, shared: bool) -> None:
        num_bytes = capacity * image_size**2 * _NUM_CHANNELS
        if shared and _SHARED_MEMORY.is_dir() and num_bytes > (free := shutil.disk_usage(_SHARED_MEMORY).free):
            raise ValueError(f"machine.cache_mib: the cache takes {num_bytes / 2**20:.0f} MiB, but {_SHARED_MEMORY} "
                             f"has {free / 2**20:.0f} MiB free; lower cache_mib, or give the container more of it")
        self._levels = torch.zeros((capacity, image_size, image_size, _NUM_CHANNELS), dtype=torch.uint8)
        if shared:
            self._levels.share_memory_()  # type: ignore[no-untyped-call]

    def write(self, slot: int, crop: CropPlanes) -> None:
        """Keeps a crop that has all its planes, of 8-bit levels."""
        assert crop.depth is not None, "only complete samples are kept"
        assert crop.infrared is not None, "only complete samples are kept"
        levels = self._slot(slot)
        levels[..., :3], levels[..., 3], levels[..., 4] = crop.colour, crop.depth, crop.infrared

    def read(self, slot: int) -> CropPlanes:
        """The crop that was written, as `load_sample` made it."""
        levels = self._slot(slot)
        return crop_of_levels({Modality.RGB: levels[..., :3].copy(), Modality.DEPTH: levels[..., 3].copy(),
                               Modality.INFRARED: levels[..., 4].copy()})

    def _slot(self, slot: int) -> NDArray[np.uint8]:
        levels: NDArray[np.uint8] = self._levels[slot].numpy()
        return levels


class CacheIndex:
    """Which sample has which slot, and whether it is filled. Lives in the training process alone.

    A slot counts as filled once the worker's batch has come home: the queue between the processes orders the worker's
    writing before any later reading. Two workers may fill one slot at a time; both write the same bytes.
    """

    def __init__(self, cache_mib: int, image_size: int, num_samples: int) -> None:
        if cache_mib < 0:
            raise ValueError(f"machine.cache_mib is {cache_mib}, expected at least 0")
        self.capacity = min(cache_mib * 2**20 // (image_size**2 * _NUM_CHANNELS), num_samples)
        self._slots: dict[tuple[str, str, str], int] = {}
        self._filled: set[int] = set()

    def slot(self, sample: Sample) -> int | None:
        """The sample's own, or None when all are taken. Duplicate lines share one."""
        key = (sample.domain, sample.split, sample.name)
        if key not in self._slots and len(self._slots) < self.capacity:
            self._slots[key] = len(self._slots)
        return self._slots.get(key)

    def is_filled(self, slot: int) -> bool:
        """Whether the slot may be read."""
        return slot in self._filled

    def fill(self, slots: tuple[int, ...]) -> None:
        """Notes slots that came home written."""
        self._filled.update(slots)
