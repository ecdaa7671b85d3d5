import cv2
import numpy as np
import pytest

from align.quality import face_interior, measure
from align.registration import RegisteredPlanes
from tests.detect.drawn_face import box, picture

ALL = np.ones((224, 224), bool)


def planes(colour=None, colour_valid=ALL, **others):
    colour = cv2.resize(picture((320, 240, 1.0))[120:360, 200:440], (224, 224)) if colour is None else colour
    return RegisteredPlanes(colour=colour, colour_valid=colour_valid, **others)


def test_blur_lowers_sharpness():
    sharp = planes()
    blurred = planes(cv2.GaussianBlur(sharp.colour, (0, 0), 3))
    assert measure(blurred, box(), 1.3).sharpness < 0.2 * measure(sharp, box(), 1.3).sharpness


@pytest.mark.parametrize("level", [10, 128, 250])
def test_brightness_is_the_mean_grey(level):
    assert measure(planes(np.full((224, 224, 3), level, np.uint8)), box(), 1.3).brightness == pytest.approx(level)


def test_invalid_pixels_count_neither_as_dark_nor_as_edges():
    colour = np.full((224, 224, 3), 200, np.uint8)
    valid = ALL.copy()
    valid[:, :112] = False
    colour[~valid] = 0
    quality = measure(planes(colour, valid), box(), 1.3)
    assert quality.brightness == pytest.approx(200)
    assert quality.sharpness == 0.0


def test_depth_fill_and_distance_look_at_the_interior():
    depth_valid = ALL.copy()
    depth_valid[:, :112] = False
    depth = np.where(depth_valid, 5210, 0).astype(np.uint16)
    quality = measure(planes(depth=depth, depth_valid=depth_valid), box(), 1.3)
    assert quality.depth_fill == pytest.approx(0.5, abs=0.01)
    assert quality.distance_m == pytest.approx(0.521)


@pytest.mark.parametrize(("dtype", "bit_depth", "full"), [(np.uint8, 8, 255), (np.uint16, 10, 1023),
                                                          (np.uint16, 16, 65535)])
def test_infrared_levels_are_shares_of_full_scale_at_any_bit_depth(dtype, bit_depth, full):
    infrared = np.full((224, 224), full // 2, dtype)
    infrared[:, :112] = full
    quality = measure(planes(infrared=infrared, infrared_valid=ALL), box(), 1.3, infrared_bit_depth=bit_depth)
    assert quality.infrared_brightness == pytest.approx(0.75, abs=0.01)
    assert quality.infrared_saturation == pytest.approx(0.5, abs=0.01)


def test_absent_planes_measure_none():
    quality = measure(planes(), box(width=133), 1.3)
    assert quality.face_width_px == 133
    assert (quality.distance_m, quality.depth_fill, quality.infrared_brightness, quality.infrared_saturation) == (
        None, None, None, None)


def test_the_interior_shrinks_with_the_face_scale():
    areas = [face_interior(224, scale).mean() for scale in (1.0, 1.3, 2.0)]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] == pytest.approx(np.pi / 4 * 0.75**2, rel=0.02)
