"""A face detector finds the simulated faces. All data is simulated; a detector knows faces, never liveness."""

import os
from pathlib import Path

import numpy as np
import pytest

from capture.camera import Pace
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene

mediapipe = pytest.importorskip("mediapipe", reason="the face detector needs the extra 'engine'")

MODEL = "face_detection_short_range.tflite"


def model_path():
    """Where set-up puts the detector's model, or None."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [Path(p) for p in (os.environ.get("MMDG_ASSETS"), cache / "mmdg-live") if p]
    return next((found for place in places if place.is_dir() for found in sorted(place.rglob(MODEL))), None)


@pytest.fixture(scope="module")
def detector():
    path = model_path()
    if path is None:
        pytest.skip(f"no {MODEL} under $MMDG_ASSETS or the user cache: run set-up")
    from mediapipe.tasks.python import BaseOptions, vision
    found = vision.FaceDetector.create_from_options(vision.FaceDetectorOptions(
        base_options=BaseOptions(model_asset_path=str(path)), min_detection_confidence=0.5))
    yield found
    found.close()


def overlap(box, left, top, right, bottom):
    across = min(right, box.origin_x + box.width) - max(left, box.origin_x)
    down = min(bottom, box.origin_y + box.height) - max(top, box.origin_y)
    shared = max(across, 0) * max(down, 0)
    return shared / ((right - left) * (bottom - top) + box.width * box.height - shared)


@pytest.mark.parametrize(("name", "seed"), [("bona_fide", 0), ("bona_fide", 1), ("print", 0), ("screen", 1),
                                            ("mask", 0), ("nobody", 0), ("two_people", 1)])
def test_blazeface_finds_every_face_and_no_other(detector, name, seed):
    expected = {"nobody": 0, "two_people": 2}.get(name, 1)
    right, overlaps = 0, []
    with SimulatedCamera(make_scene(name, seed=seed, distance_m=0.5), seed=seed, pace=Pace.LOCKSTEP, frames=10,
                         frame_rate=2.0, with_truth=True) as camera:
        for _ in range(10):
            found = camera.read(1.0)
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=found.colour.pixels)
            boxes = [detection.bounding_box for detection in detector.detect(image).detections]
            right += len(boxes) == expected
            overlaps += [max(overlap(box, *truth) for truth in found.truth.face_boxes()) for box in boxes]
    assert right >= 9
    assert not overlaps or np.median(overlaps) > 0.6
