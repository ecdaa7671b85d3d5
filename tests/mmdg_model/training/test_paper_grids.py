"""Tables and figures as grids: which rows, trainings and modalities; what a recipe and what a scale decide."""

from __future__ import annotations

import pytest
import yaml

from mmdg_model.scorer import Modality
from mmdg_model.training.benchmark_grid import GridError
from mmdg_model.training.method_recipes import MethodRecipeError, method_recipe, recipe_from_text, to_yaml
from mmdg_model.training.methods.registry import METHODS
from mmdg_model.training.paper_grids import ITEMS, LATER_METHODS, paper_grid, read_scale, why_absent
from mmdg_model.training.protocols import PROTOCOL_1, PROTOCOL_3
from mmdg_model.training.published_results import TABLES
from mmdg_model.weights.backbone import save_backbone
from tests.mmdg_model.training.methods.builders import toy_backbone, toy_clip

P1, P3 = ([each.name for each in group] for group in (PROTOCOL_1, PROTOCOL_3))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_table_has_every_published_row_as_jobs_or_with_a_reason(number):
    paper = paper_grid(str(number), scale="micro")
    planned = {config.method for config in paper.grid.run_configs()}
    absent = dict(paper.absent)
    for row in TABLES[number].rows:
        assert row.ours, row
        assert all(name in planned or name in absent for name in row.ours), row
    assert planned == set(paper.item.methods) & set(METHODS)
    assert not set(absent) & set(METHODS)


@pytest.mark.parametrize(("name", "protocols"), [
    ("1", P1), ("2", P1), ("3", P3), ("4", P1), ("5", P1), ("fig1c", P1), ("fig5", P1), ("fig6", P1), ("fig7", P1)])
def test_trainings_of_each_item(name, protocols):
    assert list(dict.fromkeys(config.protocol for config in paper_grid(name).grid.run_configs())) == protocols


def test_one_modality_stands_beside_all_of_them():
    given = {(config.method, config.inputs.modalities) for config in paper_grid("fig1c").grid.run_configs()}
    assert {modalities for method, modalities in given if method == "vit_late"} == {
        tuple(Modality), *((modality,) for modality in Modality)}
    assert ("mmdg", tuple(Modality)) in given


def test_the_whole_names_every_job_of_protocol_1_once():
    def jobs(name):
        return [config.hash for config in paper_grid(name, scale="micro").grid.run_configs()]
    whole = jobs("all")
    assert len(whole) == len(set(whole))
    for name, item in ITEMS.items():
        if list(item.protocols) == P1:
            assert set(jobs(name)) <= set(whole), name


def test_only_table_2_trains_nothing():
    assert [name for name, item in ITEMS.items() if item.tests_only] == ["2"]
    assert [config.hash for config in paper_grid("2").grid.run_configs()] == [
        config.hash for config in paper_grid("1").grid.run_configs()]


def test_without_a_scale_runs_are_the_papers():
    config = next(each for each in paper_grid("1").grid.run_configs() if each.method == "mmdg")
    assert (config.model.preset, config.recipe.epochs, config.recipe.batch_size) == ("base", 70, 32)
    assert (config.optimiser.name, config.optimiser.learning_rate, config.optimiser.weight_decay) == ("adam", 5e-5,
                                                                                                     1e-3)


def test_a_scale_is_the_same_for_every_method_and_goes_over_their_recipes():
    configs = paper_grid("4", scale="micro", seeds=(0, 1)).grid.run_configs()
    assert {(config.model.preset, config.recipe, config.optimiser) for config in configs} == {
        (configs[0].model.preset, configs[0].recipe, configs[0].optimiser)}
    assert configs[0].recipe.batch_size == read_scale("micro")["recipe"]["batch_size"]
    assert {config.seed for config in configs} == {0, 1}


def test_a_scale_cuts_the_lengths_that_methods_count_themselves():
    lengths = read_scale("micro")["method_lengths"]
    settings = {config.method: dict(config.settings) for config in paper_grid("all", scale="micro").grid.run_configs()}
    for method in ("ssdg", "ssan_vit", "ssdg_u_adapter"):
        assert settings[method]["ramp_updates"] == lengths["ramp_updates"]
    assert settings["vitaf"]["head_updates"] == lengths["head_updates"]
    assert settings["ogm_ge_vit"]["epochs"] == lengths["epochs"]
    assert settings["pmr_u_adapter"]["entropy_epochs"] == lengths["entropy_epochs"]
    assert set(lengths) & set(settings["mmdg"]) == set()
    papers = {config.method: config.settings for config in paper_grid("1").grid.run_configs()}
    assert papers["ssdg"]["ramp_updates"] == 4000


