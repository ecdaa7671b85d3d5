"""Ed25519 keys in files: PEM, or 32 raw bytes in hexadecimal or base64 on one line.

Raises everywhere `KeyFileError`, which names the file and the remedy and never quotes a private key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Far above any key; a larger file is something else.
_LARGEST_BYTES = 4096


class KeyFileError(ValueError):
    """A key file cannot be used; the message names it and the remedy."""


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the raw public key: a name, no secret."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            blob = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; name an Ed25519 key file") from error
    if len(blob) > _LARGEST_BYTES:
        raise KeyFileError(f"{path}: more than {_LARGEST_BYTES} bytes is no Ed25519 key; name a PEM file, or 32 "
                           "bytes in hexadecimal or base64")
    return blob


def _raw(blob: bytes, path: Path) -> bytes:
    text = blob.strip()
    try:
        raw = bytes.fromhex(text.decode("ascii")) if len(text) == 64 else base64.b64decode(text, validate=True)
    except (ValueError, UnicodeDecodeError, binascii.Error) as error:
        raise KeyFileError(f"{path}: no Ed25519 key; expected PEM, or 32 bytes in hexadecimal or base64") from error
    if len(raw) != 32:
        raise KeyFileError(f"{path}: {len(raw)} bytes after decoding, an Ed25519 key has 32")
    return raw


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The signing key in `path`, which nobody but its owner may read.

    Raises:
        KeyFileError: missing, readable by others, no Ed25519 private key, or encrypted.
    """
    blob = _read(path)
    mode = path.stat().st_mode
    if mode & 0o077:
        raise KeyFileError(f"{path}: mode {mode & 0o777:o} lets others read a private key: chmod 600 {path}")
    if not blob.lstrip().startswith(b"-----BEGIN"):
        return Ed25519PrivateKey.from_private_bytes(_raw(blob, path))
    try:
        key = serialization.load_pem_private_key(blob, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: no usable private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: a key of another kind ({type(key).__name__}); expected Ed25519")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The key in `path` that signatures are checked with.

    Raises:
        KeyFileError: missing, or no Ed25519 public key.
    """
    blob = _read(path)
    if not blob.lstrip().startswith(b"-----BEGIN"):
        return Ed25519PublicKey.from_public_bytes(_raw(blob, path))
    try:
        key = serialization.load_pem_public_key(blob)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: no usable public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: a key of another kind ({type(key).__name__}); expected Ed25519")
    return key
