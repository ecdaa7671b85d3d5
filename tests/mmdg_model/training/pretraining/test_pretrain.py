import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from mmdg_model.checkpoint import CheckpointError, load_checkpoint
from mmdg_model.network import build_mmdg
from mmdg_model.training.compute import SingleProcess, TrainingDiverged
from mmdg_model.training.fabric_compute import launch
from mmdg_model.training.pretraining.config import PretrainingError
from mmdg_model.training.pretraining.crops import UnlabelledCrops, crop_specification, read_crop_lists
from mmdg_model.training.pretraining.pretrain import PretrainingSource, pretrain
from mmdg_model.training.pretraining.report import evaluate, mean_targets
from mmdg_model.training.pretraining.run import PretrainingRun
from mmdg_model.training.run_config import MachineConfig, OptimiserConfig
from mmdg_model.weights.backbone import load_backbone, place_backbone
from pipeline.commands import app
from pipeline.commands.pretrain import _described
from tests.mmdg_model.training.pretraining.builders import TOY, toy_config, toy_crops
from tests.mmdg_model.training.trees import mark_simulated, small_tree


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    mark_simulated(root, identities={"C": {"train": [1, 2, 3]}})
    return PretrainingSource(root=root, lists=root / "lists")


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("run") / "whole"
    return pretrain(toy_config(), source, path)


