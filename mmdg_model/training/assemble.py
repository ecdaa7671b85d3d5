"""A run from its configuration: compute, data, backbone and method put together, then trained. The one place for it.

Used by `mmdg train` and by whatever runs many jobs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mmdg_model.checkpoint import Checkpoint, load_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.scorer import Purpose
from mmdg_model.training.compute import Compute
from mmdg_model.training.fabric_compute import FabricCompute, launch
from mmdg_model.training.methods import registry
from mmdg_model.training.methods.contract import Method, MethodContext
from mmdg_model.training.progress import Reporter, Silent
from mmdg_model.training.run_config import MachineConfig, RunConfig, RunConfigError
from mmdg_model.training.run_data import RunData
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.trainer import Outcome, claim, train
from mmdg_model.weights.backbone import Backbone, load_backbone


class OpenData(Protocol):
    """Opens the samples of a run for one process. Raises `RunConfigError` where `config.data` is of others."""

    def __call__(self, config: RunConfig, machine: MachineConfig, *, rank: int, world_size: int) -> RunData: ...


BuildMethod = Callable[[RunConfig, MethodContext], Method]


def open_listed_data(config: RunConfig, machine: MachineConfig, *, rank: int, world_size: int) -> RunData:
    """The benchmark's data sets as their lists name them."""
    from mmdg_model.training.loading import ListedData
    return ListedData.open(config, machine, rank=rank, world_size=world_size)


def build_registered(config: RunConfig, context: MethodContext) -> Method:
    """The method of the registry. Raises `registry.MethodError`."""
    return registry.build(config.method, config.settings, context)


def method_context(config: RunConfig, data: RunData, compute: Compute, *, backbone: Backbone | None,
                   start: Checkpoint | None = None, model: ModelConfig | None = None,
                   weights_follow: bool = False) -> MethodContext:
    """What a run's method is built from; `model` in place of the configuration's own where it is only to score."""
    return MethodContext(model=model or config.model.resolve(), inputs=data.inputs, classes=data.classes,
                         optimiser=config.optimiser, backbone=backbone, compute=compute, seed=config.seed,
                         start=start, weights_follow=weights_follow)


def backbone_of(config: RunConfig, path: Path | None) -> tuple[RunConfig, Backbone | None]:
    """The backbone, and the configuration with its hash; none for a method on a network of its own, whatever is given:
    its records must not say that it started from a file of which it read nothing.

    Raises:
        RunConfigError: the configuration names a backbone and there is no file, another one, or no use for one.
        BackboneError: the file cannot be used.
    """
    if registry.has_own_backbone(config.method):
        if config.backbone:
            raise RunConfigError(f"run configuration: backbone is {config.backbone}, but {config.method} has a network "
                                 "of its own and takes nothing from a ViT; leave the key empty")
        return config, None
    backbone = None if path is None else load_backbone(path)
    _check_named("backbone", config.backbone, path, "" if backbone is None else backbone.hash)
    return (config if backbone is None else dataclasses.replace(config, backbone=backbone.hash)), backbone


def start_of(config: RunConfig, path: Path | None) -> tuple[RunConfig, Checkpoint | None]:
    """The checkpoint to go on from, and the configuration with its hash.

    Raises:
        RunConfigError: the configuration names a checkpoint and there is no file, or another one.
        CheckpointError: the file cannot be used.
    """
    checkpoint = None if path is None else load_checkpoint(path)
    _check_named("start", config.start, path, "" if checkpoint is None else checkpoint.hash)
    return (config if checkpoint is None else dataclasses.replace(config, start=checkpoint.hash)), checkpoint


def _check_named(key: str, stated: str, path: Path | None, found: str) -> None:
    """The file that is there is the one that the configuration states, if it states one."""
    if stated and path is None:
        raise RunConfigError(f"run configuration: {key} is {stated}, but no file was given; name it with --{key}")
    if stated not in ("", found):
        raise RunConfigError(f"run configuration: {key} is {stated}, but {path} is {found}; give that file, or leave "
                             "the key empty")


def _check_purpose(start: Checkpoint | None, data: RunData) -> None:
    """A run on real recordings is exported as `release`: nothing that never saw a real face may hide in it."""
    if start is not None and start.purpose is not Purpose.RELEASE and not data.simulated:
        raise RunConfigError(f"run configuration: start is a checkpoint of purpose {start.purpose.value!r}, the "
                             "samples are not simulated; start from a backbone or one of purpose 'release'")


def run_training(directory: RunDirectory, config: RunConfig, machine: MachineConfig, *,
                 reporter: Reporter | None = None, stop: Callable[[], bool] = lambda: False,
                 on_start: Callable[[RunConfig, RunData, FabricCompute], None] | None = None,
                 open_data: OpenData = open_listed_data, build_method: BuildMethod = build_registered,
                 clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Trains one run, or goes on with it. Where `machine` says several devices, this starts their processes.

    Args:
        directory: new, or of this run.
        config: `data` and `backbone` may be empty; they are filled from what is read.
        machine: where everything is.
        reporter, stop, clock: see `trainer.train`.
        on_start: told of the complete configuration before the first update, in the first process.
        open_data, build_method: for other data than the lists', and other methods than the registry's.

    Raises:
        RunConfigError, MethodError, BackboneError, CheckpointError, ManifestError: what the run is made of cannot be
            used.
        RunDirectoryError, TrainingDiverged, ComputeError: see `trainer.train` and `fabric_compute.launch`.
    """
    config, backbone = backbone_of(config, machine.backbone)
    config, start = start_of(config, machine.start)
    if directory.finished and config.data:
        claim(directory, config)  # before anything is started for it
        return Outcome.ALREADY_FINISHED
    compute = launch(machine, config.precision)
    with contextlib.ExitStack() as closing:
        closing.callback(compute.close)
        data = open_data(config, machine, rank=compute.rank, world_size=compute.world_size)
        config = dataclasses.replace(config, data=data.fingerprint)
        closing.callback(data.close)
        _check_purpose(start, data)
        claim(directory, config)
        method = build_method(config, method_context(config, data, compute, backbone=backbone, start=start))
        if on_start is not None and compute.rank == 0:
            on_start(config, data, compute)
        return train(directory, config, machine, data=data, method=method, compute=compute,
                     reporter=reporter or Silent(), stop=stop, clock=clock)
