import dataclasses

import numpy as np
import pytest
import torch

from mmdg_model.inputs import prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.decoding import load_sample
from mmdg_model.training.manifests import read_list
from mmdg_model.training.pretraining.config import CropAugmentationConfig, PretrainingError
from mmdg_model.training.pretraining.crops import (
    UnlabelledCrops,
    augmented,
    crop_specification,
    masked,
    read_crop_lists,
    unlabelled,
)
from mmdg_model.training.samples import Domain, Split
from tests.mmdg_model.training.pretraining.builders import toy_crops
from tests.mmdg_model.training.trees import small_tree

PLAIN = CropAugmentationConfig(least_side=1.0, flip=0.0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    return root, small_tree(root)


@pytest.fixture(scope="module")
def crops(tree):
    return UnlabelledCrops(read_crop_lists(*tree, ["C", "P", "S", "W"]).train, crop_specification(32))


def batch_of(crops, places, epoch=0, seed=4, augmentation=None):
    return crops.training_batch(places, seed=seed, epoch=epoch, visible=4, grid=4,
                                augmentation=augmentation or CropAugmentationConfig())


def test_nothing_but_files_and_place_is_left_of_a_sample(tree):
    root, lists = tree
    samples = read_list(lists / "W-train.txt", root, Domain.WMCA, Split.TRAIN)
    relabelled = tuple(dataclasses.replace(sample, bona_fide=not sample.bona_fide, species="other", subject="other",
                                           recording="other") for sample in samples)
    assert unlabelled(samples) == unlabelled(relabelled)
    assert {field.name for field in dataclasses.fields(unlabelled(samples)[0])} == {"domain", "split", "name", "files"}


def test_permuted_labels_change_neither_crops_nor_fingerprint(tree):
    root, lists = tree
    before = read_crop_lists(root, lists, ["P"])
    path = lists / "P-train.txt"
    text = path.read_text()
    try:
        path.write_text("".join(f"{line[:-1]}{1 - int(line[-1])}\n" for line in text.splitlines()))
        after = read_crop_lists(root, lists, ["P"])
    finally:
        path.write_text(text)
    assert before == after


def test_the_fingerprint_sees_another_file(tmp_path):
    lists = small_tree(tmp_path)
    before = read_crop_lists(tmp_path, lists, ["W"]).fingerprint
    picture = next((tmp_path / "WMCA-Image").rglob("*.jpg"))
    picture.write_bytes(picture.read_bytes() + b"more")
    assert read_crop_lists(tmp_path, lists, ["W"]).fingerprint != before


def test_test_lists_are_not_opened(tmp_path):
    lists = small_tree(tmp_path)
    for path in lists.glob("*-test.txt"):
        path.unlink()
    assert len(read_crop_lists(tmp_path, lists, ["C", "P", "S", "W"]).train) == 20


def test_duplicate_lines_are_one_crop(tree):
    root, lists = tree
    samples = read_list(lists / "S-train.txt", root, Domain.CASIA_SURF, Split.TRAIN)
    assert len(unlabelled(samples + samples[:2])) == len(samples)


def test_without_augmentation_planes_are_those_of_training(tree, crops):
    root, lists = tree
    samples = read_list(lists / "C-train.txt", root, Domain.CEFA, Split.TRAIN)
    expected = prepare([load_sample(sample, image_size=32) for sample in samples], crops.specification)
    got = batch_of(crops, range(len(samples)), augmentation=PLAIN)
    assert np.array_equal(got.planes.numpy(), expected.planes)
    assert np.array_equal(got.present.numpy(), expected.present)


def test_every_draw_is_the_samples_own(crops):
    together, alone = batch_of(crops, [3, 7, 11]), batch_of(crops, [11])
    for name, tensor in together._asdict().items():
        assert torch.equal(tensor[2:], getattr(alone, name)), name


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 5}])
def test_draws_differ_by_epoch_and_seed(crops, change):
    one, other = batch_of(crops, [3, 7]), batch_of(crops, [3, 7], **change)
    assert not torch.equal(one.planes, other.planes)
    assert not torch.equal(one.kept, other.kept)


