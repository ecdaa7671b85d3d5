"""The golden transcripts are what this code sends, are valid by the schema, and are judged as they say."""

import base64
import json

import pytest
from jsonschema import Draft202012Validator

from pipeline.kiosk_client import KioskDecision, KioskError, KioskSession, is_open
from pipeline.kiosk_schema import json_schema
from pipeline.signing import verify
from tests.pipeline.kiosk_transcripts import FOLDER, decision_cases, files

KEYS = json.loads((FOLDER / "keys.json").read_text())
PUBLIC = base64.b64decode(KEYS["public_key"])
CASES = [json.loads(line) for line in (FOLDER / "decisions.jsonl").read_text().splitlines()]
TRANSCRIPTS = sorted(path.name for path in FOLDER.glob("*.jsonl") if path.name != "decisions.jsonl")


def lines_of(name):
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def test_the_committed_files_are_what_the_code_sends():
    """After a change of the contract: `python -m tests.pipeline.kiosk_transcripts`."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir() if path.suffix != ".md"} == files()


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_each_message_is_valid_by_the_schema_and_each_decision_is_signed(name):
    validator = Draft202012Validator(json_schema())
    decisions = []
    for line in lines_of(name):
        frames = line["frames"][1:] if line["socket"] == "events" else line["frames"]
        if line["from"] == "engine":
            validator.validate(json.loads(frames[0]))
        if len(frames) == 3:
            validator.validate(json.loads(frames[1]))
            signature = base64.b64decode(frames[2]["base64"])
            assert verify(PUBLIC, frames[1].encode(), signature)
            decisions.append((frames[1], signature))
    if name != "refusals.jsonl":
        assert len(decisions) == 3  # published, sent to the owner, read again
    assert len(set(decisions)) == 1


@pytest.mark.parametrize(("name", "verdict", "reason"), [
    ("bona_fide.jsonl", "bona_fide", "llr_upper"), ("attack.jsonl", "attack", "llr_lower"),
    ("no_face.jsonl", "undecided", "no_face"), ("camera_stalls.jsonl", "undecided", "stream_stale"),
    ("infrared_missing.jsonl", "undecided", "modality_missing:infrared"),
    ("inference_killed.jsonl", "undecided", "engine_error"), ("refusals.jsonl", "undecided", "cancelled")])
def test_what_each_transcript_shows(name, verdict, reason):
    decision = next(json.loads(line["frames"][1]) for line in lines_of(name)
                    if line["socket"] == "commands" and len(line["frames"]) == 3)
    assert (decision["verdict"], decision["reason"]) == (verdict, reason)
    events = [json.loads(line["frames"][1]) for line in lines_of(name) if line["socket"] == "events"]
    assert "session.ended" in [event["type"] for event in events]
    if name != "refusals.jsonl":
        assert "session.state" in [event["type"] for event in events]


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_is_open_judges_each_case_as_the_file_says(case):
    session = KioskSession(session_id=KEYS["session_id"], nonce=KEYS["nonce"], began_ns=0, deadline_ms=5000,
                           transaction_hash=KEYS["transaction_hash"], keepalive_ms=1000, event_topic="t",
                           signing_keys={KEYS["key_id"]: PUBLIC})
    try:
        decision = KioskDecision(case["payload"].encode(), base64.b64decode(case["signature"]))
    except KioskError:
        decision = None
    assert is_open(decision, session, accept_simulated=KEYS["accept_simulated"], now_ns=case.get("at_ms", 10) * 10**6,
                   required_modalities=KEYS["required_modalities"]) is case["opens"]


def test_some_case_opens_and_most_do_not():
    assert [case["opens"] for case in decision_cases()].count(True) == 2
    assert len(CASES) > 30
