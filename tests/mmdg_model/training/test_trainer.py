"""The loop over epochs and updates, and what it writes."""

import fcntl
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdg_model.scorer import Modality
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.decoding import FileTrouble, TroubleKind
from mmdg_model.training.metrics_log import read_lines
from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
from mmdg_model.training.scores import Split, read_scores
from mmdg_model.training.trainer import Outcome
from tests.mmdg_model.training.toy_run import (
    UPDATES_PER_EPOCH,
    DivergingMethod,
    ToyData,
    ToyMethod,
    toy_config,
    toy_machine,
    toy_train,
)


class Notes:
    """Keeps what is told. Implements `Reporter`."""

    def __init__(self):
        self.texts, self.reports = [], []

    def note(self, text):
        self.texts.append(text)

    def updated(self, report):
        self.reports.append(report)


def lines(folder, kind=None):
    return [line for line in read_lines(RunDirectory(folder).metrics_file) if kind in (None, line["kind"])]


def outcome_files(folder):
    """What must be equal in two equal runs, byte by byte."""
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in [folder / "metrics.jsonl", folder / "run.json", folder / "frozen.safetensors",
                         *folder.glob("epochs/*"), *folder.glob("scores/*/*")]}


def test_a_run_from_beginning_to_end(tmp_path):
    assert toy_train(tmp_path) is Outcome.FINISHED
    run = RunDirectory(tmp_path)
    assert [(line["kind"], line["epoch"], line["update"]) for line in lines(tmp_path)] == [
        entry for epoch in range(3) for entry in [
            ("epoch_start", epoch, 3 * epoch), *(("update", epoch, 3 * epoch + count) for count in (1, 2, 3)),
            ("epoch_end", epoch, 3 * epoch + 3)]]
    assert run.finished
    assert run.epochs() == [0, 1, 2]
    assert {key: json.loads(run.done_file.read_text())[key] for key in ("updates", "epochs")} == {"updates": 9,
                                                                                                 "epochs": 3}
    assert run.config() == toy_config()
    assert not run.resume.exists()
    for epoch in run.epochs():
        state, model_hash = run.load_epoch(epoch)
        table = read_scores(run.scores_file(Split.SOURCE_VALIDATION, epoch))
        assert table.context.model_hash == model_hash
        assert int(state["updates"]) == 3 * (epoch + 1)


def test_it_learns(tmp_path):
    toy_train(tmp_path, toy_config(recipe={"epochs": 40}, settings={"dropout": 0.0},
                                   optimiser={"learning_rate": 0.05, "final_rate_share": 1.0}))
    losses = [line["loss/total"] for line in lines(tmp_path, "update")]
    assert np.mean(losses[-6:]) < 0.5 * np.mean(losses[:6])
    assert lines(tmp_path, "epoch_end")[-1]["source_validation/auc"] > 0.8


def test_each_update_states_its_learning_rate_and_what_the_method_says(tmp_path):
    toy_train(tmp_path)
    rates = [line["learning_rate"] for line in lines(tmp_path, "update")]
    assert rates[:2] == [0.005, 0.01]
    assert rates[-1] == pytest.approx(0.001)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    first = lines(tmp_path, "update")[0]
    assert first["ssp/rgb"] is None  # NaN: none today
    assert first.keys() == {"kind", "epoch", "update", "learning_rate", "loss/total", "ssp/rgb", "drawn"}
    assert "prototypes/variance" in lines(tmp_path, "epoch_start")[0]


def test_two_equal_runs_write_equal_bytes_and_another_seed_does_not(tmp_path):
    for name, config in (("one", toy_config()), ("two", toy_config()), ("three", toy_config(seed=1))):
        toy_train(tmp_path / name, config)
    assert outcome_files(tmp_path / "one") == outcome_files(tmp_path / "two")
    assert lines(tmp_path / "one") != lines(tmp_path / "three")


@pytest.mark.parametrize(("recipe", "updates", "kept"), [
    ({"keep_epochs": 2}, 9, [1, 2]), ({"keep_epochs": 5}, 9, [2]), ({"max_updates": 4}, 4, [0, 1]),
    ({"max_updates": 6}, 6, [0, 1]), ({"max_updates": 99}, 9, [0, 1, 2]), ({"epochs": 1, "max_updates": 2}, 2, [0])])
