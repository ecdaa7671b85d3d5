"""The real processes of `mmdg-live`, started as a user starts them. All cameras here are simulated.

But where a test says otherwise the checkpoint is the untrained test checkpoint, so no verdict but `undecided` may ever
appear; what is compared are logits, phases, reasons and counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from capture.camera import Pace
from capture.recording import RecordingWriter
from capture.simulated.camera import SimulatedCamera
from pipeline.camera_probe import is_simulated
from pipeline.channels import DEALER, PUSH, Endpoints, Sockets, send_now
from pipeline.kiosk_client import KioskClient, KioskDecision, KioskError, KioskSession, is_open
from pipeline.supervisor import ExitCode
from tests.pipeline.live_run import ROOT, LiveRun, live_run

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

#: Limits that a machine busy with other tests does not trip over; no frame count ends a session before its deadline.
PATIENT_POLICY = {"stall_frame_periods": 30, "no_face_ms": 9000, "track_gap_ms": 1000, "max_score_age_ms": 5000,
                  "deadline_ms": 10_000, "min_frames": 1000,
                  "keepalive_ms": 5000}  # tests wait for scores, and send no keepalive meanwhile


def configuration(folder: Path, **changes: Any) -> Path:
    """A configuration file with one simulated camera named `door` and a kiosk socket in `folder`."""
    path = folder / "live.yaml"
    path.write_text(yaml.safe_dump({
        "cameras": [{"spec": "simulated:bona_fide", "name": "door"}], "policy": PATIENT_POLICY,
        "kiosk": {"endpoint": f"ipc://{folder}/kiosk"}, **changes}))
    return path


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private folder with a path short enough for sockets."""
    path = tmp_path_factory.mktemp("k")
    path.chmod(0o700)
    return path


def connected(folder: Path) -> KioskClient:
    """A client that has said hello; the socket is there from the start of the decision process."""
    client = KioskClient(f"ipc://{folder}/kiosk", timeout_s=30)
    client.hello()
    client.subscribe("")
    return client


