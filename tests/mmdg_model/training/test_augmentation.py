"""Augmentation: nothing measured is invented, planes stay registered, draws belong to a sample and not to an order."""

from dataclasses import replace

import numpy as np
import pytest

from mmdg_model.inputs import DepthEncoding, InputSpecification, prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.augmentation import DrawKey, augment
from mmdg_model.training.run_config import AugmentationConfig
from tests.mmdg_model.training.trees import NO_AUGMENTATION

SIZE = 32
EVERYTHING = AugmentationConfig(crop_share=0.6, rotation_degrees=30.0, noise=12.0, drop_depth=0.3, drop_infrared=0.3)
GEOMETRY = replace(NO_AUGMENTATION, flip=0.5, crop_share=0.5, rotation_degrees=45.0)
PHOTOMETRY = AugmentationConfig(flip=0.0)


def noise(seed, shape):
    return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)


def crop_of(colour, depth, infrared, valid=None):
    valid = np.ones((SIZE, SIZE), dtype=np.bool_) if valid is None else valid
    return CropPlanes(colour=np.where(valid[:, :, None], colour, 0).astype(np.uint8), colour_valid=valid,
                      depth=np.where(valid, depth, 0).astype(np.uint16), depth_valid=valid,
                      infrared=np.where(valid, infrared, 0).astype(np.uint8), infrared_valid=valid)


def noise_crop(seed=0, valid=None):
    return crop_of(noise(seed, (SIZE, SIZE, 3)), noise(seed + 1, (SIZE, SIZE)), noise(seed + 2, (SIZE, SIZE)), valid)


def constant_crop(level, valid=None):
    flat = np.full((SIZE, SIZE), level, dtype=np.uint8)
    return crop_of(np.stack([flat] * 3, axis=2), flat, flat, valid)


def hole():
    valid = np.ones((SIZE, SIZE), dtype=np.bool_)
    valid[8:20, 10:16] = False
    return valid


def planes_of(crop):
    return (crop.colour, crop.colour_valid, crop.depth, crop.depth_valid, crop.infrared, crop.infrared_valid)


def same(first, second):
    return all(one is other is None or np.array_equal(one, other)
               for one, other in zip(planes_of(first), planes_of(second), strict=True))


def keys(number, epoch=0):
    return [DrawKey(7, epoch, place) for place in range(number)]


def test_switched_off_it_is_the_crop_bit_for_bit():
    crop = noise_crop(valid=hole())
    assert same(augment(crop, NO_AUGMENTATION, DrawKey(1, 2, 3)), crop)


def test_draws_do_not_depend_on_their_order():
    crop = noise_crop(valid=hole())
    forwards = [augment(crop, EVERYTHING, key) for key in keys(6)]
    backwards = [augment(crop, EVERYTHING, key) for key in reversed(keys(6))]
    assert all(same(one, other) for one, other in zip(forwards, reversed(backwards), strict=True))


@pytest.mark.parametrize("other", [DrawKey(8, 1, 2, 0), DrawKey(7, 2, 2, 0), DrawKey(7, 1, 3, 0), DrawKey(7, 1, 2, 1)])
def test_each_part_of_the_key_counts(other):
    crop, key = noise_crop(), DrawKey(7, 1, 2, 0)
    assert same(augment(crop, PHOTOMETRY, key), augment(crop, PHOTOMETRY, DrawKey(7, 1, 2, 0)))
    assert not same(augment(crop, PHOTOMETRY, key), augment(crop, PHOTOMETRY, other))


def test_one_change_does_not_move_the_draws_of_another():
    crop, key = noise_crop(), DrawKey(7, 1, 2)
    whole = augment(crop, replace(PHOTOMETRY, drop_depth=1.0), key)
    assert whole.depth is None
    assert np.array_equal(whole.infrared, augment(crop, PHOTOMETRY, key).infrared)


@pytest.mark.parametrize("valid", [None, hole()])
def test_geometry_is_joint(valid):
    shape = noise(5, (SIZE, SIZE))
    crop = crop_of(np.stack([shape] * 3, axis=2), shape, shape, valid)
    for key in keys(20):
        changed = augment(crop, GEOMETRY, key)
        assert np.array_equal(changed.colour[:, :, 0], changed.depth)
        assert np.array_equal(changed.depth, changed.infrared)
        assert np.array_equal(changed.colour_valid, changed.depth_valid)
        assert np.array_equal(changed.depth_valid, changed.infrared_valid)
        assert not np.array_equal(changed.infrared, crop.infrared)


def test_a_flip_mirrors_planes_and_masks_of_half_of_the_samples():
    crop = noise_crop(valid=hole())
    flips = [augment(crop, replace(NO_AUGMENTATION, flip=0.5), key) for key in keys(200)]
    mirrored = [np.array_equal(each.colour, crop.colour[:, ::-1]) for each in flips]
    assert 80 <= sum(mirrored) <= 120
    for each, is_mirrored in zip(flips, mirrored, strict=True):
        step = -1 if is_mirrored else 1
        assert all(np.array_equal(one, other[:, ::step]) for one, other in zip(planes_of(each), planes_of(crop),
                                                                             strict=True))


