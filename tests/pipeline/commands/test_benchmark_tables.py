"""`mmdg benchmark --table`, `mmdg report` and `mmdg search` as typed, on a small tree: from lists to pages."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from mmdg_model.training.method_costs import read_costs
from mmdg_model.training.retest import same_checkpoint
from mmdg_model.training.run_directory import RunDirectory
from pipeline.commands import app
from tests.mmdg_model.training.trees import small_tree

SCALE = """
model:
  preset: micro
  changes: {width: 24, heads: 3, depth: 1, image_size: 32, patch_size: 16, trainable_parts: everything}
recipe: {epochs: 1, batch_size: 8, max_updates: 2}
resamples: 20
"""
SPACE = """
method: vit_late
protocols: [CPS_W]
run:
  model:
    preset: micro
    changes: {width: 24, heads: 3, depth: 1, image_size: 32, patch_size: 16, trainable_parts: everything}
  recipe: {epochs: 1, batch_size: 8, max_updates: 2}
space: {optimiser.learning_rate: [1.0e-4, 1.0e-2]}
"""


def mmdg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("tables")
    (base / "data").mkdir()
    small_tree(base / "data")
    (base / "data" / "simulated.json").unlink(missing_ok=True)
    (base / "scale.yaml").write_text(SCALE)
    return base


def table(base, name, *more, methods="vit_late,mmdg"):
    return mmdg("benchmark", "--data", base / "data", "--table", name, "--scale", base / "scale.yaml", "--protocols",
                "CPS_W", "--methods", methods, "--out", base / "runs", "--jobs", 2, *more)


@pytest.fixture(scope="module")
def done(base):
    answer = table(base, "1", methods="vit_late,mmdg")
    assert answer.exit_code == 0, answer.output + "".join(log.read_text() for log in base.glob("runs/*/job.log"))
    return answer


def test_table_1_says_what_it_will_cost_before_it_starts(base, done):
    lines = done.stderr.splitlines()
    assert lines[0] == "Table 1, Protocol 1: three data sets train, the fourth is the target"
    assert any(line.startswith("a training step, measured just now") and "vit_late" in line and "mmdg" in line
               for line in lines)
    cost = next(index for index, line in enumerate(lines) if line.startswith("2 jobs"))
    assert "2 by timed training steps, 0 by arithmetic" in lines[cost]
    assert cost < next(index for index, line in enumerate(lines) if line.endswith(": running"))
    assert len(list((base / "runs").iterdir())) == 2


def test_table_2_tests_the_same_checkpoints_again_and_trains_nothing(base, done):
    run = next((base / "runs").glob("vit_late-*"))
    before = {path: path.read_bytes() for path in [*run.glob("epochs/*"), run / "done.json", run / "metrics.jsonl"]}
    values = json.loads((run / "evaluation.json").read_text())
    lacking = values | {"levels": {"complete": values["levels"]["complete"]}}
    (run / "evaluation.json").write_text(json.dumps(lacking))  # as mmdg evaluate --complete-only leaves it
    answer = table(base, "2")
    assert answer.exit_code == 0, answer.output
    short = same_checkpoint(RunDirectory(run))[:12]
    assert f"{run.name}: done (checkpoint {short} in all four scenarios)" in answer.stdout
    assert "already done (checkpoint" in answer.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert set(json.loads((run / "evaluation.json").read_text())["levels"]) == set(values["levels"])


def test_table_2_without_a_checkpoint_is_refused_and_says_which_are_missing(base, done):
    answer = table(base, "2", "--seeds", "1")
    assert answer.exit_code == 1
    assert "not trained; mmdg benchmark --table 1 trains it" in answer.stderr
    assert "no checkpoint of Table 1 is there" in answer.stderr
    assert not list((base / "runs").glob("*-s1-*"))


def test_a_file_of_timings_stands_for_the_measurement(base, done, tmp_path):
    (tmp_path / "costs.csv").write_text(
        "method,preset,image_size,batch,parameters,trainable,forward_gflop,forward_ms,step_ms,peak_mib,device,threads,"
        "processor,date\nmmdg,micro,32,6,1,1,1,1,360000,,cpu,1,some,2026-01-01\n")
    answer = table(base, "1", "--dry-run", "--seeds", "1", "--timings", tmp_path / "costs.csv", methods="mmdg")
    assert answer.exit_code == 0, answer.output
    assert f"times of a training step: {tmp_path / 'costs.csv'}" in answer.stderr
    assert "measured just now" not in answer.stderr
    assert "about 1.6 h of this machine" in answer.stderr  # 2 updates of 8 samples of 360 s


def test_the_report_has_a_page_for_each_item_and_can_be_made_again_from_what_is_kept(base, done, tmp_path):
    answer = mmdg("report", base / "runs", "--out", tmp_path / "report", "--keep", tmp_path / "kept", "--pictures")
    assert answer.exit_code == 0, answer.output
    pages = {path.stem for path in (tmp_path / "report" / "pages").glob("*.html")}
    assert pages == {"table-1", "fig-6", "fig-7", "not-run"}
    assert {path.stem for path in (tmp_path / "report" / "figures").glob("fig-7-*.png")} == {
        "fig-7-bona-fide", "fig-7-attack"}
    again = mmdg("report", tmp_path / "kept", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    for name in ("table-1", "not-run"):
        text = (tmp_path / "report" / "pages" / f"{name}.md").read_text()
        assert (tmp_path / "again" / "pages" / f"{name}.md").read_text() == text
    assert "Pictures were not asked for" in (tmp_path / "again" / "pages" / "fig-7.md").read_text()
    assert sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*") if path.is_file()) < 400_000
    assert not list((tmp_path / "kept").rglob("*.safetensors"))


@pytest.mark.parametrize(("options", "code", "message"), [
    (["--table", "1", "--recipe", "reproduce_small"], 2, "a table names its grid itself"),
    (["--table", "1", "--protocol", "1"], 2, "a table names its grid itself"),
    (["--scale", "micro", "--methods", "mmdg"], 2, "goes with --table"),
    (["--table", "9"], 1, "no table '9'"),
    (["--table", "1", "--timings", "/nowhere.csv", "--scale", "micro"], 1, "/nowhere.csv cannot be read"),
])
def test_what_cannot_be_is_refused(base, options, code, message):
    answer = mmdg("benchmark", "--data", base / "data", "--out", base / "refused", *options)
    assert answer.exit_code == code, answer.output
    assert message in " ".join(answer.output.replace("│", " ").split())
    assert not (base / "refused").exists()


def test_a_search_needs_no_target_and_its_winner_trains_a_table(base, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(base / "data", data)
    shutil.rmtree(data / "WMCA-Image")  # the target, lists and all
    for path in (data / "lists").glob("W-*"):
        path.unlink()
    (tmp_path / "space.yaml").write_text(SPACE)
    answer = mmdg("search", tmp_path / "space.yaml", "--data", data, "--out", tmp_path / "search", "--threads", 1,
                  "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert [trial["values"] for trial in found["trials"]] == [{"optimiser.learning_rate": 1e-4},
                                                              {"optimiser.learning_rate": 1e-2}]
    rate = found["trials"][found["best"] - 1]["values"]["optimiser.learning_rate"]
    plan = table(base, "1", "--dry-run", "--no-calibrate", "--method-recipes", tmp_path / "search", methods="vit_late")
    other = table(base, "1", "--dry-run", "--no-calibrate", methods="vit_late")
    assert plan.exit_code == other.exit_code == 0, plan.output
    assert plan.stdout != other.stdout
    assert f"learning_rate: {rate}" in (tmp_path / "search" / "vit_late.yaml").read_text()
    again = mmdg("search", tmp_path / "space.yaml", "--data", data, "--out", tmp_path / "search", "--threads", 1)
    assert again.exit_code == 0, again.output
    assert "trial 1:" not in again.stderr  # nothing is trained twice
    assert again.stdout.startswith("* ")


def test_the_cost_script_measures_and_writes(tmp_path):
    import runpy
    import sys
    from pathlib import Path
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "method_costs.py"
    before = sys.argv
    sys.argv = [str(script), "--quick", "--methods", "vit_early", "--out", str(tmp_path)]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before
    assert ended.value.code == 0
    (cost,) = read_costs(tmp_path / "method_costs.csv")
    assert (cost.method, cost.threads) == ("vit_early", 1)
    assert cost.peak_mib > 4 * (cost.parameters + 3 * cost.trainable) / 2**20  # weights, gradients, Adam's two moments
    assert "What each method costs" in (tmp_path / "method_costs.md").read_text()
