"""The format of the audit log: JSON lines, each bound to the exact bytes of the one before. Pure.

A line is one JSON object and a line feed. `previous` is the SHA-256 of the whole line before it, line feed included;
`digest`, always last, is the SHA-256 of everything in the line before it, so that a change of the very last line is
seen, too. Hashes alone show changes by whoever did not compute them anew; only the signature records, `log.signature`,
hold against someone who may write the file and does not have the key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from pipeline.ed25519_files import key_id

#: What the first record of a log names as the hash of the line before it.
GENESIS = "0" * 64
#: Signed before the head's hash, so that no other signature of the same key can stand here.
SIGNATURE_DOMAIN = b"mmdg-audit-v1\0"
#: No record is longer, line feed included: a longer line is not ours and is not read into memory.
MAX_LINE_BYTES = 64 * 1024

SIGNATURE, OPENED, CLOSED, RECOVERED, GAP = "log.signature", "log.opened", "log.closed", "log.recovered", "log.gap"

_DIGEST_KEY = b',"digest":"'
_ENDING = re.compile(rb',"digest":"([0-9a-f]{64})"}\n\Z')


class ChainError(ValueError):
    """A line is not the next record of its log; the message says what is wrong with it."""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line.

    Attributes:
        sequence: from 0, without gaps, across all files of a log.
        previous: SHA-256 in hexadecimal of the line before, `GENESIS` for the first.
        kind: what is told, such as `session.decided`.
        wall_clock: UTC in ISO 8601, a label. monotonic_ns: host `CLOCK_MONOTONIC`; boot_id: of the boot that it counts
            in.
        content: ids, codes, hashes and times; never pixels, embeddings, or scores of attempts that were not accepted.
    """

    sequence: Annotated[int, Meta(ge=0)]
    previous: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    wall_clock: str
    monotonic_ns: int
    boot_id: str
    content: dict[str, Any]


_DECODER = msgspec.json.Decoder(AuditRecord)


def line_hash(line: bytes) -> str:
    """SHA-256 in hexadecimal of a whole line: what the next one carries as `previous`."""
    return hashlib.sha256(line).hexdigest()


def encode_line(record: AuditRecord) -> bytes:
    """The exact bytes of a record.

    Raises:
        ChainError: longer than `MAX_LINE_BYTES`.
    """
    body = msgspec.json.encode(record)[:-1]
    line = body + _DIGEST_KEY + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    if len(line) > MAX_LINE_BYTES:
        raise ChainError(f"a record of kind {record.kind!r} has {len(line)} bytes, at most {MAX_LINE_BYTES} are kept")
    return line


def decode_line(line: bytes) -> AuditRecord:
    """One line on its own, its digest checked.

    Raises:
        ChainError: not one whole line of this format, or a digest that does not fit.
    """
    ending = _ENDING.search(line)
    if ending is None:
        raise ChainError("no whole record: it does not end with a digest and a line feed")
    body = line[:ending.start()]
    if hashlib.sha256(body).hexdigest().encode() != ending[1]:
        raise ChainError("its bytes were changed: they do not give the digest that it carries")
    try:
        return _DECODER.decode(body + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ChainError(f"no record: {error}") from error


def follows(line: bytes, sequence: int, previous: str) -> AuditRecord:
    """The record in `line`, which has to be number `sequence` after a line of hash `previous`.

    Raises:
        ChainError: as `decode_line`; also another number or another predecessor.
    """
    record = decode_line(line)
    if record.sequence != sequence:
        raise ChainError(f"record {record.sequence} where {sequence} belongs: records are missing, repeated or in "
                         "another order")
    if record.previous != previous:
        raise ChainError(f"record {sequence} follows another line ({record.previous[:16]}…) than the one before it "
                         f"({previous[:16]}…)")
    return record


def _signed_bytes(sequence: int, previous: str) -> bytes:
    return SIGNATURE_DOMAIN + sequence.to_bytes(8, "big") + bytes.fromhex(previous)


def signature_content(key: Ed25519PrivateKey, sequence: int, previous: str) -> dict[str, str]:
    """Content of the signature record number `sequence`, which covers everything up to the line of hash `previous`."""
    return {"key_id": key_id(key.public_key()),
            "signature": base64.b64encode(key.sign(_signed_bytes(sequence, previous))).decode()}


def check_signature(record: AuditRecord, key: Ed25519PublicKey) -> None:
    """Check a signature record.

    Raises:
        ChainError: of another key, or not a signature of this place in the log.
    """
    named = record.content.get("key_id")
    if named != key_id(key):
        raise ChainError(f"signed by key {named}, expected {key_id(key)}")
    try:
        signature = base64.b64decode(str(record.content.get("signature")), validate=True)
        key.verify(signature, _signed_bytes(record.sequence, record.previous))
    except (InvalidSignature, ValueError) as error:
        raise ChainError(f"record {record.sequence}: its signature does not cover what stands before it") from error
