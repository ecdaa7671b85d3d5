"""The conformance kit passes our engine, and fails engines that were broken on purpose, each for its own promise."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest

from mmdg_model.scorer import Purpose
from pipeline import kiosk_messages as wire
from pipeline.channels import ChannelError
from pipeline.decision import Busy, Decided
from pipeline.kiosk import Gateway
from pipeline.kiosk_conformance import Kit, run_checks
from pipeline.kiosk_promises import CHECKS, named
from pipeline.policy import Policy
from pipeline.security import Role
from pipeline.simulated_engine import SimulatedEngine, SimulatedEngineSettings

#: Decides after three scores, a third of a second; limits with room for a busy machine.
BRISK = Policy(allowed_purposes=(Purpose.RELEASE, Purpose.SIMULATED), frame_correlation=0.0, min_frames=3,
               min_time_ms=0, uncertainty_weight=0.0, stall_min_ms=1000.0, keepalive_ms=250, expires_in_ms=300,
               deadline_ms=3000)
DOUBTFUL = msgspec.structs.replace(BRISK, min_frames=1000)


@contextmanager
def engine(folder, **changes):
    """A simulated engine that serves `folder`/kiosk from a thread."""
    stop = threading.Event()
    settings = SimulatedEngineSettings(**({
        "endpoint": f"ipc://{folder}/kiosk", "approach_ms": 50.0, "policies": {"default": BRISK, "slow": DOUBTFUL}}
        | changes))
    with SimulatedEngine(settings) as running:
        thread = threading.Thread(target=running.serve, args=(stop.is_set,))
        thread.start()
        try:
            yield settings.endpoint
        finally:
            stop.set()
            thread.join()


def tried(endpoint, *names, policy="default"):
    outcomes = run_checks(Kit(endpoint=endpoint, timeout_s=5.0, policy=policy), CHECKS, only=named(list(names)))
    return {outcome.name: (outcome.result, outcome.why) for outcome in outcomes}


def test_our_engine_keeps_every_promise(tmp_path):
    with engine(tmp_path) as endpoint:
        found = tried(endpoint)
        slow = tried(endpoint, "abandonment", "busy", "no_decision_yet", "late_subscription", "deadline", policy="slow")
    failed = {name: why for name, (result, why) in (found | slow).items() if result == "fail"}
    assert failed == {}
    skipped = {name for name, (result, _) in found.items() if result == "skip"}
    assert skipped <= {"guidance_rate", "abandonment"}  # too brisk a policy for these two
    assert {name for name, (result, _) in slow.items() if result != "pass"} == set()
    assert len(found) == len(CHECKS) + 1


@pytest.mark.parametrize("role", [Role.MONITOR, Role.OPERATOR])
def test_other_roles_skip_what_is_not_theirs(tmp_path, role):
    with engine(tmp_path, role=role) as endpoint:
        found = tried(endpoint, "roles", "sessions_are_private", "busy")
    assert found["roles"] == ("pass", "")
    assert found["busy"][0] == ("skip" if role is Role.MONITOR else "pass")


class Unsigned(Gateway):
    def _publish(self, events, now_ns, output):
        super()._publish(events, now_ns, output)
        for frames in [*output.published, *(frames for _, frames in output.replies)]:
            if len(frames) > 2:
                frames[-1] = bytes(64)


class WrongNonce(Gateway):
    def _publish(self, events, now_ns, output):
        events = [Decided(record=replace(e.record, nonce="00" * 32)) if isinstance(e, Decided) else e for e in events]
        super()._publish(events, now_ns, output)


class Twice(Gateway):
    def _publish(self, events, now_ns, output):
        super()._publish([e for e in events for _ in range(1 + isinstance(e, Decided))], now_ns, output)


class Gaps(Gateway):
    def _publish(self, events, now_ns, output):
        for session in self._sessions.values():
            session.sequence += 1
        super()._publish(events, now_ns, output)


class Rewritten(Gateway):
    """Makes the payload anew each time that it is read: the same facts in other bytes."""

    def _dispatch(self, identity, client, role, command, now_ns, output):
        super()._dispatch(identity, client, role, command, now_ns, output)
        if isinstance(command, wire.DecisionGet):
            frames = output.replies[0][1]
            frames[1] = json.dumps(json.loads(frames[1])).encode()
            frames[2] = self.signer.sign(frames[1])


class Talkative(Gateway):
    """Tells the score to everybody."""

    def _publish(self, events, now_ns, output):
        super()._publish(events, now_ns, output)
        for frames in [*output.published, *(frames for _, frames in output.replies)]:
            if len(frames) > 2:
                frames[-2] = frames[-2][:-1] + b',"logit":6.5}'
                frames[-1] = self.signer.sign(frames[-2])


class Mute(Gateway):
    """Says nothing to those who come late."""

    def subscribed(self, topics):
        return None


class Undying(Gateway):
    """Takes any sign of life of anybody for a keepalive."""

    def handle(self, identity, role, frames, now_ns):
        for session_id in self._sessions:
            self.engine.keepalive(session_id, now_ns)
        return super().handle(identity, role, frames, now_ns)


class Careless(Gateway):
    """Ends the open session of a camera for whoever asks for a new one."""

    def _begin(self, identity, client, command, now_ns):
        try:
            return super()._begin(identity, client, command, now_ns)
        except wire.CommandError as error:
            if not isinstance(error.__cause__, Busy):
                raise
            for session_id, session in self._sessions.items():
                if session.camera == command.camera:
                    self.engine.cancel(session_id, now_ns)
            self._sessions.clear()
            return super()._begin(identity, client, command, now_ns)


class Forgetful(Gateway):
    """Reads anybody's session and lets decisions live for ever."""

    def _dispatch(self, identity, client, role, command, now_ns, output):
        super()._dispatch(identity, client, Role.OPERATOR, command, min(now_ns, self.metrics.started_ns), output)


