"""`mmdg simulate benchmark` as typed."""

import json

import pytest
from typer.testing import CliRunner

from pipeline import simulated_benchmark
from pipeline.commands import app
from tests.pipeline.simulated_tree import simulated_tree  # noqa: F401  (a fixture)


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_finished_tree_is_reported_and_drawn(simulated_tree, monkeypatch):  # noqa: F811
    monkeypatch.setattr(simulated_benchmark, "_make_worker", lambda *_: pytest.fail("nothing is left to render"))
    answer = mmdg("simulate", "benchmark", simulated_tree, "--size", "tiny", "--jobs", "1")
    assert answer.exit_code == 0, answer.output
    assert "simulated benchmark: 120 frames of 48 recordings" in answer.stderr
    assert "C-train: 12 simulated samples, 6 live, 6 spoof" in answer.stdout
    assert "no single face found: bona_fide 0 of" in answer.stdout
    assert (simulated_tree / "contact_sheet.png").exists()
    report = json.loads(mmdg("simulate", "benchmark", simulated_tree, "--size", "tiny", "--jobs", "1", "--json").stdout)
    assert report["simulated"] is True
    assert report["lists"]["P-test"]["lines"] == 4


def test_verify_says_simulated(simulated_tree):  # noqa: F811
    answer = mmdg("data", "verify", simulated_tree, "--lists", simulated_tree / "lists", "--no-files")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.startswith("a SIMULATED tree; its lists are compared with what it states itself\n")
    assert "as stated" in answer.stdout
    assert "published" not in answer.stdout
    assert answer.stdout.endswith("(simulated)\n")


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (["--size", "huge"], 1, "size is 'huge'"),
    (["--size", "7"], 1, "size is 7 samples"),
    (["--domains", "CX"], 2, "expected letters of"),
    (["--image-size", "0"], 1, "inputs.image_size is 0"),
    (["--seed", "-1"], 2, "greater than or equal to 0"),
    (["--jobs", "0"], 2, "greater than or equal to 1"),
])
def test_impossible_requests_are_refused(tmp_path, arguments, code, says):
    answer = mmdg("simulate", "benchmark", tmp_path / "out", *arguments)
    assert answer.exit_code == code
    assert says in answer.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_face_model_is_said_before_any_process_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("MMDG_ASSETS", str(tmp_path / "no assets"))
    answer = mmdg("simulate", "benchmark", tmp_path / "out", "--size", "tiny", "--jobs", "2")
    assert answer.exit_code == 1
    assert "python -m detect.model_assets" in answer.stderr


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    answer = mmdg("simulate", "benchmark", tmp_path, "--size", "tiny")
    assert answer.exit_code == 1
    assert "not empty" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
