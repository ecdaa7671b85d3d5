"""Guards, each removed in turn: a run that does not notice proves nothing.

A mutant is an edit of the source text of one function, or of the few that guard the same thing. Text that is no longer
there is an error, so that the table cannot go stale.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import kiosk_client, kiosk_messages, sequential_test, session
from pipeline.decision import DecisionEngine
from pipeline.kiosk import Gateway
from pipeline.policy import Policy
from pipeline.session import Session
from pipeline.session_guards import Lockout, SessionGuards
from tests.fuzz.campaign import Tally, campaign
from tests.fuzz.world import Violation

#: Cases a mutant has to be noticed within, in the quick sweep.
QUICK_CASES = 60


@dataclass(frozen=True)
class Edit:
    """`old` stands exactly once in the source of `owner.name` and becomes `new`."""

    owner: Any
    name: str
    old: str
    new: str = "False"


@dataclass(frozen=True)
class Mutant:
    """guard: what is removed. aims: faults that show it; none = honest sessions do."""

    guard: str
    aims: tuple[str, ...]
    edits: tuple[Edit, ...]


def _m(guard: str, aims: str, *edits: Edit) -> Mutant:
    return Mutant(guard, tuple(aims.split()), edits)


def _session(name: str, old: str, new: str = "False") -> Edit:
    return Edit(Session, name, old, new)


def _engine(name: str, old: str, new: str = "False") -> Edit:
    return Edit(DecisionEngine, name, old, new)


def _client(old: str, new: str = "True") -> Edit:
    return Edit(kiosk_client, "is_open", old, new)


def _conclude(old: str, new: str = "False") -> Edit:
    return Edit(session, "conclude", old, new)


MUTANTS = (
    # evidence
    _m("min_frames", "no_scores too_few_scores read_again",
       Edit(sequential_test, "crossed", "evidence.frames < policy.min_frames or "
            "evidence.last_ns - evidence.first_ns < policy.min_time_ms * _NS_PER_MS"),
       _conclude("facts.frames < policy.min_frames")),
    _m("min_time", "burst", Edit(sequential_test, "crossed",
                                 "evidence.last_ns - evidence.first_ns < policy.min_time_ms * _NS_PER_MS")),
    _m("score age", "stale_scores stale_frames",
       _session("_refusal", "now_ns - seen.stamp_ns > self.policy.max_score_age_ms * _NS_PER_MS"),
       _session("_remember", "seen.stamp_ns >= oldest_ns", "True")),
    _m("repeated score", "lukewarm_scores_twice",
       _session("_misplaced", "self._last_scored is not None and score.sequence <= self._last_scored")),
    _m("epoch of a score", "scores_of_another_epoch", _session("_misplaced", "score.epoch != self._last.epoch")),
    _m("source of a score", "scores_of_another_source", _session("_misplaced", "score.source != self._last.source")),
    _m("observation of a score", "scores_without_observation", _session(
        "_misplaced", """if score.sequence not in self._seen:
        return "score_without_observation"
""", """if not self._seen:
        return "score_without_observation"
    self._seen.setdefault(score.sequence, list(self._seen.values())[-1])
