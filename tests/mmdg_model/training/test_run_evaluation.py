"""Evaluation of a run on disk: scored once per checkpoint, figures from scores alone, nothing of the target leaks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column, EvaluationError, decisions
from mmdg_model.training.protocols import PROTOCOL_2, Scenario
from mmdg_model.training.run_config import MachineConfig, RecipeConfig, RunConfig
from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
from mmdg_model.training.run_evaluation import (
    evaluate_scores,
    read_evaluation,
    read_tables,
    scenarios_of,
    score_run,
    write_evaluation,
)
from mmdg_model.training.scores import Split
from tests.mmdg_model.training.toy_benchmark import ToyAssembly, ToyData, ToyMethod, toy_score_split

QUICK = {"resamples": 30, "chance_repeats": 3}
EPOCHS = 3


def trained(path, root, protocol="CPS_W", **knobs):
    root.mkdir(parents=True, exist_ok=True)
    (root / "toy.json").write_text(json.dumps(knobs))
    machine = MachineConfig(root=root, lists=root)
    config = RunConfig(protocol=protocol, recipe=RecipeConfig(epochs=EPOCHS))
    directory = RunDirectory(path)
    path.mkdir()
    ToyAssembly().train(directory, ToyAssembly().survey(config, machine).config, machine)
    return directory, machine


def scored(directory, machine, **options):
    opened = ToyAssembly().open(directory, machine)
    return score_run(directory, opened.data, opened.method, score_split=opened.score_split, compute=opened.compute,
                     **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("run")
    directory, machine = trained(base / "run", base / "data")
    assert scored(directory, machine) == EPOCHS * 5
    return directory, machine


@pytest.fixture
def copy(run, tmp_path):
    import shutil
    shutil.copytree(run[0].path, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy"), run[1]


# ---- scoring ----

def test_protocol_1_is_scored_with_all_of_protocol_2_and_protocol_3_is_not():
    assert scenarios_of(RunConfig(protocol="PSW_C")) == (Scenario.COMPLETE, *PROTOCOL_2)
    assert scenarios_of(RunConfig(protocol="CW_PS")) == (Scenario.COMPLETE,)


def test_every_table_is_of_its_epochs_checkpoint(run):
    hashes = {epoch: run[0].load_epoch(epoch)[1] for epoch in run[0].epochs()}
    assert len(set(hashes.values())) == EPOCHS
    for split, scenario in ((Split.SOURCE_VALIDATION, Scenario.COMPLETE), *((Split.TARGET_TEST, s) for s in Scenario)):
        tables = read_tables(run[0], split, scenario)
        assert {epoch: table.context.model_hash for epoch, table in tables.items()} == hashes


def test_scenarios_withhold_what_they_say(run):
    subsets = {scenario: read_tables(run[0], Split.TARGET_TEST, scenario)[0].subset() for scenario in Scenario}
    assert subsets == {Scenario.COMPLETE: "rgb+depth+infrared", Scenario.MISSING_DEPTH: "rgb+infrared",
                       Scenario.MISSING_INFRARED: "rgb+depth", Scenario.MISSING_DEPTH_AND_INFRARED: "rgb"}


def test_what_is_on_disk_of_the_same_checkpoint_is_not_scored_again(copy):
    directory, machine = copy
    assert scored(directory, machine) == 0
    assert scored(directory, machine, again=True, scenarios=[]) == EPOCHS * 2


def test_a_missing_damaged_or_foreign_table_is_scored_again_and_only_that(copy):
    directory, machine = copy
    before = read_tables(directory, Split.TARGET_TEST)
    directory.scores_file(Split.TARGET_TEST, 0).unlink()
    directory.scores_file(Split.TARGET_TEST, 1).write_bytes(b"PAR1 half a file")
    directory.scores_file(Split.TARGET_TEST, 2).write_bytes(
        directory.scores_file(Split.SOURCE_VALIDATION, 2).read_bytes())
    assert scored(directory, machine) == 3
    after = read_tables(directory, Split.TARGET_TEST)
    assert all(np.array_equal(before[epoch].logit, after[epoch].logit) for epoch in before)


def test_a_scoring_cut_off_goes_on_where_it_was(tmp_path):
    directory, machine = trained(tmp_path / "run", tmp_path / "data", protocol="CW_PS")
    opened, left = ToyAssembly().open(directory, machine), [2]

    def cut_off(*arguments, **options):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return toy_score_split(*arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        score_run(directory, opened.data, opened.method, score_split=cut_off, compute=opened.compute)
    seen = []
    assert scored(directory, machine, on_progress=seen.append) == EPOCHS * 2 - 2
    assert (seen[-1].done, seen[-1].total, seen[-1].kept) == (EPOCHS * 2, EPOCHS * 2, 2)


def test_other_data_than_trained_on_are_refused(copy):
    directory, machine = copy
    opened = ToyAssembly().open(directory, machine)
    opened.data.fingerprint = "another"
    with pytest.raises(RunDirectoryError, match="trained on data of fingerprint"):
        score_run(directory, opened.data, opened.method, score_split=toy_score_split, compute=opened.compute)


def test_a_run_without_kept_epochs_says_so(tmp_path):
    config = RunConfig()
    (tmp_path / "run.json").write_text(config.to_json())
    with pytest.raises(RunDirectoryError, match="no kept epoch; train it first"):
        score_run(RunDirectory(tmp_path), ToyData(config, tmp_path), ToyMethod(0), score_split=toy_score_split,
                  compute=None)


# ---- figures ----

def test_figures_come_from_scores_alone_and_survive_their_file(copy):
    directory, _ = copy
    for path in (directory.path / "epochs").iterdir():
        path.unlink()
    evaluation = evaluate_scores(directory, **QUICK)
    write_evaluation(directory, evaluation)
    assert read_evaluation(directory) == evaluation
    assert set(evaluation.levels) == set(Scenario)
    assert {unit for levels in evaluation.levels.values() for unit in levels} == {Unit.FRAME, Unit.VIDEO}
    assert evaluation.simulated
    assert evaluation.significance.above_chance
    text = (directory.path / "evaluation.md").read_text()
    assert text.count("oracle, best epoch | oracle, last epoch | honest") == 8
    assert "simulated data" in text
    assert "random initial weights, all trained" in text


def test_protocol_2_keeps_each_columns_checkpoint(run):
    evaluation = evaluate_scores(run[0], **QUICK)
    for unit in (Unit.FRAME, Unit.VIDEO):
        for column in Column:
            assert len({evaluation.levels[scenario][unit].columns[column].model_hash for scenario in Scenario}) == 1


def test_an_infinite_threshold_survives_the_file(copy):
    directory, _ = copy
    for split, scenario in ((Split.SOURCE_VALIDATION, Scenario.COMPLETE), *((Split.TARGET_TEST, s) for s in Scenario)):
        for epoch, table in read_tables(directory, split, scenario).items():
            from mmdg_model.training.scores import write_scores
            write_scores(directory.scores_file(split, epoch, scenario),
                         dataclasses.replace(table, logit=np.zeros(len(table))))
    evaluation = evaluate_scores(directory, **QUICK)
    write_evaluation(directory, evaluation)
    assert read_evaluation(directory) == evaluation
    assert evaluation.choice(Column.HONEST, Unit.FRAME).threshold == float("inf")
    assert not evaluation.significance.above_chance
    assert "pipeline check, not a result" in evaluation.to_markdown()


def test_epochs_scored_on_source_validation_alone_are_left_out(copy):
    directory, _ = copy
    for scenario in Scenario:
        directory.scores_file(Split.TARGET_TEST, 2, scenario).unlink()
    assert evaluate_scores(directory, **QUICK).epochs == (0, 1)


def test_scenarios_not_scored_are_left_out_unless_asked_for(copy):
    directory, _ = copy
    directory.scores_file(Split.TARGET_TEST, 1, Scenario.MISSING_DEPTH).unlink()
    assert Scenario.MISSING_DEPTH not in evaluate_scores(directory, **QUICK).levels
    with pytest.raises(EvaluationError, match="missing_depth was scored at 2 epochs, the complete test at 3"):
        evaluate_scores(directory, scenarios=[Scenario.MISSING_DEPTH], **QUICK)
    assert set(evaluate_scores(directory, scenarios=[], **QUICK).levels) == {Scenario.COMPLETE}


def test_scores_of_another_run_are_refused(copy):
    directory, _ = copy
    config = dataclasses.replace(directory.config(), seed=7)
    directory.config_file.write_text(config.to_json())
    with pytest.raises(EvaluationError, match=r"are of seed 0, the run is of 7.*another run's"):
        evaluate_scores(directory, **QUICK)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda values: values | {"format_version": 99}, "of version 99"),
    (lambda values: values | {"config_hash": "0" * 12}, "is of run 000000000000"),
    (lambda values: values | {"levels": {"complete": {}, "sideways": {}}}, "sideways"),
    (lambda values: [], "of version None"),
])
def test_a_damaged_or_foreign_evaluation_is_refused(copy, damage, message):
    directory, _ = copy
    write_evaluation(directory, evaluate_scores(directory, scenarios=[], **QUICK))
    path = directory.path / "evaluation.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(RunDirectoryError, match=message):
        read_evaluation(directory)


def test_no_scores_is_said(tmp_path):
    (tmp_path / "run.json").write_text(RunConfig().to_json())
    with pytest.raises(EvaluationError, match="score the run first"):
        evaluate_scores(RunDirectory(tmp_path))


# ---- leakage, end to end: training, scoring, evaluation ----

def test_nothing_of_the_target_reaches_weights_epoch_threshold_or_honest_decisions(run, tmp_path):
    """The target's labels permuted and its pixels replaced by noise, before anything runs."""
    clean = run[0]
    poisoned, machine = trained(tmp_path / "poisoned", tmp_path / "data", poison_target=True)
    scored(poisoned, machine)
    assert [clean.epoch_file(e).read_bytes() for e in clean.epochs()] == [
        poisoned.epoch_file(e).read_bytes() for e in poisoned.epochs()]
    before, after = evaluate_scores(clean, **QUICK), evaluate_scores(poisoned, **QUICK)
    target = read_tables(clean, Split.TARGET_TEST)
    for unit in (Unit.FRAME, Unit.VIDEO):
        one, other = before.choice(Column.HONEST, unit), after.choice(Column.HONEST, unit)
        assert one == other  # bit for bit
        assert np.array_equal(decisions(target[one.epoch], one), decisions(target[other.epoch], other))
        for scenario in PROTOCOL_2:
            assert before.choice(Column.HONEST, unit, scenario) == after.choice(Column.HONEST, unit, scenario)
        assert before.choice(Column.ORACLE_LAST, unit).threshold != after.choice(Column.ORACLE_LAST, unit).threshold
    assert before.significance.above_chance
    assert not after.significance.above_chance
