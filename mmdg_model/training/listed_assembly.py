"""`ListedAssembly`: jobs on the benchmark's trees of data sets, with the registry's methods and the trainer.

`python -m mmdg_model.training.listed_assembly JOBDIR` is the process of one job.
"""

from __future__ import annotations

import dataclasses
import sys

import msgspec
from rich.console import Console

from mmdg_model.config import TrainableParts
from mmdg_model.training.assemble import (
    backbone_of,
    build_registered,
    method_context,
    open_listed_data,
    run_training,
    start_of,
)
from mmdg_model.training.fabric_compute import launch
from mmdg_model.training.job import main
from mmdg_model.training.loading import ListedData
from mmdg_model.training.methods.registry import require_clip
from mmdg_model.training.progress import ConsoleReporter
from mmdg_model.training.run_assembly import Opened, Surveyed
from mmdg_model.training.run_config import MachineConfig, RunConfig
from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
from mmdg_model.training.scoring import score_split
from mmdg_model.training.stop_signals import stop_on_signals
from mmdg_model.training.trainer import Length, Outcome

#: Starts a job when its directory is appended.
COMMAND = (sys.executable, "-m", "mmdg_model.training.listed_assembly")


class ListedAssembly:
    """Implements `run_assembly.Assembly`."""

    def survey(self, config: RunConfig, machine: MachineConfig) -> Surveyed:
        """Raises `RunConfigError`, `BackboneError`, `ManifestError` as their parts, and `MethodError` for a method that
        the backbone cannot start."""
        config, backbone = backbone_of(config, machine.backbone)
        require_clip(config.method, backbone)
        config, _ = start_of(config, machine.start)
        data = ListedData.open(config, dataclasses.replace(machine, workers=0))
        try:
            return Surveyed(config=dataclasses.replace(config, data=data.fingerprint), simulated=data.simulated,
                            updates=Length.of(config, data.updates_per_epoch).updates)
        finally:
            data.close()

    def train(self, directory: RunDirectory, config: RunConfig, machine: MachineConfig) -> None:
        """Raises what `assemble.run_training` does."""
        with ConsoleReporter(Console(stderr=True)) as reporter, stop_on_signals(reporter.note) as stop:
            outcome = run_training(directory, config, machine, reporter=reporter, stop=stop)
        if outcome is Outcome.INTERRUPTED:
            raise KeyboardInterrupt

    def open(self, directory: RunDirectory, machine: MachineConfig) -> Opened:
        """In one process, in the run's own precision. The backbone's file is not needed: all weights are replaced."""
        config = directory.config()
        compute = launch(dataclasses.replace(machine, devices=1, nodes=1), config.precision)
        data = open_listed_data(config, machine, rank=0, world_size=1)
        model = dataclasses.replace(config.model.resolve(), trainable_parts=TrainableParts.EVERYTHING)
        method = build_registered(config, method_context(config, data, compute, backbone=None, model=model,
                                                         weights_follow=True))
        return Opened(data=data, method=method, compute=compute, score_split=score_split)


def machine_of(directory: RunDirectory) -> MachineConfig:
    """Where a run's data lay at its last start, from `environment.json`.

    Raises:
        RunDirectoryError: it does not say.
    """
    try:
        values = directory.read_json(directory.environment_file)["starts"][-1]["machine"]
        return msgspec.convert(values, MachineConfig, dec_hook=lambda kind, value: kind(value))
    except (KeyError, IndexError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise RunDirectoryError(f"{directory.environment_file} does not say where the data lay ({error!r}); name "
                                "--data and --lists") from error


if __name__ == "__main__":
    sys.exit(main(ListedAssembly()))
