"""Against the real MediaPipe detector and the real model; which `python -m detect.model_assets` installs."""

import builtins

import numpy as np
import pytest

from detect.blazeface import BlazeFaceDetector
from detect.faces import KEYPOINT_NAMES, DetectorError
from tests.detect.drawn_face import picture


@pytest.fixture(scope="module")
def detector():
    with BlazeFaceDetector() as opened:
        yield opened


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.5])
def test_a_face_is_found_where_it_is(detector, scale):
    (found,) = detector.detect(picture((330, 230, scale)))
    assert found.score > 0.7
    assert found.centre == pytest.approx((330, 245), abs=30 * scale)
    assert found.width == pytest.approx(145 * scale, rel=0.15)
    points = dict(zip(KEYPOINT_NAMES, found.keypoints, strict=True))
    # The person's right eye is on the left of the image.
    assert points["right_eye"] == pytest.approx((330 - 28 * scale, 230 - 14 * scale), abs=8 * scale + 3)
    assert points["left_eye"] == pytest.approx((330 + 28 * scale, 230 - 14 * scale), abs=8 * scale + 3)
    assert points["right_ear"][0] < points["nose_tip"][0] < points["left_ear"][0]


def test_two_faces_come_best_first(detector):
    found = detector.detect(picture((170, 240, 1.0), (470, 240, 1.0)))
    assert sorted(round(face.centre[0], -2) for face in found) == [200, 500]
    assert found[0].score >= found[1].score


def test_an_empty_room_has_no_face(detector):
    assert detector.detect(picture()) == []


def test_a_view_into_a_larger_array_is_fine(detector):
    wide = picture((330, 230, 1.0), width=900)
    assert len(detector.detect(wide[:, 50:690])) == 1


@pytest.mark.parametrize("image", [np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32)])
def test_another_image_format_is_refused_with_what_came(detector, image):
    with pytest.raises(ValueError, match=r"expected uint8 HxWx3"):
        detector.detect(image)


def test_a_closed_detector_says_so_and_closes_twice():
    detector = BlazeFaceDetector()
    detector.close()
    detector.close()
    with pytest.raises(DetectorError, match="closed"):
        detector.detect(picture())


def test_starting_and_closing_is_silent(capfd):
    BlazeFaceDetector().close()
    assert capfd.readouterr() == ("", "")


def test_without_mediapipe_the_extra_is_named(monkeypatch):
    real_import = builtins.__import__

    def no_mediapipe(name, *args, **kwargs):
        if name.split(".")[0] == "mediapipe":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_mediapipe)
    with pytest.raises(DetectorError, match=r"mmdg-live\[engine\]"):
        BlazeFaceDetector()


@pytest.mark.parametrize("min_score", [0.0, 1.0, -1.0])
def test_min_score_is_checked(min_score):
    with pytest.raises(ValueError, match="min_score"):
        BlazeFaceDetector(min_score=min_score)