def test_an_epoch_has_every_sample_once(crops):
    assert sorted(crops.order(0, 3)) == list(range(len(crops)))
    assert list(crops.order(0, 3)) != list(crops.order(0, 4))


def test_geometry_is_the_same_for_all_modalities(crops):
    grey = crops[0].depth.astype(np.uint8)
    alike = dataclasses.replace(crops[0], colour=np.repeat(grey[:, :, None], 3, axis=2),
                                colour_valid=grey > 0, infrared=grey, infrared_valid=grey > 0)
    config = CropAugmentationConfig(least_side=0.5, flip=0.5)
    seen = set()
    for key in range(8):
        changed = augmented(alike, config, np.random.default_rng(key))
        assert np.array_equal(changed.colour[:, :, 1], changed.infrared)
        assert np.abs(changed.depth.astype(int) - changed.infrared).max() <= 1  # 16-bit and 8-bit resizing round apart
        assert changed.depth.shape == (32, 32)
        seen.add(changed.infrared.tobytes())
    assert len(seen) == 8


def test_a_mirrored_crop_is_mirrored(crops):
    changed = augmented(crops[2], CropAugmentationConfig(least_side=1.0, flip=1.0), np.random.default_rng(0))
    assert np.array_equal(changed.colour, crops[2].colour[:, ::-1])
    assert np.array_equal(changed.depth_valid, crops[2].depth_valid[:, ::-1])


def test_a_black_corner_gives_the_whole_crop():
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[31, 31] = 9
    crop = CropPlanes(colour=colour, colour_valid=colour.any(axis=2), depth=None, depth_valid=None, depth_unit_m=1.0,
                      infrared=None, infrared_valid=None, infrared_bit_depth=8)
    config = CropAugmentationConfig(least_side=0.3, flip=0.0)
    assert all(augmented(crop, config, np.random.default_rng(key)).colour.any() for key in range(20))


def test_visible_patches_are_distinct_and_the_other_modality_is_there(crops):
    planes = prepare([crops[place] for place in range(len(crops))], crops.specification)
    planes.present[0] = [True, False, False]
    planes.present[1] = [True, False, True]
    batch = masked(planes, range(len(crops)), seed=0, epoch=0, visible=4, grid=4)
    assert (batch.kept.diff(dim=2) > 0).all()
    assert batch.kept.min() >= 0
    assert batch.kept.max() == 15
    assert batch.other[0].tolist()[0] == 0
    assert batch.other[1].tolist()[::2] == [2, 0]
    asked = {(own, int(other)) for row in batch.other[2:] for own, other in enumerate(row)}
    assert asked == {(own, other) for own in range(3) for other in range(3) if own != other}
    assert len({tuple(row.flatten().tolist()) for row in batch.kept}) == len(crops)


def test_validation_masks_are_the_same_at_every_call(crops):
    one, two = (crops.clean_batch([4, 5], seed=0, visible=4, grid=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_missing_depth_file_leaves_two_images_and_is_told(tmp_path):
    lists = small_tree(tmp_path)
    read = read_crop_lists(tmp_path, lists, ["W"])
    read.train[1].files[Modality.DEPTH].unlink()
    read.train[2].files[Modality.RGB].write_bytes(b"no picture")
    crops = UnlabelledCrops(read.train, crop_specification(32))
    assert crops.counts == {"rgb": 4, "depth": 3, "infrared": 4}
    assert [str(trouble.kind) for trouble in crops.troubles] == ["missing", "unreadable"]


def test_no_readable_crop_is_an_error(tmp_path):
    lists = small_tree(tmp_path)
    for path in (tmp_path / "WMCA-Image").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(PretrainingError, match="none of 5 crops can be read"):
        UnlabelledCrops(read_crop_lists(tmp_path, lists, ["W"]).train, crop_specification(32))


def test_validation_crops_are_others(tmp_path):
    train, validation, lists = toy_crops(tmp_path)
    assert len(train) == len(validation) == 20
    assert not {crop.name for crop in lists.train} & {crop.name for crop in lists.validation}
