"""The decision process on real sockets: lock-step, malformed messages, reports, and how it ends."""

import json
import multiprocessing
import os
import signal
import time

import msgspec
import pytest

from pipeline import messages
from pipeline.channels import DEALER, PULL, ChannelError, Endpoints, Sockets, drain
from pipeline.decision_stage import DecisionStage, DecisionStageSettings, run
from pipeline.kiosk_client import KioskClient, is_open
from pipeline.messages import CameraEnded, ObservationAck, ProcessEvent, Progress
from pipeline.policy import Policy, PolicyError
from pipeline.security import Role, RoleMap, SecurityError
from pipeline.stage_context import StageContext
from tests.pipeline.curve_peers import Site, strange_options
from tests.pipeline.scene import CAMERA, EPOCH, MODEL, MS, TEST_MODEL, observation, score
from tests.pipeline.stage_harness import PATIENT, WAIT_S, RunningStage


def acks(stage):
    return [messages.decode(frames[0], ObservationAck).sequence for frames in drain(stage.observations)]


def reported(stage, kind):
    return [line for line in stage.reports if line["type"] == kind]


def replay(stage, sequence, stamp_ns, **changes):
    stage.observations.send(messages.encode(observation(sequence, stamp_ns, lockstep=True, **changes)))


# --- local sessions and reports -------------------------------------------------------------------------------------
def test_without_a_kiosk_each_subject_gets_a_local_session(tmp_path):
    with RunningStage(tmp_path, kiosk=False) as stage:
        stage.both(3)
        stage.until(lambda: reported(stage, "session.ended"))
        (decision,) = reported(stage, "decision")
        assert (decision["verdict"], decision["origin"]) == ("bona_fide", "local")
        assert "evidence" not in decision
        assert "would_decide" not in decision
        assert next(line["type"] for line in stage.reports) == "session.started"


def test_score_lines_are_reported_when_asked_for(tmp_path):
    with RunningStage(tmp_path, kiosk=False, report_scores=True, model=TEST_MODEL) as stage:
        stage.see()
        stage.hear(1.25, model=TEST_MODEL)
        stage.see()
        stage.hear(float("nan"), model=TEST_MODEL)
        stage.until(lambda: len(reported(stage, "score")) == 2)
        first, second = reported(stage, "score")
        assert (first["sequence"], first["track_id"], first["logit"]) == (1, 1, 1.25)
        assert first["model_purpose"] == "test"
        assert second["logit"] is None  # not a number: no JSON number


def test_the_model_may_be_announced_later(tmp_path):
    with RunningStage(tmp_path, kiosk=False, model=None) as stage:
        stage.both(3)
        stage.until(lambda: stage.counter("score_without_session") == 3)
        stage.tell(ProcessEvent(process="inference", role="inference", event="ready", stamp_ns=0,
                                detail={"model_hash": MODEL.model_hash, "purpose": "release"}))
        stage.tell(ProcessEvent(process="x", role="x", event="what", stamp_ns=0))
        stage.until(lambda: stage.counter("unknown_process_event") == 1)
        assert reported(stage, "session.started") == []
        stage.both(3)
        stage.until(lambda: reported(stage, "decision"))


def test_a_recording_that_ends_ends_the_session(tmp_path):
    with RunningStage(tmp_path, kiosk=False) as stage:
        stage.both(2)
        stage.observations.send(messages.encode(CameraEnded(
            camera=CAMERA, source="sim-1", epoch=EPOCH, reason="end_of_stream", detail="", stamp_ns=0, counters={})))
        stage.until(lambda: reported(stage, "decision"))
        assert reported(stage, "decision")[0]["reason"] == "stream_ended"


# --- lock-step ------------------------------------------------------------------------------------------------------
def test_lockstep_acknowledges_an_observation_once_its_score_is_accounted_for(tmp_path):
    with RunningStage(tmp_path, kiosk=False) as stage:
        got = []

        def arrived(count):
            got.extend(acks(stage))
            return len(got) >= count

        replay(stage, 1, 100 * MS, tracks=[], bundle_sent=False)
        stage.until(lambda: arrived(1))
        replay(stage, 2, 133 * MS)
        stage.until(lambda: reported(stage, "session.started"))  # it was taken in
        assert not arrived(2)
        stage.hear(sequence=2)
        stage.until(lambda: arrived(2))
        replay(stage, 3, 166 * MS)
        stage.hear(sequence=3, failed="no plane")  # a failed score is an answer too
        stage.until(lambda: arrived(3))
        assert got == [1, 2, 3]


def test_lockstep_acknowledges_an_observation_whose_score_came_first(tmp_path):
    with RunningStage(tmp_path, kiosk=False, report_scores=True) as stage:
        got = []
        for sequence in range(1, 4):
            stage.hear(sequence=sequence)
            stage.until(lambda sequence=sequence: len(reported(stage, "score")) == sequence)
            replay(stage, sequence, sequence * 33 * MS)
            stage.until(lambda sequence=sequence: got.extend(acks(stage)) or len(got) == sequence)
        stage.until(lambda: reported(stage, "decision"))
        assert reported(stage, "decision")[0]["verdict"] == "bona_fide"


