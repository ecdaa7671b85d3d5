"""`mmdg train` as typed: configuration, exit codes, and what is said; the real method on a small tree."""

import json
import os
import signal

import pytest
from typer.testing import CliRunner

from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.training.metrics_log import read_lines
from mmdg_model.training.progress import ConsoleReporter
from mmdg_model.training.run_config import RunConfigError
from mmdg_model.training.run_directory import RunDirectory
from pipeline.commands import app, train
from tests.mmdg_model.training.trees import small_tree

RUN = """
protocol: CPS_W
recipe: {epochs: 2, batch_size: 5}
optimiser: {learning_rate: 3e-4}
model:
  preset: micro
  changes: {width: 48, heads: 3, depth: 2, image_size: 32, patch_size: 16, trainable_parts: everything}
"""


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    (root / "run.yaml").write_text(RUN)
    return root


def trained(tree, out, *options):
    return mmdg("train", "--config", tree / "run.yaml", "--data", tree, "--lists", tree / "lists", "--out", out,
                "--threads", 1, "--accelerator", "cpu", "--no-tensorboard", *options)


# Configuration


def test_the_file_then_set_then_options_of_their_own(tmp_path):
    (tmp_path / "run.yaml").write_text("method: vit_late\nseed: 3\nsettings: {a: 1}\nrecipe: {epochs: 9}\n")
    config = train.configured(tmp_path / "run.yaml",
                              ["seed=4", "recipe.batch_size=16", "settings.b=two", "optimiser.learning_rate=3e-4",
                               "model.changes.trainable_parts=everything"], {"seed": 5}, "tiny")
    assert (config.method, config.seed, config.recipe.epochs, config.recipe.batch_size) == ("vit_late", 5, 9, 16)
    assert dict(config.settings) == {"a": 1, "b": "two"}
    assert config.optimiser.learning_rate == 3e-4
    assert (config.model.preset, dict(config.model.changes)) == ("tiny", {"trainable_parts": "everything"})


def test_nothing_named_is_the_papers_run():
    config = train.configured(None, [], {}, None)
    assert (config.method, config.protocol, config.recipe.epochs, config.optimiser.learning_rate) == (
        "mmdg", "CPS_W", 70, 5e-5)


@pytest.mark.parametrize(("changes", "message"), [
    (["recipe.epoch=3"], "recipe.epoch is an unknown key"), (["epochs"], "expected KEY=VALUE"),
    (["recipe.epochs=three"], "epochs"), (["seed.a=1"], "seed"), (["seed=[1"], "no YAML"),
    (["recipe.epochs=0"], "epochs is 0, expected at least 1"), (["recipe=1", "recipe.epochs=1"], "not a mapping")])
def test_what_cannot_be_set_is_named(changes, message):
    with pytest.raises(RunConfigError, match=message):
        train.configured(None, changes, {}, None)


@pytest.mark.parametrize(("text", "message"), [("[1, 2]", "expected a mapping"), ("{", "no readable YAML")])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(RunConfigError, match=message):
        train.configured(tmp_path / "run.yaml", [], {}, None)


# Wrong usage


def test_help_shows_an_example_and_the_exit_codes():
    answer = mmdg("train", "--help")
    assert answer.exit_code == 0
    assert "mmdg train --method mmdg --protocol CPS_W" in answer.stdout
    assert "130 stopped by Ctrl-C" in " ".join(answer.stdout.split())


@pytest.mark.parametrize(("options", "message"), [
    ([], "--data"), (["--data", "nowhere", "--lists", "nowhere", "--out", "x"], "nowhere is no folder"),
    (["--data", ".", "--lists", ".", "--out", "x", "--protocol", "XY_Z"], "no protocol 'XY_Z'"),
    (["--data", ".", "--lists", ".", "--out", "x", "--precision", "8"], "precision is"),
    (["--data", ".", "--lists", ".", "--out", "x", "--preset", "huge"], "huge"),
    (["--data", ".", "--lists", ".", "--out", "x", "--accelerator", "tpu"], "accelerator is 'tpu'")])
def test_wrong_usage_is_2(options, message):
    answer = mmdg("train", *options)
    assert answer.exit_code == 2
    assert message in " ".join(answer.stderr.replace("│", " ").split())


# Runs


