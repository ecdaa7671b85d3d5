"""The pretraining loop and its directory: goes on bit for bit where a killed run stood.

    pretraining.json          the `PretrainingConfig`, canonical
    environment.json          program, packages and machine of each start
    metrics.jsonl             a line an update; a resumed run's is the same as an uninterrupted one's
    troubles.jsonl            files that could not be used
    resume/state.safetensors  network and optimiser, while the run is unfinished
    backbone.safetensors      the encoder (`mmdg train --backbone`)
    report.json               errors on validation crops beside those of the mean patch
    reconstructions.png
    done.json                 written last
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmdg_model.network import MODALITIES
from mmdg_model.training.compute import Compute, TrainingDiverged
from mmdg_model.training.environment import describe_machine, program
from mmdg_model.training.pretraining.config import PretrainingConfig, PretrainingError
from mmdg_model.training.pretraining.crops import UnlabelledCrops
from mmdg_model.training.pretraining.masked_autoencoder import (
    Errors,
    MaskedAutoencoder,
    MaskedBatch,
    Reconstruction,
    build_masked_autoencoder,
)
from mmdg_model.training.resume import load_optimiser_state, optimiser_state, under
from mmdg_model.training.run_directory import (
    RunDirectory,
    RunDirectoryError,
    differences,
    read_safetensors,
    write_safetensors,
)
from mmdg_model.training.schedule import Schedule
from mmdg_model.weights.backbone import Backbone, save_backbone
from mmdg_model.whole_file import write_whole

#: Moments of AdamW in MAE's pretraining.
BETAS = (0.9, 0.95)

#: Layout names of the files that come out, by whether the crops were simulated.
LAYOUTS = {True: "masked_autoencoding_simulated", False: "masked_autoencoding"}


@dataclass(frozen=True, kw_only=True)
class PretrainingFiles:
    """Names of a run's files."""

    path: Path

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    @property
    def config_file(self) -> Path:
        return self.path / "pretraining.json"

    @property
    def state_file(self) -> Path:
        return self.directory.resume / "state.safetensors"

    @property
    def backbone_file(self) -> Path:
        return self.path / "backbone.safetensors"

    @property
    def report_file(self) -> Path:
        return self.path / "report.json"

    @property
    def figure_file(self) -> Path:
        return self.path / "reconstructions.png"


