"""`ListedData`: the `RunData` of the data sets' trees and lists.

What a training may see is enforced here: only the sources' train and validation lists are read when a run is opened.
The targets' test lists, and the files they name, are first touched by `test` and `test_samples`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch

from mmdg_model.inputs import DepthEncoding, InputSpecification, PreparedInputs
from mmdg_model.network import LIVE_COLUMN
from mmdg_model.training.augmentation import DrawKey
from mmdg_model.training.batch_loader import BatchLoader
from mmdg_model.training.decoding import FileTrouble, TroubleLog
from mmdg_model.training.epoch_order import EpochOrder, check_rank, share
from mmdg_model.training.fingerprint import file_sizes, fingerprint, require_tree
from mmdg_model.training.left_out import without_species
from mmdg_model.training.level_cache import CacheIndex, CacheLevels
from mmdg_model.training.manifests import Manifests, Metadata, list_path, read_manifests, read_metadata
from mmdg_model.training.methods.contract import TrainingBatch
from mmdg_model.training.protocols import Scenario, SubProtocol, sub_protocol
from mmdg_model.training.run_config import MachineConfig, RunConfig, RunConfigError
from mmdg_model.training.run_data import ScoringBatch
from mmdg_model.training.sample_reader import BatchRequest, LoadedBatch, SampleReader, SampleRequest
from mmdg_model.training.samples import Domain, Sample, Split
from mmdg_model.training.simulated_tree import is_simulated
from mmdg_model.training.ssp_loss import DomainClasses


class ListedData:
    """Samples of one run in one process. Implements `run_data.RunData`; make it with `open`.

    Attributes:
        classes, inputs, fingerprint, simulated: see `RunData`.
        training_samples: the sources' train lists, pooled, duplicates included, without `leave_out_species`.
        selection_samples: the sources' validation lists, pooled, as much without; `ScoringBatch.rows` of `selection`
            are places in it.
    """

    def __init__(self, config: RunConfig, machine: MachineConfig, *, rank: int, world_size: int,
                 protocol: SubProtocol, manifests: Manifests, metadata: Metadata, inputs: InputSpecification,
                 clock_s: Callable[[], float]) -> None:
        self.inputs = inputs
        sources, self.training_samples, self.selection_samples = without_species(
            config.leave_out_species, protocol.training_samples(manifests), protocol.selection_samples(manifests))
        self.classes = DomainClasses(tuple(str(domain) for domain in protocol.sources if domain in sources))
        self.fingerprint = _checked_fingerprint(
            machine, [(domain, split) for split in (Split.TRAIN, Split.VALIDATION) for domain in protocol.sources],
            self.training_samples + self.selection_samples)
        self.simulated = is_simulated(machine.root)
        self._config, self._machine, self._protocol, self._metadata = config, machine, protocol, metadata
        self._rank, self._world_size = rank, world_size
        recipe = config.recipe
        self._order = EpochOrder(
            [(sample.domain, sample.bona_fide) if recipe.balanced else None for sample in self.training_samples],
            seed=config.seed, samples_per_epoch=recipe.samples_per_epoch, batch_size=recipe.batch_size)
        # A process's part of an update: what its memory was planned for.
        self._pass_batch_size = max(1, recipe.batch_size // (world_size * recipe.accumulate))
        self._log = TroubleLog()
        cache = CacheIndex(machine.cache_mib, inputs.image_size,
                           len(self.training_samples) + len(self.selection_samples))
        levels = CacheLevels(cache.capacity, inputs.image_size, shared=machine.workers > 0) if cache.capacity else None
        self._pin = machine.accelerator != "cpu" and torch.cuda.is_available()
        self._loader = BatchLoader(SampleReader(inputs, config.augmentation, levels,
                                                config.inputs.withheld), cache, workers=machine.workers,
                                   pin=self._pin, on_trouble=self._log)
        self._unscored: dict[Split, set[int]] = {Split.VALIDATION: set(), Split.TEST: set()}
        self._clock_s = clock_s
        self._waited_s, self._asked_at_s = 0.0, clock_s()

    @classmethod
    def open(cls, config: RunConfig, machine: MachineConfig, *, rank: int = 0, world_size: int = 1,
             clock_s: Callable[[], float] = time.perf_counter) -> Self:
        """Reads the lists that training needs; opens no image and no list of a target.

        Args:
            config: its protocol, model, inputs, recipe, augmentation and seed.
            machine: where the tree lies, workers, cache.
            rank, world_size: which process of how many this is.
            clock_s: for `take_waiting_share`.

        Raises:
            ManifestError: a list or the metadata cannot be used, or none of a list's files exist below the root.
            RunConfigError: the data is not what the run was configured on, or no network can be fed with it as the
                configuration says.
            ValueError: an impossible rank, number of workers or size of cache.
        """
        check_rank(rank, world_size)
        if not config.inputs.depth_levels:
            raise RunConfigError("run configuration: inputs.depth_levels is False, but the trees of the data sets hold "
                                 "8-bit depth images, whose metres are lost; set it to True")
        protocol = sub_protocol(config.protocol)
        metadata = read_metadata(machine.metadata) if machine.metadata is not None else {}
        model = config.model.resolve()
        inputs = InputSpecification(
            image_size=model.image_size, depth_encoding=DepthEncoding.IDENTITY_8BIT,
            infrared_encoding=config.inputs.infrared, absence=model.absence)
        data = cls(config, machine, rank=rank, world_size=world_size, protocol=protocol, metadata=metadata,
                   manifests=read_manifests(machine.root, machine.lists, domains=protocol.sources,
                                            splits=(Split.TRAIN, Split.VALIDATION), metadata=metadata),
                   inputs=inputs, clock_s=clock_s)
        if config.data not in ("", data.fingerprint):
            raise RunConfigError(f"run configuration: data is {config.data}, but the lists of {machine.lists} and "
                                 f"the files of {machine.root} have the fingerprint {data.fingerprint}; use the data "
                                 "that the run was begun with, or begin another run")
        return data

    @property
    def updates_per_epoch(self) -> int:
        """The last, shorter one included."""
        return self._order.updates_per_epoch

    @property
    def troubles(self) -> Sequence[FileTrouble]:
        """Files that this process or its workers could not use so far, each once."""
        return self._log.troubles

    @cached_property
    def test_samples(self) -> tuple[Sample, ...]:
        """The targets' test lists, pooled; read at the first call. `ScoringBatch.rows` of `test` are places in it.

        Raises:
            ManifestError: see `open`.
        """
        samples = self._protocol.test_samples(read_manifests(
            self._machine.root, self._machine.lists, domains=self._protocol.targets, splits=(Split.TEST,),
            metadata=self._metadata))
        require_tree(samples, file_sizes(samples), self._machine.root)
        return samples

    @cached_property
    def test_fingerprint(self) -> str:
        """As `fingerprint`, of the targets' test lists. No part of a run's identity: training must not depend on it."""
        return _checked_fingerprint(self._machine, [(domain, Split.TEST) for domain in self._protocol.targets],
                                    self.test_samples)

    @property
    def unscored(self) -> Sequence[Sample]:
        """Samples of the validation and test lists that no pass of this process can score; their troubles say why."""
        tested = self._unscored[Split.TEST]
        return ([self.selection_samples[row] for row in sorted(self._unscored[Split.VALIDATION])]
                + ([self.test_samples[row] for row in sorted(tested)] if tested else []))

    def epoch(self, epoch: int, *, first_update: int = 0) -> Iterator[Sequence[TrainingBatch]]:
        """See `RunData.epoch`. A sample whose colour image cannot be read is left out, and its part is smaller by it.

        Raises:
            ValueError: a negative epoch, or a first update outside the epoch.
            LoadingError, RuntimeError: see `BatchLoader.run`.
        """
        updates = list(self._order.updates(epoch, first_update=first_update, rank=self._rank,
                                           world_size=self._world_size, parts=self._config.recipe.accumulate))
        requests = [BatchRequest(tuple(
            SampleRequest(self.training_samples[draw.place], DrawKey(self._config.seed, epoch, draw.place, draw.copy))
            for draw in part)) for update in updates for part in update]
        return self._updates([len(update) for update in updates], requests)

    def _updates(self, parts_of_update: list[int], requests: list[BatchRequest]) -> Iterator[list[TrainingBatch]]:
        batches, place = self._loader.run(requests), 0
        for parts in parts_of_update:
            began_s = self._clock_s()
            update = [self._training_batch(request, next(batches)) for request in requests[place:place + parts]]
            place += parts
            self._waited_s += self._clock_s() - began_s
            yield [batch for batch in update if len(batch.label)]

    def clean_batches(self) -> Iterator[TrainingBatch]:
        """See `RunData.clean_batches`; lines that the lists repeat are repeated."""
        requests = [BatchRequest(tuple(SampleRequest(self.training_samples[row]) for row in rows))
                    for rows in self._batched(self._own(self.training_samples))]
        for request, loaded in zip(requests, self._loader.run(requests), strict=True):
            if loaded.kept:
                yield self._training_batch(request, loaded)

    def selection(self) -> Iterable[ScoringBatch]:
        """See `RunData.selection`. Samples that cannot be scored are left out, at every epoch alike: see `unscored`."""
        return self._scoring(Split.VALIDATION, self.selection_samples, Scenario.COMPLETE)

    def test(self, scenario: Scenario) -> Iterable[ScoringBatch]:
        """See `RunData.test`. As `selection`.

        Raises:
            ManifestError: see `open`; it is the first call that reads the targets' lists.
        """
        return self._scoring(Split.TEST, self.test_samples, scenario)

    def _scoring(self, split: Split, samples: Sequence[Sample], scenario: Scenario) -> Iterator[ScoringBatch]:
        unscored = self._unscored[split]
        # Once out, always out: tables of two epochs must hold the same rows, whatever a file server does. The others
        # stay in the batches that they were in, so that their scores do not even move in the last bit.
        batches = [rows for batch in self._batched(self._own(samples))
                   if (rows := [row for row in batch if row not in unscored])]
        requests = [BatchRequest(tuple(SampleRequest(samples[row]) for row in rows), scenario) for rows in batches]
        for rows, loaded in zip(batches, self._loader.run(requests), strict=True):
            unscored.update(row for number, row in enumerate(rows) if number not in loaded.kept)
            if loaded.kept:
                kept = [rows[number] for number in loaded.kept]
                yield ScoringBatch(inputs=PreparedInputs(loaded.planes.numpy(), loaded.present.numpy()),
                                   samples=[samples[row] for row in kept], rows=np.array(kept, dtype=np.int64))

    def take_waiting_share(self) -> float:
        """See `RunData.take_waiting_share`."""
        now_s = self._clock_s()
        waited_s, elapsed_s = self._waited_s, now_s - self._asked_at_s
        self._waited_s, self._asked_at_s = 0.0, now_s
        return min(1.0, waited_s / elapsed_s) if elapsed_s > 0.0 else 0.0

    def close(self) -> None:
        """Ends the worker processes. They end with this process too."""
        self._loader.close()

    def _own(self, samples: Sequence[Sample]) -> range:
        return share(len(samples), self._rank, self._world_size)

    def _batched(self, rows: range) -> list[range]:
        return [rows[start:start + self._pass_batch_size] for start in range(0, len(rows), self._pass_batch_size)]

    def _training_batch(self, request: BatchRequest, loaded: LoadedBatch) -> TrainingBatch:
        samples = [request.samples[number].sample for number in loaded.kept]
        columns = ([LIVE_COLUMN if sample.bona_fide else 1 - LIVE_COLUMN for sample in samples],
                   [self.classes.row(sample.domain, is_live=sample.bona_fide) for sample in samples],
                   [self.classes.sources.index(sample.domain) for sample in samples])
        label, domain, source = (torch.tensor(column, dtype=torch.int64) for column in columns)
        batch = TrainingBatch(loaded.planes, loaded.present, label, domain, source)
        return TrainingBatch(*(tensor.pin_memory() for tensor in batch)) if self._pin else batch


def _checked_fingerprint(machine: MachineConfig, lists: Sequence[tuple[Domain, Split]],
                         samples: Sequence[Sample]) -> str:
    sizes = file_sizes(samples)
    require_tree(samples, sizes, machine.root)
    return fingerprint([_list(machine, domain, split) for domain, split in lists], samples, sizes)


def _list(machine: MachineConfig, domain: Domain, split: Split) -> Path:
    return list_path(machine.lists, domain, split)
