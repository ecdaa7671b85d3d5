"""What ends a session, and with which verdict and reason."""

import msgspec
import pytest

from pipeline.decision import Decided, GuidanceChanged, SessionEnded
from tests.pipeline.engine_scene import FRAME, SLOW, START, Scene, ended, process
from tests.pipeline.scene import CAMERA, EPOCH, MS, observation, request


def test_another_face_after_evidence_ends_the_session():
    assert Scene().both(2).see(tracks=[2]).outcome() == ("undecided", "face_swapped")


def test_another_face_before_any_evidence_is_followed():
    scene = Scene().see().see(tracks=[2])
    for _ in range(3):
        scene.see(tracks=[2]).hear(track_id=2)
    assert scene.outcome() == ("bona_fide", "llr_upper")


def test_another_face_is_noticed_even_across_a_reset():
    assert Scene().both(2).see(tracks=[1, 2]).see(tracks=[2]).outcome() == ("undecided", "face_swapped")


def test_silence_of_the_camera_ends_the_session_by_the_timer_alone():
    scene = Scene().both(2)
    due_ns = scene.engine.next_deadline_ns()
    assert due_ns == scene.now_ns + 150 * MS + 1
    assert scene.pass_ms(150).of(Decided) == []
    assert scene.pass_ms(1).outcome() == ("undecided", "stream_stale")
    assert scene.of(SessionEnded)[0].reason == "device_lost"


def test_a_camera_that_never_says_a_word_ends_the_session():
    assert Scene().pass_ms(151).outcome() == ("undecided", "stream_stale")


def test_a_gap_between_stamps_is_a_stall_even_when_both_frames_arrive_together():
    scene = Scene().both(2)
    scene.now_ns += 200 * MS
    assert scene.see().outcome() == ("undecided", "stream_stale")


def test_a_slow_camera_may_be_slow():
    scene = Scene(SLOW).see(frame_period_ms=100.0)
    assert scene.pass_ms(449).of(Decided) == []
    assert scene.pass_ms(2).outcome() == ("undecided", "stream_stale")


def test_a_session_knows_from_frames_before_it_how_slow_its_camera_is():
    """One late first frame does not spoil a session: at ten frames a second it may come 450 ms after the begin."""
    scene = Scene(SLOW, begin=False).see(frame_period_ms=100.0)
    scene.events += scene.engine.begin(request(SLOW), scene.now_ns)
    assert scene.pass_ms(449).of(Decided) == []
    assert scene.pass_ms(2).outcome() == ("undecided", "stream_stale")


def test_the_first_frame_of_a_slow_camera_tells_how_slow_it_is():
    scene = Scene(SLOW)
    scene.now_ns += 140 * MS
    scene.see(frame_period_ms=100.0)
    assert scene.of(Decided) == []
    scene.now_ns += 300 * MS
    assert scene.see(frame_period_ms=100.0).of(Decided) == []


def test_no_face_for_two_seconds_ends_the_session():
    scene = Scene()
    while not scene.of(Decided):
        scene.see(tracks=[])
    assert scene.outcome() == ("undecided", "no_face")
    assert 2000 < scene.record.time_to_decision_ms < 2040
    assert scene.record.examined is False
    assert [e.code for e in scene.of(GuidanceChanged)] == ["no_face"]


@pytest.mark.parametrize(("changes", "reason"), [
    ({}, "deadline"),
    ({"conditions": ["too_dark"]}, "quality_insufficient"),
    ({"tracks": [1, 2]}, "quality_insufficient"),
    ({"modalities": ["rgb", "depth"]}, "modality_missing:infrared"),
    ({"modalities": ["rgb"]}, "modality_missing:depth"),
])
def test_the_deadline_says_why(changes, reason):
    scene = Scene(SLOW)
    while not scene.of(Decided):
        scene.both(1, logit=6.0, **changes)
    assert scene.outcome() == ("undecided", reason)
    assert 5000 < scene.record.time_to_decision_ms < 5040
    assert scene.of(SessionEnded)[0].reason == "timeout"


def test_a_kiosk_may_ask_for_another_deadline_but_never_beyond_the_hard_one():
    for asked_ms, expected_ms in ((700, 700), (60_000, 10_000)):
        scene = Scene(SLOW, begin=False)
        scene.events += scene.engine.begin(request(SLOW, deadline_ms=asked_ms), scene.now_ns)
        while not scene.of(Decided):
            scene.both()
        assert expected_ms < scene.record.time_to_decision_ms < expected_ms + 40


def test_with_a_compiled_policy_a_kiosk_may_ask_for_less_time_and_never_for_more_than_was_tested():
    compiled = msgspec.structs.replace(SLOW, threshold_id="a" * 64)
    for asked_ms, expected_ms in ((700, 700), (9000, 5000), (None, 5000)):
        scene = Scene(compiled, begin=False)
        scene.events += scene.engine.begin(request(compiled, deadline_ms=asked_ms), scene.now_ns)
        while not scene.of(Decided):
            scene.both()
        assert expected_ms < scene.record.time_to_decision_ms < expected_ms + 40


