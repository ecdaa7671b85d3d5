"""Reading an audit log back: every record of every file in order, and everything that is wrong with it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline import audit_chain
from pipeline.audit_chain import GENESIS, AuditRecord, ChainError
from pipeline.audit_log import AuditError, segments

#: A damaged log is told by its first problems; each later line would only repeat that nothing fits any more.
_MOST_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, and where: the line counts from 1."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass
class AuditReport:
    """What the check of a log found.

    Attributes:
        files: read, oldest first. records: whole ones. problems: none in an intact log.
        first, last, head: sequence numbers, and the hash of the last line; keep the latter elsewhere to see a log that
            was cut back to an earlier end.
        signed: records up to and including the last good signature; None = no key was given.
        closed: it ends as an engine that was stopped ends it. torn_bytes: behind the last whole line.
        in_use: a process writes it now.
    """

    files: list[str] = field(default_factory=list)
    records: int = 0
    problems: list[Problem] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    head: str = GENESIS
    signed: int | None = None
    closed: bool = False
    torn_bytes: int = 0
    in_use: bool = False

    @property
    def unsigned(self) -> int | None:
        """Records behind the last signature; None = no key was given."""
        return None if self.signed is None else self.records - self.signed

    @property
    def complete(self) -> bool:
        """Intact to its end: closed, nothing torn, and with a key nothing unsigned."""
        return not self.problems and self.closed and not self.torn_bytes and not self.unsigned


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file with their line feeds; the last one may be torn, one too long comes in pieces."""
    with path.open("rb") as file:
        while line := file.readline(audit_chain.MAX_LINE_BYTES + 1):
            yield line


def _is_locked(path: Path) -> bool:
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _files_of(path: Path) -> list[Path]:
    files = segments(path)
    if not files:
        raise AuditError(f"{path}: no such audit log; name the path that stands under audit.path in the configuration")
    return files


def verify(path: Path, *, key: Ed25519PublicKey | None = None, partial: bool = False,
           anchor: tuple[int, str] | None = None) -> AuditReport:
    """Check the whole log whose current file is `path`.

    Args:
        key: of its signatures; None = the chain alone, which whoever may write the files can compute anew.
        partial: its first files were archived; the first record there is taken as it is.
        anchor: sequence number and line hash that were noted elsewhere, and must still be in it.

    Raises:
        AuditError: there is no such log, or it cannot be read.
    """
    files = _files_of(path)
    report = AuditReport(files=[file.name for file in files], signed=None if key is None else 0,
                         in_use=_is_locked(path))
    sequence, previous, anchored, sign_every = 0, GENESIS, False, None
    try:
        for file in files:
            for number, line in enumerate(lines_of(file), 1):
                if file == files[-1] and not line.endswith(b"\n") and len(line) <= audit_chain.MAX_LINE_BYTES:
                    report.torn_bytes = len(line)
                    break
                try:
                    if partial and report.first is None:
                        first = audit_chain.decode_line(line)
                        sequence, previous = first.sequence, first.previous
                    record = audit_chain.follows(line, sequence, previous)
                    if record.kind == audit_chain.OPENED:
                        sign_every = record.content.get("sign_every")
                    if record.kind == audit_chain.SIGNATURE and key is not None:
                        audit_chain.check_signature(record, key)
                        report.signed = report.records + 1
                except ChainError as error:
                    report.problems.append(Problem(file=file.name, line=number, text=str(error)))
                    if len(report.problems) >= _MOST_PROBLEMS:
                        return report
                    try:  # go on behind the damage, so that one changed line is told as one
                        record = audit_chain.decode_line(line)
                    except ChainError:
                        sequence, previous = sequence + 1, audit_chain.line_hash(line)
                        continue
                report.first = record.sequence if report.first is None else report.first
                report.records, report.last = report.records + 1, record.sequence
                previous, sequence = audit_chain.line_hash(line), record.sequence + 1
                report.head = previous
                anchored |= (record.sequence, previous) == anchor
                if record.kind != audit_chain.SIGNATURE:
                    report.closed = record.kind == audit_chain.CLOSED
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}; run this as the engine's user") from error
    end = Problem(file=files[-1].name, line=number, text="") if report.records else None
    _judge_the_end(report, key, sign_every, anchor is not None and not anchored, anchor, end)
    return report


def _judge_the_end(report: AuditReport, key: Ed25519PublicKey | None, sign_every: object, unanchored: bool,
                   anchor: tuple[int, str] | None, end: Problem | None) -> None:
    name, line = report.files[-1], end.line if end else 1

    def tell(text: str) -> None:
        report.problems.append(Problem(file=name, line=line, text=text))

    if not report.records:
        tell("there is no whole record in it")
    if key is not None and not report.signed:
        tell("no record is signed by this key")
    elif key is not None and isinstance(sign_every, int) and (report.unsigned or 0) > sign_every + 1:
        tell(f"{report.unsigned} records stand behind the last signature, there is one each {sign_every}: signatures "
             "are missing")
    if unanchored and anchor is not None:
        tell(f"record {anchor[0]} with the hash {anchor[1][:16]}…, noted elsewhere, is not in it: the log was cut "
             "short or written anew")


def records(path: Path) -> Iterator[AuditRecord]:
    """Every record that can be read, in order; lines that cannot are left out (`verify` tells them).

    Raises:
        AuditError: there is no such log, or it cannot be read.
    """
    try:
        for file in _files_of(path):
            for line in lines_of(file):
                try:
                    yield audit_chain.decode_line(line)
                except ChainError:
                    continue
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}; run this as the engine's user") from error
