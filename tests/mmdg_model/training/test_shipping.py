"""A run becomes shipped weights: small, half precision, verified as reloaded, and honest about where they come from."""

import dataclasses
import hashlib
import json
from importlib import resources

import msgspec
import numpy as np
import pytest
import yaml

from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.inputs import InputSpecification, prepare
from mmdg_model.known_answer import known_answer_crops
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Purpose
from mmdg_model.shipped_weights import (
    CARD_NAME,
    LARGEST_BYTES,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    ShippedWeightsError,
    read_manifest,
    shipped_checkpoint,
    verify,
)
from mmdg_model.torch_scorer import TorchScorer
from mmdg_model.training.assemble import run_training
from mmdg_model.training.benchmark_grid import GridError, recipe
from mmdg_model.training.epoch_export import export_epoch
from mmdg_model.training.model_card import model_card
from mmdg_model.training.run_config import from_plain
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.shipping import FLOAT16_TOLERANCE, ShippingError, in_float16, recipe_text, ship
from tests.mmdg_model.training.trees import TOY_MODEL, machine_of, mark_simulated, small_tree, toy_run

POINT = OperatingPoint(logit_scale=0.5, logit_offset=-1.0, frame_correlation=0.75, threshold=4.6, apcer=0.02, bpcer=0.1,
                       sessions=40, data="simulated", command="made up for tests")


