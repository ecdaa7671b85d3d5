import cv2
import numpy as np
import pytest

from pipeline.simulator_audit.describing import CUES, NOISE, PLANES, describe, file_features

METRES = 0.25 / 254


def planes(seed=0, side=128, sigma=3.0):
    rng = np.random.default_rng(seed)
    noisy = [np.clip(120 + sigma * rng.normal(size=(side, side)), 1, 254).astype(np.uint8) for _ in range(5)]
    return np.dstack(noisy[:3]), noisy[3], noisy[4]


def cue(name, *levels):
    return float(describe(*levels, face_scale=1.3, metres_a_level=METRES).cues[CUES.index(name)])


def test_the_noise_level_is_that_of_the_noise():
    colour, depth, infrared = planes(sigma=4.0)
    noise = describe(colour, depth, infrared, face_scale=1.3, metres_a_level=METRES).noise
    assert noise[NOISE.index("noise infrared")] == pytest.approx(4.0, rel=0.1)


def test_blur_makes_the_spectrum_fall_faster():
    colour, depth, infrared = planes(sigma=20.0)
    sharp = describe(colour, depth, infrared, face_scale=1.3, metres_a_level=METRES).noise
    blurred = describe(colour, depth, cv2.GaussianBlur(infrared, (0, 0), 1.0), face_scale=1.3,
                       metres_a_level=METRES).noise
    slope = NOISE.index("slope infrared")
    assert blurred[slope] < sharp[slope] - 1.0


def test_a_tilted_plane_fits_a_plane_and_a_bowl_does_not():
    colour, _, infrared = planes()
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    tilted = np.rint(120 + 40 * rows - 30 * columns).astype(np.uint8)
    bowl = np.rint(120 + 100 * (rows ** 2 + columns ** 2) / 2).astype(np.uint8)
    assert cue("plane_residual_mm", colour, tilted, infrared) < 0.4
    assert cue("plane_residual_mm", colour, bowl, infrared) > 3.0


def test_holes_are_counted_and_no_depth_at_all_is_unknown_not_zero():
    colour, depth, infrared = planes()
    holed = depth.copy()
    holed[:, ::2] = 0
    assert cue("hole_fraction", colour, depth, infrared) == 0.0
    assert cue("hole_fraction", colour, holed, infrared) == pytest.approx(0.5, abs=0.02)
    assert np.isnan(cue("plane_residual_mm", colour, np.zeros_like(depth), infrared))
    assert cue("hole_fraction", colour, np.zeros_like(depth), infrared) == 1.0


def test_the_background_is_blind_to_the_face_and_sees_the_rest():
    colour, depth, infrared = planes()
    side = round(128 / 1.3)
    low = (128 - side) // 2 + 1
    inside, outside = colour.copy(), colour.copy()
    inside[low:low + side - 2, low:low + side - 2] = 255
    outside[:6] = 255

    def background(levels):
        return describe(levels, depth, infrared, face_scale=1.3, metres_a_level=METRES).probes[
            "background outside the box"]

    assert np.array_equal(background(colour), background(inside))
    assert not np.array_equal(background(colour), background(outside))


def test_planes_are_small_and_say_where_depth_has_holes():
    colour, depth, infrared = planes()
    depth[:64] = 0
    small = describe(colour, depth, infrared, face_scale=1.3, metres_a_level=METRES).planes
    assert small.shape == (PLANES, PLANES, 6)
    assert small[:15, :, 5].min() == 255
    assert small[17:, :, 5].max() == 0


def test_files_tell_their_size_and_their_quality(tmp_path):
    colour, _, _ = planes()
    found = []
    for quality in (80, 95):
        path = tmp_path / f"{quality}.jpg"
        cv2.imwrite(str(path), colour, [cv2.IMWRITE_JPEG_QUALITY, quality])
        found.append(file_features([path]))
        assert found[-1][0] == path.stat().st_size
    assert found[0][2] > found[1][2]  # coarser steps are larger numbers