def weights_of(path):
    return load_backbone(path / "backbone.safetensors").weights


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_a_finished_run_has_every_file_and_a_picture_that_opens(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names >= {"pretraining.json", "environment.json", "metrics.jsonl", "troubles.jsonl", "backbone.safetensors",
                     "report.json", "reconstructions.png", "done.json"}
    assert not (finished.path / "resume" / "state.safetensors").exists()
    lines = [json.loads(line) for line in (finished.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(9))  # 20 crops, 3 a pass, 3 passes
    assert cv2.imread(str(finished.path / "reconstructions.png")).shape[0] > 500


def test_the_backbone_starts_an_mmdg_and_says_what_it_is(finished):
    backbone = load_backbone(finished.path / "backbone.safetensors")
    assert backbone.hash == finished.backbone_sha256
    assert backbone.layout == "masked_autoencoding_simulated"
    assert "9 of 9 updates on simulated crops without labels" in backbone.created_by
    assert backbone.source_sha256 == json.loads((finished.path / "pretraining.json").read_text())["data"]
    assert backbone.pixel_std == (128 / 255,) * 3
    network = build_mmdg(TOY.resolve())
    place_backbone(network, backbone)
    for index in range(3):
        assert torch.equal(network.embeddings[index].class_token, backbone.weights["embedding.class_token"])
    with pytest.raises(CheckpointError):
        load_checkpoint(finished.path / "backbone.safetensors")


def test_the_backbone_is_the_trained_encoder_not_the_start(finished, source):
    start = PretrainingRun(toy_config(), toy_crops(source.root)[0], finished.path.parent / "fresh",
                           SingleProcess()).backbone()
    trained = weights_of(finished.path)
    assert [name for name, weight in start.weights.items() if torch.equal(weight, trained[name])] == []


def test_permuted_labels_leave_the_weights_bit_identical(source, tmp_path):
    """PADISI's paths tell nothing, so its labels may be turned round without the list reader's protest."""
    backbones = []
    for name, flip in (("as", 0), ("turned", 1)):
        root = tmp_path / name
        lists = small_tree(root)
        for path in lists.glob("P-*.txt"):
            path.write_text("".join(f"{line[:-1]}{flip ^ int(line[-1])}\n" for line in path.read_text().splitlines()))
        read = read_crop_lists(root, lists, ["P"])
        run = PretrainingRun(toy_config(domains=("P",), data=read.fingerprint),
                             UnlabelledCrops(read.train, crop_specification(32)), tmp_path / f"run-{name}",
                             SingleProcess())
        run.train()
        backbones.append(run.write_backbone())
    assert (tmp_path / "as/lists/P-train.txt").read_text() != (tmp_path / "turned/lists/P-train.txt").read_text()
    assert backbones[0] == backbones[1]
    assert run.backbone().layout == "masked_autoencoding"


def test_a_killed_run_goes_on_bit_for_bit(finished, source, tmp_path):
    path = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-m", "tests.mmdg_model.training.pretraining.killed_run",
                                str(source.root), str(path), "5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, cwd=Path(__file__).parents[4])
    try:
        told = process.stdout.readline()
    finally:
        process.kill()
        process.communicate()
    assert told == "5\n"
    assert not (path / "done.json").exists()
    outcome = pretrain(toy_config(), source, path)
    assert outcome.backbone_sha256 == finished.backbone_sha256
    for name in ("metrics.jsonl", "report.json"):
        assert (path / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert len(json.loads((path / "environment.json").read_text())) == 2


def test_a_time_limit_stops_cleanly_and_the_same_call_goes_on(finished, source, tmp_path):
    ticks = iter(range(1000))
    first = pretrain(toy_config(), source, tmp_path / "run", max_seconds=8.0, monotonic=lambda: float(next(ticks)))
    assert not first.finished
    assert 0 < first.updates_done < 9
    assert not (tmp_path / "run" / "backbone.safetensors").exists()
    second = pretrain(toy_config(), source, tmp_path / "run")
    assert second.backbone_sha256 == finished.backbone_sha256


def test_lines_of_updates_made_again_are_taken_off(finished, source, tmp_path):
    """Killed after three lines, with the state of two."""
    run = PretrainingRun(toy_config(), toy_crops(source.root)[0], tmp_path / "run", SingleProcess())
    states = []
    run.train(stop=lambda: len(states) >= 3, on_update=lambda done, _: states.append(done),
              save_now=lambda: False)
    text = (tmp_path / "run/metrics.jsonl").read_text()
    again = PretrainingRun(toy_config(), run.crops, tmp_path / "run", SingleProcess())
    assert again.update == 3
    (tmp_path / "run/metrics.jsonl").write_text(text + text.splitlines(keepends=True)[0] + '{"half')
    again.train(stop=lambda: True)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in lines] == [0, 1, 2, 3]


def test_a_finished_run_is_not_made_again(finished, source):
    before = (finished.path / "backbone.safetensors").stat().st_mtime_ns
    again = pretrain(toy_config(), source, finished.path)
    assert again == finished
    assert (finished.path / "backbone.safetensors").stat().st_mtime_ns == before


def test_another_runs_directory_is_refused_with_the_difference(finished, source):
    with pytest.raises(PretrainingError, match=r"seed: 0 there, 1 here"):
        pretrain(toy_config(seed=1), source, finished.path)


def test_a_folder_of_something_else_is_refused(source, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(PretrainingError, match="not empty and no pretraining run"):
        pretrain(toy_config(), source, tmp_path)


@pytest.mark.parametrize("damage", [lambda blob: blob[:-9], lambda blob: b""])
def test_a_damaged_state_is_refused(source, tmp_path, damage):
    ticks = iter(range(1000))
    pretrain(toy_config(), source, tmp_path / "run", max_seconds=5.0, monotonic=lambda: float(next(ticks)))
    state = tmp_path / "run/resume/state.safetensors"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(PretrainingError, match=r"not a whole safetensors file.*remove it"):
        pretrain(toy_config(), source, tmp_path / "run")


def test_people_of_the_benchmark_are_refused_before_anything_is_written(source, tmp_path):
    benchmark = tmp_path / "benchmark"
    benchmark.mkdir()
    mark_simulated(benchmark, identities={"C": {"test": [3, 4]}})
    shared = PretrainingSource(root=source.root, lists=source.lists, disjoint_from=(benchmark,))
    with pytest.raises(PretrainingError, match="share 1 identities"):
        pretrain(toy_config(), shared, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_part_of_the_objective_is_learned(tmp_path):
    """Smooth made pictures can be continued: sixty updates take a fifth off every error, on those crops."""
    crops, _, _ = toy_crops(tmp_path / "tree", ["W"])
    rate = OptimiserConfig(name="adamw", learning_rate=3e-3, weight_decay=0.0, warmup_updates=5, final_rate_share=0.0)
    run = PretrainingRun(toy_config(epochs=60, optimiser=rate), crops, tmp_path / "run", SingleProcess())
    mean = mean_targets(run.network, crops)
    before = evaluate(run.network, crops, mean, seed=0)
    run.train()
    after = evaluate(run.network, crops, mean, seed=0)
    assert set(after["masked"]) == set(after["class_token"]) == {"rgb", "depth", "infrared"}
    assert sum(found["images"] for found in after["cross_modal"].values()) == 15
    for what in ("masked", "class_token", "cross_modal"):
        for name, found in after[what].items():
            assert found["mean_baseline"] == before[what][name]["mean_baseline"]
            assert found["error"] < 0.8 * before[what][name]["error"], (what, name)
            assert found["explained"] == pytest.approx(1.0 - found["error"] / found["mean_baseline"])


def test_the_mean_patch_itself_explains_nothing(tmp_path):
    """A network that says the mean everywhere is level with the baseline."""
    crops, _, _ = toy_crops(tmp_path / "tree", ["W"])
    run = PretrainingRun(toy_config(), crops, tmp_path / "run", SingleProcess())
    mean = mean_targets(run.network, crops)
    with torch.no_grad():
        run.network.to_patch_means.weight.zero_()
        run.network.to_patch_means.bias.copy_(mean.patch_means.flatten())
    found = evaluate(run.network, crops, mean, seed=0)
    assert [round(each["explained"], 6) for each in found["class_token"].values()] == [0.0] * 3


def test_bfloat16_is_close_to_full_precision(tmp_path):
    losses = {}
    crops = toy_crops(tmp_path / "tree")[0]
    for precision in ("32-true", "bf16-mixed"):
        PretrainingRun(toy_config(precision=precision), crops, tmp_path / precision,
                       launch(MachineConfig(root=tmp_path, lists=tmp_path, accelerator="cpu"), precision)).train()
        lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
        losses[precision] = [json.loads(line)["loss/total"] for line in lines]
    assert losses["32-true"] != losses["bf16-mixed"]
    assert losses["32-true"] == pytest.approx(losses["bf16-mixed"], rel=0.02)


def test_an_infinite_loss_is_told_with_its_update(source, tmp_path):
    run = PretrainingRun(toy_config(), toy_crops(source.root)[0], tmp_path / "run", SingleProcess())
    with torch.no_grad():
        run.network.to_patch.bias.fill_(1e30)
    with pytest.raises(TrainingDiverged, match=r"the loss of update 0 is (inf|nan)"):
        run.train()
    assert not run.files.state_file.exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"precision": "16-mixed"}, "precision is '16-mixed'"), ({"epochs": 0}, "epochs is 0"),
    ({"domains": ("X",)}, "domains are"), ({"domains": ("C", "C")}, "each once"), ({"domains": ()}, "domains are"),
    ({"optimiser": OptimiserConfig(name="sgd")}, "expected adamw"),
])
def test_impossible_settings_are_quoted(change, message):
    with pytest.raises(ValueError, match=message):
        toy_config(**change)


