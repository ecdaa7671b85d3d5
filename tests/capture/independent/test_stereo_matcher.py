"""Matching two images of dots: the depth of known planes comes back."""

import cv2
import numpy as np
import pytest

from capture.independent.stereo_matcher import Matcher, depth_units, dot_pattern

FOCAL_BASELINE = 395.7 * 0.055


def pair(disparity_px, shape=(120, 220)):
    """Two images of a plane that faces the camera, with dots at that disparity."""
    texture = np.clip(40 * dot_pattern("A"), 0, 255)[200:200 + shape[0], 300:300 + 400].astype(np.float32)
    columns = np.arange(shape[1], dtype=np.float32)[None].repeat(shape[0], 0)
    rows = np.arange(shape[0], dtype=np.float32)[:, None].repeat(shape[1], 1)
    left = cv2.remap(texture, columns + 80, rows, cv2.INTER_CUBIC)
    right = cv2.remap(texture, columns + 80 + disparity_px, rows, cv2.INTER_CUBIC)
    return [np.clip(image, 0, 255).astype(np.uint8) for image in (left, right)]


@pytest.mark.parametrize("disparity_px", [12.0, 36.3, 43.75])
def test_a_plane_has_its_disparity(disparity_px):
    found = Matcher().disparity_px(*pair(disparity_px))[10:-10, 70:-10]
    good = np.isfinite(found)
    assert good.mean() > 0.95
    # The matcher favours half pixels; 0.25 px of 40 px are 3 mm at half a metre.
    assert np.percentile(np.abs(found[good] - disparity_px), 90) < 0.3


def test_images_of_nothing_have_no_depth():
    rng = np.random.default_rng(0)
    left, right = (rng.integers(8, 12, (80, 200)).astype(np.uint8) for _ in range(2))
    found = Matcher().disparity_px(left, right)
    assert np.isfinite(found[:, 70:]).mean() < 0.5


def test_depth_is_focal_length_times_baseline_over_disparity():
    disparity = np.array([[FOCAL_BASELINE / 0.5, np.nan, FOCAL_BASELINE / 0.05, FOCAL_BASELINE / 50]], np.float32)
    assert depth_units(disparity, FOCAL_BASELINE, 1e-3, nearest_m=0.18, farthest_m=6.0).tolist() == [[500, 0, 0, 0]]


def test_dots_belong_to_the_serial_and_never_touch():
    pattern = dot_pattern("A")
    assert np.array_equal(pattern, dot_pattern("A"))
    assert not np.array_equal(pattern, dot_pattern("B"))
    count = cv2.connectedComponents((pattern > 1.2).astype(np.uint8))[0] - 1
    assert 8000 < count <= 9000