def test_lockstep_decides_on_recorded_time_however_slow_the_host(tmp_path):
    with RunningStage(tmp_path, kiosk=False) as stage:
        for sequence in range(1, 4):
            replay(stage, sequence, sequence * 33 * MS)  # stamps of long ago
            stage.hear(sequence=sequence)
        stage.until(lambda: reported(stage, "decision"))
        decision = reported(stage, "decision")[0]
        assert (decision["verdict"], decision["time_to_decision_ms"]) == ("bona_fide", 66.0)


def test_lockstep_goes_on_when_the_inference_process_is_lost(tmp_path):
    with RunningStage(tmp_path, kiosk=False) as stage:
        got = []
        replay(stage, 1, 33 * MS)
        stage.until(lambda: reported(stage, "session.started"))
        stage.tell(ProcessEvent(process="inference", role="inference", event="lost", stamp_ns=0))
        stage.until(lambda: got.extend(acks(stage)) or got == [1])
        assert reported(stage, "decision")[0]["reason"] == "engine_error"
        replay(stage, 2, 66 * MS)
        stage.until(lambda: got.extend(acks(stage)) or got == [1, 2])


def test_lockstep_does_not_wait_for_ever(tmp_path):
    with RunningStage(tmp_path, kiosk=False, lockstep_limit_s=0.2) as stage:
        got = []
        replay(stage, 1, 33 * MS)
        stage.until(lambda: got.extend(acks(stage)) or got == [1])
        stage.until(lambda: reported(stage, "decision"))
        assert reported(stage, "decision")[0]["reason"] == "engine_error"
        stage.until(lambda: stage.counter("lockstep_limit") == 1)


# --- malformed messages ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [b"", b"\x00", b"not a message", b"\xc1" * 100, messages.encode(score(1))[:-5],
                                  messages.encode(msgspec.structs.replace(score(1), schema=99))],
                         ids=["empty", "zero", "text", "reserved", "cut", "other_schema"])
def test_malformed_messages_are_counted_on_every_socket_and_the_process_lives(tmp_path, data):
    with RunningStage(tmp_path, kiosk=False) as stage:
        for socket in (stage.observations, stage.scores, stage.control):
            socket.send(data)
        stage.until(lambda: all(stage.counter(f"malformed_{kind}") == 1
                                for kind in ("observation", "score", "control")))
        stage.both(3)
        stage.until(lambda: reported(stage, "decision"))


def test_a_message_of_another_kind_is_counted(tmp_path):
    with RunningStage(tmp_path, kiosk=False) as stage:
        stage.observations.send(messages.encode(score(1)))
        stage.scores.send(messages.encode(observation(1, 0)))
        stage.control.send(messages.encode(observation(1, 0)))
        stage.scores.send_multipart([b"a", b"b"])
        stage.until(lambda: all(stage.counter(f"unexpected_{kind}") == 1
                                for kind in ("observation", "score", "control")))
        stage.until(lambda: stage.counter("malformed_score") == 1)


# --- opening and closing --------------------------------------------------------------------------------------------
def test_a_second_engine_on_the_same_endpoint_is_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    with RunningStage(tmp_path) as stage:
        context = StageContext("second", Endpoints(str(other)), install_signals=False)
        try:
            with pytest.raises(ChannelError, match="another process already serves it"):
                DecisionStage(context, DecisionStageSettings(kiosk_endpoint=stage.kiosk))
        finally:
            context.close()


def test_an_open_directory_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    context = StageContext("decision", Endpoints(str(tmp_path)), install_signals=False)
    try:
        with pytest.raises(SecurityError, match="mode 755"):
            DecisionStage(context, DecisionStageSettings(kiosk_endpoint=f"ipc://{tmp_path}/kiosk"))
    finally:
        context.close()


def test_a_user_without_a_role_gets_no_answer(tmp_path):
    roles = RoleMap(uids={os.getuid() + 1: Role.KIOSK})
    with RunningStage(tmp_path, roles=roles) as stage, KioskClient(stage.kiosk, timeout_s=0.3) as client, \
            pytest.raises(Exception, match="no_answer"):
        client.hello()


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match="'vault'"):
        DecisionStageSettings(local_policy="vault")
    with pytest.raises(PolicyError, match=r"policies\.quick\.min_frames"):
        DecisionStageSettings(policies={"quick": Policy(min_frames=0), "default": Policy()})


