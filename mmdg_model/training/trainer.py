"""`train`: the loop over epochs and updates, and all that a run writes. Where data and method come from is not its
business.

A run that was killed at any moment goes on where it last saved and writes the very bytes that it would have written
undisturbed. For that, nothing depends on what was drawn before: samples are keyed by (seed, epoch, place), the learning
rate by the update's number, and the global generators are seeded anew before each update, from (seed, update, rank).
"""

from __future__ import annotations

import fcntl
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import torch

from calibration.error_rates import Unit, auc, equal_error_point, roc
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.decoding import FileTrouble
from mmdg_model.training.environment import describe_run, describe_start, record_start
from mmdg_model.training.methods.contract import Method, TrainingBatch
from mmdg_model.training.processes import gather_blobs, sum_over_processes
from mmdg_model.training.progress import Reporter, Silent
from mmdg_model.training.resume import Position, ResumableCompute, ResumeFiles, restore, trained_names
from mmdg_model.training.run_config import MachineConfig, RunConfig
from mmdg_model.training.run_data import RunData
from mmdg_model.training.run_directory import (
    RunDirectory,
    RunDirectoryError,
    differences,
    read_safetensors,
    state_hash,
    write_safetensors,
)
from mmdg_model.training.run_log import RunLog
from mmdg_model.training.schedule import Schedule
from mmdg_model.training.scores import ScoreContext, ScoreTable, Split, write_scores
from mmdg_model.training.scoring import score_split
from mmdg_model.whole_file import write_whole


