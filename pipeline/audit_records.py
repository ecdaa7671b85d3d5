"""What the audit log tells of an event: ids, codes, hashes and times. Pure.

Never a pixel, an embedding, or a score: the evidence of a session is told only where it was accepted, so that nobody
who reads the log can climb by it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.policy import Policy
from pipeline.session import Decided, Event, SecurityAlert, SessionEnded, SessionStarted
from pipeline.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record to be. urgent: flushed to the disk before anybody is told of the event."""

    kind: str
    content: dict[str, Any]
    urgent: bool = False


def policy_hash(policy: Policy) -> str:
    """SHA-256 of a policy with every value it has, stated or default, as JSON with sorted keys."""
    return hashlib.sha256(msgspec.json.encode(policy, order="sorted")).hexdigest()


def entry_of(event: Event) -> Entry | None:
    """The record of an event; None for guidance and phases, which are for screens."""
    match event:
        case SessionStarted(request=request):
            return Entry(kind="session.begun", content={
                "session_id": request.session_id, "camera": request.camera, "origin": request.origin.value,
                "policy": request.policy.name, "policy_sha256": policy_hash(request.policy), "nonce": request.nonce,
                "transaction_hash": request.transaction_hash, "deadline_ms": request.deadline_ms})
        case Decided(record=record):
            content: dict[str, Any] = {
                "session_id": record.session_id, "camera": record.camera, "origin": record.origin.value,
                "verdict": record.verdict.value, "reason": record.reason, "examined": record.examined,
                "frames_used": record.frames_used, "effective_frames": round(record.effective_frames, 2),
                "modalities_used": [modality.value for modality in record.modalities_used],
                "time_to_decision_ms": round(record.time_to_decision_ms, 1), "policy": record.policy,
                "model_hash": record.model.model_hash if record.model else None,
                "model_purpose": record.model.purpose.value if record.model else None, "simulated": record.simulated,
                "nonce": record.nonce, "transaction_hash": record.transaction_hash,
                "expires_in_ms": record.expires_in_ms, "counters": record.counters}
            if record.verdict is Verdict.BONA_FIDE:
                content["evidence"] = round(record.evidence, 3)
            return Entry(kind="session.decided", content=content, urgent=True)
        case SessionEnded(session_id=session_id, reason=reason):
            return Entry(kind="session.ended", content={"session_id": session_id, "reason": reason})
        case SecurityAlert(code=code, camera=camera, session_id=session_id, detail=detail):
            return Entry(kind="security.alert", urgent=True, content={
                "code": code, "camera": camera, "session_id": session_id, "detail": detail[:500]})
        case _:
            return None
