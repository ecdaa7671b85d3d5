"""Behaviour of whole sessions, driven by values: no clock, no socket."""

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.scorer import Purpose
from pipeline.decision import (
    Busy,
    Decided,
    DecisionEngine,
    GuidanceChanged,
    ModelInfo,
    NoCamera,
    NotReady,
    Phase,
    PhaseChanged,
    SessionEnded,
    SessionStarted,
    UnknownPolicy,
    Verdict,
)
from pipeline.messages import CameraEnded, ProcessEvent
from pipeline.policy import DEFAULT_GATES, SIMULATED_POLICY, Policy
from tests.pipeline.scene import (
    CAMERA,
    EPOCH,
    MODALITIES,
    MODEL,
    MS,
    POINT,
    QUICK,
    TEST_MODEL,
    observation,
    request,
    score,
)

START = 1_000 * MS
FRAME = 33 * MS
SLOW = msgspec.structs.replace(QUICK, min_frames=1000)  # never decides: for everything that ends a session otherwise


class Scene:
    """An engine with an open session, fed frame by frame; `events` is all that came out."""

    def __init__(self, policy=QUICK, model=MODEL, begin=True, **engine):
        self.engine = DecisionEngine({policy.name: policy}, model=model, **({"cameras": [CAMERA]} | engine))
        self.now_ns, self.sequence, self.events = START, 0, []
        if begin:
            self.events += self.engine.begin(request(policy), self.now_ns)

    def see(self, **changes):
        self.now_ns += FRAME
        self.sequence += 1
        stamp_ns = changes.pop("stamp_ns", self.now_ns)
        self.events += self.engine.observe(observation(self.sequence, stamp_ns, **changes), self.now_ns)
        return self

    def hear(self, logit=6.0, **changes):
        sequence = changes.pop("sequence", self.sequence)
        self.events += self.engine.score(score(sequence, logit, **changes), self.now_ns)
        return self

    def both(self, frames=1, logit=6.0, **changes):
        for _ in range(frames):
            self.see(**changes).hear(logit)
        return self

    def pass_ms(self, ms):
        self.now_ns += round(ms * MS)
        self.events += self.engine.tick(self.now_ns)
        return self

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def record(self):
        decided, ended = self.of(Decided), self.of(SessionEnded)
        assert len(decided) == len(ended) == 1, "exactly one decision a session"
        assert self.events.index(ended[0]) == self.events.index(decided[0]) + 1
        return decided[0].record

    def outcome(self):
        return self.record.verdict.value, self.record.reason


def process(event, role, process="p", **detail):
    return ProcessEvent(process=process, role=role, event=event, stamp_ns=0, detail=detail)


def ended(reason, epoch=EPOCH, stamp_ns=START):
    return CameraEnded(camera=CAMERA, source="sim-1", epoch=epoch, reason=reason, detail="", stamp_ns=stamp_ns,
                       counters={})


def test_a_live_face_is_bona_fide_with_everything_a_kiosk_needs_to_know():
    scene = Scene().both(3)
    record = scene.record
    assert scene.outcome() == ("bona_fide", "llr_upper")
    assert (record.frames_used, record.examined, record.nonce) == (3, True, "00" * 16)
    assert [m.value for m in record.modalities_used] == MODALITIES
    assert record.time_to_decision_ms == pytest.approx(99.0)
    assert record.model == MODEL
    assert [e.phase for e in scene.of(PhaseChanged)] == [Phase.SEARCHING, Phase.ACQUIRING, Phase.DECIDING]
    assert isinstance(scene.events[0], SessionStarted)


def test_an_attack_is_an_attack():
    assert Scene().both(3, logit=-6.0).outcome() == ("attack", "llr_lower")


@pytest.mark.parametrize("logit", [6.0, -6.0])
def test_a_test_checkpoint_decides_nothing_and_says_what_it_would_have_said_only_when_asked(logit):
    scene = Scene(model=TEST_MODEL)
    for _ in range(3):
        scene.see().hear(logit, model=TEST_MODEL)
    assert scene.outcome() == ("undecided", "model_unverified")
    assert scene.record.would_decide is None
    exposed = Scene(msgspec.structs.replace(QUICK, expose_would_decide=True), model=TEST_MODEL)
    for _ in range(3):
        exposed.see().hear(logit, model=TEST_MODEL)
    assert exposed.outcome() == ("undecided", "model_unverified")
    assert exposed.record.would_decide is (Verdict.BONA_FIDE if logit > 0 else Verdict.ATTACK)


