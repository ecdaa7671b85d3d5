"""`Assembly`: how a configuration becomes something that trains and scores. Benchmark jobs and commands know only this.

The contract keeps jobs, their parallel runner and the evaluation apart from trees of data sets and launchers, so that
all of them run on small made-up data in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmdg_model.training.compute import Compute
from mmdg_model.training.methods.contract import Method
from mmdg_model.training.run_config import MachineConfig, RunConfig
from mmdg_model.training.run_data import RunData
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import ScoreSplit


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run's data and method, ready to score; the method's weights are still to be loaded."""

    data: RunData
    method: Method
    compute: Compute
    score_split: ScoreSplit


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """A configuration with its data and backbone looked up, and how much work it is.

    Attributes:
        config: with `data` and `backbone` filled in; its hash names the run.
        updates: optimiser steps of the whole run.
        simulated: whether the data are.
    """

    config: RunConfig
    updates: int
    simulated: bool


class Assembly(Protocol):
    """What jobs are made of."""

    def survey(self, config: RunConfig, machine: MachineConfig) -> Surveyed:
        """Reads lists and backbone's hash; no image is decoded."""
        ...

    def train(self, directory: RunDirectory, config: RunConfig, machine: MachineConfig) -> None:
        """Trains to the end, from where the directory left off. A `KeyboardInterrupt` leaves it resumable."""
        ...

    def open(self, directory: RunDirectory, machine: MachineConfig) -> Opened:
        """For scoring, of a directory's own configuration."""
        ...