class Renumbered(Gateway):
    """An upgrade that tells verdicts as numbers."""

    def _publish(self, events, now_ns, output):
        super()._publish(events, now_ns, output)
        for frames in [*output.published, *(frames for _, frames in output.replies)]:
            if len(frames) > 2:
                frames[-2] = frames[-2].replace(b'"verdict":"bona_fide"', b'"verdict":1')
                frames[-1] = self.signer.sign(frames[-2])


class Permissive(Gateway):
    """Speaks to every version and never says hello."""

    def handle(self, identity, role, frames, now_ns):
        frames = [frames[0].replace(b'"contract": 99', b'"contract": 1').replace(b'"contract_min": 99',
                                                                                b'"contract_min": 1')]
        return super().handle(identity, role, frames, now_ns)


@pytest.mark.parametrize(("broken", "promise", "policy"), [
    (Unsigned, "signature", "default"), (WrongNonce, "echoes", "default"), (Twice, "decision_comes_once", "default"),
    (Gaps, "sequences", "default"), (Rewritten, "read_again", "default"), (Talkative, "coarse", "default"),
    (Mute, "late_subscription", "slow"), (Undying, "abandonment", "slow"), (Careless, "busy", "slow"),
    (Forgetful, "sessions_are_private", "slow"), (Forgetful, "expired_decisions", "default"),
    (Renumbered, "words", "default"), (Permissive, "negotiation", "default")],
    ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_a_broken_engine_fails_its_promise(tmp_path, monkeypatch, broken, promise, policy):
    monkeypatch.setattr("pipeline.decision_stage.Gateway", broken)
    for module in ("kiosk_promises", "kiosk_conformance"):
        monkeypatch.setattr(f"pipeline.{module}.SLACK_S", 0.4)
    with engine(tmp_path) as endpoint:
        assert tried(endpoint, promise, policy=policy)[promise][0] == "fail"


def test_a_message_that_is_not_of_the_documented_form_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.decision_stage.Gateway", Renumbered)
    with engine(tmp_path) as endpoint:
        outcomes = run_checks(Kit(endpoint=endpoint, timeout_s=5.0), CHECKS | {}, only=frozenset(
            ("echoes", "documented_form")))
    assert [(o.name, o.result) for o in outcomes] == [("echoes", "pass"), ("documented_form", "fail")]


def test_every_check_says_what_it_promises():
    assert [name for name, check in CHECKS.items() if not (check.__doc__ or "").split("\n")[0].endswith(".")] == []
    with pytest.raises(ValueError, match="no check 'door'"):
        named(["door"])


# --- the simulated engine itself ------------------------------------------------------------------------------------
def test_the_simulated_engine_outlives_the_shell_that_started_it(tmp_path, monkeypatch):
    with engine(tmp_path) as endpoint:
        monkeypatch.setattr("os.getppid", lambda: 1)  # as when a terminal is closed
        found = tried(endpoint, "introduction", "cancel_is_idempotent")
    assert {result for result, _ in found.values()} == {"pass"}


def test_a_simulated_engine_whose_decision_process_ends_says_so_and_does_not_wait_for_it(tmp_path):
    settings = SimulatedEngineSettings(endpoint=f"ipc://{tmp_path}/kiosk", cameras={"front": "bona_fide"})
    with SimulatedEngine(settings) as running:
        running._context.request_stop()
        with pytest.raises(ChannelError, match="has ended"):
            running.serve(lambda: False)
