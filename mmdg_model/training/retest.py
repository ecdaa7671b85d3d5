"""Protocol 2: the checkpoints of Protocol 1's runs tested again with modalities withheld. Nothing is trained here.

A job of Protocol 1 scores Protocol 2 by itself; what was evaluated with all modalities only is scored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.error_rates import Unit
from mmdg_model.training.benchmark_grid import Job, JobState
from mmdg_model.training.evaluation import Column, EvaluationError
from mmdg_model.training.protocols import PROTOCOL_2, Scenario
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import evaluation_file, read_evaluation


@dataclass(frozen=True, kw_only=True)
class Retests:
    """Jobs whose training is finished, and a line on each that is not."""

    jobs: tuple[Job, ...]
    untrained: tuple[str, ...]


def retests(jobs: Sequence[Job]) -> Retests:
    """Which jobs may be tested again: those whose training has come to its end. Nothing is written."""
    return Retests(jobs=tuple(job for job in jobs if job.directory.finished),
                   untrained=tuple(f"{job.name}: not trained; mmdg benchmark --table 1 trains it"
                                   for job in jobs if not job.directory.finished))


def reopen(job: Job) -> bool:
    """Takes back an evaluation that lacks a scenario of Protocol 2, so that the job scores what is missing and is
    evaluated anew; whether there was such a one. Score tables stay.

    Raises:
        RunDirectoryError: the evaluation is damaged.
    """
    if job.state is not JobState.DONE or set(PROTOCOL_2) <= set(read_evaluation(job.directory).levels):
        return False
    evaluation_file(job.directory).unlink()
    return True


def same_checkpoint(directory: RunDirectory) -> str:
    """Hash of the network at the honest epoch, after checking that all four scenarios tested the same one, in every
    column.

    Raises:
        EvaluationError: a scenario is missing, or tested another checkpoint.
        RunDirectoryError: there is no evaluation, or a damaged one.
    """
    levels = read_evaluation(directory).levels
    for column in Column:
        complete = levels[Scenario.COMPLETE][Unit.FRAME].columns[column].model_hash
        for scenario in PROTOCOL_2:
            if scenario not in levels:
                raise EvaluationError(f"{directory.path}: {scenario} was not tested; mmdg benchmark --table 2 tests it")
            if (found := levels[scenario][Unit.FRAME].columns[column].model_hash) != complete:
                raise EvaluationError(f"{directory.path}, {column}: {scenario} tested checkpoint {found}, the complete "
                                      f"test {complete}; score it again: mmdg evaluate RUN --again")
    return levels[Scenario.COMPLETE][Unit.FRAME].columns[Column.HONEST].model_hash