def test_a_crop_is_a_square_of_the_drawn_side_at_true_scale():
    ramp = np.broadcast_to(20 + 4 * np.arange(SIZE), (SIZE, SIZE)).astype(np.uint8)
    crop = crop_of(np.stack([ramp] * 3, axis=2), ramp, ramp.T)
    sides = []
    for key in keys(30):
        changed = augment(crop, replace(NO_AUGMENTATION, crop_share=0.5), key)
        across, down = (float(np.polyfit(np.arange(SIZE), line.astype(float), 1)[0]) / 4
                        for line in (changed.depth[5], changed.infrared[:, 5]))
        assert across == pytest.approx(down, abs=0.02)
        assert changed.depth.min() >= ramp.min()
        assert changed.depth.max() <= ramp.max()
        sides.append(across)
    assert min(sides) == pytest.approx(0.5, abs=0.05)
    assert max(sides) == pytest.approx(1.0, abs=0.05)


def test_holes_do_not_bleed_and_what_comes_from_outside_is_not_measured():
    grew = []
    for key in keys(20):
        changed = augment(constant_crop(200, hole()), replace(NO_AUGMENTATION, rotation_degrees=45.0), key)
        for levels, valid in ((changed.colour[:, :, 1], changed.colour_valid), (changed.depth, changed.depth_valid),
                              (changed.infrared, changed.infrared_valid)):
            assert set(np.unique(levels[valid])) == {200}
            assert not levels[~valid].any()
        grew.append(int((~changed.depth_valid).sum()))
    assert max(grew) > 2 * int((~hole()).sum())  # corners came from outside


def test_a_crop_without_any_face_is_not_taken():
    valid = np.zeros((SIZE, SIZE), dtype=np.bool_)
    valid[:4, :4] = True
    for key in keys(40):
        assert augment(noise_crop(valid=valid), replace(NO_AUGMENTATION, crop_share=0.1), key).colour_valid.any()


@pytest.mark.parametrize("config", [PHOTOMETRY, replace(PHOTOMETRY, noise=40.0), replace(PHOTOMETRY, offset=255.0)])
def test_photometric_changes_keep_holes_and_make_none(config):
    valid = hole()
    for key in keys(20):
        changed = augment(noise_crop(valid=valid), config, key)
        for levels, kept in ((changed.depth, changed.depth_valid), (changed.infrared, changed.infrared_valid)):
            assert np.array_equal(kept, valid)
            assert np.array_equal(levels > 0, valid)
        assert not changed.colour[~valid].any()
        assert np.array_equal(changed.colour_valid, valid)


def test_photometric_draws_of_the_modalities_are_independent():
    means = []
    for key in keys(300):
        changed = augment(constant_crop(120), replace(PHOTOMETRY, gamma_low=1.0, gamma_high=1.0), key)
        means.append([*changed.colour[0, 0].tolist(), int(changed.depth[0, 0]), int(changed.infrared[0, 0])])
    correlation = np.corrcoef(np.array(means).T) - np.eye(5)
    assert np.abs(correlation).max() < 0.2
    assert np.min(means) >= 80
    assert np.max(means) <= 160
    assert np.ptp(means, axis=0).min() > 70


def test_contrast_is_the_stated_power():
    config = replace(NO_AUGMENTATION, gamma_low=1.5, gamma_high=1.5)
    assert augment(constant_crop(64), config, DrawKey(0, 0, 0)).depth[0, 0] == round(255 * (64 / 255) ** 1.5)


def test_noise_has_the_drawn_deviation():
    deviations = [augment(constant_crop(128), replace(NO_AUGMENTATION, noise=20.0), key).infrared.std()
                  for key in keys(60)]
    assert min(deviations) < 3
    assert 17 < max(deviations) < 21


@pytest.mark.parametrize(("drop_depth", "drop_infrared"), [(0.0, 0.0), (0.5, 0.0), (0.3, 0.7), (1.0, 1.0)])
def test_modalities_are_dropped_at_their_rates_and_apart(drop_depth, drop_infrared):
    config = replace(NO_AUGMENTATION, drop_depth=drop_depth, drop_infrared=drop_infrared)
    crop, number = constant_crop(9), 600
    present = np.array([[modality in augment(crop, config, key).modalities for modality in Modality]
                        for key in keys(number)])
    assert present[:, 0].all()
    for column, rate in ((1, drop_depth), (2, drop_infrared)):
        assert abs((~present[:, column]).mean() - rate) <= 3.5 * (rate * (1 - rate) / number) ** 0.5
    both = (~present[:, 1:]).all(axis=1).mean()
    assert both == pytest.approx(drop_depth * drop_infrared, abs=0.07)


def test_what_is_dropped_is_absent_to_the_network():
    config = replace(NO_AUGMENTATION, drop_depth=1.0)
    specification = InputSpecification(image_size=SIZE, depth_encoding=DepthEncoding.IDENTITY_8BIT)
    assert prepare([augment(noise_crop(), config, DrawKey(0, 0, 0))], specification).present.tolist() == [
        [True, False, True]]


@pytest.mark.parametrize(("change", "message"), [
    ({"depth": np.full((SIZE, SIZE), 5000, dtype=np.uint16)}, "depth holds 5000, expected 8-bit levels"),
    ({"infrared": np.zeros((SIZE, SIZE), dtype=np.uint16)}, "infrared is uint16, expected 8-bit levels"),
])
def test_live_planes_of_more_bits_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        augment(replace(noise_crop(), **change), EVERYTHING, DrawKey(0, 0, 0))
