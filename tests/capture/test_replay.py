"""Replay: recorded time as the clock, or the recorded rate against the host's clock."""

import numpy as np
import pytest

from capture.camera import CameraError, CorruptStreamError, EndOfStreamError, FrameTimeoutError, NoDeviceError, Pace
from capture.replay import ReplayCamera
from tests.capture.camera_builders import FakeTime
from tests.capture.sessions import PERIOD_NS, SERIAL, make_set, write_session

PERIOD_S = PERIOD_NS / 1e9


def realtime_camera(path, time=None):
    time = time or FakeTime()
    camera = ReplayCamera(path, Pace.REALTIME, monotonic_ns=time.monotonic_ns, sleep=time.sleep)
    camera.open()
    return camera, time


def test_lockstep_keeps_every_stamp_and_the_source(tmp_path):
    with ReplayCamera(write_session(tmp_path / "s.mcap", 3), Pace.LOCKSTEP) as camera:
        for n in range(3):
            found, recorded = camera.read(0.0), make_set(n)
            assert (found.source, found.sequence, found.epoch) == (SERIAL, n, camera.epoch)
            for a, b in zip(found.frames(), recorded.frames(), strict=True):
                np.testing.assert_array_equal(a.pixels, b.pixels)
                assert (a.arrival_ns, a.sensor_timestamp_ns) == (b.arrival_ns, b.sensor_timestamp_ns)


def test_the_description_says_what_was_recorded(tmp_path):
    camera = ReplayCamera(write_session(tmp_path / "s.mcap", 2, simulated=True, label="print"), Pace.LOCKSTEP)
    description = camera.open()
    camera.close()
    assert (description.kind, description.serial, description.simulated) == ("replay", SERIAL, True)
    assert description.details["recorded_with"] == "realsense"
    assert description.details["firmware"] == "5.16.0.1"
    assert (description.details["sets"], description.details["label"]) == ("2", "print")


def test_realtime_waits_for_the_recorded_rate(tmp_path):
    camera, time = realtime_camera(write_session(tmp_path / "s.mcap", 4))
    read_at = []
    for _ in range(4):
        frames = camera.read(1.0)
        read_at.append(time.now_ns)
        assert frames.arrival_ns == time.now_ns  # moved to the host's clock
    assert np.diff(read_at).tolist() == [PERIOD_NS] * 3
    camera.close()


def test_realtime_keeps_the_offsets_of_arrivals_within_a_set(tmp_path):
    camera, _ = realtime_camera(write_session(tmp_path / "s.mcap", 1))
    frames, recorded = camera.read(1.0), make_set(0)
    assert frames.depth.arrival_ns - frames.colour.arrival_ns == recorded.depth.arrival_ns - recorded.colour.arrival_ns
    assert frames.depth.sensor_timestamp_ns == recorded.depth.sensor_timestamp_ns
    camera.close()


def test_recorded_time_starts_with_the_first_read(tmp_path):
    camera, time = realtime_camera(write_session(tmp_path / "s.mcap", 2))
    time.sleep(10.0)
    assert camera.read(1.0).colour.frame_number == 1000
    assert camera.counters["late"] == 0
    camera.close()


def test_a_slow_reader_misses_sets_and_they_are_counted(tmp_path):
    camera, time = realtime_camera(write_session(tmp_path / "s.mcap", 10))
    seen = []
    with pytest.raises(EndOfStreamError):  # noqa: PT012
        while True:
            seen.append(camera.read(1.0))
            time.sleep(2.6 * PERIOD_S)
    assert [frames.colour.frame_number - 1000 for frames in seen] == [0, 2, 5, 7, 9]
    assert [frames.sequence for frames in seen] == [0, 1, 2, 3, 4]
    assert camera.counters == {"late": 5}
    assert all(frames.arrival_ns <= time.now_ns for frames in seen)
    camera.close()


def test_a_short_timeout_can_be_repeated(tmp_path):
    camera, _ = realtime_camera(write_session(tmp_path / "s.mcap", 2))
    camera.read(1.0)
    for _ in range(3):
        with pytest.raises(FrameTimeoutError, match="due in"):
            camera.read(0.010)
    assert camera.read(0.010).sequence == 1
    assert camera.counters["late"] == 0
    camera.close()


@pytest.mark.parametrize("pace", list(Pace))
def test_a_damaged_set_ends_the_replay_for_good(tmp_path, pace):
    path = write_session(tmp_path / "s.mcap", 3)
    plane, data = make_set(1).depth.pixels.tobytes(), bytearray(path.read_bytes())
    data[data.index(plane)] ^= 4
    path.write_bytes(data)
    time = FakeTime()
    with ReplayCamera(path, pace, monotonic_ns=time.monotonic_ns, sleep=time.sleep) as camera:
        camera.read(1.0)
        for _ in range(3):
            with pytest.raises(CorruptStreamError, match="set 1 of 3: depth plane"):
                camera.read(1.0)


def test_a_missing_file_leaves_nothing_held_and_may_be_opened_later(tmp_path):
    camera = ReplayCamera(tmp_path / "s.mcap", Pace.LOCKSTEP)
    with pytest.raises(NoDeviceError, match="no such file"):
        camera.open()
    camera.close()
    write_session(tmp_path / "s.mcap", 1)
    camera.open()
    assert camera.read(0.0).sequence == 0
    camera.close()


def test_an_instance_is_opened_once_so_that_its_epoch_stays_one_run(tmp_path):
    with (ReplayCamera(write_session(tmp_path / "s.mcap", 1), Pace.LOCKSTEP) as camera,
          pytest.raises(CameraError, match="opened before")):
        camera.open()
