"""`mmdg benchmark`, `mmdg evaluate` and `mmdg report` as typed: one real job on a small tree, from lists to report."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from mmdg_model.training.protocols import Scenario
from pipeline.commands import app
from tests.mmdg_model.training.trees import small_tree

GRID = """
methods: [vit_late]
protocols: [CPS_W]
seeds: [0]
resamples: 20
run:
  model:
    preset: micro
    changes: {width: 24, heads: 3, depth: 1, image_size: 32, patch_size: 16, trainable_parts: everything}
  recipe: {epochs: 2, batch_size: 8}
"""


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("benchmark")
    (base / "data").mkdir()
    small_tree(base / "data")
    (base / "grid.yaml").write_text(GRID)
    return base


def benchmark(base, *more):
    return mmdg("benchmark", "--data", base / "data", "--config", base / "grid.yaml", "--out", base / "runs", *more)


@pytest.fixture(scope="module")
def done(base):
    answer = benchmark(base, "--json")
    assert answer.exit_code == 0, answer.output + "".join(log.read_text() for log in base.glob("runs/*/job.log"))
    (name,) = json.loads(answer.stdout)["jobs"]
    return base / "runs" / name


@pytest.fixture
def run(done, tmp_path):
    return shutil.copytree(done, tmp_path / done.name)


# ---- benchmark ----

def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(base):
    answer = mmdg("benchmark", "--data", base / "data", "--config", base / "grid.yaml", "--out", base / "elsewhere",
                  "--seeds", "0-2,5", "--methods", "vit_late,mmdg", "--dry-run")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert len(lines) == 8
    assert all(line.endswith(": new, 4 updates") for line in lines)
    assert "8 jobs: 8 new; training left: roughly" in answer.stderr
    assert not (base / "elsewhere").exists()


def test_a_job_from_lists_to_figures_and_a_second_start_does_nothing(base, done):
    assert (done / "evaluation.json").is_file()
    before = (done / "evaluation.json").stat().st_mtime_ns
    answer = benchmark(base)
    assert answer.exit_code == 0
    assert answer.stdout == f"{done.name}: already done\n"
    assert (done / "evaluation.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(("options", "code", "message"), [
    (["--methods", "mmdg", "--recipe", "nothing"], 1, "no recipe 'nothing'"),
    ([], 1, "no methods"),
    (["--methods", "mmdg", "--protocols", "AB_C"], 1, "no protocol 'AB_C'"),
    (["--methods", "mmdg", "--protocol", "4"], 1, "protocol 4"),
    (["--methods", "mmdg", "--protocols", "CPS_W", "--protocol", "1"], 2, "either --protocols or --protocol"),
    (["--methods", "mmdg", "--seeds", "0..3"], 2, "0-4 or 0,2,7"),
    (["--methods", "mmdg", "--time-limit", "20"], 2, "expected a number with s, m or h"),
    (["--methods", "mmdg", "--shard", "3/2"], 1, "expected i/n"),
])
def test_what_cannot_be_is_refused(base, options, code, message):
    answer = mmdg("benchmark", "--data", base / "data", "--out", base / "refused", *options)
    assert answer.exit_code == code
    assert message in " ".join(answer.output.replace("│", " ").split())  # the usage box breaks lines
    assert not (base / "refused").exists()


# ---- evaluate ----

def test_figures_anew_from_scores_alone(run):
    (run / "evaluation.json").unlink()
    shutil.rmtree(run / "epochs")
    answer = mmdg("evaluate", run, "--from-scores", "--resamples", 20)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.count("oracle, best epoch | oracle, last epoch | honest") == 2
    assert "Permutation test at the honest epoch" in answer.stdout
    assert (run / "evaluation.json").is_file()


def test_only_what_is_missing_is_scored_where_the_data_lay_at_training(run):
    table = run / "scores" / "target_test" / f"0001-{Scenario.MISSING_DEPTH}.parquet"
    before = table.read_bytes()
    table.unlink()
    answer = mmdg("evaluate", run, "--resamples", 20, "--json")
    assert answer.exit_code == 0, answer.output
    assert "1 score tables made" in answer.stderr
    assert table.read_bytes() == before  # a job's process and this one give the same bytes
    assert set(json.loads(answer.stdout)["levels"]) == set(Scenario)


def test_other_data_are_refused(run, base, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(base / "data", other)
    path = other / "lists" / "C-train.txt"
    path.write_bytes(path.read_bytes().rsplit(b"\r\n", 1)[0])
    answer = mmdg("evaluate", run, "--data", other, "--lists", other / "lists", "--again")
    assert answer.exit_code == 1
    assert "use the data that the run was begun with" in answer.stderr


@pytest.mark.parametrize(("options", "message"), [
    (["--scenario", "complete"], "expected one of missing_depth"),
    (["--scenario", "missing_depth", "--complete-only"], "contradicts --scenario"),
])
def test_evaluate_refuses_contradictions(run, options, message):
    answer = mmdg("evaluate", run, *options)
    assert answer.exit_code == 2
    assert message in " ".join(answer.output.replace("│", " ").split())


def test_a_folder_that_is_no_run_is_said(tmp_path):
    answer = mmdg("evaluate", tmp_path, "--from-scores")
    assert answer.exit_code == 1
    assert "run.json is missing" in answer.stderr


# ---- report ----

def test_a_report_of_a_benchmarks_folder(base, done, tmp_path):
    answer = mmdg("report", base / "runs", "--out", tmp_path / "report", "--json")
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert (said["runs"], said["unfinished"], said["simulated"]) == (1, 0, False)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "pipeline check, not a result" in page  # two live and three attack videos prove nothing
    assert "Table 1 of arXiv 2402.19298 v2" in page


def test_nothing_to_report_is_said(tmp_path):
    answer = mmdg("report", tmp_path, "--out", tmp_path / "report")
    assert answer.exit_code == 1
    assert "no evaluated run" in answer.stderr
