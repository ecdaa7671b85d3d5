import json
import shutil

import pytest

from mmdg_model.training.run_config import MachineConfig, RecipeConfig, RunConfig
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import evaluate_scores, read_evaluation, score_run, write_evaluation
from pipeline.simulator_audit.findings import Findings
from pipeline.simulator_audit.frames import AuditError
from pipeline.simulator_audit.trained import check_runs
from tests.mmdg_model.training.toy_benchmark import ToyAssembly


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Toy runs on toy data, told as another method's and as a plain network's."""
    base = tmp_path_factory.mktemp("runs")
    root = base / "data"
    root.mkdir()
    (root / "toy.json").write_text(json.dumps({}))
    machine, assembly = MachineConfig(root=root, lists=root), ToyAssembly()
    for method in ("mmdg", "vit_late"):
        directory = RunDirectory(base / "all" / method)
        directory.path.mkdir(parents=True)
        config = RunConfig(method=method, protocol="CPS_W", recipe=RecipeConfig(epochs=1))
        assembly.train(directory, assembly.survey(config, machine).config, machine)
        opened = assembly.open(directory, machine)
        score_run(directory, opened.data, opened.method, score_split=opened.score_split, compute=opened.compute)
        write_evaluation(directory, evaluate_scores(directory, resamples=20, chance_repeats=2))
    return base / "all"


def test_the_plain_networks_honest_hter_by_video_is_judged(evaluated):
    findings = Findings()
    check_runs(evaluated, findings)
    (line,) = findings.lines
    from calibration.error_rates import Unit
    from mmdg_model.training.evaluation import Column
    from mmdg_model.training.protocols import Scenario

    expected = read_evaluation(RunDirectory(evaluated / "vit_late")).levels[Scenario.COMPLETE][Unit.VIDEO].columns[
        Column.HONEST].hter
    assert line.scope == "protocol CPS_W"
    assert line.value == pytest.approx(expected)
    assert (line.status == "passed") == (0.15 <= expected <= 0.40)


def test_runs_of_other_methods_only_are_none(evaluated, tmp_path):
    shutil.copytree(evaluated / "mmdg", tmp_path / "mmdg")
    with pytest.raises(AuditError, match="no evaluated run of vit_late"):
        check_runs(tmp_path, Findings())


def test_a_damaged_evaluation_is_said(evaluated, tmp_path):
    shutil.copytree(evaluated / "vit_late", tmp_path / "vit_late")
    (tmp_path / "vit_late" / "evaluation.json").write_text("{}")
    with pytest.raises(AuditError, match=r"evaluation\.json"):
        check_runs(tmp_path, Findings())
