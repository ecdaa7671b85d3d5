"""What a kiosk may read of a decision."""

import math
from dataclasses import replace

import msgspec
import pytest

from pipeline.audit_records import policy_hash
from pipeline.kiosk_decision import (
    Decision,
    confidence_of,
    decision_payload,
    policy_id_of,
)
from pipeline.policy import Policy
from pipeline.verdict import DecisionRecord, Origin, Verdict
from tests.pipeline.scene import MODEL, POINT, QUICK

CALIBRATED = replace(MODEL, operating_point=POINT)


def record(**changes):
    values = {
        "session_id": "s", "origin": Origin.KIOSK, "camera": "front", "verdict": Verdict.BONA_FIDE, "nonce": "n",
        "reason": "llr_upper", "examined": True, "frames_used": 9, "effective_frames": 1.234, "modalities_used": (),
        "time_to_decision_ms": 812.34567, "policy": "quick", "model": CALIBRATED, "simulated": False, "evidence": 5.0,
        "transaction_hash": None, "expires_in_ms": 5000, "counters": {"score_too_old": 2},
        "would_decide": Verdict.BONA_FIDE, "calibration_id": POINT.calibration_id}
    return DecisionRecord(**(values | changes))


@pytest.mark.parametrize(("evidence", "bucket"), [
    (0.0, "low"), (math.log(99) - 1e-6, "low"), (math.log(99) + 1e-6, "medium"), (math.log(999) - 1e-6, "medium"),
    (math.log(999) + 1e-6, "high"), (1e6, "high"), (-1e6, "low"), (float("nan"), "none")])
def test_the_bucket_of_an_accepted_attempt_is_its_posterior_at_even_odds(evidence, bucket):
    assert confidence_of(record(evidence=evidence)) == bucket


@pytest.mark.parametrize("verdict", [Verdict.ATTACK, Verdict.UNDECIDED])
def test_who_was_not_accepted_learns_nothing_from_it(verdict):
    assert {confidence_of(record(verdict=verdict, evidence=e)) for e in (-20.0, -5.0, 0.0, 4.0, 9.0)} == {"none"}


def test_uncalibrated_evidence_has_no_bucket():
    assert confidence_of(record(calibration_id=None)) == "none"


def test_the_payload_holds_what_it_may_and_no_more():
    payload = decision_payload(record(), 4, "now", policy=QUICK, key_id="k")
    fields = msgspec.json.decode(payload)
    assert set(fields) == {"type", *Decision.__struct_fields__}
    assert not {"evidence", "counters", "would_decide", "llr", "logit"} & set(fields)
    assert (fields["time_to_decision_ms"], fields["effective_frames"], fields["key_id"]) == (812.346, 1.23, "k")
    assert fields["policy_id"] == policy_id_of(QUICK)
    assert fields["calibration_id"] == POINT.calibration_id
    assert msgspec.json.decode(payload, type=Decision).verdict == "bona_fide"


def test_ids_name_their_content():
    assert policy_id_of(Policy()) == policy_id_of(Policy())
    assert policy_id_of(Policy()) != policy_id_of(Policy(apcer_max=0.02))
    assert replace(POINT, logit_scale=0.6).calibration_id != POINT.calibration_id
    assert len(policy_id_of(Policy())) == len(POINT.calibration_id) == 16


def test_a_decision_names_its_policy_as_the_audit_log_does():
    assert policy_hash(QUICK).startswith(msgspec.json.decode(
        decision_payload(record(), 4, "now", policy=QUICK, key_id="k"))["policy_id"])
