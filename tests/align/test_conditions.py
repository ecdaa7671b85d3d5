from dataclasses import replace

import pytest

from align.conditions import CODES, QualityLimits, conditions
from align.face_crop import CropQuality
from detect.face_finder import FaceFinding
from detect.tracking import TrackedFace
from tests.detect.drawn_face import box

GOOD = CropQuality(face_width_px=140, distance_m=0.5, sharpness=60, brightness=120, depth_fill=0.97,
                   infrared_brightness=0.4, infrared_saturation=0.0, yaw_deg=3, pitch_deg=-4, roll_deg=1)
FACE = TrackedFace(track_id=0, box=box(270, 190, 100), age_ns=0)
SEEN = FaceFinding(faces=(FACE,), subject=FACE, conditions=(), image_used="colour", image_size=(640, 480),
                   brightness=110)


def test_a_good_crop_has_none():
    assert conditions(SEEN, GOOD) == []


@pytest.mark.parametrize(("change", "expected"), [
    ({"distance_m": 0.2}, ["move_back"]),
    ({"distance_m": 1.3}, ["move_closer"]),
    ({"face_width_px": 40, "distance_m": None}, ["move_closer"]),
    ({"brightness": 20}, ["too_dark"]),
    ({"brightness": 240}, ["too_bright"]),
    ({"depth_fill": 0.4}, ["depth_holes"]),
    ({"depth_fill": 0.0, "distance_m": None}, ["depth_holes"]),
    ({"infrared_saturation": 0.6}, ["ir_saturated"]),
    ({"sharpness": 2}, ["clean_lens"]),
    ({"yaw_deg": -45}, ["look_at_camera"]),
    ({"pitch_deg": 45}, ["look_at_camera"]),
    ({"roll_deg": -45}, ["look_at_camera"]),
    # No depth, no infrared sensor: nothing to complain of here, policy asks for modalities.
    ({"depth_fill": None, "distance_m": None, "infrared_brightness": None, "infrared_saturation": None}, []),
    ({"sharpness": 1, "brightness": 10, "distance_m": 1.4}, ["too_dark", "move_closer", "clean_lens"]),
])
def test_each_measure_has_its_code_worst_first(change, expected):
    assert conditions(SEEN, replace(GOOD, **change)) == expected


@pytest.mark.parametrize(("finding", "refusal", "expected"), [
    (replace(SEEN, faces=(), subject=None, conditions=("no_face",)), None, ["no_face"]),
    (replace(SEEN, faces=(), subject=None, conditions=("no_face", "too_dark")), None, ["no_face", "too_dark"]),
    (replace(SEEN, subject=None, conditions=("multiple_faces",)), None, ["multiple_faces"]),
    (SEEN, "move_closer", ["move_closer"]),
    (replace(SEEN, subject=replace(FACE, box=box(560, 190, 100))), None, ["centre_face"]),
    (replace(SEEN, subject=replace(FACE, box=box(560, 190, 100))), "centre_face", ["centre_face"]),
])
def test_what_the_finder_and_the_aligner_say_is_kept(finding, refusal, expected):
    assert conditions(finding, None, refusal=refusal) == expected


def test_codes_are_ranked_once():
    assert len(set(CODES)) == len(CODES)


@pytest.mark.parametrize("wrong", [{"nearest_m": 2.0}, {"nearest_m": 0}, {"darkest": 230}, {"brightest": 300}])
def test_limits_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        QualityLimits(**wrong)
