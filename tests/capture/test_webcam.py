"""The webcam backend, on video files; a live webcam only as far as it can be without one."""

import math

import numpy as np
import pytest

from capture.camera import CameraError, CorruptStreamError, EndOfStreamError, NoDeviceError, Pace
from capture.frames import ClockDomain, StreamKind
from capture.webcam import WebcamCamera, guessed_rig
from tests.capture.camera_builders import FakeTime, write_video


def test_colours_come_as_rgb_numbered_and_stamped_by_the_frame_rate(tmp_path):
    with WebcamCamera(write_video(tmp_path / "v.avi", rate=25.0), pace=Pace.LOCKSTEP) as camera:
        sets = [camera.read(1.0) for _ in range(3)]
    for n, frames in enumerate(sets):
        red, green, blue = frames.colour.pixels[24, 56].astype(int)
        assert red > 200
        assert max(green, blue) < 60
        assert abs(int(frames.colour.pixels[24, 10].mean()) - 20 * n) < 8
        assert (frames.colour.frame_number, frames.colour.sensor_timestamp_ns) == (n, n * 40_000_000)
        assert frames.colour.clock_domain is ClockDomain.HOST
        assert frames.depth is None
        assert frames.infrared is None


def test_the_rig_is_a_guess_and_says_so(tmp_path):
    camera = WebcamCamera(write_video(tmp_path / "v.avi"), pace=Pace.LOCKSTEP)
    description = camera.open()
    camera.close()
    assert "60 deg horizontal field of view assumed" in description.details["calibration"]
    assert "uncalibrated" in description.rig.name
    assert description.frame_rate == 25.0
    assert description.streams == (StreamKind.COLOUR,)


def test_the_guessed_rig_has_the_assumed_field_of_view():
    intrinsics = guessed_rig("x", 640, 480).intrinsics[StreamKind.COLOUR]
    assert math.degrees(2 * math.atan(320 / intrinsics.fx)) == pytest.approx(60.0)
    assert (intrinsics.cx, intrinsics.cy) == (319.5, 239.5)


def test_realtime_drops_what_a_slow_reader_misses(tmp_path):
    time = FakeTime()
    seen = []
    with WebcamCamera(write_video(tmp_path / "v.avi", count=6), monotonic_ns=time.monotonic_ns,
                      sleep=time.sleep) as camera:
        with pytest.raises(EndOfStreamError):  # noqa: PT012
            while True:
                seen.append(camera.read(1.0))
                time.sleep(0.090)
        assert camera.counters == {"late": 2}
    assert [frames.colour.frame_number for frames in seen] == [0, 2, 4, 5]
    assert abs(int(seen[1].colour.pixels[24, 10].mean()) - 40) < 8  # the pixels of that frame, not of another


def test_a_file_that_stops_early_is_not_a_clean_end(tmp_path):
    path = write_video(tmp_path / "v.avi", count=40)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    with WebcamCamera(path, pace=Pace.LOCKSTEP) as camera, pytest.raises(CorruptStreamError, match=r"early, .* of 40"):
        [camera.read(1.0) for _ in range(40)]


@pytest.mark.parametrize(("source", "pace", "error", "message"), [
    ("missing.avi", Pace.LOCKSTEP, NoDeviceError, r"webcam:.*missing\.avi: no such file"),
    ("text.avi", Pace.LOCKSTEP, CorruptStreamError, "cannot read it as a video"),
    (99, Pace.REALTIME, NoDeviceError, "webcam:99: cannot be opened; video devices: "),
    (0, Pace.LOCKSTEP, CameraError, "a live webcam cannot run in lock-step"),
])
def test_what_cannot_be_opened_is_named(tmp_path, source, pace, error, message):
    (tmp_path / "text.avi").write_text("not a video")
    camera = WebcamCamera(source if isinstance(source, int) else tmp_path / source, pace=pace)
    with pytest.raises(error, match=message):
        camera.open()
    camera.close()


def test_an_instance_is_opened_once(tmp_path):
    with (WebcamCamera(write_video(tmp_path / "v.avi"), pace=Pace.LOCKSTEP) as camera,
          pytest.raises(CameraError, match="opened before")):
        camera.open()


def test_frames_are_contiguous_bytes(tmp_path):
    with WebcamCamera(write_video(tmp_path / "v.avi"), pace=Pace.LOCKSTEP) as camera:
        pixels = camera.read(1.0).colour.pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (48, 64, 3)
