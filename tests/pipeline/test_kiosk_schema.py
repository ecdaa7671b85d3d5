"""The committed schema is the one of the code, it is a schema, and what the engine sends is valid by it."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from pipeline import signing
from pipeline.kiosk_messages import ERROR_CODES
from pipeline.kiosk_schema import json_schema, schema_text

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_schema_is_current():
    """`mmdg kiosk schema > docs/kiosk-schema.json` after a change, and a new contract version where it breaks."""
    assert (ROOT / "docs" / "kiosk-schema.json").read_text(encoding="utf-8") == schema_text()


def test_it_is_a_schema_and_names_every_message():
    Draft202012Validator.check_schema(json_schema())
    assert {"SessionBegin", "Decision", "ErrorReply", "Health", "GuidanceEvent", "SessionStateEvent", "MetricsGet",
            "SecurityAlertEvent"} <= set(json_schema()["$defs"])


@pytest.mark.parametrize(("message", "valid"), [
    ({"type": "health.get", "contract": 1, "colour": "blue"}, True),
    ({"type": "health.get"}, False), ({"type": "door.open", "contract": 1}, False),
    ({"type": "session.ended", "contract": 1, "sequence": 3, "session_id": "s", "reason": "decided"}, True),
    ({"type": "session.ended", "contract": 1, "sequence": 3, "session_id": "s", "reason": "opened"}, False)])
def test_unknown_fields_are_valid_and_unknown_words_are_not(message, valid):
    assert Draft202012Validator(json_schema()).is_valid(message) is valid


def test_every_error_code_is_documented():
    text = (ROOT / "docs" / "kiosk-protocol.md").read_text(encoding="utf-8")
    assert [code for code in ERROR_CODES if f"`{code}`" not in text] == []


def test_every_message_and_field_is_documented():
    """The page is meant to be enough to write a client."""
    text = (ROOT / "docs" / "kiosk-protocol.md").read_text(encoding="utf-8")
    missing = []
    for name, definition in json_schema()["$defs"].items():
        properties = definition.get("properties", {})
        kind = properties.get("type", {}).get("enum", [name])[0]
        missing += [kind] if "type" in properties and f"`{kind}`" not in text else []
        if name not in ("Metrics", "ConfigReply"):  # described as a whole
            missing += [f"{kind}.{field}" for field in properties if f"`{field}`" not in text]
    assert missing == []


def test_the_test_vector_on_the_page_is_that_of_the_transcripts():
    text = (ROOT / "docs" / "kiosk-protocol.md").read_text(encoding="utf-8")
    keys = json.loads((ROOT / "docs" / "kiosk-transcripts" / "keys.json").read_text())
    assert f"public key  {keys['public_key']}" in text
    assert f"key_id      {keys['key_id']}" in text
    assert bytes.fromhex("6d6d64672d6465636973696f6e2d763100") == keys["domain"].encode() == signing.DOMAIN
