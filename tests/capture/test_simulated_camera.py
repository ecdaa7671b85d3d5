"""The simulated camera behind the `Camera` contract: determinism, pacing, faults, errors. All data is simulated."""

import sys
from functools import lru_cache

import numpy as np
import pytest

from capture.camera import CameraError, DisconnectedError, EndOfStreamError, FrameTimeoutError, Pace
from capture.frames import ClockDomain, StreamKind
from capture.simulated.camera import Faults, SimulatedCamera
from capture.simulated.catalogue import UnknownSceneError, make_scene
from capture.simulated.raycast import SimulatorMissingError
from capture.simulated.sensors import SensorNoise, simulated_rig

SMALL = (160, 120)
#: One scene of each kind of code path.
SHOWN = ("bona_fide", "nobody", "two_people", "flat_print", "tablet_video_replay", "rigid_mask", "face_tattoo")
scene_of = lru_cache(make_scene)


def lockstep(name="bona_fide", *, seed=3, **options):
    return SimulatedCamera(scene_of(name, seed=seed), seed=seed, pace=Pace.LOCKSTEP,
                           **{"size": SMALL, "frames": 4, **options})


def sets_of(camera):
    with camera:
        out = []
        while True:
            try:
                out.append(camera.read(1.0))
            except EndOfStreamError:
                return out


class HandClock:
    """A clock that only `sleep` and the test move."""

    def __init__(self):
        self.now_ns = 5_000_000_000

    def __call__(self):
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


@pytest.mark.parametrize("name", SHOWN)
def test_equal_seeds_give_equal_bits_and_another_seed_does_not(name):
    first, second = (sets_of(SimulatedCamera(make_scene(name, seed=5), seed=5, pace=Pace.LOCKSTEP, size=SMALL,
                                             frames=2)) for _ in range(2))
    other = sets_of(lockstep(name, seed=6, frames=2))
    for a, b, c in zip(first, second, other, strict=True):
        for x, y, z in zip(a.frames(), b.frames(), c.frames(), strict=True):
            assert np.array_equal(x.pixels, y.pixels)
            assert not np.array_equal(x.pixels, z.pixels)


def test_a_set_does_not_depend_on_what_was_read_before_it():
    with lockstep(faults=Faults(stall=range(3))) as camera:
        for _ in range(3):
            with pytest.raises(FrameTimeoutError):
                camera.read(1.0)
        alone = camera.read(1.0)
    in_turn = sets_of(lockstep())[3]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(alone.frames(), in_turn.frames(), strict=True))


def test_every_plane_keeps_the_contract():
    camera = lockstep(noise=SensorNoise.none())
    description = camera.open()
    first, second = camera.read(1.0), camera.read(1.0)
    camera.close()
    assert (description.kind, description.simulated, description.live) == ("simulated", True, False)
    assert description.streams == (StreamKind.COLOUR, StreamKind.DEPTH, StreamKind.INFRARED)
    assert first.source == description.serial == "SIM-D435-0"
    assert first.depth_scale_m == description.rig.depth_scale_m == 1e-3
    assert first.depth.pixels.dtype == np.uint16
    assert first.truth is None
    for a, b in zip(first.frames(), second.frames(), strict=True):
        assert (a.width, a.height) == SMALL
        assert a.clock_domain is ClockDomain.SIMULATED
        assert not np.shares_memory(a.pixels, b.pixels)
    assert first.epoch == second.epoch == camera.epoch
    assert SimulatedCamera(camera.scene).epoch != camera.epoch


def test_lockstep_gives_each_instant_once_in_simulated_time():
    sets = sets_of(lockstep(frames=4, frame_rate=10.0, skew_ms=16.0))
    assert [s.sequence for s in sets] == [0, 1, 2, 3]
    assert [s.depth.frame_number for s in sets] == [0, 1, 2, 3]
    assert [s.depth.sensor_timestamp_ns for s in sets] == [0, 100_000_000, 200_000_000, 300_000_000]
    assert all(s.skew_ns == 16_000_000 for s in sets)
    assert [s.arrival_ns for s in sets] == [i * 100_000_000 + 16_000_000 for i in range(4)]


def test_reopened_scene_starts_again_from_its_first_instant():
    camera = lockstep(frames=1)
    first, second = sets_of(camera), sets_of(camera)
    assert [s.sequence for s in first + second] == [0, 0]


