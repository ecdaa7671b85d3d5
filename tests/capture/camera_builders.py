"""One builder a camera for `test_every_camera.py`. A new camera adds a row and is held to the contract by existing.

A builder takes a temporary folder and the pace, and returns a new, unopened camera whose material has `SETS` sets.
Builders of one folder always describe the same material, so that two instances can be compared.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from capture.camera import Camera, EndOfStreamError, Pace
from capture.realsense import RealSenseCamera
from capture.realsense_file import RealSenseFileCamera
from capture.replay import ReplayCamera
from capture.simulated.camera import SimulatedCamera
from capture.simulated_device import SimulatedDevice, SimulatedDevices, record_to_db3
from capture.webcam import WebcamCamera
from tests.capture import realsense_scenes
from tests.capture.sessions import make_rig, write_session

SETS = 6


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self, now_ns=1_000_000_000):
        self.now_ns = now_ns

    def monotonic_ns(self):
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


def write_video(path, count=SETS, width=64, height=48, rate=25.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (width, height))
    assert writer.isOpened()
    for n in range(count):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, :, 2] = 255  # red, in BGR
        image[:, : width // 2] = 20 * n % 256
        writer.write(image)
    writer.release()
    return path


def _session(folder: Path, pace: Pace, **session) -> Camera:
    path = folder / "session.mcap"
    if not path.exists():
        write_session(path, SETS, **session)
    time = FakeTime()
    return ReplayCamera(path, pace, monotonic_ns=time.monotonic_ns, sleep=time.sleep)


def _colour_only_session(folder: Path, pace: Pace) -> Camera:
    return _session(folder, pace, rig=make_rig(colour_only=True))


def _video_file(folder: Path, pace: Pace) -> Camera:
    path = folder / "video.avi"
    if not path.exists():
        write_video(path)
    time = FakeTime()
    return WebcamCamera(path, pace=pace, monotonic_ns=time.monotonic_ns, sleep=time.sleep)


def _simulated(folder: Path, pace: Pace) -> Camera:
    time = FakeTime()
    return SimulatedCamera(frames=SETS, size=(160, 120), pace=pace, monotonic_ns=time.monotonic_ns, sleep=time.sleep)


def _realsense_file(folder: Path, pace: Pace) -> Camera:
    """A .db3 that the real SDK recorded from its software device, fed with simulated frame sets."""
    path = folder / "session.db3"
    if not path.exists():
        with SimulatedCamera(frames=SETS, size=(160, 120), pace=Pace.LOCKSTEP) as camera:
            frame_sets = [camera.read(1.0) for _ in range(SETS)]
            record_to_db3(path, frame_sets, camera.rig, frame_rate=10)
    time = FakeTime()
    return RealSenseFileCamera(path, pace, monotonic_ns=time.monotonic_ns, sleep=time.sleep)


class FedRealSense(RealSenseCamera):
    """The live camera on the SDK's software device, which is fed one set a read and has no more after `SETS`."""

    def __init__(self) -> None:
        device = SimulatedDevice(realsense_scenes.rig())
        super().__init__(settings=realsense_scenes.SETTINGS, device_source=SimulatedDevices(device))
        self.device, self.fed = device, 0

    def read(self, timeout_s):
        if self.fed == SETS:
            raise EndOfStreamError("the feed is over")
        if self._rig is not None:
            self.fed += 1
            self.device.feed(realsense_scenes.frame_set(self.fed))
        return super().read(timeout_s)


def _realsense(folder: Path, pace: Pace) -> Camera:
    return FedRealSense()


#: Live cameras know no lock-step: they are held to everything else.
LIVE_CAMERAS = {"RealSense"}
CAMERA_BUILDERS: dict[str, Callable[[Path, Pace], Camera]] = {
    "session replay": _session,
    "colour-only session replay": _colour_only_session,
    "RealSense": _realsense,
    "RealSense file": _realsense_file,
    "simulated": _simulated,
    "video file": _video_file,
}
