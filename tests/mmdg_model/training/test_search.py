"""The search: its trials, that it goes on, and that no target can move its choice."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml

from mmdg_model.training.benchmark_grid import JobLock
from mmdg_model.training.method_recipes import method_recipe
from mmdg_model.training.run_config import MachineConfig, RunConfigError
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import score_context
from mmdg_model.training.scores import Split, write_scores
from mmdg_model.training.search import SearchError, SearchSpace, best, read_space, search, write_results
from tests.mmdg_model.training.toy_benchmark import ToyAssembly, ToyData, ToyMethod, toy_score_split


class SourcesOnly(ToyAssembly):
    """The toy, scoring source validation after training as the trainer does; counts trainings, can be interrupted."""

    def __init__(self, interrupt_at=None):
        self.trained, self.interrupt_at = [], interrupt_at

    def train(self, directory, config, machine):
        if len(self.trained) == self.interrupt_at:
            raise KeyboardInterrupt
        self.trained.append(directory.path.name)
        directory.path.mkdir(parents=True, exist_ok=True)
        super().train(directory, config, machine)
        data, method = ToyData(config, machine.root), ToyMethod(config.seed)
        for epoch in directory.epochs():
            state, model_hash = directory.load_epoch(epoch)
            method.network.load_state_dict(state)
            context = score_context(config, Split.SOURCE_VALIDATION, epoch, model_hash, simulated=True)
            path = directory.scores_file(Split.SOURCE_VALIDATION, epoch)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_scores(path, toy_score_split(method, data.selection(), context=context, compute=None))

    def open(self, directory, machine):
        raise AssertionError("a search opens no run for scoring")


def space(**changes):
    values = {"recipe.epochs": [1, 3], "optimiser.weight_decay": [0.0, 1.0]}
    return SearchSpace(**({"method": "vit_late", "space": values, "protocols": ("CPS_W", "PSW_C")} | changes))


def machine(root, **knobs):
    root.mkdir(exist_ok=True)
    (root / "toy.json").write_text(json.dumps({"subjects": 6} | knobs))
    return MachineConfig(root=root, lists=root)


def found_by(out, root, assembly=None, **knobs):
    *_, trials = search(space(), machine(root, **knobs), out, assembly or SourcesOnly())
    return trials


def plain(trials):
    return [(trial.number, dict(trial.values), trial.hter, trial.auc) for trial in trials]


def test_the_least_error_on_source_validation_wins(tmp_path):
    trials = found_by(tmp_path / "runs", tmp_path / "data")
    assert len(trials) == 4
    assert best(trials).hter == min(trial.hter for trial in trials)
    assert len({trial.hter for trial in trials}) > 1 or len({trial.auc for trial in trials}) > 1
    path = write_results(tmp_path / "runs", space(), trials)
    recipe = method_recipe("vit_late", path.parent)
    assert recipe.run["recipe"]["epochs"] == best(trials).values["recipe.epochs"]
    assert (tmp_path / "runs" / "trials.csv").read_text().count("\n") == 5
    assert "HTER" in path.read_text().splitlines()[0]


def test_other_target_labels_and_noise_for_pixels_change_nothing(tmp_path):
    first = found_by(tmp_path / "runs", tmp_path / "data")
    poisoned = found_by(tmp_path / "other_runs", tmp_path / "other_data", poison_target=True)
    assert plain(first) == plain(poisoned)
    assert best(first).number == best(poisoned).number


def test_scores_of_a_target_that_lie_beside_are_not_read(tmp_path):
    first = found_by(tmp_path / "runs", tmp_path / "data")
    for trial in first:
        for run in trial.runs:
            for path in (run.path / "scores" / "source_validation").glob("*.parquet"):
                beside = run.path / "scores" / "target_test" / path.name
                beside.parent.mkdir(exist_ok=True)
                beside.write_bytes(b"no table at all")
    assert plain(found_by(tmp_path / "runs", tmp_path / "data")) == plain(first)


def test_an_interrupted_search_goes_on_where_it_was(tmp_path):
    first = SourcesOnly(interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        found_by(tmp_path / "runs", tmp_path / "data", first)
    second = SourcesOnly()
    trials = found_by(tmp_path / "runs", tmp_path / "data", second)
    assert len(first.trained) + len(second.trained) == 8
    assert not set(first.trained) & set(second.trained)
    assert all(trial.hter is not None for trial in trials)


def test_a_run_that_another_process_works_on_is_left_to_it(tmp_path):
    out, root = tmp_path / "runs", tmp_path / "data"
    one = next(search(space(), machine(root), out, SourcesOnly()))[0].runs[0]
    lock = JobLock(RunDirectory(one.path))
    assert lock.acquire()
    trials = found_by(out, root)
    assert [trial.hter is None for trial in trials] == [True, False, False, False]
    assert best(trials).number != 1
    lock.release()


def test_no_run_starts_when_time_is_up(tmp_path):
    assembly = SourcesOnly()
    (trials,) = search(space(), machine(tmp_path / "data"), tmp_path / "runs", assembly, expired=lambda: True)
    assert assembly.trained == []
    assert best(trials) is None
    assert write_results(tmp_path / "runs", space(), trials) is None


def test_random_trials_are_drawn_within_their_ranges_and_alike_each_time():
    one = space(trials=20, space={"optimiser.learning_rate": {"log_uniform": [1e-5, 1e-3]},
                                  "optimiser.weight_decay": {"uniform": [0, 0.1]}, "recipe.batch_size": [8, 16]})
    draws = one.draws()
    assert draws == dataclasses.replace(one).draws() != dataclasses.replace(one, draw_seed=1).draws()
    rates = [values["optimiser.learning_rate"] for values in draws]
    assert 1e-5 <= min(rates) < 1e-4 < max(rates) <= 1e-3
    assert {values["recipe.batch_size"] for values in draws} == {8, 16}


def test_values_arrive_in_the_run():
    config = space(method="mmdg", space={"settings.ssp_weight": [0.7], "optimiser.learning_rate": [2e-3]},
                   run={"model": {"preset": "micro"}, "optimiser": {"name": "adamw"}}).config(
        {"settings.ssp_weight": 0.7, "optimiser.learning_rate": 2e-3}, "PSW_C", 3)
    assert config.settings == {"ssp_weight": 0.7}
    assert (config.optimiser.name, config.optimiser.learning_rate, config.seed, config.protocol) == (
        "adamw", 2e-3, 3, "PSW_C")
    with pytest.raises(RunConfigError, match="no_such"):
        space().config({"recipe.no_such": 1}, "CPS_W", 0)


@pytest.mark.parametrize(("values", "message"), [
    ({"method": "mmdg", "space": {}}, "must each name something"),
    ({"method": "mmdg", "space": {"recipe.epochs": 3}}, "expected a list of values"),
    ({"method": "mmdg", "space": {"recipe.epochs": {"uniform": [1, 2]}}}, "how many trials"),
    ({"method": "mmdg", "trials": 2, "space": {"recipe.epochs": {"uniform": [2, 1]}}}, "low < high"),
    ({"method": "mmdg", "trials": 2, "space": {"recipe.epochs": {"log_uniform": [0, 1]}}}, "above 0"),
    ({"method": "nothing", "space": {"recipe.epochs": [1]}}, "no method 'nothing'"),
    ({"method": "mmdg", "space": {"recipe.epochs": [1]}, "criterion": "target"}, "criterion"),
    ({"method": "mmdg", "space": {"recipe.epochs": list(range(1, 40)), "recipe.batch_size": list(range(1, 40))}},
     "1521 combinations"),
])
def test_what_no_space_is_is_said(tmp_path, values, message):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SearchError, match=message):
        read_space(tmp_path / "space.yaml")
