"""When a session opens, at a kiosk's word or by itself, and whose weights may decide in it."""

import json
from dataclasses import replace

import msgspec
import pytest

from mmdg_model.scorer import Purpose
from pipeline.decision import Busy, Decided, ModelInfo, NoCamera, NotReady, SessionStarted, UnknownPolicy, Verdict
from pipeline.policy import SIMULATED_POLICY, Policy
from tests.pipeline.engine_scene import SLOW, START, Scene, process
from tests.pipeline.scene import MODEL, MS, POINT, QUICK, request, score


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


def test_cameras_that_are_not_configured_may_show_up_when_none_are_named():
    scene = Scene(begin=False, cameras=None)
    with pytest.raises(NoCamera):
        scene.engine.begin(request(), scene.now_ns)
    scene.see()
    assert scene.engine.begin(request(), scene.now_ns)


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


def test_a_camera_that_is_not_configured_is_not_listened_to():
    scene = local(cameras=["back"]).both(3)
    assert scene.events == []
    assert scene.engine.counters["observation_of_unknown_camera"] == 3
