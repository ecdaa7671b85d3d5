"""`mmdg policy compile | show | floor` and `mmdg evaluate sessions` as typed, on sessions with scores as values."""

import dataclasses
import json
import shutil

import msgspec
import pytest
from typer.testing import CliRunner

from calibration.operating_point_file import CalibratedModel, file_bytes
from mmdg_model.checkpoint import save_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.scorer import Purpose
from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline.commands import app
from pipeline.policy_compiler import read_compiled
from pipeline.simulated_sessions.openings import read_openings
from tests.pipeline.simulated_sessions.films import write_films
from tests.pipeline.test_session_calibration import calibration, evidence_map

POLICY = """
name: gate
apcer_max: 0.1
deadline_ms: 1100
confidence: 0.9
allowed_purposes: [simulated]
settings: {frame_correlation: 0.5}
"""


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    made = make_test_checkpoint(path, ModelConfig(width=48, heads=3, depth=1, image_size=112))
    saved = save_checkpoint(dataclasses.replace(made, purpose=Purpose.SIMULATED, hash=""), path)
    assert saved is not None
    return path


@pytest.fixture(scope="module")
def model_hash(model):
    import hashlib

    return hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model_hash):
    """Sessions to choose a threshold on, and others to judge by."""
    root = tmp_path_factory.mktemp("films")
    write_films(root / "val", {"bona_fide": [6.0] * 9 + [0.1], "flat_print": [-6.0] * 22, "mask": [-6.0] * 38 + [2.0]},
                model_hash)
    write_films(root / "test", {"bona_fide": [6.0] * 4, "flat_print": [-6.0] * 4}, model_hash, split="test")
    write_films(root / "few", {"bona_fide": [6.0], "flat_print": [-6.0] * 10}, model_hash, place=7)
    return root


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "gate.yaml").write_text(POLICY)
    return tmp_path / "gate.yaml"


def test_a_policy_is_compiled_shown_and_reported_with(folders, model, model_hash, policy, tmp_path):
    out = tmp_path / "gate.json"
    answer = mmdg("policy", "compile", policy, folders / "val", "--model", model, "--out", out, "--jobs", 1)
    assert answer.exit_code == 0, answer.output
    assert "SIMULATED sessions; policy gate" in answer.stdout
    assert "No guarantee for species, instruments, cameras or places" in answer.stdout
    found = read_compiled(out)
    assert found.provenance.model_hash == model_hash
    assert found.provenance.apart_from_calibration is True  # nothing was calibrated
    assert (found.species["mask"].sessions, found.species["flat_print"].sessions) == (39, 22)
    assert found.bona_fide.sessions == 10
    assert found.species["mask"].accepted == 1  # what the numbers just allow, so the policy's own bound stands
    assert found.threshold == found.policy.upper_bound

    shown = mmdg("policy", "show", out)
    assert (shown.exit_code, found.threshold_id in shown.stdout) == (0, True)
    assert json.loads(mmdg("policy", "floor", "--policy", out, "--json").stdout)["policy"] == "gate"

    page = mmdg("evaluate", "sessions", folders / "test", "--model", model, "--policy", out, "--dev", folders / "val",
                "--out", tmp_path / "report", "--jobs", 1, "--json")
    assert page.exit_code == 0, page.output
    values = json.loads(page.stdout)
    assert values["threshold_id"] == found.threshold_id
    assert values["bona_fide"]["accepted"] == values["species"]["flat_print"]["rejected"] == 4
    assert values["bpcer_at_apcer"]["development_sessions"] == 71
    assert found.threshold_id in (tmp_path / "report" / "sessions.html").read_text()
    assert len(read_openings(folders / "test")) == values["test_set_opened"] == 1

    out.write_text(out.read_text().replace('"confidence": 0.9', '"confidence": 0.99'))
    changed = mmdg("policy", "show", out)
    assert (changed.exit_code, "changed by hand" in changed.stderr) == (1, True)