# --- scores that are no evidence ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("changes", "counter"), [
    ({"epoch": EPOCH + 1}, "score_of_another_epoch"),
    ({"source": "sim-2"}, "score_of_another_epoch"),
    ({"track_id": 2}, "score_of_another_track"),
    ({"failed": "plane missing"}, "score_failed"),
    ({"logit": float("nan")}, "score_not_a_number"),
    ({"logit": float("inf")}, "score_not_a_number"),
    ({"uncertainty": {"rgb": float("nan")}}, "score_not_a_number"),
    ({"modalities": ["rgb", "depth"]}, "score_lacks_modality"),
    ({"modalities": []}, "score_lacks_modality"),
    ({"modalities": ["rgb", "depth", "infrared", "thermal"]}, "score_unknown_word"),
    ({"purpose": "Release"}, "score_unknown_word"),
    ({"model": TEST_MODEL}, "score_of_another_model"),
    ({"model": ModelInfo(model_hash="other", purpose=Purpose.RELEASE)}, "score_of_another_model"),
    ({"model_hash": MODEL.model_hash, "purpose": "test"}, "score_of_another_model"),
])
def test_a_score_that_does_not_match_is_counted_and_left_out(changes, counter):
    scene = Scene()
    for _ in range(5):
        scene.see().hear(**changes)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.counters[counter] == 5
    assert scene.record.frames_used == 0
    assert scene.record.examined is False


def test_one_frame_counts_once_however_often_its_score_comes():
    scene = Scene().both()
    for _ in range(10):
        scene.hear()
    scene.see().see().hear().hear(sequence=scene.sequence - 1)  # backwards
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.frames_used == 2
    assert scene.record.counters["score_repeated"] == 11


def test_a_score_of_a_frame_from_before_the_session_is_no_evidence():
    scene = Scene(begin=False).see()
    scene.events += scene.engine.begin(request(), scene.now_ns + 1)
    scene.hear()
    scene.see().hear(sequence=scene.sequence - 1)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.frames_used == 0


def test_a_score_that_comes_too_late_is_no_evidence():
    scene = Scene()
    scene.see()
    late = scene.sequence
    for _ in range(31):
        scene.see()
    scene.hear(sequence=late)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.frames_used == 0


def test_a_score_that_overtakes_its_observation_waits_for_it():
    scene = Scene().both(2)
    scene.hear(sequence=scene.sequence + 1)
    assert scene.of(Decided) == []
    assert scene.see().outcome() == ("bona_fide", "llr_upper")


def test_scores_may_lag_behind_the_camera():
    scene = Scene()
    for _ in range(10):
        scene.see()
    for sequence in (2, 5, 9):
        scene.hear(sequence=sequence)
    assert scene.outcome() == ("bona_fide", "llr_upper")


def test_a_face_that_is_not_the_subject_is_neither_evidence_nor_a_break():
    scene = Scene().both(2)
    scene.both(1, tracks=[1], subject=None)
    assert scene.of(Decided) == []
    assert scene.both(1).outcome() == ("bona_fide", "llr_upper")


@pytest.mark.parametrize("code", DEFAULT_GATES)
def test_a_gated_frame_is_no_evidence(code):
    scene = Scene()
    scene.both(10, conditions=[code])
    assert scene.of(Decided) == []
    assert scene.both(2).of(Decided) == []
    assert scene.both(1).outcome() == ("bona_fide", "llr_upper")
    assert scene.record.frames_used == 3


# --- resets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("break_it", "cause"), [
    ({"tracks": [1, 2]}, "multiple_faces"),
    ({"track_broken": True}, "track_broken"),
    ({"modalities": ["rgb", "depth"]}, "modality_lost"),
])
def test_a_break_forgets_what_was_gathered(break_it, cause):
    scene = Scene().both(2).see(**break_it)
    scene.both(2)
    assert scene.of(Decided) == []
    scene.both(1)
    assert scene.outcome() == ("bona_fide", "llr_upper")
    assert scene.record.counters[f"reset_{cause}"] == 1
    assert scene.record.frames_used == 3