def test_length_and_kept_epochs(tmp_path, recipe, updates, kept):
    toy_train(tmp_path, toy_config(recipe=recipe))
    assert len(lines(tmp_path, "update")) == updates
    assert RunDirectory(tmp_path).epochs() == kept
    assert [line["epoch"] for line in lines(tmp_path, "epoch_end") if "source_validation/auc" in line] == kept


@pytest.mark.parametrize("first", range(10))
def test_a_run_stopped_after_any_update_goes_on_to_the_same_bytes(tmp_path, first):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    toy_train(whole)
    assert toy_train(halves, stop_after=first) is Outcome.INTERRUPTED
    assert len(lines(halves, "update")) == first
    data = ToyData(toy_config())
    assert toy_train(halves, data=data) is Outcome.FINISHED
    assert outcome_files(whole) == outcome_files(halves)
    # Nothing is read again that the first half has used.
    assert all(epoch * UPDATES_PER_EPOCH + update >= first for epoch, update in data.epochs_entered)
    starts = json.loads((halves / "environment.json").read_text())["starts"]
    assert [start["first_update"] for start in starts] == [0, first]


def test_a_run_stopped_again_and_again(tmp_path):
    toy_train(tmp_path / "whole")
    while toy_train(tmp_path / "often", stop_after=1) is Outcome.INTERRUPTED:
        pass
    assert outcome_files(tmp_path / "whole") == outcome_files(tmp_path / "often")


def test_a_finished_run_is_left_alone(tmp_path):
    toy_train(tmp_path)
    before = outcome_files(tmp_path)
    assert toy_train(tmp_path) is Outcome.ALREADY_FINISHED
    assert outcome_files(tmp_path) == before


def test_the_directory_of_another_run_is_refused_with_what_differs(tmp_path):
    toy_train(tmp_path, stop_after=2)
    with pytest.raises(RunDirectoryError, match=r"optimiser.learning_rate: 0.01 there, 0.5 here; seed: 0 there, 7"):
        toy_train(tmp_path, toy_config(seed=7, optimiser={"learning_rate": 0.5}))
    assert RunDirectory(tmp_path).config() == toy_config()


def test_other_data_than_the_configuration_says_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match="says data 'other', the lists and files are 'drawn'"):
        toy_train(tmp_path, toy_config(data="other"))


def test_two_trainings_in_one_directory_are_refused(tmp_path):
    run = RunDirectory(tmp_path)
    with run.metrics_file.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunDirectoryError, match="is being trained by another process"):
            toy_train(tmp_path)
    assert toy_train(tmp_path) is Outcome.FINISHED


def test_a_diverged_run_names_the_update_and_keeps_what_it_wrote(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"in update 5 \(epoch 1\): loss/total is nan.*learning_rate"):
        toy_train(tmp_path, method=DivergingMethod)
    assert len(lines(tmp_path, "update")) == 4
    assert RunDirectory(tmp_path).epochs() == [0]
    assert not RunDirectory(tmp_path).finished


def test_a_loss_that_is_no_number_ends_the_run_though_the_method_did_not_see_it(tmp_path):
    class Blind(ToyMethod):
        def update(self, batches):
            return {**super().update(batches), "loss/total": float("inf")}

    with pytest.raises(TrainingDiverged, match=r"in update 1 .*loss/total is inf"):
        toy_train(tmp_path, method=Blind)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    toy_train(tmp_path, stop_after=4)
    left_over = [tmp_path / "resume" / "0.safetensors.77.unfinished", tmp_path / "epochs" / "0001.99.unfinished"]
    for path in left_over:
        path.write_bytes(b"half")
    toy_train(tmp_path)
    assert not any(path.exists() for path in left_over)


def test_only_what_trains_is_kept_for_each_epoch(tmp_path):
    toy_train(tmp_path)
    first, _ = RunDirectory(tmp_path).load_epoch(0)
    last, _ = RunDirectory(tmp_path).load_epoch(2)
    assert first["frozen.weight"].equal(last["frozen.weight"])
    assert not first["head.weight"].equal(last["head.weight"])
    assert (tmp_path / "epochs" / "0000.safetensors").stat().st_size < 1000


