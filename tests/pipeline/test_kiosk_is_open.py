"""`is_open`: what the reference client makes of a decision, of its signature and of its modalities."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.kiosk_client import KioskClient, KioskDecision, KioskError, is_open, read_json
from tests.pipeline.signed_decisions import GOOD, SIGNER, STRANGER, a_session, received


def test_is_open_for_the_one_good_decision():
    assert is_open(received(GOOD), a_session(), now_ns=10**9)


@pytest.mark.parametrize(("field", "value"), [
    ("type", "session.decision"), ("contract", 0), ("contract", 2), ("contract", "1"), ("contract", True),
    ("contract", None),
    ("session_id", "other"), ("origin", "local"), ("origin", "Kiosk"), ("verdict", "attack"), ("verdict", "undecided"),
    ("verdict", "BONA_FIDE"), ("verdict", True), ("verdict", 1), ("verdict", ["bona_fide"]), ("verdict", None),
    ("examined", False), ("examined", 1), ("examined", None), ("simulated", True), ("simulated", None),
    ("simulated", 0), ("model_purpose", "simulated"), ("model_purpose", "test"), ("model_purpose", None),
    ("nonce", "ab" * 31 + "ac"), ("nonce", ""), ("nonce", None), ("nonce", 7),
    ("transaction_hash", "ab"), ("time_to_decision_ms", -1), ("time_to_decision_ms", 1e9),
    ("time_to_decision_ms", "900"), ("expires_in_ms", 5001),
    ("expires_in_ms", 0), ("expires_in_ms", None), ("expires_in_ms", True),
])
def test_is_open_for_nothing_else(field, value):
    assert not is_open(received(GOOD | {field: value}), a_session(), now_ns=10**9)


@pytest.mark.parametrize("field", sorted(set(GOOD) - {"sequence", "camera", "reason"}))
def test_a_missing_field_keeps_closed(field):
    assert not is_open(received({k: v for k, v in GOOD.items() if k != field}), a_session(), now_ns=10**9)


def test_no_decision_keeps_closed():
    assert not is_open(None, a_session())


def test_a_decision_expires_on_the_clients_own_clock():
    assert is_open(received(GOOD), a_session(), now_ns=5_900_000_000 - 1)
    assert not is_open(received(GOOD), a_session(), now_ns=5_900_000_000)


def test_a_simulated_decision_opens_only_for_those_who_ask_for_it():
    simulated = received(GOOD | {"simulated": True})
    assert not is_open(simulated, a_session(), now_ns=10**9)
    assert is_open(simulated, a_session(), now_ns=10**9, accept_simulated=True)


@pytest.mark.parametrize(("fields", "opens"), [
    ({"simulated": True, "model_purpose": "simulated"}, True),
    ({"simulated": False, "model_purpose": "simulated"}, False),  # an engine that says so is not to be believed
    ({"simulated": True, "model_purpose": "test"}, False),
    ({"simulated": False, "model_purpose": None}, False),
])
def test_weights_trained_on_simulated_data_open_on_a_simulated_camera_alone_and_when_asked(fields, opens):
    decision = received(GOOD | fields)
    assert not is_open(decision, a_session(), now_ns=10**9)
    assert is_open(decision, a_session(), now_ns=10**9, accept_simulated=True) is opens


# --- the signature --------------------------------------------------------------------------------------------------
def test_a_decision_of_an_unknown_key_keeps_closed():
    payload = json.dumps(GOOD).encode()
    for signer in (STRANGER,):
        assert not is_open(KioskDecision(payload, signer.sign(payload)), a_session(), now_ns=10**9)
    foreign = json.dumps(GOOD | {"key_id": STRANGER.key_id}).encode()  # names its own key: we do not know it
    assert not is_open(KioskDecision(foreign, STRANGER.sign(foreign)), a_session(), now_ns=10**9)


def test_each_bit_of_payload_and_signature_counts():
    payload = json.dumps(GOOD).encode()
    signature = SIGNER.sign(payload)
    for at in range(0, 8 * len(signature), 7):
        flipped = bytearray(signature)
        flipped[at // 8] ^= 1 << at % 8
        assert not is_open(KioskDecision(payload, bytes(flipped)), a_session(), now_ns=10**9)
    attack = json.dumps(GOOD | {"verdict": "attack"}).encode()
    forged = attack.replace(b'"attack"', b'"bona_fide"')
    assert forged != attack
    assert not is_open(KioskDecision(forged, SIGNER.sign(attack)), a_session(), now_ns=10**9)


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 63, b"x" * 200])
def test_no_signature_keeps_closed(signature):
    assert not is_open(KioskDecision(json.dumps(GOOD).encode(), signature), a_session(), now_ns=10**9)


def test_a_signature_over_the_bare_payload_is_none():
    """The domain is part of what is signed: a signature of this key over other things is no decision."""
    payload = json.dumps(GOOD).encode()
    bare = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(payload)
    assert not is_open(KioskDecision(payload, bare), a_session(), now_ns=10**9)


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA", "A" * 44])
def test_a_key_that_is_none_is_refused(text):
    with pytest.raises(KioskError, match="bad_key"):
        KioskClient("ipc://nowhere", signing_keys=[text])


def test_between_hosts_only_with_keys():
    with pytest.raises(KioskError, match="CURVE"):
        KioskClient("tcp://127.0.0.1:1")


BUNDLE = {"format": "mmdg-client-v1", "name": "front-desk", "role": "kiosk", "endpoint": "tcp://127.0.0.1:5555",
          "server_public_key": "s" * 40, "client_public_key": "c" * 40, "client_secret_key": "x" * 40,
          "signing_public_keys": [
              {"public_key": base64.b64encode(STRANGER.public_key_raw).decode(), "until": "2020-01-01"},
              {"key_id": "new", "public_key": base64.b64encode(SIGNER.public_key_raw).decode(), "until": None}]}


def test_a_bundle_pins_the_keys_of_today(tmp_path):
    (tmp_path / "bundle.json").write_text(json.dumps(BUNDLE))
    with KioskClient.from_bundle(str(tmp_path / "bundle.json"), endpoint="ipc:///nowhere") as client:
        assert client._trusted() == {SIGNER.key_id: SIGNER.public_key_raw}
        assert client.curve is None


@pytest.mark.parametrize("changes", [{"format": "mmdg-client-v2"}, {"endpoint": None}, {"signing_public_keys": 7},
                                     {"signing_public_keys": [{}]}, {"server_public_key": "DROP"},
                                     {"client_secret_key": 7}, {"signing_public_keys": [{"public_key": "AAAA"}]},
                                     {"signing_public_keys": [BUNDLE["signing_public_keys"][0] | {"until": "soon"}]}])
def test_a_bundle_that_lacks_something_is_refused(tmp_path, changes):
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps({k: v for k, v in (BUNDLE | changes).items() if v != "DROP"}))
    with pytest.raises(KioskError, match=r"bad_bundle.*bundle\.json"):
        KioskClient.from_bundle(str(path))


# --- modalities: and, never or --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("used", "opens"), [
    (["rgb", "depth", "infrared"], True), (["rgb", "infrared"], True), (["rgb", "depth"], False), (["rgb"], False),
    ([], False), (None, False), ("rgb infrared", False)])
def test_every_required_modality_must_have_been_used(used, opens):
    decision = received(GOOD | {"modalities_used": used})
    assert is_open(decision, a_session(), required_modalities=("rgb", "infrared"), now_ns=10**9) is opens


@pytest.mark.parametrize("data", [b"", b"7", b"[]", b"{", b'{"verdict": "attack", "verdict": "bona_fide"}', b"\xff",
                                  b'{"a": NaN}', b'{"a": -Infinity}', b'\xef\xbb\xbf{"a": 1}',
                                  '{"a": 1}'.encode("utf-16"), b'{"a": "\xed\xa0\x80"}'])
def test_an_answer_that_is_no_clean_object_is_refused(data):
    with pytest.raises(KioskError, match="bad_answer"):
        read_json(data)
