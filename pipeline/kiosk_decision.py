"""The decision as a kiosk reads it: the payload frame, what stands in it and what does not.

There is no score in it: a number that a client can read is something to climb by trial. `confidence` is a coarse bucket
of accepted attempts alone; an attempt that was refused, or came to nothing, learns nothing from it.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from pipeline.audit_records import policy_hash
from pipeline.kiosk_messages import CONTRACT_MAX
from pipeline.policy import Policy
from pipeline.verdict import DecisionRecord, Verdict

Confidence = Literal["none", "low", "medium", "high"]

#: Posterior probability of a bona fide presentation at even prior odds, from which a bucket begins.
BUCKETS: tuple[tuple[float, Confidence], ...] = ((0.999, "high"), (0.99, "medium"), (0.0, "low"))


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """The payload. Only `verdict` = `bona_fide` may open anything, and only after the client's own checks.

    Attributes:
        verdict: ISO/IEC 30107-3 words. reason: see docs/decisions.md; reasons are added, never renamed.
        confidence: bucket of an accepted attempt with calibrated scores, `none` for everything else.
        examined: a face was examined at all. frames_used, effective_frames: N and the independent frames it amounts to.
        time_to_decision_ms: since the engine took `session.begin`. expires_in_ms: after that, do not act on it.
        policy_id: hash of the policy as configured; with `calibration_id` it fixes every threshold. threshold_id: of
            the evidence that the policy was compiled from, null = it was not.
        model_purpose: what the checkpoint was made for. simulated: the camera was a simulation.
        calibration_id: of the map from scores to evidence; null = none.
        key_id: of the key that signs this payload.
        issued_at: wall clock, a label; never compare it. sequence: of its event. origin: `kiosk` or `local`.
    """

    contract: int
    session_id: str
    sequence: int
    origin: Literal["kiosk", "local"]
    camera: str
    verdict: Literal["bona_fide", "attack", "undecided"]
    reason: str
    confidence: Confidence
    examined: bool
    frames_used: int
    effective_frames: float
    modalities_used: list[str]
    time_to_decision_ms: float
    policy: str
    policy_id: str
    threshold_id: str | None
    model_hash: str | None
    model_purpose: str | None
    calibration_id: str | None
    simulated: bool
    nonce: str | None
    transaction_hash: str | None
    issued_at: str
    expires_in_ms: int
    key_id: str


def policy_id_of(policy: Policy) -> str:
    """First 16 hex digits of the policy's hash, which the audit log and the release manifest have in full."""
    return policy_hash(policy)[:16]


def confidence_of(record: DecisionRecord) -> Confidence:
    """The bucket: of accepted attempts whose evidence was calibrated; anything else is `none`."""
    accepted = record.verdict is Verdict.BONA_FIDE and math.isfinite(record.evidence)
    if not accepted or record.calibration_id is None:
        return "none"
    posterior = 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, record.evidence))))
    return next((bucket for bound, bucket in BUCKETS if posterior >= bound), "none")


def decision_payload(record: DecisionRecord, sequence: int, issued_at: str, *, policy: Policy, key_id: str) -> bytes:
    """What a kiosk may know of a record. Scores, evidence and `would_decide` stay inside.

    Args:
        policy: of the session, as configured.
    """
    return msgspec.json.encode(Decision(
        contract=CONTRACT_MAX, session_id=record.session_id, sequence=sequence, origin=record.origin.value,
        camera=record.camera, verdict=record.verdict.value, reason=record.reason, confidence=confidence_of(record),
        examined=record.examined, frames_used=record.frames_used, effective_frames=round(record.effective_frames, 2),
        modalities_used=[m.value for m in record.modalities_used],
        time_to_decision_ms=round(record.time_to_decision_ms, 3), policy=record.policy, policy_id=policy_id_of(policy),
        threshold_id=policy.threshold_id, model_hash=record.model.model_hash if record.model else None,
        model_purpose=record.model.purpose.value if record.model else None, calibration_id=record.calibration_id,
        simulated=record.simulated, nonce=record.nonce, transaction_hash=record.transaction_hash, issued_at=issued_at,
        expires_in_ms=record.expires_in_ms, key_id=key_id))
