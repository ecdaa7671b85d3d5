"""Films through the real decision step: the policy's rules hold, and the peak says what a threshold would do."""

import math

import msgspec
import pytest

from mmdg_model.scorer import Modality, Purpose
from pipeline.policy import SIMULATED_POLICY
from pipeline.simulated_sessions.judging import judge, peak_evidence
from pipeline.verdict import ModelInfo, Verdict
from tests.pipeline.simulated_sessions.films import MODEL, record, scores

POLICY = SIMULATED_POLICY


@pytest.mark.parametrize(("logits", "verdict", "reason", "time_ms"), [
    (6.0, Verdict.BONA_FIDE, "llr_upper", 400),  # five frames: the policy's least
    (-6.0, Verdict.ATTACK, "llr_lower", 400),
    (0.1, Verdict.UNDECIDED, "stream_ended", 1100),
])
def test_a_session_is_decided_in_recorded_time(logits, verdict, reason, time_ms):
    film = record()
    judged = judge(film, scores(film, logits), POLICY, MODEL)
    assert (judged.decision.verdict, judged.decision.reason) == (verdict, reason)
    assert judged.decision.time_to_decision_ms == time_ms
    assert judged.decision.simulated
    assert judged.responded


def test_frames_without_a_face_delay_and_none_at_all_is_no_response():
    film = record(missed=range(3))
    judged = judge(film, scores(film, 6.0), POLICY, MODEL)
    assert (judged.decision.verdict, judged.decision.time_to_decision_ms) == (Verdict.BONA_FIDE, 700)
    assert (judged.frames, judged.missed) == (12, 3)
    empty = record(missed=range(12))
    judged = judge(empty, [], POLICY, MODEL)
    assert judged.decision.verdict is Verdict.UNDECIDED
    assert not judged.responded


@pytest.mark.parametrize("model", [
    ModelInfo(model_hash=MODEL.model_hash, purpose=Purpose.TEST, operating_point=MODEL.operating_point)])
def test_a_checkpoint_that_may_not_decide_does_not(model):
    film = record()
    assert judge(film, scores(film, 6.0), POLICY, model).decision.verdict is Verdict.UNDECIDED


def test_a_withheld_modality_is_missed_by_a_policy_that_requires_it():
    film = record()
    judged = judge(film, scores(film, 6.0), POLICY, MODEL, withheld=(Modality.DEPTH,))
    assert judged.decision.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("logits", [
    [1.0] * 12, [2.0, 1.0, -1.0, 3.0, 2.0, 1.0, 0.5, 2.5, 1.0, -0.5, 1.0, 2.0], [-0.4, 0.3] * 6,
    [3.0] * 6 + [-4.0] * 6])
@pytest.mark.parametrize("threshold", [4.6, 6.0, 9.0, 14.0])
def test_a_session_is_accepted_exactly_when_its_peak_reaches_the_bound(logits, threshold):
    film = record()
    policy = msgspec.structs.replace(POLICY, min_accept_evidence=threshold, min_frames=3)
    accepted = judge(film, scores(film, logits, 0.2), policy, MODEL).decision.verdict is Verdict.BONA_FIDE
    assert accepted == (peak_evidence(film, scores(film, logits, 0.2), policy, MODEL) >= threshold)


def test_what_never_counts_has_no_peak():
    film = record(frames=4)
    assert peak_evidence(film, scores(film, 6.0), POLICY, MODEL) == -math.inf
    rejected = record()
    assert peak_evidence(rejected, scores(rejected, [-6.0] * 6 + [20.0] * 6), POLICY, MODEL) == -math.inf
