"""A run that goes on from another run's checkpoint: all of its weights, and nothing of its recipe."""

from dataclasses import replace

import pytest
import torch

from mmdg_model.checkpoint import load_checkpoint, save_checkpoint
from mmdg_model.scorer import Purpose
from mmdg_model.training.assemble import run_training
from mmdg_model.training.epoch_export import export_epoch
from mmdg_model.training.methods.contract import MethodError
from mmdg_model.training.methods.registry import build
from mmdg_model.training.run_config import RunConfig, RunConfigError
from mmdg_model.training.run_directory import RunDirectory
from tests.mmdg_model.training.methods.builders import context
from tests.mmdg_model.training.trees import TOY_MODEL, machine_of, mark_simulated, small_tree, toy_run


def everything(**changes):
    config = toy_run(epochs=1, batch_size=8, **changes)
    return replace(config, model=replace(TOY_MODEL, changes={**TOY_MODEL.changes, "trainable_parts": "everything"}))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    mark_simulated(root)
    return root


@pytest.fixture(scope="module")
def first(tree, tmp_path_factory):
    """A checkpoint file of a first run."""
    folder = tmp_path_factory.mktemp("first")
    run = RunDirectory(folder / "run")
    run_training(run, everything(), machine_of(tree, threads=1))
    save_checkpoint(export_epoch(run, run.epochs()[-1]), folder / "first.safetensors")
    return folder / "first.safetensors"


def test_training_starts_from_all_of_its_weights(tree, first, tmp_path):
    run = RunDirectory(tmp_path / "run")
    slow = replace(everything(seed=9), optimiser=replace(everything().optimiser, learning_rate=1e-12, weight_decay=0.0))
    run_training(run, slow, machine_of(tree, threads=1, start=first))
    weights, _ = run.load_epoch(run.epochs()[-1])
    given = load_checkpoint(first)
    assert weights.keys() == given.weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, given.weights[name].float(), rtol=0, atol=1e-8)
    assert run.config().start == given.hash
    exported = export_epoch(run, run.epochs()[-1])
    assert exported.training["backbone"] == f"checkpoint {given.hash}"
    # Without the file weights are drawn, so the equality above is the file's doing.
    drawn = RunDirectory(tmp_path / "drawn")
    run_training(drawn, slow, machine_of(tree, threads=1))
    assert not torch.equal(drawn.load_epoch(drawn.epochs()[-1])[0]["head.weight"], weights["head.weight"])


def test_the_hash_of_a_run_without_one_is_as_before_and_differs_with_one():
    assert '"start"' not in RunConfig().to_json()
    assert RunConfig(start="ab").hash != RunConfig().hash


def test_the_configuration_and_the_file_must_agree(tree, first, tmp_path):
    with pytest.raises(RunConfigError, match="no file was given; name it with --start"):
        run_training(RunDirectory(tmp_path), replace(everything(), start="ab"), machine_of(tree, threads=1))
    with pytest.raises(RunConfigError, match=r"start is ab, but .*first\.safetensors is"):
        run_training(RunDirectory(tmp_path), replace(everything(), start="ab"),
                     machine_of(tree, threads=1, start=first))


def test_weights_that_saw_simulations_alone_do_not_become_release(tree, first, tmp_path):
    (tmp_path / "real").mkdir()
    small_tree(tmp_path / "real")
    with pytest.raises(RunConfigError, match="purpose 'simulated', the samples are not simulated"):
        run_training(RunDirectory(tmp_path / "run"), everything(),
                     machine_of(tmp_path / "real", threads=1, start=first))
    assert not (tmp_path / "run" / "run.json").exists()


def test_another_shape_another_network_or_two_starts_are_refused(first):
    given = load_checkpoint(first)
    assert given.purpose is Purpose.SIMULATED
    with pytest.raises(MethodError, match=r"another network: model\."):
        build("mmdg", {}, replace(context(), start=given))
    with pytest.raises(MethodError, match="not the one that checkpoints hold"):
        build("vit_late", {}, replace(context(), start=given))
