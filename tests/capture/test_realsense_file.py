"""`RealSenseFileCamera` on real `.db3` files, written by the SDK's recorder from simulated frames."""

import itertools
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest

from capture import realsense_sdk
from capture.camera import CameraError, CorruptStreamError, EndOfStreamError, FrameTimeoutError, NoDeviceError, Pace
from capture.frames import ClockDomain, EmitterState, Spectrum, StreamKind
from capture.realsense_child import PlaybackChild
from capture.realsense_file import RealSenseFileCamera
from capture.simulated_device import SimulatedDevice, record_to_db3
from tests.capture.realsense_scenes import PERIOD_NS, frame_set, plane, rig

SETS = 12


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("db3") / "simulated.db3"
    sets = (frame_set(n, emitter=EmitterState.ON if n % 2 else EmitterState.OFF, exposure_us=8_500.0, gain=16.0,
                      spectrum=Spectrum.NEAR_INFRARED) for n in range(1, SETS + 1))
    assert record_to_db3(path, sets, rig()) == SETS
    return path


@pytest.fixture
def damaged(recording, tmp_path):
    copy = tmp_path / "damaged.db3"
    shutil.copy(recording, copy)
    return copy


def play(path, **arguments):
    """Every set, and what ended the playing."""
    camera, sets = RealSenseFileCamera(path, Pace.LOCKSTEP, **arguments), []
    try:
        camera.open()
        while True:
            sets.append(camera.read(20.0))
    except CameraError as error:
        return sets, error
    finally:
        camera.close()


def assert_exact(sets):
    for each in sets:
        for got in each.frames():
            assert np.array_equal(got.pixels, plane(got.kind, got.frame_number))


def test_every_recorded_set_comes_back_exactly(recording):
    sets, end = play(recording)
    assert isinstance(end, EndOfStreamError)
    assert [s.sequence for s in sets] == list(range(SETS))
    assert_exact(sets)
    for number, each in enumerate(sets, start=1):
        for got in each.frames():
            assert got.frame_number == number
            assert got.sensor_timestamp_ns == got.arrival_ns == 1_000_000_000 + number * PERIOD_NS
            assert got.clock_domain is ClockDomain.SIMULATED
        assert each.infrared.emitter is (EmitterState.ON if number % 2 else EmitterState.OFF)
        assert (each.infrared.exposure_us, each.depth.gain) == (8_500.0, 16.0)
        assert each.infrared.spectrum is Spectrum.NEAR_INFRARED
        assert each.depth_scale_m == 0.001


def test_playing_twice_gives_the_same(recording):
    first, second = (play(recording)[0] for _ in range(2))
    assert len(first) == len(second) == SETS
    for a, b in zip(first, second, strict=True):
        assert a.epoch != b.epoch
        for left, right in zip(a.frames(), b.frames(), strict=True):
            assert left.sensor_timestamp_ns == right.sensor_timestamp_ns
            assert np.array_equal(left.pixels, right.pixels)


def test_description_carries_the_rig_and_says_simulated(recording):
    with RealSenseFileCamera(recording, Pace.LOCKSTEP) as camera:
        description = camera.open()
    assert description.simulated
    assert not description.live
    assert description.frame_rate == 30.0
    assert description.details["images"] == "colour 12, depth 12, infrared 12"
    assert description.rig.depth_scale_m == 0.001
    for kind, expected in rig().to_colour.items():
        assert np.allclose(description.rig.to_colour[kind].matrix, expected.matrix, atol=2e-6)
        assert np.allclose(description.rig.to_colour[kind].translation, expected.translation, atol=2e-6)


def test_end_of_stream_is_final(recording):
    camera = RealSenseFileCamera(recording, Pace.LOCKSTEP)
    camera.open()
    for _ in range(SETS):
        camera.read(20.0)
    for _ in range(2):
        with pytest.raises(EndOfStreamError, match="all 12 sets delivered"):
            camera.read(20.0)
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.read(1.0)