def test_realtime_waits_for_the_next_instant_and_leaves_out_what_came_too_late():
    clock = HandClock()
    camera = SimulatedCamera(scene_of("nobody", seed=3), frame_rate=10.0, size=SMALL, frames=20, monotonic_ns=clock,
                             sleep=clock.sleep)
    with camera:
        opened_ns = clock.now_ns
        numbers, ages_ms = [], []
        for busy_s in (0.0, 0.0, 0.35, 0.0, 0.05):
            found = camera.read(1.0)
            numbers.append(found.colour.frame_number)
            ages_ms.append((clock.now_ns - opened_ns - found.colour.sensor_timestamp_ns) / 1e6)
            clock.sleep(busy_s)
        assert numbers == [0, 1, 2, 5, 6]
        assert max(ages_ms) < 100
        assert camera.counters["late"] == 2
        clock.sleep(30)
        with pytest.raises(EndOfStreamError):
            camera.read(1.0)
        assert camera.counters["late"] == 2 + 12


def test_realtime_timeout_shorter_than_the_period_is_a_timeout_and_loses_nothing():
    clock = HandClock()
    with SimulatedCamera(scene_of("nobody", seed=3), frame_rate=1.0, size=SMALL, monotonic_ns=clock,
                         sleep=clock.sleep) as camera:
        camera.read(0.1)
        with pytest.raises(FrameTimeoutError):
            camera.read(0.1)
        assert camera.read(1.0).colour.frame_number == 1


def test_end_of_stream_is_repeated():
    with lockstep(frames=0) as camera:
        for _ in range(2):
            with pytest.raises(EndOfStreamError, match="after 0 instants"):
                camera.read(1.0)


def test_faults_are_timeouts_counted_by_cause_then_a_disconnection():
    faults = Faults(stall=range(1, 2), no_infrared=range(2, 3), no_depth=range(3, 4), disconnect_at=5)
    with lockstep("nobody", frames=None, faults=faults) as camera:
        outcomes = []
        for _ in range(7):
            try:
                outcomes.append(camera.read(1.0).depth.frame_number)
            except CameraError as error:
                outcomes.append(type(error))
        assert outcomes == [0, FrameTimeoutError, FrameTimeoutError, FrameTimeoutError, 4, DisconnectedError,
                            DisconnectedError]
        assert camera.counters == {"stall": 1, "incomplete": 2, "missing_infrared": 1, "missing_depth": 1}


def test_realtime_stall_runs_into_the_timeout_of_the_reader():
    clock = HandClock()
    with SimulatedCamera(scene_of("nobody", seed=3), frame_rate=10.0, size=SMALL, faults=Faults(stall=range(20)),
                         monotonic_ns=clock, sleep=clock.sleep) as camera:
        started_ns = clock.now_ns
        with pytest.raises(FrameTimeoutError):
            camera.read(0.7)
        assert 0.7 <= (clock.now_ns - started_ns) / 1e9 < 0.81
        assert camera.read(3.0).colour.frame_number == 20


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: SimulatedCamera("hologram"), UnknownSceneError, "'hologram'; there are: bona_fide, print, screen, mask"),
    (lambda: make_scene("print", distance_m=0.05), CameraError, "distance_m is 0.05"),
    (lambda: SimulatedCamera(scene_of("nobody", seed=3), frame_rate=0.0), CameraError, "frame_rate is 0.0"),
    (lambda: SimulatedCamera(scene_of("nobody", seed=3), frames=-1), CameraError, "frames is -1"),
    (lambda: SimulatedCamera(scene_of("nobody", seed=3)).read(1.0), CameraError, "read before open"),
])
def test_wrong_use_is_refused_with_the_value(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_missing_ray_caster_names_the_extra_at_open(monkeypatch):
    camera = lockstep()
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    with pytest.raises(SimulatorMissingError, match=r"mmdg-live\[simulate\]"):
        camera.open()
    with pytest.raises(CameraError, match="before open"):
        camera.read(1.0)


def test_the_rig_survives_its_file(tmp_path):
    rig = simulated_rig((320, 240), distorted=True)
    rig.save(tmp_path / "rig.json")
    assert type(rig).load(tmp_path / "rig.json").hash == rig.hash