def test_a_loader_that_draws_from_global_generators_changes_nothing(tmp_path):
    class Quiet(ToyData):
        def epoch(self, epoch, *, first_update=0):
            for parts in super().epoch(epoch, first_update=first_update):
                torch.manual_seed(77)
                yield parts

    toy_train(tmp_path / "draws")
    toy_train(tmp_path / "seeds", data=Quiet(toy_config()))
    assert outcome_files(tmp_path / "draws") == outcome_files(tmp_path / "seeds")


def test_troubles_are_written_once_over_all_starts(tmp_path):
    data = ToyData(toy_config())
    data.troubles = [FileTrouble(path=Path("a.jpg"), modality=Modality.DEPTH, kind=TroubleKind.MISSING, reason="gone")]
    notes = Notes()
    toy_train(tmp_path, data=data, stop_after=4, reporter=notes)
    data.troubles.append(FileTrouble(path=Path("b.jpg"), modality=Modality.RGB, kind=TroubleKind.UNREADABLE,
                                     reason="the file is empty"))
    toy_train(tmp_path, data=data)
    assert read_lines(RunDirectory(tmp_path).troubles_file) == [
        {"path": "a.jpg", "modality": "depth", "kind": "missing", "reason": "gone"},
        {"path": "b.jpg", "modality": "rgb", "kind": "unreadable", "reason": "the file is empty"}]
    assert sum("a.jpg" in text for text in notes.texts) == 1


def test_an_epoch_that_gives_fewer_updates_than_announced_is_an_error(tmp_path):
    class Short(ToyData):
        def epoch(self, epoch, *, first_update=0):
            return itertools.islice(super().epoch(epoch, first_update=first_update), 2)

    with pytest.raises(ValueError, match="epoch 0 gave 2 updates, 3 were announced"):
        toy_train(tmp_path, data=Short(toy_config()))


def test_data_without_an_update_is_an_error(tmp_path):
    data = ToyData(toy_config())
    data.updates_per_epoch = 0
    with pytest.raises(ValueError, match="has 0 updates"):
        toy_train(tmp_path, data=data)


def test_whoever_watches_is_told_of_progress(tmp_path):
    notes = Notes()
    toy_train(tmp_path, toy_config(recipe={"epochs": 10}), reporter=notes, clock=itertools.count().__next__)
    assert [report.updates for report in notes.reports] == list(range(1, 31))
    assert notes.reports[-1].seconds_left == 0
    assert notes.reports[-1].waiting_share == 0.25
    assert notes.reports[-1].samples_per_s > 0
    assert sum(text.startswith("about ") for text in notes.texts) == 1
    assert "epoch 10/10: source validation HTER" in notes.texts[-1]
    timing = read_lines(RunDirectory(tmp_path).timing_file)
    assert [line["update"] for line in timing] == [1, 10, 20, 30]
    assert {"seconds", "samples_per_s", "waiting_share"} < timing[0].keys()


def test_tensorboard_has_the_scalars(tmp_path):
    toy_train(tmp_path, machine=toy_machine(tensorboard=True))
    (events,) = (tmp_path / "tensorboard").iterdir()
    written = events.read_bytes()
    for name in (b"loss/total", b"learning_rate", b"source_validation/hter", b"time/waiting_share",
                 b"prototypes/variance"):
        assert name in written
    assert b"ssp/rgb" not in written  # it was NaN throughout


def test_the_environment_says_what_the_run_ran_on(tmp_path):
    toy_train(tmp_path, machine=toy_machine(root=Path("somewhere")))
    about = json.loads((tmp_path / "environment.json").read_text())
    assert about["run"] == toy_config().hash
    assert about["data"]["fingerprint"] == "drawn"
    assert about["data"]["simulated"] is False
    assert about["parameters"] == {"trainable": 34, "total": 9266}
    assert about["backbone"].startswith("random, in part frozen")
    assert about["network"] is None
    (start,) = about["starts"]
    assert start["packages"]["torch"] == torch.__version__
    assert start["machine"]["root"] == "somewhere"
    assert start["processes"] == 1
