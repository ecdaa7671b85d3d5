"""The kind of camera that scores are calibrated for: of the product, not of the unit, nor of how it is read."""

import dataclasses

import pytest

from capture.camera import CameraDescription
from capture.simulated.camera import SimulatedCamera


def described(**changes):
    rig = SimulatedCamera().rig
    name = changes.pop("name", "Intel RealSense D435I")
    values = {"kind": "realsense", "serial": "123", "rig": dataclasses.replace(rig, name=name), "frame_rate": 30.0,
              "live": True}
    return CameraDescription(**(values | changes))


@pytest.mark.parametrize(("changes", "kind"), [
    ({}, "intel-realsense-d435i"),
    ({"serial": "456"}, "intel-realsense-d435i"),
    ({"kind": "replay", "details": {"recorded_with": "realsense"}}, "intel-realsense-d435i"),
    ({"name": "Intel RealSense D455"}, "intel-realsense-d455"),
    ({"kind": "webcam", "name": "webcam:0"}, "webcam"),
    ({"kind": "replay", "name": "webcam:0", "details": {"recorded_with": "webcam"}}, "webcam"),
    ({"simulated": True, "details": {"profile": "d4xx_projector"}}, "simulated-d4xx_projector"),
    ({"simulated": True}, "simulated-intel-realsense-d435i"),  # the SDK's software device
    ({"details": {"profile": "d4xx"}}, "intel-realsense-d435i"),  # a real camera cannot pass for a simulated one
    ({"name": "***"}, "unnamed"),
    ({"name": "x" * 500}, "x" * 128),
])
def test_the_camera_kind(changes, kind):
    assert described(**changes).camera_kind == kind


def test_a_simulated_camera_is_of_its_profile():
    assert SimulatedCamera(profile="sr300").describe().camera_kind == "simulated-sr300"