def begun(client: KioskClient, within_s: float = 60.0, deadline_ms: int = 10_000) -> KioskSession:
    """A session, as soon as the engine can open one."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            return client.begin("door", deadline_ms=deadline_ms)
        except KioskError as error:
            if error.code not in ("not_ready", "no_camera") or time.monotonic() > deadline_s:
                raise
            client.next_event(1.0)  # health comes each second and on change


def scored(run: LiveRun, more_than: int = 0) -> int:
    return run.wait_for(lambda r: len(r.named("score")) if len(r.named("score")) > more_than else 0)


def scored_in_a_session(run: LiveRun, client: KioskClient) -> KioskSession:
    """A session that is open after a score; on a very busy machine one may run into its deadline first."""
    while True:
        session = begun(client)
        scored(run, len(run.named("score")))
        if client.status(session)["state"] == "open":
            return session
        decision = client.wait_decision(session)
        assert decision is None or decision.reason == "deadline", decision.fields  # None: read too late


def test_a_killed_process_ends_the_session_undecided_and_the_next_session_works(folder: Path) -> None:
    """SIGKILL of each process of the path in turn, each during a session."""
    with live_run("--config", str(configuration(folder))) as run, connected(folder) as client:
        for victim, reasons in (("inference-0", {"engine_error"}), ("hub", {"engine_error"}),
                                ("camera-door", {"device_lost", "stream_stale"})):
            session = scored_in_a_session(run, client)
            starts = run.starts_of(victim)
            run.kill(victim)
            killed_s = time.monotonic()
            decision = client.wait_decision(session)
            noticed_s = time.monotonic() - killed_s
            assert decision is not None
            assert decision.verdict == "undecided"
            assert decision.reason in reasons, (victim, decision.fields)
            assert not is_open(decision, session, accept_simulated=True)
            assert noticed_s < 5.0, victim
            run.wait_for(lambda r, victim=victim, starts=starts: r.starts_of(victim) > starts)
        session = scored_in_a_session(run, client)
        client.cancel(session)
        decision = client.wait_decision(session)
        assert decision is not None
        assert (decision.verdict, decision.reason) == ("undecided", "cancelled")


@pytest.mark.parametrize(("victim", "reasons"), [("inference-0", {"engine_error"}),
                                                 ("camera-door", {"stream_stale", "device_lost"})])
def test_a_hung_process_is_noticed_by_its_silence_and_replaced(folder: Path, victim: str, reasons: set[str]) -> None:
    """SIGSTOP: alive for the operating system, connected for ZeroMQ, and yet it shows no progress."""
    with live_run("--config", str(configuration(folder))) as run, connected(folder) as client:
        session = begun(client)
        scored(run)
        os.kill(run.pid_of(victim), signal.SIGSTOP)
        decision = client.wait_decision(session)
        assert decision is not None
        assert decision.verdict == "undecided"
        assert decision.reason in reasons
        run.wait_for(lambda r: r.starts_of(victim) > 1)
        assert begun(client).session_id != session.session_id


def test_noise_on_every_socket_is_counted_and_nobody_dies(folder: Path) -> None:
    noise = [[b""], [b"\xff" * 100], [b"{}"] * 3, [b"\x81\xa4type\xa5score"]]
    sockets_dir = folder / "run"
    with live_run("--config", str(configuration(folder, runtime_dir=str(sockets_dir)))) as run, \
            connected(folder) as client, Sockets() as opened:
        session = begun(client)
        endpoints = Endpoints(str(sockets_dir))
        for kind, endpoint in ((DEALER, endpoints.bundles), (DEALER, endpoints.credit),
                               (DEALER, endpoints.observations), (PUSH, endpoints.scores), (PUSH, endpoints.control),
                               (PUSH, endpoints.progress), (DEALER, f"ipc://{folder}/kiosk")):
            socket = opened.open(kind, endpoint, bind=False, max_message_bytes=-1)
            for frames in [*noise, [bytes(8 * 1024 * 1024)]]:
                assert send_now(socket, frames)
        told = len(run.named("score"))
        if client.status(session)["state"] == "ended":  # by nothing but time, on a very busy machine
            assert client.get_decision(session).reason == "deadline"
        else:
            client.cancel(session)
        scored(run, told + 3)
        session = scored_in_a_session(run, client)
        client.cancel(session)
        decision = client.wait_decision(session)
        assert decision is not None
        assert (decision.verdict, decision.reason) == ("undecided", "cancelled")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == ExitCode.OK
        summary = run.named("summary")[0]
        assert summary["restarts"] == {}
        assert summary["counters"]["hub"]["malformed_bundle"] >= len(noise)
        assert summary["counters"]["hub"]["malformed_ready"] >= 1
        counted = summary["counters"]["decision"]
        assert all(counted[f"malformed_{kind}"] >= 1 for kind in ("observation", "score", "control"))


def lockstep(scene: str, seconds: str = "60") -> list[dict[str, Any]]:
    """The lines of one lock-step run up to its decision, without those that hold wall-clock times."""
    with live_run("--camera", f"simulated:{scene}", "--pace", "lockstep", "--once", "--seconds", seconds) as run:
        assert run.wait(120) == ExitCode.OK
        events = run.events
    until = next(i for i, e in enumerate(events) if e["type"] == "decision")
    return [{k: v for k, v in e.items() if k not in ("stamps_ns", "durations_ms")} for e in events[:until + 1]]


def test_a_lockstep_run_is_the_same_each_time() -> None:
    first, second = lockstep("print"), lockstep("print")
    assert first == second
    assert len([e for e in first if e["type"] == "score"]) >= 5
    assert first[-1]["reason"] == "model_unverified"


def test_nobody_gives_no_session_and_no_verdict() -> None:
    with live_run("--camera", "simulated:nobody", "--pace", "lockstep") as run:
        run.wait_for(lambda r: any("camera-camera is ready" in line for line in r.log))
        run.watch(3.0)  # a window in which nothing may happen
        run.process.send_signal(signal.SIGINT)
        assert run.wait(60) == ExitCode.OK
    assert {e["type"] for e in run.events} == {"summary"}
    assert run.named("summary")[0]["counters"]["camera-camera"] == {}
    assert run.named("summary")[0]["sequences"]["camera-camera"] > 0


def test_two_people_are_a_condition_and_never_examined(folder: Path) -> None:
    # The first frame of a session has a second to come, also on a busy machine: without one there is no condition.
    settings = configuration(folder, cameras=[{"spec": "simulated:two_people", "name": "door"}],
                             policy=PATIENT_POLICY | {"stall_min_ms": 1000, "deadline_ms": 3000})
    with live_run("--config", str(settings)) as run, connected(folder) as client:
        session = begun(client, deadline_ms=3000)
        events: list[dict[str, Any]] = []
        decision = client.wait_decision(session, on_event=events.append)
        assert decision is not None
        assert (decision.verdict, decision.fields["examined"]) == ("undecided", False), decision.fields
        # Told as it happened, or by `session.state` to a subscription that came later.
        assert "multiple_faces" in [event.get("code") for event in events], (decision.reason, events)
        assert run.named("score") == []


def test_bona_fide_is_impossible_with_the_test_checkpoint(folder: Path) -> None:
    """The evidence alone would accept (that is shown, so that the test is not vacuous); the verdict does not."""
    biased = folder / "biased.safetensors"
    subprocess.run([sys.executable, "-c", BIASED, str(biased)], check=True, cwd=ROOT)
    greedy = PATIENT_POLICY | {
        "apcer_max": 0.4, "bpcer_max": 0.4, "min_frames": 2, "min_time_ms": 0, "frame_correlation": 0.0,
        "llr_clip": 20.0, "uncertainty_weight": 0.0, "expose_would_decide": True, "gating_conditions": []}
    settings = configuration(folder, policy=greedy, inference={"model": str(biased)})
    with live_run("--config", str(settings)) as run, connected(folder) as client:
        session = begun(client)
        decision = client.wait_decision(session)
        assert isinstance(decision, KioskDecision)
        assert (decision.verdict, decision.reason) == ("undecided", "model_unverified")
        assert not is_open(decision, session, accept_simulated=True)
        assert b"would_decide" not in decision.payload
        assert b"logit" not in decision.payload
        told = run.wait_for(lambda r: r.named("decision"))[0]
        assert told["would_decide"] == "bona_fide"
        assert min(e["logit"] for e in run.named("score")) > 0


BIASED = """
import sys, dataclasses, torch
from pathlib import Path
from mmdg_model.checkpoint import load_checkpoint, save_checkpoint
from mmdg_model.network import LIVE_COLUMN
from mmdg_model.test_checkpoint import ensure_test_checkpoint
from mmdg_model.torch_scorer import build_network, measure_known_answer
checkpoint = load_checkpoint(ensure_test_checkpoint())
weights = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
weights["head.bias"][LIVE_COLUMN] += 60.0
biased = dataclasses.replace(checkpoint, weights=weights)
answer = measure_known_answer(build_network(biased), biased.input_spec)
save_checkpoint(dataclasses.replace(biased, known_answer=answer), Path(sys.argv[1]))
"""


SIMULATED = BIASED.replace("weights=weights)", "weights=weights, purpose=Purpose.SIMULATED)").replace(
    "from mmdg_model.test_checkpoint", "from mmdg_model.scorer import Purpose\nfrom mmdg_model.test_checkpoint")


def recorded(path: Path, *, simulated: bool) -> Path:
    """A short session of a face; said to be of a real camera if not `simulated`."""
    with SimulatedCamera("bona_fide", seed=1, frames=14, pace=Pace.LOCKSTEP) as camera, \
            RecordingWriter(path, replace(camera.describe(), simulated=simulated)) as writer:
        for _ in range(14):
            writer.write(camera.read(1.0))
    return path


def test_weights_trained_on_simulated_data_decide_about_recordings_of_simulations_alone(folder: Path) -> None:
    """A checkpoint that finds everyone bona fide, of purpose `simulated`, and a policy that lets anything decide."""
    weights = folder / "simulated.safetensors"
    subprocess.run([sys.executable, "-c", SIMULATED, str(weights)], check=True, cwd=ROOT)
    greedy = PATIENT_POLICY | {"min_frames": 2, "min_time_ms": 0, "frame_correlation": 0.0, "uncertainty_weight": 0.0,
                               "allowed_purposes": ["test", "simulated", "release"], "gating_conditions": []}
    outcomes = {}
    for simulated in (True, False):
        session = recorded(folder / f"{simulated}.mcap", simulated=simulated)
        settings = configuration(folder, policy=greedy, kiosk={}, inference={"model": str(weights)}, cameras=[
            {"spec": f"replay:{session}", "name": "door", "pace": "lockstep"}])
        with live_run("--config", str(settings), "--once") as run:
            assert run.wait(120) == ExitCode.OK, run.transcript()
        decision = run.named("decision")[0]
        outcomes[simulated] = decision["verdict"], decision["reason"], decision["simulated"], decision["model_purpose"]
        told = " ".join(run.log)
        assert ("decide nothing on replay:" in told) is not simulated
        assert ("verdicts are marked [simulated]" in told) is simulated
    assert outcomes == {True: ("bona_fide", "llr_upper", True, "simulated"),
                        False: ("undecided", "model_unverified", False, "simulated")}


def test_the_shipped_policy_is_for_local_sessions_on_simulated_cameras(tmp_path: Path) -> None:
    real, simulated = recorded(tmp_path / "r.mcap", simulated=False), recorded(tmp_path / "s.mcap", simulated=True)
    (tmp_path / "damaged.mcap").write_bytes(simulated.read_bytes()[:5000])
    assert {spec: is_simulated(spec) for spec in (
        "simulated:print", f"replay:{simulated}", f"replay:{real}", f"replay:{tmp_path}/damaged.mcap",
        f"replay:{tmp_path}/none.mcap", "replay:x.db3", "realsense", "webcam:0")} == {
        "simulated:print": True, f"replay:{simulated}": True, f"replay:{real}": False,
        f"replay:{tmp_path}/damaged.mcap": False, f"replay:{tmp_path}/none.mcap": False, "replay:x.db3": False,
        "realsense": False, "webcam:0": False}


def test_a_checkpoint_with_another_hash_is_refused(folder: Path) -> None:
    settings = configuration(folder, inference={"sha256": "0" * 64})
    with live_run("--config", str(settings)) as run:
        assert run.wait(60) == ExitCode.MODEL_REFUSED
    assert "0000000000000000" in run.log[-1]
    assert run.named("decision") == []


def test_a_process_that_cannot_be_kept_running_ends_the_run_with_an_error(folder: Path) -> None:
    settings = configuration(folder, supervisor={"max_restarts": 1})
    with live_run("--config", str(settings)) as run:
        for starts in (1, 2):
            run.wait_for(lambda r, starts=starts: r.starts_of("hub") >= starts)
            run.kill("hub")
        assert run.wait(60) == ExitCode.FAILED
    assert "hub ended 2 times" in run.log[-1]
    assert "mmdg doctor" in run.log[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(number: signal.Signals) -> None:
    with live_run("--camera", "simulated:bona_fide") as run:
        scored(run)
        run.process.send_signal(number)
        assert run.wait(30) == ExitCode.OK
    decisions = run.named("decision")
    assert [d["verdict"] for d in decisions] == ["undecided"] * len(decisions)


def test_the_processes_follow_a_killed_supervisor() -> None:
    with live_run("--camera", "simulated:bona_fide") as run:
        scored(run)
        run.process.kill()
        run.process.wait()
        _, left = psutil.wait_procs([psutil.Process(p) for _, p in run.started if psutil.pid_exists(p)], timeout=15)
        assert left == []


def test_when_nobody_reads_any_more_everything_stops() -> None:
    """As under `mmdg-live --json | head -1`: an error there once left cameras and network running for ever."""
    command = [sys.executable, "-m", "pipeline.commands.live", "--json", "--camera", "simulated:bona_fide"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"{")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 4
        process.stdout.close()
        try:
            assert process.wait(30) == ExitCode.OK
            assert b"BrokenPipe" not in process.communicate()[1]
            assert psutil.wait_procs(children, timeout=10)[1] == []
        finally:
            for child in children:
                if child.is_running():
                    child.kill()
            process.kill()


@pytest.mark.parametrize(("arguments", "exit_code", "words"), [
    (["--camera", "realsense"], ExitCode.NO_DEVICE, "RealSense"),
    (["--camera", "realsense:000000000042"], ExitCode.NO_DEVICE, "000000000042"),
    (["--camera", "replay:nowhere.mcap"], ExitCode.NO_DEVICE, "nowhere.mcap"),
    (["--camera", "simulated:clown"], ExitCode.USAGE, "bona_fide"),
    (["--camera", "telepathy"], ExitCode.USAGE, "realsense[:SERIAL]"),
    ([], ExitCode.USAGE, "--camera"),
    (["--config", "nowhere.yaml"], ExitCode.USAGE, "nowhere.yaml"),
    (["--camera", "simulated", "--model", "nowhere.safetensors"], ExitCode.USAGE, "nowhere.safetensors"),
])
def test_what_cannot_run_is_told_within_seconds(arguments: list[str], exit_code: ExitCode, words: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    started_s = time.monotonic()
    finished = subprocess.run([sys.executable, "-m", "pipeline.commands.live", "--json", *arguments], cwd=ROOT,
                              capture_output=True, text=True, timeout=60, check=False)
    took_s = time.monotonic() - started_s
    assert finished.returncode == exit_code, finished.stderr
    assert words in finished.stderr
    assert finished.stdout == ""
    assert took_s < 15, "the limit for a person is 5 s on an idle machine; this one may be busy with other tests"
    assert set(psutil.Process().children(recursive=True)) <= before


def test_json_lines_are_json() -> None:
    with live_run("--camera", "simulated:bona_fide", "--once") as run:
        assert run.wait(60) == ExitCode.OK
    decision = run.named("decision")[0]
    assert decision["origin"] == "local"
    assert decision["simulated"] is True
    assert decision["model_purpose"] == "test"
    json.dumps(run.events)
