import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kiosk_messages import MAX_COMMAND_BYTES, CommandError, encoded_bits, json_schema, read_command


@pytest.mark.parametrize(("text", "bits"), [
    ("00" * 16, 128), ("AB" * 16, 128), (base64.b64encode(bytes(16)).decode(), 128),
    (base64.urlsafe_b64encode(b"\xff" * 16).decode().rstrip("="), 128), ("", 0), ("zz", 8), ("not base64!", 0),
    ("ab cd", 16), ("ü" * 40, 0),
])
def test_encoded_bits(text, bits):
    assert encoded_bits(text) == bits


@given(st.binary(max_size=MAX_COMMAND_BYTES + 100))
def test_no_bytes_lead_to_anything_but_a_command_error(data):
    with pytest.raises(CommandError):
        read_command([data])


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v, max_size=3)
                    | st.dictionaries(st.sampled_from(["type", "contract", "camera", "nonce", "request", "x"]), v),
                    max_leaves=20), st.sampled_from(["session.begin", "hello", "health.get", "decision.get"]))
def test_no_json_leads_to_anything_but_a_command_or_a_command_error(value, kind):
    try:
        read_command([json.dumps({"type": kind, "contract": 0, "session_id": value, "camera": value, "nonce": value,
                                  "client": value}).encode()])
    except CommandError as error:
        assert error.code == "malformed"  # noqa: PT017
    else:
        assert kind == "health.get" or isinstance(value, str)


def test_the_schema_names_every_message():
    names = set(json_schema()["$defs"])
    assert {"SessionBegin", "Decision", "ErrorReply", "Health", "GuidanceEvent"} <= names
