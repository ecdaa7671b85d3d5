"""`mmdg data verify` as typed: the report on standard output, complaints on standard error, and the exit code."""

import json

import pytest
from typer.testing import CliRunner

from mmdg_model.training.manifests import COUNTS
from pipeline.commands import app
from tests.mmdg_model.training.trees import small_tree, write_full_lists


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def full_lists(tmp_path_factory):
    return write_full_lists(tmp_path_factory.mktemp("lists"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    for name in ("ir", "color"):
        next(root.glob(f"WMCA-Image/R_CDIT/*/{name}/*.jpg")).unlink()
    return root


def test_lists_as_published(full_lists):
    answer = mmdg("data", "verify", full_lists, "--lists", full_lists, "--no-files")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert "C-test: 6739 lines, 1200 live, 5539 spoof, 4 duplicates; as published" in answer.stdout
    assert "C-val and C-test share 1 samples (as published)" in answer.stdout
    assert answer.stdout.endswith("all as it should be; no file was looked at\n")


def test_a_tree_with_missing_files(tree):
    answer = mmdg("data", "verify", tree, "--lists", tree / "lists", "--domain", "W", "--domain", "P")
    assert answer.exit_code == 1
    assert "NOT as published: 1695 lines" in answer.stdout
    assert "CASIA" not in answer.stdout
    missing = [line for line in answer.stdout.splitlines() if "No such file" in line]
    assert len(missing) == 2
    assert all(str(tree / "WMCA-Image") in line for line in missing)
    assert answer.stdout.endswith("not all as it should be; 60 files named\n")


def test_json(tree):
    answer = mmdg("data", "verify", tree, "--lists", tree / "lists", "--json")
    report = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert report["passed"] is False
    assert [each["list_name"] for each in report["lists"]] == [f"{domain}-{split}" for domain, split in COUNTS]
    troubles = [trouble for each in report["lists"] for trouble in each["troubles"]]
    assert {(trouble["modality"], trouble["kind"]) for trouble in troubles} == {("infrared", "missing"),
                                                                             ("rgb", "missing")}


@pytest.mark.parametrize(("options", "exit_code", "complaint"), [
    (("--domain", "X"), 2, "'X', expected one of S, C, W, P"),
    (("--lists", "nowhere"), 2, "nowhere is no folder"),
    (("--metadata", "nowhere.csv"), 1, "metadata nowhere.csv cannot be read"),
])
def test_refusals(full_lists, options, exit_code, complaint):
    answer = mmdg("data", "verify", full_lists, "--lists", full_lists, "--no-files", *options)
    assert answer.exit_code == exit_code
    assert complaint in " ".join(answer.stderr.replace("│", " ").split())
    assert answer.stdout == ""


def test_a_list_that_is_not_there_is_reported(full_lists, tmp_path):
    answer = mmdg("data", "verify", full_lists, "--lists", tmp_path, "--domain", "S")
    assert answer.exit_code == 1
    assert answer.stdout.count("no list") == 3
