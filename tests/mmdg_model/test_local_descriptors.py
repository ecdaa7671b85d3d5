"""HOG drawn and PLGF: known edges, invariances, and their place in the input path."""

import numpy as np
import pytest

from mmdg_model.inputs import InfraredEncoding, InputSpecification, SpecificationError, prepare
from mmdg_model.local_descriptors import grey_hog_plgf, hog_drawing, orientation_histogram, plgf
from tests.mmdg_model.builders import crop

WITH_DESCRIPTORS = InputSpecification(image_size=64, infrared_encoding=InfraredEncoding.GREY_HOG_PLGF)


def noise(seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (64, 64), dtype=np.uint8)


def waves(angle_deg):
    """Brightness rising and falling along `angle_deg` (0 = right, 90 = down)."""
    row, column = np.mgrid[0:64, 0:64]
    turn = np.deg2rad(angle_deg)
    return np.rint(128 + 120 * np.sin(0.25 * (column * np.cos(turn) + row * np.sin(turn)))).astype(np.uint8)


@pytest.mark.parametrize("angle_deg", [10, 30, 50, 70, 90, 110, 130, 150, 170, 190])
def test_histogram_puts_waves_into_its_orientation(angle_deg):
    histogram = orientation_histogram(waves(angle_deg))
    assert histogram.shape == (8, 8, 9)
    assert (histogram[1:-1, 1:-1].argmax(axis=2) == angle_deg % 180 // 20).all()


def test_histogram_counts_magnitude_by_hand():
    """A step of 100 between columns 11 and 12: central differences of 100 at both, two columns of a cell's eight."""
    image = np.zeros((64, 64), np.uint8)
    image[:, 12:] = 100
    histogram = orientation_histogram(image)
    assert histogram[3, 1].tolist() == [2 * 100 / 8, *[0.0] * 8]
    assert not histogram[:, 2:].any()


def test_drawing_runs_along_the_edge():
    """Vertical edges (gradient to the right) are drawn as vertical lines, horizontal ones as horizontal lines."""
    for angle_deg, vertical in ((0, True), (90, False)):
        cell = hog_drawing(waves(angle_deg))[16:24, 16:24].astype(int)
        rows, columns = cell.max(axis=1) > 0, cell.max(axis=0) > 0
        assert (rows.sum() > columns.sum()) is np.bool_(vertical)


def test_drawing_is_invariant_to_contrast_and_black_without_edges():
    image = noise(high=100)
    np.testing.assert_allclose(hog_drawing(image), hog_drawing(image * 2), atol=1)
    assert hog_drawing(image).max() == 255
    assert not hog_drawing(np.full((64, 64), 90, np.uint8)).any()


def naive_plgf(levels):
    """Pixel by pixel, from the definition."""
    image = np.maximum(levels.astype(float), 2)
    padded = np.pad(image, 2, mode="edge")
    angle = np.zeros_like(image)
    for row, column in np.ndindex(*image.shape):
        across = down = 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                if dy or dx:
                    radius, phi = np.hypot(dy, dx), np.arctan2(dy, dx)
                    pull = padded[row + 2 + dy, column + 2 + dx] / radius**2
                    across, down = across + pull * np.cos(phi), down + pull * np.sin(phi)
        angle[row, column] = np.arctan(np.hypot(across, down) / image[row, column])
    return 1 + 254 * (angle - angle.min()) / (angle.max() - angle.min())


def test_plgf_equals_its_definition():
    image = noise(1)[:24, :24]
    np.testing.assert_allclose(plgf(image), naive_plgf(image), atol=0.51)
    assert (plgf(image).min(), plgf(image).max()) == (1, 255)


def test_plgf_ignores_the_brightness_of_the_light():
    image = noise(2, 20, 120)
    np.testing.assert_allclose(plgf(image).astype(int), plgf(image * 2).astype(int), atol=1)
    assert (plgf(np.full((64, 64), 40, np.uint8)) == 1).all()


def test_channels_and_invalid_pixels():
    levels, valid = noise(3), np.ones((64, 64), np.bool_)
    valid[:8, 20:40] = False
    channels = grey_hog_plgf(np.where(valid, levels, 0).astype(np.uint8), valid)
    assert (channels.shape, channels.dtype) == ((3, 64, 64), np.uint8)
    assert not channels[:, ~valid].any()
    assert len({channel.tobytes() for channel in channels}) == 3


def test_input_path_offers_grey_or_three_channels():
    one = crop()
    grey, described = (prepare([one], spec).planes[0] for spec in (InputSpecification(image_size=64), WITH_DESCRIPTORS))
    assert np.array_equal(grey[2, 0], grey[2, 1])
    assert np.array_equal(grey[2, 0], described[2, 0])
    assert not np.array_equal(described[2, 0], described[2, 1])
    assert not np.array_equal(described[2, 1], described[2, 2])
    assert np.array_equal(grey[:2], described[:2])  # colour and depth as ever
    restored = described[2] * 128.0 + 127.5
    levels = np.rint(restored[0]).astype(np.uint8)
    np.testing.assert_allclose(restored, grey_hog_plgf(levels, np.ones((64, 64), np.bool_)), atol=1e-3)


def test_hidden_infrared_content_changes_no_channel():
    valid = np.ones((64, 64), np.bool_)
    valid[20:40, 20:40] = False
    infrared = np.random.default_rng(0).integers(0, 1024, (64, 64), dtype=np.uint16)
    altered = infrared.copy()
    altered[~valid] = 1023
    one, other = (prepare([crop(infrared=plane, infrared_valid=valid)], WITH_DESCRIPTORS).planes
                  for plane in (infrared, altered))
    assert np.array_equal(one, other)


def test_absent_infrared_stays_absent():
    inputs = prepare([crop(without=("infrared",))], WITH_DESCRIPTORS)
    assert inputs.present[0].tolist() == [True, True, False]
    assert not inputs.planes[0, 2].any()


def test_a_size_that_cells_do_not_divide_is_refused():
    with pytest.raises(SpecificationError, match=r"inputs\.image_size is 60, expected a multiple of 8"):
        InputSpecification(image_size=60, infrared_encoding=InfraredEncoding.GREY_HOG_PLGF)