@pytest.mark.parametrize(("lengths", "message"), [
    ("{ramp_udpates: 3}", "ramp_udpates is no setting of any method"),
    ("[3]", r"is \[3\], expected settings")])
def test_lengths_that_no_method_has_are_refused(tmp_path, lengths, message):
    (tmp_path / "odd.yaml").write_text(f"method_lengths: {lengths}\n")
    with pytest.raises(GridError, match=message):
        paper_grid("1", scale=str(tmp_path / "odd.yaml"))


def test_ones_own_recipe_files_go_before_the_programs(tmp_path):
    (tmp_path / "mmdg.yaml").write_text("method: mmdg\nsettings: {ssp_weight: 0.7}\n"
                                        "optimiser: {learning_rate: 0.002}\n")
    config = next(each for each in paper_grid("1", method_recipes=tmp_path).grid.run_configs()
                  if each.method == "mmdg")
    assert config.settings == {"ssp_weight": 0.7}
    assert config.optimiser.learning_rate == 0.002


def test_rows_and_trainings_can_be_chosen_and_a_preset_goes_over_the_scale():
    paper = paper_grid("1", methods=("mmdg",), protocols=("CPS_W",), scale="micro", preset="tiny")
    (config,) = paper.grid.run_configs()
    assert (config.method, config.protocol, config.model.preset) == ("mmdg", "CPS_W", "tiny")
    assert config.model.changes == read_scale("micro")["model"]["changes"]


@pytest.mark.parametrize(("options", "message"), [
    ({"name": "6"}, "no table '6'"),
    ({"name": "1", "methods": ("u_adapter",)}, "table 1 has no row 'u_adapter'"),
    ({"name": "1", "protocols": ("CW_PS",)}, "table 1 has no training 'CW_PS'"),
    ({"name": "1", "scale": "giant"}, "no scale 'giant'; there are micro"),
    ({"name": "1", "scale": "/nowhere/scale.yaml"}, "cannot be read"),
])
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(GridError, match=message):
        paper_grid(**options)


@pytest.mark.parametrize("name", [name for name in LATER_METHODS if name not in METHODS])
def test_later_methods_are_never_run_in_silence(name):
    with pytest.raises(GridError, match=f"none of {name} is implemented"):
        paper_grid("1", methods=(name,))
    assert why_absent(name) == "not implemented here"


@pytest.mark.parametrize("name", [name for name in LATER_METHODS if name in METHODS and METHODS[name].needs_clip])
def test_rows_on_clip_are_planned_only_from_a_clip(name, tmp_path):
    with pytest.raises(GridError, match=f"table 1: {name} needs CLIP weights.*mmdg import-weights"):
        paper_grid("1", methods=(name,))
    plain, clip = tmp_path / "vit.safetensors", tmp_path / "clip.safetensors"
    save_backbone(toy_backbone(), plain)
    save_backbone(toy_clip(), clip)
    for backbone in (None, plain):
        paper = paper_grid("1", methods=(name, "mmdg"), backbone=backbone)
        assert {config.method for config in paper.grid.run_configs()} == {"mmdg"}
        assert paper.absent == ((name, "needs CLIP weights"),)
    paper = paper_grid("1", methods=(name, "mmdg"), backbone=clip)
    assert {config.method for config in paper.grid.run_configs()} == {name, "mmdg"}
    assert not paper.absent
    assert why_absent(name) == "needs CLIP weights"


# ---- recipe files ----

@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_recipe_that_can_be_read(name):
    recipe = method_recipe(name)
    assert recipe.method == name
    assert recipe_from_text(to_yaml(recipe, comment="two\nlines"), "anew", method=name).run == recipe.run


@pytest.mark.parametrize(("text", "message"), [
    ("- mmdg", "expected a mapping"),
    ("method: vit_late", "method is 'vit_late', the file is named after 'mmdg'"),
    ("method: mmdg\nlearning_rate: 1", "'learning_rate' is an unknown key"),
    ("method: mmdg\noptimiser: {learning_rate: -1}", "optimiser.learning_rate is -1"),
    ("method: mmdg\nsettings: {no_such: 1}", "settings.no_such is unknown"),
    ("method: [", "cannot be read as YAML"),
])
def test_what_no_recipe_is_is_said(text, message):
    with pytest.raises(MethodRecipeError, match=message.replace("[", r"\[")):
        recipe_from_text(text, "file.yaml", method="mmdg")


def test_yaml_of_a_recipe_is_what_people_write():
    values = yaml.safe_load(to_yaml(method_recipe("mmdg")))
    assert list(values) == ["method", "settings", "optimiser", "recipe"]
