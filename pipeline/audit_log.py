"""`AuditLog`: the one writer of an append-only, hash-chained log. The format: `pipeline.audit_chain`.

A record is on the disk when `record` returns (`sync`), or nothing of it is: a write that fails is taken back. A log
that cannot be continued is refused, never begun anew in the same place.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline import audit_chain
from pipeline.audit_chain import GENESIS, AuditRecord, ChainError
from pipeline.ed25519_files import key_id

#: `always`: each record is flushed to the disk before `record` returns; `decisions`: those that the caller calls
#: urgent.
SyncPolicy = Literal["always", "decisions", "never"]


class AuditError(RuntimeError):
    """The log cannot be written or continued; the message names the file and the remedy."""


def boot_id() -> str:
    """Random name of this boot; `CLOCK_MONOTONIC` stamps compare within one boot only. Empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def wall_clock_label() -> str:
    """UTC in ISO 8601, for people."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def segments(path: Path) -> list[Path]:
    """The files of the log at `path`, oldest first: those rotated away, then the current one where it exists.

    A rotated file is named after its first record: `audit.000000000000.jsonl` beside `audit.jsonl`.
    """
    digits = "[0-9]" * 12
    rotated = sorted(path.parent.glob(f"{path.stem}.{digits}{path.suffix}"))
    return rotated + ([path] if path.exists() else [])


def last_line(path: Path) -> bytes:
    """The last whole line of a file, empty when there is none; a torn rest behind it is left out."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - 2 * audit_chain.MAX_LINE_BYTES)
        file.seek(start)
        tail = file.read()
    whole = tail[:tail.rfind(b"\n") + 1]
    return whole[whole.rfind(b"\n", 0, -1) + 1:]


