"""`mmdg export`, run as a command on a small checkpoint."""

import json

import pytest
from typer.testing import CliRunner

from mmdg_model.backends import make_scorer
from mmdg_model.config import ModelConfig
from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline.commands import app
from pipeline.commands.export import calibration_crops

#: Crops of the pipeline are 224 pixels a side.
SMALL = ModelConfig(width=24, heads=2, depth=1)


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "small.safetensors"
    make_test_checkpoint(path, SMALL)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["export", *(str(a) for a in arguments)])


def test_what_it_prints_is_what_the_scorer_reports(checkpoint_path, tmp_path):
    done = run(checkpoint_path, tmp_path / "out", "--precision", "bf16", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    scorer = make_scorer(tmp_path / "out", expected_hash=report["sha256"])
    assert scorer.model_hash == report["sha256"]
    assert scorer.description.precision == report["precision"] == "bfloat16"
    assert scorer.description.checkpoint_hash == report["checkpoint_sha256"]
    assert report["purpose"] == "test"


def test_int8_is_calibrated_on_crops_of_the_simulated_pipeline(checkpoint_path, tmp_path):
    done = run(checkpoint_path, tmp_path / "out", "--precision", "int8", "--crops", 8,
               "--calibration", "simulated:bona_fide", "--calibration", "simulated:print")
    assert done.exit_code == 0, done.stderr
    assert "against float32 on the calibration crops: source simulated:bona_fide, simulated:print, crops 8" in (
        done.stdout)
    assert make_scorer(tmp_path / "out").description.precision == "int8"


def test_crops_are_spread_over_the_sources():
    crops = calibration_crops(["simulated:print", "simulated:screen"], 3)
    assert len(crops) == 3
    assert all(crop.colour.shape == (224, 224, 3) and len(crop.modalities) == 3 for crop in crops)


def test_a_source_without_faces_is_named():
    with pytest.raises(ValueError, match="'simulated:nobody' gave 0 crops, 1 were needed"):
        calibration_crops(["simulated:nobody"], 1)


@pytest.mark.parametrize(("arguments", "quoted"), [
    (["--precision", "int8"], "--calibration"),
    (["--precision", "bf16", "--calibration", "simulated:print"], "--calibration"),
    (["--precision", "int4"], "'int4': expected float32, bfloat16 or int8"),
    (["--backend", "tensorrt"], "'tensorrt'"),
])
def test_wrong_arguments_exit_with_2(checkpoint_path, tmp_path, arguments, quoted):
    done = run(checkpoint_path, tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert quoted in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("source", "arguments", "quoted"), [
    ("missing.safetensors", [], "cannot be read"),
    (None, ["--sha256", "0" * 64], "expected 0000"),
    (None, ["--precision", "int8", "--calibration", "replay:nowhere.mcap"], "nowhere.mcap"),
])
def test_what_is_not_possible_exits_with_1(checkpoint_path, tmp_path, source, arguments, quoted):
    done = run(tmp_path / source if source else checkpoint_path, tmp_path / "out", *arguments)
    assert done.exit_code == 1
    assert quoted in done.stderr
    assert not (tmp_path / "out").exists()
