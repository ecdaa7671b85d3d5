"""Cameras by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from capture.camera import CameraError, Pace
from capture.replay import ReplayCamera
from capture.sources import CameraSpecification, CameraSpecificationError, make_camera, parse_camera
from capture.webcam import WebcamCamera
from tests.capture.camera_builders import write_video
from tests.capture.sessions import write_session


@pytest.mark.parametrize(("spec", "kind", "argument"), [
    ("realsense", "realsense", ""),
    ("realsense:0123456789", "realsense", "0123456789"),
    ("replay:a/b.mcap", "replay", "a/b.mcap"),
    ("replay:with:colon.mcap", "replay", "with:colon.mcap"),
    ("webcam", "webcam", ""),
    ("webcam:2", "webcam", "2"),
    ("webcam:film.avi", "webcam", "film.avi"),
    ("simulated", "simulated", ""),
    (" simulated:print ", "simulated", "print"),
])
def test_parses(spec, kind, argument):
    parsed = parse_camera(spec)
    assert parsed == CameraSpecification(kind, argument)
    assert parse_camera(str(parsed)) == parsed


@pytest.mark.parametrize(("spec", "message"), [
    ("realsens", r"unknown kind 'realsens', did you mean 'realsense'\?; known are .*replay:FILE.*simulated"),
    ("Webcam:0", r"did you mean 'webcam'\?"),
    ("kinect", r"unknown kind 'kinect'; known are realsense\[:SERIAL\]"),
    ("", "unknown kind ''"),
    ("replay", r"needs a file, as in replay:session\.mcap"),
    ("replay:", "nothing follows the colon"),
    ("realsense:", "nothing follows the colon"),
    ("a/session.mcap", r"did you mean 'replay:a/session\.mcap'\?"),
])
def test_refuses_and_lists_what_is_known(spec, message):
    with pytest.raises(CameraSpecificationError, match=message):
        parse_camera(spec)


@pytest.mark.parametrize(("spec", "error", "message"), [
    ("replay:s.mcap.partial", CameraSpecificationError, r"mmdg sessions recover s\.mcap\.partial"),
    ("replay:s.avi", CameraSpecificationError, r"unknown file type '\.avi'.*webcam:s\.avi"),
    (CameraSpecification("kinect"), CameraSpecificationError, "unknown kind of camera 'kinect'"),
])
def test_refuses_to_make(spec, error, message):
    with pytest.raises(error, match=message):
        make_camera(spec)


def test_a_live_realsense_has_no_lockstep():
    with pytest.raises(CameraError, match="realsense:42: a live camera cannot run in lock-step"):
        make_camera("realsense:42", pace=Pace.LOCKSTEP)


def test_makes_unopened_cameras_that_work(tmp_path):
    replay = make_camera(f"replay:{write_session(tmp_path / 's.mcap', 2)}", pace=Pace.LOCKSTEP)
    assert isinstance(replay, ReplayCamera)
    video = make_camera(f"webcam:{write_video(tmp_path / 'v.avi')}", pace=Pace.LOCKSTEP)
    assert isinstance(video, WebcamCamera)
    for camera in (replay, video):
        with camera:
            assert camera.read(1.0).sequence == 0


@pytest.mark.parametrize(("spec", "source"), [("webcam", 0), ("webcam:3", 3), ("webcam:f.avi", Path("f.avi"))])
def test_a_webcam_is_an_index_or_a_file(spec, source):
    assert make_camera(spec).source == source


def test_naming_cameras_loads_no_sdk():
    heavy = "{'cv2', 'pyrealsense2', 'torch', 'mediapipe', 'mcap', 'google.protobuf'}"
    code = f"import capture.sources, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