def test_a_face_gone_for_longer_than_the_gap_starts_anew_and_a_blink_of_the_detector_does_not():
    blink = Scene().both(2).see(tracks=[]).both(1)
    assert blink.outcome() == ("bona_fide", "llr_upper")
    gone = Scene().both(2)
    for _ in range(9):
        gone.see(tracks=[])
    assert gone.both(2).of(Decided) == []
    assert gone.both(1).record.counters["reset_track_gap"] == 1


def test_a_score_of_a_frame_before_the_break_does_not_count_after_it():
    scene = Scene().both(2).see().see(tracks=[1, 2]).see()
    scene.hear(sequence=scene.sequence - 2).hear().both(1)
    assert scene.of(Decided) == []


def test_a_bad_start_cannot_be_wiped_away_by_showing_a_second_face():
    policy = msgspec.structs.replace(QUICK, llr_clip=2.0, bpcer_max=0.001)
    clean = Scene(policy).both(3, logit=2.0)
    assert clean.outcome() == ("bona_fide", "llr_upper")
    tainted = Scene(policy).both(2, logit=-2.0).see(tracks=[1, 2]).both(3, logit=2.0)
    assert tainted.of(Decided) == []


# --- what ends a session --------------------------------------------------------------------------------------------
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


# --- opening --------------------------------------------------------------------------------------------------------
def test_one_session_a_camera():
    scene = Scene()
    with pytest.raises(Busy, match="front"):
        scene.engine.begin(request(session_id="s2"), scene.now_ns)
    scene.both(3)
    assert scene.engine.begin(request(session_id="s2"), scene.now_ns)


def test_what_cannot_begin_says_why():
    with pytest.raises(NoCamera, match=r"'side'.*front"):
        Scene(begin=False).engine.begin(request(camera="side"), START)
    with pytest.raises(NotReady, match="no model"):
        Scene(begin=False, model=None).engine.begin(request(), START)
    with pytest.raises(UnknownPolicy, match=r"'vault'.*quick"):
        Scene(begin=False).engine.policy("vault")
    with pytest.raises(NoCamera, match="lock-step"):
        Scene(begin=False).see(lockstep=True).engine.begin(request(), START)


def test_a_lost_worker_must_come_back_before_a_session_begins():
    scene = Scene(begin=False)
    scene.engine.process_event(process("lost", "inference", "inference-1"), START)
    with pytest.raises(NotReady, match="inference-1"):
        scene.engine.begin(request(), START)
    scene.engine.process_event(process("ready", "inference", "inference-1", model_hash="c0ffee", purpose="release"),
                               START)
    assert scene.engine.begin(request(), START)


def test_a_model_is_announced_only_with_hash_and_purpose():
    scene = Scene(begin=False, model=None)
    scene.engine.process_event(process("ready", "inference", purpose="release"), START)
    scene.engine.process_event(process("ready", "inference", model_hash="x", purpose="prod"), START)
    assert scene.engine.model is None
    scene.engine.process_event(process("ready", "inference", model_hash="x", purpose="release"), START)
    assert scene.engine.model == ModelInfo(model_hash="x", purpose=Purpose.RELEASE)


def test_an_announced_operating_point_is_taken_over_and_a_damaged_one_announces_nothing():
    scene = Scene(begin=False, model=None)
    for text in ("{", "[]", json.dumps(POINT.to_dict() | {"logit_scale": -1.0}), json.dumps({})):
        scene.engine.process_event(process("ready", "inference", model_hash="x", purpose="release",
                                           operating_point=text), START)
        assert scene.engine.model is None
    scene.engine.process_event(process("ready", "inference", model_hash="x", purpose="release",
                                       operating_point=json.dumps(POINT.to_dict())), START)
    assert scene.engine.model.operating_point == POINT


