import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kiosk_messages import MAX_COMMAND_BYTES, CommandError, encoded_bits, read_command, request_of


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
        read_command([json.dumps({"type": kind, "contract": 1, "session_id": value, "camera": value, "nonce": value,
                                  "client": value}).encode()])
    except CommandError as error:
        assert error.code == "malformed"  # noqa: PT017
    else:
        assert kind == "health.get" or isinstance(value, str)


@pytest.mark.parametrize(("oldest", "newest", "spoken"), [(1, 1, True), (0, 9, True), (-3, 1, True), (2, 9, False),
                                                          (-3, 0, False)])
def test_hello_needs_a_common_contract(oldest, newest, spoken):
    data = json.dumps({"type": "hello", "contract": newest, "client": "k", "contract_min": oldest,
                       "contract_max": newest}).encode()
    if spoken:
        read_command([data])
    else:
        with pytest.raises(CommandError) as caught:
            read_command([data])
        assert caught.value.code == "unsupported_contract"


def health(length):
    bare = b'{"type": "health.get", "contract": 1, "x": ""}'
    return bare[:-2] + b"y" * (length - len(bare)) + bare[-2:]


def test_the_size_limit_is_exact():
    read_command([health(MAX_COMMAND_BYTES)])
    with pytest.raises(CommandError) as caught:
        read_command([health(MAX_COMMAND_BYTES + 1)])
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(("deep", "accepted"), [(b"[" * 15 + b"{}" + b"]" * 15, True),
                                                (b"[" * 40 + b"]" * 40, False),
                                                (b'[{"a":' * 20 + b"0" + b"}]" * 20, False)])
def test_nesting_is_bounded(deep, accepted):
    data = b'{"type": "health.get", "contract": 1, "x": ' + deep + b"}"
    if accepted:
        read_command([data])
    else:
        with pytest.raises(CommandError, match="nested"):
            read_command([data])


def test_a_refused_command_still_shows_its_request():
    assert request_of([b'{"type": "x", "contract": 5, "request": "r7"}']) == "r7"
    for frames in ([], [b""], [b"["], [b'{"request": 7}'], [health(MAX_COMMAND_BYTES + 1)]):
        assert request_of(frames) == ""
