from dataclasses import replace

import numpy as np
import pytest

from align.head_pose import HEAD_POINTS_MM, head_pose_deg
from tests.detect.drawn_face import box


def turned(yaw, pitch, roll, pixels_per_mm=1.4, jitter=0.0):
    """Keypoints of the average head after roll, pitch, yaw, seen from far away."""
    a, b, c = np.radians((yaw, pitch, roll))
    clockwise = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    raised = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    to_their_left = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    points = HEAD_POINTS_MM @ (to_their_left @ raised @ clockwise).T * pixels_per_mm
    points = points[:, :2] + (320, 240) + np.random.default_rng(0).normal(0, jitter or 1e-9, (6, 2))
    return replace(box(), keypoints=tuple((float(x), float(y)) for x, y in points))


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (-40, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 15),
                                    (20, -10, 8), (-30, 15, -12)])
def test_the_model_head_gives_back_its_angles(angles):
    assert head_pose_deg(turned(*angles)) == pytest.approx(angles, abs=0.01)


def test_signs_are_those_of_the_person():
    right_turned = turned(-30, 0, 0)
    assert right_turned.keypoints[2][0] < right_turned.keypoints[3][0] < 320  # the nose leads to the image's left
    raised = turned(0, 25, 0)
    eyes_y, nose_y, mouth_y = raised.keypoints[0][1], raised.keypoints[2][1], raised.keypoints[3][1]
    flat = turned(0, 0, 0).keypoints
    assert (nose_y - eyes_y) / (mouth_y - eyes_y) < (flat[2][1] - flat[0][1]) / (flat[3][1] - flat[0][1])


def test_a_pixel_of_jitter_costs_degrees_not_tens():
    assert head_pose_deg(turned(20, -10, 5, jitter=1.0)) == pytest.approx((20, -10, 5), abs=3)


def test_another_number_of_keypoints_is_refused():
    with pytest.raises(ValueError, match="5 keypoints, expected 6"):
        head_pose_deg(replace(box(), keypoints=box().keypoints[:5]))