class Outcome(StrEnum):
    """How a start of a run ended."""

    FINISHED = "finished"
    ALREADY_FINISHED = "already finished"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Length:
    """Updates of a run, and how they fall into epochs."""

    updates_per_epoch: int
    updates: int

    @classmethod
    def of(cls, config: RunConfig, updates_per_epoch: int) -> Length:
        """Raises `ValueError` where an epoch has no update."""
        if updates_per_epoch < 1:
            raise ValueError(f"an epoch of {config.protocol} has {updates_per_epoch} updates; its training lists hold "
                             "no usable sample: check the tree with mmdg data verify")
        updates = config.recipe.epochs * updates_per_epoch
        return cls(updates_per_epoch=updates_per_epoch,
                   updates=min(updates, config.recipe.max_updates) if config.recipe.max_updates else updates)

    @property
    def epochs(self) -> int:
        """Epochs begun; the last may be short."""
        return -(-self.updates // self.updates_per_epoch)


def train(directory: RunDirectory, config: RunConfig, machine: MachineConfig, *, data: RunData, method: Method,
          compute: ResumableCompute, reporter: Reporter | None = None, stop: Callable[[], bool] = lambda: False,
          clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Trains a run to its end, or goes on with one that was interrupted. Every process calls it.

    Args:
        directory: new, or of this very run.
        config: with the data's fingerprint and the backbone's hash.
        machine: `root` for the record, `save_every_s`, `tensorboard`.
        data, method, compute: of this process.
        reporter: told of progress in the first process.
        stop: asked after each update and around an epoch's preparation and end; True in any process saves and ends
            all.
        clock: seconds, of whatever beginning.

    Raises:
        RunDirectoryError: the directory holds another run, or a damaged one.
        TrainingDiverged: with the update; all that was written stays.
        ValueError: no training sample, or processes whose first weights differ.
    """
    if directory.finished:
        claim(directory, config)
        return Outcome.ALREADY_FINISHED
    if config.data != data.fingerprint:
        raise RunDirectoryError(f"the run's configuration says data {config.data!r}, the lists and files are "
                                f"{data.fingerprint!r}; set the one read in the configuration")
    claim(directory, config)
    return _Training(directory, config, machine, data, method, compute, reporter or Silent(), stop, clock).run()


def claim(directory: RunDirectory, config: RunConfig) -> None:
    """Writes `run.json` into a new directory; checks that of one that was begun.

    Raises:
        RunDirectoryError: it is of another configuration; lists what differs.
    """
    ours = json.loads(config.to_json())
    if not directory.config_file.is_file():
        write_whole(directory.config_file, config.to_json().encode())
        return
    theirs = directory.read_json(directory.config_file)
    if theirs != ours:
        raise RunDirectoryError(f"{directory.path} holds another run. {differences(theirs, ours)}. Choose another "
                                "directory, or go on with the configuration in its run.json")


class _Training:
    def __init__(self, directory: RunDirectory, config: RunConfig, machine: MachineConfig, data: RunData,
                 method: Method, compute: ResumableCompute, reporter: Reporter, stop: Callable[[], bool],
                 clock: Callable[[], float]) -> None:
        self.directory, self.config, self.machine = directory, config, machine
        self.data, self.method, self.compute = data, method, compute
        self.reporter, self.stop, self.clock = reporter, stop, clock
        self.length = Length.of(config, data.updates_per_epoch)
        self.schedules = {name: Schedule(optimiser, config.optimiser, self.length.updates)
                          for name, optimiser in method.optimisers.items()}
        self.resume = ResumeFiles(directory.resume, config.hash)
        self.position = Position()

    @property
    def leads(self) -> bool:
        return self.compute.rank == 0

    def run(self) -> Outcome:
        with self._sole_writer():
            return self._run()

    def _run(self) -> Outcome:
        self._require_equal_weights()
        self._restore()
        self.log = RunLog(self.directory, self.position, updates=self.length.updates, epochs=self.length.epochs,
                          leads=self.leads, data=self.data, reporter=self.reporter, clock=self.clock,
                          tensorboard=self.machine.tensorboard)
        try:
            if self.leads:
                record_start(self.directory, describe_run(self.config, self.data, self.method.network,
                                                          self.machine.root),
                             describe_start(self.machine, self.compute, first_update=self.position.updates))
            self.last_save_s = self.clock()
            while self.position.updates < self.length.updates or self.position.epoch < self.length.epochs:
                if not self._train_epoch() or not self._end_epoch():
                    self._tell(f"stopped and saved after update {self.position.updates}; the same command goes on "
                               "from there")
                    return Outcome.INTERRUPTED
            self._finish()
            return Outcome.FINISHED
        finally:
            self.log.close()

    # ---- beginning and end ----

    @contextmanager
    def _sole_writer(self) -> Iterator[None]:
        """Two trainings in one directory would spoil it for both."""
        if not self.leads:
            yield
            return
        with self.directory.metrics_file.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunDirectoryError(f"{self.directory.path} is being trained by another process; wait for it, or "
                                        "stop it first") from None
            for folder in (self.directory.resume, self.directory.path / "epochs"):
                for left_over in folder.glob("*.unfinished"):  # of a process that was killed while it wrote
                    left_over.unlink()
            yield

    def _require_equal_weights(self) -> None:
        ours = state_hash(self.method.network.state_dict()).encode()
        if len(set(gather_blobs(ours, self.compute))) > 1:
            raise ValueError("the processes begin with different weights; the method must draw them from "
                             "MethodContext.seed alone, and all machines must have the same versions of torch and of "
                             "the backbone file")

    def _restore(self) -> None:
        saved = self.resume.load(self._tell)
        # No process may write before each has read.
        sum_over_processes([0], self.compute)
        if saved is None:
            state = self.method.network.state_dict()
            trained = trained_names(self.method.network)
            if self.leads:
                write_safetensors(self.directory.frozen_file,
                                  {name: tensor for name, tensor in state.items() if name not in trained})
            return
        restore(saved, self.method, read_safetensors(self.directory.frozen_file)[0])
        self.compute.load_state(saved.about.compute)
        self.position = saved.position
        self._tell(f"going on after update {self.position.updates} of {self.length.updates}")

    def _save(self) -> None:
        """All processes call it at the same time."""
        self.log.troubles(self._all_troubles())
        self.position = self.log.stamped(self.position)
        if self.leads:
            self.resume.save(self.position, self.method, self.compute.state())
        self.last_save_s = self.clock()

    def _finish(self) -> None:
        if self.leads:
            write_whole(self.directory.done_file, json.dumps({
                "updates": self.position.updates, "epochs": self.position.epoch,
                "seconds": round(self.log.seconds(), 3)}, indent=2).encode())
            self.resume.remove()
        sum_over_processes([0], self.compute)

    # ---- an epoch ----

    def _train_epoch(self) -> bool:
        """False where the run was asked to stop, and has saved."""
        epoch = self.position.epoch
        if not self.position.epoch_started:
            self._seed()
            with self._divergence_told():
                scalars = self.method.start_epoch(epoch, self._clean_batches)
            self.log.epoch("epoch_start", epoch, self.position.updates, scalars)
            self.position = msgspec.structs.replace(self.position, epoch_started=True)
            if self._asked_to_stop():
                self._save()
                return False
        begin = self.position.updates_in_epoch
        end = min(self.length.updates_per_epoch, self.length.updates - (self.position.updates - begin))
        if begin < end:
            for parts in islice(self.data.epoch(epoch, first_update=begin), end - begin):
                if self._update(parts):
                    return False
            if self.position.updates_in_epoch != end:
                raise ValueError(f"epoch {epoch} gave {self.position.updates_in_epoch} updates, {end} were announced")
        return True

    def _update(self, parts: Iterable[TrainingBatch]) -> bool:
        """True where the run was asked to stop, and has saved."""
        batches = [batch.to(self.compute.device) for batch in parts]
        rates = {name: schedule.set(self.position.updates) for name, schedule in self.schedules.items()}
        self._seed()
        with self._divergence_told():
            scalars = self.method.update(batches)
            if not np.isfinite(scalars["loss/total"]) and self.compute.loss_scale == 1.0:
                raise TrainingDiverged(f"loss/total is {scalars['loss/total']}")
        self.position = msgspec.structs.replace(self.position, updates=self.position.updates + 1,
                                                updates_in_epoch=self.position.updates_in_epoch + 1)
        due = self.leads and self.clock() - self.last_save_s >= self.machine.save_every_s
        stopping, saving, samples = sum_over_processes(
            [int(self.stop()), int(due), sum(len(batch.label) for batch in batches)], self.compute)
        names = rates if len(rates) > 1 else {"": next(iter(rates.values()))}
        self.log.update(self.position, {**{f"learning_rate/{name}".rstrip("/"): rate for name, rate in names.items()},
                                        **scalars}, samples)
        if stopping or saving:
            self._save()
        return bool(stopping)

    def _end_epoch(self) -> bool:
        """False where the run was asked to stop before its next epoch; it has saved in any case."""
        epoch, last = self.position.epoch, self.position.epoch + 1 == self.length.epochs
        scalars: Mapping[str, float] = {}
        if last or (epoch + 1) % self.config.recipe.keep_epochs == 0:
            state = self.method.network.state_dict()
            found = (self.directory.save_epoch(epoch, state, trained_names(self.method.network)) if self.leads else "")
            table = self._score_selection(epoch, gather_blobs(found.encode(), self.compute)[0].decode())
            scalars = _measured(table)
        self.log.epoch("epoch_end", epoch, self.position.updates, scalars)
        if scalars:
            self._tell(f"epoch {epoch + 1}/{self.length.epochs}: source validation HTER "
                       f"{scalars['source_validation/hter']:.1%}, AUC {scalars['source_validation/auc']:.1%}")
        self.position = msgspec.structs.replace(self.position, epoch=epoch + 1, updates_in_epoch=0,
                                                epoch_started=False)
        self._save()
        return last or not self._asked_to_stop()

    def _score_selection(self, epoch: int, model_hash: str) -> ScoreTable:
        context = ScoreContext(split=Split.SOURCE_VALIDATION, protocol=self.config.protocol, method=self.config.method,
                               seed=self.config.seed, epoch=epoch, model_hash=model_hash,
                               simulated=self.data.simulated)
        with self._divergence_told():
            table = score_split(self.method, self.data.selection(), context=context, compute=self.compute)
        if self.leads:
            path = self.directory.scores_file(Split.SOURCE_VALIDATION, epoch)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_scores(path, table)
        return table

    def _all_troubles(self) -> list[FileTrouble]:
        blobs = gather_blobs(msgspec.json.encode(list(self.data.troubles), enc_hook=str), self.compute)
        return [trouble for blob in blobs
                for trouble in msgspec.json.decode(blob, type=list[FileTrouble], dec_hook=_path)]

    def _clean_batches(self) -> Iterable[TrainingBatch]:
        return (batch.to(self.compute.device) for batch in self.data.clean_batches())

    # ---- what every step needs ----

    def _asked_to_stop(self) -> bool:
        """Whether any process was; all processes call it at the same time."""
        return sum_over_processes([int(self.stop())], self.compute)[0] > 0

    def _tell(self, text: str) -> None:
        if self.leads:
            self.reporter.note(text)

    def _seed(self) -> None:
        """Of everything global that a method, or a library under it, may draw from."""
        key = [self.config.seed, self.position.updates, int(self.position.epoch_started), self.compute.rank]
        word = int(np.random.SeedSequence(key).generate_state(1)[0])
        torch.manual_seed(word)
        np.random.seed(word)
        random.seed(word)

    @contextmanager
    def _divergence_told(self) -> Iterator[None]:
        """Gives a `TrainingDiverged` the update that it happened in."""
        try:
            yield
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"training diverged in update {self.position.updates + 1} (epoch {self.position.epoch}): {error}. "
                f"{self.directory.path} keeps the epochs and metrics until then; train anew in another directory with "
                "a lower optimiser.learning_rate, some optimiser.warmup_updates, or precision 32-true") from error


def _path(kind: type[Any], value: Any) -> Any:
    return kind(value)


def _measured(table: ScoreTable) -> dict[str, float]:
    """For watching a run only; the honest choice of an epoch is the evaluation's."""
    found: dict[str, float] = {}
    for unit, suffix in ((Unit.FRAME, ""), (Unit.VIDEO, "_by_video")):
        shown = table.presentations(unit)
        both = bool(shown.live.any()) and not bool(shown.live.all())
        curve = roc(shown.score, shown.live) if both else None
        found[f"source_validation/hter{suffix}"] = equal_error_point(curve).hter if curve else float("nan")
        found[f"source_validation/auc{suffix}"] = auc(curve) if curve else float("nan")
    return found

