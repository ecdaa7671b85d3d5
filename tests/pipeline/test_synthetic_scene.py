"""The made-up scene by itself, in virtual time."""

import itertools

import pytest

from mmdg_model.scorer import Purpose
from pipeline.decision import Decided, DecisionEngine, GuidanceChanged, SessionRequest
from pipeline.messages import Observation, ProcessEvent, Score
from pipeline.policy import Policy
from pipeline.synthetic_scene import (
    SCENES,
    SYNTHETIC_MODEL,
    FaultError,
    SyntheticFaults,
    SyntheticScene,
    parse_faults,
)
from pipeline.verdict import Origin

MS = 1_000_000
POLICY = Policy(allowed_purposes=(Purpose.SIMULATED,), frame_correlation=0.0, min_frames=3, uncertainty_weight=0.0)


def judged(scene, fault="", *, deadline_ms=5000, policy=POLICY):
    """The decision record and guidance codes of one session before a scene, from one due moment to the next."""
    engine = DecisionEngine({"default": policy}, cameras=("front",), model=SYNTHETIC_MODEL)
    source = SyntheticScene("front", scene, faults=parse_faults(fault))
    now_ns, codes, began = 0, [], False
    while True:
        now_ns = max(now_ns, min([source.next_due_ns(), *filter(None, [engine.next_deadline_ns()])]))
        events = []
        for message in source.step(now_ns):
            match message:
                case Observation():
                    events += engine.observe(message, now_ns)
                case Score():
                    events += engine.score(message, now_ns)
                case ProcessEvent():
                    events += engine.process_event(message, now_ns)
        events += engine.tick(now_ns)
        codes += [event.code for event in events if isinstance(event, GuidanceChanged)]
        for event in events:
            if isinstance(event, Decided):
                return event.record, codes
        if not began and now_ns > 200 * MS:
            began = True
            engine.begin(SessionRequest(session_id="s", camera="front", policy=policy, origin=Origin.KIOSK,
                                        deadline_ms=deadline_ms), now_ns)
            source.session_began(now_ns)


@pytest.mark.parametrize(("scene", "verdict", "reason"), [
    ("bona_fide", "bona_fide", "llr_upper"), ("print", "attack", "llr_lower"), ("screen", "attack", "llr_lower"),
    ("mask", "attack", "llr_lower"), ("nobody", "undecided", "no_face"),
    ("two_people", "undecided", "quality_insufficient")])
def test_each_scene_comes_to_its_verdict(scene, verdict, reason):
    record, _ = judged(scene)
    assert (record.verdict.value, record.reason, record.simulated) == (verdict, reason, True)


def test_the_default_policy_cannot_decide_the_doubtful_scene():
    record, codes = judged("doubtful", policy=Policy(allowed_purposes=(Purpose.SIMULATED,)))
    assert (record.verdict.value, record.reason) == ("undecided", "deadline")
    assert codes == ["move_closer", None]


def test_there_is_a_test_for_every_scene():
    assert set(SCENES) == {"bona_fide", "print", "screen", "mask", "nobody", "two_people", "doubtful"}


@pytest.mark.parametrize("scene", ["bona_fide", "print"])
@pytest.mark.parametrize(("fault", "reason", "within_ms"), [
    ("stall:2s", "stream_stale", 1000), ("drop:ir", "modality_missing:infrared", 5001),
    ("drop:depth", "modality_missing:depth", 5001), ("skew:20ms", "stream_stale", 200),
    ("kill:inference", "engine_error", 801), ("kill:hub", "engine_error", 801), ("kill:camera", "device_lost", 801)])
def test_no_fault_leads_to_a_verdict(scene, fault, reason, within_ms):
    # So many frames are asked for that the evidence is not complete when the fault strikes.
    record, _ = judged(scene, fault, policy=Policy(allowed_purposes=(Purpose.SIMULATED,), min_frames=20))
    assert (record.verdict.value, record.reason) == ("undecided", reason)
    assert record.time_to_decision_ms <= within_ms


def test_a_skew_within_half_a_period_harms_nothing():
    assert judged("bona_fide", "skew:10ms")[0].verdict.value == "bona_fide"


def test_the_next_session_after_a_killed_process_works():
    source = SyntheticScene("front", "bona_fide", faults=parse_faults("kill:camera"))
    source.session_began(0)
    said, now_ns = [], 0
    while now_ns < 4000 * MS:
        now_ns = max(now_ns + 1, source.next_due_ns())
        said += source.step(now_ns)
    assert [message.event for message in said if isinstance(message, ProcessEvent)] == ["lost", "ready"]
    assert {message.epoch for message in said if isinstance(message, Observation)} == {1, 2}
    silent = [b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(said)
              if isinstance(a, Observation) and isinstance(b, Observation)]
    assert max(silent) < 100 * MS  # nobody was seen between `lost` and `ready`


def test_who_comes_late_finds_one_frame():
    source = SyntheticScene("front", "bona_fide")
    assert len([m for m in source.step(10**10) if isinstance(m, Observation)]) == 1
    assert source.next_due_ns() >= 10**10


def test_faults_are_read():
    assert parse_faults("") == SyntheticFaults()
    assert parse_faults("stall:2s,drop:ir,skew:20ms,kill:inference") == SyntheticFaults(
        stall_ms=2000.0, drop=frozenset(("infrared",)), skew_ms=20.0, kill="inference")
    assert parse_faults("drop:ir, drop:depth").drop == {"infrared", "depth"}


@pytest.mark.parametrize("text", ["stall", "stall:2", "stall:soon", "drop:rgb", "kill:decision", "burn:2s", "skew:-1ms",
                                  "stall:2s;drop:ir"])
def test_a_fault_that_there_is_not_is_refused_by_name(text):
    with pytest.raises(FaultError, match=text.partition(":")[0]):
        parse_faults(text)


def test_an_unknown_scene_is_refused():
    with pytest.raises(ValueError, match="clown"):
        SyntheticScene("front", "clown")
