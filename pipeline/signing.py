"""Decisions signed with Ed25519 (RFC 8032), so that an altered or invented one opens nothing.

What is signed is `DOMAIN` followed by the exact bytes of the payload frame; nothing is parsed or re-encoded first, so a
client in any language verifies the bytes it received. The prefix keeps a signature of this key over anything else, a
manifest for instance, from ever being a decision. The signature says who decided, not when or for whom: nonce,
transaction hash and expiry stand inside the payload, and a client checks them too (docs/kiosk-protocol.md).
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Signed before each payload: the ASCII text and a closing zero byte, 17 bytes in all.
DOMAIN = b"mmdg-decision-v1\0"
SIGNATURE_BYTES = 64
KEY_BYTES = 32


def key_id_of(public_key_raw: bytes) -> str:
    """The name of a public key: the first 16 hex digits of the SHA-256 of its 32 raw bytes.

    A name only: look the key up by it among keys that are trusted already, and never take a key that a peer sends.
    """
    return hashlib.sha256(public_key_raw).hexdigest()[:16]


def verify(public_key_raw: bytes, payload: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `payload` is of this public key (32 bytes). Never raises for bad input."""
    if len(public_key_raw) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key_raw).verify(signature, DOMAIN + payload)
    except (InvalidSignature, ValueError):
        return False
    return True


class DecisionSigner:
    """Signs decisions with one key.

    Args:
        private_key_raw: the 32-byte seed of RFC 8032.

    Raises:
        ValueError: another length. The key itself never stands in a message.
    """

    def __init__(self, private_key_raw: bytes) -> None:
        if len(private_key_raw) != KEY_BYTES:
            raise ValueError(f"an Ed25519 private key has {KEY_BYTES} bytes, this one {len(private_key_raw)}")
        self._key = Ed25519PrivateKey.from_private_bytes(private_key_raw)
        self.public_key_raw: bytes = self._key.public_key().public_bytes_raw()
        self.key_id: str = key_id_of(self.public_key_raw)

    @staticmethod
    def generate() -> DecisionSigner:
        """A signer with a fresh key of the operating system's randomness."""
        return DecisionSigner(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def private_key_raw(self) -> bytes:
        """The seed. For the key file alone."""
        return self._key.private_bytes_raw()

    def sign(self, payload: bytes) -> bytes:
        """The signature: 64 raw bytes, always the same for the same key and payload."""
        return self._key.sign(DOMAIN + payload)

    def __repr__(self) -> str:
        return f"DecisionSigner(key_id={self.key_id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is read from its file by the process that signs; it is not sent to another one")