def test_a_run_its_second_start_and_its_export(tree, tmp_path):
    out = tmp_path / "run"
    answer = trained(tree, out, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout) | {"seconds": 0} == {"run": str(out), "outcome": "finished", "updates": 6,
                                                          "epochs": 2, "epochs_kept": [0, 1], "seconds": 0}
    assert "mmdg on CPS_W, seed 0" in answer.stderr
    assert "random weights, no backbone" in answer.stderr
    assert "3 updates an epoch" in answer.stderr
    update = next(line for line in read_lines(out / "metrics.jsonl") if line["kind"] == "update")
    assert {"loss/total", "ssp/rgb", "ssp/depth", "ssp/infrared", "ssp/variance"} < update.keys()

    again = trained(tree, out)
    assert again.exit_code == 0
    assert "already finished" in again.stdout

    other = trained(tree, out, "--seed", 1)
    assert other.exit_code == 1
    assert "seed: 0 there, 1 here" in other.stderr

    exported = mmdg("train", "export", out, "--out", tmp_path / "live.safetensors", "--json")
    assert exported.exit_code == 0, exported.stderr
    assert json.loads(exported.stdout)["epoch"] == 1
    assert load_checkpoint(tmp_path / "live.safetensors").hash == json.loads(exported.stdout)["sha256"]
    assert mmdg("train", "export", out, "--epoch", 7, "--out", tmp_path / "no").exit_code == 1


@pytest.mark.parametrize(("number", "workers", "times"), [(signal.SIGINT, 0, 1), (signal.SIGTERM, 0, 1),
                                                          (signal.SIGINT, 2, 1), (signal.SIGINT, 0, 2)])
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_bytes(tree, tmp_path, monkeypatch, number, workers, times):
    told = ConsoleReporter.updated

    def signalled(reporter, report):
        if report.updates <= times:
            os.kill(os.getpid(), number)
        told(reporter, report)

    monkeypatch.setattr(ConsoleReporter, "updated", signalled)
    before = signal.getsignal(number)
    answer = trained(tree, tmp_path / "halves", "--workers", workers)
    assert answer.exit_code == train.INTERRUPTED_EXIT_CODE, answer.stderr
    # The second signal ends it at once, unsaved.
    assert ("stopped and saved after update 2; the same command goes on" in answer.stderr) is (times == 1)
    assert signal.getsignal(number) is before
    monkeypatch.setattr(ConsoleReporter, "updated", told)
    assert trained(tree, tmp_path / "halves", "--workers", workers).exit_code == 0
    assert trained(tree, tmp_path / "whole").exit_code == 0
    for name in ("metrics.jsonl", "epochs/0001.safetensors"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_in_pieces_of_time_ends_well_each_time_and_comes_to_the_same_bytes(tree, tmp_path, monkeypatch):
    pieces = tmp_path / "pieces"
    for _ in range(8):  # a piece of no time at all still does an update, or ends with an epoch's bookkeeping
        answer = trained(tree, pieces, "--time-limit", "0s", "--save-every-s", 0)
        assert answer.exit_code == 0, answer.stderr
        if (pieces / "done.json").is_file():
            break
        assert "saved at the time limit of 0s; run the same command again to go on" in answer.stderr
        assert "interrupted" in answer.stdout
    else:
        assert trained(tree, pieces).exit_code == 0
    assert trained(tree, tmp_path / "whole", "--time-limit", "1h").exit_code == 0
    for name in ("metrics.jsonl", "epochs/0001.safetensors"):
        assert (pieces / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_recipe_that_comes_with_the_program_is_a_configuration_and_excludes_a_file(tree):
    config = train.configured(None, ["recipe.epochs=1"], {"seed": 7}, None, "default_weights")
    assert (config.method, config.model.preset, config.recipe.epochs, config.seed) == ("u_adapter", "micro", 1, 7)
    assert config.optimiser.learning_rate == 5e-4
    with pytest.raises(RunConfigError, match="name one of them"):
        train.configured(tree / "run.yaml", [], {}, None, "default_weights")


@pytest.mark.parametrize(("options", "message"), [
    (["--time-limit", "soon"], "'soon', expected a number with s, m or h"),
    (["--recipe", "other"], "no recipe 'other' comes with the program"),
])
def test_a_wrong_limit_or_recipe_is_2(tree, tmp_path, options, message):
    answer = mmdg("train", "--data", tree, "--lists", tree / "lists", "--out", tmp_path / "run", *options)
    assert answer.exit_code == 2
    assert message in " ".join(answer.stderr.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("options", "message"), [
    (["--method", "magic"], "no method 'magic'; there are mmdg"),
    (["--set", "settings.magic=1"], "settings.magic is unknown"),
    (["--set", "model.changes.trainable_parts=release"], "backbone"),
    (["--backbone", "none.safetensors"], "none.safetensors"),
    (["--set", "backbone=abc"], "no file was given; name it with --backbone"),
    (["--set", "data=abc"], "abc")])
def test_a_run_that_cannot_be_is_1_with_the_reason(tree, tmp_path, options, message):
    answer = trained(tree, tmp_path / "run", *options)
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert answer.stdout == ""


def test_exports_of_what_is_no_run_are_refused(tmp_path):
    answer = mmdg("train", "export", tmp_path, "--out", tmp_path / "no")
    assert answer.exit_code == 1
    assert "keeps no epoch" in answer.stderr
    assert not RunDirectory(tmp_path).epochs()
