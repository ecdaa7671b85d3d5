"""A cache of decoded samples saves reading, keeps to its size, and changes not one bit."""

import shutil

import numpy as np
import pytest
import torch

from mmdg_model.training.level_cache import CacheIndex, CacheLevels
from mmdg_model.training.loading import ListedData
from mmdg_model.training.samples import Domain
from tests.mmdg_model.training.test_augmentation import hole, noise_crop, planes_of
from tests.mmdg_model.training.trees import machine_of, small_tree, toy_run

SIZE = 32


@pytest.fixture
def tree(tmp_path):
    small_tree(tmp_path)
    return tmp_path



@pytest.mark.parametrize("shared", [False, True])
def test_a_crop_comes_back_as_it_was(shared):
    levels = CacheLevels(3, SIZE, shared=shared)
    crops = [noise_crop(seed, hole() if seed else None) for seed in range(3)]
    for slot, crop in enumerate(crops):
        levels.write(slot, crop)
    for slot, crop in enumerate(crops):
        back = levels.read(slot)
        assert all(np.array_equal(one, other) for one, other in zip(planes_of(back), planes_of(crop), strict=True))
        assert back.depth.dtype == np.uint16
        back.infrared[:] = 7  # what is done to a crop is not done to the cache
        assert np.array_equal(levels.read(slot).infrared, crop.infrared)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_filled_cache_reads_no_file_and_gives_the_same_pixels(tree, workers):
    plain = ListedData.open(toy_run(), machine_of(tree))
    expected = [[part.planes for update in plain.epoch(number) for part in update] for number in (0, 1)]
    cached = ListedData.open(toy_run(), machine_of(tree, workers=workers, cache_mib=1))
    first = [part.planes for update in cached.epoch(0) for part in update]
    for folder in ("CeFA", "CASIA-SURF-CROP"):
        shutil.rmtree(tree / folder)
    for path in tree.glob("*.npz"):
        path.unlink()
    second = [part.planes for update in cached.epoch(1) for part in update]
    for got, wanted in ((first, expected[0]), (second, expected[1])):
        assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))
    assert cached.troubles == ()
    cached.close()


def test_a_sample_in_trouble_is_not_kept(tree):
    data = ListedData.open(toy_run(), machine_of(tree, cache_mib=1))
    depth = next(path for path in data.training_samples[0].files.values() if "depth" in path.parts)
    kept = depth.read_bytes()
    depth.unlink()
    first = torch.cat([batch.present for batch in data.clean_batches()])
    depth.write_bytes(kept)
    second = torch.cat([batch.present for batch in data.clean_batches()])
    assert (int((~first).sum()), int((~second).sum())) == (1, 0)


def samples_of(root):
    return ListedData.open(toy_run(), machine_of(root)).training_samples


def test_slots_are_first_come_first_served_and_bounded_by_bytes(tree):
    samples = samples_of(tree)
    index = CacheIndex(1, 256, len(samples))  # a mebibyte holds three crops of 256 x 256 x 5
    assert index.capacity == 3
    assert [index.slot(sample) for sample in samples[:5]] == [0, 1, 2, None, None]
    assert index.slot(samples[1]) == 1
    assert not index.is_filled(1)
    index.fill((1,))
    assert index.is_filled(1)


def test_no_more_is_taken_than_there_are_samples(tree):
    samples = samples_of(tree)
    assert CacheIndex(1000, SIZE, len(samples)).capacity == len(samples) == 15
    assert CacheIndex(0, SIZE, len(samples)).slot(samples[0]) is None
    assert {sample.domain for sample in samples} == {Domain.CEFA, Domain.PADISI, Domain.CASIA_SURF}


def test_a_cache_larger_than_shared_memory_is_refused_before_it_is_taken():
    with pytest.raises(ValueError, match=r"cache_mib: the cache takes \d+ MiB"):
        CacheLevels(2**40, SIZE, shared=True)
