"""The hub: newest wins, each bundle at most once, credit is idempotent, every drop is counted by its cause."""

from __future__ import annotations

import pytest

from pipeline import messages
from pipeline.hub import ANSWER_LOST_AFTER_NS, WORKER_SILENT_AFTER_NS, Hub
from pipeline.messages import BundleHeader, Quality, Ready

MS = 1_000_000
QUALITY = Quality(face_width_px=100, distance_m=0.5, sharpness=100, brightness=100, depth_fill=1,
                  infrared_brightness=0.5, infrared_saturation=0, yaw_deg=0, pitch_deg=0, roll_deg=0)


def bundle(sequence: int, camera: str = "door", epoch: int = 1, arrival_ns: int = 0,
           lockstep: bool = False) -> list[bytes]:
    return [messages.encode(BundleHeader(
        camera=camera, source="S", epoch=epoch, sequence=sequence, track_id=0, view="colour", planes=[],
        depth_unit_m=1e-4, infrared_bit_depth=8, frames=[], rig_hash="r", quality=QUALITY,
        stamps_ns={"arrival": arrival_ns}, lockstep=lockstep))]


def ready(credit: int) -> bytes:
    return messages.encode(Ready(worker="w", credit=credit))


def sequences(hub: Hub, now_ns: int) -> list[int]:
    return [handout.sequence for handout in hub.hand_out(now_ns)]


def test_the_newest_bundle_wins_and_is_handed_out_once() -> None:
    hub = Hub()
    hub.offer(bundle(0), 0)
    hub.offer(bundle(1), 0)
    hub.ready(b"w", ready(0), 0)
    assert sequences(hub, 0) == [1]
    assert sequences(hub, 0) == []
    assert hub.counters["replaced"] == 1


def test_without_credit_nothing_is_handed_out() -> None:
    hub = Hub()
    hub.offer(bundle(0), 0)
    assert sequences(hub, 0) == []


def test_a_repeated_ready_is_one_credit() -> None:
    hub = Hub()
    hub.ready(b"w", ready(0), 0)
    hub.ready(b"w", ready(0), 1)
    hub.offer(bundle(0), 2)
    assert sequences(hub, 2) == [0]
    hub.ready(b"w", ready(0), 3)
    hub.offer(bundle(1), 3)
    assert sequences(hub, 3) == []
    hub.ready(b"w", ready(1), 4)
    assert sequences(hub, 4) == [1]


def test_a_worker_that_never_got_its_answer_is_served_again() -> None:
    hub = Hub(max_age_ms=1e6)
    hub.ready(b"w", ready(0), 0)
    hub.offer(bundle(0), 0)
    assert sequences(hub, 0) == [0]
    hub.offer(bundle(1), 1)
    hub.ready(b"w", ready(0), ANSWER_LOST_AFTER_NS + 1)
    assert sequences(hub, ANSWER_LOST_AFTER_NS + 1) == [1]
    assert hub.counters["credit_reissued"] == 1


@pytest.mark.parametrize(("age_ms", "lockstep", "expected"), [
    (249, False, [0]),
    (251, False, []),
    (10_000, True, [0]),  # lock-step: recorded time is the clock, nothing is dropped
])
def test_age_counts_from_the_arrival_of_the_frames(age_ms: int, lockstep: bool, expected: list[int]) -> None:
    hub = Hub(max_age_ms=250)
    hub.offer(bundle(0, lockstep=lockstep), age_ms * MS)
    hub.ready(b"w", ready(0), age_ms * MS)
    assert sequences(hub, age_ms * MS) == expected
    assert hub.counters["too_old"] == (0 if expected else 1)


def test_cameras_take_turns() -> None:
    hub = Hub()
    order = []
    for turn in range(4):
        hub.offer(bundle(turn, "left"), 0)
        hub.offer(bundle(turn, "right"), 0)
        hub.ready(b"w", ready(turn), 0)
        order += [handout.camera for handout in hub.hand_out(0)]
    assert order == ["left", "right", "left", "right"]


@pytest.mark.parametrize(("first", "second", "accepted"), [
    ((1, 5), (1, 5), False),  # repeated
    ((1, 5), (1, 4), False),  # backwards
    ((1, 5), (2, 0), True),  # a new epoch starts again
    ((1, 5), (1, 9), True),  # gaps are the camera's business
])
def test_a_sequence_never_goes_back_within_an_epoch(first: tuple[int, int], second: tuple[int, int],
                                                    accepted: bool) -> None:
    hub = Hub()
    for epoch, sequence in (first, second):
        hub.offer(bundle(sequence, epoch=epoch), 0)
    assert hub.counters["received"] == (2 if accepted else 1)
    assert hub.counters["sequence_back"] == (0 if accepted else 1)


@pytest.mark.parametrize("frames", [[], [b""], [b"\x00" * 40], [ready(0)], [*bundle(0), b"a plane too many"]])
def test_a_malformed_bundle_is_counted_and_the_hub_lives(frames: list[bytes]) -> None:
    hub = Hub()
    hub.offer(frames, 0)
    hub.offer(bundle(0), 0)
    hub.ready(b"w", ready(0), 0)
    assert hub.counters["malformed_bundle"] == 1
    assert sequences(hub, 0) == [0]


@pytest.mark.parametrize("message", [b"", b"\xff", bundle(0)[0]])
def test_a_malformed_ready_gives_no_credit(message: bytes) -> None:
    hub = Hub()
    hub.offer(bundle(0), 0)
    hub.ready(b"w", message, 0)
    assert sequences(hub, 0) == []
    assert hub.counters["malformed_ready"] == 1


def test_a_silent_worker_gets_nothing_more() -> None:
    hub = Hub(max_age_ms=1e9)
    hub.ready(b"w", ready(0), 0)
    hub.offer(bundle(0), 0)
    assert sequences(hub, WORKER_SILENT_AFTER_NS + 1) == []


def test_an_unreachable_worker_is_forgotten() -> None:
    hub = Hub()
    hub.ready(b"w", ready(0), 0)
    hub.offer(bundle(0), 0)
    hub.undeliverable(hub.hand_out(0)[0])
    hub.offer(bundle(1), 0)
    assert sequences(hub, 0) == []
    assert hub.counters["worker_gone"] == 1
