"""What no honest stream does is seen; simulated and recorded sessions that nobody tampered with raise nothing.

All frames here are simulated or made of random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capture.camera import EndOfStreamError, Pace
from capture.frames import ClockDomain, Frame, FrameSet, StreamKind
from capture.recording import RecordingWriter
from capture.replay import ReplayCamera
from capture.simulated.camera import SimulatedCamera
from pipeline.stream_integrity import IntegrityLimits, StreamIntegrity, reason_of
from pipeline.verdict import Reason

PERIOD_NS = 33_000_000
SHAPES: dict[StreamKind, tuple[tuple[int, ...], type]] = {
    StreamKind.COLOUR: ((48, 64, 3), np.uint8), StreamKind.DEPTH: ((48, 64), np.uint16),
    StreamKind.INFRARED: ((48, 64), np.uint8)}


def frame(kind: StreamKind, index: int, picture: int | None = None, **changes: Any) -> Frame:
    shape, dtype = SHAPES[kind]
    noise = np.random.default_rng([index if picture is None else picture, len(kind.value)])
    values: dict[str, Any] = {
        "kind": kind, "pixels": noise.integers(1, 250, shape).astype(dtype), "frame_number": index,
        "sensor_timestamp_ns": index * PERIOD_NS, "clock_domain": ClockDomain.HARDWARE,
        "arrival_ns": index * PERIOD_NS + 5_000_000_000}
    return Frame(**(values | changes))


def frames(index: int, picture: int | None = None, epoch: int = 1, source: str = "one",
           **changes: dict[str, Any]) -> FrameSet:
    """One set; `colour={...}`, `depth={...}`, `infrared={...}` change a frame."""
    made = {kind.value: frame(kind, index, **{"picture": picture, **changes.get(kind.value, {})}) for kind in SHAPES}
    return FrameSet(source=source, epoch=epoch, sequence=index, depth_scale_m=1e-3, **made)


def watched(sets: Iterator[FrameSet] | list[FrameSet], **limits: Any) -> list[list[str]]:
    integrity = StreamIntegrity("one", PERIOD_NS * 1e-6, IntegrityLimits(**limits))
    return [integrity.step(one) for one in sets]


ALL = ["colour", "depth", "infrared"]


def test_an_honest_stream_raises_nothing() -> None:
    assert watched([frames(i) for i in range(400)]) == [[]] * 400


@pytest.mark.parametrize("kind", ALL)
def test_one_frozen_sensor_is_seen_on_its_second_frame(kind: str) -> None:
    found = watched([frames(i, **{kind: {"picture": 0}}) for i in range(4)])
    assert found == [[], *[[f"frozen_{kind}"]] * 3]


def test_a_frozen_camera_is_seen() -> None:
    assert watched([frames(0), frames(1), frames(2, picture=1)])[2] == [f"frozen_{kind}" for kind in ALL]


def test_a_looped_recording_is_seen_at_its_first_repetition() -> None:
    found = watched([frames(i, picture=i % 30) for i in range(40)])
    assert found[:30] == [[]] * 30
    assert found[30:] == [[f"repeated_{kind}" for kind in ALL]] * 10


def test_a_replayed_colour_stream_before_live_depth_and_infrared_is_seen() -> None:
    found = watched([frames(i, colour={"picture": i % 10}) for i in range(20)])
    assert found[10:] == [["repeated_colour"]] * 10


def test_a_loop_is_seen_across_a_restart_of_the_camera() -> None:
    integrity = StreamIntegrity("one", 33.0)
    assert integrity.step(frames(5)) == []
    assert integrity.step(frames(0, picture=5, epoch=2)) == [f"frozen_{kind}" for kind in ALL]
    assert integrity.step(frames(1, epoch=2)) == []


def test_the_memory_is_bounded_and_a_longer_loop_passes() -> None:
    assert watched([frames(i, picture=i % 30) for i in range(60)], remembered=20) == [[]] * 60


@pytest.mark.parametrize("level", [0, 255])
def test_a_sensor_without_a_picture_may_repeat_it(level: int) -> None:
    """A covered lens, a saturated sensor: such frames are no evidence, which the quality gates see to."""
    dead = np.full((48, 64), level, np.uint8)
    dead[10, 10] = 128  # a pixel of its own mind
    assert watched([frames(i, infrared={"pixels": dead.copy()}) for i in range(5)]) == [[]] * 5


def test_a_change_of_one_level_is_beyond_what_this_sees() -> None:
    """Stated in the documentation; the test keeps the statement true."""
    def loop(index: int) -> FrameSet:
        one = frames(index, picture=0)
        for plane in one.frames():
            plane.pixels[0, 0] = index + 1
        return one

    assert watched([loop(i) for i in range(5)]) == [[]] * 5


@pytest.mark.parametrize(("kind", "changes", "code"), [
    ("depth", {"sensor_timestamp_ns": 8 * PERIOD_NS}, "timestamp_depth"),
    ("depth", {"sensor_timestamp_ns": 9 * PERIOD_NS}, "timestamp_depth"),
    ("infrared", {"frame_number": 9}, "timestamp_infrared"),
    ("colour", {"clock_domain": ClockDomain.HOST}, "domain"),
    ("colour", {"sensor_timestamp_ns": 10 * PERIOD_NS + 40_000_000}, "skew"),
])
def test_an_impossible_stamp_is_seen(kind: str, changes: dict[str, Any], code: str) -> None:
    found = watched([*(frames(i) for i in range(10)), frames(10, **{kind: changes})])
    assert found[:10] == [[]] * 10
    assert code in found[10]


def test_a_restarted_camera_numbers_anew() -> None:
    integrity = StreamIntegrity("one", 33.0)
    assert [integrity.step(one) for one in (frames(500), frames(0, epoch=2), frames(1, epoch=2))] == [[]] * 3


def test_another_camera_is_seen() -> None:
    assert watched([frames(0), frames(1, source="two")]) == [[], ["camera_serial"]]


def in_time(_: int) -> float:
    return 0.005


def clocked(stamp: Callable[[float], float], seconds: float, late: Callable[[int], float] = in_time) -> list[str]:
    """The codes over a stream whose sensor clock shows `stamp(true time)`."""
    def one(index: int) -> FrameSet:
        now_s = index * 0.1
        times = {"sensor_timestamp_ns": round(stamp(now_s) * 1e9),
                 "arrival_ns": round((100 + now_s + late(index)) * 1e9)}
        return frames(index, **dict.fromkeys(ALL, times))

    return [code for codes in watched([one(i) for i in range(int(seconds * 10))]) for code in codes]


@pytest.mark.parametrize(("rate", "within_s"), [(0.5, 6), (0.8, 14), (2.0, 7), (1.25, 9), (1.08, 20), (0.0001, 4)])
def test_a_recording_at_another_speed_is_seen(rate: float, within_s: float) -> None:
    assert "drift_colour" in clocked(lambda s: rate * s, within_s)


@pytest.mark.parametrize(("late", "rate"), [
    (lambda i: 0.9 if i < 10 else 0.005, 1.0),  # frames waited for a slow start
    (lambda i: 0.8 if i % 100 < 10 else 0.01, 1.0),  # the host stands still for a second each ten
    (lambda i: 0.005, 1.0001), (lambda i: 0.005, 0.9999),  # 100 ppm, more than any crystal
])
def test_a_busy_host_and_an_honest_crystal_are_no_alarm(late: Callable[[int], float], rate: float) -> None:
    assert clocked(lambda s: rate * s, 90, late) == []


def test_a_sensor_clock_that_leaps_is_seen() -> None:
    assert "drift_colour" in clocked(lambda s: s if s < 10 else s + 5, 11)


@pytest.mark.parametrize(("code", "reason"), [
    ("frozen_colour", Reason.STREAM_REPEATED), ("repeated_depth", Reason.STREAM_REPEATED),
    ("timestamp_infrared", Reason.CLOCK_JUMP), ("skew", Reason.CLOCK_JUMP), ("drift_depth", Reason.CLOCK_JUMP),
    ("domain", Reason.CLOCK_JUMP), ("camera_serial", Reason.CAMERA_CHANGED), ("something_new", Reason.CAMERA_CHANGED),
])
def test_every_code_has_a_reason(code: str, reason: Reason) -> None:
    assert reason_of([code]) is reason


# --- unfaulted cameras ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scene", ["bona_fide", "print", "screen", "mask", "nobody", "two_people"])
def test_no_alarm_on_a_simulated_camera(scene: str) -> None:
    with SimulatedCamera(scene, seed=2, pace=Pace.LOCKSTEP, frames=5, size=(320, 240)) as camera:
        description = camera.describe()
        integrity = StreamIntegrity(description.serial, 1e3 / description.frame_rate)
        assert [integrity.step(camera.read(1.0)) for _ in range(5)] == [[]] * 5


def played(path: Path) -> list[list[str]]:
    found = []
    with ReplayCamera(path, Pace.LOCKSTEP) as camera:
        integrity = StreamIntegrity(camera._reader.manifest.serial, 33.3)  # type: ignore[union-attr]
        while True:
            try:
                found.append(integrity.step(camera.read(1.0)))
            except EndOfStreamError:
                return found


def test_no_alarm_on_a_recording_and_one_on_the_same_recording_in_a_loop(tmp_path: Path) -> None:
    """Simulated, without sensor noise even; looped as a file that was spliced behind itself."""
    golden = Path(__file__).resolve().parents[1] / "data" / "golden_simulated_session.mcap"
    assert played(golden) == [[]] * 14
    looped = tmp_path / "looped.mcap"
    with ReplayCamera(golden, Pace.LOCKSTEP) as camera:
        sets = [camera.read(1.0) for _ in range(14)]
        description = SimulatedCamera("bona_fide", seed=5, size=(320, 240)).describe()
    with RecordingWriter(looped, replace(description, serial=sets[0].source)) as writer:
        for number, one in enumerate([*sets, *sets]):
            moved = {plane.kind.value: replace(
                plane, frame_number=number, sensor_timestamp_ns=number * PERIOD_NS, arrival_ns=number * PERIOD_NS)
                for plane in one.frames()}
            writer.write(replace(one, sequence=number, **moved))
    found = played(looped)
    assert found[:14] == [[]] * 14
    assert all(codes == [f"repeated_{kind}" for kind in ALL] for codes in found[14:])
