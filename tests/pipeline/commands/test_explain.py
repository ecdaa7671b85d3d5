"""`mmdg explain` on a crop file and on a simulated camera."""

import json

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from capture.camera import Pace
from capture.sources import make_camera
from mmdg_model.config import ModelConfig
from mmdg_model.crop_file import save_crop
from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline.commands import explain
from pipeline.commands.record import record_camera
from tests.mmdg_model.builders import crop

SMALL = ModelConfig(width=48, heads=3, depth=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / "small.safetensors"
    make_test_checkpoint(path, SMALL)
    return path


@pytest.fixture
def run():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    explain.register(app)
    return lambda *arguments: CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_a_crop_file_becomes_picture_arrays_and_summary(run, model, tmp_path):
    save_crop(tmp_path / "face.npz", crop(224, without=("infrared",)))
    answer = run(tmp_path / "face.npz", tmp_path / "out.png", "--model", model, "--block", 1, "--arrays",
                 tmp_path / "out.npz", "--json")
    assert answer.exit_code == 0, answer.output
    summary = json.loads(answer.stdout)
    assert (summary["purpose"], summary["block"]) == ("test", 1)
    assert set(summary["class_token_uncertainty"]) == {"rgb", "depth"}
    assert cv2.imread(str(tmp_path / "out.png")).std() > 20
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert arrays["uncertainty"].shape == (2, 3, 197)
        assert arrays["attention_rgb_from_depth"].shape == (2, 8, 197, 197)
        assert np.isnan(arrays["attention_rgb_from_infrared"]).all()
        assert arrays["logits"][1] - arrays["logits"][0] == pytest.approx(summary["logit"], abs=1e-3)


def test_a_simulated_scene_goes_through_the_camera_step(run, model, tmp_path):
    answer = run("simulated:bona_fide", tmp_path / "out.png", "--model", model, "--frame", 2)
    assert answer.exit_code == 0, answer.output
    assert "SIMULATED data: simulated:bona_fide, frame" in answer.stdout
    assert "untrained" in answer.stderr
    assert (tmp_path / "out.png").is_file()


def test_a_recorded_session_is_read_from_the_frame_asked_for(run, model, tmp_path):
    camera = make_camera("simulated:print", pace=Pace.LOCKSTEP, seed=1)
    assert record_camera(camera, tmp_path / "session.mcap", frames=5).sets == 5
    answer = run(tmp_path / "session.mcap", tmp_path / "out.png", "--model", model, "--frame", 3)
    assert answer.exit_code == 0, answer.output
    assert f"SIMULATED data: replay:{tmp_path / 'session.mcap'}, frame" in answer.stdout
    answer = run(tmp_path / "session.mcap", tmp_path / "late.png", "--model", model, "--frame", 5)
    assert answer.exit_code == 1
    assert "5 frames, no face crop from frame 5 on" in answer.stderr
    assert not (tmp_path / "late.png").exists()


def test_a_crop_of_another_size_is_refused(run, model, tmp_path):
    save_crop(tmp_path / "face.npz", crop(64))
    answer = run(tmp_path / "face.npz", tmp_path / "out.png", "--model", model)
    assert answer.exit_code == 1
    assert "crop 0: colour is uint8 (64, 64, 3), expected uint8 (224, 224, 3)" in answer.stderr
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(("arguments", "code", "quoted"), [
    (("nowhere.npz", "out.png"), 1, "not a readable .npz archive"),
    (("nowhere.mcap", "out.png"), 1, "nowhere.mcap"),
    (("gopro:1", "out.png"), 2, "gopro"),
    (("nowhere.npz", "out.jpg"), 2, "ends in .png"),
])
def test_wrong_arguments(run, model, tmp_path, arguments, code, quoted):
    source, out = arguments
    answer = run(source, tmp_path / out, "--model", model)
    assert answer.exit_code == code, answer.output
    assert quoted in answer.output.replace("\n", "")


def test_a_missing_model_and_a_missing_block_are_refused(run, model, tmp_path):
    save_crop(tmp_path / "face.npz", crop(224))
    assert "cannot be read" in run(tmp_path / "face.npz", tmp_path / "o.png", "--model", tmp_path / "no").stderr
    answer = run(tmp_path / "face.npz", tmp_path / "o.png", "--model", model, "--block", 9)
    assert answer.exit_code == 1
    assert "block 9 of a network of 2 blocks; choose 1 to 2" in answer.stderr
