"""What every camera promises, checked on each of `camera_builders.CAMERA_BUILDERS`."""

import gc
import os
import weakref

import numpy as np
import pytest

from capture.camera import CameraError, EndOfStreamError, Pace
from capture.frames import StreamKind
from tests.capture.camera_builders import CAMERA_BUILDERS, LIVE_CAMERAS, SETS

TIMEOUT_S = 5.0


@pytest.fixture(params=CAMERA_BUILDERS, name="name")
def _name(request):
    return request.param


@pytest.fixture(name="build")
def _build(name, tmp_path):
    return lambda pace=Pace.LOCKSTEP: CAMERA_BUILDERS[name](tmp_path, pace)


def read_to_end(camera):
    sets = []
    with pytest.raises(EndOfStreamError):  # noqa: PT012 - a camera that goes on must fail here, not hang
        while len(sets) <= SETS:
            sets.append(camera.read(TIMEOUT_S))
    return sets


def owner_of(array):
    """What the pixels' memory belongs to in the end: an array or bytes of our own, not a buffer of some SDK."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def open_files():
    return {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}


def test_describes_itself(build, name):
    camera = build()
    description = camera.open()
    frames = camera.read(TIMEOUT_S)
    camera.close()
    assert description.kind
    assert description.serial == description.rig.serial == frames.source
    assert description.frame_rate > 0
    assert description.live == (name in LIVE_CAMERAS)
    assert StreamKind.COLOUR in description.streams
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in description.details.items())


@pytest.mark.parametrize("pace", list(Pace))
def test_sets_have_the_described_streams_at_the_described_size(build, pace):
    camera = build(pace)
    rig = camera.open().rig
    for frames in read_to_end(camera):
        assert {frame.kind for frame in frames.frames()} == set(rig.intrinsics)
        assert frames.depth_scale_m == rig.depth_scale_m
        for frame in frames.frames():
            assert (frame.width, frame.height) == (rig.intrinsics[frame.kind].width, rig.intrinsics[frame.kind].height)
    camera.close()


@pytest.mark.parametrize("pace", list(Pace))
def test_a_prompt_reader_gets_every_set_once_in_sequence(build, pace):
    with build(pace) as camera:
        sets = read_to_end(camera)
    assert [frames.sequence for frames in sets] == list(range(SETS))
    assert {frames.epoch for frames in sets} == {camera.epoch}
    assert camera.counters["late"] == 0
    for kind in StreamKind:
        plane = [getattr(frames, kind.value) for frames in sets]
        if plane[0] is not None and plane[0].frame_number is not None:
            assert len({frame.frame_number for frame in plane}) == SETS


@pytest.mark.parametrize("pace", list(Pace))
def test_stamps_do_not_go_back(build, pace):
    with build(pace) as camera:
        sets = read_to_end(camera)
    for kind in {frame.kind for frame in sets[0].frames()}:
        planes = [getattr(frames, kind.value) for frames in sets]
        assert np.all(np.diff([frame.sensor_timestamp_ns for frame in planes]) >= 0)
        assert np.all(np.diff([frame.arrival_ns for frame in planes]) >= 0)
    if pace is Pace.REALTIME:
        assert all(frames.arrival_ns <= camera.monotonic_ns() for frames in sets)


@pytest.mark.parametrize("name", [name for name in CAMERA_BUILDERS if name not in LIVE_CAMERAS])
def test_lockstep_gives_the_same_sets_each_time(build):
    runs = []
    for _ in range(2):
        with build() as camera:
            runs.append(read_to_end(camera))
    for a, b in zip(*runs, strict=True):
        assert a.arrival_ns == b.arrival_ns
        for first, second in zip(a.frames(), b.frames(), strict=True):
            np.testing.assert_array_equal(first.pixels, second.pixels)
            assert first.sensor_timestamp_ns == second.sensor_timestamp_ns


def test_every_instance_has_a_fresh_epoch(build):
    assert len({build().epoch for _ in range(8)}) == 8


def test_planes_are_owned_contiguous_and_stay_as_they_were(build):
    with build() as camera:
        first = camera.read(TIMEOUT_S)
        kept = [frame.pixels.copy() for frame in first.frames()]
        second = camera.read(TIMEOUT_S)
        for frame, before, after in zip(first.frames(), kept, second.frames(), strict=True):
            assert frame.pixels.flags.c_contiguous
            assert type(owner_of(frame.pixels)) in (np.ndarray, bytes)
            assert not np.shares_memory(frame.pixels, after.pixels)
            np.testing.assert_array_equal(frame.pixels, before)
    for frame, before in zip(first.frames(), kept, strict=True):
        np.testing.assert_array_equal(frame.pixels, before)


def test_the_end_stays_the_end(build):
    with build() as camera:
        read_to_end(camera)
        for _ in range(3):
            with pytest.raises(EndOfStreamError):
                camera.read(TIMEOUT_S)


def test_reading_an_unopened_or_closed_camera_is_a_clear_error(build):
    camera = build()
    with pytest.raises(CameraError, match="open"):
        camera.read(TIMEOUT_S)
    camera.open()
    camera.close()
    with pytest.raises(CameraError):
        camera.read(TIMEOUT_S)


def test_close_is_idempotent_and_safe_without_open(build):
    camera = build()
    camera.close()
    camera.open()
    camera.close()
    camera.close()


def test_nothing_is_held_after_close(build, tmp_path):
    before = open_files()
    camera = build()
    camera.open()
    camera.read(TIMEOUT_S)
    camera.close()
    assert not {path for path in open_files() - before if path.startswith(str(tmp_path))}
    gone = weakref.ref(camera)
    del camera
    gc.collect()
    assert gone() is None
