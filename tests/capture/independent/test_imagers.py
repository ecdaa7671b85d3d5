"""The independent camera's own imagers."""

import numpy as np
import pytest

from capture.independent.imagers import ColourImager, ImagerNoise, InfraredImager

SHAPE = (64, 96)
EVERYTHING = (slice(None), slice(None))


def test_shot_noise_grows_as_the_root_of_light():
    imager = InfraredImager(SHAPE, "A", noise=ImagerNoise(non_uniformity=0.0, vignetting=0.0, read_electrons=0.0))
    rng = np.random.default_rng(1)
    spread = [imager.exposed(np.full(SHAPE, level, np.float32), rng).std() for level in (0.1, 0.4)]
    assert spread[1] / spread[0] == pytest.approx(2.0, rel=0.1)
    assert spread[0] == pytest.approx(np.sqrt(0.1 / imager.noise.full_well), rel=0.1)


def test_automatic_exposure_makes_a_dark_scene_brighter_and_no_more():
    imager = ColourImager(SHAPE, "A")
    bright, dark = (imager.picture(np.full((*SHAPE, 3), level, np.float32), EVERYTHING,
                                   np.random.default_rng(2)).mean() for level in (0.4, 0.04))
    assert 90 < bright < 180
    assert 60 < dark < bright


def test_colour_survives_mosaic_tone_and_jpeg():
    light = np.broadcast_to(np.array([0.3, 0.2, 0.1], np.float32), (*SHAPE, 3)).copy()
    red, green, blue = ColourImager(SHAPE, "A").picture(light, EVERYTHING, np.random.default_rng(3)).mean(axis=(0, 1))
    assert red > green + 15 > blue + 30


def test_infrared_gain_has_a_limit_and_keeps_the_brightest_below_white():
    imager = InfraredImager(SHAPE, "A")
    assert imager.gain(np.zeros(SHAPE, np.float32)) == imager.MOST_GAIN
    light = np.full(SHAPE, 3.0, np.float32)
    assert 150 < imager.picture(light, imager.gain(light), np.random.default_rng(4)).mean() < 215


def test_fixed_pattern_belongs_to_the_serial():
    light = np.full(SHAPE, 0.5, np.float32)

    def residual(serial):
        many = [InfraredImager(SHAPE, serial).exposed(light, np.random.default_rng(n)) for n in range(20)]
        return np.mean(many, axis=0)
    first, again, other = residual("A"), residual("A"), residual("B")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
