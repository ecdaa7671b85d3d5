"""`mmdg import-weights` and `mmdg models` as typed: answers on standard output, complaints on standard error."""

import hashlib
import json

import pytest
import safetensors.torch
import torch
from typer.main import get_command
from typer.testing import CliRunner

from mmdg_model import shipped_weights
from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.weights import official
from mmdg_model.weights.backbone import load_backbone
from mmdg_model.weights.layouts import LAYOUTS
from pipeline.commands import app
from tests.mmdg_model.weights.references import REFERENCES
from tests.mmdg_model.weights.released import released_weights


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def timm_file(tmp_path):
    torch.save(REFERENCES["timm"][0](), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def test_a_backbone(timm_file, tmp_path):
    answer = mmdg("import-weights", timm_file, tmp_path / "out.safetensors", "--layout", "auto", "--heads", 3)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert "backbone to train from; it decides nothing" in answer.stdout
    assert "classification head (2 tensors)" in answer.stdout
    assert load_backbone(tmp_path / "out.safetensors").hash in answer.stdout


@pytest.mark.parametrize(("options", "purpose"), [((), "test"), (("--purpose", "release"), "release")])
def test_a_checkpoint(tmp_path, options, purpose):
    safetensors.torch.save_file(released_weights(), tmp_path / "in.safetensors")
    answer = mmdg("import-weights", tmp_path / "in.safetensors", tmp_path / "out.safetensors", "--heads", 3, "--json",
                  *options)
    report = json.loads(answer.stdout)
    checkpoint = load_checkpoint(tmp_path / "out.safetensors")
    assert answer.exit_code == 0
    assert (report["purpose"], report["layout"], report["result"]) == (purpose, "mmdg", "checkpoint")
    assert checkpoint.purpose == purpose
    assert report["output_sha256"] == checkpoint.hash


@pytest.mark.parametrize(("options", "exit_code", "complaint"), [
    ((), 1, "state it with --heads"),
    (("--heads", 3, "--layout", "torchvision"), 1, "18 missing: class_token"),
    (("--heads", 3, "--layout", "keras"), 1, "layout 'keras' is unknown"),
    (("--heads", 3, "--purpose", "test"), 1, "takes no purpose"),
    (("--purpose", "releese"), 2, "'releese', expected one of test, simulated, release"),
    (("--depth-encoding", "16bit"), 2, "'16bit', expected one of metric_8bit, identity_8bit"),
])
def test_refusals(timm_file, tmp_path, options, exit_code, complaint):
    answer = mmdg("import-weights", timm_file, tmp_path / "out.safetensors", *options)
    assert answer.exit_code == exit_code
    assert complaint in " ".join(answer.stderr.replace("│", " ").split())
    assert answer.stdout == ""
    assert list(tmp_path.iterdir()) == [timm_file]


def test_help_names_every_layout():
    options = get_command(app).commands["import-weights"].params
    described = next(option.help for option in options if option.name == "layout")
    assert all(name in described for name in LAYOUTS)


def test_output_is_safetensors(timm_file, tmp_path):
    answer = mmdg("import-weights", timm_file, tmp_path / "out.pth", "--heads", 3)
    assert answer.exit_code == 2


def test_models_list(monkeypatch, tmp_path):
    monkeypatch.setenv("MMDG_ASSETS", str(tmp_path))
    rows = [json.loads(line) for line in mmdg("models", "list", "--json").stdout.splitlines()]
    assert [row["name"] for row in rows] == list(official.OFFICIAL)
    assert all(row["path"] is None for row in rows)
    assert "does not stop a forger" in mmdg("models", "list").stdout


def test_models_fetch_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setitem(official.OFFICIAL, "sample", official.OfficialWeights(
        name="sample", title="a sample", url="http://127.0.0.1:1/vit.pth", sha256="0" * 8, stated_in="this test",
        layout="timm", terms="none"))
    answer = mmdg("models", "fetch", "sample", "--directory", tmp_path)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "download it on another machine" in answer.stderr


def test_models_fetch_finds_what_was_put_there_by_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("MMDG_ASSETS", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vit.pth").write_bytes(b"weights")
    monkeypatch.setitem(official.OFFICIAL, "sample", official.OfficialWeights(
        name="sample", title="a sample", url="http://127.0.0.1:1/vit.pth", stated_in="this test", layout="timm",
        sha256=hashlib.sha256(b"weights").hexdigest(), terms="none"))
    answer = mmdg("models", "fetch", "sample")
    assert (answer.exit_code, answer.stdout) == (0, f"{tmp_path / 'weights' / 'vit.pth'}\n")
    assert "next: mmdg import-weights" in answer.stderr
    assert str(tmp_path / "weights" / "vit.pth") in mmdg("models", "list").stdout


def test_unknown_model():
    answer = mmdg("models", "fetch", "vit")
    assert answer.exit_code == 1
    assert "torchvision-vit-b-16, openai-clip-vit-b-16" in answer.stderr


# Shipped weights


def test_nothing_shipped_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_weights, "SHIPPED_DIRECTORY", tmp_path)
    monkeypatch.setattr(shipped_weights.verify, "__defaults__", (tmp_path,))
    answer = mmdg("weights", "show")
    assert answer.exit_code == 1
    assert "make train-default makes them" in answer.stderr


@pytest.mark.parametrize(("make", "message"), [
    (lambda folder: [folder / "nowhere"], "not trained to its end"),
    (lambda folder: [folder, "--operating-point", folder / "none.json"], "none.json"),
])
def test_what_cannot_be_shipped_is_refused_with_its_reason(tmp_path, make, message):
    answer = mmdg("weights", "ship", *make(tmp_path), "--out", tmp_path / "out")
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert not (tmp_path / "out").exists()
