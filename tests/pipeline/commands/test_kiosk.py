"""`mmdg kiosk` against the real decision stage."""

import json
import threading

import pytest
from typer.testing import CliRunner

from pipeline.commands import app
from pipeline.commands.kiosk import describe
from tests.pipeline.scene import CAMERA
from tests.pipeline.stage_harness import RunningStage


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


def test_watch_shows_health(tmp_path):
    with RunningStage(tmp_path) as stage:
        result = run("watch", stage.kiosk, "--seconds", "1.5")
    assert result.exit_code == 0
    assert "ready  model release" in result.stdout


@pytest.mark.parametrize(("event", "text"), [
    ({"type": "guidance", "session_id": "s", "code": "too_dark"}, "too_dark"),
    ({"type": "guidance", "session_id": "s", "code": None}, "all clear"),
    ({"type": "session.ended", "session_id": "s", "reason": "timeout"}, "timeout"),
])
def test_describe(event, text):
    assert text in describe(event)