@pytest.mark.parametrize("streams", [(StreamKind.COLOUR,), (StreamKind.COLOUR, StreamKind.DEPTH),
                                     (StreamKind.COLOUR, StreamKind.INFRARED)])
def test_absent_depth_or_infrared_is_absent_in_the_sets(tmp_path, streams):
    path = tmp_path / "some.db3"
    record_to_db3(path, (frame_set(n, streams=streams) for n in range(1, 4)), rig(streams=streams))
    sets, end = play(path)
    assert isinstance(end, EndOfStreamError)
    assert [{f.kind for f in s.frames()} for s in sets] == [set(streams)] * 3


def test_sixteen_bit_infrared_comes_back_exactly(tmp_path):
    path = tmp_path / "y16.db3"
    deep = [replace(s, infrared=replace(s.infrared, pixels=s.infrared.pixels.astype(np.uint16) * 257, bit_depth=16))
            for s in (frame_set(n) for n in range(1, 4))]
    record_to_db3(path, deep, rig())
    sets, end = play(path)
    assert isinstance(end, EndOfStreamError)
    assert [s.infrared.bit_depth for s in sets] == [16] * 3
    for got, expected in zip(sets, deep, strict=True):
        assert np.array_equal(got.infrared.pixels, expected.infrared.pixels)


def test_an_uncompressed_recording_plays(tmp_path):
    """`rs.recorder` can write `sensor_msgs/Image`; it carries no checksums."""
    rs, path, device = realsense_sdk.load(), tmp_path / "raw.db3", SimulatedDevice(rig())
    recorder = rs.recorder(str(path), device.device, False)
    sensors, sink = recorder.query_sensors(), rs.frame_queue(1)
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(sink)
    for number in range(1, 6):
        device.feed(frame_set(number))
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    sensor = sensors = recorder = None  # the file is complete when the last reference has gone
    sets, end = play(path)
    assert isinstance(end, EndOfStreamError)
    assert len(sets) == 5
    assert_exact(sets)


class FakeTime:
    """A clock that only sleeping, or the test, moves."""

    now_ns = 0

    def monotonic_ns(self):
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


def in_real_time(path, clock):
    return RealSenseFileCamera(path, Pace.REALTIME, monotonic_ns=clock.monotonic_ns, sleep=clock.sleep)


def test_real_time_keeps_the_recorded_intervals(recording):
    clock = FakeTime()
    with in_real_time(recording, clock) as camera:
        arrivals = [camera.read(20.0).arrival_ns for _ in range(SETS)]
    assert [b - a for a, b in itertools.pairwise(arrivals)] == [PERIOD_NS] * (SETS - 1)
    assert camera.counters["late"] == 0


def test_real_time_drops_and_counts_what_a_slow_reader_missed(recording):
    clock = FakeTime()
    with in_real_time(recording, clock) as camera:
        first = camera.read(20.0)
        clock.now_ns += 9 * PERIOD_NS // 2
        second = camera.read(20.0)
    assert (first.colour.frame_number, second.colour.frame_number) == (1, 5)
    assert (first.sequence, second.sequence) == (0, 1)
    assert camera.counters["late"] == 3


def test_real_time_read_gives_up_at_its_deadline_and_loses_nothing(recording):
    clock = FakeTime()
    with in_real_time(recording, clock) as camera:
        camera.read(20.0)
        camera._take(20.0)  # the next frames must be out of the child: its time is not the fake one
        camera._take(20.0)
        camera._take(20.0)
        with pytest.raises(FrameTimeoutError, match="later than"):
            camera.read(0.01)
        assert camera.read(20.0).colour.frame_number == 2


