"""Ed25519 keys in files: PEM, or 32 raw bytes in hexadecimal or base64 on one line.

Raises everywhere `KeyFileError`, which names the file and the remedy and never quotes a private key.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.private_file import PrivateFileError, read_private
from pipeline.signing import KEY_BYTES, key_id_of

#: Far above any key; a larger file is something else.
_LARGEST_BYTES = 4096


class KeyFileError(ValueError):
    """A key file is missing, open to others, wrong or in the way; the message names it and the remedy, never a key."""


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the raw public key: a name, no secret."""
    return key_id_of(key.public_bytes_raw())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            blob = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; name an Ed25519 key file") from error
    return _bounded(blob, path)


def _bounded(blob: bytes, path: Path) -> bytes:
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
    if len(raw) != KEY_BYTES:
        raise KeyFileError(f"{path}: {len(raw)} bytes after decoding, an Ed25519 key has {KEY_BYTES}")
    return raw


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The signing key in `path`, which nobody but its owner may read (`pipeline.private_file`).

    Raises:
        KeyFileError: missing, another user's, readable by others, no Ed25519 private key, or encrypted.
    """
    try:
        blob = _bounded(read_private(path), path)
    except PrivateFileError as error:
        raise KeyFileError(f"{error}; name an Ed25519 key file of your own") from error
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
