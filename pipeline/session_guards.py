"""What stands around every session: the lock-out before it, the audit log behind it.

`gate` refuses a session before it begins; `keep` records what happened before anybody is told. A verdict `bona_fide`
that
could not be recorded is not issued: it becomes `undecided` with the reason `audit_failed`.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from pipeline import lockout
from pipeline.audit_log import AuditError, AuditLog, SyncPolicy, boot_id
from pipeline.audit_records import entry_of
from pipeline.decision import (
    AuditFailed,
    Decided,
    Event,
    LockedOut,
    RateLimited,
    SecurityAlert,
    SessionRequest,
)
from pipeline.ed25519_files import load_private_key
from pipeline.lockout import EVERY_CAMERA, CameraLockout, LockoutFile, LockoutFileError, LockoutLimits, LockoutState
from pipeline.messages import ProcessEvent
from pipeline.verdict import Origin, Reason, Verdict

_PROCESS_FACTS = ("model_hash", "purpose", "arithmetic", "camera", "serial", "rig_hash", "health", "reason")
_MINUTE_NS = 60_000_000_000
_REFUSALS_PERIOD_NS = 10_000_000_000


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Where and how the audit log is written. signing_key: file of an Ed25519 private key."""

    path: Path
    max_bytes: int = 16 * 2**20
    sync: SyncPolicy = "decisions"
    signing_key: Path | None = None
    sign_every: int = 256

    def open(self) -> AuditLog:
        """Raises `AuditError`, `KeyFileError`."""
        key = None if self.signing_key is None else load_private_key(self.signing_key)
        return AuditLog(self.path, max_bytes=self.max_bytes, sync=self.sync, signing_key=key,
                        sign_every=self.sign_every)


class Lockout:
    """Attacks and sessions by camera. Its file is read anew when someone else, such as an operator, replaced it.

    Args:
        limits: when a camera is locked. file: None = the state lives as long as this process.
    """

    def __init__(self, limits: LockoutLimits, file: LockoutFile | None = None) -> None:
        self.limits, self.file = limits, file
        self.error: str | None = None  # why everything is locked
        self._state = LockoutState()
        self._begun: dict[str, deque[int]] = {}
        self._fingerprint: object = ()  # of the file as it was last read or written
        self._unsaved = False  # the state holds a change that the file does not

    def gate(self, camera: str, now_ns: int) -> None:
        """One session more.

        Raises:
            LockedOut: the camera is locked, or the state cannot be read. RateLimited: too many sessions a minute.
        """
        self._refresh(now_ns)
        if self.error is not None:
            raise LockedOut(self.error)
        left_s = lockout.remaining_s(self._state.cameras.get(camera), now_ns)
        if left_s > 0:
            raise LockedOut(f"camera {camera!r} is locked for another {left_s:.0f} s after {self.limits.attacks} "
                            "attacks; an operator can end that with `mmdg lockout clear`")
        begun = self._begun.setdefault(camera, deque())
        while begun and now_ns - begun[0] >= _MINUTE_NS:
            begun.popleft()
        if self.limits.sessions_per_minute and len(begun) >= self.limits.sessions_per_minute:
            raise RateLimited(f"camera {camera!r}: more than {self.limits.sessions_per_minute} sessions a minute")
        begun.append(now_ns)

    def charge(self, camera: str, now_ns: int) -> int | None:
        """An attack on a face that was examined. The seconds of the lock that it brought, None for none."""
        lasts_s: int | None = None

        def step(state: LockoutState) -> LockoutState:
            nonlocal lasts_s
            charged, lasts_s = lockout.charge(state.cameras.get(camera, CameraLockout()), now_ns, self.limits)
            return structs.replace(state, cameras={**state.cameras, camera: charged})

        self._change(step, now_ns)
        return lasts_s

    def take_unlogged(self, now_ns: int) -> list[lockout.Clearing]:
        """Clearings by operators that the audit log does not tell of yet; each is given once."""
        if self.file is None:
            return []
        self._refresh(now_ns)
        taken: list[lockout.Clearing] = []

        def step(state: LockoutState) -> LockoutState:
            taken.extend(state.unlogged)
            return structs.replace(state, unlogged=[])

        if self._state.unlogged:
            self._change(step, now_ns)
        return taken

    def _refresh(self, now_ns: int) -> None:
        if self.file is None or (self.error is None and self.file.fingerprint() == self._fingerprint):
            return
        self._change(None, now_ns)

    def _change(self, step: Callable[[LockoutState], LockoutState] | None, now_ns: int) -> None:
        """Read, step, write. What cannot be read or written locks everything, until it can."""
        if self.file is None:
            assert step is not None
            self._state = step(self._state)
            return
        try:
            with self.file.locked():
                found = self.file.fingerprint()
                # What could not be written the last time stands here alone, unless someone replaced the file since.
                unsaved = self._unsaved and found == self._fingerprint
                state = self._state if unsaved else self.file.read(now_ns)
                self._state, self._fingerprint = (state if step is None else step(state)), found
                self._unsaved = unsaved or step is not None or found is None
                if self._unsaved:
                    self.file.write(self._state, now_ns)
                self._fingerprint, self._unsaved, self.error = self.file.fingerprint(), False, None
        except LockoutFileError as error:
            self.error = str(error)


