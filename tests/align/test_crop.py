from dataclasses import replace

import numpy as np
import pytest

from align.crop import CropRefused, CropSettings, FaceAligner
from align.face_crop import FaceCrop
from align.rig_geometry import RegistrationError
from capture.frames import StreamKind
from capture.rig import Rig
from detect.tracking import TrackedFace
from tests.align.analytic_scene import AnalyticScene, d435_like, d455_like
from tests.detect.drawn_face import box

COLOUR, DEPTH, INFRARED = StreamKind.COLOUR, StreamKind.DEPTH, StreamKind.INFRARED
SCENE = AnalyticScene(rig=d455_like(), distance_m=0.5)
FRAMES = SCENE.frame_set()


def face(kind=COLOUR, scene=SCENE):
    left, top, width, _ = scene.face_box(INFRARED if kind is INFRARED else COLOUR)
    return TrackedFace(track_id=7, box=box(left, top, width, image=kind.value), age_ns=0)


@pytest.mark.parametrize("view", [COLOUR, DEPTH])
@pytest.mark.parametrize("found_in", [COLOUR, INFRARED])
def test_a_face_found_in_either_image_is_cropped_in_either_view(view, found_in):
    crop = FaceAligner(SCENE.rig, CropSettings(view=view)).step(FRAMES, face(found_in))
    assert isinstance(crop, FaceCrop)
    assert (crop.view, crop.track_id, crop.sequence, crop.size) == (view, 7, 0, 224)
    # The head's front is in the middle: nearest point of the crop's depth, near its centre.
    near = np.argwhere(crop.depth_valid & (crop.depth < crop.depth[crop.depth_valid].min() + 60)).mean(axis=0)
    assert near == pytest.approx((125, 112), abs=16)
    assert crop.quality.distance_m == pytest.approx(0.51, abs=0.02)
    assert crop.quality.depth_fill > 0.85


def test_the_side_follows_the_face_scale():
    wide = FaceAligner(SCENE.rig, CropSettings(face_scale=2.0, size=128)).step(FRAMES, face())
    close = FaceAligner(SCENE.rig, CropSettings(face_scale=1.0, size=128)).step(FRAMES, face())
    assert wide.size == close.size == 128
    on_head = [(crop.depth_valid & (crop.depth < 8000)).mean() for crop in (wide, close)]
    assert on_head[0] < 0.5
    assert on_head[1] > 0.9


def test_absent_planes_stay_absent():
    no_infrared = FaceAligner(SCENE.rig).step(replace(FRAMES, infrared=None), face())
    assert no_infrared.infrared is None
    assert no_infrared.quality.infrared_brightness is None
    assert no_infrared.depth_valid.any()
    colour_only = FaceAligner(SCENE.rig).step(replace(FRAMES, infrared=None, depth=None, depth_scale_m=None), face())
    assert colour_only.depth is None
    assert (colour_only.quality.distance_m, colour_only.quality.depth_fill) == (None, None)


def test_a_webcams_rig_of_colour_alone_works():
    rig = Rig(serial="CAM", name="webcam", intrinsics={COLOUR: SCENE.rig.intrinsics[COLOUR]},
              to_colour={COLOUR: SCENE.rig.to_colour[COLOUR]})
    frames = replace(FRAMES, infrared=None, depth=None, depth_scale_m=None)
    assert FaceAligner(rig).step(frames, face()).colour_valid.all()
    with pytest.raises(RegistrationError, match="view depth: the rig of CAM has only colour"):
        FaceAligner(rig, CropSettings(view=DEPTH))


@pytest.mark.parametrize(("moved", "condition"), [
    (box(-150, 300, 220), "centre_face"),
    (box(1200, 300, 220), "centre_face"),
    (box(5000, 5000, 220), "centre_face"),
    (box(600, 300, 12), "move_closer"),
])
def test_a_face_that_cannot_be_cropped_is_refused_with_its_condition(moved, condition):
    refused = FaceAligner(SCENE.rig).step(FRAMES, TrackedFace(track_id=0, box=moved, age_ns=0))
    assert isinstance(refused, CropRefused)
    assert refused.condition == condition


def test_a_view_whose_plane_is_missing_today_is_refused():
    frames = replace(FRAMES, infrared=None, depth=None, depth_scale_m=None)
    refused = FaceAligner(SCENE.rig, CropSettings(view=DEPTH)).step(frames, face())
    assert refused.condition == "modality_missing"
    assert "no depth plane in set 0" in refused.reason


def test_a_face_without_any_depth_is_still_cropped_and_its_holes_are_counted():
    scene = AnalyticScene(rig=d435_like(), distance_m=0.5)
    frames = scene.frame_set()
    frames.depth.pixels[:] = 0
    crop = FaceAligner(scene.rig).step(frames, face(scene=scene))
    assert crop.quality.depth_fill == 0.0
    assert crop.quality.distance_m is None
    assert crop.quality.infrared_brightness is None  # nowhere known where to look: unknown, not dark
    assert crop.quality.infrared_saturation is None


@pytest.mark.parametrize("wrong", [{"view": INFRARED}, {"size": 8}, {"face_scale": 0.1}, {"least_visible": 0},
                                   {"least_face_px": 0}])
def test_settings_quote_the_wrong_value(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CropSettings(**wrong)