def test_a_session_weighs_logits_by_the_operating_point():
    policy = msgspec.structs.replace(QUICK, frame_correlation=None, min_frames=1000, llr_clip=20.0)
    scene = Scene(policy, model=replace(MODEL, operating_point=POINT)).both(1, logit=6.0)
    session = scene.engine.session("s1")
    assert session.evidence.llr_sum == pytest.approx(0.5 * 6.0 - 1.0)
    assert session.policy.correlation == POINT.frame_correlation
    assert Scene(policy).both(1, logit=6.0).engine.session("s1").evidence.llr_sum == pytest.approx(6.0)


# --- weights trained on simulated data ------------------------------------------------------------------------------
SIMULATED_MODEL = ModelInfo(model_hash="51", purpose=Purpose.SIMULATED)
GENEROUS = msgspec.structs.replace(QUICK, allowed_purposes=tuple(Purpose))


@pytest.mark.parametrize(("logit", "verdict"), [(6.0, Verdict.BONA_FIDE), (-6.0, Verdict.ATTACK)])
@pytest.mark.parametrize(("policy", "seen", "reason"), [
    (GENEROUS, [True, True, True], None),
    (GENEROUS, [False, False, False], "model_unverified"),  # a camera or a recording that is not simulated
    (GENEROUS, [True, False, True], "model_unverified"),  # one real frame is one too many
    (GENEROUS, [False, True, True], "model_unverified"),
    (QUICK, [True, True, True], "model_unverified"),  # the default purposes
])
def test_simulated_weights_decide_only_where_policy_allows_it_and_every_frame_is_simulated(logit, verdict, policy,
                                                                                          seen, reason):
    scene = Scene(policy, model=SIMULATED_MODEL)
    for simulated in seen:
        scene.see(simulated=simulated).hear(logit, model=SIMULATED_MODEL)
    record = scene.record
    if reason is None:
        assert (record.verdict, record.simulated) == (verdict, True)
    else:
        assert (record.verdict, record.reason) == (Verdict.UNDECIDED, reason)


def test_the_shipped_policy_for_simulated_cameras_differs_from_the_default_in_purposes_and_alpha_alone():
    renamed = msgspec.structs.replace(SIMULATED_POLICY, name="default", allowed_purposes=Policy().allowed_purposes,
                                      apcer_max=Policy().apcer_max)
    assert renamed == Policy()
    assert Purpose.TEST not in SIMULATED_POLICY.allowed_purposes


# --- local sessions -------------------------------------------------------------------------------------------------
def local(policy=QUICK, **engine):
    return Scene(policy, begin=False, local_policy=policy, **engine)


def test_a_local_session_opens_for_each_new_subject_and_once():
    scene = local().see(tracks=[]).both(3)
    assert scene.outcome() == ("bona_fide", "llr_upper")
    assert scene.record.origin.value == "local"
    assert scene.record.nonce is None
    assert scene.record.frames_used == 3
    scene.both(20)
    assert len(scene.of(SessionStarted)) == 1
    for _ in range(3):
        scene.see(tracks=[2]).hear(track_id=2)
    assert [e.record.session_id for e in scene.of(Decided)] == ["local-front-1", "local-front-2"]


def test_a_swapped_face_ends_a_local_session_and_opens_the_next():
    scene = local().both(2).see(tracks=[2])
    assert scene.outcome() == ("undecided", "face_swapped")
    assert len(scene.of(SessionStarted)) == 2


def test_no_local_session_without_a_model():
    assert local(model=None).both(5).events == []


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_kiosk_session_never_goes_on_by_the_clock_of_a_recording(before):
    """No timer would end it, and no decision would come."""
    scene = Scene().both(before).see(lockstep=True)
    assert scene.outcome() == ("undecided", "camera_changed")
    assert scene.record.time_to_decision_ms >= 0


def test_in_lockstep_the_recording_is_the_clock():
    scene = local(SLOW).see(lockstep=True)
    scene.pass_ms(3_600_000)  # an hour of slow inference
    scene.now_ns -= 3_600_000 * MS
    assert scene.engine.next_deadline_ns() is None
    host_ns, scene.now_ns = scene.now_ns + 99_999 * MS, scene.now_ns
    while not scene.of(Decided):
        scene.see(lockstep=True)
        scene.events += scene.engine.score(score(scene.sequence), host_ns)
    assert scene.outcome() == ("undecided", "deadline")
    assert 5000 < scene.record.time_to_decision_ms < 5040