class SessionGuards:
    """Both together, for the decision stage. Either may be absent.

    Args:
        audit: an open log. lockout: see `Lockout`.
    """

    def __init__(self, audit: AuditLog | None = None, lockout: Lockout | None = None) -> None:
        self.audit, self.lockout = audit, lockout
        self.failed: str | None = None  # why nothing can be recorded
        self._refusals: dict[tuple[str, Reason], tuple[int | None, int]] = {}  # when last told, how many since

    def started(self, content: Mapping[str, Any], now_ns: int) -> None:
        """The engine starts: build, policies, hashes.

        Raises:
            AuditError: an engine that cannot record its start does not run.
        """
        if self.audit is not None:
            self.audit.record("engine.started", dict(content), urgent=True)
        if self.lockout is not None and self.lockout.file is not None:
            if not self.lockout.file.existed:
                self._record("lockout.created", {"path": str(self.lockout.file.path)}, urgent=True)
            self._note_clearings(now_ns)

    def heard(self, event: ProcessEvent) -> None:
        """A process is ready or lost: with the model's hash, the camera's serial and rig."""
        told = {key: event.detail[key] for key in _PROCESS_FACTS if key in event.detail}
        if "operating_point" in event.detail:
            told["operating_point_sha256"] = hashlib.sha256(event.detail["operating_point"].encode()).hexdigest()
        self._record(f"process.{event.event}"[:64], {"process": event.process, "role": event.role, **told})

    def gate(self, request: SessionRequest, now_ns: int) -> None:
        """Called before a session begins.

        Raises:
            LockedOut, RateLimited, AuditFailed: refused; the log tells so where it can.
        """
        if self.lockout is not None:
            self._note_clearings(now_ns)
            try:
                self.lockout.gate(request.camera, now_ns)
            except (LockedOut, RateLimited) as error:
                reason = Reason.LOCKED_OUT if isinstance(error, LockedOut) else Reason.RATE_LIMITED
                self._refused(request.camera, reason, now_ns)
                raise
        if self.failed is not None:
            # The way back, too: once this can be recorded, decisions can.
            self._record("engine.recording_again", {}, urgent=True)
        if self.failed is not None:
            raise AuditFailed(self.failed)

    def keep(self, events: list[Event], now_ns: int) -> list[Event]:
        """Record events and charge attacks, before anybody is told; the events to tell."""
        told: list[Event] = []
        for event in events:
            recorded = self._keep(event)
            if isinstance(event, Decided) and not recorded and event.record.verdict is Verdict.BONA_FIDE:
                event = Decided(record=replace(event.record, verdict=Verdict.UNDECIDED, would_decide=None,
                                               reason=Reason.AUDIT_FAILED.value))
            told.append(event)
            if isinstance(event, Decided):
                told += self._charge(event, now_ns)
        return told

    def stopped(self, content: Mapping[str, Any]) -> None:
        """The engine stops. What cannot be written any more is told by `failed`."""
        if self.audit is None:
            return
        self._record("engine.stopped", dict(content), urgent=True)
        try:
            self.audit.close()
        except AuditError as error:
            self.failed = str(error)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _refused(self, camera: str, reason: Reason, now_ns: int) -> None:
        """Refusals are told together, so that a client that keeps asking does not fill the disk."""
        told_ns, count = self._refusals.get((camera, reason), (None, 0))
        if told_ns is not None and now_ns - told_ns < _REFUSALS_PERIOD_NS:
            self._refusals[camera, reason] = (told_ns, count + 1)
            return
        self._refusals[camera, reason] = (now_ns, 0)
        self._record("session.refused", {"camera": camera, "reason": reason.value, "others_since_the_last": count})

    def _keep(self, event: Event) -> bool:
        entry = entry_of(event)
        return entry is None or self._record(entry.kind, entry.content, urgent=entry.urgent)

    def _record(self, kind: str, content: dict[str, Any], *, urgent: bool = False) -> bool:
        if self.audit is None:
            return True
        try:
            self.audit.record(kind, content, urgent=urgent)
        except AuditError as error:
            self.failed = str(error)
            return False
        self.failed = None
        return True

    def _charge(self, event: Decided, now_ns: int) -> list[Event]:
        """Only a face that was examined is charged, and only where a kiosk asked: a local session opens nothing."""
        record = event.record
        if (self.lockout is None or record.verdict is not Verdict.ATTACK or not record.examined
                or record.origin is not Origin.KIOSK):
            return []
        lasts_s = self.lockout.charge(record.camera, now_ns)
        alerts: list[Event] = []
        if lasts_s is not None:
            self._record("lockout.locked", {"camera": record.camera, "lasts_s": lasts_s}, urgent=True)
            alerts.append(SecurityAlert(code="locked_out", camera=record.camera, session_id=record.session_id,
                                        detail=f"{self.lockout.limits.attacks} attacks; locked for {lasts_s} s"))
        if self.lockout.error is not None:
            alerts.append(SecurityAlert(code="lockout_state_lost", camera=record.camera, session_id=record.session_id,
                                        detail=self.lockout.error))
        for alert in alerts:
            self._keep(alert)
        return alerts

    def _note_clearings(self, now_ns: int) -> None:
        assert self.lockout is not None
        for clearing in self.lockout.take_unlogged(now_ns):
            self._record("lockout.cleared", {"camera": clearing.camera, "uid": clearing.uid,
                                             "wall_clock": clearing.wall_clock}, urgent=True)


def open_guards(audit: AuditSettings | None, limits: LockoutLimits | None, state_path: Path | None) -> SessionGuards:
    """Open what the settings name; None where there is nothing of that kind.

    Raises:
        AuditError, KeyFileError, LockoutFileError: it cannot be kept, and an engine that cannot keep it must not serve.
    """
    file = None if limits is None or state_path is None else LockoutFile(state_path, boot_id=boot_id())
    return SessionGuards(None if audit is None else audit.open(), None if limits is None else Lockout(limits, file))


def clear_lockout(path: Path, camera: str | None, *, now_ns: int, wall_clock: str) -> None:
    """What `mmdg lockout clear` does. camera: None = all, which also replaces a state that cannot be read.

    Raises:
        LockoutFileError: it cannot be read or written.
    """
    file = LockoutFile(path, boot_id=boot_id())
    with file.locked():
        try:
            state = file.read(now_ns)
        except LockoutFileError:
            if camera is not None:
                raise
            state = LockoutState()
        file.write(lockout.cleared(state, camera or EVERY_CAMERA, os.getuid(), wall_clock), now_ns)
