"""The audit log: every change of its bytes is found, a kill or a full disk loses nothing that was recorded."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline import audit_log
from pipeline.audit_chain import GENESIS, MAX_LINE_BYTES, decode_line, line_hash
from pipeline.audit_check import records, verify
from pipeline.audit_log import AuditError, AuditLog, segments

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def opened(path: Path, **settings: Any) -> AuditLog:
    return AuditLog(path, **({"label": lambda: "2026-01-01T00:00:00.000+00:00", "monotonic_ns": lambda: 7} | settings))


def written(path: Path, count: int = 3, **settings: Any) -> Path:
    with opened(path, **settings) as log:
        for number in range(count):
            log.record("session.begun", {"session_id": f"s{number}"})
    return path


def lines(path: Path) -> list[bytes]:
    return [text + b"\n" for file in segments(path) for text in file.read_bytes().split(b"\n")[:-1]]


def kinds(path: Path) -> list[str]:
    return [record.kind for record in records(path)]


def test_records_form_a_chain_over_exact_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl")
    before = GENESIS
    for sequence, line in enumerate(lines(path)):
        record = decode_line(line)
        assert (record.sequence, record.previous) == (sequence, before)
        before = line_hash(line)
    assert kinds(path) == ["log.opened", *["session.begun"] * 3, "log.closed"]
    report = verify(path)
    assert (report.problems, report.records, report.head, report.complete) == ([], 5, before, True)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("signing", [False, True])
def test_a_flip_of_any_byte_is_found(tmp_path: Path, signing: bool) -> None:
    path = written(tmp_path / "audit.jsonl", 1, signing_key=KEY if signing else None)
    key = KEY.public_key() if signing else None
    intact = path.read_bytes()
    assert verify(path, key=key).complete
    missed = []
    for position in range(len(intact)):
        changed = bytearray(intact)
        changed[position] ^= 0x20 if signing else 0x01  # another case, another digit
        path.write_bytes(bytes(changed))
        report = verify(path, key=key)
        # A last line without its line feed is a torn one; everything else is a problem.
        if not report.problems and not (position == len(intact) - 1 and report.torn_bytes):
            missed.append(position)
        assert not report.complete
    assert missed == []


def test_deleted_repeated_and_reordered_records_are_found(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    whole = lines(path)
    for first in range(len(whole) - 1):
        for changed in (whole[:first] + whole[first + 1:], whole[:first + 1] + whole[first:],
                        [*whole[:first], whole[first + 1], whole[first], *whole[first + 2:]]):
            path.write_bytes(b"".join(changed))
            assert verify(path).problems


def test_every_truncation_shows_as_a_log_that_is_not_closed(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 6, signing_key=KEY, sign_every=3)
    intact = path.read_bytes()
    for length in range(0, len(intact), 7):
        path.write_bytes(intact[:length])
        assert not verify(path, key=KEY.public_key()).complete


def test_only_a_place_noted_elsewhere_shows_that_whole_runs_are_gone(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", signing_key=KEY)
    first_run = path.read_bytes()
    written(path, signing_key=KEY)
    report = verify(path, key=KEY.public_key())
    assert report.last is not None
    anchor = (report.last, report.head)
    assert verify(path, key=KEY.public_key(), anchor=anchor).complete
    path.write_bytes(first_run)
    assert verify(path, key=KEY.public_key()).complete
    assert "noted elsewhere" in str(verify(path, key=KEY.public_key(), anchor=anchor).problems[0])


def test_a_chain_computed_anew_has_no_signature_of_the_key(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", signing_key=OTHER)
    assert verify(path).complete
    report = verify(path, key=KEY.public_key())
    assert "signed by key" in str(report.problems[0])
    unsigned = written(tmp_path / "bare.jsonl")
    assert "no record is signed" in str(verify(unsigned, key=KEY.public_key()).problems[0])


def test_a_signature_of_another_place_does_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 4, signing_key=KEY, sign_every=2)
    taken = next(line for line in lines(path) if b"log.signature" in line)
    forged = written(tmp_path / "forged.jsonl", 0, signing_key=OTHER)
    with opened(forged) as log:
        log.record("log.signature", decode_line(taken).content)
    assert any("does not cover" in str(p) for p in verify(forged, key=KEY.public_key()).problems)


def test_the_chain_is_carried_across_rotated_files(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 40, max_bytes=2000, signing_key=KEY, sign_every=4)
    files = segments(path)
    assert len(files) > 5
    assert all(file.stat().st_size <= 2000 for file in files)
    assert verify(path, key=KEY.public_key()).complete
    for gone in files:
        kept = gone.read_bytes()
        gone.unlink()
        assert not verify(path, key=KEY.public_key()).complete, gone
        gone.write_bytes(kept)
    files[0].unlink()
    assert verify(path, key=KEY.public_key(), partial=True).complete
    written(path, 1)  # a later run goes on in the same chain
    assert verify(path, partial=True).complete


def test_a_log_whose_current_file_is_gone_after_a_rotation_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl")
    path.rename(tmp_path / "audit.000000000000.jsonl")  # killed between the two steps of a rotation
    written(path, 1)
    assert verify(path).complete
    assert verify(path).records == 8


@pytest.mark.parametrize("torn", [b'{"sequence":5,"prev', b"\0" * 300, b"x"])
def test_a_torn_last_line_is_cut_off_and_noted(tmp_path: Path, torn: bytes) -> None:
    path = written(tmp_path / "audit.jsonl")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(torn)
    assert verify(path).torn_bytes == len(torn)
    written(path, 1)
    assert path.read_bytes().startswith(whole)
    assert kinds(path)[5:] == ["log.recovered", "log.opened", "session.begun", "log.closed"]
    recovered = list(records(path))[5].content
    assert recovered == {"torn_bytes": len(torn), "torn_sha256": line_hash(torn)}
    assert list(records(path))[6].content["previous_run_closed"] is False
    assert verify(path).complete


def test_a_damaged_log_is_not_continued(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl")
    path.write_bytes(path.read_bytes().replace(b"s1", b"s9"))
    with pytest.raises(AuditError, match=r"bytes were changed.*mmdg audit verify"):
        opened(path)
    with pytest.raises(AuditError):  # and the lock was released
        opened(path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with opened(path) as log:
        with pytest.raises(AuditError, match="another process writes this log"):
            opened(path)
        assert verify(path).in_use
        log.record("session.begun", {})
    opened(path).close()
    assert not verify(path).in_use


def full_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """From now on `room` more bytes fit."""
    left, write = [room], os.write

    def limited(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(descriptor, data[:left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(audit_log.os, "write", limited)


def fill(log: AuditLog) -> None:
    for _ in range(9):
        log.record("session.begun", {"session_id": "lost"})


@pytest.mark.parametrize("room", [0, 1, 100, 400])
def test_a_full_disk_leaves_a_whole_log_and_the_gap_is_told(tmp_path: Path, room: int) -> None:
    path = tmp_path / "audit.jsonl"
    with opened(path) as log:
        log.record("session.begun", {"session_id": "before"})
        whole = path.read_bytes()
        with pytest.MonkeyPatch.context() as patch:
            full_disk(patch, room)
            for _ in range(3):
                with pytest.raises(AuditError, match="No space left on device"):
                    fill(log)
        assert path.read_bytes().startswith(whole)
        assert verify(path).problems == []
        log.record("session.begun", {"session_id": "after"})
        log.record("session.begun", {"session_id": "after"})
    assert kinds(path).count("log.gap") == 1
    assert next(r for r in records(path) if r.kind == "log.gap").content == {"records_lost": 3}
    assert verify(path).complete


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_a_file_that_someone_else_cuts_or_removes_is_not_written_on(tmp_path: Path, harm: Any) -> None:
    path = tmp_path / "audit.jsonl"
    log = opened(path)
    harm(path)
    left = path.read_bytes() if path.exists() else None
    for _ in range(2):
        with pytest.raises(AuditError, match="by someone else"):
            log.record("session.begun", {})
    with pytest.raises(AuditError):
        log.close()
    assert (path.read_bytes() if path.exists() else None) == left


def test_a_record_that_is_too_long_is_refused_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with opened(path) as log:
        with pytest.raises(AuditError, match="at most"):
            log.record("session.begun", {"text": "x" * MAX_LINE_BYTES})
        log.record("session.begun", {})
    assert kinds(path) == ["log.opened", "log.gap", "session.begun", "log.closed"]


def test_a_log_cannot_be_written_after_it_was_closed(tmp_path: Path) -> None:
    log = opened(tmp_path / "audit.jsonl")
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.record("session.begun", {})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match=r"file/audit\.jsonl"):
        opened(tmp_path / "file" / "audit.jsonl")


WRITER = """
import sys
from pathlib import Path
from pipeline.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]), max_bytes=20_000, sync="never")
while True:
    print(log.record("session.begun", {"session_id": "x"}), flush=True)
"""


def test_nothing_recorded_is_lost_by_a_kill(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing and rotating: each number that was told before it is in the log."""
    path = tmp_path / "audit.jsonl"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    opened(path).close()
    report = verify(path)
    assert report.complete
    assert set(told) <= {record.sequence for record in records(path)}
