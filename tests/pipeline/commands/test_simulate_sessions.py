"""`mmdg simulate session | films | calibrate | evaluate | sweep` as typed; random weights of purpose `simulated`."""

import csv
import dataclasses
import json

import pytest
from typer.testing import CliRunner

from mmdg_model.checkpoint import load_checkpoint, save_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.operating_point import OperatingPoint, read_operating_point, write_operating_point
from mmdg_model.scorer import Purpose
from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline.commands import app
from pipeline.simulated_sessions import scoring
from pipeline.simulated_sessions.scoring import COLUMNS, read_score_table

SESSIONS = ("--scenes", "bona_fide,flat_print", "--distance", "0.5", "--jobs", 1)


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    made = make_test_checkpoint(path, ModelConfig(width=48, heads=3, depth=2, image_size=112))
    save_checkpoint(dataclasses.replace(made, purpose=Purpose.SIMULATED, hash=""), path)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    root = tmp_path_factory.mktemp("films")
    for split, count, frames in (("val", 1, 6), ("test", 2, 3)):
        answer = mmdg("simulate", "films", root / split, "--split", split, "--count", count, "--frames", frames,
                      *SESSIONS)
        assert answer.exit_code == 0, answer.output
        assert f"simulated sessions: {2 * count} films, about 1 MB" in answer.stderr
        assert "no single face found: bona_fide 0 of 6 frames" in answer.stdout
    return root


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    path = tmp_path_factory.mktemp("point") / "operating_point.json"
    write_operating_point(OperatingPoint(
        logit_scale=1.0, logit_offset=0.0, frame_correlation=0.3, threshold=4.6, apcer=0.0, bpcer=0.0, sessions=4,
        data="simulated", command="by hand"), path)
    return path


def test_calibration_writes_a_point_or_says_that_these_scores_rank_nobody(films, model, tmp_path):
    out = tmp_path / "operating_point.json"
    answer = mmdg("simulate", "calibrate", films / "val", "--model", model, "--out", out, "--jobs", 1)
    if answer.exit_code == 1:  # random weights may rank prints above faces
        assert "do not rank live faces above attacks" in answer.stderr
        return
    assert answer.exit_code == 0, answer.output
    assert read_operating_point(out).sessions == 2
    assert "2 simulated validation sessions" in answer.stdout


def test_test_sessions_never_calibrate(films, model, tmp_path):
    answer = mmdg("simulate", "calibrate", films / "test", "--model", model, "--out", tmp_path / "p.json", "--jobs", 1)
    assert answer.exit_code == 1
    assert "calibrate on validation sessions" in answer.stderr
    assert not (tmp_path / "p.json").exists()


def test_each_evaluation_opens_the_test_set_and_scores_only_once(films, model, point, tmp_path, monkeypatch):
    first = mmdg("simulate", "evaluate", films / "test", "--model", model, "--operating-point", point,
                 "--out", tmp_path / "report", "--jobs", 1)
    assert first.exit_code == 0, first.output
    assert "opening number 1 of this simulated test set" in first.stderr
    assert "Every session is simulated" in first.stdout
    monkeypatch.setattr(scoring, "make_scoring_worker", lambda *_: pytest.fail("everything is scored"))
    second = mmdg("simulate", "evaluate", films / "test", "--model", model, "--operating-point", point,
                  "--out", tmp_path / "report", "--jobs", 1, "--json")
    assert "opening number 2" in second.stderr
    report = json.loads(second.stdout)
    assert report["bona_fide"]["sessions"] == report["species"]["flat_print"]["sessions"] == 2
    assert report["test_set_opened"] == 2
    assert report["checkpoint"] == load_checkpoint(model).hash
    assert len((films / "test" / "openings.jsonl").read_text().splitlines()) == 2
    table = next((films / "test" / "scores").glob("*.csv"))
    assert {len(scores) for scores in read_score_table(table).values()} == {3}


def test_a_checkpoint_that_may_not_decide_is_refused(films, tmp_path):
    path = tmp_path / "test.safetensors"
    make_test_checkpoint(path, ModelConfig(width=48, heads=3, depth=1, image_size=112))
    answer = mmdg("simulate", "evaluate", films / "val", "--model", path, "--out", tmp_path / "report", "--jobs", 1)
    assert answer.exit_code == 1
    assert "purpose test" in answer.stderr


def test_crops_of_another_size_are_refused(films, tmp_path):
    path = tmp_path / "large.safetensors"
    made = make_test_checkpoint(path, ModelConfig(width=48, heads=3, depth=1, image_size=64))
    save_checkpoint(dataclasses.replace(made, purpose=Purpose.SIMULATED, hash=""), path)
    answer = mmdg("simulate", "evaluate", films / "val", "--model", path, "--out", tmp_path / "report", "--jobs", 1)
    assert answer.exit_code == 1
    assert "--crop-size 64" in answer.stderr


def test_a_sweep_leaves_a_row_a_frame(model, point, tmp_path):
    answer = mmdg("simulate", "sweep", tmp_path, "--model", model, "--operating-point", point, "--parameter", "missing",
                  "--values", "none,depth+infrared", "--scenes", "bona_fide", "--count", 1, "--frames", 3, "--jobs", 1)
    assert answer.exit_code == 0, answer.output
    with (tmp_path / "missing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["parameter"], row["value"]) for row in rows] == [("missing", "none")] * 3 + [
        ("missing", "depth+infrared")] * 3
    assert all(row["uncertainty_depth"] for row in rows[:3])
    assert not any(row["uncertainty_depth"] or row["uncertainty_infrared"] for row in rows[3:])
    assert rows[0]["logit"] != rows[3]["logit"]


def test_a_recorded_session_says_that_it_is_simulated(tmp_path):
    answer = mmdg("simulate", "session", tmp_path / "out", "--scenes", "phone_replay", "--frames", 2, "--jobs", 1,
                  "--json")
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    assert report["simulated"] is True
    described = json.loads(mmdg("sessions", "info", report["files"][0], "--json").stdout)
    assert (described["simulated"], described["label"], described["sets"]) == (True, "phone_replay", 2)


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (["--scenes", "mystery"], 1, "scenes are mystery"),
    (["--split", "train"], 2, "expected val or test"),
    (["--distance", "near"], 2, "expected metres"),
    (["--profile", "lidar"], 1, "no sensor profile 'lidar'"),
    (["--count", "9000"], 1, "count is 9000"),
    (["--camera", "nowhere:nobody"], 1, "camera factory"),
])
@pytest.mark.parametrize("command", ["session", "films"])
def test_impossible_requests_are_refused(tmp_path, command, arguments, code, says):
    answer = mmdg("simulate", command, tmp_path / "out", *arguments)
    assert answer.exit_code == code, answer.output
    assert says in answer.stderr
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_there_is_named(films, tmp_path):
    answer = mmdg("simulate", "evaluate", films / "val", "--model", tmp_path / "none.safetensors", "--jobs", 1)
    assert answer.exit_code == 1
    assert "none.safetensors: cannot be read" in answer.stderr