@pytest.mark.parametrize(("event", "reason"), [
    (process("lost", "inference"), "engine_error"),
    (process("lost", "hub"), "engine_error"),
    (process("lost", "camera", CAMERA), "device_lost"),
    (process("lost", "camera", "camera-process", camera=CAMERA), "device_lost"),
    (process("lost", "camera", "a-name-nobody-knows"), "device_lost"),
    (process("lost", "a-role-nobody-knows"), "engine_error"),
    (process("ready", "inference", model_hash="other", purpose="release"), "model_changed"),
    (ended("device_lost"), "device_lost"),
    (ended("corrupt_stream"), "device_lost"),
    (ended("a-reason-nobody-knows"), "device_lost"),
    (ended("end_of_stream"), "stream_ended"),
    (ended("stopped"), "engine_stopped"),
])
def test_a_lost_process_ends_the_session_undecided(event, reason):
    scene = Scene().both(2)
    scene.events += scene.engine.process_event(event, scene.now_ns)
    assert scene.both(3).outcome() == ("undecided", reason)


def test_another_cameras_end_is_none_of_this_sessions_business():
    scene = Scene(cameras=[CAMERA, "back"]).both(2)
    scene.events += scene.engine.process_event(process("lost", "camera", "back"), scene.now_ns)
    assert scene.both(1).outcome() == ("bona_fide", "llr_upper")


def test_a_restarted_camera_ends_a_session_that_has_evidence():
    assert Scene().both(1).see(epoch=EPOCH + 1).outcome() == ("undecided", "device_lost")


def test_a_restarted_camera_is_followed_when_nothing_was_counted():
    scene = Scene().see().see(epoch=EPOCH + 1)
    scene.hear()  # of the old epoch
    for _ in range(3):
        scene.see(epoch=EPOCH + 1).hear(epoch=EPOCH + 1)
    assert scene.outcome() == ("bona_fide", "llr_upper")
    assert scene.record.frames_used == 3


@pytest.mark.parametrize("stamp_of", [lambda now: now - 2 * FRAME, lambda now: now, lambda now: 0,
                                      lambda now: now + 10_000 * FRAME])
def test_an_impossible_stamp_ends_the_session(stamp_of):
    scene = Scene().both(2)
    scene.see(stamp_ns=stamp_of(scene.now_ns))
    assert scene.outcome() == ("undecided", "clock_jump")


def test_a_repeated_observation_does_not_keep_the_session_alive():
    scene = Scene().both(2)
    repeated = observation(scene.sequence, scene.now_ns)
    for _ in range(5):
        scene.now_ns += FRAME
        scene.events += scene.engine.observe(repeated, scene.now_ns)
    assert scene.engine.counters["repeated_observation"] == 5
    assert scene.pass_ms(0).outcome() == ("undecided", "stream_stale")


def test_cancel_and_stop_and_abandonment_are_decisions_too():
    scene = Scene().both(2)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.engine.cancel("s1", scene.now_ns) == []
    assert scene.outcome() == ("undecided", "cancelled")
    scene = Scene().both(2)
    scene.events += scene.engine.stop(scene.now_ns)
    assert scene.outcome() == ("undecided", "engine_stopped")


def test_two_missed_keepalives_abandon_a_session_and_a_kept_one_lives():
    for kept in (False, True):
        scene = Scene(SLOW, begin=False)
        scene.events += scene.engine.begin(request(SLOW, needs_keepalive=True), scene.now_ns)
        while not scene.of(Decided):
            scene.see()
            if kept:
                scene.engine.keepalive("s1", scene.now_ns)
        assert scene.outcome() == ("undecided", "deadline" if kept else "abandoned")


def test_nothing_comes_after_the_decision():
    scene = Scene().both(3)
    before = list(scene.events)
    scene.both(5).pass_ms(10_000)
    scene.events += scene.engine.stop(scene.now_ns)
    assert scene.events == before
    assert scene.engine.next_deadline_ns() is None


def test_the_last_word_of_an_earlier_camera_process_ends_nothing():
    scene = Scene().both(2)
    scene.events += scene.engine.process_event(ended("device_lost", epoch=EPOCH - 1, stamp_ns=START), scene.now_ns)
    assert scene.of(Decided) == []
    scene.events += scene.engine.process_event(ended("device_lost", epoch=EPOCH + 1, stamp_ns=scene.now_ns + 1),
                                               scene.now_ns)
    assert scene.outcome() == ("undecided", "device_lost")


def test_a_camera_may_end_before_it_was_seen():
    scene = Scene()
    scene.events += scene.engine.process_event(ended("device_lost"), scene.now_ns)
    assert scene.outcome() == ("undecided", "device_lost")


def test_keepalive_tells_whether_the_session_is_open():
    scene = Scene()
    assert scene.engine.keepalive("s1", scene.now_ns) is True
    assert scene.engine.keepalive("s2", scene.now_ns) is False


def test_giving_up_on_a_camera_ends_its_session_only():
    scene = Scene(cameras=[CAMERA, "back"])
    assert scene.engine.fail_camera("back", scene.now_ns) == []
    scene.events += scene.engine.fail_camera(CAMERA, scene.now_ns)
    assert scene.outcome() == ("undecided", "engine_error")
