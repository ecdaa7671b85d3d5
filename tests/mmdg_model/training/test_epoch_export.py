"""A run of the real method on a simulated tree, exported, loaded and scored as live crops are."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mmdg_model.checkpoint import load_checkpoint, save_checkpoint
from mmdg_model.inputs import DepthEncoding, InputSpecification, prepare
from mmdg_model.scorer import CropPlanes, Modality, Purpose
from mmdg_model.torch_scorer import TorchScorer
from mmdg_model.training.assemble import run_training
from mmdg_model.training.epoch_export import export_epoch, live_specification
from mmdg_model.training.run_config import InputChoice
from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
from tests.mmdg_model.training.toy_run import toy_train
from tests.mmdg_model.training.trees import TOY_MODEL, machine_of, mark_simulated, small_tree, toy_run

#: How the levels of the simulated tree were made of metres.
WRITTEN_AS = InputSpecification(image_size=32, depth_near_m=0.12, depth_range_m=0.3)


def small_run():
    config = toy_run(epochs=1, batch_size=8)
    return replace(config, model=replace(TOY_MODEL, changes={**TOY_MODEL.changes, "trainable_parts": "everything"}))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    return root


@pytest.fixture(scope="module")
def simulated_run(tree, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    mark_simulated(tree, inputs=WRITTEN_AS)
    run_training(run, small_run(), machine_of(tree, threads=1))
    (tree / "simulated.json").unlink()
    return run


def face(seed):
    """A crop with metric depth, as the live pipeline cuts it."""
    rng = np.random.default_rng(seed)
    valid = rng.random((32, 32)) > 0.1
    return CropPlanes(
        colour=rng.integers(1, 256, (32, 32, 3), dtype=np.uint8), colour_valid=np.ones((32, 32), dtype=np.bool_),
        depth=np.where(valid, rng.integers(4500, 6500, (32, 32)), 0).astype(np.uint16), depth_valid=valid,
        depth_unit_m=1e-4, infrared=rng.integers(1, 256, (32, 32), dtype=np.uint8),
        infrared_valid=np.ones((32, 32), dtype=np.bool_))


def as_written(crop):
    """The crop as the simulated tree holds it: levels instead of metres."""
    plane = prepare([crop], WRITTEN_AS).planes[0, 1, 0]
    levels = np.rint(plane * WRITTEN_AS.depth_scale + WRITTEN_AS.depth_mean).astype(np.uint16)
    return replace(crop, depth=levels, depth_valid=levels > 0, depth_unit_m=float("nan"))


def test_an_exported_epoch_scores_metric_crops_as_the_network_was_trained_on_levels(simulated_run, tmp_path):
    checkpoint = export_epoch(simulated_run, 0)
    save_checkpoint(checkpoint, tmp_path / "live.safetensors")
    live = TorchScorer(load_checkpoint(tmp_path / "live.safetensors"))  # it reproduces its known answer, or raises
    trained_on = replace(checkpoint, input_spec=replace(checkpoint.input_spec,
                                                        depth_encoding=DepthEncoding.IDENTITY_8BIT))
    crops = [face(seed) for seed in range(3)]
    planes = prepare(crops, checkpoint.input_spec).planes
    assert np.array_equal(planes, prepare([as_written(crop) for crop in crops], trained_on.input_spec).planes)
    assert len({round(score.logit, 6) for score in live.score(crops)}) == 3


def test_purpose_and_provenance(simulated_run):
    checkpoint = export_epoch(simulated_run, 0)
    config = simulated_run.config()
    assert checkpoint.purpose is Purpose.SIMULATED
    assert checkpoint.input_spec.depth_encoding is DepthEncoding.METRIC_8BIT
    assert (checkpoint.input_spec.depth_near_m, checkpoint.input_spec.depth_range_m) == (0.12, 0.3)
    about = checkpoint.training
    assert about["model_hash"] == simulated_run.load_epoch(0)[1]
    assert (about["run"], about["data"], about["protocol"], about["sources"]) == (
        config.hash, config.data, "CPS_W", ["C", "P", "S"])
    assert about["simulated"] is True
    assert about["backbone"] == "random, all weights train"
    assert checkpoint.created_by.startswith("mmdg-live")


def test_a_run_on_real_data_is_for_release_and_keeps_its_levels(tree, tmp_path):
    run = RunDirectory(tmp_path)
    run_training(run, small_run(), machine_of(tree, threads=1, tensorboard=False))
    checkpoint = export_epoch(run, 0)
    assert checkpoint.purpose is Purpose.RELEASE
    assert checkpoint.input_spec.depth_encoding is DepthEncoding.IDENTITY_8BIT
    assert checkpoint.training["simulated"] is False


def test_levels_of_unknown_making_stay_levels():
    trained = InputSpecification(depth_encoding=DepthEncoding.IDENTITY_8BIT)
    assert live_specification(trained, None) == trained


def test_an_epoch_that_was_not_kept_and_a_network_nobody_can_load_are_refused(simulated_run, tmp_path):
    with pytest.raises(RunDirectoryError, match="keeps no epoch 3; it keeps 0"):
        export_epoch(simulated_run, 3)
    toy_train(tmp_path)
    with pytest.raises(RunDirectoryError, match="method toy trains a network that live scorers do not know"):
        export_epoch(RunDirectory(tmp_path), 0)


@pytest.mark.parametrize("method", ["pmr_vit", "cmfl_u_adapter"])
def test_a_plain_vit_and_a_network_with_more_heads_are_refused_though_they_have_a_configuration(tree, tmp_path, method):
    run = RunDirectory(tmp_path)
    run_training(run, replace(small_run(), method=method, settings={}), machine_of(tree, threads=1, tensorboard=False))
    with pytest.raises(RunDirectoryError, match=f"method {method} trains a network that live scorers do not know"):
        export_epoch(run, 0)


def test_a_run_that_was_given_fewer_modalities_is_not_for_live_scorers(simulated_run, tmp_path):
    config = replace(simulated_run.config(), inputs=InputChoice(modalities=(Modality.DEPTH,)))
    run = RunDirectory(shutil.copytree(simulated_run.path, tmp_path / "run"))
    run.config_file.write_text(config.to_json())
    with pytest.raises(RunDirectoryError, match="trained without infrared, rgb"):
        export_epoch(run, 0)
