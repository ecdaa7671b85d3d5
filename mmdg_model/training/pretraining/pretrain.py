"""From a tree of crops to a backbone file: reads, trains, measures, draws."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdg_model.training.fabric_compute import launch
from mmdg_model.training.pretraining.config import PretrainingConfig, PretrainingError, changed
from mmdg_model.training.pretraining.crops import UnlabelledCrops, crop_specification, read_crop_lists
from mmdg_model.training.pretraining.identities import require_disjoint
from mmdg_model.training.pretraining.reconstruction_figure import draw_reconstructions
from mmdg_model.training.pretraining.report import evaluate, mean_targets
from mmdg_model.training.pretraining.run import PretrainingFiles, PretrainingRun
from mmdg_model.training.run_config import MachineConfig
from mmdg_model.training.simulated_tree import is_simulated
from mmdg_model.whole_file import write_whole

#: A killed run loses at most about so much work.
SAVE_EVERY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class PretrainingSource:
    """Where the crops lie, and whom they must not show.

    Attributes:
        root, lists: data root and folder of the lists.
        disjoint_from: roots of simulated benchmarks whose identities must be others.
    """

    root: Path
    lists: Path
    disjoint_from: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class PretrainingOutcome:
    """What a call came to.

    Attributes:
        path: the run's directory.
        updates_done, updates: how far it is.
        backbone_sha256: of the backbone file; empty while the run is unfinished.
        report: see `report.evaluate`, with the crops' numbers; empty while unfinished.
    """

    path: Path
    updates_done: int
    updates: int
    backbone_sha256: str
    report: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether there is a backbone."""
        return bool(self.backbone_sha256)


def pretrain(config: PretrainingConfig, source: PretrainingSource, path: Path, *, device: str = "cpu",
             threads: int = 0, max_seconds: float = float("inf"), monotonic: Callable[[], float] = time.monotonic,
             save_every_s: float = SAVE_EVERY_S,
             on_update: Callable[[int, int, Mapping[str, float | None]], None] = lambda done, total, scalars: None,
             ) -> PretrainingOutcome:
    """Starts or goes on with a run; returns when it is finished or its time is up.

    Args:
        config: what to train; facts of the data are filled in here.
        source: of the crops.
        path: directory of the run.
        device: `auto`, `cpu` or `cuda`. threads: of torch; 0 leaves its own choice.
        max_seconds: after which to leave off, on disk and able to go on; counted from the call.
        monotonic: clock in seconds.
        save_every_s: how often to save what a killed run goes on from.
        on_update: told updates made, all updates, and the last one's scalars.

    Raises:
        PretrainingError, ManifestError: wrong data, another run's directory.
        TrainingDiverged: a loss is not finite.
    """
    started = saved = monotonic()
    others = tuple(require_disjoint(source.root, benchmark) for benchmark in source.disjoint_from)
    lists = read_crop_lists(source.root, source.lists, config.domains)
    config = changed(config, data=lists.fingerprint, simulated=is_simulated(source.root), disjoint_from=others)
    specification = crop_specification(config.model.resolve().image_size)
    crops = UnlabelledCrops(lists.train, specification)
    machine = MachineConfig(root=source.root, lists=source.lists, accelerator=device, threads=threads)
    run = PretrainingRun(config, crops, path, launch(machine, config.precision))
    if (done := _done(run)) is not None:
        return done

    def save_now() -> bool:
        nonlocal saved
        due = monotonic() - saved >= save_every_s
        saved = monotonic() if due else saved
        return due

    run.train(stop=lambda: monotonic() - started >= max_seconds, save_now=save_now,
              on_update=lambda done, scalars: on_update(done, run.updates, scalars))
    if not run.finished:
        return PretrainingOutcome(path=path, updates_done=run.update, updates=run.updates, backbone_sha256="",
                                  report={})
    validation = UnlabelledCrops(lists.validation, specification)
    report = {"run": config.hash, "simulated": config.simulated, "precision": config.precision,
              "training_images": crops.counts, "validation_images": validation.counts,
              "unreadable_files": len(crops.troubles) + len(validation.troubles),
              **evaluate(run.network, validation, mean_targets(run.network, crops), seed=config.seed)}
    write_whole(run.files.report_file, json.dumps(report, indent=2, allow_nan=False).encode())
    what = "simulated crops" if config.simulated else "crops"
    draw_reconstructions(run.files.figure_file, run.network, validation, seed=config.seed,
                         title=f"validation {what}, run {config.hash}, {run.updates} updates")
    sha256 = run.write_backbone()
    run.write_done()
    return PretrainingOutcome(path=path, updates_done=run.update, updates=run.updates, backbone_sha256=sha256,
                              report=report)


def _done(run: PretrainingRun) -> PretrainingOutcome | None:
    """The outcome of a run that is finished already."""
    files: PretrainingFiles = run.files
    if not files.directory.finished:
        return None
    about = files.directory.read_json(files.directory.done_file)
    if not files.backbone_file.is_file():
        raise PretrainingError(f"{files.backbone_file} is missing though {files.path} is finished; pretrain again in "
                               "another directory")
    return PretrainingOutcome(path=files.path, updates_done=about["updates"], updates=run.updates,
                              backbone_sha256=about["backbone_sha256"],
                              report=files.directory.read_json(files.report_file))