def test_what_the_sessions_cannot_show_is_refused_with_the_number_it_takes(folders, model, policy, tmp_path):
    answer = mmdg("policy", "compile", policy, folders / "few", "--model", model, "--out", tmp_path / "x.json")
    assert answer.exit_code == 1
    assert "takes 22 sessions of each species without one accepted; there are flat_print 10" in answer.stderr
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(("sessions", "options", "said"), [
    (("test",), (), "is a test session"),
    (("val", "twin"), (), "counted twice it would be evidence"),
    (("val", "val"), (), "is named twice"),
    (("val",), ("--calibrated-on", "val"), "which calibrated the scores"),
    (("nowhere",), (), "cannot be read"),
])
def test_sessions_that_may_not_choose_a_threshold_are_refused(folders, model, policy, tmp_path, sessions, options,
                                                              said):
    (tmp_path / "twin").symlink_to(folders / "val")
    where = [tmp_path / name if name == "twin" else folders / name for name in sessions]
    given = [folders / "val" if option == "val" else option for option in options]
    answer = mmdg("policy", "compile", policy, *where, *given, "--model", model, "--out", tmp_path / "x.json")
    assert answer.exit_code == 1
    assert said in answer.stderr


@pytest.mark.parametrize(("text", "said"), [
    ("name: [", "not YAML"), ("apcer_max: 0.1", "missing required field"),
    (POLICY.replace("0.1", "0.7"), "apcer_max: 0.7 is out of range"),
    (POLICY.replace("1100", "2000"), "deadline_ms of at most 1100"),
    (POLICY.replace("simulated", "release"), "leave out the checkpoint's, simulated"),
])
def test_a_wrong_policy_is_refused_by_name(folders, model, tmp_path, text, said):
    (tmp_path / "wrong.yaml").write_text(text)
    answer = mmdg("policy", "compile", tmp_path / "wrong.yaml", folders / "val", "--model", model, "--out",
                  tmp_path / "x.json")
    assert answer.exit_code == 1
    assert said in answer.stderr


def test_a_threshold_of_another_checkpoint_is_refused(folders, model, policy, tmp_path):
    out, other = tmp_path / "gate.json", tmp_path / "other.safetensors"
    mmdg("policy", "compile", policy, folders / "val", "--model", model, "--out", out, "--jobs", 1)
    made = make_test_checkpoint(other, ModelConfig(width=48, heads=3, depth=2, image_size=112))
    save_checkpoint(dataclasses.replace(made, purpose=Purpose.SIMULATED, hash=""), other)
    answer = mmdg("evaluate", "sessions", folders / "few", "--model", other, "--policy", out, "--out", tmp_path / "r")
    assert answer.exit_code == 1
    assert "was measured with checkpoint" in answer.stderr


def test_development_sessions_are_never_those_that_are_judged(folders, model, tmp_path):
    answer = mmdg("evaluate", "sessions", folders / "val", "--model", model, "--dev", folders / "val",
                  "--out", tmp_path)
    assert answer.exit_code == 1
    assert "which is judged here" in answer.stderr


def test_the_floor_is_printed_for_each_correlation():
    answer = mmdg("policy", "floor", "--correlation", 0.5, "--correlation", 0.97, "--rate", 10)
    assert answer.exit_code == 0
    assert "5 frames, 400 ms" in answer.stdout
    assert "14 frames, 1300 ms" in answer.stdout
    refused = mmdg("policy", "floor", "--policy", "nowhere.yaml")
    assert (refused.exit_code, "nowhere.yaml" in refused.stderr) == (1, True)


def test_evaluate_takes_a_run_in_its_older_form_and_the_commands_by_name(tmp_path, monkeypatch):
    older, newer = (mmdg("evaluate", *form, tmp_path, "--from-scores") for form in ((), ("run",)))
    assert older.exit_code == newer.exit_code == 1
    assert older.stderr == newer.stderr
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()  # a run directory of that name, as the README has one
    named = mmdg("evaluate", "run", "--from-scores")
    assert named.exit_code == 1
    assert named.stderr.startswith("error: ")
    for words in (("evaluate", "--help"), ("evaluate", "run", "--help"), ("evaluate", "sessions", "--help")):
        assert mmdg(*words).exit_code == 0