@pytest.mark.processes
def test_sigterm_decides_what_is_open_and_ends_the_process_within_a_second(tmp_path):
    endpoints, kiosk = Endpoints(str(tmp_path)), f"ipc://{tmp_path}/kiosk"
    settings = DecisionStageSettings(policies={"default": PATIENT}, cameras=(CAMERA,), model=MODEL,
                                     kiosk_endpoint=kiosk)
    with Sockets() as sockets:
        supervisor = sockets.open(PULL, endpoints.progress, bind=True)
        process = multiprocessing.get_context("spawn").Process(target=run, args=("decision", endpoints, settings))
        process.start()
        try:
            states = []
            while "running" not in states:
                assert supervisor.poll(int(WAIT_S * 1000)), states
                message = messages.decode(supervisor.recv(), messages.Message)
                states += [message.state] if isinstance(message, Progress) else []
            camera = sockets.open(DEALER, endpoints.observations, bind=False)
            with KioskClient(kiosk, timeout_s=5.0) as client:
                client.hello()
                session = client.begin(CAMERA)
                camera.send(messages.encode(observation(1, time.monotonic_ns())))
                os.kill(process.pid, signal.SIGTERM)
                asked = time.monotonic()
                decision = client.wait_decision(session)
                process.join(WAIT_S)
                took_s = time.monotonic() - asked
            assert (decision.verdict, decision.reason) == ("undecided", "engine_stopped")
            assert process.exitcode == 0
            assert took_s < 1.0
        finally:
            process.kill()
            process.join()
    assert states[0] == "starting"


@pytest.mark.processes
def test_a_killed_engine_keeps_closed_and_its_successor_knows_nothing_of_the_session(tmp_path):
    endpoints, kiosk = Endpoints(str(tmp_path)), f"ipc://{tmp_path}/kiosk"
    settings = DecisionStageSettings(policies={"default": PATIENT}, cameras=(CAMERA,), model=MODEL,
                                     kiosk_endpoint=kiosk)
    spawn = multiprocessing.get_context("spawn")
    first, second = (spawn.Process(target=run, args=("decision", endpoints, settings)) for _ in range(2))
    try:
        with KioskClient(kiosk, timeout_s=WAIT_S) as client:
            first.start()
            client.hello()
            session = client.begin(CAMERA, deadline_ms=10_000)
            first.kill()
            first.join()
            second.start()  # the lock and the socket files of the dead process do not keep it out
            asked = time.monotonic()
            decision = client.wait_decision(session)
            assert decision is None
            assert not is_open(decision, session)
            assert time.monotonic() - asked < 8  # the successor's word, not the deadline
            assert client.hello()["type"] == "hello.reply"
    finally:
        for process in (first, second):
            if process.pid is not None:
                process.kill()
                process.join()


@pytest.mark.processes
def test_a_kiosk_socket_that_cannot_be_served_fails_the_process_with_the_reason(tmp_path):
    kiosk_dir = tmp_path / "open"
    kiosk_dir.mkdir()
    kiosk_dir.chmod(0o777)
    endpoints = Endpoints(str(tmp_path))
    settings = DecisionStageSettings(kiosk_endpoint=f"ipc://{kiosk_dir}/kiosk")
    with Sockets() as sockets:
        supervisor = sockets.open(PULL, endpoints.progress, bind=True)
        process = multiprocessing.get_context("spawn").Process(target=run, args=("decision", endpoints, settings))
        process.start()
        try:
            last = None
            while last is None or last.state != "failed":
                assert supervisor.poll(int(WAIT_S * 1000))
                last = messages.decode(supervisor.recv(), Progress)
            assert "mode 777" in last.detail["error"]
            process.join(WAIT_S)
            assert process.exitcode == 0
        finally:
            process.kill()
            process.join()


# --- kiosks over tcp ------------------------------------------------------------------------------------------------
def test_a_kiosk_with_a_key_is_served_over_tcp_until_it_is_revoked(tmp_path):
    site = Site(tmp_path)
    site.client("gate")
    command = json.dumps({"type": "health.get", "contract": 0, "request": "1"}).encode()
    with RunningStage(tmp_path, kiosk_endpoint=site.endpoint, transport=site.transport) as stage, Sockets() as peers:
        gate = peers.open(DEALER, site.endpoint, bind=False, **site.options("gate"))
        gate.send(command)
        assert gate.poll(int(WAIT_S * 1000))
        assert json.loads(gate.recv_multipart()[0])["request"] == "1"  # answered: hello_required
        stranger = peers.open(DEALER, site.endpoint, bind=False, **strange_options(site, "unauthorised_key"))
        stranger.send(command)
        site.keys.revoke("gate")
        stage.until(lambda: stage.counter("alert_clients_changed") == 1)
        stage.until(lambda: stage.counter("alert_client_refused") == 1)
        gate.send(command)
        assert not gate.poll(200)
        assert not stranger.poll(0)


def test_keys_that_others_can_read_end_the_process_as_failed(tmp_path):
    site = Site(tmp_path)
    (site.keys.path / "curve-server.json").chmod(0o644)
    with Sockets() as sockets:
        supervisor = sockets.open(PULL, Endpoints(str(tmp_path)).progress, bind=True)
        context = StageContext("decision", Endpoints(str(tmp_path)), install_signals=False)
        try:
            with pytest.raises(SecurityError, match="chmod 600"):
                DecisionStage(context, DecisionStageSettings(kiosk_endpoint=site.endpoint, transport=site.transport))
        finally:
            context.close()
        assert list(drain(supervisor)) == []
