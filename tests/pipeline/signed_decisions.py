"""The one good decision of a session, signed or changed as a test likes."""

import json

from pipeline.kiosk_client import KioskDecision, KioskSession
from pipeline.signing import DecisionSigner

SIGNER, STRANGER = DecisionSigner(bytes(range(32))), DecisionSigner(bytes(32))


def a_session():
    return KioskSession(session_id="s", nonce="ab" * 32, transaction_hash=None, began_ns=0, deadline_ms=5000,
                        keepalive_ms=1000, event_topic="t", signing_keys={SIGNER.key_id: SIGNER.public_key_raw})


GOOD = {"type": "decision", "contract": 1, "key_id": SIGNER.key_id,
        "modalities_used": ["rgb", "depth", "infrared"], "session_id": "s", "sequence": 5,
        "origin": "kiosk", "camera": "front",
        "verdict": "bona_fide", "reason": "llr_upper", "examined": True, "simulated": False, "nonce": "ab" * 32,
        "transaction_hash": None, "time_to_decision_ms": 900.0, "expires_in_ms": 5000, "model_purpose": "release"}


def received(fields):
    """As the engine would have signed it."""
    payload = json.dumps(fields).encode()
    return KioskDecision(payload, SIGNER.sign(payload))
