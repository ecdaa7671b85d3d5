"""Audit log and lock-out around the engine: nothing opens that could not be recorded, and attacks lock a camera."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import audit_log
from pipeline.audit_check import records, verify
from pipeline.audit_log import AuditError, AuditLog
from pipeline.decision import Decided, DecisionEngine, LockedOut, NotReady, SecurityAlert
from pipeline.kiosk_client import KioskClient, KioskError, is_open
from pipeline.lockout import LockoutLimits
from pipeline.messages import ProcessEvent
from pipeline.session_guards import AuditSettings, Lockout, SessionGuards, clear_lockout
from tests.pipeline.scene import CAMERA, MODEL, MS, QUICK, observation, request, score
from tests.pipeline.stage_harness import RunningStage

LIMITS = LockoutLimits(attacks=2, lock_s=60, sessions_per_minute=0)


class Guarded:
    """An engine between its guards, fed frame by frame, as the stage does it."""

    def __init__(self, guards: SessionGuards) -> None:
        self.guards = guards
        self.engine = DecisionEngine({"quick": QUICK}, cameras=[CAMERA], model=MODEL, gate=guards.gate)
        self.now_ns, self.sequence, self.sessions = 1_000 * MS, 0, 0

    def session(self, logit: float, **seen: Any) -> list[Any]:
        """One whole session; the events as they are told."""
        self.sessions += 1
        told = self.guards.keep(self.engine.begin(request(session_id=f"s{self.sessions}"), self.now_ns), self.now_ns)
        for _ in range(3):
            self.now_ns += 33 * MS
            self.sequence += 1
            told += self.guards.keep(self.engine.observe(observation(self.sequence, self.now_ns, **seen), self.now_ns),
                                     self.now_ns)
            told += self.guards.keep(self.engine.score(score(self.sequence, logit), self.now_ns), self.now_ns)
        return told

    def verdict(self, logit: float, **seen: Any) -> tuple[str, str]:
        (decided,) = (e for e in self.session(logit, **seen) if isinstance(e, Decided))
        return decided.record.verdict.value, decided.record.reason


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_log_tells_a_session_without_scores_unless_it_was_accepted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    guards = SessionGuards(AuditLog(path))
    guards.started({"build": "b"}, 0)
    guards.heard(ProcessEvent(process="inference-0", role="inference", event="ready", stamp_ns=0, detail={
        "model_hash": "c0ffee", "purpose": "release", "operating_point": "{}", "worker": "w"}))
    scene = Guarded(guards)
    assert scene.verdict(6.0) == ("bona_fide", "llr_upper")
    assert scene.verdict(-6.0) == ("attack", "llr_lower")
    guards.stopped({})
    told = list(records(path))
    assert [r.kind for r in told] == [
        "log.opened", "engine.started", "process.ready", *["session.begun", "session.decided", "session.ended"] * 2,
        "engine.stopped", "log.closed"]
    accepted, refused = (r.content for r in told if r.kind == "session.decided")
    assert accepted["evidence"] > 0
    assert "evidence" not in refused
    assert not any(word in json.dumps(refused) for word in ("logit", "llr\"", "probability", "uncertainty"))
    assert (refused["session_id"], refused["model_hash"], refused["nonce"]) == ("s2", "c0ffee", "00" * 16)
    assert told[2].content["model_hash"] == "c0ffee"
    assert verify(path).complete


def test_what_cannot_be_recorded_is_never_bona_fide(tmp_path: Path) -> None:
    guards = SessionGuards(AuditLog(tmp_path / "audit.jsonl"))
    scene = Guarded(guards)
    assert scene.verdict(6.0)[0] == "bona_fide"
    with pytest.MonkeyPatch.context() as patch:
        scene.sessions += 1
        scene.engine.begin(request(session_id="open"), scene.now_ns)
        patch.setattr(audit_log.os, "write", full)
        told = []
        for _ in range(3):
            scene.now_ns += 33 * MS
            scene.sequence += 1
            scene.engine.observe(observation(scene.sequence, scene.now_ns), scene.now_ns)
            told += guards.keep(scene.engine.score(score(scene.sequence, 6.0), scene.now_ns), scene.now_ns)
        (decided,) = (e.record for e in told if isinstance(e, Decided))
        assert (decided.verdict.value, decided.reason) == ("undecided", "audit_failed")
        with pytest.raises(NotReady, match="No space left on device"):
            scene.engine.begin(request(session_id="another"), scene.now_ns)
    assert scene.verdict(6.0)[0] == "bona_fide"  # there is room again
    gap = next(r for r in records(tmp_path / "audit.jsonl") if r.kind == "log.gap")
    assert gap.content["records_lost"] >= 2


def test_an_engine_whose_log_cannot_begin_does_not_start(tmp_path: Path) -> None:
    guards = SessionGuards(AuditLog(tmp_path / "audit.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_log.os, "write", full)
        with pytest.raises(AuditError, match="No space left"):
            guards.started({}, 0)


def test_attacks_lock_the_camera_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    scene = Guarded(SessionGuards(AuditLog(path), Lockout(LIMITS)))
    assert not [e for e in scene.session(-6.0) if isinstance(e, SecurityAlert)]
    (alert,) = (e for e in scene.session(-6.0) if isinstance(e, SecurityAlert))
    assert (alert.code, alert.camera) == ("locked_out", CAMERA)
    for _ in range(30):
        with pytest.raises(LockedOut, match="60 s after 2 attacks"):
            scene.engine.begin(request(session_id="s9"), scene.now_ns)
    kinds = [r.kind for r in records(path)]
    assert kinds.count("lockout.locked") == kinds.count("security.alert") == 1
    assert kinds.count("session.refused") == 1  # told together
    scene.now_ns += 61_000 * MS
    assert scene.verdict(6.0)[0] == "bona_fide"


@pytest.mark.parametrize("seen", [{"conditions": ["too_dark"]}, {"tracks": []}, {"modalities": ["rgb"]}])
def test_a_session_without_an_examined_face_is_not_charged(seen: dict[str, Any]) -> None:
    scene = Guarded(SessionGuards(None, Lockout(LIMITS)))
    for _ in range(5):
        assert not [e for e in scene.session(-6.0, **seen) if isinstance(e, Decided)]
        (session,) = scene.engine.cancel(f"s{scene.sessions}", scene.now_ns)[:1]
        scene.guards.keep([session], scene.now_ns)
    assert scene.verdict(6.0)[0] == "bona_fide"


@pytest.mark.parametrize(("codes", "reason"), [
    (["frozen_infrared"], "stream_repeated"), (["repeated_colour"], "stream_repeated"), (["drift_depth"], "clock_jump"),
    (["camera_serial"], "camera_changed"),
])
def test_a_suspicious_frame_denies_and_alerts(tmp_path: Path, codes: list[str], reason: str) -> None:
    path = tmp_path / "audit.jsonl"
    scene = Guarded(SessionGuards(AuditLog(path)))
    told = scene.session(6.0, integrity=codes)
    (decided,) = (e.record for e in told if isinstance(e, Decided))
    (alert,) = (e for e in told if isinstance(e, SecurityAlert))  # one, though each frame is wrong
    assert (decided.verdict.value, decided.reason) == ("undecided", reason)
    assert (alert.code, alert.session_id) == (codes[0], "s1")
    assert [r.content["code"] for r in records(path) if r.kind == "security.alert"] == codes
    assert scene.verdict(6.0)[0] == "bona_fide"


def test_frames_of_another_camera_end_a_session() -> None:
    scene = Guarded(SessionGuards())
    scene.engine.begin(request(), scene.now_ns)
    scene.engine.observe(observation(1, scene.now_ns + MS), scene.now_ns + MS)
    told = scene.engine.observe(observation(2, scene.now_ns + 2 * MS, source="sim-2"), scene.now_ns + 2 * MS)
    assert [e.record.reason for e in told if isinstance(e, Decided)] == ["camera_changed"]


# --- the real stage, on real sockets --------------------------------------------------------------------------------
def decided(stage: RunningStage, client: KioskClient, logit: float) -> Any:
    session = client.begin(CAMERA)
    stage.both(3, logit)
    decision = client.wait_decision(session)
    assert decision is not None
    return decision, is_open(decision, session)


def test_a_kiosk_is_told_locked_out_and_the_lock_outlives_the_engine_until_an_operator_ends_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    state, log = tmp_path / "lockout.json", tmp_path / "audit.jsonl"
    settings: dict[str, Any] = {"lockout": LIMITS, "lockout_path": state, "audit": AuditSettings(path=log)}
    with RunningStage(tmp_path, **settings) as stage, KioskClient(stage.kiosk, timeout_s=10) as client:
        client.hello()
        for _ in range(2):
            assert decided(stage, client, -6.0)[0].verdict == "attack"
        with pytest.raises(KioskError) as refused:
            client.begin(CAMERA)
        assert refused.value.code == "locked_out"
        stage.until(lambda: any(r["type"] == "security.alert" and r["code"] == "locked_out" for r in stage.reports))
    with RunningStage(tmp_path, **settings) as stage, KioskClient(stage.kiosk, timeout_s=10) as client:
        client.hello()
        with pytest.raises(KioskError, match="mmdg lockout clear"):
            client.begin(CAMERA)
        clear_lockout(state, CAMERA, now_ns=time.monotonic_ns(), wall_clock="2026-01-01")
        assert decided(stage, client, 6.0)[1]
    kinds = [r.kind for r in records(log)]
    assert kinds.count("lockout.created") == kinds.count("lockout.cleared") == kinds.count("lockout.locked") == 1
    assert verify(log).complete


def test_a_full_disk_closes_a_running_engine_and_room_opens_it_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    log = tmp_path / "audit.jsonl"
    with RunningStage(tmp_path, audit=AuditSettings(path=log)) as stage, \
            KioskClient(stage.kiosk, timeout_s=10) as client:
        client.hello()
        assert decided(stage, client, 6.0)[1]
        with pytest.MonkeyPatch.context() as patch:
            session = client.begin(CAMERA)
            patch.setattr(audit_log.os, "write", full)
            stage.both(3)
            decision = client.wait_decision(session)
            assert decision is not None
            assert (decision.verdict, decision.reason) == ("undecided", "audit_failed")
            assert not is_open(decision, session)
            with pytest.raises(KioskError) as refused:
                client.begin(CAMERA)
            assert refused.value.code == "not_ready"
        assert decided(stage, client, 6.0)[1]
    assert verify(log).complete