class AuditLog:
    """Open for writing, by one process at a time.

    Args:
        path: of the current file, `*.jsonl`; its folder is made with mode 700.
        max_bytes: the file is rotated before it grows beyond. sync: see `SyncPolicy`.
        signing_key: None = no signatures. sign_every: records between signatures; one more closes the log.

    Raises:
        AuditError: another process writes it, it cannot be read, or its last file is not a chain.
    """

    def __init__(self, path: Path, *, max_bytes: int = 16 * 2**20, sync: SyncPolicy = "decisions",
                 signing_key: Ed25519PrivateKey | None = None, sign_every: int = 256,
                 label: Callable[[], str] = wall_clock_label,
                 monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.path, self.max_bytes, self.sync = path, max_bytes, sync
        self.unrecorded = 0  # records lost since the last one that could be written
        self._key, self._sign_every = signing_key, sign_every
        self._label, self._monotonic_ns, self._boot_id = label, monotonic_ns, boot_id()
        self._file: int | None = None
        self._lock: int | None = None
        self._sequence, self._previous = 0, GENESIS  # of the next record
        self._size, self._first, self._signed_next = 0, 0, 0  # of the current file; behind the last signature
        self._good = (0, 0, GENESIS, 0)  # what holds whatever fails next
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            torn, closed = self._resume()
        except OSError as error:
            self._release()
            raise AuditError(f"{path}: {error.strerror}; the audit log needs a folder that this user can "
                             "write") from error
        except BaseException:
            self._release()
            raise
        try:
            if torn:
                self.record(audit_chain.RECOVERED, {"torn_bytes": len(torn),
                                                    "torn_sha256": audit_chain.line_hash(torn)})
            self.record(audit_chain.OPENED, {
                "previous_run_closed": closed, "sign_every": sign_every if signing_key else None,
                "key_id": key_id(signing_key.public_key()) if signing_key else None}, urgent=True)
        except AuditError:
            self._release()
            raise

    # --- writing ----------------------------------------------------------------------------------------------------
    def record(self, kind: str, content: dict[str, Any], *, urgent: bool = False) -> int:
        """Append one record and return its sequence number. urgent: flushed to the disk first, unless `sync` is never.

        Raises:
            AuditError: it could not be written (nothing of it is in the log then), as when the disk is full. The next
                call tries again, and a log that works again says how many records are missing.
        """
        if self._lock is None:
            raise AuditError(f"{self.path}: the log is closed")
        try:
            if self.unrecorded:
                self._append(audit_chain.GAP, {"records_lost": self.unrecorded})
            sequence = self._append(kind, content)
            if self._key is not None and sequence + 1 - self._signed_next >= self._sign_every:
                self._sign()
            if self.sync == "always" or (urgent and self.sync == "decisions"):
                assert self._file is not None
                os.fsync(self._file)
        except (OSError, ChainError) as error:
            self.unrecorded += 1
            self._take_back()
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise AuditError(f"{self.path}: a record of kind {kind} could not be written: {why}; nobody is found bona "
                             "fide until it can: make room on its disk and check its folder") from error
        self.unrecorded = 0
        self._commit()
        return sequence

    @property
    def head(self) -> tuple[int, str]:
        """Sequence number and hash of the last record: kept elsewhere, they show a log that was cut short."""
        return self._sequence - 1, self._previous

    def close(self) -> None:
        """Say that the log ends here, sign it, flush it, let go of it. Idempotent.

        Raises:
            AuditError: the last words could not be written; the log is released all the same.
        """
        if self._lock is None:
            return
        try:
            self.record(audit_chain.CLOSED, {})
            if self._key is not None:
                self._sign()
                self._commit()
            if self._file is not None and self.sync != "never":
                os.fsync(self._file)
        except OSError as error:
            self._take_back()
            raise AuditError(f"{self.path}: the log could not be closed: {error.strerror}") from error
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _append(self, kind: str, content: dict[str, Any]) -> int:
        line = audit_chain.encode_line(AuditRecord(
            sequence=self._sequence, previous=self._previous, kind=kind, wall_clock=self._label(),
            monotonic_ns=self._monotonic_ns(), boot_id=self._boot_id, content=content))
        if self._size and self._size + len(line) > self.max_bytes:
            self._rotate()
        if self._file is None:
            self._open_file()
        assert self._file is not None
        status = os.fstat(self._file)
        if status.st_size != self._size or not status.st_nlink:
            raise OSError(0, f"it was deleted, or changed from {self._size} to {status.st_size} bytes, by someone else")
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])
        self._size += len(line)
        self._sequence, self._previous = self._sequence + 1, audit_chain.line_hash(line)
        return self._sequence - 1

    def _sign(self) -> None:
        assert self._key is not None
        self._append(audit_chain.SIGNATURE, audit_chain.signature_content(self._key, self._sequence, self._previous))
        self._signed_next = self._sequence

    def _commit(self) -> None:
        self._good = (self._size, self._sequence, self._previous, self._signed_next)

    def _take_back(self) -> None:
        """Cut off what a failed write left behind. Where even that fails, the next start finds a torn line."""
        size, self._sequence, self._previous, self._signed_next = self._good
        if self._file is not None:
            self._size = size
            try:
                # Never make it longer: that would fill a cut by someone else with zeros.
                if os.fstat(self._file).st_size > size:
                    os.ftruncate(self._file, size)
            except OSError:
                os.close(self._file)
                self._file = None

    def _open_file(self) -> None:
        fresh = not self.path.exists()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        size = os.fstat(self._file).st_size
        if size > self._size:  # the rest of a write that could not be taken back
            os.ftruncate(self._file, self._size)
        elif size < self._size:
            raise OSError(0, f"it was cut from {self._size} to {size} bytes by someone else")
        if fresh:
            self._sync_folder()

    def _rotate(self) -> None:
        """Name the full file after its first record; the chain goes on in the next one."""
        assert self._file is not None
        os.fsync(self._file)
        self.path.rename(self.path.with_name(f"{self.path.stem}.{self._first:012d}{self.path.suffix}"))
        os.close(self._file)
        self._file, self._size, self._first = None, 0, self._sequence
        # What stands in the file that was moved away is whole, and is not taken back any more.
        self._commit()
        self._open_file()

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _take_lock(self) -> None:
        lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise AuditError(f"{self.path}: another process writes this log ({self.path}.lock is held); stop it, or "
                             "name another path under audit.path") from None
        self._lock = lock

    def _resume(self) -> tuple[bytes, bool]:
        """Continue where the log ends: the torn bytes behind its last whole line, and whether it had been closed."""
        files = segments(self.path)
        rotated = [file for file in files if file != self.path]
        last_kind = audit_chain.CLOSED  # of the last record that is no signature
        try:
            if rotated:
                line = last_line(rotated[-1])
                record = audit_chain.decode_line(line)
                self._sequence, self._previous = record.sequence + 1, audit_chain.line_hash(line)
                last_kind = record.kind
            self._first = self._signed_next = self._sequence
            blob = self.path.read_bytes() if self.path in files else b""
            whole = blob[:blob.rfind(b"\n") + 1]
            for text in whole.split(b"\n")[:-1]:
                line = text + b"\n"
                record = audit_chain.follows(line, self._sequence, self._previous)
                self._sequence, self._previous = record.sequence + 1, audit_chain.line_hash(line)
                if record.kind == audit_chain.SIGNATURE:
                    self._signed_next = self._sequence
                else:
                    last_kind = record.kind
        except ChainError as error:
            raise AuditError(f"{self.path}: record {self._sequence}: {error}. Run `mmdg audit verify {self.path}`, "
                             "move its files to a safe place and start again: a new log begins") from error
        self._size = len(whole)
        torn = blob[len(whole):]
        self._open_file()
        self._commit()
        return torn, not torn and last_kind == audit_chain.CLOSED

    def _release(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None