def test_the_configuration_survives_its_file():
    config = toy_config(disjoint_from=("ab",))
    assert type(config).from_json(config.to_json()) == config
    assert config.hash != toy_config().hash
    with pytest.raises(PretrainingError, match="pretraining configuration"):
        type(config).from_json("{}}")


def invoke(*arguments):
    return CliRunner().invoke(app, ["pretrain", *map(str, arguments)])


def test_the_command_stops_on_time_and_goes_on(source, tmp_path):
    out = tmp_path / "run"
    small = ("--epochs", 1, "--domain", "W", "--threads", 1, "--batch-size", 2)
    first = invoke(source.root, out, *small, "--max-minutes", 1e-6)
    assert first.exit_code == 3, first.output
    assert "1 of 3 updates; the same command goes on" in first.stdout
    second = invoke(source.root, out, *small, "--json")
    assert second.exit_code == 0, second.output
    told = json.loads(second.stdout)
    assert told["finished"]
    assert told["backbone_sha256"] == load_backbone(out / "backbone.safetensors").hash


def test_the_text_names_the_file_its_hash_and_each_share(finished):
    text = _described(finished)
    assert "SHA-256   " + finished.backbone_sha256 in text
    assert "crops     simulated" in text
    assert all(name in text for name in ("masked       rgb", "class_token  depth", "cross_modal  rgb_to_"))


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("--recipe", "huge"), 1, "no pretraining recipe 'huge'; there are micro, tiny, base"),
    (("--precision", "8"), 1, "precision is '8'"),
    (("--domain", "Q"), 1, "domains are"),
    (("--lists", "nowhere"), 1, "no list"),
    (("--disjoint-from", "nowhere"), 1, "nobody knows who"),
])
def test_the_command_says_what_is_wrong(source, tmp_path, arguments, code, message):
    answer = invoke(source.root, tmp_path / "run", *arguments)
    assert answer.exit_code == code
    assert message in answer.stderr
