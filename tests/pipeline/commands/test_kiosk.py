"""`mmdg kiosk` against the real decision stage."""

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.commands import app
from pipeline.commands.kiosk import GUIDANCE_TEXT, describe
from pipeline.guidance import GUIDANCE_CODES
from pipeline.key_files import KeyDirectory
from pipeline.kiosk_sockets import TransportSettings
from tests.pipeline.curve_peers import free_endpoint
from tests.pipeline.scene import CAMERA
from tests.pipeline.stage_harness import RunningStage
from tests.pipeline.test_kiosk_conformance import WrongNonce, engine


def run(*arguments):
    return CliRunner().invoke(app, ["kiosk", *arguments])


@pytest.mark.parametrize(("logit", "code", "verdict"), [(6.0, 0, "bona_fide"), (-6.0, 1, "attack")])
def test_begin_tells_by_its_exit_code_whether_to_open(tmp_path, logit, code, verdict):
    with RunningStage(tmp_path) as stage:
        ended = threading.Event()

        def camera():
            while not ended.wait(0.02):
                stage.both(1, logit)

        feeder = threading.Thread(target=camera)
        feeder.start()
        try:
            result = run("begin", stage.kiosk, "--camera", CAMERA, "--json")
        finally:
            ended.set()
            feeder.join()
    last = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, last["decision"]["verdict"], last["opens"]) == (code, verdict, code == 0)


def test_begin_without_an_engine_or_a_camera(tmp_path):
    with RunningStage(tmp_path) as stage:
        refused = run("begin", stage.kiosk, "--camera", "side")
    assert refused.exit_code == 2
    assert "no_camera" in refused.stderr
    assert run("watch", f"ipc://{tmp_path}/nobody").exit_code == 2


def test_every_guidance_code_has_words_for_people():
    assert set(GUIDANCE_TEXT) == GUIDANCE_CODES


def test_a_decision_of_another_key_opens_nothing(tmp_path):
    with engine(tmp_path) as endpoint:
        arguments = ("begin", endpoint, "--camera", "front", "--accept-simulated", "--json")
        assert run(*arguments).exit_code == 0
        assert run(*arguments, "--key", "A" * 43 + "=").exit_code == 1


def test_conformance_tells_a_table_and_its_exit_code(tmp_path, monkeypatch):
    names = ("--only", "echoes", "--only", "negotiation")
    with engine(tmp_path) as endpoint:
        passed = run("conformance", endpoint, *names, "--json")
    assert [(line["name"], line["result"]) for line in map(json.loads, passed.stdout.splitlines())] == [
        ("negotiation", "pass"), ("echoes", "pass")]
    assert passed.exit_code == 0
    monkeypatch.setattr("pipeline.decision_stage.Gateway", WrongNonce)
    with engine(tmp_path) as endpoint:
        failed = run("conformance", endpoint, *names)
    assert failed.exit_code == 1
    assert "fail" in failed.stdout
    assert run("conformance", f"ipc://{tmp_path}/nobody", "--timeout", "0.1").exit_code == 2
    assert run("conformance", f"ipc://{tmp_path}/nobody", "--only", "door").exit_code == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (["--scene", "clown"], "clown"), (["--fault", "burn:2s"], "burn:2s"), (["--role", "king"], "king")])
def test_what_cannot_be_simulated_is_told(tmp_path, arguments, words):
    result = run("simulate", f"ipc://{tmp_path}/kiosk", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_simulate_serves_and_stops(tmp_path):
    result = run("simulate", f"ipc://{tmp_path}/kiosk", "--seconds", "0.3")
    assert result.exit_code == 0, result.output
    assert "SIMULATED" in result.stderr
    tmp_path.chmod(0o777)
    assert run("simulate", f"ipc://{tmp_path}/kiosk").exit_code == 2


def test_schema_prints_the_committed_file():
    assert run("schema").stdout == (Path(__file__).resolve().parents[3] / "docs" / "kiosk-schema.json").read_text()


def test_watch_shows_health(tmp_path):
    with RunningStage(tmp_path) as stage:
        result = run("watch", stage.kiosk, "--seconds", "1.5")
    assert result.exit_code == 0
    assert "ready  model release" in result.stdout


@pytest.mark.parametrize(("event", "text"), [
    ({"type": "guidance", "session_id": "s", "code": "too_dark"}, "It is too dark here"),
    ({"type": "guidance", "session_id": "s", "code": None}, "Thank you"),
    ({"type": "guidance", "session_id": "s", "code": "of_a_later_engine"}, "Please wait"),
    ({"type": "session.state", "session_id": "s", "phase": "searching", "code": "no_face"}, "look into the camera"),
    ({"type": "device.status", "camera": "front", "status": "lost"}, "front: lost"),
    ({"type": "security.alert", "code": "command_flood", "count": 3, "detail": "d"}, "command_flood (3)"),
    ({"type": "session.ended", "session_id": "s", "reason": "timeout"}, "timeout"),
])
def test_describe(event, text):
    assert text in describe(event)


# --- bundles --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A simulated engine over tcp with keys: (bundle of a client, bundle of a client that was revoked)."""
    folder = tmp_path_factory.mktemp("site")
    keys, endpoint = KeyDirectory(folder / "keys"), free_endpoint()
    keys.init()
    for name in ("gate", "lost"):
        keys.add_client(name, "kiosk", folder / f"{name}.json", endpoint)
    keys.revoke("lost")
    with engine(folder, endpoint=endpoint, transport=TransportSettings(keys=str(keys.path))):
        yield str(folder / "gate.json"), str(folder / "lost.json")


def test_a_bundle_brings_endpoint_and_keys(site):
    gate, _ = site
    result = run("begin", "--bundle", gate, "--camera", "front", "--accept-simulated", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["opens"] is True
    watched = run("watch", "--bundle", gate, "--seconds", "2.5", "--json")
    assert watched.exit_code == 0
    assert "health" in {json.loads(line)["type"] for line in watched.stdout.splitlines()}
    tried = run("conformance", "--bundle", gate, "--only", "signature", "--only", "introduction", "--json")
    assert tried.exit_code == 0, tried.stdout + tried.stderr


def test_a_revoked_bundle_gets_no_answer(site):
    _, lost = site
    for command in (["begin", "--camera", "front"], ["conformance", "--timeout", "0.3"]):
        refused = run(*command, "--bundle", lost)
        assert (refused.exit_code, "no_answer" in refused.stderr) == (2, True)


def test_one_place_to_connect_to_and_one_place_for_keys(site, tmp_path):
    gate, _ = site
    assert "bundle" in run("watch").stderr
    assert run("begin", "--camera", "front", "--bundle", gate, "--key", "A" * 43 + "=").exit_code == 2
    missing = run("watch", "--bundle", str(tmp_path / "none.json"))
    assert (missing.exit_code, "bad_bundle" in missing.stderr) == (2, True)


def test_simulate_over_tcp_wants_keys():
    refused = run("simulate", free_endpoint(), "--seconds", "0")
    assert (refused.exit_code, "mmdg keys init" in refused.stderr) == (2, True)
