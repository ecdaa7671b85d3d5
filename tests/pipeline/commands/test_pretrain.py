"""`mmdg pretrain` as typed."""

import json

import pytest
from typer.testing import CliRunner

from mmdg_model.weights.backbone import load_backbone
from pipeline.commands import app
from tests.mmdg_model.training.trees import mark_simulated, small_tree


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    mark_simulated(root, identities={"W": {"train": [1, 2]}})
    return root


def pretrain(tree, out, *options):
    return mmdg("pretrain", tree, out, "--domain", "W", "--epochs", 1, "--batch-size", 4, "--threads", 1, *options)


def test_a_run_that_was_cut_off_goes_on_to_a_backbone(tree, tmp_path):
    out = tmp_path / "run"
    cut = pretrain(tree, out, "--max-minutes", 1e-6)
    assert cut.exit_code == 3, cut.output
    assert not (out / "backbone.safetensors").exists()
    whole = pretrain(tree, out, "--json")
    assert whole.exit_code == 0, whole.output
    about = json.loads(whole.stdout)
    backbone = load_backbone(out / "backbone.safetensors")
    assert about["backbone_sha256"] == backbone.hash
    assert backbone.layout == "masked_autoencoding_simulated"
    starts = json.loads((out / "environment.json").read_text())
    assert [start["first_update"] for start in starts] == [0, 1]


@pytest.mark.parametrize(("options", "says"), [
    (["--device", "gpu"], "accelerator is 'gpu', expected one of auto, cpu, cuda"),
    (["--precision", "16-mixed"], "precision is '16-mixed'"),
])
def test_what_cannot_run_is_refused_with_its_reason(tree, tmp_path, options, says):
    answer = pretrain(tree, tmp_path / "run", *options)
    assert answer.exit_code == 1, answer.output
    assert says in answer.stderr


def test_people_of_the_benchmark_are_refused(tree, tmp_path):
    answer = pretrain(tree, tmp_path / "run", "--disjoint-from", tree)
    assert answer.exit_code == 1
    assert "share 2 identities" in answer.stderr
    assert not (tmp_path / "run").exists()