""")),
    _m("track of a score", "scores_of_another_track", _session(
        "_refusal", "score.track_id != seen.track_id or score.track_id != self.track_id")),
    _m("failed score", "failed_scores", _session("_refusal", "score.failed is not None")),
    _m("finite logit", "no_numbers some_no_numbers", _session("_refusal", "not math.isfinite(score.logit)"),
       Edit(sequential_test, "count", "not math.isfinite(logit)")),
    _m("uncertainty range", "uncertainty_out_of_range", Edit(sequential_test, "count", "not 0.0 <= value <= 1.0")),
    _m("unknown uncertainty is not zero", "uncertain_or_untold",
       Edit(sequential_test, "count", "uncertainty.get(modality, 1.0)", "uncertainty.get(modality, 0.0)")),
    _m("uncertainty weighs on acceptance", "uncertain_or_untold",
       Edit(sequential_test, "for_acceptance", "policy.uncertainty_weight", "0.0")),
    _m("required modality of a score", "scores_lack_a_modality some_scores_lack_a_modality", _session(
        "_refusal", "any(m not in score.modalities or m not in seen.modalities for m in "
        "self.policy.required_modalities)"),
       _conclude("not facts.modalities.issuperset(policy.required_modalities)")),
    _m("required modality of a frame", "camera_lacks_a_modality",
       _session("_refusal", " or m not in seen.modalities", ""), _session(
           "_follow_subject", "self._used is not None and not self._used <= frozenset(observation.modalities)")),
    _m("model that was announced", "scores_of_another_model scores_of_another_purpose", _session(
        "_refusal", "self.model is None or score.model_hash != self.model.model_hash or score.purpose != "
        "self.model.purpose"), _conclude("facts.models != {facts.announced}")),
    _m("purpose of the model", "checkpoint_not_for_release",
       _conclude("facts.announced.purpose not in policy.allowed_purposes")),
    _m("simulated weights on a real camera", "checkpoint_not_for_release",
       _conclude("facts.announced.purpose is Purpose.SIMULATED and not facts.simulated_camera")),
    _m("calibration of the subset", "uncalibrated_camera uncalibrated_subset",
       _session("_refusal", "self._policy_for(score) is None")),
    _m("camera of the threshold", "unmeasured_camera", _session("_policy_for", "not self._kind_was_measured()")),
    _m("calibration of the model", "calibration_of_another_model",
       _engine("_calibrated", "self.calibration is None", "True"),
       _session("_policy_for", "self.calibration.model.sha256 != score.model_hash")),
    _m("no sum of two maps", "subsets_in_turn",
       _session("score", "self._used is not None and used != self._used")),
    _m("clip of a frame's evidence", "one_huge_score",
       Edit(Policy, "frame_llr", "max(-self.llr_clip, min(self.llr_clip, scale * logit - "
            "(self.training_log_odds or 0.0)))", "scale * logit - (self.training_log_odds or 0.0)")),
    _m("correlated frames are tempered", "lukewarm_scores",
       Edit(sequential_test, "tempered", "effective(evidence.frames, policy) / evidence.frames", "1.0")),
    _m("gating conditions", "gated_frames some_gated_frames",
       _session("_remember", "code in self.policy.gating_conditions")),
    # the face
    _m("face swapped", "face_swapped", _session("_follow_subject", "return True", "pass")),
    _m("several faces reset", "sometimes_two_faces", _session("_follow_subject", "len(observation.faces) > 1")),
    _m("track gap resets", "track_gap", _session(
        "_follow_subject", "self._subject_ns is not None and stamp_ns - self._subject_ns > self.policy.track_gap_ms * "
        "_NS_PER_MS")),
    _m("broken track resets", "broken_track", _session(
        "_follow_subject", "observation.track_broken and self.track_id is not None")),
    _m("lost modality resets", "camera_loses_a_modality", _session(
        "_follow_subject", "self._used is not None and not self._used <= frozenset(observation.modalities)")),
    _m("debt on reset", "attack_then_live", Edit(
        sequential_test, "reset", "debt=evidence.debt + min(0.0, tempered(evidence, policy) - evidence.debt)", "")),
    _m("scores of before a reset", "broken_track sometimes_two_faces", _session(
        "_forget", "replace(seen, track_id=None)", "seen")),
    # the stream
    _m("integrity codes", "integrity", _session("observe", "if observation.integrity:", "if False:")),
    _m("source of frames", "another_source", _session(
        "observe", "last is not None and last.source != observation.source")),
    _m("epoch of frames", "another_epoch", _session(
        "observe", "last is not None and last.epoch != observation.epoch and self._examined")),
    _m("stamps in the future", "stamps_in_the_future", _session("observe", "observation.stamp_ns > now_ns")),
    _m("stamps that do not advance", "stamps_that_stand_or_go_back", _session(
        "observe", "(last is not None and observation.stamp_ns <= last.stamp_ns)")),
    _m("frames of before the session", "frames_before_the_session", _session(
        "observe", "last is None and observation.stamp_ns < self.began_ns")),
    _m("observation told once", "gated_once_told_twice", _engine(
        "observe", "observation.sequence <= previous.sequence")),
    _m("no recording's clock for a kiosk", "goes_lockstep", _session(
        "observe", "observation.lockstep and self.request.origin is Origin.KIOSK")),
    # time
    _m("stall by stamps", "stall", _session(
        "observe", "observation.stamp_ns - reference_ns > max(self._stall_ns, self._stall_of(observation))")),
    _m("stall by receipt", "no_scores", _session(
        "_limits", "(self._received_ns + self._stall_ns, Reason.STREAM_STALE), ", "")),
    _m("deadline", "evidence_after_the_deadline", _session("_limits", "(self._deadline_ns, Reason.DEADLINE),", "")),
    _m("deadline of the compiled policy", "longer_than_the_evidence_allows", _session(
        "__init__", "asked_ms = min(asked_ms, self.policy.deadline_ms)", "pass")),
    _m("no face", "away_for_long nobody", _session(
        "_limits", "(self._face_ns + self.policy.no_face_ms * _NS_PER_MS, Reason.NO_FACE)", "")),
    _m("keepalive", "never_a_keepalive", _session("_limits", "self.request.needs_keepalive")),
    _m("a late timer does not help", "scores_after_the_deadline", _session(
        "score", "expired = self._expired(now_ns)", "expired: list = []")),
    _m("the timer asks in time", "no_scores", _session("next_deadline_ns", ") + 1", ") + 1_000_000")),
    # the path
    _m("one session a camera", "second_begin", _engine("begin", "camera in self._sessions")),
    _m("lost process: no session", "process_lost_before", _engine("ready", "not self._lost", "True")),
    _m("lost process ends sessions", "process_lost", _engine(
        "process_event", "return self._end(list(self._sessions), Reason.ENGINE_ERROR, now_ns)", "return []")),
    _m("lost camera: no session", "camera_lost_before", _engine("begin", "camera in self._absent")),
    _m("lost camera ends sessions", "process_lost", _engine(
        "process_event", "return self._end(hit if named in self.cameras else list(self._sessions), "
        "Reason.DEVICE_LOST, now_ns)", "return []")),
    _m("last word of a camera", "camera_ended", _engine(
        "_camera_ended", "return self._end([ended.camera], _CAMERA_ENDED.get(ended.reason, Reason.DEVICE_LOST), "
        "now_ns)", "return []")),
    _m("another model ends sessions", "model_changes", _engine(
        "_announced", "if changed else []", "if False else []")),
    # before and behind a session
    _m("the gate is asked", "besieged flood_of_sessions", _engine("begin", "self._gate is not None")),
    _m("attacks are charged", "besieged", Edit(
        SessionGuards, "_charge", "self.lockout.charge(record.camera, now_ns)", "None")),
    _m("locked out", "besieged", Edit(Lockout, "gate", "left_s > 0")),
    _m("lock-out survives a restart", "besieged_over_restarts", Edit(
        Lockout, "_change", "self.file.write(self._state, now_ns)", "pass")),
    _m("sessions a minute", "flood_of_sessions", Edit(
        Lockout, "gate", "len(begun) >= self.limits.sessions_per_minute")),
    _m("unrecorded is not bona fide", "disk_full_all_along disk_full", Edit(
        SessionGuards, "keep", "not recorded")),
    _m("no session while nothing can be recorded", "disk_full_all_along", Edit(
        SessionGuards, "gate", "raise AuditFailed(self.failed)", "pass")),
    _m("decisions are recorded", "read_again", Edit(
        SessionGuards, "_keep", "return entry is None or self._record(entry.kind, entry.content, "
        "urgent=entry.urgent)", "return True")),
    # the gateway
    _m("nonce once", "nonce_again", Edit(Gateway, "_begin", "any(session.nonce == command.nonce for session in "
                                         "self._sessions.values())")),
    _m("nonce of 128 bits", "weak_nonce", Edit(
        kiosk_messages, "read_command", "text is not None and encoded_bits(text) < 128")),
    _m("role", "monitor_begins", Edit(Gateway, "_dispatch", "role < Role.KIOSK")),
    _m("owner of a session", "other_kiosk_meddles", Edit(
        Gateway, "_dispatch", "session.owner != identity and role < Role.OPERATOR")),
    _m("expiry of decision.get", "read_again", Edit(Gateway, "_dispatch", "now_ns >= session.expires_ns")),
    _m("sequence without gaps", "", Edit(Gateway, "_publish", "session.sequence += 1", "session.sequence += 2")),
    # the client
    _m("signature", "altered_or_unsigned", _client("not _signed(decision, session.signing_keys)", "False")),
    _m("single use", "", _client("session.spent or not _signed", "not _signed")),
    _m("expiry", "presented_late", _client("(time.monotonic_ns() if now_ns is None else now_ns) < expires_ns")),
    _m("range of times", "odd_decision", Edit(
        kiosk_client, "_in_range", "type(value) in (int, float) and low <= value <= high",
        "type(value) in (int, float)")),
    _m("kind of message", "odd_decision", _client('fields.get("type") == "decision"')),
    _m("contract", "odd_decision", _client('fields["contract"] == CONTRACT')),
    _m("verdict", "attack altered_or_unsigned odd_decision", _client('fields.get("verdict") == "bona_fide"')),
    _m("origin", "odd_decision", _client('fields.get("origin") == "kiosk"')),
    _m("examined", "odd_decision", _client('fields.get("examined") is True')),
    _m("simulated", "odd_decision simulated_camera_and_weights", _client(
        'fields.get("simulated") is False or (accept_simulated', "True or (accept_simulated")),
    _m("purpose told", "odd_decision", _client('fields.get("model_purpose") == "release"\n', "True\n")),
    _m("session id", "odd_decision", _client('fields.get("session_id") == session.session_id')),
    _m("nonce told", "odd_decision", _client("_same(nonce, session.nonce)")),
    _m("transaction", "odd_decision", _client('fields["transaction_hash"] == session.transaction_hash')),
    _m("key id", "odd_decision", Edit(kiosk_client, "_signed", "keys.get(key_id) if isinstance(key_id, str) else None",
                                      "next(iter(keys.values()))")),
    # always closed is no solution
    _m("a live face is found bona fide", "", _conclude(
        "return Verdict.BONA_FIDE, Reason.LLR_UPPER", "return Verdict.UNDECIDED, Reason.DEADLINE")),
    _m("a decision opens", "", _client("session.spent = session.spent or opens", "opens = False")),
    _m("decisions are signed", "", Edit(
        Gateway, "_publish", "self.signer.sign(payload)", "bytes(64)")),
)


@contextmanager
def removed(mutant: Mutant) -> Iterator[None]:
    """The guard is gone inside the block. Raises `LookupError` where its text does not stand."""
    kept: list[tuple[Any, str, Any]] = []
    try:
        for edit in mutant.edits:
            found = inspect.getattr_static(edit.owner, edit.name)
            function = found.fget if isinstance(found, property) else found
            source = textwrap.dedent(inspect.getsource(function))
            if source.count(edit.old) != 1:
                raise LookupError(f"{mutant.guard}: {edit.old!r} stands {source.count(edit.old)} times in "
                                  f"{edit.owner.__name__}.{edit.name}")
            space: dict[str, Any] = {}
            code = compile(source.replace(edit.old, edit.new), f"<{mutant.guard}>", "exec",
                           flags=__future__.annotations.compiler_flag)
            exec(code, function.__globals__, space)
            kept.append((edit.owner, edit.name, found))
            setattr(edit.owner, edit.name, space[edit.name])
        yield
    finally:
        for owner, name, found in reversed(kept):
            setattr(owner, name, found)


def noticed(mutant: Mutant, seed: int, cases: int, folder: Path, *, aimed: bool = True) -> str | None:
    """What the run says of a mutant: the violated rule with the case's number, or that too few open. None: nothing."""
    names = list(mutant.aims) if aimed and mutant.aims else None
    caught: list[str] = []

    def failed(index: int, _: object, violation: Violation) -> bool:
        caught.append(f"{violation.rule} (case {index})")
        return False

    with removed(mutant):
        for path in folder.glob("lockout-*"):
            path.unlink()
        try:
            tally = campaign(seed, range(cases), folder, names=names, failed=failed)
        except Violation as violation:  # of the log, at the end of a block
            (folder / "audit.jsonl").unlink(missing_ok=True)
            return violation.rule
    for path in folder.glob("audit*"):
        path.unlink()
    if caught:
        return caught[0]
    return None if opens_enough(tally) else "too few open"


def opens_enough(tally: Tally) -> bool:
    """At least 99 % of the sessions of cases without a fault open."""
    return tally.unfaulted_opened >= 0.99 * tally.unfaulted