def everything_trains(config):
    return dataclasses.replace(config, model=dataclasses.replace(
        TOY_MODEL, changes={**TOY_MODEL.changes, "trainable_parts": "everything"}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    mark_simulated(root, inputs=InputSpecification(image_size=32, depth_near_m=0.12, depth_range_m=0.3))
    directory = RunDirectory(tmp_path_factory.mktemp("run"))
    run_training(directory, everything_trains(toy_run(epochs=1, batch_size=8)), machine_of(root, threads=1))
    return directory


@pytest.fixture(scope="module")
def shipped(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "specification.json").write_text("{}")
    ship(run, folder, operating_point=POINT, specification=folder / "specification.json")
    return folder


def test_the_folder_holds_three_files_that_belong_together(shipped, run):
    assert {path.name for path in shipped.iterdir()} == {WEIGHTS_NAME, MANIFEST_NAME, CARD_NAME, "specification.json"}
    manifest, blob = verify(shipped), (shipped / WEIGHTS_NAME).read_bytes()
    assert manifest.sha256 == hashlib.sha256(blob).hexdigest()
    assert manifest.bytes == len(blob) <= LARGEST_BYTES
    assert (manifest.run, manifest.purpose, manifest.simulated) == (run.config().hash, Purpose.SIMULATED, True)
    assert manifest.specification_sha256 == hashlib.sha256(b"{}").hexdigest()
    assert manifest.recipe_sha256 == hashlib.sha256(recipe_text().encode()).hexdigest()
    assert manifest.operating_point == POINT
    assert shipped_checkpoint(shipped) == (shipped / WEIGHTS_NAME, manifest.sha256)


def test_the_reloaded_file_states_purpose_and_operating_point_and_reproduces_its_known_answer(shipped):
    checkpoint = load_checkpoint(shipped / WEIGHTS_NAME, expected_hash=verify(shipped).sha256)
    assert (checkpoint.purpose, checkpoint.operating_point) == (Purpose.SIMULATED, POINT)
    assert {str(weight.dtype) for weight in checkpoint.weights.values()} == {"torch.float16"}
    TorchScorer(checkpoint)


def test_half_precision_scores_as_single_precision_does(run, shipped):
    single = export_epoch(run, 0)
    half = load_checkpoint(shipped / WEIGHTS_NAME)
    crops = known_answer_crops(half.input_spec)
    assert np.array_equal(prepare(crops, single.input_spec).planes, prepare(crops, half.input_spec).planes)
    of_single = [score.logit for score in TorchScorer(single).score(crops)]
    of_half = [score.logit for score in TorchScorer(half).score(crops)]
    largest = max(1.0, *map(abs, of_single))
    assert np.abs(np.subtract(of_single, of_half)).max() <= 2 * FLOAT16_TOLERANCE * largest
    assert verify(shipped).float16_deviation <= FLOAT16_TOLERANCE


def test_weights_that_half_precision_changes_are_refused(run, tmp_path):
    """The largest factor at which the head still fits float16: rounding errors of its products grow with it."""
    single = export_epoch(run, 0)
    shifted = dataclasses.replace(single, known_answer=dataclasses.replace(single.known_answer, logits=tuple(
        (attack + 1.0, live) for attack, live in single.known_answer.logits)))
    with pytest.raises(ShippingError, match="rounding to float16 moves the known-answer logits"):
        in_float16(shifted, tmp_path / "scratch.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_and_operating_point_are_the_same_file(run, shipped, tmp_path):
    again = ship(run, tmp_path, operating_point=POINT)
    assert again.sha256 == verify(shipped).sha256
    assert ship(run, tmp_path).sha256 != again.sha256  # without its operating point it is another one


def test_an_unfinished_run_is_not_shipped(run, tmp_path):
    with pytest.raises(ShippingError, match="not trained to its end; the command that began it goes on"):
        ship(RunDirectory(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_real_data_are_not_shipped(tmp_path):
    root = tmp_path / "tree"
    small_tree(root)
    directory = RunDirectory(tmp_path / "run")
    run_training(directory, everything_trains(toy_run(max_updates=1)), machine_of(root, threads=1, tensorboard=False))
    with pytest.raises(ShippingError, match="no tree calls simulated: purpose is release"):
        ship(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_of_other_weights_do_not_get_onto_the_card(run, shipped, tmp_path):
    figures = tmp_path / "evaluation.json"
    figures.write_text(json.dumps({"checkpoint": "0" * 64, "bpcer": 0.01}))
    with pytest.raises(ShippingError, match="its figures are of other weights"):
        ship(run, tmp_path / "out", operating_point=POINT, evaluation=figures)
    assert shipped_checkpoint(tmp_path / "out") is None  # no manifest: nothing is shipped
    figures.write_text(json.dumps({"checkpoint": verify(shipped).sha256, "bpcer": 0.0125,
                                   "species": {"print_flat": {"sessions": 12, "apcer": 0.083}}}))
    manifest = ship(run, tmp_path / "out", operating_point=POINT, evaluation=figures)
    card = (tmp_path / "out" / CARD_NAME).read_text()
    assert "- bpcer: 0.0125" in card
    assert "| print_flat | 12 | 0.083 |" in card
    assert manifest.evaluation_sha256 == hashlib.sha256(figures.read_bytes()).hexdigest()


def test_the_card_says_plainly_what_they_are(shipped):
    card = (shipped / CARD_NAME).read_text()
    assert "Trained on simulated data only. There is no evidence of performance on real people" in card
    assert POINT.command in card
    assert "Not evaluated yet" in card
    with pytest.raises(ValueError, match="purpose is release"):
        model_card(msgspec.structs.replace(verify(shipped), purpose=Purpose.RELEASE), None, shape="")


def copied(shipped, folder):
    for name in (WEIGHTS_NAME, MANIFEST_NAME):
        (folder / name).write_bytes((shipped / name).read_bytes())
    return folder


def test_an_altered_weights_file_is_not_verified(shipped, tmp_path):
    copied(shipped, tmp_path)
    blob = bytearray((tmp_path / WEIGHTS_NAME).read_bytes())
    blob[-1] ^= 1
    (tmp_path / WEIGHTS_NAME).write_bytes(blob)
    with pytest.raises(ShippedWeightsError, match="install the program again"):
        verify(tmp_path)


@pytest.mark.parametrize("change", [{"sha256": "x"}, {"bytes": LARGEST_BYTES + 1}, {"purpose": "prod"}, {"more": 1},
                                    {"format_version": 2}, {"operating_point": {"logit_scale": 0.0}}])
def test_a_damaged_manifest_is_refused(shipped, tmp_path, change):
    copied(shipped, tmp_path)
    values = json.loads((tmp_path / MANIFEST_NAME).read_text())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(values | change))
    with pytest.raises(ShippedWeightsError, match=MANIFEST_NAME):
        read_manifest(tmp_path)


def test_a_manifest_without_its_weights_is_said_and_an_empty_folder_ships_nothing(shipped, tmp_path):
    assert shipped_checkpoint(tmp_path) is None
    with pytest.raises(ShippedWeightsError, match="no weights are shipped"):
        verify(tmp_path)
    copied(shipped, tmp_path)
    (tmp_path / WEIGHTS_NAME).unlink()
    with pytest.raises(ShippedWeightsError, match="is missing"):
        shipped_checkpoint(tmp_path)


# The recipe


def test_the_recipe_is_a_whole_run_on_all_five_simulated_domains():
    config = from_plain(yaml.safe_load(recipe_text()))
    assert config.protocol == "CLPSW_L"
    assert config.method in ("mmdg", "u_adapter")  # MMDG's network
    assert config.model.resolve().image_size == 112
    assert config.model.resolve().trainable_parts == "everything"
    assert config.backbone == ""
    assert config.augmentation.drop_depth > 0
    assert config.augmentation.drop_infrared > 0


def test_a_run_recipe_is_no_grid_and_an_unknown_one_is_said():
    with pytest.raises(GridError, match="mmdg train --recipe default_weights"):
        recipe("default_weights")
    with pytest.raises(ShippingError, match="no recipe 'other'"):
        recipe_text("other")
    assert (resources.files("mmdg_model.training") / "recipes" / "default_weights.yaml").is_file()