# --- whatever happens -----------------------------------------------------------------------------------------------
STEPS = st.one_of(
    st.tuples(st.just("see"), st.fixed_dictionaries({}, optional={
        "tracks": st.sampled_from([[], [1], [1], [2], [1, 2]]),
        "track_broken": st.booleans(),
        "conditions": st.sampled_from([[], ["too_dark"], ["no_face"]]),
        "modalities": st.sampled_from([MODALITIES, MODALITIES, ["rgb", "depth"]]),
        "epoch": st.sampled_from([EPOCH, EPOCH, EPOCH + 1]),
    })),
    st.tuples(st.just("hear"), st.fixed_dictionaries({"logit": st.sampled_from([6.0, 6.0, 6.0, -6.0, float("nan")])},
                                                     optional={
        "track_id": st.sampled_from([1, 1, 2]), "sequence": st.integers(0, 40),
        "failed": st.sampled_from([None, "no"]), "epoch": st.sampled_from([EPOCH, EPOCH + 1]),
        "modalities": st.sampled_from([MODALITIES, ["rgb"]]),
        "model": st.sampled_from([MODEL, MODEL, TEST_MODEL])})),
    st.tuples(st.just("both"), st.fixed_dictionaries({"frames": st.integers(1, 3)})),
    st.tuples(st.just("pass_ms"), st.fixed_dictionaries({"ms": st.sampled_from([0, 10, 140, 200])})),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40), st.sampled_from(list(Purpose)))
def test_no_sequence_of_events_accepts_without_fresh_matching_scores(steps, purpose):
    model = replace(MODEL, purpose=purpose)
    scene = Scene(model=model)
    shown, fresh = {}, []  # what an honest reader of the scene would count
    for verb, arguments in steps:
        before = len(scene.of(Decided))
        if verb == "both":
            for _ in range(arguments["frames"]):
                scene.see()
                shown[scene.sequence] = scene.now_ns
                scene.hear(model=model)
                fresh.append(scene.sequence)
        else:
            getattr(scene, verb)(**arguments)
            if verb == "see":
                shown[scene.sequence] = scene.now_ns
            if verb == "hear" and arguments["logit"] == 6.0 and arguments.get("failed") is None:
                fresh.append(arguments.get("sequence", scene.sequence))
        if before:
            assert len(scene.of(Decided)) == before
    assert len(scene.of(Decided)) <= 1
    for decided in scene.of(Decided):
        record = decided.record
        if purpose is not Purpose.RELEASE:
            assert record.verdict is Verdict.UNDECIDED
        if record.verdict is Verdict.BONA_FIDE:
            assert record.evidence >= QUICK.upper_bound
            assert record.frames_used >= QUICK.min_frames
            assert len(set(fresh) & set(shown)) >= record.frames_used
            assert [m.value for m in record.modalities_used] == MODALITIES
            assert record.examined


def test_without_a_policy_that_says_so_a_simulated_checkpoint_cannot_decide_either():
    assert Policy().allowed_purposes == (Purpose.RELEASE,)


def test_cameras_that_are_not_configured_may_show_up_when_none_are_named():
    scene = Scene(begin=False, cameras=None)
    with pytest.raises(NoCamera):
        scene.engine.begin(request(), scene.now_ns)
    scene.see()
    assert scene.engine.begin(request(), scene.now_ns)


def test_a_camera_that_is_not_configured_is_not_listened_to():
    scene = local(cameras=["back"]).both(3)
    assert scene.events == []
    assert scene.engine.counters["observation_of_unknown_camera"] == 3


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


def test_scores_that_come_early_are_kept_within_a_bound():
    scene = Scene(begin=False)
    for sequence in range(100, 120):
        scene.hear(sequence=sequence)
    assert scene.engine.counters["score_without_observation"] == 12


def test_giving_up_on_a_camera_ends_its_session_only():
    scene = Scene(cameras=[CAMERA, "back"])
    assert scene.engine.fail_camera("back", scene.now_ns) == []
    scene.events += scene.engine.fail_camera(CAMERA, scene.now_ns)
    assert scene.outcome() == ("undecided", "engine_error")