@pytest.mark.parametrize(("name", "content", "error", "message"), [
    ("none.db3", None, NoDeviceError, "No such file"), ("a.db3", b"", CorruptStreamError, "empty"),
    ("a.db3", bytes(range(256)) * 40, CorruptStreamError, "neither"),
    ("a.bag", b"#ROSBAG V2.0\n" + bytes(4096), CorruptStreamError, "does not convert it"),
    ("a.db3", b"#ROSBAG V2.0\n" + bytes(4096), CorruptStreamError, "rename"),
])
def test_foreign_files_are_refused(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    sets, end = play(tmp_path / name)
    assert sets == []
    assert type(end) is error
    assert message in str(end)


@pytest.mark.parametrize("share", [0.0005, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused(damaged, share):
    content = damaged.read_bytes()
    damaged.write_bytes(content[:int(len(content) * share)])
    sets, end = play(damaged)
    assert sets == []
    assert isinstance(end, CorruptStreamError)


@pytest.mark.parametrize("kind", list(StreamKind))
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_flipped_bit_in_an_image_is_an_error_and_never_a_picture(damaged, kind, place):
    stream = {StreamKind.COLOUR: "Color_0", StreamKind.DEPTH: "Depth_0", StreamKind.INFRARED: "Infrared_1"}[kind]
    connection = sqlite3.connect(damaged)
    rows = connection.execute("SELECT m.id, m.data FROM messages m JOIN topics t ON t.id = m.topic_id "
                              "WHERE t.name LIKE ? ORDER BY m.id", (f"%/{stream}/image/data%",)).fetchall()
    row, blob = rows[6][0], bytearray(rows[6][1])
    start = blob.index(b"IDAT")
    blob[start + int((len(blob) - start - 16) * place)] ^= 0x04
    connection.execute("UPDATE messages SET data = ? WHERE id = ?", (bytes(blob), row))
    connection.commit()
    connection.close()
    sets, end = play(damaged)
    assert isinstance(end, CorruptStreamError), end
    assert len(sets) <= 6
    assert_exact(sets)


@pytest.mark.parametrize("seed", [1, 4, 6, 7, 12, 14, 23, 28])  # pages, an endless loop, images, an early end
def test_random_damage_anywhere_ends_in_an_error_or_in_exact_pixels(damaged, seed):
    """Up to 300 flips. Whatever the SDK makes of it, an end or an endless loop, no wrong pixel comes out."""
    content, random = bytearray(damaged.read_bytes()), np.random.default_rng(seed)
    for at in random.integers(100, len(content), int(random.choice([1, 10, 300]))):
        content[at] ^= 1 << int(random.integers(8))
    damaged.write_bytes(content)
    began = time.monotonic()
    sets, end = play(damaged, open_timeout_s=3.0)
    assert time.monotonic() - began < 30.0
    assert isinstance(end, EndOfStreamError | CorruptStreamError), end
    assert_exact(sets)


def test_a_stream_that_lost_images_ends_as_corrupt(damaged):
    """The SDK stops at an image that it cannot read as if the file ended there."""
    connection = sqlite3.connect(damaged)
    connection.execute("UPDATE messages SET data = x'00010000' WHERE id = (SELECT m.id FROM messages m JOIN topics t "
                       "ON t.id = m.topic_id WHERE t.name LIKE '%/Depth_0/image/data%' ORDER BY m.id LIMIT 1 OFFSET 6)")
    connection.commit()
    connection.close()
    sets, end = play(damaged)
    assert isinstance(end, CorruptStreamError)
    assert "of 12 depth frames" in str(end)
    assert len(sets) <= 6


def left_over():
    """Child processes of ours; multiprocessing's resource tracker and fork server, which other tests start, are not."""
    return [c for c in psutil.Process().children()
            if not any(name in " ".join(c.cmdline()) for name in ("resource_tracker", "multiprocessing.forkserver"))]


def child(program):
    return (sys.executable, "-c", program)


@pytest.mark.parametrize(("program", "message"), [
    ("import time; time.sleep(600)", "did not open it within 0.5 s"),
    ("import os\nwhile True: os.getpid()", "did not open it within 0.5 s"),
    ("import sys; sys.exit('broken library')", "exit code 1: broken library"),
    ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
    ("import os, sys; os.write(int(sys.argv[1]), b'\\xff' * 64)", "a header of"),
    ("import os, sys; os.write(int(sys.argv[1]), b'\\x02\\0\\0\\0xx')", "no valid message"),
])
def test_a_child_that_hangs_dies_or_babbles_is_a_corrupt_stream_in_bounded_time(recording, program, message):
    camera = RealSenseFileCamera(recording, open_timeout_s=0.5 if "within" in message else 20.0)
    camera.child_command = child(program)
    began = time.monotonic()
    with pytest.raises(CorruptStreamError, match=message):
        camera.open()
    assert time.monotonic() - began < 20.0
    assert left_over() == []


HANGS_AFTER_TEN = """
import sys, threading
from capture import realsense_playback as playback
send, sent = playback._Pipe.send, []
def stop_after_ten(pipe, *message):
    if len(sent) == 10:
        threading.Event().wait()
    sent.append(1)
    send(pipe, *message)
playback._Pipe.send = stop_after_ten
playback.main(sys.argv[1:])
"""


def test_a_child_that_hangs_in_the_middle_ends_the_stream_after_the_sets_that_were_complete(recording):
    camera = RealSenseFileCamera(recording, Pace.LOCKSTEP, open_timeout_s=2.0)
    camera.child_command = child(HANGS_AFTER_TEN)
    camera.open()
    assert [camera.read(20.0).colour.frame_number for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(CorruptStreamError, match=r"the SDK hangs: nothing for 2 s after 3 of 12 colour frames"):
            camera.read(20.0)
    camera.close()
    assert left_over() == []


def test_close_leaves_no_process_and_open_works_again(recording):
    camera = RealSenseFileCamera(recording, Pace.LOCKSTEP)
    for _ in range(2):
        camera.open()
        assert camera.read(20.0).sequence >= 0
        camera.close()
        camera.close()
        assert left_over() == []


def test_a_spinning_child_dies_with_its_parent():
    spin = ("from capture import realsense_playback\nimport os, sys\ndef play(path, pipe):\n"
            "    os.write(int(sys.argv[1]), b'ready')\n    while True: pass\n"
            "realsense_playback.play = play\nrealsense_playback.main(sys.argv[1:])")
    parent = ("import os, sys, select\nfrom capture.realsense_child import PlaybackChild\n"
              f"child = PlaybackChild('any.db3', command=(sys.executable, '-c', {spin!r}))\n"
              "select.select([child._reader], [], [])\nprint(child.pid, flush=True)\nsys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    orphan = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    try:
        orphan.wait(timeout=10)
    except psutil.TimeoutExpired:
        state = orphan.status()
        orphan.kill()
        assert state == psutil.STATUS_ZOMBIE, "still running"


def test_a_silent_child_gives_nothing_and_is_killed():
    silent = PlaybackChild(command=child("import time; time.sleep(600)"))
    assert silent.receive(0.05) is None
    silent.close()
    assert not psutil.pid_exists(silent.pid)


@pytest.mark.parametrize(("name", "scale", "sets", "message"), [
    ("a.bag", 0.001, 1, "a new file named .db3"), ("here.db3", 0.001, 1, "a new file"),
    ("no/folder.db3", 0.001, 1, "a folder that exists"), ("a.db3", 1.25e-5, 1, "would be rounded"),
    ("a.db3", 0.001, 0, "no frame sets"),
])
def test_recordings_that_would_lose_something_are_refused(tmp_path, name, scale, sets, message):
    (tmp_path / "here.db3").write_bytes(b"someone's session")
    with pytest.raises(CameraError, match=message):
        record_to_db3(tmp_path / name, (frame_set(n) for n in range(1, sets + 1)), rig(depth_scale_m=scale))
    assert (tmp_path / "here.db3").read_bytes() == b"someone's session"
