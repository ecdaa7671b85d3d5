import copy
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pipeline.signing import DOMAIN, DecisionSigner, key_id_of, verify

SEED = bytes(range(32))
SIGNER = DecisionSigner(SEED)
PAYLOAD = b'{"verdict":"bona_fide","nonce":"00ff"}'

# RFC 8032 section 7.1, test 2: one byte of message. The library is what others implement, too.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")


def test_the_public_key_is_that_of_rfc_8032():
    assert DecisionSigner(RFC_SEED).public_key_raw == RFC_PUBLIC


def test_the_domain_is_what_the_documentation_tells_others():
    assert DOMAIN.hex() == "6d6d64672d6465636973696f6e2d763100"
    assert len(DOMAIN) == 17


def test_the_signature_is_plain_ed25519_over_domain_and_payload():
    """What a C# or Java client does: concatenate, verify. And the bytes for docs and other languages' tests."""
    signature = SIGNER.sign(PAYLOAD)
    Ed25519PrivateKey.from_private_bytes(SEED).public_key().verify(signature, b"mmdg-decision-v1\0" + PAYLOAD)
    assert len(signature) == 64
    assert SIGNER.public_key_raw.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert SIGNER.key_id == hashlib.sha256(SIGNER.public_key_raw).hexdigest()[:16] == "56475aa75463474c"


def test_the_key_id_is_16_hex_digits_of_the_sha256_of_the_raw_public_key():
    assert key_id_of(b"") == "e3b0c44298fc1c14"


def test_signing_is_deterministic():
    assert SIGNER.sign(PAYLOAD) == DecisionSigner(SEED).sign(PAYLOAD)


@given(st.binary(max_size=300))
def test_every_payload_verifies(payload):
    assert verify(SIGNER.public_key_raw, payload, SIGNER.sign(payload))


@given(st.integers(0, len(PAYLOAD) * 8 - 1))
def test_any_changed_bit_of_the_payload_is_refused(bit):
    changed = bytearray(PAYLOAD)
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify(SIGNER.public_key_raw, bytes(changed), SIGNER.sign(PAYLOAD))


@given(st.integers(0, 64 * 8 - 1))
def test_any_changed_bit_of_the_signature_is_refused(bit):
    signature = bytearray(SIGNER.sign(PAYLOAD))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(SIGNER.public_key_raw, PAYLOAD, bytes(signature))


@pytest.mark.parametrize(("public_key", "payload", "signature"), [
    (DecisionSigner(RFC_SEED).public_key_raw, PAYLOAD, SIGNER.sign(PAYLOAD)),  # another key
    (SIGNER.public_key_raw, PAYLOAD + b" ", SIGNER.sign(PAYLOAD)),
    (SIGNER.public_key_raw, b"", SIGNER.sign(PAYLOAD)),
    (SIGNER.public_key_raw, PAYLOAD, b""),
    (SIGNER.public_key_raw, PAYLOAD, bytes(64)),
    (SIGNER.public_key_raw, PAYLOAD, SIGNER.sign(PAYLOAD) + b"\0"),
    (SIGNER.public_key_raw, PAYLOAD, SIGNER.sign(PAYLOAD).hex().encode()),
    (b"", PAYLOAD, SIGNER.sign(PAYLOAD)),
    (SIGNER.public_key_raw.hex().encode(), PAYLOAD, SIGNER.sign(PAYLOAD)),
    (b"\xff" * 32, PAYLOAD, SIGNER.sign(PAYLOAD)),  # no point of the curve
    (bytes(32), PAYLOAD, bytes(64)),  # a point of small order verifies nothing with an empty signature
    # Signed with the right key, but not as a decision.
    (SIGNER.public_key_raw, PAYLOAD, Ed25519PrivateKey.from_private_bytes(SEED).sign(PAYLOAD)),
    (SIGNER.public_key_raw, PAYLOAD, Ed25519PrivateKey.from_private_bytes(SEED).sign(b"mmdg-manifest-v1\0" + PAYLOAD)),
    (SIGNER.public_key_raw, PAYLOAD, Ed25519PrivateKey.from_private_bytes(SEED).sign(DOMAIN[:-1] + PAYLOAD)),
])
def test_everything_else_is_refused(public_key, payload, signature):
    assert verify(public_key, payload, signature) is False


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_key_of_another_length_is_refused_without_being_quoted(key):
    with pytest.raises(ValueError, match=f"this one {len(key)}"):
        DecisionSigner(key)


def test_keys_are_fresh():
    assert DecisionSigner.generate().key_id != DecisionSigner.generate().key_id


def test_the_private_key_is_not_shown_and_not_sent():
    assert repr(SIGNER) == f"DecisionSigner(key_id={SIGNER.key_id!r})"
    with pytest.raises(TypeError, match="not sent"):
        copy.copy(SIGNER)  # by the same protocol that multiprocessing uses