# --- with an operating-point file -----------------------------------------------------------------------------------
def points(tmp_path, model_hash, name="points.json", **changes):
    """A file for the camera kind of these films."""
    one = evidence_map(kind="simulated-none", frame_llr_clip=4.0, evidence_clip=4.0, **changes)
    file = msgspec.structs.replace(calibration(one, sha256=model_hash), model=CalibratedModel(
        sha256=model_hash, purpose="simulated"))
    (tmp_path / name).write_bytes(file_bytes(file))
    return tmp_path / name, file


def test_a_policy_compiled_with_a_file_counts_with_that_file_alone(folders, model, model_hash, policy, tmp_path):
    path, file = points(tmp_path, model_hash)
    judged = shutil.copytree(folders / "test", tmp_path / "judged")
    out = tmp_path / "gate.json"
    answer = mmdg("policy", "compile", policy, folders / "val", "--model", model, "--calibration", path, "--out", out,
                  "--jobs", 1)
    assert answer.exit_code == 0, answer.output
    found = read_compiled(out).provenance
    assert (found.calibration, found.calibration_id) == ("file", file.calibration_id)
    assert found.apart_from_calibration is None  # nobody said on which sessions the file was fitted
    assert f"calibration file {file.calibration_id}" in answer.stdout

    other, another = points(tmp_path, model_hash, "other.json", scale=0.5)
    for options, here in (((), "none"), (("--calibration", other), another.calibration_id)):
        refused = mmdg("evaluate", "sessions", judged, "--model", model, "--policy", out, "--out",
                       tmp_path / "report", "--jobs", 1, *options)
        assert refused.exit_code == 1
        assert f"measured with calibration {file.calibration_id}, here is {here}" in refused.stderr
    page = mmdg("evaluate", "sessions", judged, "--model", model, "--policy", out, "--calibration", path,
                "--out", tmp_path / "report", "--jobs", 1, "--json")
    assert page.exit_code == 0, page.output
    values = json.loads(page.stdout)
    assert (values["calibration"], values["calibration_id"]) == ("file", file.calibration_id)
    assert values["bona_fide"]["accepted"] == 4
    # The page of mmdg simulate evaluate names it, too.
    simulated = mmdg("simulate", "evaluate", folders / "few", "--model", model, "--calibration", path, "--out",
                     tmp_path / "simulated", "--jobs", 1, "--json")
    assert json.loads(simulated.stdout)["calibration_id"] == file.calibration_id


def test_the_map_decides_what_is_accepted(folders, model, model_hash, policy, tmp_path):
    """A logit of 6 clipped at 4 nats accepts; at a scale of 0.2, 1.2 nats of frames so alike accept nobody."""
    for scale, accepted in ((1.0, 1), (0.2, 0)):
        path, _ = points(tmp_path, model_hash, scale=scale, frame_correlation=0.95)
        page = mmdg("evaluate", "sessions", folders / "few", "--model", model, "--calibration", path, "--out",
                    tmp_path / "report", "--jobs", 1, "--json")
        assert page.exit_code == 0, page.output
        assert json.loads(page.stdout)["bona_fide"]["accepted"] == accepted


@pytest.mark.parametrize(("changes", "said"), [
    ({"kind": "webcam"}, "is of camera kind simulated-none, for which calibration"),
    ({"data": "recorded"}, r"$.data is 'recorded', these sessions are simulated"),
    ({"sha256": "cd" * 32}, "$.model.sha256 is cdcd"),
    ({"clip": 1.0}, "nothing could be accepted; calibrate with at least"),
])
def test_a_file_that_does_not_fit_the_sessions_compiles_nothing(folders, model, model_hash, policy, tmp_path, changes,
                                                                said):
    one = evidence_map(kind=changes.get("kind", "simulated-none"), frame_llr_clip=changes.get("clip", 4.0),
                       evidence_clip=changes.get("clip", 4.0))
    file = calibration(one, sha256=changes.get("sha256", model_hash))
    (tmp_path / "points.json").write_bytes(file_bytes(msgspec.structs.replace(
        file, data=changes.get("data", "simulated"))))
    answer = mmdg("policy", "compile", policy, folders / "val", "--model", model, "--calibration",
                  tmp_path / "points.json", "--out", tmp_path / "x.json", "--jobs", 1)
    assert answer.exit_code == 1
    assert said in answer.stderr
    assert not (tmp_path / "x.json").exists()