class PretrainingRun:
    """A run in progress.

    Args:
        config: with the fingerprint of the crops.
        crops: training crops.
        path: the run's directory; an unfinished run of the same configuration in it goes on.
        compute: device and precision; one process.

    Raises:
        PretrainingError: the directory holds another run, or several processes.
    """

    def __init__(self, config: PretrainingConfig, crops: UnlabelledCrops, path: Path, compute: Compute) -> None:
        if compute.world_size != 1:
            raise PretrainingError(f"{compute.world_size} processes, but pretraining runs in one")
        self.config, self.crops, self.compute = config, crops, compute
        self.files = PretrainingFiles(path=path)
        model = config.model.resolve()
        self.grid = model.grid
        self.network = build_masked_autoencoder(model, config.decoder, config.objective, seed=config.seed)
        self.network.to(compute.device).train()
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config.optimiser.weight_decay),
                                           lr=config.optimiser.learning_rate, betas=BETAS)
        self.schedule = Schedule(self.optimizer, config.optimiser, self.updates)
        self.update = 0
        self._claim()
        self._resume()
        self._record_start()

    @property
    def updates_per_epoch(self) -> int:
        return math.ceil(len(self.crops) / self.config.batch_size)

    @property
    def updates(self) -> int:
        """Of the whole run."""
        return self.config.epochs * self.updates_per_epoch

    @property
    def finished(self) -> bool:
        """All updates are made."""
        return self.update >= self.updates

    def train(self, *, stop: Callable[[], bool] = lambda: False, save_now: Callable[[], bool] = lambda: False,
              on_update: Callable[[int, Mapping[str, float | None]], None] = lambda update, scalars: None) -> None:
        """Updates until the last one or until `stop`, which is asked after each; then the state is on disk.

        Args:
            stop: whether to leave off here, for a time limit.
            save_now: whether to save after this update too; whenever it is, the result is the same.
            on_update: told the number of updates made and what the last one's line says.

        Raises:
            TrainingDiverged: a loss or gradient is not finite.
        """
        lines = self._open_metrics()
        try:
            for batch in self._batches():
                scalars = self._step(batch.to(self.compute.device))
                lines.write(json.dumps({"update": self.update, **scalars}) + "\n")
                lines.flush()
                self.update += 1
                on_update(self.update, scalars)
                ended = stop()
                if ended or self.finished or save_now():
                    os.fsync(lines.fileno())
                    self.save()
                if ended:
                    return
        finally:
            lines.close()

    def save(self) -> None:
        """Writes what a killed run goes on from, whole or not at all."""
        moments, values = optimiser_state(self.optimizer)
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"optimiser/{place}": tensor for place, tensor in moments.items()}
        write_safetensors(self.files.state_file, tensors, {
            "update": str(self.update), "run": self.config.hash, "optimiser_values": json.dumps(values)})

    def write_backbone(self) -> str:
        """Writes the encoder as a backbone file; returns its SHA-256."""
        return save_backbone(self.backbone(), self.files.backbone_file)

    def backbone(self) -> Backbone:
        """The encoder as it is now; the record says of what, by how many updates of how many."""
        specification = self.crops.specification
        what = "simulated crops" if self.config.simulated else "crops"
        return Backbone(
            config=self.config.backbone_config(), layout=LAYOUTS[self.config.simulated],
            weights={name: tensor.detach().cpu().clone() for name, tensor in
                     self.network.encoder.state_dict().items()},
            source_sha256=self.config.data, pixel_mean=(specification.colour_mean / 255.0,) * 3,
            pixel_std=(specification.colour_scale / 255.0,) * 3,
            created_by=f"{program()}, mmdg pretrain, run {self.config.hash}, {self.update} of "
                       f"{self.updates} updates on {what} without labels")

    def write_done(self) -> None:
        """The run is finished; what it would have gone on from is not needed any more."""
        digest = hashlib.sha256(self.files.backbone_file.read_bytes()).hexdigest()
        about = {"updates": self.update, "backbone_sha256": digest}
        write_whole(self.files.directory.done_file, json.dumps(about, indent=2).encode())
        self.files.state_file.unlink(missing_ok=True)

    def _step(self, batch: MaskedBatch) -> dict[str, float | None]:
        rate = self.schedule.set(self.update)
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast(), self._attention():
            made = self.network(batch)
        errors = self.network.errors(batch, made)
        loss = self.network.total(errors)
        if not bool(torch.isfinite(loss)):
            raise TrainingDiverged(f"the loss of update {self.update} is {float(loss.detach())}; lower the learning "
                                   "rate")
        (loss * self.compute.loss_scale).backward()  # type: ignore[no-untyped-call]
        self.compute.apply(self.optimizer)
        return {"loss/total": float(loss.detach()), **_by_modality(errors, made), "learning_rate": rate}

    def _attention(self) -> AbstractContextManager[object]:
        """Plain attention on a processor, where the fused form's backward pass takes half the step (benchmark)."""
        return sdpa_kernel(SDPBackend.MATH) if self.compute.device.type == "cpu" else nullcontext()

    def _batches(self) -> Iterator[MaskedBatch]:
        """From the next update on; a thread prepares the one after. Keyed draws make the order of work irrelevant."""
        if self.finished:
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._batch, self.update)
            for update in range(self.update, self.updates):
                batch = ahead.result()
                if update + 1 < self.updates:
                    ahead = pool.submit(self._batch, update + 1)
                yield batch

    def _batch(self, update: int) -> MaskedBatch:
        epoch, part = divmod(update, self.updates_per_epoch)
        size = self.config.batch_size
        places = self.crops.order(self.config.seed, epoch)[part * size:(part + 1) * size]
        return self.crops.training_batch([int(place) for place in places], seed=self.config.seed, epoch=epoch,
                                         visible=self.network.visible, augmentation=self.config.augmentation,
                                         grid=self.grid)

    def _claim(self) -> None:
        text, path = self.config.to_json(), self.files.config_file
        if path.is_file():
            if (stored := self.files.directory.read_json(path)) != json.loads(text):
                raise PretrainingError(f"{path} is another run: {differences(stored, json.loads(text))}; name another "
                                       "directory or take the run's own settings")
        elif self.files.path.is_dir() and any(self.files.path.iterdir()):
            raise PretrainingError(f"{self.files.path} is not empty and no pretraining run; name another directory")
        else:
            write_whole(path, text.encode())

    def _record_start(self) -> None:
        environment = self.files.directory.environment_file
        starts = self.files.directory.read_json(environment) if environment.is_file() else []
        starts.append(describe_machine(self.compute, first_update=self.update))
        write_whole(environment, json.dumps(starts, indent=2).encode())
        write_whole(self.files.directory.troubles_file, "".join(
            json.dumps({"file": trouble.path.name, "modality": str(trouble.modality), "kind": str(trouble.kind),
                        "reason": trouble.reason}) + "\n" for trouble in self.crops.troubles).encode())

    def _resume(self) -> None:
        if not self.files.state_file.is_file():
            return
        try:
            tensors, metadata = read_safetensors(self.files.state_file)
        except RunDirectoryError as error:
            raise PretrainingError(f"{error}; remove it to start again") from error
        if metadata.get("run") != self.config.hash:
            raise PretrainingError(f"{self.files.state_file} is of run {metadata.get('run')!r}, this is "
                                   f"{self.config.hash}; remove it to start again")
        self.network.load_state_dict(under(tensors, "network/"))
        load_optimiser_state(self.optimizer, under(tensors, "optimiser/"), json.loads(metadata["optimiser_values"]))
        self.update = int(metadata["update"])

    def _open_metrics(self) -> Any:
        """The log, with lines of updates that are about to be made again taken off."""
        path = self.files.directory.metrics_file
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:self.update] if path.is_file() else []
        write_whole(path, "".join(kept).encode())
        return path.open("a", encoding="utf-8")


def _parameter_groups(network: MaskedAutoencoder, weight_decay: float) -> list[dict[str, Any]]:
    """Biases, norms, tokens and positions do not decay."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        plain = parameter.dim() < 2 or name.endswith(("class_token", "position", "mask_token", "wanted_modality"))
        (free if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _by_modality(errors: Errors, made: Reconstruction) -> dict[str, float | None]:
    """None for a modality without an image in the batch."""
    scalars: dict[str, float | None] = {}
    for index, modality in enumerate(MODALITIES):
        rows = made.modality == index
        scalars[f"masked/{modality}"] = float(errors.masked.detach()[rows].mean()) if bool(rows.any()) else None
    scalars["cross_modal"] = float(errors.across.detach().mean()) if len(errors.across) else None
    scalars["class_token"] = float(errors.class_token.detach().mean())
    return scalars
