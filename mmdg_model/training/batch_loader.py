"""Runs requests through worker processes, in order, reading ahead; or in the process itself when there are none.

Workers are started once, at the first pass, and serve every later one: starting costs seconds, for torch's import. They
come from a fork server, which never had threads or a CUDA context; forking the training process itself, which has both,
can hang.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from mmdg_model.training.decoding import FileTrouble
from mmdg_model.training.level_cache import CacheIndex
from mmdg_model.training.sample_reader import BatchRequest, LoadedBatch, SampleReader

#: Batches that each worker makes ahead of the one that is waited for.
PREFETCH = 2


class BatchLoader:
    """One pass after another over requests. Not for several threads.

    Args:
        reader: makes batches; it is sent to each worker once.
        cache: which samples the reader's cache holds.
        workers: processes; 0 reads in this one.
        pin: whether batches go to page-locked memory, for copying to a GPU.
        on_trouble: called in this process with every trouble that any process met.

    Raises:
        ValueError: a negative number of workers.
    """

    def __init__(self, reader: SampleReader, cache: CacheIndex, *, workers: int = 0, pin: bool = False,
                 on_trouble: Callable[[FileTrouble], None]) -> None:
        if workers < 0:
            raise ValueError(f"machine.workers is {workers}, expected at least 0")
        self._reader = reader
        self._cache = cache
        self._workers = workers
        self._pin = pin
        self._on_trouble = on_trouble
        self._requests = _Requests()
        self._loader: DataLoader[LoadedBatch] | None = None
        self._passes = 0

    def run(self, requests: Sequence[BatchRequest]) -> Iterator[LoadedBatch]:
        """The batches of the requests, in their order.

        Raises:
            LoadingError: see `SampleReader`.
            RuntimeError: another pass was begun before this one ended; workers serve one at a time.
        """
        self._passes += 1
        number = self._passes
        self._requests.iterator = map(self._with_slots, requests)
        for batch in self._batches():
            for trouble in batch.troubles:
                self._on_trouble(trouble)
            self._cache.fill(batch.stored)
            yield batch
            if number != self._passes:
                raise RuntimeError("a pass over the data went on after another was begun; end one before the next")

    def close(self) -> None:
        """Ends the workers; a later pass starts new ones."""
        self._loader = None
        gc.collect()  # torch ends persistent workers when the loader's iterator is collected; it stands in a cycle

    def _batches(self) -> Iterator[LoadedBatch]:
        if self._workers == 0:
            for request in self._requests:
                batch = self._reader[request]
                if self._pin:
                    batch = batch._replace(planes=batch.planes.pin_memory(), present=batch.present.pin_memory())
                yield batch
            return
        if self._loader is None:
            self._loader = self._start()
        yield from self._loader

    def _start(self) -> DataLoader[LoadedBatch]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "cv2", SampleReader.__module__])
        sampler: Any = self._requests  # torch's samplers are annotated to give numbers; they may give anything
        return DataLoader(self._reader, sampler=sampler, batch_size=None, num_workers=self._workers,
                          multiprocessing_context=context, worker_init_fn=_start_worker, persistent_workers=True,
                          prefetch_factor=PREFETCH, pin_memory=self._pin, collate_fn=_unchanged,
                          generator=torch.Generator())  # its own: a pass leaves torch's random state as it was

    def _with_slots(self, request: BatchRequest) -> BatchRequest:
        """Says, just before sending, what is cached by now."""
        if not self._cache.capacity:
            return request
        samples = []
        for each in request.samples:
            slot = self._cache.slot(each.sample)
            samples.append(replace(each, slot=slot, is_cached=slot is not None and self._cache.is_filled(slot)))
        return replace(request, samples=tuple(samples))


class _Requests(Sampler[BatchRequest]):
    """What the loader's workers are asked for next; another iterator for every pass."""

    def __init__(self) -> None:
        self.iterator: Iterator[BatchRequest] = iter(())

    def __iter__(self) -> Iterator[BatchRequest]:
        return self.iterator


def _start_worker(_: int) -> None:
    """One thread a worker: there are as many workers as cores are to be used."""
    # Ctrl-C reaches every process of a terminal; the run decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _unchanged(batch: Any) -> Any:
    return batch
