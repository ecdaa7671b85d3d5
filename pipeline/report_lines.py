"""The report lines of a run as sentences for people."""

from __future__ import annotations

from typing import Any

#: What a verdict's reason means, for someone at the terminal.
REASONS = {
    "llr_upper": "the evidence for a live person reached the bound",
    "llr_lower": "the evidence for an attack reached the bound",
    "deadline": "time ran out before the evidence reached a bound",
    "no_face": "no face was seen",
    "track_lost": "the face was lost and another one came",
    "quality_insufficient": "too few frames were fit to be judged",
    "face_swapped": "another face took the place of the first",
    "stream_stale": "the camera's frames stopped coming",
    "stream_ended": "the recording ended",
    "clock_jump": "the camera's clock jumped",
    "device_lost": "the camera was lost",
    "model_unverified": "the checkpoint may not decide here: it is untrained, or trained on simulated data only on a "
                        "camera that is not simulated, or policy does not allow its purpose",
    "calibration_missing": "what scores of this kind of camera are worth as evidence was never measured: "
                           "mmdg calibrate score, mmdg policy compile",
    "model_changed": "the checkpoint changed during the session",
    "engine_error": "a process of the pipeline was lost",
    "engine_stopped": "the pipeline was stopped",
    "stream_repeated": "the camera showed the same picture twice, which no sensor does",
    "camera_changed": "the frames came from another camera than the one that was opened",
    "audit_failed": "the decision could not be recorded in the audit log",
    "locked_out": "the camera is locked after several attacks",
    "rate_limited": "too many sessions a minute",
    "cancelled": "the kiosk cancelled",
    "abandoned": "the kiosk fell silent",
}


def _decision(line: dict[str, Any]) -> str:
    reason = line["reason"]
    meaning = REASONS.get(reason) or (f"the {reason.partition(':')[2]} plane is missing"
                                      if reason.startswith("modality_missing:") else reason)
    simulated = " [simulated]" if line["simulated"] else ""
    return (f"{line['camera']}: {line['verdict'].upper()}{simulated} ({reason}) - {meaning}; "
            f"{line['frames_used']} frames in {line['time_to_decision_ms'] / 1e3:.1f} s")


def render(line: dict[str, Any], *, scores: bool) -> str | None:
    """One line of text, or None for a report that people are not shown. `scores`: show each frame's score."""
    match line["type"]:
        case "session.started":
            return f"{line['camera']}: someone is here, session {line['session_id']} ({line['origin']})"
        case "session.phase":
            return f"  {line['phase']}"
        case "guidance":
            return f"  guidance: {line['code'] or 'fine'}"
        case "decision":
            return _decision(line)
        case "security.alert":
            return f"{line['camera']}: SECURITY {line['code']}: {line['detail']}"
        case "score" if scores:
            if line["failed"] is not None:
                return f"  frame {line['sequence']}: not scored: {line['failed']}"
            doubt = ", ".join(f"{m} {u:.2f}" for m, u in line["uncertainty"].items())
            return f"  frame {line['sequence']}: logit {line['logit']:+.3f} (uncertainty {doubt})"
    return None
